//! The quota service by HTTP, for filters: a protobuf body in, one out.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{Request, State},
    response::Response,
    routing::{any, get},
};
use http::StatusCode;
use prost::Message;
use weir_router_store::QuotaStore;
use weir_wire::quota::{ACQUIRE_PATH, CLOSE_PATH};

use super::service::{Failed, Service};
use crate::callout::{Gate, Refused, message};

struct Listener<S> {
    service: Arc<Service<S>>,
    gate: Gate,
}

/// The paths of the service.
pub fn routes<S: QuotaStore>(service: Arc<Service<S>>, gate: Gate) -> Router {
    let limit = gate.body_limit();
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route(ACQUIRE_PATH, any(acquire::<S>))
        .route(CLOSE_PATH, any(close::<S>))
        .layer(limit)
        .with_state(Arc::new(Listener { service, gate }))
}

async fn acquire<S: QuotaStore>(
    State(listener): State<Arc<Listener<S>>>,
    request: Request,
) -> Response {
    let Listener { service, gate } = &*listener;
    let answer = async {
        let asked = gate.read(request, "AcquireRequest").await?;
        encoded(service.acquire(asked).await)
    };
    message(answer.await)
}

async fn close<S: QuotaStore>(
    State(listener): State<Arc<Listener<S>>>,
    request: Request,
) -> Response {
    let Listener { service, gate } = &*listener;
    let answer = async {
        let asked = gate.read(request, "CloseRequest").await?;
        encoded(service.close(asked).await)
    };
    message(answer.await)
}

fn encoded(answer: Result<impl Message, Failed>) -> Result<Bytes, Refused> {
    match answer {
        Ok(message) => Ok(message.encode_to_vec().into()),
        Err(Failed::Invalid(invalid)) => {
            Err(Refused::new(StatusCode::BAD_REQUEST, invalid.to_string()))
        }
        Err(Failed::Unavailable) => Err(Refused::new(
            StatusCode::SERVICE_UNAVAILABLE,
            super::STORE_AWAY,
        )),
    }
}
