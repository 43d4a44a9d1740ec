//! Tokens by the scripts of a text, for models whose tokenizer is not public.
//!
//! The weights are what o200k_base makes of running text, in thousandths of a token;
//! `tests.rs` holds them against it.

/// One word of ASCII letters: its first piece, and each letter after the sixth.
const WORD: u64 = 1_050;
const WORD_LETTERS: u64 = 6;
const FURTHER_LETTER: u64 = 110;

/// A run of up to three digits.
const DIGITS: u64 = 1_000;
const DIGITS_RUN: u64 = 3;

/// A mark among ASCII's; two that follow each other are often one token.
const MARK: u64 = 750;
const FURTHER_MARK: u64 = 300;

/// Lines and indents, however long.
const SPACES: u64 = 700;

/// What a character is, as far as tokens go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Digit,
    Mark,
    Space,
    /// Each by itself, in thousandths of a token.
    Other(u64),
}

fn class(c: char) -> Class {
    match c {
        'a'..='z' | 'A'..='Z' => Class::Letter,
        '0'..='9' => Class::Digit,
        _ if c.is_whitespace() => Class::Space,
        '\0'..='\x7f' => Class::Mark,
        _ => Class::Other(weight(c)),
    }
}

/// Of a character beyond ASCII.
fn weight(c: char) -> u64 {
    match u32::from(c) {
        // Letters with diacritics tear a word of Latin ones.
        0x80..=0x24f | 0x1e00..=0x1eff => 650,
        // Greek, Cyrillic, Armenian.
        0x370..=0x58f => 360,
        // Hebrew, Arabic.
        0x590..=0x8ff => 400,
        // The scripts of India.
        0x900..=0xdff => 450,
        // Thai, Lao, Tibetan, Burmese, Georgian and their neighbours.
        0xe00..=0x1dff => 500,
        // Marks of print: dashes, quotes, arrows, boxes.
        0x2000..=0x2bff => 1_000,
        // Kana.
        0x3040..=0x30ff => 820,
        // Ideographs, and their punctuation.
        0x2e80..=0x9fff | 0xf900..=0xfaff | 0xff00..=0xffef => 930,
        // Hangul.
        0xac00..=0xd7af => 640,
        // Emoji and all else that is rare.
        0x1f000..=0x1ffff => 1_800,
        _ => 2_000,
    }
}

/// Thousandths of a token in a text.
pub(super) fn millitokens(text: &str) -> u64 {
    let mut sum = 0_u64;
    let mut before = Class::Space;
    let mut run = 0_u64;
    for c in text.chars() {
        let class = class(c);
        run = match class == before {
            true => run.saturating_add(1),
            false => 1,
        };
        let more = match class {
            Class::Letter if run == 1 && matches!(before, Class::Other(_)) => 300,
            Class::Letter if run == 1 => WORD,
            Class::Letter if run > WORD_LETTERS => FURTHER_LETTER,
            Class::Letter => 0,
            Class::Digit if run % DIGITS_RUN == 1 => DIGITS,
            Class::Digit => 0,
            Class::Mark if run == 1 => MARK,
            Class::Mark => FURTHER_MARK,
            // One space belongs to the word after it.
            Class::Space if (c != ' ' && run == 1) || (c == ' ' && run == 2) => SPACES,
            Class::Space => 0,
            Class::Other(weight) => weight,
        };
        before = class;
        sum = sum.saturating_add(more);
    }
    sum
}
