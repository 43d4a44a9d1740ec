//! Who may call the services: whoever shows the token or a certificate that an
//! authority of `tls.client_ca` vouches for. Health and reflection are open.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use tonic::Status;
use weir_process::{ClientCertificate, bears};
use weir_wire::headers as names;

use super::TOKEN_ENVIRONMENT;

/// Where Weir's own services are; what else is on the port tells nothing of
/// tenants.
const GUARDED: &str = "/weir.";

/// What services show.
pub struct Gate {
    token: Option<String>,
}

impl Gate {
    /// Without a token, a certificate alone lets in.
    pub fn new(token: Option<String>) -> Self {
        Self { token }
    }

    /// The name of the service that asks.
    fn admits(&self, request: &Request) -> Result<ServiceName, Status> {
        // A tenant's request that was led here by mistake is no service's.
        if request.headers().contains_key(names::TENANT_CONTEXT) {
            return Err(Status::permission_denied(format!(
                "{}: not for services; a call on behalf of a tenant has it in its message",
                names::TENANT_CONTEXT
            )));
        }
        if let Some(client) = request.extensions().get::<ClientCertificate>() {
            let name = client.names.first().map_or("certificate", String::as_str);
            return Ok(ServiceName(name.to_owned()));
        }
        match &self.token {
            Some(token) if bears(request.headers(), token) => Ok(ServiceName("token".to_owned())),
            Some(_) => Err(Status::unauthenticated(format!(
                "authorization: not the token of {TOKEN_ENVIRONMENT}"
            ))),
            None => Err(Status::unauthenticated("a client certificate is needed")),
        }
    }
}

/// Which service calls: an extension of each request that was let in.
#[derive(Debug, Clone)]
pub struct ServiceName(pub String);

/// Lets in or refuses, before a message is read.
pub async fn admit(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    if request.uri().path().starts_with(GUARDED) {
        match gate.admits(&request) {
            Ok(name) => request.extensions_mut().insert(name),
            Err(status) => return status.into_http(),
        };
    }
    next.run(request).await
}
