//! A provider's answer on its way to the client: what passes, in whose words,
//! and what it used.

use weir_dialects::{
    routes::Endpoint,
    sse::{Splitter, TooLong},
};
use weir_wire::error::{ApiError, Dialect};

use crate::{
    seen::{Part, Seen, Wire},
    translate::{to_anthropic, to_openai},
};

/// The longest event of a stream, in bytes.
const EVENT_MAX_BYTES: usize = 4 << 20;

/// How an answer comes to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passage {
    /// What was called of the provider.
    pub from: Endpoint,
    /// What the client called.
    pub to: Endpoint,
    /// Whether the client asked for the usage in its stream.
    pub usage_asked: bool,
    /// Seconds of the Unix epoch, for answers that say when they were made.
    pub created_s: i64,
}

impl Passage {
    /// A whole answer for the client; `None` where it is none of the provider's
    /// dialect.
    #[must_use]
    pub fn whole(&self, body: &[u8]) -> Option<Vec<u8>> {
        match self.form() {
            Form::AsItIs { .. } => Some(body.to_vec()),
            Form::ToOpenAi(_) => to_openai::answer(body, self.created_s),
            Form::ToAnthropic(_) => to_anthropic::answer(body),
        }
    }

    /// Whether bytes pass as they came.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.from == self.to
    }

    /// The error that a provider's body holds.
    #[must_use]
    pub fn error(&self, body: &[u8]) -> Option<ApiError> {
        match self.from.dialect() {
            Dialect::Anthropic => to_openai::error(body),
            Dialect::OpenAi => to_anthropic::error(body),
        }
    }

    fn form(&self) -> Form {
        match (self.from, self.to) {
            (Endpoint::Messages, Endpoint::ChatCompletions) => {
                Form::ToOpenAi(to_openai::Stream::new(to_openai::Options {
                    include_usage: self.usage_asked,
                    created_s: self.created_s,
                }))
            }
            (Endpoint::ChatCompletions, Endpoint::Messages) => {
                Form::ToAnthropic(to_anthropic::Stream::new())
            }
            _ => Form::AsItIs {
                hide_usage: !self.usage_asked,
            },
        }
    }
}

#[derive(Debug)]
enum Form {
    AsItIs {
        /// Where the client did not ask for the usage chunk.
        hide_usage: bool,
    },
    ToOpenAi(to_openai::Stream),
    ToAnthropic(to_anthropic::Stream),
}

/// An event stream on its way through.
#[derive(Debug)]
pub struct StreamRelay {
    splitter: Splitter,
    wire: Wire,
    form: Form,
    from: Passage,
    seen: Seen,
    error: Option<ApiError>,
    events: usize,
}

impl StreamRelay {
    /// A stream of that passage.
    #[must_use]
    pub fn new(passage: Passage) -> Self {
        Self {
            splitter: Splitter::new(EVENT_MAX_BYTES),
            wire: Wire::of(passage.from),
            form: passage.form(),
            from: passage,
            seen: Seen::default(),
            error: None,
            events: 0,
        }
    }

    /// Takes bytes of the provider's and gives those for the client: whole
    /// events, each as it came or as the client's dialect has it.
    ///
    /// # Errors
    /// [`TooLong`] where one event passes four MiB.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<Vec<u8>, TooLong> {
        let mut pass = Vec::with_capacity(chunk.len());
        for event in self.splitter.feed(chunk)? {
            if self.seen.done {
                // Nothing belongs to an answer after its end.
                break;
            }
            self.events = self.events.saturating_add(1);
            let failed = self.seen.error;
            let part = self.seen.take(self.wire, &event.data);
            if self.seen.error && !failed {
                self.error = self.from.error(&event.data);
            }
            let data = event.data.trim_ascii();
            match &mut self.form {
                Form::AsItIs { hide_usage: true } if part == Part::UsageAlone => {}
                Form::AsItIs { .. } => pass.extend_from_slice(&event.raw),
                Form::ToOpenAi(stream) => {
                    stream.take(data, &mut pass);
                    self.seen.error |= stream.has_failed();
                }
                Form::ToAnthropic(stream) => {
                    stream.take(data, &mut pass);
                    self.seen.error |= stream.has_failed();
                }
            }
        }
        Ok(pass)
    }

    /// What was seen so far.
    #[must_use]
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// How many events came.
    #[must_use]
    pub fn events(&self) -> usize {
        self.events
    }

    /// The error that came in the stream, as far as it is understood.
    #[must_use]
    pub fn error(&self) -> Option<&ApiError> {
        self.error.as_ref()
    }
}

/// The event that tells a client of that call that its stream was cut. It never
/// sees a clean end instead.
#[must_use]
pub fn error_event(to: Endpoint, error: &ApiError, status: u16) -> Vec<u8> {
    match to {
        Endpoint::Responses => {
            let code = error.code.as_deref().unwrap_or("server_error");
            let event = serde_json::json!({
                "type": "error",
                "code": code,
                "message": error.message,
                "param": error.param,
            });
            format!("event: error\ndata: {event}\n\n").into_bytes()
        }
        _ => match to.dialect() {
            Dialect::OpenAi => format!("data: {}\n\n", error.body()),
            Dialect::Anthropic => format!(
                "event: error\ndata: {}\n\n",
                error.body_in(Dialect::Anthropic, status)
            ),
        }
        .into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    const STREAM: &str = include_str!("../../../contracts/fixtures/openai-chat-stream.txt");

    fn relay(usage_asked: bool, chunks: &[&[u8]]) -> (String, Seen) {
        let mut relay = StreamRelay::new(Passage {
            from: Endpoint::ChatCompletions,
            to: Endpoint::ChatCompletions,
            usage_asked,
            created_s: 0,
        });
        let mut out = Vec::new();
        for chunk in chunks {
            out.extend(relay.feed(chunk).unwrap());
        }
        (String::from_utf8(out).unwrap(), relay.seen)
    }

    #[test]
    fn a_client_that_asked_gets_every_byte() {
        let (out, seen) = relay(true, &[STREAM.as_bytes()]);
        assert_eq!(out, STREAM);
        assert_eq!(seen.usage.unwrap().input, 19);
        assert_eq!(seen.output_bytes, "Héllo \"usage\":".len());
        assert!(seen.done && !seen.error);
    }

    #[test]
    fn a_client_that_did_not_ask_does_not_see_the_chunk() {
        let (out, seen) = relay(false, &[STREAM.as_bytes()]);
        assert_eq!(seen.usage.unwrap().output, 10);
        assert!(!out.contains("prompt_tokens"), "{out}");
        assert_eq!(
            out.matches("data: ").count(),
            STREAM.matches("data: ").count() - 1
        );
        assert!(out.ends_with("data: [DONE]\n\n"));
    }

    #[test]
    fn usage_beside_choices_is_not_hidden() {
        let text = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}],\"usage\":{\"prompt_tokens\":1}}\n\n";
        let (out, seen) = relay(false, &[text.as_bytes()]);
        assert_eq!(out, text);
        assert_eq!(seen.usage.unwrap().input, 1);
    }

    #[test]
    fn a_cut_event_never_reaches_the_client() {
        let cut = &STREAM.as_bytes()[..STREAM.len() - 20];
        let (out, seen) = relay(true, &[cut]);
        assert!(STREAM.starts_with(&out) && out.ends_with("\n\n"));
        assert!(!seen.done);
    }

    #[test]
    fn a_cut_is_told_in_the_clients_words() {
        let error = ApiError::new("server_error", "provider_error", "broke off");
        for (endpoint, expected) in [
            (
                Endpoint::ChatCompletions,
                "data: {\"error\":{\"message\":\"broke off\",\"type\":\"server_error\",\"param\":null,\"code\":\"provider_error\"}}\n\n",
            ),
            (
                Endpoint::Messages,
                "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"broke off\"}}\n\n",
            ),
            (
                Endpoint::Responses,
                "event: error\ndata: {\"code\":\"provider_error\",\"message\":\"broke off\",\"param\":null,\"type\":\"error\"}\n\n",
            ),
        ] {
            let event = error_event(endpoint, &error, 502);
            assert_eq!(String::from_utf8(event).unwrap(), expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn chunks_make_no_difference(cuts in prop::collection::vec(0usize..1_500, 0..6)) {
            let bytes = STREAM.as_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|c| c % bytes.len()).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let mut from = 0;
            let chunks: Vec<&[u8]> = cuts.iter().map(|c| { let s = &bytes[from..*c]; from = *c; s }).collect();
            prop_assert_eq!(relay(false, &chunks), relay(false, &[bytes]));
        }
    }
}
