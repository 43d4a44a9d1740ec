//! What was generated for a request, and the usage that is told for it.

use serde_json::{Value, json};

use crate::inference::{
    answers::Answer,
    faults::Fault,
    log::Recorder,
    prompt::{Charge, Prompt},
};

/// The answers of one request, and what they cost.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) answers: Vec<Answer>,
    pub(super) charge: Charge,
    pub(super) reasoning_tokens: u64,
}

impl Output {
    /// Generates that many answers of at most `limit` tokens each; `answer` makes
    /// one of an index and what the limit leaves.
    pub(super) fn new(
        prompt: &Prompt,
        fault: &Fault,
        count: u64,
        limit: Option<u64>,
        answer: impl Fn(u64, Option<u64>) -> Answer,
    ) -> Self {
        // Reasoning comes first and out of the same allowance; it is booked on the first answer.
        let wanted = fault.reasoning_tokens.unwrap_or(0);
        let reasoning_tokens = limit.map_or(wanted, |limit| wanted.min(limit));
        let answer = |index: u64| {
            let spent = if index == 0 { reasoning_tokens } else { 0 };
            answer(index, limit.map(|limit| limit.saturating_sub(spent)))
        };
        Self {
            answers: (0..count).map(answer).collect(),
            charge: prompt.charge(fault),
            reasoning_tokens,
        }
    }

    pub(super) fn visible_tokens(&self) -> u64 {
        self.answers.iter().map(Answer::tokens).sum()
    }

    /// Notes all of it as given in a JSON answer.
    pub(super) fn record(&self, recorder: &mut Recorder, usage_sent: bool) {
        recorder.reasoned(self.reasoning_tokens);
        recorder.generated(self.visible_tokens());
        if usage_sent {
            recorder.usage_sent();
        }
    }

    /// The usage of chat completions.
    pub(super) fn chat_usage(&self) -> Value {
        let mut usage = self.plain_usage();
        let mut prompt = json!({"cached_tokens": self.charge.cached, "audio_tokens": 0});
        if self.charge.cache_write > 0 {
            set(&mut prompt, "cache_write_tokens", self.charge.cache_write);
        }
        let completion = json!({
            "reasoning_tokens": self.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        });
        set(&mut usage, "prompt_tokens_details", prompt);
        set(&mut usage, "completion_tokens_details", completion);
        usage
    }

    /// The usage of completions, which has no details.
    pub(super) fn plain_usage(&self) -> Value {
        let completion_tokens = self.visible_tokens().saturating_add(self.reasoning_tokens);
        json!({
            "prompt_tokens": self.charge.tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.charge.tokens.saturating_add(completion_tokens),
        })
    }

    /// The usage of responses.
    pub(super) fn responses_usage(&self) -> Value {
        let output_tokens = self.visible_tokens().saturating_add(self.reasoning_tokens);
        json!({
            "input_tokens": self.charge.tokens,
            "input_tokens_details": {
                "cached_tokens": self.charge.cached,
                "cache_write_tokens": self.charge.cache_write,
            },
            "output_tokens": output_tokens,
            "output_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
            "total_tokens": self.charge.tokens.saturating_add(output_tokens),
        })
    }
}

/// Sets a field of an object.
pub(super) fn set(object: &mut Value, name: &str, value: impl Into<Value>) {
    if let Some(object) = object.as_object_mut() {
        object.insert(name.to_owned(), value.into());
    }
}
