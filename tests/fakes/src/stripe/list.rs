//! Stripe's lists: newest first, with cursors that are ids.

use serde_json::{Value, json};

use super::{error::StripeError, form::Form};

/// One page of `all`, which is newest first.
pub(super) fn page(
    all: Vec<Value>,
    form: &Form,
    url: &str,
    what: &str,
) -> Result<Value, StripeError> {
    let limit = form.integer("limit").unwrap_or(10);
    if !(1..=100).contains(&limit) {
        let message = format!("Invalid limit: {limit}; it must be 1 to 100.");
        return Err(StripeError::parameter(
            "parameter_invalid_integer",
            "limit",
            message,
        ));
    }
    let limit = usize::try_from(limit).unwrap_or(10);
    let position = |param: &str, id: &str| {
        let found = all
            .iter()
            .position(|item| item.get("id").and_then(Value::as_str) == Some(id));
        found.ok_or_else(|| StripeError::no_such(what, id, param))
    };
    let (from, to) = match (form.get("starting_after"), form.get("ending_before")) {
        (Some(_), Some(_)) => {
            let message = "starting_after excludes ending_before.".to_owned();
            return Err(StripeError::parameter(
                "parameters_exclusive",
                "starting_after",
                message,
            ));
        }
        (Some(id), None) => {
            let from = position("starting_after", id)?.saturating_add(1);
            (from, from.saturating_add(limit).min(all.len()))
        }
        (None, Some(id)) => {
            let to = position("ending_before", id)?;
            (to.saturating_sub(limit), to)
        }
        (None, None) => (0, limit.min(all.len())),
    };
    let has_more = if form.get("ending_before").is_some() {
        from > 0
    } else {
        to < all.len()
    };
    let data = all.get(from..to).unwrap_or_default();
    Ok(json!({"object": "list", "data": data, "has_more": has_more, "url": url}))
}
