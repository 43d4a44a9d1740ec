//! What is asked of the router: how a tenant stands, to suspend it, to resume it.

use std::time::Duration;

use anyhow::Context as _;
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use weir_meter_core::dunning::{Action, Seen};

use crate::{
    config::RouterSettings,
    proto::{
        GetTenantRequest, ResumeTenantRequest, SuspendTenantRequest, Tenant, TenantState,
        tenants_client::TenantsClient,
    },
};

/// How long one call may take, connecting included.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The router's services.
#[derive(Clone)]
pub struct Router {
    client: TenantsClient<Channel>,
    bearer: Option<MetadataValue<Ascii>>,
}

/// The router did not do it.
#[derive(Debug, thiserror::Error)]
#[error("the router answered {:?}: {}{}", .0.code(), .0.message(), hint(.0))]
pub struct RouterError(Status);

fn hint(status: &Status) -> &'static str {
    match status.code() {
        Code::Unauthenticated => " (dunning.router.token_env or dunning.router.tls.cert)",
        Code::Unavailable => " (dunning.router.url)",
        // Where no directory is configured the service is not there.
        Code::Unimplemented => " (the router needs a directory)",
        _ => "",
    }
}

impl Router {
    /// Connects when it is first asked, and again after a break.
    pub fn new(settings: &RouterSettings) -> anyhow::Result<Self> {
        let mut endpoint = Endpoint::from_shared(settings.url.clone())
            .context("dunning.router.url")?
            .connect_timeout(TIMEOUT)
            .timeout(TIMEOUT);
        if let Some(tls) = &settings.tls {
            let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.ca));
            if let Some((cert, key)) = &tls.identity {
                config = config.identity(Identity::from_pem(cert, key));
            }
            endpoint = endpoint.tls_config(config).context("dunning.router.tls")?;
        }
        let bearer = |token: &String| {
            let mut value: MetadataValue<Ascii> = format!("Bearer {token}")
                .parse()
                .context("dunning.router.token_env: holds what no header can")?;
            value.set_sensitive(true);
            anyhow::Ok(value)
        };
        Ok(Self {
            client: TenantsClient::new(endpoint.connect_lazy()),
            bearer: settings.token.as_ref().map(bearer).transpose()?,
        })
    }

    /// How a tenant stands.
    pub async fn seen(&self, tenant: &str) -> Result<Seen, RouterError> {
        let tenant = tenant.to_owned();
        let request = self.request(GetTenantRequest { tenant });
        seen(self.client.clone().get_tenant(request).await)
    }

    /// Suspends or resumes it, and says how it stands then.
    pub async fn act(&self, tenant: &str, action: Action) -> Result<Seen, RouterError> {
        let tenant = tenant.to_owned();
        let mut client = self.client.clone();
        seen(match action {
            Action::Suspend => {
                let request = self.request(SuspendTenantRequest { tenant });
                client.suspend_tenant(request).await
            }
            Action::Resume => {
                let request = self.request(ResumeTenantRequest { tenant });
                client.resume_tenant(request).await
            }
        })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(bearer) = &self.bearer {
            request
                .metadata_mut()
                .insert("authorization", bearer.clone());
        }
        request
    }
}

fn seen(answer: Result<tonic::Response<Tenant>, Status>) -> Result<Seen, RouterError> {
    match answer {
        Ok(tenant) => match tenant.into_inner().state() {
            TenantState::Active => Ok(Seen::Active),
            TenantState::Suspended => Ok(Seen::Suspended),
            TenantState::Unspecified => Err(RouterError(Status::internal(
                "state: must be active or suspended",
            ))),
        },
        Err(status) if status.code() == Code::NotFound => Ok(Seen::Unknown),
        Err(status) => Err(RouterError(status)),
    }
}
