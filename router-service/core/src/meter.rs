//! The router's witness of a request: what it used, reported or estimated.

use weir_dialects::{routes::RequestClass, tokens::clip_model, used};
use weir_pricing::{Markup, Prices, Tokens};
use weir_wire::{
    context::Verified,
    proto::usage::{Kind, ModelUsage, Outcome, UsageEvent, UsageSource, Witness},
    usage::{MICROS_MAX, TOKENS_MAX},
};

use crate::{
    count::{Input, Tokenizer},
    offer::Decision,
    provider::ProviderKind,
    request::Asked,
    seen::Seen,
};

/// One call of a provider to serve a request.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// 1 for the first.
    pub number: u32,
    /// The model of the catalogue that was to serve.
    pub model: String,
    /// Who was asked.
    pub provider: String,
    /// What it is.
    pub kind: ProviderKind,
    /// What the model costs.
    pub prices: Prices,
    /// What the tenant pays for that.
    pub markup: Markup,
    /// What was sent.
    pub input: Input,
    /// Tokens of that, roughly; see [`rough_input`].
    pub rough_input: u64,
    /// Whether the tenant pays nothing for it.
    pub unbilled: bool,
}

impl Attempt {
    /// The attempt of that number, at the model that was decided on.
    #[must_use]
    pub fn new(
        decision: &Decision,
        number: u32,
        markup: Markup,
        (input, rough_input): (Input, u64),
        unbilled: bool,
    ) -> Self {
        Self {
            number,
            model: decision.model.clone(),
            provider: decision.provider.clone(),
            kind: decision.kind,
            prices: decision.prices,
            markup,
            input,
            rough_input,
            unbilled,
        }
    }

    /// What it will have used if nothing more is heard of it: its input, and what so
    /// many bytes of its answer come to. Cheap, for it is asked again and again: a
    /// fourth of the bytes, not a tokenizer's count.
    #[must_use]
    pub fn so_far(&self, output_bytes: u64) -> ModelUsage {
        let used = ModelUsage {
            model_served: clip_model(self.model.clone()),
            provider: self.provider.clone(),
            attempt: self.number,
            unbilled: self.unbilled,
            input_tokens: self.rough_input,
            output_tokens: rough(output_bytes),
            source: UsageSource::Estimated.into(),
            ..ModelUsage::default()
        };
        priced(self, used)
    }
}

/// Bytes of text to a token, where it need not be exact.
const BYTES_PER_TOKEN: u64 = 4;

fn rough(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN).min(TOKENS_MAX)
}

/// What a count is beside the real one at the most, in percent: where tokens are
/// limited, more are taken rather than less.
const CAREFUL_PERCENT: u64 = 125;

/// Tokens of a request's input, roughly: a fourth of its bytes. Of one with images,
/// whose bytes say nothing, and where it is to be `careful`, by count.
#[must_use]
pub fn rough_input(asked: &Asked, input: &Input, careful: bool) -> u64 {
    let counted = Tokenizer::Approximate {
        percent: CAREFUL_PERCENT,
    };
    match asked.uses.images || careful {
        true => input.tokens(counted).min(TOKENS_MAX),
        false => rough(u64::try_from(asked.input_bytes).unwrap_or(u64::MAX)),
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    /// In one word.
    pub outcome: Outcome,
    /// The status that was answered.
    pub status: u16,
    /// Milliseconds of the Unix epoch.
    pub started_ms: i64,
    /// Milliseconds after the start.
    pub first_token_ms: Option<u64>,
    /// Milliseconds after the start.
    pub duration_ms: u64,
}

/// What an attempt used by its outcome: as its answer reports or, where it does not,
/// by count; and what that comes to.
///
/// Without any use there is no cost: whether a provider that never answered charges
/// is not known.
#[must_use]
pub fn usage(attempt: &Attempt, seen: &Seen, outcome: Outcome) -> ModelUsage {
    let base = ModelUsage {
        model_served: seen.model.clone().unwrap_or_else(|| attempt.model.clone()),
        provider: attempt.provider.clone(),
        attempt: attempt.number,
        unbilled: attempt.unbilled,
        ..ModelUsage::default()
    };
    let tokenizer = || Tokenizer::of(attempt.kind, &base.model_served);
    let used = used::used(
        base.clone(),
        used::Seen {
            reported: seen.usage,
            begun: seen.begun,
            completed: outcome == Outcome::Completed && !seen.error,
            output_bytes: u64::try_from(seen.output_bytes).unwrap_or(u64::MAX),
        },
        || attempt.input.tokens(tokenizer()),
        || tokenizer().count_kept(&seen.text, seen.output_bytes),
    );
    priced(attempt, used)
}

fn priced(attempt: &Attempt, used: ModelUsage) -> ModelUsage {
    let is_known = used.source() != UsageSource::None;
    let tokens = Tokens {
        // Sound is refused before any call; what an answer counts of it all the same
        // is charged as the rest.
        input: used.input_tokens.saturating_add(used.audio_input_tokens),
        cached_input: used.cached_input_tokens,
        cache_write: used.cache_write_input_tokens,
        output: used
            .output_tokens
            .saturating_add(used.reasoning_tokens)
            .saturating_add(used.audio_output_tokens),
    };
    let charge = weir_pricing::charge(&attempt.prices, attempt.markup, tokens);
    let price = match attempt.unbilled {
        true => Some(0),
        false => is_known.then_some(charge.price.min(MICROS_MAX)),
    };
    ModelUsage {
        cost_micros: is_known.then_some(charge.cost.min(MICROS_MAX)),
        price_micros: price,
        ..used
    }
}

/// The event of one request, with what each attempt used; none where no provider
/// was asked. `context_header` is the signed context as it came.
#[must_use]
pub fn witness(
    context: &Verified,
    context_header: &str,
    class: RequestClass,
    model_asked: &str,
    usage: Vec<ModelUsage>,
    ending: Ending,
) -> UsageEvent {
    let request_id = context.request_id.to_string();
    UsageEvent {
        kind: Kind::Request.into(),
        // One event a request and witness: sent again, it is the same.
        event_id: format!("{request_id}/rt"),
        request_id,
        witness: Witness::Router.into(),
        tenant: context.tenant.to_string(),
        request_class: class.to_string(),
        model_asked: clip_model(model_asked.to_owned()),
        usage,
        outcome: ending.outcome.into(),
        status: ending.status.into(),
        started_at_ms: ending.started_ms,
        duration_ms: ending.duration_ms,
        time_to_first_token_ms: ending.first_token_ms,
        tenant_context: context_header.to_owned(),
        ..UsageEvent::default()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;
    use weir_dialects::{routes::Endpoint, tokens::TokenCounts};
    use weir_wire::ids::{PlanName, RequestId, TenantId};

    use super::*;

    const BODY: &str = r#"{"messages":[{"role":"user","content":"hello world"}]}"#;

    /// A dollar for a million tokens of input, two for output.
    fn attempt() -> Attempt {
        Attempt {
            number: 2,
            model: "gpt-4o".into(),
            provider: "openai".into(),
            kind: ProviderKind::OpenAi,
            prices: Prices {
                input: 1_000_000,
                cached_input: None,
                cache_write: None,
                output: 2_000_000,
            },
            markup: Markup::default(),
            input: Input::new(
                Endpoint::ChatCompletions,
                Bytes::from_static(BODY.as_bytes()),
            ),
            rough_input: 25,
            unbilled: false,
        }
    }

    #[track_caller]
    fn check(seen: &Seen, outcome: Outcome, source: UsageSource, tokens: [u64; 2]) {
        let usage = usage(&attempt(), seen, outcome);
        assert_eq!(usage.source(), source, "{seen:?}");
        assert_eq!(
            [usage.input_tokens, usage.output_tokens],
            tokens,
            "{seen:?}"
        );
        assert_eq!(usage.attempt, 2);
        let known = (source != UsageSource::None).then_some(tokens[0] + 2 * tokens[1]);
        assert_eq!(usage.cost_micros, known, "{seen:?}");
        assert_eq!(usage.price_micros, known, "{seen:?}");

        let mut free = attempt();
        free.unbilled = true;
        let free = super::usage(&free, seen, outcome);
        assert!(free.unbilled);
        assert_eq!((free.cost_micros, free.price_micros), (known, Some(0)));
    }

    fn silent(text: &str, error: bool) -> Seen {
        Seen {
            output_bytes: text.len(),
            text: text.to_owned(),
            error,
            ..Seen::default()
        }
    }

    #[test]
    fn reported_beats_estimated_beats_none() {
        let counts = |input, output| {
            Some(TokenCounts {
                input,
                output,
                ..TokenCounts::default()
            })
        };
        let reported = Seen {
            usage: counts(3, 0),
            ..silent("some text", false)
        };
        let left = Outcome::ClientDisconnected;
        check(&reported, left, UsageSource::Reported, [3, 0]);
        // 3 for the message, 1 for its role, 3 before the answer.
        let hello = 2 + 3 + 1 + 3;
        let failed = Outcome::UpstreamError;
        let estimated = UsageSource::Estimated;
        check(&silent("hello", false), failed, estimated, [hello, 1]);
        check(&silent("hello", true), failed, estimated, [hello, 1]);
        check(&Seen::default(), Outcome::Completed, estimated, [hello, 0]);
        check(&Seen::default(), failed, UsageSource::None, [0, 0]);
        check(&silent("", true), failed, UsageSource::None, [0, 0]);
        let begun = Seen {
            begun: counts(100, 1),
            ..silent("hello", false)
        };
        check(&begun, left, estimated, [100, 1]);
    }

    #[test]
    fn an_event_names_its_request_and_lists_its_attempts() {
        let context = Verified {
            tenant: TenantId::new("a").unwrap(),
            plan: PlanName::new("p").unwrap(),
            request_id: RequestId::mint(1, [0; 10]),
            issued_at_ms: 1,
        };
        let ending = Ending {
            outcome: Outcome::Completed,
            status: 200,
            started_ms: 1,
            first_token_ms: None,
            duration_ms: 2,
        };
        let used = usage(&attempt(), &silent("hello", false), Outcome::Completed);
        let asked = "m".repeat(300);
        let chat = RequestClass::Chat;
        let usages = vec![used.clone(), used];
        let event = witness(&context, "ctx", chat, &asked, usages, ending);
        assert_eq!(event.event_id, format!("{}/rt", context.request_id));
        assert_eq!((event.usage.len(), event.model_asked.len()), (2, 256));
    }
}
