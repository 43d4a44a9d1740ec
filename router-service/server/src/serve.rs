//! The HTTP side of the port: tenants' paths, each in the shape of its dialect.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, FromRequest as _, Request, State},
    response::{IntoResponse as _, Response},
};
use http::{HeaderValue, StatusCode, header};
use weir_dialects::routes::{self, Endpoint, Route, route};
use weir_router_core::{refusal::Refusal, request};
use weir_wire::{error::Dialect, headers as names};

use crate::{
    app::{self, App},
    call::{Answer, AnswerBody},
    exchange::Caller,
    models, provider,
};

/// Everything on the port: the gRPC routes, and tenants' paths for the rest.
pub fn router(app: Arc<App>, grpc: Router) -> Router {
    let limit = app.settings.max_body_bytes;
    let tenants = Router::new()
        .route("/healthz", axum::routing::get(|| async { "ok" }))
        .fallback(tenant)
        .layer(DefaultBodyLimit::max(limit))
        .with_state(app);
    grpc.fallback_service(tenants)
}

async fn tenant(State(app): State<Arc<App>>, request: Request) -> Response {
    let path = request.uri().path();
    let mut dialect = Dialect::of_path(path);
    if path.starts_with("/v1/models") && request.headers().contains_key(models::ANTHROPIC_MARK) {
        // The models have one path in both.
        dialect = Dialect::Anthropic;
    }
    let caller = match app.caller(request.headers()) {
        Ok(caller) => caller,
        Err(refusal) => return refuse(dialect, &refusal, None),
    };
    let request_id = caller.verified.request_id.to_string();
    let mut response = match serve(app, caller, request).await {
        Ok(response) => response,
        Err((refusal, allow)) => refuse(dialect, &refusal, allow),
    };
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        let headers = response.headers_mut();
        headers.insert(names::REQUEST_ID, id.clone());
        // What the SDKs show as `_request_id`.
        let shown = match dialect {
            Dialect::OpenAi => "x-request-id",
            Dialect::Anthropic => "request-id",
        };
        headers.insert(shown, id);
    }
    response
}

type Refused = (Refusal, Option<&'static str>);

async fn serve(app: Arc<App>, caller: Caller, request: Request) -> Result<Response, Refused> {
    let path = request.uri().path().to_owned();
    match route(request.method().as_str(), &path) {
        Route::Endpoint(Endpoint::Models) => {
            let exchange = app.exchange(caller, Endpoint::Models);
            models::answer(&app.offer(), &exchange, request.headers(), &path).map_err(|r| (r, None))
        }
        Route::Endpoint(endpoint) => {
            let headers = provider::passed(request.headers(), endpoint.dialect());
            let request = app::Request {
                exchange: app.exchange(caller, endpoint),
                endpoint,
                headers,
                body: read_body(request).await.map(|body| named(&path, body)),
            };
            let answer = app.infer(request).await;
            answer.map(into_response).map_err(|r| (r, None))
        }
        Route::MethodNotAllowed { allow } => Err((
            Refusal::invalid(405, "method_not_allowed", format!("Use {allow} on {path}.")),
            Some(allow),
        )),
        Route::NotFound => Err((
            Refusal::invalid(404, "unknown_url", format!("Invalid URL ({path}).")),
            None,
        )),
    }
}

/// The body with the model that Azure's clients name in the path.
fn named(path: &str, body: Bytes) -> Bytes {
    match routes::call(path) {
        Some((_, Some(deployment))) => {
            request::with_model(&body, deployment).map_or(body, Bytes::from)
        }
        _ => body,
    }
}

/// How long a request's body may take to come.
const BODY_TIME: Duration = Duration::from_secs(60);

async fn read_body(request: Request) -> Result<Bytes, Refusal> {
    let read = tokio::time::timeout(BODY_TIME, Bytes::from_request(request, &()));
    let Ok(read) = read.await else {
        let message = format!(
            "The request body did not come in {} s.",
            BODY_TIME.as_secs()
        );
        return Err(Refusal::invalid(408, "request_timeout", message));
    };
    read.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::invalid(
            413,
            "request_too_large",
            "The request body exceeds the limit of this endpoint.",
        ),
        _ => Refusal::invalid(400, "incomplete_body", "The request body broke off."),
    })
}

fn into_response(answer: Answer) -> Response {
    let body = match answer.body {
        AnswerBody::Whole(bytes) => Body::from(bytes),
        AnswerBody::Stream(stream) => Body::from_stream(stream),
    };
    let mut response = Response::new(body);
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}

fn refuse(dialect: Dialect, refusal: &Refusal, allow: Option<&'static str>) -> Response {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (
        status,
        [(header::CONTENT_TYPE, "application/json")],
        refusal.error.body_in(dialect, refusal.status),
    )
        .into_response();
    for (name, value) in refusal.headers.iter().flat_map(|headers| headers.iter()) {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(*name, value);
        }
    }
    if let Some(allow) = allow {
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    response
}
