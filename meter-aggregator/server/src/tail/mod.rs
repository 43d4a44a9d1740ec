//! Follows the gateways' access logs: what stands there goes to the stream, and then
//! the ledger says how far a file was read. Killed between the two it reads again what
//! the ledger knows already.

mod file;
mod follower;
mod state;

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use weir_meter_store::{
    ledger::{FileId, LedgerError, Mark},
    stream::{AppendError, Batch, Way},
};
use weir_process::now_ms;
use weir_wire::{keys::Keyring, usage::line::LineKey};

use crate::{
    api::hostname,
    books::Books,
    config::{AccessLog, Producer},
    ingest::{Source, sort},
};
use follower::{Block, Follower, Step};
pub use state::{LogState, LogStatus};

/// How often a file is looked at that nothing new stands in.
const POLL: Duration = Duration::from_millis(200);

/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long the stream is left alone when it is busy.
const BUSY: Duration = Duration::from_millis(50);

/// One log and where it leads.
pub struct Tail {
    pub books: Books,
    /// What verifies the events' contexts.
    pub keys: Arc<Keyring>,
    pub log: AccessLog,
    /// The logs that are followed, this one among them.
    pub logs: Vec<Arc<LogState>>,
    pub state: Arc<LogState>,
    /// Which one the files are on.
    pub host: String,
    /// Dies once between the stream and the ledger.
    #[cfg(test)]
    dies: std::sync::atomic::AtomicBool,
}

impl Tail {
    /// Each of the logs, on this host.
    pub fn all(
        books: &Books,
        keys: &Arc<Keyring>,
        logs: Vec<(AccessLog, Arc<LogState>)>,
    ) -> anyhow::Result<Vec<Self>> {
        let host = hostname()?;
        let states: Vec<Arc<LogState>> = logs.iter().map(|(_, state)| state.clone()).collect();
        let tails = logs.into_iter().map(|(log, state)| Self {
            books: books.clone(),
            keys: keys.clone(),
            log,
            logs: states.clone(),
            state,
            host: host.clone(),
            #[cfg(test)]
            dies: false.into(),
        });
        Ok(tails.collect())
    }

    /// Reads until it is to stop.
    pub async fn run(self, mut stopped: watch::Receiver<bool>) {
        let mut follower = None;
        while !*stopped.borrow() {
            let pause = match self.step(&mut follower, now_ms()).await {
                Ok(true) => continue,
                Ok(false) => POLL,
                Err(error) => {
                    if let Some(follower) = &mut follower {
                        follower.rewind();
                    }
                    self.state.failed(&format!("{error:#}"));
                    RETRY
                }
            };
            tokio::select! {
                _ = stopped.wait_for(|s| *s) => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Takes what comes next; says whether something came.
    async fn step(&self, slot: &mut Option<Follower>, now_ms: i64) -> anyhow::Result<bool> {
        let mut follower = match slot.take() {
            Some(follower) => follower,
            None => self.follower(now_ms).await?,
        };
        let state = self.state.clone();
        let (follower, step) = tokio::task::spawn_blocking(move || {
            let step = follower.step(now_ms, &state);
            (follower, step)
        })
        .await?;
        let follower = slot.insert(follower);
        match step? {
            Step::Idle => {
                self.state.is_well();
                Ok(false)
            }
            Step::Begun(marks) => {
                for (id, mark) in marks {
                    self.mark(id, mark, now_ms).await?;
                    follower.marked(id, mark);
                }
                Ok(true)
            }
            Step::Read(block) => {
                let (id, mark) = (block.id, block.mark);
                self.state.read(&block);
                self.append(block).await?;
                #[cfg(test)]
                if self.dies.swap(false, std::sync::atomic::Ordering::Relaxed) {
                    anyhow::bail!("killed");
                }
                self.mark(id, mark, now_ms).await?;
                follower.marked(id, mark);
                Ok(true)
            }
        }
    }

    async fn follower(&self, now_ms: i64) -> Result<Follower, LedgerError> {
        let (path, host) = (self.path(), self.host.clone());
        let (known, since_ns) = self
            .books
            .with(move |ledger| ledger.log_files(&path, &host, now_ms))
            .await?;
        let others = self.logs.iter().map(|log| log.path.clone());
        let key = LineKey::of_token(&self.log.producer.token);
        Ok(Follower::new(&self.log.path, others, key, known, since_ns))
    }

    /// The log, as the ledger names it.
    fn path(&self) -> String {
        self.log.path.to_string_lossy().into_owned()
    }

    async fn append(&self, block: Block) -> Result<(), AppendError> {
        let batch = batch(block, &self.log.producer, &self.keys);
        loop {
            match self.books.intake().append(batch.clone()).await {
                // Nothing is read meanwhile, and others are let in.
                Err(AppendError::Busy | AppendError::Full { .. }) => tokio::time::sleep(BUSY).await,
                outcome => return outcome,
            }
        }
    }

    async fn mark(&self, id: FileId, mark: Mark, now_ms: i64) -> Result<(), LedgerError> {
        let (path, host) = (self.path(), self.host.clone());
        self.books
            .with(move |ledger| ledger.mark((&path, &host), &id, mark, now_ms))
            .await
    }
}

/// What a block comes to: its events are checked as those of a call are.
fn batch(block: Block, producer: &Producer, keys: &Keyring) -> Batch {
    let (events, places): (Vec<_>, Vec<_>) = block.events.into_iter().unzip();
    let place = |n: usize| places.get(n).cloned();
    let source = Source {
        producer: Some(producer),
        way: Way::Log,
    };
    let mut batch = sort(events, source, keys, place);
    for aside in &block.aside {
        let reason = &aside.reason;
        tracing::warn!(producer = %producer.name, reason, "a part of a log was quarantined");
    }
    batch.aside.extend(block.aside);
    batch
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
