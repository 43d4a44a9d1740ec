//! Claims that Envoy's `jwt_authn` verified, from the request's dynamic metadata.
//!
//! The filter writes them under its own name, which nothing of a request can
//! (`config.core.v3.Metadata` and `payload_in_metadata` in Envoy's API).

use std::collections::HashMap;

use prost::Message as _;
use prost_types::{Struct, Value, value::Kind};
use serde_json::{Map, Number};

/// The name under which `jwt_authn` writes.
const NAMESPACE: &str = "envoy.filters.http.jwt_authn";

/// How deep claims may be nested.
const DEPTH_MAX: usize = 16;

/// `envoy.config.core.v3.Metadata`, what is needed of it.
#[derive(Clone, PartialEq, prost::Message)]
struct Metadata {
    #[prost(map = "string, message", tag = "1")]
    filter_metadata: HashMap<String, Struct>,
}

/// The claims that stand under `payload` (`payload_in_metadata`); `None` where
/// the request had no token that was verified.
#[must_use]
pub fn claims(metadata: &[u8], payload: &str) -> Option<Map<String, serde_json::Value>> {
    let metadata = Metadata::decode(metadata).ok()?;
    let written = metadata.filter_metadata.get(NAMESPACE)?;
    match written.fields.get(payload)?.kind.as_ref()? {
        Kind::StructValue(claims) => object(claims, DEPTH_MAX),
        _ => None,
    }
}

fn object(from: &Struct, depth: usize) -> Option<Map<String, serde_json::Value>> {
    from.fields
        .iter()
        .map(|(name, value)| Some((name.clone(), json(value, depth.checked_sub(1)?)?)))
        .collect()
}

fn json(from: &Value, depth: usize) -> Option<serde_json::Value> {
    Some(match from.kind.as_ref()? {
        Kind::NullValue(_) => serde_json::Value::Null,
        Kind::NumberValue(n) => serde_json::Value::Number(Number::from_f64(*n)?),
        Kind::StringValue(s) => s.clone().into(),
        Kind::BoolValue(b) => (*b).into(),
        Kind::StructValue(s) => serde_json::Value::Object(object(s, depth)?),
        Kind::ListValue(list) => list
            .values
            .iter()
            .map(|v| json(v, depth.checked_sub(1)?))
            .collect::<Option<Vec<_>>>()?
            .into(),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn value(json: &serde_json::Value) -> Value {
        let kind = match json {
            serde_json::Value::Null => Kind::NullValue(0),
            serde_json::Value::Bool(b) => Kind::BoolValue(*b),
            serde_json::Value::Number(n) => Kind::NumberValue(n.as_f64().unwrap()),
            serde_json::Value::String(s) => Kind::StringValue(s.clone()),
            serde_json::Value::Array(a) => Kind::ListValue(prost_types::ListValue {
                values: a.iter().map(value).collect(),
            }),
            serde_json::Value::Object(o) => Kind::StructValue(Struct {
                fields: o.iter().map(|(k, v)| (k.clone(), value(v))).collect(),
            }),
        };
        Value { kind: Some(kind) }
    }

    /// Metadata as Envoy serialises it, `json` under the filter `namespace`.
    pub(crate) fn metadata(namespace: &str, json: &serde_json::Value) -> Vec<u8> {
        let Some(Kind::StructValue(under)) = value(json).kind else {
            panic!("an object is needed");
        };
        Metadata {
            filter_metadata: HashMap::from([(namespace.to_owned(), under)]),
        }
        .encode_to_vec()
    }

    #[test]
    fn claims_are_read_where_jwt_authn_writes_them() {
        let written = serde_json::json!({"weir": {"sub": "u", "org": {"id": "acme"}, "n": 1.5}});
        let found = claims(&metadata(NAMESPACE, &written), "weir").unwrap();
        assert_eq!(serde_json::Value::Object(found), written["weir"]);
        assert_eq!(claims(&metadata(NAMESPACE, &written), "other"), None);
        assert_eq!(claims(&metadata("other.filter", &written), "weir"), None);
        assert_eq!(claims(b"", "weir"), None);
        let text = serde_json::json!({"weir": "acme"});
        assert_eq!(claims(&metadata(NAMESPACE, &text), "weir"), None);
    }

    #[test]
    fn claims_too_deep_are_none() {
        let mut deep = serde_json::json!({});
        for _ in 0..DEPTH_MAX + 1 {
            deep = serde_json::json!({ "a": deep });
        }
        let written = serde_json::json!({ "weir": deep });
        assert_eq!(claims(&metadata(NAMESPACE, &written), "weir"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = claims(&bytes, "weir");
        }
    }
}
