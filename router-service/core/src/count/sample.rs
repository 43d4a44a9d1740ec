//! Counts of long texts by samples, in bounded time.

use super::{Tokenizer, scale, wide};

/// So much is counted whole: about 8 ms of prose, 45 ms of what is made to be slow.
pub(super) const WHOLE_BYTES: usize = 64 << 10;

/// The most that a tokenizer gets at once. Its regular expressions give up after a
/// million steps back, and a run of spaces takes one for each.
const PIECE_BYTES: usize = 4 << 10;

/// Counts texts of which the sum is known before.
#[derive(Debug)]
pub(super) struct Sampler {
    tokenizer: Tokenizer,
    /// Bytes that are to come.
    total: u64,
    /// Bytes that came.
    seen: u64,
    /// Bytes that were counted.
    counted: u64,
    /// Tokens of these.
    tokens: u64,
}

impl Sampler {
    pub(super) fn new(tokenizer: Tokenizer, total_bytes: usize) -> Self {
        Self {
            tokenizer,
            total: wide(total_bytes),
            seen: 0,
            counted: 0,
            tokens: 0,
        }
    }

    pub(super) fn add(&mut self, text: &str) {
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(cut(rest));
            rest = after;
            self.add_piece(piece);
        }
    }

    fn add_piece(&mut self, piece: &str) {
        // Evenly: of what came so far as much is counted as of all.
        let whole = wide(WHOLE_BYTES);
        let due = self.total <= whole || self.counted <= scale(self.seen, whole, self.total);
        self.seen = self.seen.saturating_add(wide(piece.len()));
        if due {
            self.counted = self.counted.saturating_add(wide(piece.len()));
            let tokens = self.tokenizer.count_piece(piece);
            self.tokens = self.tokens.saturating_add(tokens);
        }
    }

    pub(super) fn finish(self) -> u64 {
        scale(self.tokens, self.seen, self.counted)
    }
}

/// Where the next piece ends: before a space, so that a word is not torn, where
/// there is one near.
fn cut(text: &str) -> usize {
    if text.len() <= PIECE_BYTES {
        return text.len();
    }
    let most = text.floor_char_boundary(PIECE_BYTES);
    let near = text.floor_char_boundary(most.saturating_sub(128));
    let window = text.get(near..most).unwrap_or_default();
    match window.rfind([' ', '\n']) {
        Some(at) if near.saturating_add(at) > 0 => near.saturating_add(at),
        _ => most,
    }
}
