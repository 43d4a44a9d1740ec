//! What producers send by gRPC: the same calls, on the same port.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
};
use http::HeaderValue;
use tonic::{Code, Status, metadata::MetadataValue};
use weir_meter_store::stream::{AppendError, Way};
use weir_process::grpc::{self, Health};
use weir_wire::{
    proto::{
        FILE_DESCRIPTOR_SET,
        usage::{PublishRequest, PublishResponse},
    },
    usage::PUBLISH_PATH,
};

use crate::{
    api::Parts,
    config::Producer,
    ingest::{BODY_MAX_BYTES, Denied, admit},
    proto::usage_ingest_server::{SERVICE_NAME, UsageIngest, UsageIngestServer},
};

/// The header in which gRPC says how a call ended (gRPC over HTTP/2, "Responses").
const STATUS_HEADER: &str = "grpc-status";

/// The routes of the service, of health and of reflection.
pub async fn routes(parts: Arc<Parts>) -> anyhow::Result<(Health, Router)> {
    let (health, routes) = grpc::routes(&[SERVICE_NAME], FILE_DESCRIPTOR_SET).await?;
    let service = UsageIngestServer::new(Ingest(Arc::clone(&parts)))
        .max_decoding_message_size(BODY_MAX_BYTES);
    let router = routes
        .add_service(service)
        .into_axum_router()
        .layer(middleware::from_fn_with_state(parts, guard));
    Ok((health, router))
}

/// Lets a producer in, before its message is read. Health and reflection are open.
async fn guard(State(parts): State<Arc<Parts>>, mut request: Request, next: Next) -> Response {
    if request.uri().path() != PUBLISH_PATH {
        return next.run(request).await;
    }
    let producer = match admit(request.headers(), &parts.producers) {
        Ok(producer) => producer.clone(),
        Err(denied @ Denied::Unknown) => {
            return Status::unauthenticated(denied.to_string()).into_http();
        }
        Err(denied @ Denied::Tenant) => {
            return Status::permission_denied(denied.to_string()).into_http();
        }
    };
    request.extensions_mut().insert(producer);
    let mut response = next.run(request).await;
    // tonic calls a message that is too large out of range.
    let out_of_range = i32::from(Code::OutOfRange).to_string();
    if let Some(status) = response.headers_mut().get_mut(STATUS_HEADER)
        && status.as_bytes() == out_of_range.as_bytes()
    {
        *status = HeaderValue::from(i32::from(Code::ResourceExhausted));
    }
    response
}

struct Ingest(Arc<Parts>);

#[tonic::async_trait]
impl UsageIngest for Ingest {
    async fn publish(
        &self,
        request: tonic::Request<PublishRequest>,
    ) -> Result<tonic::Response<PublishResponse>, Status> {
        let producer = request
            .extensions()
            .get::<Producer>()
            .cloned()
            .ok_or_else(|| Status::unauthenticated(Denied::Unknown.to_string()))?;
        let events = request.into_inner().events;
        match self.0.take(events, &producer, Way::Grpc).await {
            Ok(response) => Ok(tonic::Response::new(response)),
            Err(error) => Err(refusal(error)),
        }
    }
}

fn refusal(error: AppendError) -> Status {
    let retry_after_s = match error {
        AppendError::Failed => return Status::unavailable(error.to_string()),
        AppendError::Busy => 1,
        AppendError::Full { retry_after_s } => retry_after_s,
    };
    let mut status = Status::resource_exhausted(error.to_string());
    let value = MetadataValue::from(retry_after_s);
    status.metadata_mut().insert("retry-after", value);
    status
}
