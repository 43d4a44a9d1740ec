//! Checks of a form against the parameters of its endpoint.

use super::{error::StripeError, form::Form, money::UnitAmount};

/// What a value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text of one to so many characters.
    Text(usize),
    /// Text that may be empty.
    AnyText,
    /// Empty: unsets what it names.
    Unset,
    Integer,
    Boolean,
    /// A decimal number of at most twelve places, not negative.
    Decimal,
    OneOf(&'static [&'static str]),
}

/// One parameter. In its name, `#` stands for an index and `*` for any name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Param {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) required: bool,
}

/// Stripe's limit for most texts.
pub(super) const TEXT: Kind = Kind::Text(5000);

pub(super) const fn required(name: &'static str, kind: Kind) -> Param {
    Param {
        name,
        kind,
        required: true,
    }
}

pub(super) const fn optional(name: &'static str, kind: Kind) -> Param {
    Param {
        name,
        kind,
        required: false,
    }
}

/// `metadata[...]`, and `metadata=` to unset it.
pub(super) const METADATA: [Param; 2] = [
    optional("metadata[*]", Kind::AnyText),
    optional("metadata", Kind::Unset),
];

/// What every list takes.
pub(super) const LIMIT: Param = optional("limit", Kind::Integer);
pub(super) const STARTING_AFTER: Param = optional("starting_after", TEXT);
pub(super) const ENDING_BEFORE: Param = optional("ending_before", TEXT);

impl Param {
    /// The name without brackets: `a[#][b]` has `a`, `#` and `b`.
    pub(super) fn segments(&self) -> impl Iterator<Item = &'static str> + Clone {
        self.name
            .split('[')
            .map(|segment| segment.trim_end_matches(']'))
    }

    fn matches(&self, segments: &[String]) -> bool {
        self.segments().count() == segments.len()
            && self
                .segments()
                .zip(segments)
                .all(|(pattern, segment)| match pattern {
                    "#" => segment.parse::<usize>().is_ok(),
                    "*" => !segment.is_empty(),
                    name => name == segment,
                })
    }
}

/// Refuses unknown parameters, then missing ones, then invalid values.
pub(super) fn check(form: &Form, known: &[Param]) -> Result<(), StripeError> {
    let find = |segments: &[String]| known.iter().find(|param| param.matches(segments));
    for leaf in form.leaves() {
        if find(&leaf.segments).is_none() {
            return Err(StripeError::unknown(&leaf.key));
        }
    }
    for param in known.iter().filter(|param| param.required) {
        let given = form
            .leaves()
            .iter()
            .any(|leaf| param.matches(&leaf.segments));
        if !given {
            // Where any name will do, it is the object that is missing.
            let name = param.name.trim_end_matches("[*]");
            return Err(StripeError::missing(name));
        }
    }
    for leaf in form.leaves() {
        if let Some(param) = find(&leaf.segments) {
            check_value(&leaf.key, param.kind, &leaf.value)?;
        }
    }
    check_metadata(form)
}

fn check_value(key: &str, kind: Kind, value: &str) -> Result<(), StripeError> {
    match kind {
        Kind::AnyText => Ok(()),
        Kind::Unset if value.is_empty() => Ok(()),
        Kind::Unset => Err(StripeError::parameter(
            "parameter_invalid",
            key,
            format!("Invalid {key}: an object or an empty string is needed."),
        )),
        _ if value.is_empty() => Err(StripeError::empty(key)),
        Kind::Text(most) if value.chars().count() > most => Err(StripeError::parameter(
            "parameter_invalid_string_too_long",
            key,
            format!("Invalid {key}: at most {most} characters are allowed."),
        )),
        Kind::Text(_) => Ok(()),
        Kind::Integer if value.parse::<i64>().is_ok() && !value.starts_with('+') => Ok(()),
        Kind::Integer => Err(StripeError::parameter(
            "parameter_invalid_integer",
            key,
            format!("Invalid integer: {value}"),
        )),
        Kind::Boolean if matches!(value, "true" | "false") => Ok(()),
        Kind::Boolean => Err(StripeError::parameter(
            "parameter_invalid_boolean",
            key,
            format!("Invalid boolean: {value}"),
        )),
        Kind::Decimal if UnitAmount::parse(value).is_some() => Ok(()),
        Kind::Decimal => Err(StripeError::parameter(
            "parameter_invalid_decimal",
            key,
            format!("Invalid decimal: {value}; at most 12 decimal places are allowed."),
        )),
        Kind::OneOf(allowed) if allowed.contains(&value) => Ok(()),
        Kind::OneOf(allowed) => Err(StripeError::parameter(
            "parameter_invalid_enum",
            key,
            format!("Invalid {key}: must be one of {}", allowed.join(", ")),
        )),
    }
}

/// Stripe's limits: 50 names of at most 40 characters, values of at most 500.
fn check_metadata(form: &Form) -> Result<(), StripeError> {
    let refuse = |message: &str| {
        Err(StripeError::parameter(
            "metadata_invalid",
            "metadata",
            message.to_owned(),
        ))
    };
    for (name, value) in form.children("metadata") {
        if name.chars().count() > 40 {
            return refuse("Metadata names are at most 40 characters long.");
        }
        if value.chars().count() > 500 {
            return refuse("Metadata values are at most 500 characters long.");
        }
    }
    if form.children("metadata").count() > 50 {
        return refuse("Metadata has at most 50 names.");
    }
    Ok(())
}
