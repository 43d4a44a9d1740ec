//! What a gateway's callout is, on every listener that has some: an HTTP POST
//! with a protobuf body (the shape of unary Connect) and the service's token.

use std::sync::Arc;

use anyhow::ensure;
use axum::{
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest as _, Request},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use prost::Message;
use weir_process::{bears, secret};
use weir_wire::{headers as names, usage::PROTO_CONTENT_TYPE};

/// The least bytes of a token: 32 characters of base64url are 192 bits.
const TOKEN_MIN_BYTES: usize = 32;

/// The token that gateways show a service, from that variable.
pub fn token(environment: &str) -> anyhow::Result<String> {
    let token = secret(environment)?;
    check_token(environment, &token)?;
    Ok(token)
}

fn check_token(environment: &str, token: &str) -> anyhow::Result<()> {
    ensure!(
        token.len() >= TOKEN_MIN_BYTES,
        "{environment}: must be at least {TOKEN_MIN_BYTES} bytes, found {}",
        token.len()
    );
    // No header could carry another, and no gateway would ever be let in.
    ensure!(
        token.bytes().all(|b| b.is_ascii_graphic()),
        "{environment}: must be visible ASCII without spaces, found something else"
    );
    Ok(())
}

/// Whom a service lets in, and with what.
#[derive(Clone)]
pub struct Gate {
    /// In messages: `directory`, `quota service`.
    service: &'static str,
    token: Arc<str>,
    body_max_bytes: usize,
}

impl Gate {
    pub fn new(service: &'static str, token: &str, body_max_bytes: usize) -> Self {
        Self {
            service,
            token: token.into(),
            body_max_bytes,
        }
    }

    /// For the routes whose requests are read by [`Gate::read`].
    pub fn body_limit(&self) -> DefaultBodyLimit {
        DefaultBodyLimit::max(self.body_max_bytes)
    }

    /// Whether a gateway asks.
    pub fn admit(&self, headers: &HeaderMap) -> Result<(), Refused> {
        // A tenant's request that was led here by mistake is no gateway's.
        if headers.contains_key(names::TENANT_CONTEXT) {
            let message = format!("{}: not for the {}", names::TENANT_CONTEXT, self.service);
            return Err(Refused::new(StatusCode::FORBIDDEN, message));
        }
        if !bears(headers, &self.token) {
            let message = format!("authorization: not the token of the {}", self.service);
            return Err(Refused::new(StatusCode::UNAUTHORIZED, message));
        }
        Ok(())
    }

    /// The message of a gateway's request; `name` is the message's.
    pub async fn read<M: Message + Default>(
        &self,
        request: Request,
        name: &str,
    ) -> Result<M, Refused> {
        if request.method() != Method::POST {
            let message = format!("method: must be POST, found {}", request.method());
            return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, message));
        }
        let headers = request.headers();
        self.admit(headers)?;
        let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        if content_type != Some(PROTO_CONTENT_TYPE.as_bytes()) {
            let message = format!("content-type: must be {PROTO_CONTENT_TYPE}");
            return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
        let body = Bytes::from_request(request, &())
            .await
            .map_err(|rejection| match rejection.status() {
                status @ StatusCode::PAYLOAD_TOO_LARGE => Refused::new(
                    status,
                    format!("body: must be at most {} bytes", self.body_max_bytes),
                ),
                _ => Refused::new(StatusCode::BAD_REQUEST, "body: broke off"),
            })?;
        M::decode(body)
            .map_err(|_| Refused::new(StatusCode::BAD_REQUEST, format!("body: not a {name}")))
    }
}

/// A message for a gateway, encoded.
pub fn message(result: Result<Bytes, Refused>) -> Response {
    match result {
        Ok(bytes) => ([(header::CONTENT_TYPE, PROTO_CONTENT_TYPE)], bytes).into_response(),
        Err(refused) => refused.into_response(),
    }
}

/// A status and one line of text for an operator.
#[derive(Debug)]
pub struct Refused {
    pub status: StatusCode,
    pub message: String,
}

impl Refused {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self { status, message } = self;
        let mut response = (status, format!("{message}\n")).into_response();
        let more = match status {
            StatusCode::METHOD_NOT_ALLOWED => Some((header::ALLOW, "POST")),
            StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, "Bearer")),
            StatusCode::SERVICE_UNAVAILABLE => Some((header::RETRY_AFTER, "1")),
            _ => None,
        };
        if let Some((name, value)) = more {
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// What the tests of every listener share.
#[cfg(test)]
pub mod tests {
    use axum::{Router, body::Body};
    use tower::ServiceExt as _;

    use super::*;

    pub const TOKEN: &str = "a-token-of-more-than-thirty-two-bytes";

    pub type Found = (StatusCode, HeaderMap, Bytes);

    pub fn request(path: &str) -> http::request::Builder {
        Request::post(path)
            .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
            .header(header::CONTENT_TYPE, PROTO_CONTENT_TYPE)
    }

    /// The status, the headers and the body of the answer.
    pub async fn ask(routes: Router, request: Request) -> Found {
        let response = routes.oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        (parts.status, parts.headers, body)
    }

    #[track_caller]
    pub fn check(found: &Found, status: u16, says: &str) {
        let text = String::from_utf8_lossy(&found.2);
        assert_eq!(found.0, status, "{text}");
        assert!(text.contains(says) && !text.contains(TOKEN), "{text}");
    }

    /// Asks in every wrong way that has nothing to do with what is asked.
    pub async fn check_refusals(routes: Router, path: &str, name: &str, body_max_bytes: usize) {
        let ask = |request| ask(routes.clone(), request);
        let without = |name: http::HeaderName| {
            let mut request = request(path).body(Body::empty()).unwrap();
            request.headers_mut().remove(name);
            request
        };
        let get = Request::get(path).body(Body::empty()).unwrap();
        let found = ask(get).await;
        check(&found, 405, "POST");
        assert_eq!(found.1[header::ALLOW], "POST");
        let mut context = without(header::AUTHORIZATION);
        context
            .headers_mut()
            .insert(names::TENANT_CONTEXT, HeaderValue::from_static("v1"));
        check(&ask(context).await, 403, "not for the ");
        let found = ask(without(header::AUTHORIZATION)).await;
        check(&found, 401, "authorization");
        assert_eq!(found.1[header::WWW_AUTHENTICATE], "Bearer");
        for wrong in [
            "Bearer ",
            "Bearer x",
            TOKEN,
            &format!("bearer {TOKEN}"),
            &format!("Bearer {TOKEN}x"),
        ] {
            let mut request = without(header::CONTENT_TYPE);
            request
                .headers_mut()
                .insert(header::AUTHORIZATION, wrong.parse().unwrap());
            check(&ask(request).await, 401, "authorization");
        }
        let found = ask(without(header::CONTENT_TYPE)).await;
        check(&found, 415, "content-type");
        for (length, status, says) in [
            (9, 400, name),
            (body_max_bytes, 400, name),
            (
                body_max_bytes.saturating_add(1),
                413,
                body_max_bytes.to_string().as_str(),
            ),
        ] {
            let body = request(path).body(vec![0xff; length].into()).unwrap();
            check(&ask(body).await, status, says);
        }
        let elsewhere = request("/x").body(Body::empty()).unwrap();
        assert_eq!(ask(elsewhere).await.0, StatusCode::NOT_FOUND);
        let health = Request::get("/healthz").body(Body::empty()).unwrap();
        assert_eq!(ask(health).await.0, StatusCode::OK);
    }

    #[test]
    fn a_token_is_long_and_fits_in_a_header() {
        check_token("A_TOKEN", &"x".repeat(32)).unwrap();
        for (token, says) in [
            ("hunter2", "found 7"),
            (&"hunter2 ".repeat(8), "without spaces"),
        ] {
            let error = check_token("A_TOKEN", token).unwrap_err().to_string();
            assert!(
                error.contains("A_TOKEN: ") && error.contains(says),
                "{error}"
            );
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
