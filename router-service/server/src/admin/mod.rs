//! Tenants and their keys for operators, by gRPC: the changes that weir-keys makes
//! on a command line, in the same file and the same audit log.
//!
//! Whom the service lets in is decided before it is asked; who that is, for the
//! log, is asked here.

mod convert;
mod service;

use std::sync::Arc;

use http::Extensions;
use tokio::sync::Semaphore;
use tonic::metadata::MetadataMap;
use weir_router_core::directory::audit::Actor;
use weir_router_store::directory::DirectoryFile;

use crate::proto::weir::admin::v1 as proto;

pub use self::{
    proto::tenants_server::{SERVICE_NAME, TenantsServer},
    service::TenantsService,
};

/// The largest request: limits for all classes are some KiB.
const REQUEST_MAX_BYTES: usize = 64 << 10;

/// How many calls read the file at once: a large one takes seconds, and memory.
const READERS: usize = 4;

/// The service. `actor` names the caller for the audit log, by what a request has as
/// headers and extensions; who has no name is refused as UNAUTHENTICATED.
pub fn tenants_server(
    directory: DirectoryFile,
    actor: impl Fn(&MetadataMap, &Extensions) -> Option<Actor> + Send + Sync + 'static,
) -> TenantsServer<TenantsService> {
    let service = TenantsService {
        directory: Arc::new(directory),
        actor: Arc::new(actor),
        readers: Semaphore::new(READERS),
        writer: Semaphore::new(1),
    };
    TenantsServer::new(service).max_decoding_message_size(REQUEST_MAX_BYTES)
}

#[cfg(test)]
mod tests;
