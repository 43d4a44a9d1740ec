//! What the paths of the aggregator share: its parts, and plain answers.

use std::sync::Arc;

use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use weir_wire::{
    keys::Keyring,
    proto::usage::{PublishResponse, UsageEvent},
};

use crate::{
    books::Books,
    config::{Producer, Settings},
    ingest::{Source, response, sort},
    ledger::Ledger,
    sender::Sender,
    stream::{AppendError, Mark, Stream, Way},
    stripe::Stripe,
    tail::LogState,
};

/// A batch of more events is checked beside the async threads, which others need.
const INLINE_MAX: usize = 256;

/// What every request shares.
pub struct Parts {
    pub stream: Arc<Stream>,
    pub books: Books,
    pub sender: Arc<Sender>,
    pub producers: Vec<Producer>,
    /// The access logs that are followed.
    pub logs: Vec<Arc<LogState>>,
    pub admin_token: String,
    pub keys: Arc<Keyring>,
}

impl Parts {
    /// Opens the data folder, whose lock the caller holds.
    pub fn open(settings: Settings, mark: Mark) -> anyhow::Result<Self> {
        let ledger = Ledger::open(&settings.data_dir)?;
        let booked = (ledger.booked_upto()?, ledger.noted_upto()?);
        let stream = Arc::new(Stream::open_marked(&settings.data_dir, mark, booked)?);
        let reader = stream.reader()?;
        // What was booked when the process died counts for the mark no longer.
        reader.trim(ledger.booked_upto()?)?;
        let books = Books::new(ledger, reader, settings.billing)?;
        Ok(Self {
            stream,
            sender: Arc::new(Sender::new(Stripe::new(settings.stripe)?, books.clone())),
            books,
            producers: settings.producers,
            logs: Vec::new(),
            admin_token: settings.admin_token,
            keys: Arc::new(settings.keys),
        })
    }

    /// Takes a producer's events; returns once they are durable.
    ///
    /// # Errors
    /// [`AppendError`], where none was taken.
    pub async fn take(
        &self,
        events: Vec<UsageEvent>,
        producer: &Producer,
        way: Way,
    ) -> Result<PublishResponse, AppendError> {
        // Not worth the checking.
        self.stream.has_room()?;
        let batch = if events.len() <= INLINE_MAX {
            let source = Source {
                producer: Some(producer),
                way,
            };
            sort(events, source, &self.keys, |_| None)
        } else {
            let (producer, keys) = (producer.clone(), Arc::clone(&self.keys));
            let sorting = tokio::task::spawn_blocking(move || {
                let source = Source {
                    producer: Some(&producer),
                    way,
                };
                sort(events, source, &keys, |_| None)
            });
            sorting.await.map_err(|_| AppendError::Failed)?
        };
        let response = response(&batch);
        self.stream.append(batch).await?;
        Ok(response)
    }
}

/// An answer for an operator or a producer: one line of text.
pub fn plain(status: StatusCode, message: &str) -> Response {
    (status, format!("{message}\n")).into_response()
}
