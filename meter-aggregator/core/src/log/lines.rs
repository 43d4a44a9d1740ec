//! From blocks of a file to its lines, in memory that is bounded.

/// The longest line that is looked into, in bytes.
pub const LINE_MAX_BYTES: usize = 1 << 20;

/// One line, without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Where it begins in the file.
    pub at: u64,
    /// What it holds, [`LINE_MAX_BYTES`] at the most.
    pub bytes: &'a [u8],
    /// How long it is, in bytes.
    pub length: u64,
}

impl Line<'_> {
    /// Whether it is longer than what is kept of it.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        u64::try_from(self.bytes.len()).is_ok_and(|kept| kept < self.length)
    }
}

/// Splits a file into lines as its blocks come.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    /// Where the line that has not ended begins.
    at: u64,
    /// How much of it has come.
    length: u64,
    /// What is kept of it.
    pending: Vec<u8>,
}

impl Lines {
    /// From that offset on, where a line begins.
    #[must_use]
    pub fn at(offset: u64) -> Self {
        Self {
            at: offset,
            ..Self::default()
        }
    }

    /// The offset after the last line end.
    #[must_use]
    pub fn ended_at(&self) -> u64 {
        self.at
    }

    /// The offset after the last byte that came.
    #[must_use]
    pub fn read_to(&self) -> u64 {
        self.at.saturating_add(self.length)
    }

    /// Takes the next block, and gives each line that ends in it.
    pub fn feed(&mut self, block: &[u8], mut each: impl FnMut(Line<'_>)) {
        for part in block.split_inclusive(|b| *b == b'\n') {
            match part.strip_suffix(b"\n") {
                None => self.keep(part),
                Some(end) => {
                    self.keep(end);
                    each(self.line());
                    let next = self.read_to().saturating_add(1);
                    self.begin(next);
                }
            }
        }
    }

    /// Gives what has no line end, of a file to which nothing comes any more.
    pub fn finish(&mut self, each: impl FnOnce(Line<'_>)) {
        if self.length > 0 {
            each(self.line());
            self.begin(self.read_to());
        }
    }

    fn line(&self) -> Line<'_> {
        Line {
            at: self.at,
            bytes: &self.pending,
            length: self.length,
        }
    }

    fn begin(&mut self, at: u64) {
        self.at = at;
        self.length = 0;
        self.pending.clear();
    }

    fn keep(&mut self, part: &[u8]) {
        let room = LINE_MAX_BYTES.saturating_sub(self.pending.len());
        self.pending
            .extend_from_slice(part.get(..room).unwrap_or(part));
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
        self.length = self.length.saturating_add(length);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    /// Each line's offset and bytes, and where the last one ended.
    fn split(text: &[u8], block: usize) -> (Vec<(u64, Vec<u8>)>, u64) {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for block in text.chunks(block) {
            lines.feed(block, |line| {
                assert!(!line.is_cut());
                found.push((line.at, line.bytes.to_vec()));
            });
        }
        assert_eq!(lines.read_to(), text.len() as u64);
        (found, lines.ended_at())
    }

    #[test]
    fn a_line_without_an_end_waits() {
        let (found, ended) = split(b"ab\n\ncd", 4);
        assert_eq!(found, [(0, b"ab".to_vec()), (3, b"".to_vec())]);
        assert_eq!(ended, 4);
        let mut lines = Lines::at(7);
        lines.feed(b"cd", |line| panic!("{line:?}"));
        assert_eq!((lines.ended_at(), lines.read_to()), (7, 9));
        let mut last = None;
        lines.finish(|line| last = Some((line.at, line.bytes.to_vec())));
        assert_eq!(last, Some((7, b"cd".to_vec())));
        assert_eq!(lines.ended_at(), 9);
        lines.finish(|line| panic!("{line:?}"));
    }

    #[test]
    fn a_line_that_is_too_long_is_kept_in_part() {
        let mut lines = Lines::default();
        let block = vec![b'x'; 300_000];
        for _ in 0..9 {
            lines.feed(&block, |line| panic!("{}", line.at));
            assert!(lines.pending.len() <= LINE_MAX_BYTES);
        }
        let mut found = Vec::new();
        lines.feed(b"y\nz\n", |line| {
            found.push((line.at, line.length, line.bytes.len(), line.is_cut()));
        });
        assert_eq!(
            found,
            [
                (0, 2_700_001, LINE_MAX_BYTES, true),
                (2_700_002, 1, 1, false)
            ]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn blocks_do_not_matter(
            text in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'a'), any::<u8>()], 0..60),
            block in 1_usize..9,
        ) {
            prop_assert_eq!(split(&text, block), split(&text, usize::MAX));
        }
    }
}
