//! What operators ask and tell the router about its providers.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use tonic::{Request, Response, Status};
use weir_router_core::provider::ProviderKind;

use super::gate::ServiceName;
use crate::{
    proto::{
        DrainProviderRequest, ListProvidersRequest, ListProvidersResponse, ProviderState,
        ResumeProviderRequest, providers_server::Providers,
    },
    provider::Provider,
};

/// The service as tonic wants it.
pub struct Admin(pub BTreeMap<String, Arc<Provider>>);

#[tonic::async_trait]
impl Providers for Admin {
    async fn list_providers(
        &self,
        _: Request<ListProvidersRequest>,
    ) -> Result<Response<ListProvidersResponse>, Status> {
        let providers = self.0.values().map(|p| state(p)).collect();
        Ok(Response::new(ListProvidersResponse { providers }))
    }

    async fn drain_provider(
        &self,
        request: Request<DrainProviderRequest>,
    ) -> Result<Response<ProviderState>, Status> {
        self.set_drained(&request, &request.get_ref().name, true)
    }

    async fn resume_provider(
        &self,
        request: Request<ResumeProviderRequest>,
    ) -> Result<Response<ProviderState>, Status> {
        self.set_drained(&request, &request.get_ref().name, false)
    }
}

impl Admin {
    fn set_drained<T>(
        &self,
        request: &Request<T>,
        name: &str,
        drained: bool,
    ) -> Result<Response<ProviderState>, Status> {
        let Some(provider) = self.0.get(name) else {
            let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            return Err(Status::not_found(format!(
                "name: must be one of {}",
                known.join(", ")
            )));
        };
        provider.health.drained.store(drained, Relaxed);
        let by = request.extensions().get::<ServiceName>();
        let by = by.map_or("", |name| name.0.as_str());
        tracing::info!(provider = name, drained, by, "an operator's word");
        Ok(Response::new(state(provider)))
    }
}

fn state(provider: &Provider) -> ProviderState {
    let health = &provider.health;
    let kind = match provider.kind {
        ProviderKind::Anthropic => "anthropic",
        ProviderKind::OpenAi => "openai",
        ProviderKind::OpenAiCompatible => "openai-compatible",
    };
    ProviderState {
        name: provider.name.clone(),
        kind: kind.to_owned(),
        drained: health.drained.load(Relaxed),
        in_flight: health.in_flight.load(Relaxed),
        calls: health.calls.load(Relaxed),
        failures: health.failures.load(Relaxed),
        failures_in_a_row: health.failures_in_a_row.load(Relaxed),
        last_failure_ms: health.last_failure_ms.load(Relaxed),
    }
}
