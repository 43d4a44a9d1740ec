//! Watches the directory's file: what is whole and valid is served, what is not
//! is told once, and the state before it goes on.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use weir_process::Stamp;
use weir_router_core::directory::served::Offered;
use weir_wire::ids::PlanName;

use super::{Shared, State, read_text, understand};
use crate::{offers::Offers, watched};

/// What the last look at the file's content found.
struct Found {
    content: Option<[u8; 32]>,
    read: anyhow::Result<Option<State>>,
}

/// The file, and what is known of it.
pub struct Watcher {
    path: Arc<Path>,
    plans: Arc<BTreeSet<PlanName>>,
    shared: Shared,
    stamp: Option<Stamp>,
    content: Option<[u8; 32]>,
    /// The last error, so that it is told once.
    complaint: Option<String>,
}

impl Watcher {
    /// Reads the file for the first time.
    pub async fn start(
        path: PathBuf,
        plans: BTreeSet<PlanName>,
        offers: Arc<Offers>,
    ) -> anyhow::Result<(Self, Shared)> {
        let path: Arc<Path> = path.into();
        let plans = Arc::new(plans);
        let stamp = Stamp::of(&path);
        let found = read(Arc::clone(&path), Arc::clone(&plans), None).await?;
        let state = found
            .read?
            .ok_or_else(|| anyhow::anyhow!("{}: is not understood", path.display()))?;
        let snapshot = &state.snapshot;
        tracing::info!(
            version = snapshot.version().number,
            tenants = snapshot.tenants(),
            keys = snapshot.keys(),
            pages = snapshot.pages().len(),
            "serving the directory"
        );
        let shared = Shared::new(state, offers).with_context(|| path.display().to_string())?;
        let watcher = Self {
            path,
            plans,
            shared: shared.clone(),
            stamp,
            content: found.content,
            complaint: None,
        };
        Ok((watcher, shared))
    }

    /// Looks every `poll` until `stopping`.
    pub async fn run(mut self, poll: Duration, stopping: CancellationToken) {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(poll) => {}
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = self.look() => {}
            }
        }
    }

    /// Looks once, and serves what is new.
    async fn look(&mut self) {
        let Some(stamp) = watched::settled(&self.path, self.stamp.as_ref()).await else {
            return;
        };
        let known = self.content;
        let found = match read(Arc::clone(&self.path), Arc::clone(&self.plans), known).await {
            Ok(found) => found,
            Err(error) => return self.complain(format!("{error:#}")),
        };
        // It changed again while it was read: what was read may be a mixture.
        if watched::stamp_now(&self.path).await != stamp {
            return;
        }
        self.stamp = stamp;
        self.content = found.content;
        match found.read {
            Ok(Some(state)) => self.offer(state),
            // The same text again.
            Ok(None) => {}
            Err(error) => self.complain(format!("{error:#}")),
        }
    }

    fn offer(&mut self, state: State) {
        let snapshot = &state.snapshot;
        let version = snapshot.version().number;
        let (tenants, keys, pages) = (snapshot.tenants(), snapshot.keys(), snapshot.pages().len());
        let offered = self.shared.offer(state);
        match offered {
            Ok(Offered::Changed { tenants: changed }) => {
                self.complaint = None;
                tracing::info!(
                    version,
                    tenants,
                    keys,
                    pages,
                    changed,
                    "serving a new version of the directory"
                );
            }
            Ok(Offered::Same) => {
                if self.complaint.take().is_some() {
                    tracing::info!(version, "the directory is again what is served");
                }
            }
            Err(error) => self.complain(format!("{}: {error:#}", self.path.display())),
        }
    }

    fn complain(&mut self, message: String) {
        if self.complaint.as_ref() != Some(&message) {
            let served = self.shared.read().newest().version().number;
            tracing::error!(
                served,
                "the directory stays at the version that is served: {message}"
            );
            self.complaint = Some(message);
        }
    }
}

/// Reads the file, and understands it unless its content is `known`. Off the
/// threads that serve: a large file takes seconds.
async fn read(
    path: Arc<Path>,
    plans: Arc<BTreeSet<PlanName>>,
    known: Option<[u8; 32]>,
) -> anyhow::Result<Found> {
    let read = move || {
        let text = match read_text(&path) {
            Ok(text) => text,
            Err(error) => {
                return Found {
                    content: None,
                    read: Err(error),
                };
            }
        };
        let content: [u8; 32] = Sha256::digest(&text).into();
        Found {
            content: Some(content),
            read: if known == Some(content) {
                Ok(None)
            } else {
                understand(&path, &text, &plans).map(Some)
            },
        }
    };
    Ok(tokio::task::spawn_blocking(read).await?)
}

#[cfg(test)]
mod tests {
    use weir_router_core::{directory::file::File, quota::service::Tenants};

    use std::fs;

    use super::*;

    const KEY: &str = "ab";

    fn text(version: u64, plan: &str) -> String {
        let hash = KEY.repeat(32);
        format!(
            "version: {version}\ntenants:\n  - id: acme\n    plan: {plan}\n    keys:\n      - {{id: k1, sha256: {hash}}}\n"
        )
    }

    /// Writes, looks, and compares what is served and what was complained of.
    async fn check(
        watcher: &mut Watcher,
        write: Option<&str>,
        served: u64,
        complaint: Option<&str>,
    ) {
        match write {
            Some(text) => fs::write(&watcher.path, text).unwrap(),
            None => fs::remove_file(&watcher.path).unwrap(),
        }
        watcher.look().await;
        assert_eq!(watcher.shared.read().newest().version().number, served);
        match (&watcher.complaint, complaint) {
            (None, None) => {}
            (Some(found), Some(says)) => assert!(found.contains(says), "{found}"),
            (found, expected) => panic!("{found:?}, not {expected:?}"),
        }
    }

    #[tokio::test]
    async fn what_is_valid_is_served_and_what_is_not_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory.yaml");
        fs::write(&path, text(1, "starter")).unwrap();
        let plans: BTreeSet<PlanName> =
            ["starter", "pro"].map(|p| PlanName::new(p).unwrap()).into();
        let (mut watcher, _) = Watcher::start(path, plans, crate::offers::tests::offers())
            .await
            .unwrap();
        let w = &mut watcher;
        check(w, Some(&text(2, "pro")), 2, None).await;
        let half = text(3, "pro");
        check(w, Some(&half[..half.len() - 9]), 2, Some("tenants[0].keys")).await;
        check(w, Some(""), 2, Some("directory.yaml")).await;
        check(w, Some(&half), 3, None).await;
        check(w, Some(&text(3, "starter")), 3, Some("raise version")).await;
        check(w, Some(&text(1, "pro")), 3, Some("raise version")).await;
        check(w, Some(&half), 3, None).await;
        check(w, Some(&text(4, "gold")), 3, Some("tenants[0].plan")).await;
        check(w, None, 3, Some("cannot be read")).await;
        check(w, Some(&text(4, "starter")), 4, None).await;
    }

    #[tokio::test]
    async fn limits_reach_the_quota_service_with_their_version() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory.yaml");
        let text = |version, requests| {
            let limits = format!("    limits: [{{requests: {requests}, window_s: 60}}]\n");
            text(version, "starter") + &limits
        };
        fs::write(&path, text(1, 5)).unwrap();
        let (mut watcher, shared) =
            Watcher::start(path, BTreeSet::new(), crate::offers::tests::offers())
                .await
                .unwrap();
        let published = shared.tenants.subscribe();
        let w = &mut watcher;
        for (version, requests, served, complaint) in [
            (1, 6, (1, 5), Some("raise version")),
            (2, 6, (2, 6), None),
            (1, 7, (2, 6), Some("raise version")),
            (3, 0, (2, 6), Some("tenants[0].limits[0].requests")),
            (2, 6, (2, 6), None),
        ] {
            check(w, Some(&text(version, requests)), served.0, complaint).await;
            let file = File::parse(&text(served.0, served.1)).unwrap();
            assert_eq!(**published.borrow(), Tenants::of(&file));
        }
    }

    #[tokio::test]
    async fn a_bad_file_is_no_start() {
        let folder = tempfile::tempdir().unwrap();
        for (write, says) in [
            (None, "cannot be read"),
            (Some("version: 0\ntenants: []"), "version: "),
        ] {
            let path = folder.path().join("directory.yaml");
            if let Some(text) = write {
                fs::write(&path, text).unwrap();
            }
            let error = Watcher::start(path, BTreeSet::new(), crate::offers::tests::offers())
                .await
                .err()
                .unwrap();
            let error = format!("{error:#}");
            assert!(
                error.contains("directory.yaml") && error.contains(says),
                "{error}"
            );
        }
    }
}
