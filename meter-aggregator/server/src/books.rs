//! The ledger and the stream that feeds it, for the async world.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{
    ledger::{Ledger, LedgerError},
    stream::Reader,
};

/// The most events in one booking transaction.
const BOOK_MAX: usize = 1_000;

/// The ledger and the stream's reader, one user at a time.
#[derive(Clone)]
pub struct Books(Arc<Mutex<(Ledger, Reader)>>);

impl Books {
    /// Of that ledger, fed by that stream.
    pub fn new(ledger: Ledger, reader: Reader) -> Self {
        Self(Arc::new(Mutex::new((ledger, reader))))
    }

    /// Runs `work` on the ledger, off the async threads.
    pub async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        self.with_both(move |ledger, _| work(ledger)).await
    }

    /// Runs `work` on the ledger and the stream.
    pub async fn with_both<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Ledger, &Reader) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let books = self.0.clone();
        let task = tokio::task::spawn_blocking(move || {
            let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
            let (ledger, reader) = &mut *books;
            work(ledger, reader)
        });
        match task.await {
            Ok(outcome) => outcome,
            Err(_) => Err(LedgerError::Database(rusqlite::Error::InvalidQuery)),
        }
    }

    /// Books all that the stream holds, and takes note of what was set aside.
    pub async fn book_all(&self) -> Result<(), LedgerError> {
        self.with_both(|ledger, reader| {
            let now_ms = weir_process::now_ms();
            loop {
                let after = ledger.booked_upto()?;
                let events = reader.read(after, BOOK_MAX)?;
                let Some((last, _)) = events.last() else {
                    break;
                };
                ledger.book(&events, now_ms)?;
                reader.trim(*last)?;
            }
            loop {
                let noted = reader.noted(ledger.noted_upto()?, BOOK_MAX)?;
                let Some(last) = noted.last() else {
                    return Ok(());
                };
                ledger.note(&noted, now_ms)?;
                reader.trim_noted(last.id)?;
            }
        })
        .await
    }
}
