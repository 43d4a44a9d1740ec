//! Witness events on their way to the aggregator.
//!
//! They wait in a spool, which outlives this process, until the aggregator has them
//! durably. A signal to stop drains it; what is left then goes when the router starts
//! again.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use prost::Message as _;
use reqwest::{
    Client,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use tokio_util::sync::CancellationToken;
use weir_router_store::spool::{Appended, Record, Spool, SpoolError};
use weir_wire::{
    proto::usage::{PublishResponse, UsageEvent},
    usage::{PROTO_CONTENT_TYPE, PUBLISH_PATH},
};

/// The most events in one batch.
const BATCH_MAX: usize = 512;

/// The most bytes of it; the aggregator takes 8 MiB.
const BATCH_MAX_BYTES: usize = 4 << 20;

/// How long a batch waits for more events: a call of its own for each would cost as
/// much as what it tells of.
const LINGER: Duration = Duration::from_millis(20);

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The tag of `events` in a `weir.usage.v1.PublishRequest`.
const EVENTS_TAG: u32 = 1;

/// Where events are handed in.
#[derive(Clone)]
pub struct Witnesses(Spool);

impl Witnesses {
    /// Hands in an event; never waits. The gateway's own event covers one that finds
    /// no place.
    pub fn tell(&self, event: &UsageEvent) {
        drop(self.append(event));
    }

    /// Hands in an event and returns once it outlives this process; `false` where it
    /// does not.
    pub async fn keep(&self, event: &UsageEvent) -> bool {
        match self.append(event) {
            Some(appended) => appended.durable().await,
            None => false,
        }
    }

    fn append(&self, event: &UsageEvent) -> Option<Appended> {
        let appended = self.0.append(event.encode_to_vec());
        appended
            .inspect_err(|why| {
                tracing::error!(event_id = %event.event_id, %why, "a witness event is dropped");
            })
            .ok()
    }

    /// Events of an earlier run that wait, a page of those after that number; none
    /// is the end. Only whole before the [`Sender`] runs.
    ///
    /// # Errors
    /// Where the spool can't be read.
    pub async fn waiting(&self, after: i64) -> Result<Vec<(i64, UsageEvent)>, SpoolError> {
        let records = self.0.read(after, BATCH_MAX, BATCH_MAX_BYTES).await?;
        let read = |record: Record| {
            // What is none, which nothing writes, the aggregator sets aside.
            let event = UsageEvent::decode(record.bytes.as_slice()).unwrap_or_default();
            (record.number, event)
        };
        Ok(records.into_iter().map(read).collect())
    }

    /// What waits, for metrics.
    pub fn spool(&self) -> &Spool {
        &self.0
    }
}

/// Sends what was handed in.
pub struct Sender {
    spool: Spool,
    url: String,
    authorization: String,
    http: Client,
}

/// Opens the spool in that file, of at most `bytes_max`; gives the way into it and
/// the task that empties it.
///
/// # Errors
/// Where the file can't be used, or another router has it.
pub fn open(
    spool: &Path,
    bytes_max: u64,
    aggregator: &str,
    token: &str,
    http: Client,
) -> Result<(Witnesses, Sender), SpoolError> {
    let spool = Spool::open(spool, bytes_max)?;
    if !spool.is_empty() {
        tracing::info!(events = spool.len(), "witness events of an earlier run");
    }
    let sending = Sender {
        spool: spool.clone(),
        url: format!("{}{PUBLISH_PATH}", aggregator.trim_end_matches('/')),
        authorization: format!("Bearer {token}"),
        http,
    };
    Ok((Witnesses(spool), sending))
}

impl Sender {
    /// Runs until `closing` is cancelled and all that was handed in before is sent.
    pub async fn run(self, closing: CancellationToken) {
        let mut tail = self.spool.tail();
        // What an earlier run left is to be sent now.
        tail.mark_changed();
        loop {
            tokio::select! {
                changed = tail.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = closing.cancelled() => break,
            }
            tokio::select! {
                () = tokio::time::sleep(LINGER) => {}
                () = closing.cancelled() => {}
            }
            self.send_all().await;
        }
        if self.spool.flush().await.is_ok() {
            self.send_all().await;
        }
    }

    /// Sends until nothing waits, for as long as that takes.
    async fn send_all(&self) {
        let mut pause = PAUSE_MIN;
        loop {
            let sent = match self.spool.read(0, BATCH_MAX, BATCH_MAX_BYTES).await {
                Ok(records) if records.is_empty() => return,
                Ok(records) => self.send(&records).await,
                Err(error) => {
                    tracing::error!(%error, "the spool cannot be read");
                    false
                }
            };
            if sent {
                pause = PAUSE_MIN;
            } else {
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(PAUSE_MAX);
            }
        }
    }

    /// Sends a batch and takes it out of the spool. One that stays there is sent
    /// again, which the aggregator knows by the events' ids.
    async fn send(&self, records: &[Record]) -> bool {
        if !self.post(publish_request(records)).await {
            return false;
        }
        match self.spool.remove(records).await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "the spool cannot be written");
                false
            }
        }
    }

    /// Whether the aggregator has the batch.
    async fn post(&self, body: Bytes) -> bool {
        let call = self
            .http
            .post(&self.url)
            .header(AUTHORIZATION, &self.authorization)
            .header(CONTENT_TYPE, PROTO_CONTENT_TYPE)
            .timeout(Duration::from_secs(10))
            .body(body)
            .send();
        match call.await {
            Ok(response) if response.status().is_success() => {
                report_quarantine(response).await;
                true
            }
            Ok(response) => {
                tracing::warn!(status = %response.status(), "the aggregator refused a batch; it is kept");
                false
            }
            Err(error) => {
                tracing::warn!(error = %error.without_url(), "the aggregator was not reached; the batch is kept");
                false
            }
        }
    }
}

/// A `weir.usage.v1.PublishRequest` of events as they stand in the spool.
fn publish_request(records: &[Record]) -> Bytes {
    use prost::encoding::{WireType, encode_key, encode_varint};

    let mut body = Vec::new();
    for record in records {
        encode_key(EVENTS_TAG, WireType::LengthDelimited, &mut body);
        let length = u64::try_from(record.bytes.len()).unwrap_or(u64::MAX);
        encode_varint(length, &mut body);
        body.extend_from_slice(&record.bytes);
    }
    body.into()
}

/// Events that the aggregator set aside bill nothing: somebody must look.
async fn report_quarantine(response: reqwest::Response) {
    let Ok(body) = response.bytes().await else {
        return;
    };
    if let Ok(answer) = PublishResponse::decode(body)
        && answer.quarantined > 0
    {
        tracing::error!(
            events = answer.quarantined,
            "the aggregator quarantined events; its log says why"
        );
    }
}

#[cfg(test)]
mod tests;
