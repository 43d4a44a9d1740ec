//! Empties the budgets' outbox: holds that were swept are witnessed, shares that
//! were reached are told.
//!
//! Each kind in a loop of its own, so that a webhook that is down keeps no witness
//! back. What several routers share may be told by each of them: a witness has the
//! id of its event, an alert one of its own, by which a second one is known.

use std::{collections::HashSet, time::Duration};

use prost::Message as _;
use tokio_util::sync::CancellationToken;
use weir_router_core::budget::{Happened, Mail};
use weir_router_store::BudgetStore;
use weir_wire::proto::usage::UsageEvent;

use crate::{
    alerts::{Alerts, Reached},
    metrics::Metrics,
    witness::Witnesses,
};

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(1);

/// The most entries that are looked at beside those that wait.
const MAIL_MAX: usize = 256;

/// The most that wait: what is beyond them in the outbox is seen later.
const WAITING_MAX: usize = 100_000;

/// Between two tries to tell a webhook that does not take what it is told.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Takes what happened to whom it concerns.
pub struct Postman {
    pub witnesses: Witnesses,
    pub alerts: Alerts,
    pub metrics: Metrics,
}

/// What a turn did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Turn {
    /// Entries that were taken out.
    taken: usize,
    /// Entries that could not be, or are for the other loop: they are at the front
    /// of the outbox.
    left: usize,
    /// Whether somebody did not take what they were told.
    is_refused: bool,
}

impl Postman {
    /// Goes its rounds until `stopping`.
    pub async fn run<S: BudgetStore>(&self, store: &S, stopping: CancellationToken) {
        let rounds = async {
            tokio::join!(self.sweep_all(store), self.alert_all(store));
        };
        stopping.run_until_cancelled(rounds).await;
    }

    async fn sweep_all<S: BudgetStore>(&self, store: &S) {
        let mut left = 0;
        loop {
            // An error is logged by the store's own breaker; a second later is soon.
            if let Ok(swept) = store.sweep().await {
                self.metrics.swept(swept);
            }
            let turn = self.deliver_swept(store, left).await;
            left = turn.left;
            if turn.taken == 0 || turn.is_refused {
                tokio::time::sleep(EVERY).await;
            }
        }
    }

    async fn alert_all<S: BudgetStore>(&self, store: &S) {
        let mut left = 0;
        // Alerts that the webhook has not taken yet and the log has.
        let mut logged = HashSet::new();
        let mut pause = PAUSE_MIN;
        loop {
            let turn = self.deliver_alerts(store, left, &mut logged).await;
            left = turn.left;
            if turn.is_refused && turn.taken == 0 {
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(PAUSE_MAX);
                continue;
            }
            pause = PAUSE_MIN;
            if turn.taken == 0 {
                tokio::time::sleep(EVERY).await;
            }
        }
    }

    /// Witnesses what was swept.
    async fn deliver_swept<S: BudgetStore>(&self, store: &S, left: usize) -> Turn {
        let mail = window(store, left).await;
        let mut is_refused = false;
        let witnessed = mail.iter().map(|entry| self.witness(entry));
        let witnessed = futures_util::future::join_all(witnessed).await;
        let mut done = Vec::new();
        for (entry, told) in mail.iter().zip(witnessed) {
            is_refused |= told == Some(false);
            if told == Some(true) {
                done.push(entry.clone());
            }
        }
        let taken = acknowledge(store, &done).await;
        Turn {
            taken,
            left: mail.len().saturating_sub(taken),
            is_refused,
        }
    }

    /// Whether an entry's witness will outlive this process, or it has none; `None`
    /// where it is of another kind.
    async fn witness(&self, entry: &Mail) -> Option<bool> {
        let Happened::Swept { id, progress } = &entry.what else {
            return None;
        };
        let event = UsageEvent::decode(progress.note.as_slice()).ok();
        match event.filter(|event| event.request_id == id.to_string()) {
            Some(event) => Some(self.witnesses.keep(&event).await),
            None => {
                tracing::error!(
                    request_id = %id,
                    tenant = %entry.tenant,
                    "a swept hold has no witness: its spend counts, and is not billed"
                );
                Some(true)
            }
        }
    }

    /// Tells of what was reached, up to the first one that is not taken.
    async fn deliver_alerts<S: BudgetStore>(
        &self,
        store: &S,
        left: usize,
        logged: &mut HashSet<String>,
    ) -> Turn {
        let mail = window(store, left).await;
        let mut turn = Turn::default();
        for entry in &mail {
            let Some(reached) = Reached::of(entry) else {
                continue;
            };
            if !self.alerts.tell(&reached).await {
                // That one is tried again; it keeps no other back, nor the log.
                if logged.insert(entry.id.clone() + entry.tenant.as_str()) {
                    reached.log();
                }
                turn.is_refused = true;
                continue;
            }
            // One of several routers is told so, and logs it.
            if acknowledge(store, std::slice::from_ref(entry)).await > 0 {
                if !logged.remove(&(entry.id.clone() + entry.tenant.as_str())) {
                    reached.log();
                }
                self.metrics.alerted();
                turn.taken = turn.taken.saturating_add(1);
            }
        }
        turn.left = mail.len().saturating_sub(turn.taken);
        turn
    }
}

/// What is in the outbox, so far that those that were left do not hide the others.
async fn window<S: BudgetStore>(store: &S, left: usize) -> Vec<Mail> {
    let most = left.min(WAITING_MAX).saturating_add(MAIL_MAX);
    store.mail(most).await.unwrap_or_default()
}

/// Takes entries out; gives how many were there.
async fn acknowledge<S: BudgetStore>(store: &S, mail: &[Mail]) -> usize {
    if mail.is_empty() {
        return 0;
    }
    let there = store.acknowledge(mail).await.unwrap_or_default();
    there.into_iter().filter(|there| *there).count()
}

#[cfg(test)]
mod tests;
