//! Server-sent events as their bytes pass (WHATWG HTML, section 9.2.6).
//!
//! Lines end with LF, CR or CRLF, and chunks are cut anywhere.

/// What a stretch of bytes was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes of a `data:` line, without the field name and the space after it.
    Data(&'a [u8]),
    /// A `data:` line ended.
    DataLineEnd,
    /// A blank line ended the event; in the chunk at hand it reaches up to here.
    EventEnd {
        /// The offset in the chunk after the blank line's terminator, or the first
        /// half of one that is cut.
        offset: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In the first bytes of a line, which have matched so much of `data:`.
    Field(usize),
    /// After `data:`, where one space is not data.
    Space,
    /// In the data of a `data:` line.
    Data,
    /// In a line of another field.
    Other,
}

/// Reads events incrementally and keeps nothing but its state.
#[derive(Debug, Clone)]
pub struct Reader {
    at: At,
    /// The byte before was a CR: an LF now belongs to it.
    after_cr: bool,
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

const FIELD: &[u8] = b"data:";

impl Reader {
    /// At the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self {
            at: At::Field(0),
            after_cr: false,
        }
    }

    /// Takes the next bytes and tells `sink` what they are, in order.
    pub fn feed<'a>(&mut self, chunk: &'a [u8], mut sink: impl FnMut(Piece<'a>)) {
        let mut rest = chunk;
        while let Some((&byte, after)) = rest.split_first() {
            if std::mem::take(&mut self.after_cr) && byte == b'\n' {
                rest = after;
                continue;
            }
            if byte == b'\n' || byte == b'\r' {
                self.after_cr = byte == b'\r';
                rest = after;
                if self.after_cr
                    && let Some((b'\n', after)) = after.split_first()
                {
                    self.after_cr = false;
                    rest = after;
                }
                self.end_line(chunk.len().saturating_sub(rest.len()), &mut sink);
                continue;
            }
            if self.at == At::Space {
                self.at = At::Data;
                if byte == b' ' {
                    rest = after;
                    continue;
                }
            }
            rest = match self.at {
                At::Field(matched) if FIELD.get(matched) == Some(&byte) => {
                    let matched = matched.saturating_add(1);
                    self.at = if matched == FIELD.len() {
                        At::Space
                    } else {
                        At::Field(matched)
                    };
                    after
                }
                At::Field(_) => {
                    self.at = At::Other;
                    rest
                }
                At::Space | At::Data | At::Other => {
                    let end = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                    let (line, next) = rest.split_at(end);
                    if self.at == At::Data {
                        sink(Piece::Data(line));
                    }
                    next
                }
            };
        }
    }

    fn end_line<'a>(&mut self, offset: usize, sink: &mut impl FnMut(Piece<'a>)) {
        match self.at {
            At::Field(0) => sink(Piece::EventEnd { offset }),
            // `data` alone is a data line too; it holds nothing to scan.
            At::Space | At::Data => sink(Piece::DataLineEnd),
            At::Field(_) | At::Other => {}
        }
        self.at = At::Field(0);
    }
}

/// One whole event: its bytes as they came, and its data.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// Every byte, the blank line included.
    pub raw: Vec<u8>,
    /// The data lines, joined by LF.
    pub data: Vec<u8>,
}

/// Cuts a stream into whole events, each up to a bound.
#[derive(Debug)]
pub struct Splitter {
    reader: Reader,
    open: Event,
    event_max_bytes: usize,
}

/// An event was longer than its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

impl Splitter {
    /// At the start of a stream whose events have up to `event_max_bytes`.
    #[must_use]
    pub fn new(event_max_bytes: usize) -> Self {
        Self {
            reader: Reader::new(),
            open: Event::default(),
            event_max_bytes,
        }
    }

    /// Takes the next bytes and gives the events that they end.
    ///
    /// # Errors
    /// [`TooLong`] where an event passes the bound; the stream is of no use
    /// after that.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        let mut taken = 0;
        let open = &mut self.open;
        if self.reader.after_cr && open.raw.is_empty() && chunk.first() == Some(&b'\n') {
            // The other half of the line end that ended the last event: whoever
            // reads by lines waits for it.
            events.push(Event {
                raw: vec![b'\n'],
                data: Vec::new(),
            });
            taken = 1;
        }
        self.reader.feed(chunk, |piece| match piece {
            Piece::Data(bytes) => open.data.extend_from_slice(bytes),
            Piece::DataLineEnd => open.data.push(b'\n'),
            Piece::EventEnd { offset } => {
                open.raw
                    .extend_from_slice(chunk.get(taken..offset).unwrap_or_default());
                taken = offset;
                let mut event = std::mem::take(open);
                event.data.pop();
                events.push(event);
            }
        });
        self.open
            .raw
            .extend_from_slice(chunk.get(taken..).unwrap_or_default());
        if self.open.raw.len() > self.event_max_bytes {
            return Err(TooLong);
        }
        Ok(events)
    }

    /// What came after the last whole event: bytes of a stream that was cut.
    #[must_use]
    pub fn rest(self) -> Vec<u8> {
        self.open.raw
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn split(chunks: &[&[u8]]) -> (Vec<String>, Vec<u8>) {
        let mut splitter = Splitter::new(10_000);
        let (mut data, mut raw) = (Vec::new(), Vec::new());
        for chunk in chunks {
            for event in splitter.feed(chunk).unwrap() {
                data.push(String::from_utf8_lossy(&event.data).into_owned());
                raw.extend(event.raw);
            }
        }
        raw.extend(splitter.rest());
        (data, raw)
    }

    #[track_caller]
    fn check(stream: &str, expected: &[&str]) {
        let bytes = stream.as_bytes();
        for cut in 0..=bytes.len() {
            let (a, b) = bytes.split_at(cut);
            let (data, raw) = split(&[a, b]);
            let data: Vec<&str> = data
                .iter()
                .map(String::as_str)
                .filter(|d| !d.is_empty())
                .collect();
            assert_eq!(data, expected, "{stream:?} cut at {cut}");
            assert_eq!(raw, bytes, "{stream:?} cut at {cut}");
        }
    }

    #[test]
    fn every_line_ending_ends_a_line() {
        for end in ["\n", "\r\n", "\r"] {
            let stream = format!("data: a{end}{end}data:b{end}: comment{end}{end}");
            check(&stream, &["a", "b"]);
        }
    }

    #[test]
    fn data_lines_join_and_other_fields_are_no_data() {
        check(
            "event: x\ndata: é1\ndata:  2\nid: 9\ndat: no\ndata\n\n",
            &["é1\n 2"],
        );
    }

    #[test]
    fn an_event_without_its_blank_line_is_the_rest() {
        check("data: a\n\ndata: b\n", &["a"]);
    }

    #[test]
    fn an_event_beyond_the_bound_is_refused() {
        let mut splitter = Splitter::new(8);
        assert_eq!(splitter.feed(b"data: 123456789"), Err(TooLong));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn chunks_make_no_difference(
            bytes in prop::collection::vec(prop_oneof![
                Just(b'\n'), Just(b'\r'), Just(b'd'), Just(b'a'), Just(b't'), Just(b':'),
                Just(b' '), any::<u8>()], 0..100),
            cut in 0usize..100,
        ) {
            let (a, b) = bytes.split_at(cut.min(bytes.len()));
            let filter = |(data, raw): (Vec<String>, Vec<u8>)| {
                (data.into_iter().filter(|d| !d.is_empty()).collect::<Vec<_>>(), raw)
            };
            prop_assert_eq!(filter(split(&[a, b])), filter(split(&[&bytes])));
        }
    }
}
