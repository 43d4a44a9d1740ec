//! Takes the usage chunk out of a stream whose client did not ask for it.

use std::borrow::Cow;

use weir_dialects::{
    sse::{Piece, Reader},
    tokens::is_usage_alone,
};

/// The longest event that is held back, in bytes; a usage chunk has about 500.
const EVENT_MAX_BYTES: usize = 64 << 10;

/// Passes a stream of `chat/completions` or `completions` on without the event
/// whose `choices` are empty and whose `usage` is an object. All else passes byte
/// for byte.
///
/// What is held back is the event that is open where a chunk ends, up to 64 KiB;
/// of a longer event nothing is held.
#[derive(Debug, Default)]
pub struct Hide {
    reader: Reader,
    /// The open event's bytes of the chunks before.
    held: Vec<u8>,
    /// Its data, unless it is too long.
    data: Vec<u8>,
    /// It is longer than may be held, and passes as it comes.
    long: bool,
    /// The event before ended with a CR, whose LF may come yet.
    after_cr: Option<Fate>,
}

/// What becomes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Passes,
    Hidden,
}

/// What passes of a chunk: nothing is copied until something is left out.
#[derive(Debug)]
struct Out<'a> {
    chunk: &'a [u8],
    /// The chunk up to here is dealt with.
    taken: usize,
    /// Passes, where it is not the chunk up to `taken`.
    copy: Option<Vec<u8>>,
}

impl Hide {
    /// At the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes, the last of them where `end`, and gives those to pass
    /// on now.
    #[must_use]
    pub fn pass<'a>(&mut self, chunk: &'a [u8], end: bool) -> Cow<'a, [u8]> {
        let mut out = Out {
            chunk,
            taken: 0,
            copy: None,
        };
        if let Some(fate) = self.after_cr.filter(|_| !chunk.is_empty()) {
            self.after_cr = None;
            if chunk.first() == Some(&b'\n') {
                out.take(1, fate, &mut self.held);
            }
        }
        let mut reader = std::mem::take(&mut self.reader);
        reader.feed(chunk, |piece| match piece {
            Piece::Data(bytes) => self.keep(bytes),
            Piece::DataLineEnd => self.keep(b"\n"),
            Piece::EventEnd { offset } => {
                let fate = if !self.long && is_usage_alone(&self.data) {
                    Fate::Hidden
                } else {
                    Fate::Passes
                };
                out.take(offset, fate, &mut self.held);
                self.long = false;
                self.data.clear();
                let cut = offset == chunk.len() && chunk.last() == Some(&b'\r');
                self.after_cr = cut.then_some(fate);
            }
        });
        self.reader = reader;
        let open = chunk.len().saturating_sub(out.taken);
        self.long |= self.held.len().saturating_add(open) > EVENT_MAX_BYTES;
        if end || self.long {
            self.data = Vec::new();
            out.take(chunk.len(), Fate::Passes, &mut self.held);
        } else {
            let rest = chunk.get(out.taken..).unwrap_or_default();
            self.held.extend_from_slice(rest);
        }
        out.passed()
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.data.len().saturating_add(bytes.len()) > EVENT_MAX_BYTES {
            self.long = true;
        }
        if !self.long {
            self.data.extend_from_slice(bytes);
        }
    }
}

impl<'a> Out<'a> {
    /// Deals with what is held and the chunk up to `until`.
    fn take(&mut self, until: usize, fate: Fate, held: &mut Vec<u8>) {
        let before = self.chunk.get(..self.taken).unwrap_or_default();
        let bytes = self.chunk.get(self.taken..until).unwrap_or_default();
        if fate == Fate::Hidden {
            self.copy.get_or_insert_with(|| before.to_vec());
            held.clear();
        } else if !held.is_empty() {
            // What is held is older than all of this chunk.
            let copy = self.copy.get_or_insert_default();
            copy.append(held);
            copy.extend_from_slice(bytes);
        } else if let Some(copy) = &mut self.copy {
            copy.extend_from_slice(bytes);
        }
        self.taken = until;
    }

    fn passed(self) -> Cow<'a, [u8]> {
        match self.copy {
            Some(copy) => Cow::Owned(copy),
            None => Cow::Borrowed(self.chunk.get(..self.taken).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    const STREAM: &str = include_str!("../../../../contracts/fixtures/openai-chat-stream.txt");
    const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n";

    fn pass(chunks: &[&[u8]]) -> Vec<u8> {
        let mut hide = Hide::new();
        let mut out = Vec::new();
        for (i, chunk) in chunks.iter().enumerate() {
            out.extend_from_slice(&hide.pass(chunk, i + 1 == chunks.len()));
        }
        out
    }

    /// Without the event that holds `prompt_tokens`.
    fn without(stream: &str) -> String {
        let events = stream.split_inclusive("\n\n");
        events.filter(|e| !e.contains("prompt_tokens")).collect()
    }

    #[track_caller]
    fn check(stream: &str, expected: &str) {
        for end in ["\n", "\r\n", "\r"] {
            let (stream, expected) = (stream.replace('\n', end), expected.replace('\n', end));
            for cut in 0..=stream.len() {
                let (a, b) = stream.as_bytes().split_at(cut);
                let found = String::from_utf8(pass(&[a, b])).unwrap();
                assert_eq!(found, expected, "{end:?} cut at {cut}");
            }
            let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
            assert_eq!(pass(&bytes), expected.as_bytes(), "{end:?}");
        }
    }

    #[test]
    fn the_usage_chunk_is_left_out_wherever_chunks_are_cut() {
        check(STREAM, &without(STREAM));
        check(&USAGE.repeat(3), "");
        check(&format!(": hi\n\n{USAGE}: hi\n\n"), ": hi\n\n: hi\n\n");
    }

    #[test]
    fn nothing_else_is_left_out() {
        for event in [
            "data: {\"choices\":[],\"usage\":null,\"prompt_filter_results\":[]}\n\n",
            "data: {\"choices\":[{\"delta\":{}}],\"usage\":{\"prompt_tokens\":1}}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\":{}\"}}]}\n\n",
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}\n\n",
            "event: x\nid: 1\n\n\n\n",
            "data: [DONE]\n\n",
            "data: {\"choices\":[],\"usage\":{}}",
        ] {
            check(event, event);
        }
    }

    #[test]
    fn a_chunk_of_whole_events_passes_without_a_copy() {
        let mut hide = Hide::new();
        let (first, rest) = STREAM.split_at(STREAM.find("\n\n").unwrap() + 2);
        let passed = hide.pass(first.as_bytes(), false);
        assert!(matches!(passed, Cow::Borrowed(b) if b == first.as_bytes()));
        let passed = hide.pass(&rest.as_bytes()[..9], false);
        assert!(matches!(passed, Cow::Borrowed(b"")));
    }

    #[test]
    fn a_long_event_is_not_held() {
        let text = "x".repeat(40 << 10);
        let mut hide = Hide::new();
        let start = format!("data: {{\"usage\":{{}},\"x\":\"{text}");
        assert_eq!(&*hide.pass(start.as_bytes(), false), b"");
        let both = format!("{start}{text}");
        assert_eq!(&*hide.pass(text.as_bytes(), false), both.as_bytes());
        assert_eq!(&*hide.pass(text.as_bytes(), false), text.as_bytes());
        let end = "\",\"choices\":[]}\n\n";
        assert_eq!(&*hide.pass(end.as_bytes(), false), end.as_bytes());
        // The next is held again.
        assert_eq!(&*hide.pass(USAGE.as_bytes(), false), b"");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn chunks_make_no_difference(
            parts in prop::collection::vec(prop_oneof![
                Just(USAGE), Just("data: {\"choices\":[]}\n\n"), Just("\r"), Just("\n"),
                Just("data: {\"choices\":[],\r\ndata:\"usage\":{}}\r\n\r\n"), Just("data"),
                Just(": c\r\r"), Just("x")], 0..12),
            cuts in prop::collection::vec(0usize..300, 0..6),
        ) {
            let stream = parts.concat();
            let mut cuts: Vec<usize> = cuts.iter().map(|c| c % (stream.len() + 1)).collect();
            cuts.sort_unstable();
            cuts.push(stream.len());
            let mut from = 0;
            let chunks: Vec<&[u8]> = cuts.iter()
                .map(|c| { let s = &stream.as_bytes()[from..*c]; from = *c; s }).collect();
            prop_assert_eq!(pass(&chunks), pass(&[stream.as_bytes()]));
        }
    }
}
