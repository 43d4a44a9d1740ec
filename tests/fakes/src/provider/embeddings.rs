//! `POST /v1/embeddings`.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::{
    Shared,
    error::ApiError,
    models::{self, ModelKind},
};
use crate::{
    ids::{self, Mixer},
    inference::{
        log::Recorder,
        params::{Kind, Param, given},
        prompt::Charge,
        reply::Reply,
        tokens,
    },
};

/// The most inputs of one request.
const MAX_INPUTS: usize = 2048;

const KNOWN: &[Param] = &[
    ("dimensions", Kind::Integer(1, i64::MAX)),
    ("encoding_format", Kind::OneOf(&["float", "base64"])),
    ("input", Kind::Checked),
    ("model", Kind::Text),
    ("user", Kind::Text),
];

pub(super) async fn answer(
    shared: &Shared,
    body: &Map<String, Value>,
    recorder: &mut Recorder,
) -> Result<Reply, ApiError> {
    let asked = given(body, "model").ok_or_else(|| ApiError::missing("model"))?;
    shared.config.check(body, KNOWN)?;
    let asked = asked.as_str().unwrap_or_default();
    let model = models::find(&shared.config.models, asked)?;
    let ModelKind::Embedding {
        dimensions,
        max_input_tokens,
    } = model.kind
    else {
        return Err(ApiError::not_an_embedding_model());
    };
    let input = given(body, "input").ok_or_else(|| ApiError::missing("input"))?;
    let inputs = inputs("input", input, false)?;
    if let Some(long) = inputs.iter().find(|input| input.tokens > max_input_tokens) {
        let message = format!(
            "This model's context is {max_input_tokens} tokens; an input has {}.",
            long.tokens
        );
        return Err(ApiError::bad(message));
    }
    let wanted = given(body, "dimensions").and_then(Value::as_u64);
    let wanted = wanted.map_or(Some(dimensions), |wanted| usize::try_from(wanted).ok());
    let Some(length) = wanted.filter(|length| *length <= dimensions) else {
        let message = format!("Invalid 'dimensions': this model gives at most {dimensions}.");
        return Err(ApiError::invalid(
            "dimensions",
            "integer_above_max_value",
            message,
        ));
    };
    let fault = shared.faults.begin(asked, "/v1/embeddings", false).await?;
    let base64 = given(body, "encoding_format").and_then(Value::as_str) == Some("base64");
    let prompt_tokens: u64 = inputs.iter().map(|input| input.tokens).sum();
    let data: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(index, input)| {
            let vector = vector(input.hash, length);
            json!({"object": "embedding", "index": index, "embedding": encode(&vector, base64)})
        })
        .collect();
    recorder.status(200);
    recorder.prompt(&Charge {
        tokens: prompt_tokens,
        ..Charge::default()
    });
    let mut value = json!({"object": "list", "data": data, "model": model.served});
    if !fault.missing_usage
        && let Some(object) = value.as_object_mut()
    {
        let usage = json!({"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens});
        object.insert("usage".to_owned(), usage);
        recorder.usage_sent();
    }
    Ok(Reply::json(value, &fault))
}

/// What is embedded, or continued.
#[derive(Clone, Debug)]
pub(super) struct Input {
    pub(super) hash: u64,
    pub(super) tokens: u64,
    /// Empty where it came as tokens.
    pub(super) text: String,
}

/// Reads a string, strings, tokens, or arrays of tokens.
pub(super) fn inputs(
    name: &str,
    value: &Value,
    may_be_empty: bool,
) -> Result<Vec<Input>, ApiError> {
    let wrong =
        || ApiError::wrong_type(name, "a string, strings, tokens or arrays of tokens", value);
    let empty = || {
        let message = format!("Invalid '{name}': it must not be empty, nor hold an empty one.");
        ApiError::invalid(name, "invalid_value", message)
    };
    let text = |text: &str| {
        let input = Input {
            hash: ids::hash(text.as_bytes()),
            tokens: tokens::count(text),
            text: text.to_owned(),
        };
        if text.is_empty() && !may_be_empty {
            Err(empty())
        } else {
            Ok(input)
        }
    };
    let ids = |ids: &[Value]| {
        let ids: Option<Vec<u64>> = ids.iter().map(Value::as_u64).collect();
        let ids = ids.ok_or_else(wrong)?;
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let input = Input {
            hash: ids::hash(&bytes),
            tokens: ids.len() as u64,
            text: String::new(),
        };
        if ids.is_empty() {
            Err(empty())
        } else {
            Ok(input)
        }
    };
    let several = match value {
        Value::String(one) => return Ok(vec![text(one)?]),
        Value::Array(several) => several,
        _ => return Err(wrong()),
    };
    if several.first().is_some_and(Value::is_number) {
        return Ok(vec![ids(several)?]);
    }
    if several.len() > MAX_INPUTS {
        let message = format!("Invalid '{name}': at most {MAX_INPUTS} of them.");
        return Err(ApiError::invalid(name, "array_above_max_length", message));
    }
    let strings = several.first().is_some_and(Value::is_string);
    let read: Result<Vec<Input>, ApiError> = several
        .iter()
        .map(|one| match one {
            Value::String(one) if strings => text(one),
            Value::Array(one) if !strings => ids(one),
            _ => Err(wrong()),
        })
        .collect();
    read.and_then(|read| {
        if read.is_empty() {
            Err(empty())
        } else {
            Ok(read)
        }
    })
}

/// A vector of length 1 that depends on the input alone.
fn vector(hash: u64, length: usize) -> Vec<f32> {
    let mut mixer = Mixer::new(hash);
    let raw: Vec<f32> = (0..length)
        .map(|_| {
            let draw = u16::try_from(mixer.below(65_521)).unwrap_or(0);
            f32::from(draw) / 32_760.0 - 1.0
        })
        .collect();
    let norm = raw
        .iter()
        .map(|x| x * x)
        .sum::<f32>()
        .sqrt()
        .max(f32::MIN_POSITIVE);
    raw.into_iter().map(|x| x / norm).collect()
}

/// Numbers, or base64 of little-endian 32-bit floats as OpenAI's own SDKs ask for.
fn encode(vector: &[f32], base64: bool) -> Value {
    if base64 {
        let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
        return Value::String(STANDARD.encode(bytes));
    }
    json!(vector)
}
