//! The ledger and the stream that feeds it, for the async world.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weir_meter_core::ledger::book;
use weir_process::now_ms;
use weir_wire::{proto::usage::UsageEvent, usage::cloudevents};

use crate::{
    config::Billing,
    ledger::{Ledger, LedgerError},
    stream::Reader,
};

/// The most events in one booking transaction.
const BOOK_MAX: usize = 2_000;

/// The most requests that are booked in one transaction because their time is up.
const WAITING_MAX: usize = 1_000;

/// The ledger and the stream's reader, each one user at a time.
#[derive(Clone)]
pub struct Books(Arc<Inner>);

struct Inner {
    ledger: Mutex<Ledger>,
    /// A second connection, for whoever only looks.
    looking: Mutex<Ledger>,
    reader: Mutex<Reader>,
    /// Who holds it, books.
    booking: Mutex<()>,
    billing: Billing,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Books {
    /// Of that ledger, fed by that stream.
    pub fn new(ledger: Ledger, reader: Reader, billing: Billing) -> anyhow::Result<Self> {
        Ok(Self(Arc::new(Inner {
            looking: Mutex::new(ledger.another()?),
            ledger: Mutex::new(ledger),
            reader: Mutex::new(reader),
            booking: Mutex::new(()),
            billing,
        })))
    }

    /// What is billed and when.
    pub fn billing(&self) -> &Billing {
        &self.0.billing
    }

    /// Runs `work` on the ledger, off the async threads.
    pub async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        self.run(move |inner| work(&mut locked(&inner.ledger)))
            .await
    }

    /// Runs `work`, which only looks, on the ledger and the stream; nobody who books waits
    /// for it.
    pub async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Ledger, &Reader) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        self.run(move |inner| work(&locked(&inner.looking), &locked(&inner.reader)))
            .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let inner = self.0.clone();
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(LedgerError::Database(rusqlite::Error::InvalidQuery)),
        }
    }

    /// Books all that the stream holds now, and takes note of what was set aside.
    pub async fn book_all(&self) -> Result<(), LedgerError> {
        self.run(Inner::book_all).await
    }

    /// Books requests whose second witness did not come in time; where `all`, those that
    /// still wait, too.
    pub async fn book_waiting(&self, all: bool) -> Result<(), LedgerError> {
        self.run(move |inner| inner.book_waiting(all)).await
    }

    /// Books all there is, and waits for no second witness: the books are closed.
    pub async fn close(&self) -> Result<(), LedgerError> {
        self.run(|inner| {
            inner.book_all()?;
            inner.book_waiting(true)
        })
        .await
    }

    /// Lets a part of what is too old go; says whether there is more.
    pub async fn drop_old(&self) -> Result<bool, LedgerError> {
        self.run(|inner| {
            let now_ms = now_ms();
            // What is booked later is younger than what goes.
            inner.book_all()?;
            locked(&inner.ledger).drop_old(now_ms)
        })
        .await
    }
}

impl Inner {
    fn book_all(&self) -> Result<(), LedgerError> {
        let _booking = locked(&self.booking);
        // What comes meanwhile is for the next one who books: whoever waits for this one
        // would else wait as long as there is traffic.
        let last = locked(&self.reader).last()?;
        let mut after = locked(&self.ledger).booked_upto()?;
        while after < last {
            let texts = locked(&self.reader).read(after, BOOK_MAX)?;
            let Some((upto, _)) = texts.last() else {
                break;
            };
            after = *upto;
            let events = decode(texts)?;
            locked(&self.ledger).book(events, &self.billing.rules(), now_ms())?;
            locked(&self.reader).trim(after)?;
        }
        loop {
            let upto = locked(&self.ledger).noted_upto()?;
            let noted = locked(&self.reader).noted(upto, BOOK_MAX)?;
            let Some(last) = noted.last() else {
                return Ok(());
            };
            locked(&self.ledger).note(&noted, now_ms())?;
            locked(&self.reader).trim_noted(last.id)?;
        }
    }

    fn book_waiting(&self, all: bool) -> Result<(), LedgerError> {
        let rules = self.billing.rules();
        loop {
            let booked = locked(&self.ledger).transaction(|change| {
                book::book_waiting(change, &rules, now_ms(), all, WAITING_MAX)
            })?;
            if booked < WAITING_MAX {
                return Ok(());
            }
        }
    }
}

/// The events of the stream's lines.
fn decode(texts: Vec<(i64, String)>) -> Result<Vec<(i64, UsageEvent)>, LedgerError> {
    let events = texts.into_iter().map(|(seq, text)| {
        let event = cloudevents::decode(text.as_bytes());
        event
            .map(|event| (seq, event))
            .map_err(|source| LedgerError::Event { seq, source })
    });
    events.collect()
}
