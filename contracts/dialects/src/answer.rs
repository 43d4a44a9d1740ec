//! Model, usage and length of an answer, read as it passes: JSON, an event stream,
//! or lines of JSON.

use std::sync::{Arc, LazyLock};

use crate::{
    json::{Kind, Places, Scan, Text},
    media::{EVENT_STREAM, essence},
    sse::{Piece, Reader},
    tokens::{
        TokenCounts, clip_model, parse_eval_counts, parse_timings, parse_usage, parse_usage_after,
    },
};

/// The longest value that is kept, in bytes. A usage object has a few hundred, and
/// an error is looked at for being there alone.
const VALUE_MAX_BYTES: usize = 8 << 10;

/// What is looked for in an answer, or in each event of one. What holds it may be
/// of any length: `response.completed` has all that the model wrote before the usage.
const POINTERS: [&str; 14] = [
    "/model",
    "/usage",
    "/error",
    "/type",
    "/message/model",
    "/message/usage",
    "/response/model",
    "/response/usage",
    "/timings",
    "/x_groq/usage",
    "/0/error",
    "/prompt_eval_count",
    "/eval_count",
    "/done",
];
const MODEL: usize = 0;
const USAGE: usize = 1;
const ERROR: usize = 2;
/// What kind of event it is, in Anthropic's streams and those of `responses`.
const TYPE: usize = 3;
/// Anthropic's `message_start` has the message in it.
const MESSAGE_MODEL: usize = 4;
const MESSAGE_USAGE: usize = 5;
/// The events of `responses` have the response in them.
const RESPONSE_MODEL: usize = 6;
const RESPONSE_USAGE: usize = 7;
/// llama.cpp's.
const TIMINGS: usize = 8;
const GROQ_USAGE: usize = 9;
/// Gemini's errors come in an array.
const FIRST_ERROR: usize = 10;
/// Ollama's own API.
const PROMPT_EVAL_COUNT: usize = 11;
const EVAL_COUNT: usize = 12;
const DONE: usize = 13;

static PLACES: LazyLock<Arc<Places>> =
    LazyLock::new(|| Arc::new(Places::new(&POINTERS).unwrap_or_default()));

/// Members whose strings are text that a model wrote: OpenAI's messages, their
/// parts, the arguments of tool calls and what is said aloud; `delta` in the events
/// of `responses`; Anthropic's parts of a tool's input; what models think, by all
/// its names; `response` of Ollama's own API.
const TEXT: [&str; 11] = [
    "content",
    "refusal",
    "text",
    "arguments",
    "transcript",
    "delta",
    "partial_json",
    "reasoning_content",
    "reasoning",
    "thinking",
    "response",
];

/// A byte order mark, which may stand before an answer and is no part of it.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The data of the event that ends OpenAI's streams.
const END: &[u8] = b"[DONE]";

/// Watches one answer. Memory is bounded; nothing is delayed.
#[derive(Debug)]
pub struct Watch {
    form: Form,
    scan: Scan,
    /// How much of [`MARK`] the answer began with; all of it once that is known.
    mark_length: usize,
    model: Option<String>,
    /// The same as it stands in the answer: most events repeat it.
    raw_model: Vec<u8>,
    usage: Option<TokenCounts>,
    /// What is used where no usage comes.
    timings: Option<TokenCounts>,
    begun: Option<TokenCounts>,
    /// Bytes of text in the events before the present one.
    text_bytes: u64,
    error: bool,
    done: bool,
}

#[derive(Debug)]
enum Form {
    Json,
    Events(Events),
    /// A JSON text a line, as Ollama's own API streams.
    Lines,
}

/// Where a stream of events stands.
#[derive(Debug, Default)]
struct Events {
    reader: Reader,
    /// The first bytes of the present event's data, to know [`END`].
    head: [u8; 8],
    head_length: usize,
    /// A data line ended: if one more comes, an LF is between.
    line_ended: bool,
}

impl Events {
    fn start_data(&mut self, bytes: &[u8]) {
        let room = self.head.iter_mut().skip(self.head_length);
        for (slot, byte) in room.zip(bytes) {
            *slot = *byte;
            self.head_length = self.head_length.saturating_add(1);
        }
    }

    /// Whether the event that ends here is [`END`].
    fn end_event(&mut self) -> bool {
        let head = self.head.get(..self.head_length).unwrap_or_default();
        let is_end = head.trim_ascii() == END;
        self.head_length = 0;
        self.line_ended = false;
        is_end
    }
}

impl Watch {
    /// For an answer of that `content-type`: an event stream, lines of JSON or,
    /// whatever else it says, JSON.
    #[must_use]
    pub fn new(content_type: &[u8]) -> Self {
        let essence = essence(content_type);
        let form = if essence.eq_ignore_ascii_case(EVENT_STREAM) {
            Form::Events(Events::default())
        } else if essence.eq_ignore_ascii_case(b"application/x-ndjson") {
            Form::Lines
        } else {
            Form::Json
        };
        Self {
            form,
            scan: Scan::new(PLACES.clone(), Text::Of(&TEXT), VALUE_MAX_BYTES).lenient(),
            mark_length: 0,
            model: None,
            raw_model: Vec::new(),
            usage: None,
            timings: None,
            begun: None,
            text_bytes: 0,
            error: false,
            done: false,
        }
    }

    /// Takes the next bytes of the answer. An event that is no JSON is skipped.
    pub fn feed(&mut self, mut chunk: &[u8]) {
        while let (Some(due), Some((byte, rest))) =
            (MARK.get(self.mark_length), chunk.split_first())
        {
            if byte != due {
                self.mark_length = MARK.len();
                break;
            }
            self.mark_length = self.mark_length.saturating_add(1);
            chunk = rest;
        }
        match &mut self.form {
            Form::Json => self.feed_json(chunk),
            Form::Lines => self.feed_lines(chunk),
            Form::Events(events) => {
                let mut events = std::mem::take(events);
                let mut reader = std::mem::take(&mut events.reader);
                reader.feed(chunk, |piece| self.take_piece(&mut events, piece));
                events.reader = reader;
                self.form = Form::Events(events);
            }
        }
    }

    /// The answer's bytes came to their end: so does the event that is open.
    pub fn finish(&mut self) {
        if let Form::Events(events) = &mut self.form {
            self.done |= events.end_event();
        }
        if !matches!(self.form, Form::Json) && self.scan.offset() > 0 {
            self.end_text();
        }
    }

    fn feed_json(&mut self, chunk: &[u8]) {
        if self.done {
            return;
        }
        let is_broken = self.scan.feed(chunk).is_err();
        if self.scan.is_whole() || is_broken {
            // Of what is no JSON nobody can say that its end is missing.
            self.done = true;
        }
        if self.done || is_broken {
            self.harvest();
        } else if self.model.is_none() {
            // An estimate of an answer that is cut needs the name.
            self.harvest_model();
        }
    }

    fn feed_lines(&mut self, chunk: &[u8]) {
        for line in chunk.split_inclusive(|b| *b == b'\n') {
            let _ = self.scan.feed(line);
            if self.scan.is_whole() || line.ends_with(b"\n") {
                self.end_text();
            }
        }
    }

    fn take_piece(&mut self, events: &mut Events, piece: Piece<'_>) {
        match piece {
            Piece::Data(bytes) => {
                if std::mem::take(&mut events.line_ended) {
                    let _ = self.scan.feed(b"\n");
                }
                events.start_data(bytes);
                let _ = self.scan.feed(bytes);
            }
            Piece::DataLineEnd => events.line_ended = true,
            Piece::EventEnd { .. } => {
                self.done |= events.end_event();
                self.end_text();
            }
        }
    }

    /// One JSON text of several ends here.
    fn end_text(&mut self) {
        if self.scan.is_whole() {
            self.harvest();
            let counts = self.end_of_kind();
            if counts {
                self.text_bytes = self.text_bytes.saturating_add(self.scan.text_bytes());
            }
        }
        self.scan.reset();
    }

    /// What the kind of an event says of the answer, and whether its text counts.
    fn end_of_kind(&mut self) -> bool {
        let kind = self.raw(TYPE, Kind::String).unwrap_or_default();
        let kind = kind.strip_prefix(b"\"").unwrap_or_default();
        let kind = kind.strip_suffix(b"\"").unwrap_or_default();
        let (done, error) = match kind {
            b"message_stop"
            | b"response.completed"
            | b"response.incomplete"
            | b"transcript.text.done"
            | b"speech.audio.done"
            | b"image_generation.completed"
            | b"image_edit.completed" => (true, false),
            b"response.failed" | b"error" => (false, true),
            _ => (false, false),
        };
        // Other events of these streams say again what their deltas said, and a
        // delta of sound is no text.
        let counts = !(kind.starts_with(b"response.") || kind.starts_with(b"transcript."))
            || (kind.ends_with(b".delta") && !kind.ends_with(b"audio.delta"));
        if kind == b"message_start"
            && let Some(usage) = self.raw(MESSAGE_USAGE, Kind::Object)
            && let Some(usage) = parse_usage(usage)
        {
            self.begun = Some(usage);
        }
        let last = self.scan.found(DONE).and_then(|f| f.raw) == Some(b"true");
        self.done |= done || (last && matches!(self.form, Form::Lines));
        self.error |= error;
        counts
    }

    /// The bytes of a value of that kind.
    fn raw(&self, place: usize, kind: Kind) -> Option<&[u8]> {
        self.scan.found(place).filter(|f| f.kind == kind)?.raw
    }

    /// Takes what stands in any of the places.
    fn harvest(&mut self) {
        self.harvest_model();
        let usage = [USAGE, RESPONSE_USAGE, GROQ_USAGE]
            .into_iter()
            .filter_map(|place| self.raw(place, Kind::Object))
            .find_map(|raw| {
                let earlier = self.begun.map(|begun| self.usage.unwrap_or(begun));
                parse_usage_after(raw, earlier)
            });
        if usage.is_some() {
            self.usage = usage;
        } else if self.usage.is_none() {
            let timings = self.raw(TIMINGS, Kind::Object).and_then(parse_timings);
            let prompt = self.raw(PROMPT_EVAL_COUNT, Kind::Number);
            let counts = prompt
                .zip(self.raw(EVAL_COUNT, Kind::Number))
                .and_then(|(prompt, output)| parse_eval_counts(prompt, output));
            self.timings = timings.or(counts).or(self.timings);
        }
        self.error |= [ERROR, FIRST_ERROR]
            .into_iter()
            .filter_map(|place| self.scan.found(place))
            .any(|error| match error.kind {
                Kind::Object | Kind::Array => true,
                Kind::String => error.raw != Some(b"\"\""),
                Kind::Number | Kind::Bool | Kind::Null => false,
            });
    }

    fn harvest_model(&mut self) {
        let raw = [MODEL, MESSAGE_MODEL, RESPONSE_MODEL]
            .into_iter()
            .find_map(|place| {
                self.scan
                    .found(place)
                    .filter(|f| f.kind == Kind::String)?
                    .raw
            });
        // Azure's first event has an empty name.
        let Some(raw) = raw.filter(|raw| *raw != b"\"\"" && *raw != self.raw_model) else {
            return;
        };
        if let Ok(model) = serde_json::from_slice(raw) {
            self.model = Some(clip_model(model));
            self.raw_model.clear();
            self.raw_model.extend_from_slice(raw);
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
        self.usage.or(self.timings)
    }

    /// What a stream that was cut had reported as it began, see
    /// [`crate::used::Seen::begun`].
    #[must_use]
    pub fn begun(&self) -> Option<TokenCounts> {
        self.begun
    }

    /// Bytes of text that came so far, for an estimate where no usage does; of a
    /// stream those of whole events.
    #[must_use]
    pub fn text_bytes(&self) -> u64 {
        match self.form {
            Form::Json => self.scan.text_bytes(),
            Form::Events(_) | Form::Lines => self.text_bytes,
        }
    }

    /// Whether the answer came to its end: the root value closed, or the event came
    /// with which its dialect ends a stream.
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
mod tests;
