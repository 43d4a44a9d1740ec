//! The directory's listener: one page for each request of a gateway.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest as _, Request, State},
    response::{IntoResponse as _, Response},
    routing::get,
};
use http::{HeaderValue, Method, StatusCode, header};
use prost::Message as _;
use weir_process::bears;
use weir_wire::{
    directory::SNAPSHOT_PATH, headers as names, proto::directory::SnapshotRequest,
    usage::PROTO_CONTENT_TYPE,
};

use super::Shared;

/// The largest request: two versions and a number are some 50 bytes.
const BODY_MAX_BYTES: usize = 4 << 10;

#[derive(Clone)]
struct Listener {
    shared: Shared,
    token: Arc<str>,
}

/// Everything on the port.
pub fn routes(shared: Shared, token: &str) -> Router {
    let listener = Listener {
        shared,
        token: token.into(),
    };
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route(SNAPSHOT_PATH, axum::routing::any(snapshot))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .with_state(listener)
}

async fn snapshot(State(listener): State<Listener>, request: Request) -> Response {
    match answer(&listener, request).await {
        Ok(page) => ([(header::CONTENT_TYPE, PROTO_CONTENT_TYPE)], page).into_response(),
        Err(refused) => refused.into_response(),
    }
}

/// A status and one line of text for an operator.
struct Refused(StatusCode, String);

impl Refused {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self(status, message.into())
    }
}

async fn answer(listener: &Listener, request: Request) -> Result<Bytes, Refused> {
    if request.method() != Method::POST {
        let message = format!("method: must be POST, found {}", request.method());
        return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, message));
    }
    let headers = request.headers();
    // A tenant's request that was led here by mistake is no gateway's.
    if headers.contains_key(names::TENANT_CONTEXT) {
        let message = format!("{}: not for the directory", names::TENANT_CONTEXT);
        return Err(Refused::new(StatusCode::FORBIDDEN, message));
    }
    if !bears(headers, &listener.token) {
        let message = "authorization: not the token of the directory";
        return Err(Refused::new(StatusCode::UNAUTHORIZED, message));
    }
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
                format!("body: must be at most {BODY_MAX_BYTES} bytes"),
            ),
            _ => Refused::new(StatusCode::BAD_REQUEST, "body: broke off"),
        })?;
    let asked = SnapshotRequest::decode(body)
        .map_err(|_| Refused::new(StatusCode::BAD_REQUEST, "body: not a SnapshotRequest"))?;
    listener
        .shared
        .read()
        .answer(&asked)
        .map_err(|gone| Refused::new(StatusCode::GONE, gone.to_string()))
}

impl axum::response::IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(status, message) = self;
        let mut response = (status, format!("{message}\n")).into_response();
        let more = match status {
            StatusCode::METHOD_NOT_ALLOWED => Some((header::ALLOW, "POST")),
            StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, "Bearer")),
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

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::HeaderMap;
    use tower::ServiceExt as _;
    use weir_router_core::directory::{file::File, snapshot::Snapshot};
    use weir_wire::{directory::Page, proto::directory::Version};

    use super::*;

    const TOKEN: &str = "a-token-of-more-than-thirty-two-bytes";

    fn shared() -> Shared {
        let file = File::parse("version: 3\ntenants:\n  - {id: acme, plan: p}\n").unwrap();
        Shared::new(Snapshot::new(&file).unwrap())
    }

    fn request() -> http::request::Builder {
        Request::post(SNAPSHOT_PATH)
            .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
            .header(header::CONTENT_TYPE, PROTO_CONTENT_TYPE)
    }

    /// The status, the headers and the body of the answer.
    async fn ask(request: Request) -> (StatusCode, HeaderMap, Bytes) {
        let response = routes(shared(), TOKEN).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        (parts.status, parts.headers, body)
    }

    #[tokio::test]
    async fn a_gateway_gets_its_page() {
        let (status, headers, body) = ask(request().body(Body::empty()).unwrap()).await;
        assert_eq!(
            (status, headers[header::CONTENT_TYPE].as_bytes()),
            (StatusCode::OK, PROTO_CONTENT_TYPE.as_bytes())
        );
        let page = Page::decode(&body).unwrap();
        assert_eq!(
            (page.version.number, page.base, page.tenants.len()),
            (3, None, 1)
        );
        let held = SnapshotRequest {
            held: Some(page.version.into()),
            ..Default::default()
        };
        let (_, _, body) = ask(request().body(held.encode_to_vec().into()).unwrap()).await;
        let same = Page::decode(&body).unwrap();
        assert_eq!((same.base, same.tenants.len()), (Some(page.version), 0));
        let health = Request::get("/healthz").body(Body::empty()).unwrap();
        assert_eq!(ask(health).await.0, StatusCode::OK);
    }

    #[track_caller]
    fn check(found: &(StatusCode, HeaderMap, Bytes), status: u16, says: &str) {
        let text = String::from_utf8_lossy(&found.2);
        assert_eq!(found.0, status, "{text}");
        assert!(text.contains(says) && !text.contains(TOKEN), "{text}");
    }

    #[tokio::test]
    async fn others_are_refused() {
        let reading = SnapshotRequest {
            reading: Some(Version {
                number: 2,
                digest: 1,
            }),
            ..Default::default()
        };
        let body = reading.encode_to_vec();
        let without = |name: http::HeaderName| {
            let mut request = request().body(Body::empty()).unwrap();
            request.headers_mut().remove(name);
            request
        };
        let get = Request::get(SNAPSHOT_PATH).body(Body::empty()).unwrap();
        let found = ask(get).await;
        check(&found, 405, "POST");
        assert_eq!(found.1[header::ALLOW], "POST");
        let context = request().header(names::TENANT_CONTEXT, "v1");
        check(
            &ask(context.body(Body::empty()).unwrap()).await,
            403,
            "not for the directory",
        );
        check(
            &ask(without(header::AUTHORIZATION)).await,
            401,
            "authorization",
        );
        for wrong in [
            "Bearer ",
            "Bearer x",
            TOKEN,
            &format!("bearer {TOKEN}"),
            &format!("Bearer {TOKEN}x"),
        ] {
            let mut request = without(header::AUTHORIZATION);
            request
                .headers_mut()
                .insert(header::AUTHORIZATION, wrong.parse().unwrap());
            check(&ask(request).await, 401, "authorization");
        }
        check(
            &ask(without(header::CONTENT_TYPE)).await,
            415,
            "content-type",
        );
        check(
            &ask(request().body(vec![0xff; 9].into()).unwrap()).await,
            400,
            "SnapshotRequest",
        );
        check(
            &ask(request().body(vec![0; BODY_MAX_BYTES + 1].into()).unwrap()).await,
            413,
            "4096",
        );
        check(
            &ask(request().body(body.into()).unwrap()).await,
            410,
            "begin again",
        );
        let elsewhere = Request::post("/x").body(Body::empty()).unwrap();
        assert_eq!(ask(elsewhere).await.0, StatusCode::NOT_FOUND);
    }
}
