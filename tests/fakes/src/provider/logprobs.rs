//! Logarithms of probabilities: made up, but a fixed function of the token.

use serde_json::{Map, Value, json};

use crate::{
    ids::{self, Mixer},
    inference::answers,
};

/// Of the tokens of a chat completion, each with `top` candidates.
pub(super) fn chat(tokens: &[String], top: u64) -> Value {
    let content: Vec<Value> = tokens
        .iter()
        .map(|token| {
            let described = |(token, logprob): &(String, f64)| {
                json!({"token": token, "logprob": logprob, "bytes": token.as_bytes()})
            };
            let candidates: Vec<Value> = candidates(token, top).iter().map(described).collect();
            let mut value = described(&(token.clone(), logprob(token)));
            super::output::set(&mut value, "top_logprobs", candidates);
            value
        })
        .collect();
    json!({"content": content, "refusal": null})
}

/// Of the tokens of a completion, the first of which begins at `offset`.
pub(super) fn completion(tokens: &[String], top: u64, mut offset: u64) -> Value {
    let mut offsets = Vec::new();
    let mut tops = Vec::new();
    for token in tokens {
        offsets.push(offset);
        offset = offset.saturating_add(token.chars().count() as u64);
        let candidates = candidates(token, top).into_iter();
        let map: Map<String, Value> = candidates.map(|(t, p)| (t, json!(p))).collect();
        tops.push(Value::Object(map));
    }
    let logprobs: Vec<f64> = tokens.iter().map(|token| logprob(token)).collect();
    json!({
        "tokens": tokens,
        "token_logprobs": logprobs,
        "top_logprobs": if top == 0 { Value::Null } else { Value::Array(tops) },
        "text_offset": offsets,
    })
}

/// The token itself and likely others, the likeliest first.
fn candidates(token: &str, top: u64) -> Vec<(String, f64)> {
    let mut mixer = Mixer::new(ids::hash(token.as_bytes()));
    let mut found: Vec<(String, f64)> = Vec::new();
    for position in 0..top {
        if position == 0 {
            found.push((token.to_owned(), logprob(token)));
        } else {
            let below = u32::try_from(position).unwrap_or(u32::MAX);
            let other = format!(" {}{below}", answers::word(&mut mixer));
            found.push((other, logprob(token) - f64::from(below)));
        }
    }
    found
}

/// Between -1 and 0.
fn logprob(token: &str) -> f64 {
    let drawn = Mixer::new(ids::hash(token.as_bytes())).below(1_000);
    -f64::from(u16::try_from(drawn).unwrap_or(0)) / 1_000.0
}
