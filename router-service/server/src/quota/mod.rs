//! The quota service, on a listener of its own: leases for filters, by HTTP and
//! by gRPC, and Envoy's rate limit service over the same limits.

mod grpc;
mod http;
mod rls;
mod service;
mod store;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
};
use serde::Deserialize;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use weir_process::grpc::Health;
use weir_router_core::{
    plan::Plan,
    quota::service::{Plans, Tenants},
};
use weir_router_store::{QuotaStore, RedisSettings};
use weir_wire::{ids::PlanName, quota::TOKEN_ENVIRONMENT};

use self::service::Service;
use crate::{
    callout::{self, Gate},
    proto::{
        self,
        quota_service_server::{self, QuotaServiceServer},
        rate_limit_service_server::{self, RateLimitServiceServer},
    },
    shared_redis::RedisSection,
};

/// The largest request: 512 leases of tenants with the longest name are 52 KiB.
const BODY_MAX_BYTES: usize = 64 << 10;

/// What a caller is told where the store can't be asked.
const STORE_AWAY: &str = "store: not available just now";

/// How long gateways may take to read their answer after a signal to stop.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// The section `quota` of the router's configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    listen: SocketAddr,
    redis: Option<RedisSection>,
    #[serde(default = "default_ratelimit_domain")]
    ratelimit_domain: String,
}

fn default_ratelimit_domain() -> String {
    "weir".to_owned()
}

/// What the service runs on, checked.
pub struct Options {
    listen: SocketAddr,
    redis: Option<RedisSettings>,
    ratelimit_domain: String,
    token: String,
    plans: Plans,
}

impl Options {
    /// Checks the section.
    pub fn new(section: Section, plans: &BTreeMap<PlanName, Plan>) -> anyhow::Result<Self> {
        ensure!(
            !section.ratelimit_domain.is_empty(),
            "quota.ratelimit_domain: must not be empty"
        );
        Ok(Self {
            listen: section.listen,
            redis: section
                .redis
                .map(|redis| redis.settings("quota.redis"))
                .transpose()?,
            ratelimit_domain: section.ratelimit_domain,
            token: callout::token(TOKEN_ENVIRONMENT)?,
            plans: Plans::new(plans),
        })
    }
}

/// A quota service that is about to be served.
pub struct Quota {
    /// Where it listens.
    pub address: SocketAddr,
    listener: TcpListener,
    health: Health,
    routes: Router,
}

impl Quota {
    /// Opens the store, and listens. `tenants` are the directory's, where there
    /// is one.
    pub async fn open(
        options: Options,
        tenants: Option<watch::Receiver<Arc<Tenants>>>,
    ) -> anyhow::Result<Self> {
        let store = store::open_store(options.redis).await?;
        let tenants = tenants.unwrap_or_else(|| watch::channel(Arc::default()).1);
        let service = Service::new(store, options.plans, tenants);
        let (health, routes) = routes(service, &options.token, options.ratelimit_domain).await?;
        let listener = TcpListener::bind(options.listen)
            .await
            .with_context(|| format!("quota.listen: cannot bind {}", options.listen))?;
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            health,
            routes,
        })
    }

    /// Serves it until `stopping`.
    pub async fn serve(self, stopping: CancellationToken) {
        let health = self.health;
        let stop = async move {
            stopping.cancelled().await;
            health.stopping().await;
        };
        let left = weir_process::serve(self.listener, self.routes, stop, STOP_GRACE).await;
        if left.is_some() {
            tracing::warn!("gateways were still asking for quota after {STOP_GRACE:?}");
        }
    }
}

/// Everything on the port.
async fn routes<S: QuotaStore>(
    service: Service<S>,
    token: &str,
    ratelimit_domain: String,
) -> anyhow::Result<(Health, Router)> {
    let service = Arc::new(service);
    let gate = Gate::new("quota service", token, BODY_MAX_BYTES);
    let quota = QuotaServiceServer::new(grpc::Grpc(Arc::clone(&service)))
        .max_decoding_message_size(BODY_MAX_BYTES);
    let rate_limits = RateLimitServiceServer::new(rls::RateLimits {
        service: Arc::clone(&service),
        domain: ratelimit_domain,
    })
    .max_decoding_message_size(BODY_MAX_BYTES);
    let (health, routes) = weir_process::grpc::routes(
        &[
            quota_service_server::SERVICE_NAME,
            rate_limit_service_server::SERVICE_NAME,
        ],
        proto::FILE_DESCRIPTOR_SET,
    )
    .await?;
    let grpc = routes
        .add_service(grpc::behind(gate.clone(), quota))
        .add_service(grpc::behind(gate.clone(), rate_limits))
        .into_axum_router();
    let limit = gate.body_limit();
    let all = All {
        grpc,
        service,
        gate,
    };
    let routes = Router::new()
        .fallback(answer::<S>)
        .layer(limit)
        .with_state(Arc::new(all));
    Ok((health, routes))
}

/// gRPC and HTTP, whose paths are the same.
struct All<S> {
    grpc: Router,
    service: Arc<Service<S>>,
    gate: Gate,
}

async fn answer<S: QuotaStore>(State(all): State<Arc<All<S>>>, request: Request<Body>) -> Response {
    let content_type = request.headers().get(::http::header::CONTENT_TYPE);
    let is_grpc = content_type.is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"));
    if !is_grpc {
        return http::answer(&all.service, &all.gate, request).await;
    }
    let Ok(response) = all.grpc.clone().oneshot(request).await;
    response
}

#[cfg(test)]
mod tests;
