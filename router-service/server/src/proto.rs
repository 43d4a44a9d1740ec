//! The services that `build.rs` makes of `contracts/proto`, and Envoy's messages.

include!(concat!(env!("OUT_DIR"), "/services.rs"));

pub use envoy::{
    config::core::v3::HeaderValue,
    extensions::common::ratelimit::v3::RateLimitDescriptor,
    service::ratelimit::v3::{
        RateLimitRequest, RateLimitResponse, rate_limit_response, rate_limit_service_server,
    },
};
pub use weir::{
    admin::v1::{
        DrainProviderRequest, ListProvidersRequest, ListProvidersResponse, ProviderState,
        ResumeProviderRequest, providers_server,
    },
    directory::v1::directory_server,
    quota::v1::quota_service_server,
    router::v1::inference_router_server,
};

/// The descriptors of all of them, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
