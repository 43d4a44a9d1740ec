//! `POST /v1/embeddings`.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::{
    Reply, Shared, chat,
    error::ApiError,
    log::Recorder,
    models::{self, ModelKind},
    params::{self, Kind, Param, given},
    tokens,
};
use crate::ids::{self, Mixer};

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
    params::check(body, KNOWN)?;
    let asked = asked.as_str().unwrap_or_default();
    let model = models::find(&shared.config.models, asked)?;
    let ModelKind::Embedding {
        dimensions,
        max_input_tokens,
    } = model.kind
    else {
        return Err(ApiError::not_an_embedding_model());
    };
    let inputs = inputs(given(body, "input").ok_or_else(|| ApiError::missing("input"))?)?;
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
    let fault = shared
        .faults
        .take(|fault| fault.matches(asked, "/v1/embeddings", false));
    chat::begin(&fault).await?;
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
    recorder.prompt(prompt_tokens, 0);
    let mut value = json!({"object": "list", "data": data, "model": model.served});
    if !fault.missing_usage
        && let Some(object) = value.as_object_mut()
    {
        let usage = json!({"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens});
        object.insert("usage".to_owned(), usage);
        recorder.usage_sent();
    }
    let cut = fault.cut_after_chunks.is_some();
    Ok(if cut {
        Reply::HalfJson(value)
    } else {
        Reply::Json(value)
    })
}

struct Input {
    hash: u64,
    tokens: u64,
}

/// Reads a string, strings, tokens, or arrays of tokens.
fn inputs(value: &Value) -> Result<Vec<Input>, ApiError> {
    let wrong = || {
        ApiError::wrong_type(
            "input",
            "a string, strings, tokens or arrays of tokens",
            value,
        )
    };
    let empty = || {
        let message = "Invalid 'input': it must not be empty, nor hold an empty one.".to_owned();
        ApiError::invalid("input", "invalid_value", message)
    };
    let text = |text: &str| {
        let input = Input {
            hash: ids::hash(text.as_bytes()),
            tokens: tokens::count(text),
        };
        if text.is_empty() {
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
        let message = format!("Invalid 'input': at most {MAX_INPUTS} of them.");
        return Err(ApiError::invalid(
            "input",
            "array_above_max_length",
            message,
        ));
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
