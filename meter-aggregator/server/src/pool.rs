//! Connections to the ledger, for whoever works on it: one at a time each.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use weir_meter_store::{
    DatabaseError,
    ledger::{Ledger, LedgerError},
};

/// Connections, in the order in which they are asked for.
pub struct Pool {
    free: Mutex<Vec<Ledger>>,
    permits: Arc<Semaphore>,
}

/// A connection that goes back, whatever happens.
struct Borrowed<'a> {
    pool: &'a Pool,
    ledger: Option<Ledger>,
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        if let Some(ledger) = self.ledger.take() {
            let mut free = self
                .pool
                .free
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            free.push(ledger);
        }
    }
}

impl Pool {
    /// Of these connections.
    pub fn new(ledgers: Vec<Ledger>) -> Arc<Self> {
        Arc::new(Self {
            permits: Arc::new(Semaphore::new(ledgers.len())),
            free: Mutex::new(ledgers),
        })
    }

    /// Runs `work` on one of them, off the async threads.
    ///
    /// # Errors
    /// What `work` found.
    pub async fn with<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let pool = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            let ledger = pool
                .free
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop();
            let mut borrowed = Borrowed {
                pool: &pool,
                ledger,
            };
            let outcome = match &mut borrowed.ledger {
                Some(ledger) => work(ledger),
                None => Err(broken_off().into()),
            };
            drop(borrowed);
            drop(permit);
            outcome
        });
        task.await.unwrap_or_else(|_| Err(broken_off().into()))
    }
}

/// A task that worked on a database did not come to its end.
pub fn broken_off() -> DatabaseError {
    DatabaseError::Misused("the work was broken off")
}
