//! Stripe's webhooks: taken when they are durable, dealt with by a worker.

mod router;
mod worker;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{
    Router as Routes,
    body::Bytes,
    extract::{DefaultBodyLimit, Request, State, rejection::BytesRejection},
    middleware::{self, Next},
    response::Response,
    routing::post,
};
use http::{HeaderMap, StatusCode};
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::JoinHandle,
};
use weir_meter_core::stripe::{What, parse, verify};
use weir_process::now_ms;

use self::{
    router::Router,
    worker::{PATIENCE, Worker},
};
use crate::{
    api::plain,
    books::Books,
    config::{DunningSettings, WebhookSettings},
    sender::Sender,
};

/// Where Stripe posts its events.
const PATH: &str = "/stripe/webhook";

/// The largest event, in bytes. Stripe's are far smaller.
const BODY_MAX_BYTES: usize = 256 << 10;

/// How long requests under way may take after a signal.
const GRACE: std::time::Duration = std::time::Duration::from_secs(5);

/// The listener and the worker, until they are told to stop.
pub struct Webhooks {
    /// Where it listens.
    pub address: SocketAddr,
    tasks: [JoinHandle<()>; 2],
}

/// What a request needs.
struct Door {
    secrets: Vec<String>,
    books: Books,
    wake: Arc<Notify>,
}

impl Webhooks {
    /// Listens, and deals with what comes and with what was left over.
    pub async fn start(
        settings: WebhookSettings,
        dunning: Option<DunningSettings>,
        books: &Books,
        sender: &Arc<Sender>,
        stopped: watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(settings.listen)
            .await
            .with_context(|| format!("webhook.listen: cannot bind {}", settings.listen))?;
        let address = listener.local_addr()?;
        tracing::info!(%address, path = PATH, "listening for Stripe's webhooks");
        let wake = Arc::new(Notify::new());
        let dunning = match dunning {
            Some(dunning) => Some((dunning.policy, Router::new(&dunning.router)?)),
            None => None,
        };
        let worker = Worker {
            books: books.clone(),
            sender: sender.clone(),
            dunning,
            wake: wake.clone(),
            patience: PATIENCE,
        };
        let routes = routes(Door {
            secrets: settings.secrets,
            books: books.clone(),
            wake,
        });
        let mut stopping = stopped.clone();
        let serving = async move {
            let stop = async move {
                let _ = stopping.wait_for(|s| *s).await;
            };
            weir_process::serve(listener, routes, stop, GRACE).await;
        };
        Ok(Self {
            address,
            tasks: [tokio::spawn(serving), tokio::spawn(worker.run(stopped))],
        })
    }

    /// Waits until both ended; what is left is in the ledger.
    pub async fn ended(self) -> anyhow::Result<()> {
        for task in self.tasks {
            task.await?;
        }
        Ok(())
    }
}

fn routes(door: Door) -> Routes {
    Routes::new()
        .route(PATH, post(take))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .layer(middleware::from_fn(in_time))
        .with_state(Arc::new(door))
}

/// How long a webhook may take, its body included.
const TIME_MAX: Duration = Duration::from_secs(15);

/// Anybody reaches this port: who sends nothing more is let go.
async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(TIME_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => plain(StatusCode::REQUEST_TIMEOUT, "body: did not come in time"),
    }
}

/// The signature first: of who has none nothing is read.
async fn take(
    State(door): State<Arc<Door>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => {
            return refuse(
                rejection.status(),
                "body: must come whole and have at most 262144 bytes",
            );
        }
    };
    let Some(signature) = headers.get("stripe-signature") else {
        return refuse(StatusCode::BAD_REQUEST, "stripe-signature: is missing");
    };
    let now_ms = now_ms();
    let checked = verify(
        signature.as_bytes(),
        &body,
        &door.secrets,
        now_ms.div_euclid(1_000),
    );
    if let Err(error) = checked {
        return refuse(StatusCode::BAD_REQUEST, &error.to_string());
    }
    let notice = match parse(&body) {
        Ok(notice) => notice,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let (event, kind) = (notice.id.clone(), notice.kind.clone());
    if notice.what == What::Other {
        tracing::debug!(event, kind, "a webhook of no concern");
        return plain(StatusCode::OK, "ignored");
    }
    match door
        .books
        .with(move |ledger| ledger.take_webhook(&notice, now_ms))
        .await
    {
        Ok(new) => {
            tracing::info!(event, kind, new, "a webhook came");
            door.wake.notify_one();
            plain(StatusCode::OK, if new { "taken" } else { "known" })
        }
        Err(error) => {
            tracing::error!(
                event,
                error = format!("{:#}", anyhow::Error::new(error)),
                "a webhook can't be kept"
            );
            plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "the ledger can't be written; send it again",
            )
        }
    }
}

fn refuse(status: StatusCode, reason: &str) -> Response {
    tracing::warn!(reason, "a webhook is refused");
    plain(status, reason)
}

#[cfg(test)]
mod tests;
