//! Faults on demand: what goes wrong, with which requests, and how often.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::control::{self, Faults};

/// One fault. Of several that match a request, the oldest acts, alone.
///
/// A request that is refused for its own fault (401, 400, 404) uses up none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fault {
    /// Acts on requests for this model only, by the name that they ask for.
    pub model: Option<String>,
    /// Acts on requests for this path only.
    pub path: Option<String>,
    /// How many requests it acts on; all of them until cleared where absent.
    pub times: Option<u64>,
    /// Wait before anything is answered.
    pub delay_ms: Option<u64>,
    /// Wait between the head of a stream and its first chunk.
    pub first_token_delay_ms: Option<u64>,
    /// Wait before each further chunk of a stream.
    pub chunk_delay_ms: Option<u64>,
    /// Answer with this error, 400 to 599, and do nothing.
    pub status: Option<u16>,
    /// Seconds for `retry-after`; goes with `status`.
    pub retry_after_s: Option<u64>,
    /// Cut the connection after so many chunks of a stream, or before what ends
    /// it if it has fewer; of a JSON answer, half is sent.
    pub cut_after_chunks: Option<u64>,
    /// Send an error event after so many chunks of a stream, and end it there;
    /// JSON answers are not affected and don't use it up.
    pub error_in_stream_after_chunks: Option<u64>,
    /// Leave `usage` out of the answer.
    pub missing_usage: bool,
    /// How many of the prompt's tokens count as cached (at most all).
    pub cached_tokens: Option<u64>,
    /// How many of the others count as written into the cache (at most all).
    pub cache_write_tokens: Option<u64>,
    /// How many tokens are spent on reasoning, within what `max_tokens` allows.
    pub reasoning_tokens: Option<u64>,
    /// How many words each choice has.
    pub answer_words: Option<u64>,
}

impl control::Fault for Fault {
    fn validate(&self) -> Result<(), String> {
        if let Some(status) = self.status.filter(|status| !(400..=599).contains(status)) {
            return Err(format!("status is {status}; it must be 400 to 599"));
        }
        if self.retry_after_s.is_some() && self.status.is_none() {
            return Err("retry_after_s needs status".to_owned());
        }
        if self.times == Some(0) {
            return Err("times is 0; it must be 1 or more, or absent".to_owned());
        }
        if self.cut_after_chunks.is_some() && self.error_in_stream_after_chunks.is_some() {
            return Err("cut_after_chunks excludes error_in_stream_after_chunks".to_owned());
        }
        Ok(())
    }

    fn times(&mut self) -> &mut Option<u64> {
        &mut self.times
    }
}

impl Fault {
    /// Whether it acts on this request.
    fn matches(&self, model: &str, path: &str, stream: bool) -> bool {
        self.model.as_deref().is_none_or(|wanted| wanted == model)
            && self.path.as_deref().is_none_or(|wanted| wanted == path)
            && (stream || self.error_in_stream_after_chunks.is_none())
    }
}

/// The error that a fault answers with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub(crate) status: u16,
    pub(crate) retry_after_s: Option<u64>,
}

impl Faults<Fault> {
    /// Takes the fault that acts on this request, and does what it does before the answer.
    pub(crate) async fn begin(
        &self,
        model: &str,
        path: &str,
        stream: bool,
    ) -> Result<Fault, Failure> {
        let fault = self.take(|fault| fault.matches(model, path, stream));
        if let Some(delay_ms) = fault.delay_ms {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        }
        match fault.status {
            Some(status) => Err(Failure {
                status,
                retry_after_s: fault.retry_after_s,
            }),
            None => Ok(fault),
        }
    }
}
