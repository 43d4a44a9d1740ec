//! The gRPC side of the port: health and reflection.

use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};
use weir_wire::proto::FILE_DESCRIPTOR_SET;

/// Tells gRPC clients when the router is about to stop.
pub struct Health(HealthReporter);

impl Health {
    /// From now on `NOT_SERVING`.
    pub async fn stopping(&self) {
        self.0
            .set_service_status("", ServingStatus::NotServing)
            .await;
    }
}

/// The services, for the same port as HTTP.
pub async fn routes() -> anyhow::Result<(Health, axum::Router)> {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("", ServingStatus::Serving)
        .await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let routes = Routes::new(health)
        .add_service(reflection)
        .into_axum_router();
    Ok((Health(reporter), routes))
}
