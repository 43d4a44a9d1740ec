//! The quota service by HTTP, for filters: a protobuf body in, one out.

use axum::{
    body::Bytes,
    extract::Request,
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use prost::Message;
use weir_router_store::QuotaStore;
use weir_wire::quota::{ACQUIRE_PATH, CLOSE_PATH};

use super::service::{Failed, Service};
use crate::callout::{Gate, Refused, message};

/// Answers on the paths of the service. They are few and asked often: a router of
/// axum's own would cost more than what they do.
pub async fn answer<S: QuotaStore>(
    service: &Service<S>,
    gate: &Gate,
    request: Request,
) -> Response {
    match request.uri().path() {
        ACQUIRE_PATH => message(acquire(service, gate, request).await),
        CLOSE_PATH => message(close(service, gate, request).await),
        "/healthz" => "ok".into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn acquire<S: QuotaStore>(
    service: &Service<S>,
    gate: &Gate,
    request: Request,
) -> Result<Bytes, Refused> {
    let asked = gate.read(request, "AcquireRequest").await?;
    encoded(service.acquire(asked).await)
}

async fn close<S: QuotaStore>(
    service: &Service<S>,
    gate: &Gate,
    request: Request,
) -> Result<Bytes, Refused> {
    let asked = gate.read(request, "CloseRequest").await?;
    encoded(service.close(asked).await)
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
