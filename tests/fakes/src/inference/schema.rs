//! Makes JSON that fits a JSON schema, from the words of an answer.

use serde_json::{Map, Number, Value, json};

use super::answers;
use crate::ids::Mixer;

/// How deep it goes: a schema may refer to itself.
const DEPTH: usize = 16;

/// A value of this schema, with the required properties of objects and no others.
///
/// It knows `type`, `enum`, `const`, `anyOf`, `oneOf`, `allOf` (their first),
/// `$ref` into the schema, lengths, and bounds of numbers; not `pattern`.
pub(crate) fn fit(schema: &Value, mixer: &mut Mixer) -> Value {
    Fitter {
        root: schema,
        mixer,
    }
    .value(schema, DEPTH)
}

struct Fitter<'a> {
    root: &'a Value,
    mixer: &'a mut Mixer,
}

impl<'a> Fitter<'a> {
    fn value(&mut self, schema: &'a Value, depth: usize) -> Value {
        let Some(depth) = depth.checked_sub(1) else {
            return Value::Null;
        };
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            let target = target.strip_prefix('#').unwrap_or_default();
            let root = self.root;
            return root
                .pointer(target)
                .map_or(Value::Null, |found| self.value(found, depth));
        }
        if let Some(value) = schema.get("const").or_else(|| schema.pointer("/enum/0")) {
            return value.clone();
        }
        for several in ["/anyOf/0", "/oneOf/0", "/allOf/0"] {
            if let Some(first) = schema.pointer(several) {
                return self.value(first, depth);
            }
        }
        match kind(schema) {
            "object" => self.object(schema, depth),
            "array" => self.array(schema, depth),
            "boolean" => Value::Bool(self.mixer.below(2) == 1),
            "integer" => self.number(schema, true),
            "number" => self.number(schema, false),
            "null" => Value::Null,
            _ => Value::String(self.text(schema)),
        }
    }

    fn object(&mut self, schema: &'a Value, depth: usize) -> Value {
        let required = schema.get("required").and_then(Value::as_array);
        let names = required.into_iter().flatten().filter_map(Value::as_str);
        let mut object = Map::new();
        for name in names {
            let property = schema.get("properties").and_then(|all| all.get(name));
            let value = match property {
                Some(property) => self.value(property, depth),
                None => Value::String(answers::word(self.mixer).to_owned()),
            };
            object.insert(name.to_owned(), value);
        }
        Value::Object(object)
    }

    fn array(&mut self, schema: &'a Value, depth: usize) -> Value {
        let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0);
        let most = schema.get("maxItems").and_then(Value::as_u64);
        let count = most.map_or(2, |most| most.min(2)).max(least).min(64);
        let item = |fitter: &mut Self| match schema.get("items") {
            Some(items) => fitter.value(items, depth),
            None => Value::String(answers::word(fitter.mixer).to_owned()),
        };
        Value::Array((0..count).map(|_| item(self)).collect())
    }

    fn number(&mut self, schema: &Value, whole: bool) -> Value {
        let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
        let least = bound("minimum").or_else(|| bound("exclusiveMinimum").map(|least| least + 1.0));
        let most = bound("maximum").or_else(|| bound("exclusiveMaximum").map(|most| most - 1.0));
        let drawn = u16::try_from(self.mixer.below(100)).unwrap_or(0);
        let drawn = least.unwrap_or(0.0) + f64::from(drawn);
        let value = most.map_or(drawn, |most| drawn.min(most).max(least.unwrap_or(most)));
        let text = format!("{value:.0}");
        match text.parse::<i64>() {
            Ok(integer) if whole => json!(integer),
            _ => Number::from_f64(value).map_or(Value::Null, Value::Number),
        }
    }

    fn text(&mut self, schema: &Value) -> String {
        let length = |name: &str| {
            let length = schema.get(name).and_then(Value::as_u64);
            length.and_then(|length| usize::try_from(length).ok())
        };
        match schema.get("format").and_then(Value::as_str) {
            Some("date") => return "2026-03-14".to_owned(),
            Some("time") => return "09:26:53Z".to_owned(),
            Some("date-time") => return "2026-03-14T09:26:53Z".to_owned(),
            Some("email") => return format!("{}@example.com", answers::word(self.mixer)),
            Some("uri") => return format!("https://example.com/{}", answers::word(self.mixer)),
            Some("uuid") => return "6f1c2d1e-5b7a-4c3d-9e8f-0a1b2c3d4e5f".to_owned(),
            _ => {}
        }
        let mut text = answers::word(self.mixer).to_owned();
        while text.len() < length("minLength").unwrap_or(0).min(4_096) {
            text.push_str(answers::word(self.mixer));
        }
        text.truncate(length("maxLength").unwrap_or(usize::MAX));
        text
    }
}

/// The first type that is not null; an object where there are properties.
fn kind(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(kind)) => kind,
        Some(Value::Array(several)) => {
            let mut kinds = several.iter().filter_map(Value::as_str);
            kinds.find(|kind| *kind != "null").unwrap_or("null")
        }
        _ if schema.get("properties").is_some() => "object",
        _ if schema.get("items").is_some() => "array",
        _ => "string",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(schema: Value, fits: impl Fn(&Value) -> bool) {
        for seed in 0..20 {
            let made = fit(&schema, &mut Mixer::new(seed));
            assert!(fits(&made), "{schema}: {made}");
        }
    }

    #[test]
    fn values_fit_their_schema() {
        check(json!({"type": "string"}), |v| {
            v.as_str().is_some_and(|s| !s.is_empty())
        });
        check(json!({"type": "string", "minLength": 30}), |v| {
            v.as_str().unwrap().len() >= 30
        });
        check(json!({"type": "string", "maxLength": 2}), |v| {
            v.as_str().unwrap().len() <= 2
        });
        check(
            json!({"type": "integer", "minimum": 3, "maximum": 5}),
            |v| (3..=5).contains(&v.as_i64().unwrap()),
        );
        check(json!({"type": "number", "exclusiveMaximum": -7}), |v| {
            v.as_f64().unwrap() < -7.0
        });
        check(json!({"type": "boolean"}), Value::is_boolean);
        check(json!({"enum": ["m", "ft"]}), |v| v == "m");
        check(json!({"const": 4}), |v| v == 4);
        check(json!({"type": ["null", "integer"]}), Value::is_i64);
        check(
            json!({"anyOf": [{"type": "boolean"}, {"type": "null"}]}),
            Value::is_boolean,
        );
        check(
            json!({"type": "array", "minItems": 3, "items": {"type": "integer"}}),
            |v| v.as_array().unwrap().len() == 3 && v[0].is_i64(),
        );
        let nested = json!({
            "type": "object", "required": ["place", "at"],
            "properties": {"place": {"$ref": "#/$defs/place"}, "at": {"type": "number"}, "more": {}},
            "$defs": {"place": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}},
        });
        check(nested, |v| {
            v["place"]["name"].is_string() && v["at"].is_number() && v.get("more").is_none()
        });
    }

    #[test]
    fn a_schema_that_refers_to_itself_comes_to_an_end() {
        let list =
            json!({"type": "object", "required": ["next"], "properties": {"next": {"$ref": "#"}}});
        check(list, Value::is_object);
    }
}
