//! Model, usage and length of an answer, JSON or event stream, read as it passes.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    members::Members,
    sse::{Piece, Reader},
    tokens::{TokenCounts, clip_model, parse_usage, parse_usage_after},
};

/// The longest `model` or `usage` value that is kept, in bytes.
const VALUE_MAX_BYTES: usize = 4_096;

const MODEL: usize = 0;
const USAGE: usize = 1;
const ERROR: usize = 2;
/// What kind of event it is, in Anthropic's streams and those of `responses`.
const TYPE: usize = 3;
/// Anthropic's `message_start` has the message in it.
const MESSAGE: usize = 4;
/// The events of `responses` have the response in them.
const RESPONSE: usize = 5;

/// What an event says of the answer that it is part of.
#[derive(Deserialize)]
struct Whole<'a> {
    model: Option<String>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

/// Watches one answer. Memory is bounded; nothing is delayed.
#[derive(Debug)]
pub struct Watch {
    form: Form,
    members: Members<6>,
    model: Option<String>,
    usage: Option<TokenCounts>,
    begun: Option<TokenCounts>,
    /// Bytes of text in the events before the present one.
    text_bytes: u64,
    error: bool,
    done: bool,
    /// The first bytes of the present event's data, to know `[DONE]`.
    head: Vec<u8>,
}

#[derive(Debug)]
enum Form {
    Json,
    Events(Reader),
}

const DONE: &[u8] = b"[DONE]";

impl Watch {
    /// For an answer of that `content-type`: an event stream or, whatever else
    /// it says, JSON.
    #[must_use]
    pub fn new(content_type: &[u8]) -> Self {
        let essence = content_type.split(|b| *b == b';').next();
        let stream =
            essence.is_some_and(|e| e.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"));
        Self {
            form: if stream {
                Form::Events(Reader::new())
            } else {
                Form::Json
            },
            members: Members::new(
                ["model", "usage", "error", "type", "message", "response"],
                VALUE_MAX_BYTES,
            ),
            model: None,
            usage: None,
            begun: None,
            text_bytes: 0,
            error: false,
            done: false,
            head: Vec::new(),
        }
    }

    /// Takes the next bytes of the answer.
    pub fn feed(&mut self, chunk: &[u8]) {
        let Form::Events(reader) = &mut self.form else {
            self.members.feed(chunk);
            if self.members.is_closed() {
                self.done = true;
                self.harvest();
            }
            return;
        };
        let mut reader = std::mem::take(reader);
        reader.feed(chunk, |piece| self.take_piece(piece));
        self.form = Form::Events(reader);
    }

    fn take_piece(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Data(bytes) => {
                let room = DONE.len().saturating_add(1).saturating_sub(self.head.len());
                self.head.extend(bytes.iter().take(room));
                self.members.feed(bytes);
            }
            Piece::DataLineEnd => {}
            Piece::EventEnd { .. } => {
                if self.head == DONE {
                    self.done = true;
                }
                self.head.clear();
                self.harvest();
                self.text_bytes = self.text_bytes();
                self.members.reset();
            }
        }
    }

    fn harvest(&mut self) {
        if let Some(model) = self.members.get(MODEL)
            && let Ok(model) = serde_json::from_slice(model)
        {
            self.model = Some(clip_model(model));
        }
        let usage = self.members.get(USAGE);
        if let Some(usage) = usage.and_then(|raw| parse_usage_after(raw, self.begun)) {
            self.usage = Some(usage);
        }
        self.error |= self.members.get(ERROR).is_some_and(|e| e != b"null");
        if matches!(self.form, Form::Events(_)) {
            self.harvest_typed();
        }
    }

    /// What only events with a `type` say.
    fn harvest_typed(&mut self) {
        let kind = self.members.get(TYPE).unwrap_or_default();
        let (holder, begins) = match kind {
            br#""message_start""# => (MESSAGE, true),
            br#""message_stop""# => {
                self.done = true;
                return;
            }
            br#""response.completed""# | br#""response.incomplete""# => {
                self.done = true;
                (RESPONSE, false)
            }
            br#""response.failed""# => {
                self.error = true;
                (RESPONSE, false)
            }
            _ => return,
        };
        let Some(whole) = self
            .members
            .get(holder)
            .and_then(|raw| serde_json::from_slice::<Whole<'_>>(raw).ok())
        else {
            return;
        };
        if let Some(model) = whole.model {
            self.model = Some(clip_model(model));
        }
        let usage = whole.usage.and_then(|u| parse_usage(u.get().as_bytes()));
        if begins {
            self.begun = usage;
        } else if usage.is_some() {
            self.usage = usage;
        }
    }

    /// The model that the answer names.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The usage that the answer reports; of several, the last.
    #[must_use]
    pub fn usage(&self) -> Option<TokenCounts> {
        self.usage
    }

    /// What a stream that was cut had reported as it began, see
    /// [`crate::used::Seen::begun`].
    #[must_use]
    pub fn begun(&self) -> Option<TokenCounts> {
        self.begun
    }

    /// Bytes of text that came so far, for an estimate where no usage does.
    #[must_use]
    pub fn text_bytes(&self) -> u64 {
        self.text_bytes.saturating_add(self.members.text_bytes())
    }

    /// Whether the answer came to its end: the root object closed, or `[DONE]`.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Whether the answer holds an error object, which a stream that began
    /// with status 200 may.
    #[must_use]
    pub fn has_error(&self) -> bool {
        self.error
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    const STREAM: &str = include_str!("../../fixtures/openai-chat-stream.txt");
    const JSON: &str = include_str!("../../fixtures/openai-chat.json");

    #[track_caller]
    fn check(
        content_type: &str,
        text: &str,
        content: &str,
        expected: (Option<&str>, Option<[u64; 4]>, bool),
    ) {
        for cut in 0..=text.len() {
            let (a, b) = text.as_bytes().split_at(cut);
            let mut watch = Watch::new(content_type.as_bytes());
            watch.feed(a);
            watch.feed(b);
            let usage = watch
                .usage()
                .map(|t| [t.input, t.cached_input, t.output, t.reasoning]);
            assert_eq!(
                (watch.model(), usage, watch.is_done()),
                expected,
                "cut at {cut}"
            );
            let length = u64::try_from(content.len()).unwrap();
            assert_eq!(watch.text_bytes(), length, "cut at {cut}");
        }
    }

    #[test]
    fn reads_a_stream_cut_anywhere() {
        let expected = (Some("gpt-4o-mini-2024-07-18"), Some([19, 0, 10, 0]), true);
        let content = "Héllo \"usage\":";
        check("text/event-stream", STREAM, content, expected);
        let crlf = STREAM.replace('\n', "\r\n");
        check("Text/Event-Stream; charset=utf-8", &crlf, content, expected);
    }

    #[test]
    fn reads_json_cut_anywhere() {
        check(
            "application/json",
            JSON,
            "Paris, \"model\":\"x\"",
            (Some("gpt-4o-2024-08-06"), Some([3, 16, 6, 4]), true),
        );
    }

    #[test]
    fn reads_anthropics_stream_cut_anywhere() {
        let stream = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_1","model":"claude-x","content":[],"usage":{"input_tokens":9,"cache_read_input_tokens":4,"output_tokens":1}}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":7}}

event: message_stop
data: {"type":"message_stop"}

"#;
        let expected = (Some("claude-x"), Some([9, 4, 7, 0]), true);
        check("text/event-stream", stream, "Hello", expected);
        let mut cut = Watch::new(b"text/event-stream");
        cut.feed(&stream.as_bytes()[..stream.find("event: message_delta").unwrap()]);
        assert_eq!((cut.usage(), cut.is_done()), (None, false));
        assert_eq!(cut.begun().map(|t| t.input), Some(9));
    }

    #[test]
    fn reads_the_end_of_a_response() {
        let stream = "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"model\":\"gpt-x\",\"usage\":{\"input_tokens\":3,\"output_tokens\":2}}}\n\n";
        let expected = (Some("gpt-x"), Some([3, 0, 2, 0]), true);
        check("text/event-stream", stream, "", expected);
    }

    #[test]
    fn a_cut_stream_is_not_done() {
        let cut = STREAM.len() / 2;
        let mut watch = Watch::new(b"text/event-stream");
        watch.feed(&STREAM.as_bytes()[..cut]);
        assert_eq!((watch.usage(), watch.is_done()), (None, false));
    }

    #[test]
    fn an_error_inside_a_stream_is_seen() {
        let mut watch = Watch::new(b"text/event-stream");
        watch.feed(b"data: {\"choices\":[],\"error\":null}\n\n");
        assert!(!watch.has_error());
        watch.feed(b"data: {\"error\":{\"message\":\"overloaded\"}}\n\n");
        assert!(watch.has_error());
    }
}
