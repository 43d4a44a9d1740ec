//! The directory of tenants, served to gateways on a listener of its own: which
//! file, where, and to whom.

mod http;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail, ensure};
use bytes::Bytes;
use serde::Deserialize;
use tokio::{net::TcpListener, sync::watch as published};
use tokio_util::sync::CancellationToken;
use weir_router_core::{
    directory::{
        file::{FILE_MAX_BYTES, File},
        served::{Gone, Offered, Served},
        snapshot::Snapshot,
    },
    plan::Plan,
    quota::service::Tenants,
};
use weir_router_store::directory::DirectoryFile;
use weir_wire::{directory::TOKEN_ENVIRONMENT, ids::PlanName, proto::directory::SnapshotRequest};

use crate::{callout, offers::Offers};

/// How long gateways may take to read their page after a signal to stop.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// The section `directory` of the router's configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    file: PathBuf,
    audit: Option<PathBuf>,
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
    /// `<file>.audit.jsonl` where absent.
    audit: Option<PathBuf>,
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
        Ok(Self {
            file: base.join(section.file),
            audit: section.audit.map(|path| base.join(path)),
            listen: section.listen,
            poll: Duration::from_millis(section.poll_ms),
            token: callout::token(TOKEN_ENVIRONMENT)?,
            plans,
        })
    }

    /// The same file, for those who change it; what they change is served once the
    /// watcher sees it.
    pub fn writer(&self) -> DirectoryFile {
        DirectoryFile::new(&self.file, self.audit.as_deref(), self.plans.clone())
    }
}

/// A valid state of the file.
struct State {
    /// For gateways.
    snapshot: Snapshot,
    /// For the quota service: gateways are told of no limits.
    tenants: Tenants,
    /// For requests.
    plans: BTreeMap<PlanName, Plan>,
}

/// What is served, shared between the listener, the watcher and the quota service.
#[derive(Clone)]
pub struct Shared {
    served: Arc<RwLock<Served>>,
    tenants: published::Sender<Arc<Tenants>>,
    offers: Arc<Offers>,
}

impl Shared {
    fn new(state: State, offers: Arc<Offers>) -> anyhow::Result<Self> {
        offers.set_plans(state.plans).map_err(|m| anyhow!(m))?;
        Ok(Self {
            served: Arc::new(RwLock::new(Served::new(state.snapshot))),
            tenants: published::Sender::new(Arc::new(state.tenants)),
            offers,
        })
    }

    // A panic under the lock cannot leave a state half replaced.
    fn read(&self) -> RwLockReadGuard<'_, Served> {
        self.served.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Served> {
        self.served.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The page that is asked for, encoded.
    pub fn page(&self, asked: &SnapshotRequest) -> Result<Bytes, Gone> {
        self.read().answer(asked)
    }

    /// Serves a newer state from now on, to gateways and to the quota service.
    fn offer(&self, state: State) -> anyhow::Result<Offered> {
        self.offers
            .check_plans(&state.plans)
            .map_err(|m| anyhow!(m))?;
        let offered = self.write().offer(state.snapshot)?;
        if let Offered::Changed { .. } = offered {
            self.offers.set_plans(state.plans).map_err(|m| anyhow!(m))?;
            self.tenants.send_replace(Arc::new(state.tenants));
        }
        Ok(offered)
    }
}

/// A directory that is about to be served.
pub struct Directory {
    /// Where it listens.
    pub address: SocketAddr,
    listener: TcpListener,
    token: String,
    /// For those who change the file; taken by whoever serves them.
    pub writer: Option<DirectoryFile>,
    watcher: watch::Watcher,
    shared: Shared,
    poll: Duration,
}

impl Directory {
    /// Reads the file, and listens.
    pub async fn open(options: Options, offers: Arc<Offers>) -> anyhow::Result<Self> {
        let writer = options.writer();
        let (watcher, shared) = watch::Watcher::start(options.file, options.plans, offers).await?;
        let listener = TcpListener::bind(options.listen)
            .await
            .with_context(|| format!("directory.listen: cannot bind {}", options.listen))?;
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            token: options.token,
            writer: Some(writer),
            watcher,
            shared,
            poll: options.poll,
        })
    }

    /// The tenants of each state that is served, from when it is.
    pub fn tenants(&self) -> published::Receiver<Arc<Tenants>> {
        self.shared.tenants.subscribe()
    }

    /// What is served, for another listener.
    pub fn shared(&self) -> Shared {
        self.shared.clone()
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
fn understand(path: &Path, text: &str, plans: &BTreeSet<PlanName>) -> anyhow::Result<State> {
    let understood = || -> anyhow::Result<State> {
        let file = File::parse(text)?;
        file.validate(plans)?;
        Ok(State {
            snapshot: Snapshot::new(&file)?,
            tenants: Tenants::of(&file),
            plans: file.plans,
        })
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
    use weir_router_core::directory::{audit::Actor, change::Change};
    use weir_wire::{ids::TenantId, timestamp::Timestamp};

    use super::*;

    #[test]
    fn a_change_is_served_by_who_watches_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory.yaml");
        fs::write(&path, "version: 1\ntenants: [{id: acme, plan: pro}]\n").unwrap();
        let section: Section =
            serde_saphyr::from_str("{file: directory.yaml, audit: log, listen: '[::1]:0'}")
                .unwrap();
        let options = Options {
            file: folder.path().join(section.file),
            audit: section.audit.map(|audit| folder.path().join(audit)),
            listen: section.listen,
            poll: Duration::from_millis(section.poll_ms),
            token: String::new(),
            plans: BTreeSet::new(),
        };
        let suspend = Change::Suspend(TenantId::new("acme").unwrap());
        let (actor, now) = (Actor::cli("ann").unwrap(), Timestamp::from_ms(1).unwrap());
        options.writer().change(suspend, &actor, now).ok().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let snapshot = understand(&path, &text, &BTreeSet::new()).unwrap().snapshot;
        assert_eq!(snapshot.version().number, 2);
        assert!(folder.path().join("log").exists());
    }

    #[test]
    fn the_example_is_understood_and_a_misspelt_field_is_named() {
        let text = include_str!("../../../examples/directory.yaml");
        let plans = ["enterprise", "starter"]
            .map(|p| PlanName::new(p).unwrap())
            .into();
        let path = Path::new("directory.yaml");
        let snapshot = understand(path, text, &plans).unwrap().snapshot;
        assert_eq!((snapshot.tenants(), snapshot.keys()), (2, 2));
        let wrong = text.replacen("sha256:", "sha265:", 1);
        let error = format!("{:#}", understand(path, &wrong, &plans).err().unwrap());
        assert!(
            error.contains("directory.yaml: ") && error.contains("sha265"),
            "{error}"
        );
    }
}
