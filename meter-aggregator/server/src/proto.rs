//! The services that `build.rs` makes of `contracts/proto`: the router's, and ours.

#![allow(missing_docs)] // generated

include!(concat!(env!("OUT_DIR"), "/services.rs"));

#[cfg(test)]
pub use weir::admin::v1::{
    CreateTenantRequest, ListTenantsRequest, ListTenantsResponse, MakeKeyRequest, MakeKeyResponse,
    RevokeKeyRequest, RevokeKeyResponse, RotateKeyRequest, RotateKeyResponse, UpdateTenantRequest,
    tenants_server,
};
pub use weir::admin::v1::{
    GetTenantRequest, ResumeTenantRequest, SuspendTenantRequest, Tenant, TenantState,
    tenants_client,
};
pub use weir::usage::v1::usage_ingest_server;
