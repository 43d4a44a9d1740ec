//! Checks of a request's arguments against a table of the known ones.

use serde_json::{Map, Value};

use super::error::ApiError;

/// What a value must be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Boolean,
    /// An integer in this range, both ends included.
    Integer(i64, i64),
    /// A number in this range, both ends included.
    Number(f64, f64),
    Text,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    Object,
    Array,
    TextOrObject,
    /// A check of its own decides.
    Checked,
}

/// One argument: its name, what it must be.
pub(super) type Param = (&'static str, Kind);

/// Refuses unknown arguments, then those of a wrong type or out of range.
/// `null` counts as absent.
pub(super) fn check(body: &Map<String, Value>, known: &[Param]) -> Result<(), ApiError> {
    for name in body.keys() {
        if !known.iter().any(|(known, _)| known == name) {
            return Err(ApiError::unrecognised(name));
        }
    }
    for (name, kind) in known {
        if let Some(value) = body.get(*name).filter(|value| !value.is_null()) {
            check_value(name, *kind, value)?;
        }
    }
    Ok(())
}

/// The same for an object inside the body, at `path`.
pub(super) fn check_inner(
    path: &str,
    object: &Map<String, Value>,
    known: &[Param],
) -> Result<(), ApiError> {
    for (name, value) in object {
        let inner = format!("{path}.{name}");
        match known.iter().find(|(known, _)| known == name) {
            None => {
                let message = format!("Unknown parameter: '{inner}'.");
                return Err(ApiError::invalid(&inner, "unknown_parameter", message));
            }
            Some((_, kind)) if !value.is_null() => check_value(&inner, *kind, value)?,
            Some(_) => {}
        }
    }
    Ok(())
}

/// The value of that name, unless it is absent or `null`.
pub(super) fn given<'a>(body: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    body.get(name).filter(|value| !value.is_null())
}

fn check_value(name: &str, kind: Kind, value: &Value) -> Result<(), ApiError> {
    let wrong = |wanted: &str| Err(ApiError::wrong_type(name, wanted, value));
    match kind {
        Kind::Boolean if !value.is_boolean() => wrong("a boolean"),
        Kind::Text if !value.is_string() => wrong("a string"),
        Kind::Object if !value.is_object() => wrong("an object"),
        Kind::Array if !value.is_array() => wrong("an array"),
        Kind::TextOrObject if !value.is_string() && !value.is_object() => {
            wrong("a string or an object")
        }
        Kind::OneOf(allowed) => match value.as_str() {
            None => wrong("a string"),
            Some(text) if allowed.contains(&text) => Ok(()),
            Some(text) => Err(ApiError::invalid(
                name,
                "invalid_value",
                format!(
                    "Invalid value: '{text}'. Supported values are: {}.",
                    allowed.join(", ")
                ),
            )),
        },
        Kind::Integer(least, most) => match value.as_i64() {
            None => wrong("an integer"),
            Some(found) if found < least => out_of_range(
                name,
                "integer_below_min_value",
                &format!(">= {least}"),
                value,
            ),
            Some(found) if found > most => out_of_range(
                name,
                "integer_above_max_value",
                &format!("<= {most}"),
                value,
            ),
            Some(_) => Ok(()),
        },
        Kind::Number(least, most) => match value.as_f64() {
            None => wrong("a decimal"),
            Some(found) if found < least => out_of_range(
                name,
                "decimal_below_min_value",
                &format!(">= {least}"),
                value,
            ),
            Some(found) if found > most => out_of_range(
                name,
                "decimal_above_max_value",
                &format!("<= {most}"),
                value,
            ),
            Some(_) => Ok(()),
        },
        _ => Ok(()),
    }
}

fn out_of_range(
    name: &str,
    code: &'static str,
    range: &str,
    found: &Value,
) -> Result<(), ApiError> {
    let message = format!("Invalid '{name}': expected a value {range}, but got {found} instead.");
    Err(ApiError::invalid(name, code, message))
}
