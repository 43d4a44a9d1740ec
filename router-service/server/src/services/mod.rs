//! gRPC for services, on a listener of its own: inference on behalf of tenants,
//! the directory, what operators ask and tell; to whom.

mod directory;
mod gate;
mod infer;
mod providers;
mod status;

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use axum::{Router, middleware};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use weir_process::{
    Tls, TlsFiles,
    grpc::{self, Health},
};
use weir_router_core::directory::audit::Actor;
use weir_router_store::directory::DirectoryFile;

use self::gate::{Gate, ServiceName};
use crate::{admin, app::App, callout, directory::Shared, proto, provider::Provider};

/// The variable that holds what services show.
pub const TOKEN_ENVIRONMENT: &str = "WEIR_SERVICE_TOKEN";

/// How long calls may go on after a signal to stop.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// The section `services` of the router's configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    listen: SocketAddr,
    tls: Option<TlsFiles>,
}

/// What the listener runs on, checked.
pub struct Options {
    listen: SocketAddr,
    tls: Option<Tls>,
    gate: Gate,
}

impl Options {
    /// Checks the section; files are beside `base`.
    pub fn new(section: Section, base: &Path) -> anyhow::Result<Self> {
        let by_certificate = section
            .tls
            .as_ref()
            .is_some_and(|files| files.client_ca.is_some());
        let token = match std::env::var_os(TOKEN_ENVIRONMENT) {
            // A certificate is enough.
            None if by_certificate => None,
            _ => Some(callout::token(TOKEN_ENVIRONMENT)?),
        };
        let tls = section.tls.map(|files| Tls::open(files.beside(base)));
        Ok(Self {
            listen: section.listen,
            tls: tls.transpose().context("services")?,
            gate: Gate::new(token),
        })
    }
}

/// Services that are about to be served.
pub struct Services {
    /// Where they listen.
    pub address: SocketAddr,
    listener: TcpListener,
    tls: Option<Tls>,
    health: Health,
    routes: Router,
}

/// What the services are about.
pub struct Parts {
    pub app: Arc<App>,
    pub providers: BTreeMap<String, Arc<Provider>>,
    /// Where there is a directory: what is served, and how its file is changed.
    pub directory: Option<(Shared, DirectoryFile)>,
}

impl Services {
    /// Listens.
    pub async fn open(options: Options, parts: Parts) -> anyhow::Result<Self> {
        let (health, routes) = routes(options.gate, parts).await?;
        let listener = TcpListener::bind(options.listen)
            .await
            .with_context(|| format!("services.listen: cannot bind {}", options.listen))?;
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            tls: options.tls,
            health,
            routes,
        })
    }

    /// Serves until `stopping`.
    pub async fn serve(self, stopping: CancellationToken) {
        let health = self.health;
        let stop = async move {
            stopping.cancelled().await;
            health.stopping().await;
        };
        let left =
            weir_process::serve_tls(self.listener, self.tls, self.routes, stop, STOP_GRACE).await;
        if left.is_some() {
            tracing::warn!("services were still calling after {STOP_GRACE:?}");
        }
    }
}

/// Everything on the port.
async fn routes(gate: Gate, parts: Parts) -> anyhow::Result<(Health, Router)> {
    use proto::{directory_server, inference_router_server, providers_server};

    let mut names = vec![
        inference_router_server::SERVICE_NAME,
        providers_server::SERVICE_NAME,
    ];
    if parts.directory.is_some() {
        names.extend([directory_server::SERVICE_NAME, admin::SERVICE_NAME]);
    }
    let limit = parts.app.settings.max_body_bytes;
    let (health, routes) = grpc::routes(&names, proto::FILE_DESCRIPTOR_SET).await?;
    let inference =
        inference_router_server::InferenceRouterServer::new(infer::Inference(parts.app))
            .max_decoding_message_size(limit);
    let providers = providers_server::ProvidersServer::new(providers::Admin(parts.providers));
    let mut routes = routes.add_service(inference).add_service(providers);
    if let Some((shared, file)) = parts.directory {
        let directory = directory_server::DirectoryServer::new(directory::Grpc(shared));
        let tenants = admin::tenants_server(file, |_, extensions| {
            let name = extensions.get::<ServiceName>()?;
            Actor::service(&name.0).ok()
        });
        routes = routes.add_service(directory).add_service(tenants);
    }
    let gate = Arc::new(gate);
    let router = routes
        .into_axum_router()
        .layer(middleware::from_fn_with_state(gate, gate::admit));
    Ok((health, router))
}

/// Checks what is asked of a section before its listener is there.
pub fn check(section: &Section) -> anyhow::Result<()> {
    let loopback = section.listen.ip().is_loopback();
    ensure!(
        loopback || section.tls.is_some(),
        "services.tls: is needed where services.listen is not a loopback address, found {}",
        section.listen
    );
    Ok(())
}
