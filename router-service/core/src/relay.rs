//! A provider's answer on its way to the client: what passes, and what it used.

use serde::Deserialize;
use serde_json::value::RawValue;
use weir_dialects::{
    openai::{TokenCounts, clip_model, parse_usage},
    sse::{Event, Splitter, TooLong},
};

/// The longest event of a stream, in bytes.
const EVENT_MAX_BYTES: usize = 4 << 20;

/// What an answer showed of its use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// The model that the provider says it used.
    pub model: Option<String>,
    /// What the provider reported.
    pub usage: Option<TokenCounts>,
    /// Bytes of text, tool arguments and refusals that came.
    pub output_bytes: usize,
    /// The answer is an error, or holds one.
    pub error: bool,
    /// The answer came to its end.
    pub done: bool,
}

#[derive(Deserialize)]
struct Chunk<'a> {
    model: Option<String>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    choices: Option<Vec<Choice>>,
}

#[derive(Deserialize)]
struct Choice {
    /// In a stream.
    delta: Option<Message>,
    /// In a whole answer.
    message: Option<Message>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<Vec<ToolCall>>,
}

#[derive(Deserialize)]
struct ToolCall {
    function: Option<Function>,
}

#[derive(Deserialize)]
struct Function {
    name: Option<String>,
    arguments: Option<String>,
}

impl Message {
    fn bytes(&self) -> usize {
        let calls = self
            .tool_calls
            .iter()
            .flatten()
            .filter_map(|c| c.function.as_ref());
        [&self.content, &self.refusal]
            .into_iter()
            .chain(calls.flat_map(|f| [&f.name, &f.arguments]))
            .flatten()
            .fold(0, |sum, text| sum.saturating_add(text.len()))
    }
}

impl Seen {
    /// Takes one JSON text: a whole answer, or the data of one event. Gives
    /// whether it carried usage and no choices: the extra chunk of a stream
    /// that was asked for its usage.
    fn take(&mut self, json: &[u8]) -> bool {
        let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(json) else {
            return false;
        };
        if let Some(model) = chunk.model {
            self.model = Some(clip_model(model));
        }
        let usage = chunk.usage.and_then(|u| parse_usage(u.get().as_bytes()));
        if usage.is_some() {
            self.usage = usage;
        }
        self.error |= chunk.error.is_some();
        let mut messages = 0_usize;
        for choice in chunk.choices.iter().flatten() {
            messages = messages.saturating_add(1);
            let bytes = [&choice.delta, &choice.message]
                .into_iter()
                .flatten()
                .fold(0_usize, |sum, m| sum.saturating_add(m.bytes()));
            self.output_bytes = self.output_bytes.saturating_add(bytes);
        }
        usage.is_some() && messages == 0 && chunk.choices.is_some()
    }

    /// What a whole JSON answer used.
    #[must_use]
    pub fn of_json(body: &[u8]) -> Self {
        let mut seen = Self::default();
        seen.take(body);
        seen.done = true;
        seen
    }
}

/// An event stream on its way through.
#[derive(Debug)]
pub struct StreamRelay {
    splitter: Splitter,
    hide_usage: bool,
    seen: Seen,
}

impl StreamRelay {
    /// `hide_usage` where the client did not ask for the usage chunk.
    #[must_use]
    pub fn new(hide_usage: bool) -> Self {
        Self {
            splitter: Splitter::new(EVENT_MAX_BYTES),
            hide_usage,
            seen: Seen::default(),
        }
    }

    /// Takes bytes of the provider's and gives those for the client: whole
    /// events, each as it came.
    ///
    /// # Errors
    /// [`TooLong`] where one event passes four MiB.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<Vec<u8>, TooLong> {
        let mut pass = Vec::with_capacity(chunk.len());
        for event in self.splitter.feed(chunk)? {
            if !self.take(&event) {
                pass.extend_from_slice(&event.raw);
            }
        }
        Ok(pass)
    }

    /// Whether the event is to be hidden.
    fn take(&mut self, event: &Event) -> bool {
        if event.data == b"[DONE]" {
            self.seen.done = true;
            return false;
        }
        self.seen.take(&event.data) && self.hide_usage
    }

    /// What was seen so far.
    #[must_use]
    pub fn seen(&self) -> &Seen {
        &self.seen
    }
}

/// The event that tells a client that its stream was cut, in OpenAI's shape.
/// It never sees a clean end instead.
#[must_use]
pub fn error_event(error: &weir_wire::error::ApiError) -> Vec<u8> {
    format!("data: {}\n\n", error.body()).into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    const STREAM: &str = include_str!("../../../contracts/fixtures/openai-chat-stream.txt");
    const JSON: &str = include_str!("../../../contracts/fixtures/openai-chat.json");

    fn relay(hide_usage: bool, chunks: &[&[u8]]) -> (String, Seen) {
        let mut relay = StreamRelay::new(hide_usage);
        let mut out = Vec::new();
        for chunk in chunks {
            out.extend(relay.feed(chunk).unwrap());
        }
        (String::from_utf8(out).unwrap(), relay.seen)
    }

    #[test]
    fn a_client_that_asked_gets_every_byte() {
        let (out, seen) = relay(false, &[STREAM.as_bytes()]);
        assert_eq!(out, STREAM);
        assert_eq!(seen.usage.unwrap().input, 19);
        assert_eq!(seen.output_bytes, "Héllo \"usage\":".len());
        assert!(seen.done && !seen.error);
    }

    #[test]
    fn a_client_that_did_not_ask_does_not_see_the_chunk() {
        let (out, seen) = relay(true, &[STREAM.as_bytes()]);
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
        let (out, seen) = relay(true, &[text.as_bytes()]);
        assert_eq!(out, text);
        assert_eq!(seen.usage.unwrap().input, 1);
    }

    #[test]
    fn a_cut_event_never_reaches_the_client() {
        let cut = &STREAM.as_bytes()[..STREAM.len() - 20];
        let (out, seen) = relay(false, &[cut]);
        assert!(STREAM.starts_with(&out) && out.ends_with("\n\n"));
        assert!(!seen.done);
    }

    #[test]
    fn a_json_answer_is_read_whole() {
        let seen = Seen::of_json(JSON.as_bytes());
        assert_eq!(seen.model.as_deref(), Some("gpt-4o-2024-08-06"));
        assert_eq!(seen.usage.unwrap().cached_input, 16);
        assert_eq!(seen.output_bytes, "Paris, \"model\":\"x\"".len());
        let tools = br#"{"choices":[{"message":{"content":null,"tool_calls":[{"function":{"name":"ab","arguments":"{}"}}]}}]}"#;
        assert_eq!(Seen::of_json(tools).output_bytes, 4);
        assert!(Seen::of_json(br#"{"error":{"message":"m"}}"#).error);
        assert!(!Seen::of_json(br#"{"error":null}"#).error);
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
            prop_assert_eq!(relay(true, &chunks), relay(true, &[bytes]));
        }
    }
}
