//! The directory by gRPC: the same pages that gateways are given.

use prost::Message as _;
use tonic::{Request, Response, Status};
use weir_wire::proto::directory::{SnapshotPage, SnapshotRequest};

use crate::{directory::Shared, proto::directory_server::Directory};

/// The service as tonic wants it.
pub struct Grpc(pub Shared);

#[tonic::async_trait]
impl Directory for Grpc {
    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<SnapshotPage>, Status> {
        let page = self
            .0
            .page(request.get_ref())
            .map_err(|gone| Status::failed_precondition(gone.to_string()))?;
        let page = SnapshotPage::decode(page).map_err(|_| Status::internal("no page"))?;
        Ok(Response::new(page))
    }
}
