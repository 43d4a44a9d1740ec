//! A request's body: checked as far as routing needs it, and rewritten for the
//! provider with every other byte as the client sent it.

use std::fmt;

use serde::{
    Deserialize,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use weir_dialects::routes::RequestClass;

use crate::refusal::Refusal;

/// A body that can go to a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The model that the client asked for.
    pub model: String,
    /// Whether the answer is an event stream.
    pub stream: bool,
    /// Whether the client itself asked for usage in the stream. Where it did
    /// not, the router did, and hides what comes of it.
    pub usage_asked: bool,
    /// Bytes of the members that hold the input, for estimates.
    pub input_bytes: usize,
    /// For the provider.
    pub body: Vec<u8>,
}

/// The members of a JSON object, in order, their values as they stand.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Vec<(String, &'de RawValue)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    // Here, and not after the whole was read: the search below
                    // is short only while there are few.
                    if members.len() >= MEMBERS_MAX {
                        return Err(serde::de::Error::custom(format!(
                            "an object has more than {MEMBERS_MAX} members"
                        )));
                    }
                    // Two parsers may choose differently between the two.
                    if members.iter().any(|(n, _)| *n == name) {
                        return Err(serde::de::Error::custom(format!(
                            "the member `{name}` comes twice"
                        )));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl<'a> Members<'a> {
    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0
            .iter()
            .find_map(|(n, value)| (n == name).then_some(*value))
    }

    /// A member of that type; absent and null are `None`.
    fn typed<T: Deserialize<'a>>(&self, name: &str, wanted: &str) -> Result<Option<T>, Refusal> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        serde_json::from_str::<Option<T>>(value.get()).map_err(|_| {
            Refusal::invalid(
                400,
                "invalid_type",
                format!("Invalid type for '{name}': expected {wanted}."),
            )
            .at(name)
        })
    }
}

/// The most members that a body may have; OpenAI's API knows about forty.
const MEMBERS_MAX: usize = 256;

/// Reads a request's body.
///
/// # Errors
/// 400, naming the parameter, for what is no JSON object, comes twice, lacks
/// its model, or has it or its stream options in another type.
pub fn prepare(class: RequestClass, body: &[u8]) -> Result<Prepared, Refusal> {
    let members: Members<'_> = serde_json::from_slice(body).map_err(|e| {
        Refusal::invalid(
            400,
            "invalid_json",
            format!("We could not parse the JSON body of your request: {e}."),
        )
    })?;
    let model: String = members.typed("model", "a string")?.ok_or_else(|| {
        Refusal::invalid(
            400,
            "missing_required_parameter",
            "you must provide a model parameter",
        )
        .at("model")
    })?;
    let stream = class == RequestClass::Chat
        && members
            .typed::<bool>("stream", "a boolean")?
            .unwrap_or(false);
    let options: Option<Members<'_>> = members.typed("stream_options", "an object")?;
    let usage_asked = match &options {
        Some(options) => options
            .typed::<bool>("include_usage", "a boolean")?
            .unwrap_or(false),
        None => false,
    };
    let input_bytes = ["messages", "input", "tools"]
        .iter()
        .filter_map(|name| members.get(name))
        .fold(0_usize, |sum, value| sum.saturating_add(value.get().len()));
    let body = if stream && !usage_asked {
        with_usage(&members, options.as_ref())
    } else {
        body.to_vec()
    };
    Ok(Prepared {
        model,
        stream,
        usage_asked,
        input_bytes,
        body,
    })
}

/// The same body with `stream_options.include_usage: true`.
fn with_usage(members: &Members<'_>, options: Option<&Members<'_>>) -> Vec<u8> {
    let mut inner = Object::default();
    for (name, value) in options.map(|o| o.0.as_slice()).unwrap_or_default() {
        if name != "include_usage" {
            inner.member(name, value.get());
        }
    }
    inner.member("include_usage", "true");
    let mut outer = Object::default();
    for (name, value) in &members.0 {
        if name != "stream_options" {
            outer.member(name, value.get());
        }
    }
    outer.member("stream_options", &inner.close());
    outer.close().into_bytes()
}

/// A JSON object under construction.
#[derive(Default)]
struct Object(String);

impl Object {
    fn member(&mut self, name: &str, raw: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push_str(&serde_json::Value::from(name).to_string());
        self.0.push(':');
        self.0.push_str(raw);
    }

    fn close(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[track_caller]
    fn check_body(body: &str, expected: &str, usage_asked: bool) {
        let prepared = prepare(RequestClass::Chat, body.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(prepared.body).unwrap(), expected);
        assert_eq!(prepared.usage_asked, usage_asked, "{body}");
    }

    #[test]
    fn a_stream_is_asked_for_its_usage() {
        check_body(
            r#"{"model":"m","seed": 12345678901234567890,"stream":true}"#,
            r#"{"model":"m","seed":12345678901234567890,"stream":true,"stream_options":{"include_usage":true}}"#,
            false,
        );
        check_body(
            r#"{"stream_options":{"include_usage":false,"include_obfuscation":false},"model":"m","stream":true}"#,
            r#"{"model":"m","stream":true,"stream_options":{"include_obfuscation":false,"include_usage":true}}"#,
            false,
        );
    }

    #[test]
    fn any_other_body_stays_as_it_is() {
        for (body, asked) in [
            (r#"{ "model" : "m" , "stream" : false }"#, false),
            (r#"{"model":"m","stream":null}"#, false),
            (
                r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#,
                true,
            ),
        ] {
            check_body(body, body, asked);
        }
    }

    #[track_caller]
    fn check_refused(body: &str, param: Option<&str>, says: &str) {
        let refusal = prepare(RequestClass::Chat, body.as_bytes()).unwrap_err();
        assert_eq!(refusal.status, 400);
        assert_eq!(refusal.error.param.as_deref(), param, "{body}");
        assert!(refusal.error.message.contains(says), "{body}: {refusal:?}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for body in [
            "",
            "{",
            "[]",
            "null",
            "\"x\"",
            "{}x",
            "\u{feff}{}",
            "{\"model\":\"m\"]",
        ] {
            check_refused(body, None, "could not parse");
        }
        check_refused("{}", Some("model"), "model");
        check_refused(r#"{"model":null}"#, Some("model"), "model");
        check_refused(r#"{"model":7}"#, Some("model"), "a string");
        check_refused(
            r#"{"model":"m","stream":"yes"}"#,
            Some("stream"),
            "a boolean",
        );
        check_refused(
            r#"{"model":"m","stream":true,"stream_options":1}"#,
            Some("stream_options"),
            "an object",
        );
        check_refused(
            r#"{"model":"a","mod\u0065l":"b"}"#,
            None,
            "`model` comes twice",
        );
        check_refused(&format!(r#"{{"a":{}"#, "[".repeat(10_000)), None, "parse");
    }

    #[test]
    fn embeddings_do_not_stream() {
        let body = br#"{"model":"e","input":"abc","stream":true}"#;
        let prepared = prepare(RequestClass::Embedding, body).unwrap();
        assert_eq!(
            (prepared.stream, prepared.body.as_slice()),
            (false, body.as_slice())
        );
        assert_eq!(prepared.input_bytes, 5);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_rewritten_body_says_the_same(name in "[a-z\"\\\\é]{1,6}", value in ".{0,20}") {
            prop_assume!(!["model", "stream", "stream_options"].contains(&name.as_str()));
            let mut asked = serde_json::json!({"model": "m", "stream": true});
            asked[&name] = serde_json::json!({"v": value});
            let prepared = prepare(RequestClass::Chat, asked.to_string().as_bytes()).unwrap();
            asked["stream_options"] = serde_json::json!({"include_usage": true});
            let sent: serde_json::Value = serde_json::from_slice(&prepared.body).unwrap();
            prop_assert_eq!(sent, asked);
        }

        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = prepare(RequestClass::Chat, &bytes);
        }
    }
}
