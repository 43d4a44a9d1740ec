//! What the gRPC side of a port has beside its services: health and reflection.
//! Behind the feature `grpc`, which a process that only changes files has no use for.

use tonic::service::Routes;
use tonic_health::{ServingStatus, pb::health_server, server::HealthReporter};
use tonic_reflection::pb::v1::server_reflection_server;

/// Tells gRPC clients when the service is about to stop.
pub struct Health {
    reporter: HealthReporter,
    services: Vec<&'static str>,
}

impl Health {
    /// From now on `NOT_SERVING`.
    pub async fn stopping(&self) {
        self.set(ServingStatus::NotServing).await;
    }

    async fn set(&self, status: ServingStatus) {
        for service in &self.services {
            self.reporter.set_service_status(service, status).await;
        }
    }
}

/// Health and reflection for a port that has these services, which the caller
/// adds; of what the descriptors describe, other services are not shown.
///
/// # Errors
/// Where the descriptors can't be read.
pub async fn routes(
    services: &[&'static str],
    descriptors: &'static [u8],
) -> Result<(Health, Routes), tonic_reflection::server::Error> {
    let (reporter, server) = tonic_health::server::health_reporter();
    let health = Health {
        reporter,
        // The empty name is the port as a whole.
        services: [""].iter().chain(services).copied().collect(),
    };
    health.set(ServingStatus::Serving).await;
    let mut reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(descriptors)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    let own = [
        health_server::SERVICE_NAME,
        server_reflection_server::SERVICE_NAME,
    ];
    for service in own.iter().chain(services) {
        reflection = reflection.with_service_name(*service);
    }
    let routes = Routes::new(server).add_service(reflection.build_v1()?);
    Ok((health, routes))
}
