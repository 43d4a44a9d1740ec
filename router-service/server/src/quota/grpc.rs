//! The quota service by gRPC, and whom its port lets in.

use std::sync::Arc;

use http::StatusCode;
use tonic::{Request, Response, Status, service::interceptor::InterceptedService};
use weir_router_store::QuotaStore;
use weir_wire::proto::quota::{AcquireRequest, AcquireResponse, CloseRequest, CloseResponse};

use super::service::{Failed, Service};
use crate::{callout::Gate, proto::quota_service_server::QuotaService};

/// The service as tonic wants it.
pub struct Grpc<S>(pub Arc<Service<S>>);

#[tonic::async_trait]
impl<S: QuotaStore> QuotaService for Grpc<S> {
    async fn acquire(
        &self,
        request: Request<AcquireRequest>,
    ) -> Result<Response<AcquireResponse>, Status> {
        Ok(Response::new(self.0.acquire(request.into_inner()).await?))
    }

    async fn close(
        &self,
        request: Request<CloseRequest>,
    ) -> Result<Response<CloseResponse>, Status> {
        Ok(Response::new(self.0.close(request.into_inner()).await?))
    }
}

impl From<Failed> for Status {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Invalid(invalid) => Self::invalid_argument(invalid.to_string()),
            Failed::Unavailable => Self::unavailable(super::STORE_AWAY),
        }
    }
}

type Checked = Result<Request<()>, Status>;

/// The service for those alone whom the gate admits.
pub fn behind<T>(
    gate: Gate,
    service: T,
) -> InterceptedService<T, impl Fn(Request<()>) -> Checked + Clone> {
    InterceptedService::new(service, move |request: Request<()>| {
        match gate.admit(request.metadata().as_ref()) {
            Ok(()) => Ok(request),
            Err(refused) if refused.status == StatusCode::FORBIDDEN => {
                Err(Status::permission_denied(refused.message))
            }
            Err(refused) => Err(Status::unauthenticated(refused.message)),
        }
    })
}
