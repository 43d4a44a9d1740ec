//! Stripe's OpenAPI, as far as it says what a call and its answer must be.

use std::{fs, path::Path};

use serde_json::Value;
use weir_meter_core::stripe::{Call, Method};

/// The file, where it is there.
pub struct OpenApi(Value);

impl OpenApi {
    /// Says so where it is absent.
    pub fn open() -> Option<Self> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../../shared/stripe/stripe-billing.openapi.json");
        let Ok(text) = fs::read_to_string(&file) else {
            println!("skipped: {} is absent", file.display());
            return None;
        };
        Some(Self(serde_json::from_str(&text).unwrap()))
    }

    pub fn version(&self) -> &str {
        self.0["info"]["version"].as_str().unwrap()
    }

    /// Where the path and the method of a call are.
    pub fn operation(&self, call: &Call) -> Option<&Value> {
        let method = match call.method {
            Method::Get => "get",
            Method::Post => "post",
        };
        let fits = |template: &str| {
            let (wanted, found) = (template.split('/'), call.path.split('/'));
            wanted.clone().count() == found.clone().count()
                && wanted.zip(found).all(|(w, f)| w == f || w == "{id}")
        };
        // Fixed paths win over those with an id.
        let paths = self.0["paths"].as_object()?.iter();
        let matching = paths.filter(|(template, o)| fits(template) && o[method].is_object());
        let best = matching.min_by_key(|(template, _)| template.contains('{'))?;
        Some(&best.1[method])
    }

    /// What is wrong with a call.
    pub fn call_errors(&self, call: &Call) -> Vec<String> {
        let Some(operation) = self.operation(call) else {
            return vec![format!("{:?} {} is not Stripe's", call.method, call.path)];
        };
        let mut errors = Vec::new();
        let form = &operation["requestBody"]["content"]["application/x-www-form-urlencoded"];
        match call.method {
            Method::Get => self.query_errors(operation, call, &mut errors),
            Method::Post => self.check(&form["schema"], &nested(call), "", true, &mut errors),
        }
        for header in parameters(operation, "header") {
            if header["name"] == "Idempotency-Key"
                && let Some(key) = &call.idempotency_key
            {
                self.check(
                    &header["schema"],
                    &key.clone().into(),
                    "key",
                    true,
                    &mut errors,
                );
            }
        }
        errors
    }

    fn query_errors(&self, operation: &Value, call: &Call, errors: &mut Vec<String>) {
        for (name, value) in &call.params {
            match parameters(operation, "query").find(|p| p["name"] == name.as_str()) {
                Some(known) => {
                    self.check(&known["schema"], &value.clone().into(), name, true, errors)
                }
                None => errors.push(format!("{name} is unknown")),
            }
        }
        for known in parameters(operation, "query").filter(|p| p["required"] == true) {
            if !call
                .params
                .iter()
                .any(|(name, _)| known["name"] == name.as_str())
            {
                errors.push(format!("{} is missing", known["name"]));
            }
        }
    }

    /// What is wrong with the answer to a call.
    pub fn answer_errors(&self, call: &Call, answer: &Value) -> Vec<String> {
        let mut errors = Vec::new();
        let content =
            |o: &Value| o["responses"]["200"]["content"]["application/json"]["schema"].clone();
        match self.operation(call).map(content) {
            Some(schema) => self.check(&schema, answer, "", false, &mut errors),
            None => errors.push(format!("{} is not Stripe's", call.path)),
        }
        errors
    }

    /// What is wrong with an object of that schema.
    pub fn object_errors(&self, schema: &str, object: &Value) -> Vec<String> {
        let mut errors = Vec::new();
        let schema = &self.0["components"]["schemas"][schema];
        assert!(schema.is_object());
        self.check(schema, object, "", false, &mut errors);
        errors
    }

    /// `as_text`: numbers are written as texts, as forms and queries do.
    fn check(
        &self,
        schema: &Value,
        value: &Value,
        at: &str,
        as_text: bool,
        errors: &mut Vec<String>,
    ) {
        if let Some(reference) = schema["$ref"].as_str() {
            let target = self.0.pointer(reference.trim_start_matches('#'));
            return self.check(target.unwrap(), value, at, as_text, errors);
        }
        if value.is_null() && (schema["nullable"] == true || schema["type"] == "null") {
            return;
        }
        if let Some(any) = schema["anyOf"].as_array() {
            let fits = any.iter().any(|one| {
                let mut inner = Vec::new();
                self.check(one, value, at, as_text, &mut inner);
                inner.is_empty()
            });
            if !fits {
                errors.push(format!("{at}: {value} fits none of the kinds"));
            }
            return;
        }
        if let Some(all) = schema["enum"].as_array()
            && !all.contains(value)
        {
            errors.push(format!("{at}: {value} is none of {all:?}"));
        }
        let is_kind = match schema["type"].as_str() {
            Some("string") => value.is_string(),
            Some("integer") if as_text => value.as_str().is_some_and(|t| t.parse::<i64>().is_ok()),
            Some("integer") => value.is_i64() || value.is_u64(),
            Some("number") => value.is_number(),
            Some("boolean") => value.is_boolean(),
            Some("object") => value.is_object(),
            Some("array") => value.is_array(),
            Some(other) => panic!("{at}: the validator does not know {other}"),
            None => true,
        };
        if !is_kind {
            errors.push(format!("{at}: {value} is no {}", schema["type"]));
        }
        if let (Some(max), Some(text)) = (schema["maxLength"].as_u64(), value.as_str())
            && text.chars().count() as u64 > max
        {
            errors.push(format!("{at}: is longer than {max}"));
        }
        for (n, item) in value.as_array().into_iter().flatten().enumerate() {
            self.check(
                &schema["items"],
                item,
                &format!("{at}[{n}]"),
                as_text,
                errors,
            );
        }
        self.check_members(schema, value, at, as_text, errors);
    }

    fn check_members(
        &self,
        schema: &Value,
        value: &Value,
        at: &str,
        as_text: bool,
        errors: &mut Vec<String>,
    ) {
        let Some(object) = value.as_object() else {
            return;
        };
        for (name, member) in object {
            let place = format!("{at}/{name}");
            let other = &schema["additionalProperties"];
            match schema["properties"].get(name) {
                Some(known) => self.check(known, member, &place, as_text, errors),
                None if other.is_object() => self.check(other, member, &place, as_text, errors),
                None if schema["properties"].is_object() => {
                    errors.push(format!("{place} is unknown"));
                }
                None => {}
            }
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            if !object.contains_key(name.as_str().unwrap()) {
                errors.push(format!("{at}: {name} is missing"));
            }
        }
    }
}

fn parameters<'a>(operation: &'a Value, place: &'a str) -> impl Iterator<Item = &'a Value> {
    let all = operation["parameters"].as_array().into_iter().flatten();
    all.filter(move |p| p["in"] == place)
}

/// `a[b]=c` as `{"a": {"b": "c"}}`.
fn nested(call: &Call) -> Value {
    let mut body = Value::Object(serde_json::Map::new());
    for (name, text) in &call.params {
        let mut place = &mut body;
        for segment in name.split('[') {
            place = &mut place[segment.trim_end_matches(']')];
        }
        *place = text.clone().into();
    }
    body
}
