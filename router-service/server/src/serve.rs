//! The HTTP side of the port: tenants' paths, in OpenAI's shape.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, FromRequest as _, Request, State},
    response::{IntoResponse as _, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use weir_dialects::routes::{RequestClass, Route, route};
use weir_router_core::refusal::Refusal;
use weir_wire::{headers as names, proto::usage::Outcome};

use crate::{
    app::App,
    call::{Answer, AnswerBody},
    exchange::{Caller, Exchange},
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
    let caller = match app.caller(request.headers()) {
        Ok(caller) => caller,
        Err(refusal) => return refuse(&refusal, None),
    };
    let request_id = caller.verified.request_id.to_string();
    let mut response = match serve(app, caller, request).await {
        Ok(response) => response,
        Err((refusal, allow)) => refuse(&refusal, allow),
    };
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(names::REQUEST_ID, id.clone());
        // What OpenAI's SDKs show as `_request_id`.
        response.headers_mut().insert("x-request-id", id);
    }
    response
}

type Refused = (Refusal, Option<&'static str>);

async fn serve(app: Arc<App>, caller: Caller, request: Request) -> Result<Response, Refused> {
    let path = request.uri().path().to_owned();
    match route(request.method().as_str(), &path) {
        Route::Class(RequestClass::Models) => {
            models(&app, &app.exchange(caller, RequestClass::Models), &path).map_err(|r| (r, None))
        }
        Route::Class(class) => {
            let body = read_body(request).await;
            let answer = app.clone().infer(app.exchange(caller, class), body).await;
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

async fn read_body(request: Request) -> Result<Bytes, Refusal> {
    Bytes::from_request(request, &())
        .await
        .map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Refusal::invalid(
                413,
                "request_too_large",
                "The request body exceeds the limit of this endpoint.",
            ),
            _ => Refusal::invalid(400, "incomplete_body", "The request body broke off."),
        })
}

#[derive(Serialize)]
struct ModelObject<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'a str,
}

#[derive(Serialize)]
struct ModelList<'a> {
    object: &'static str,
    data: Vec<ModelObject<'a>>,
}

/// The models of the caller's plan, all or one, as OpenAI lists them.
fn models(app: &App, exchange: &Exchange, path: &str) -> Result<Response, Refusal> {
    let mut data: Vec<ModelObject<'_>> = app
        .settings
        .offer
        .models(&exchange.caller.verified.plan)
        .map(|m| ModelObject {
            id: &m.name,
            object: "model",
            created: 0,
            owned_by: &m.provider,
        })
        .collect();
    let response = match path.strip_prefix("/v1/models/") {
        None => axum::Json(ModelList {
            object: "list",
            data,
        })
        .into_response(),
        Some(name) => {
            let Some(position) = data.iter().position(|m| m.id == name) else {
                exchange.tell_alone(Outcome::Rejected, 404);
                return Err(Refusal::invalid(
                    404,
                    "model_not_found",
                    format!("The model `{name}` does not exist or your plan lacks it."),
                )
                .at("model"));
            };
            axum::Json(data.swap_remove(position)).into_response()
        }
    };
    exchange.tell_alone(Outcome::Completed, 200);
    Ok(response)
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

fn refuse(refusal: &Refusal, allow: Option<&'static str>) -> Response {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (
        status,
        [(header::CONTENT_TYPE, "application/json")],
        refusal.error.body(),
    )
        .into_response();
    if let Some(allow) = allow {
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    response
}
