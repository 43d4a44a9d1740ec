//! Witness events on their way to the aggregator.
//!
//! Kept in memory until the aggregator has them durably; a signal to stop
//! drains them. (A spool that outlives a kill -9 is listed under "Not yet".)

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use reqwest::{
    Client,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use weir_wire::{
    proto::usage::{PublishRequest, PublishResponse, UsageEvent},
    usage::{PROTO_CONTENT_TYPE, PUBLISH_PATH},
};

/// The most events that wait; the gateway's own event covers one that finds no
/// place.
const WAITING_MAX: usize = 100_000;

/// The most events in one batch.
const BATCH_MAX: usize = 512;

/// How long a batch waits for more events: a call of its own for each would cost as
/// much as what it tells of.
const LINGER: Duration = Duration::from_millis(20);

const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Where events are handed in.
#[derive(Clone)]
pub struct Witnesses(mpsc::Sender<UsageEvent>);

impl Witnesses {
    /// Hands in an event; never waits.
    pub fn tell(&self, event: UsageEvent) {
        if let Err(error) = self.0.try_send(event) {
            let event = match error {
                mpsc::error::TrySendError::Full(event)
                | mpsc::error::TrySendError::Closed(event) => event,
            };
            tracing::error!(event_id = %event.event_id, "witness queue full, event dropped");
        }
    }
}

/// Sends what was handed in.
pub struct Sender {
    events: mpsc::Receiver<UsageEvent>,
    url: String,
    authorization: String,
    http: Client,
}

/// A queue and the task that empties it.
pub fn queue(aggregator: &str, token: &str, http: Client) -> (Witnesses, Sender) {
    let (sender, events) = mpsc::channel(WAITING_MAX);
    let sending = Sender {
        events,
        url: format!("{}{PUBLISH_PATH}", aggregator.trim_end_matches('/')),
        authorization: format!("Bearer {token}"),
        http,
    };
    (Witnesses(sender), sending)
}

impl Sender {
    /// Runs until `closing` is cancelled and all that was handed in before is
    /// sent. (Not until every [`Witnesses`] is gone: a connection that is left
    /// open holds one.)
    pub async fn run(mut self, closing: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            tokio::select! {
                taken = self.events.recv_many(&mut batch, BATCH_MAX) => {
                    if taken == 0 {
                        return;
                    }
                }
                () = closing.cancelled(), if !self.events.is_closed() => {
                    self.events.close();
                    continue;
                }
            }
            if batch.len() < BATCH_MAX {
                tokio::select! {
                    () = tokio::time::sleep(LINGER) => {}
                    () = closing.cancelled() => {}
                }
                let more = || self.events.try_recv().ok();
                let room = BATCH_MAX.saturating_sub(batch.len());
                batch.extend(std::iter::from_fn(more).take(room));
            }
            let request = PublishRequest {
                events: std::mem::take(&mut batch),
            };
            let body = Bytes::from(request.encode_to_vec());
            let mut pause = Duration::from_millis(50);
            while !self.post(body.clone()).await {
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(PAUSE_MAX);
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
