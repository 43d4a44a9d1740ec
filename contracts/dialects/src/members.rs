//! A scan for a few members of a JSON object as its bytes pass.
//!
//! No tree is built and nothing is kept but the raw values that were asked
//! for, each up to a bound. It is no validator: of a text that is not JSON it
//! finds what looks like a member, and the caller parses that value anyway.

/// Members whose strings are text that a model wrote: OpenAI's messages, their
/// parts, and the arguments of tool calls; Anthropic's parts of a tool's input.
const TEXT: [&[u8]; 5] = [
    b"content",
    b"refusal",
    b"text",
    b"arguments",
    b"partial_json",
];

/// The longest of [`TEXT`], and one more.
const TEXT_NAME_MAX_BYTES: usize = 13;

/// The longest member name that is compared, in raw bytes.
const NAME_MAX_BYTES: usize = 128;

/// Where in the text the scan stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before the root object.
    Start,
    /// In the root object, before a member's name or after its value.
    Name,
    /// After a member's name, before the colon.
    Colon,
    /// In a member's value.
    Value,
    /// After the root object, or in a text whose root is no object.
    End,
}

/// Finds the members `wanted` of a root object.
///
/// A member that comes twice counts with its last value, as with most parsers.
#[derive(Debug, Clone)]
pub struct Members<const N: usize> {
    wanted: [&'static str; N],
    found: [Option<Vec<u8>>; N],
    value_max_bytes: usize,
    at: At,
    /// Open brackets inside the root object.
    depth: u32,
    in_string: bool,
    escaped: bool,
    name: Vec<u8>,
    /// Which wanted member the present value is, and its bytes so far.
    capture: Option<(usize, Vec<u8>)>,
    text: Text,
}

/// Measures the strings of members called as in [`TEXT`], at any depth below
/// the root's.
#[derive(Debug, Clone, Default)]
struct Text {
    /// Bytes found so far.
    bytes: u64,
    /// The last string's first bytes, and its length.
    head: Vec<u8>,
    length: u64,
    /// The value at hand belongs to such a member.
    counts: bool,
}

impl Text {
    fn reset(&mut self) {
        self.bytes = 0;
        self.counts = false;
        self.start_string();
    }

    fn start_string(&mut self) {
        self.head.clear();
        self.length = 0;
    }

    fn string(&mut self, bytes: &[u8]) {
        let room = TEXT_NAME_MAX_BYTES.saturating_sub(self.head.len());
        if room > 0 {
            self.head.extend(bytes.iter().take(room));
        }
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.length = self.length.saturating_add(length);
    }

    /// What stands after a string says what it was.
    fn structure(&mut self, byte: u8) {
        match byte {
            b':' => self.counts = TEXT.contains(&self.head.as_slice()),
            b',' | b'}' | b']' => {
                if std::mem::take(&mut self.counts) {
                    self.bytes = self.bytes.saturating_add(self.length);
                }
            }
            _ => return,
        }
        self.start_string();
    }
}

impl<const N: usize> Members<N> {
    /// A scan that keeps values of up to `value_max_bytes`; a longer one counts
    /// as not found.
    #[must_use]
    pub fn new(wanted: [&'static str; N], value_max_bytes: usize) -> Self {
        Self {
            wanted,
            found: [const { None }; N],
            value_max_bytes,
            at: At::Start,
            depth: 0,
            in_string: false,
            escaped: false,
            name: Vec::new(),
            capture: None,
            text: Text::default(),
        }
    }

    /// Bytes of text in this JSON text: of the strings of `content`, `refusal`,
    /// `text`, `arguments` and `partial_json`, below the root's own members. Escapes count as
    /// they stand, without their backslash.
    #[must_use]
    pub fn text_bytes(&self) -> u64 {
        self.text.bytes
    }

    /// Forgets what it saw, for the next text; keeps its buffers, because a
    /// stream comes by here at each event.
    pub fn reset(&mut self) {
        self.found = [const { None }; N];
        self.at = At::Start;
        self.depth = 0;
        self.in_string = false;
        self.escaped = false;
        self.name.clear();
        self.capture = None;
        self.text.reset();
    }

    /// The raw value of the `index`th wanted member, once it has passed whole.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.found.get(index)?.as_deref()
    }

    /// Whether the root object was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.at == At::End
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.at == At::End {
                return;
            }
            if self.in_string && !self.escaped {
                let run = memchr::memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len());
                if run > 0 {
                    let (plain, after) = bytes.split_at(run);
                    self.keep(plain);
                    bytes = after;
                    continue;
                }
            }
            self.step(byte);
            bytes = rest;
        }
    }

    /// Bytes that a string holds.
    fn keep(&mut self, bytes: &[u8]) {
        if self.at == At::Value && self.depth > 0 {
            self.text.string(bytes);
        }
        self.keep_raw(bytes);
    }

    /// Bytes of a string as it stands, quotes and backslashes included: part of
    /// a name, of a captured value, or of nothing.
    fn keep_raw(&mut self, bytes: &[u8]) {
        if self.at == At::Name {
            // One byte too many is enough to make the name unequal.
            let room = NAME_MAX_BYTES
                .saturating_add(1)
                .saturating_sub(self.name.len());
            self.name.extend(bytes.iter().take(room));
        } else {
            self.keep_value(bytes);
        }
    }

    fn keep_value(&mut self, bytes: &[u8]) {
        let Some((_, value)) = &mut self.capture else {
            return;
        };
        if value.len().saturating_add(bytes.len()) > self.value_max_bytes {
            self.capture = None;
        } else {
            value.extend_from_slice(bytes);
        }
    }

    fn step(&mut self, byte: u8) {
        if self.in_string {
            if std::mem::take(&mut self.escaped) {
                self.keep(&[byte]);
                return;
            }
            self.escaped = byte == b'\\';
            self.in_string = byte != b'"';
            self.keep_raw(&[byte]);
            if !self.in_string && self.at == At::Name {
                self.at = At::Colon;
            }
            return;
        }
        match self.at {
            At::Start => match byte {
                b'{' => self.at = At::Name,
                // A byte order mark or white space may come first.
                b' ' | b'\t' | b'\r' | b'\n' | 0xef | 0xbb | 0xbf => {}
                _ => self.at = At::End,
            },
            At::Name => match byte {
                b'"' => {
                    self.name.clear();
                    self.name.push(byte);
                    self.in_string = true;
                }
                b'}' => self.at = At::End,
                _ => {}
            },
            At::Colon => {
                if byte == b':' {
                    self.at = At::Value;
                    self.capture = self.wanted_index().map(|i| (i, Vec::new()));
                }
            }
            At::Value => self.step_value(byte),
            At::End => {}
        }
    }

    fn step_value(&mut self, byte: u8) {
        match byte {
            b',' | b'}' if self.depth == 0 => {
                if let Some((index, value)) = self.capture.take()
                    && let Some(slot) = self.found.get_mut(index)
                {
                    *slot = Some(value.trim_ascii().to_vec());
                }
                self.at = if byte == b',' { At::Name } else { At::End };
                return;
            }
            b'"' => {
                self.in_string = true;
                self.text.start_string();
            }
            b'{' | b'[' => self.depth = self.depth.saturating_add(1),
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.text.structure(byte);
        self.keep_value(&[byte]);
    }

    /// Which wanted member `self.name` is, escapes resolved.
    fn wanted_index(&self) -> Option<usize> {
        if self.name.len() > NAME_MAX_BYTES {
            return None;
        }
        let bare = self.name.get(1..self.name.len().saturating_sub(1))?;
        if bare.contains(&b'\\') {
            let name: String = serde_json::from_slice(&self.name).ok()?;
            return self.wanted.iter().position(|w| *w == name);
        }
        self.wanted.iter().position(|w| w.as_bytes() == bare)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn scan(chunks: &[&[u8]]) -> Members<2> {
        let mut members = Members::new(["model", "usage"], 64);
        for chunk in chunks {
            members.feed(chunk);
        }
        members
    }

    #[track_caller]
    fn check(text: &str, model: Option<&str>, usage: Option<&str>) {
        let whole = scan(&[text.as_bytes()]);
        assert_eq!(whole.get(0), model.map(str::as_bytes), "{text}");
        assert_eq!(whole.get(1), usage.map(str::as_bytes), "{text}");
        for cut in 0..=text.len() {
            let (a, b) = text.as_bytes().split_at(cut);
            let split = scan(&[a, b]);
            assert_eq!(split.found, whole.found, "{text} cut at {cut}");
            assert_eq!(split.is_closed(), whole.is_closed(), "{text} cut at {cut}");
        }
    }

    #[test]
    fn finds_members_of_the_root_only() {
        check(
            r#"{"a":{"model":"no","usage":1},"model" : "gpt" ,"b":["model",{"usage":2}],"usage":{"x":[1,{"y":2}]}}"#,
            Some(r#""gpt""#),
            Some(r#"{"x":[1,{"y":2}]}"#),
        );
    }

    #[test]
    fn strings_hide_what_they_hold() {
        check(
            r#"{"a":"\"model\":\"x\",","model":"q\"},\\","usage":null}"#,
            Some(r#""q\"},\\""#),
            Some("null"),
        );
    }

    #[test]
    fn an_escaped_name_is_the_same_name() {
        check(r#"{"mod\u0065l":"m","usage":0}"#, Some(r#""m""#), Some("0"));
    }

    #[test]
    fn the_last_of_two_counts_and_a_long_value_does_not() {
        check(r#"{"model":"a","model":"b"}"#, Some(r#""b""#), None);
        let long = format!(r#"{{"usage":"{}","model":1}}"#, "x".repeat(100));
        check(&long, Some("1"), None);
    }

    #[test]
    fn text_is_measured_wherever_it_stands() {
        let text = r#"{"content":"root","choices":[{"delta":{"role":"assistant","content":"h\u00e9 \"x\""},
            "finish_reason":null},{"message":{"content":[{"type":"text","text":"four"}],"refusal":null,
            "tool_calls":[{"function":{"name":"n","arguments":"{}"}}]}}],"content_filter":{"contents":"no"}}"#;
        let expected = "hu00e9 \"x\"".len() + "four".len() + "{}".len();
        for cut in 0..=text.len() {
            let (a, b) = text.as_bytes().split_at(cut);
            let found = scan(&[a, b]).text_bytes();
            assert_eq!(found, u64::try_from(expected).unwrap(), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_object_holds_nothing() {
        for text in ["", "[]", r#"["model",1]"#, "\"model\"", "nul", "{", "{}"] {
            check(text, None, None);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn chunks_make_no_difference(
            bytes in prop::collection::vec(prop_oneof![
                Just(b'"'), Just(b'{'), Just(b'}'), Just(b'\\'), Just(b':'), Just(b','),
                Just(b'm'), any::<u8>()], 0..200),
            cut in 0usize..200,
        ) {
            let cut = cut.min(bytes.len());
            let (a, b) = bytes.split_at(cut);
            prop_assert_eq!(scan(&[a, b]).found, scan(&[&bytes]).found);
        }

        #[test]
        fn agrees_with_a_parser(model in ".{0,10}", filler in ".{0,40}") {
            let text = serde_json::json!({"z": filler, "model": model, "zz": [filler]}).to_string();
            let found = scan(&[text.as_bytes()]);
            let value: Option<String> = found.get(0).and_then(|v| serde_json::from_slice(v).ok());
            // A value over the bound of 64 raw bytes is not kept.
            if serde_json::json!(model).to_string().len() <= 64 {
                prop_assert_eq!(value, Some(model));
            }
        }
    }
}
