//! The directory of tenants, served to gateways on a listener of its own: which
//! file, where, and to whom.

mod http;
mod watch;

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use weir_process::secret;
use weir_router_core::directory::{
    file::{FILE_MAX_BYTES, File},
    served::Served,
    snapshot::Snapshot,
};
use weir_wire::{directory::TOKEN_ENVIRONMENT, ids::PlanName};

/// The least bytes of the token: 32 characters of base64url are 192 bits.
const TOKEN_MIN_BYTES: usize = 32;

/// How long gateways may take to read their page after a signal to stop.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// The section `directory` of the router's configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    file: PathBuf,
    listen: SocketAddr,
    #[serde(default = "default_poll_ms")]
    poll_ms: u64,
}

fn default_poll_ms() -> u64 {
    1000
}

/// What the directory is served by, checked.
pub struct Options {
    file: PathBuf,
    listen: SocketAddr,
    poll: Duration,
    token: String,
    plans: BTreeSet<PlanName>,
}

impl Options {
    /// Checks the section; the file is beside `base`.
    pub fn new(section: Section, base: &Path, plans: BTreeSet<PlanName>) -> anyhow::Result<Self> {
        ensure!(
            (10..=60_000).contains(&section.poll_ms),
            "directory.poll_ms: must be 10 to 60000, found {}",
            section.poll_ms
        );
        let token = secret(TOKEN_ENVIRONMENT)?;
        check_token(&token)?;
        Ok(Self {
            file: base.join(section.file),
            listen: section.listen,
            poll: Duration::from_millis(section.poll_ms),
            token,
            plans,
        })
    }
}

fn check_token(token: &str) -> anyhow::Result<()> {
    ensure!(
        token.len() >= TOKEN_MIN_BYTES,
        "{TOKEN_ENVIRONMENT}: must be at least {TOKEN_MIN_BYTES} bytes, found {}",
        token.len()
    );
    // No header could carry another, and no gateway would ever be let in.
    ensure!(
        token.bytes().all(|b| b.is_ascii_graphic()),
        "{TOKEN_ENVIRONMENT}: must be visible ASCII without spaces, found something else"
    );
    Ok(())
}

/// What is served, shared between the listener and the watcher.
#[derive(Clone)]
pub struct Shared(Arc<RwLock<Served>>);

impl Shared {
    fn new(snapshot: Snapshot) -> Self {
        Self(Arc::new(RwLock::new(Served::new(snapshot))))
    }

    // A panic under the lock cannot leave a state half replaced.
    fn read(&self) -> RwLockReadGuard<'_, Served> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Served> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A directory that is about to be served.
pub struct Directory {
    /// Where it listens.
    pub address: SocketAddr,
    listener: TcpListener,
    token: String,
    watcher: watch::Watcher,
    shared: Shared,
    poll: Duration,
}

impl Directory {
    /// Reads the file, and listens.
    pub async fn open(options: Options) -> anyhow::Result<Self> {
        let (watcher, shared) = watch::Watcher::start(options.file, options.plans).await?;
        let listener = TcpListener::bind(options.listen)
            .await
            .with_context(|| format!("directory.listen: cannot bind {}", options.listen))?;
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            token: options.token,
            watcher,
            shared,
            poll: options.poll,
        })
    }

    /// Serves it until `stopping`, each new state of the file from when it is
    /// seen.
    pub async fn serve(self, stopping: CancellationToken) {
        let watching = tokio::spawn(self.watcher.run(self.poll, stopping.clone()));
        let routes = http::routes(self.shared, &self.token);
        let left = weir_process::serve(
            self.listener,
            routes,
            stopping.cancelled_owned(),
            STOP_GRACE,
        )
        .await;
        if left.is_some() {
            tracing::warn!("gateways were still reading the directory after {STOP_GRACE:?}");
        }
        let _ = watching.await;
    }
}

/// Reads and encodes a file's text. The message names the file and the field.
fn understand(path: &Path, text: &str, plans: &BTreeSet<PlanName>) -> anyhow::Result<Snapshot> {
    let understood = || -> anyhow::Result<Snapshot> {
        let file = File::parse(text)?;
        file.validate(plans)?;
        Ok(Snapshot::new(&file)?)
    };
    understood().with_context(|| path.display().to_string())
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    let read = || -> anyhow::Result<String> {
        let size = fs::metadata(path)?.len();
        if size > FILE_MAX_BYTES {
            bail!("must be at most {FILE_MAX_BYTES} bytes, found {size}");
        }
        Ok(fs::read_to_string(path)?)
    };
    read().with_context(|| format!("{}: cannot be read", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_token_refused(token: &str, says: &str) {
        let error = check_token(token).unwrap_err().to_string();
        assert!(
            error.contains(TOKEN_ENVIRONMENT) && error.contains(says),
            "{error}"
        );
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_token_is_long_and_fits_in_a_header() {
        check_token(&"x".repeat(32)).unwrap();
        check_token_refused("hunter2", "found 7");
        check_token_refused(&"hunter2 ".repeat(8), "without spaces");
    }

    #[test]
    fn the_example_is_understood_and_a_misspelt_field_is_named() {
        let text = include_str!("../../../examples/directory.yaml");
        let plans = ["enterprise", "starter"]
            .map(|p| PlanName::new(p).unwrap())
            .into();
        let path = Path::new("directory.yaml");
        let snapshot = understand(path, text, &plans).unwrap();
        assert_eq!((snapshot.tenants(), snapshot.keys()), (2, 2));
        let wrong = text.replacen("sha256:", "sha265:", 1);
        let error = format!("{:#}", understand(path, &wrong, &plans).unwrap_err());
        assert!(
            error.contains("directory.yaml: ") && error.contains("sha265"),
            "{error}"
        );
    }
}
