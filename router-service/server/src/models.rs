//! The models of the caller's plan, all or one, as each dialect lists them.

use axum::response::{IntoResponse as _, Response};
use http::HeaderMap;
use serde_json::{Value, json};
use weir_dialects::routes;
use weir_router_core::{offer::Offer, refusal::Refusal};
use weir_wire::{error::Dialect, proto::usage::Outcome};

use crate::exchange::Exchange;

/// What Anthropic's SDK sends with every request, and OpenAI's never.
pub const ANTHROPIC_MARK: &str = "anthropic-version";

/// When a model was made is not known here; the SDKs want a time.
const CREATED_AT: &str = "1970-01-01T00:00:00Z";

/// Answers `GET /v1/models` and `GET /v1/models/{id}`.
///
/// # Errors
/// 404 for a model that the plan lacks.
pub fn answer(
    offer: &Offer,
    exchange: &Exchange,
    headers: &HeaderMap,
    path: &str,
) -> Result<Response, Refusal> {
    let dialect = match headers.contains_key(ANTHROPIC_MARK) {
        true => Dialect::Anthropic,
        false => Dialect::OpenAi,
    };
    let plan = &exchange.caller.verified.plan;
    let models = offer.models(plan).map(|m| (m.name.as_str(), &*m.provider));
    let aliases = offer.plan(plan).map(|p| &p.aliases).into_iter().flatten();
    let aliases = aliases
        .filter(|(alias, _)| offer.models(plan).all(|m| m.name != **alias))
        .map(|(alias, _)| (alias.as_str(), "weir"));
    let mut all: Vec<(&str, &str)> = models.chain(aliases).collect();
    let name = routes::call(path).and_then(|(call, _)| call.strip_prefix("models/"));
    let body = match name {
        None => list(dialect, &all),
        Some(name) => {
            let Some(position) = all.iter().position(|(id, _)| *id == name) else {
                exchange.tell_alone(Outcome::Rejected, 404);
                return Err(Refusal::invalid(
                    404,
                    "model_not_found",
                    format!("The model `{name}` does not exist or your plan lacks it."),
                )
                .at("model"));
            };
            one(dialect, all.swap_remove(position))
        }
    };
    exchange.tell_alone(Outcome::Completed, 200);
    Ok(axum::Json(body).into_response())
}

fn list(dialect: Dialect, all: &[(&str, &str)]) -> Value {
    let data: Vec<Value> = all.iter().map(|model| one(dialect, *model)).collect();
    match dialect {
        Dialect::OpenAi => json!({"object": "list", "data": data}),
        Dialect::Anthropic => json!({
            "data": data,
            "has_more": false,
            "first_id": all.first().map(|(id, _)| id),
            "last_id": all.last().map(|(id, _)| id),
        }),
    }
}

fn one(dialect: Dialect, (id, owner): (&str, &str)) -> Value {
    match dialect {
        Dialect::OpenAi => json!({
            "id": id,
            "object": "model",
            "created": 0,
            "owned_by": owner,
        }),
        Dialect::Anthropic => json!({
            "type": "model",
            "id": id,
            "display_name": id,
            "created_at": CREATED_AT,
        }),
    }
}
