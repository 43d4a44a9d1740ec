//! Checks of a request's arguments against a table of the known ones.

use serde_json::{Map, Value};

/// What a value must be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
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
    TextOrArray,
    /// A check of its own decides.
    Checked,
}

/// One argument: its name, what it must be.
pub(crate) type Param = (&'static str, Kind);

/// What is wrong with the argument at `path`.
#[derive(Debug)]
pub(crate) struct Mistake {
    pub(crate) path: String,
    pub(crate) what: What,
}

/// How an argument is wrong; each dialect has its own words for it.
#[derive(Debug)]
pub(crate) enum What {
    /// There is no such argument.
    Unknown,
    /// It is of another type than this.
    Type(&'static str, Value),
    /// It is none of these strings.
    NotOneOf(&'static [&'static str], String),
    /// It is below or above this bound of a whole or a decimal number.
    OutOfRange {
        below: bool,
        whole: bool,
        bound: String,
        found: Value,
    },
}

/// Refuses unknown arguments, then those of a wrong type or out of range.
/// `null` counts as absent. With an empty path the names are their own.
pub(crate) fn check(
    path: &str,
    object: &Map<String, Value>,
    known: &[Param],
) -> Result<(), Mistake> {
    for name in object.keys() {
        if !known.iter().any(|(known, _)| known == name) {
            return Err(Mistake {
                path: join(path, name),
                what: What::Unknown,
            });
        }
    }
    check_known(path, object, known)
}

/// The same, but passes over unknown arguments.
pub(crate) fn check_known(
    path: &str,
    object: &Map<String, Value>,
    known: &[Param],
) -> Result<(), Mistake> {
    for (name, kind) in known {
        if let Some(value) = given(object, name)
            && let Some(what) = wrong(*kind, value)
        {
            let path = join(path, name);
            return Err(Mistake { path, what });
        }
    }
    Ok(())
}

/// The value of that name, unless it is absent or `null`.
pub(crate) fn given<'a>(body: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    body.get(name).filter(|value| !value.is_null())
}

/// The text of that name.
pub(crate) fn text<'a>(body: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    body.get(name).and_then(Value::as_str)
}

/// The number of that name.
pub(crate) fn number(body: &Map<String, Value>, name: &str) -> Option<u64> {
    body.get(name).and_then(Value::as_u64)
}

/// The flag of that name; false where it is absent.
pub(crate) fn flag(body: &Map<String, Value>, name: &str) -> bool {
    body.get(name).and_then(Value::as_bool).unwrap_or(false)
}

/// The array of that name; empty where it is absent.
pub(crate) fn array<'a>(body: &'a Map<String, Value>, name: &str) -> &'a [Value] {
    body.get(name)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn wrong(kind: Kind, value: &Value) -> Option<What> {
    let unless = |fits: bool, wanted| (!fits).then(|| What::Type(wanted, value.clone()));
    let out = |below, whole, bound| {
        Some(What::OutOfRange {
            below,
            whole,
            bound,
            found: value.clone(),
        })
    };
    match kind {
        Kind::Boolean => unless(value.is_boolean(), "a boolean"),
        Kind::Text => unless(value.is_string(), "a string"),
        Kind::Object => unless(value.is_object(), "an object"),
        Kind::Array => unless(value.is_array(), "an array"),
        Kind::TextOrObject => unless(
            value.is_string() || value.is_object(),
            "a string or an object",
        ),
        Kind::TextOrArray => unless(
            value.is_string() || value.is_array(),
            "a string or an array",
        ),
        Kind::OneOf(allowed) => match value.as_str() {
            None => unless(false, "a string"),
            Some(text) if allowed.contains(&text) => None,
            Some(text) => Some(What::NotOneOf(allowed, text.to_owned())),
        },
        Kind::Integer(least, most) => match value.as_i64() {
            None => unless(false, "an integer"),
            Some(found) if found < least => out(true, true, least.to_string()),
            Some(found) if found > most => out(false, true, most.to_string()),
            Some(_) => None,
        },
        Kind::Number(least, most) => match value.as_f64() {
            None => unless(false, "a decimal"),
            Some(found) if found < least => out(true, false, least.to_string()),
            Some(found) if found > most => out(false, false, most.to_string()),
            Some(_) => None,
        },
        Kind::Checked => None,
    }
}
