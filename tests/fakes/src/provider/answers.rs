//! The text of an answer, which depends on the prompt and nothing else.

use crate::ids::Mixer;

/// Fewest and most words of an answer where no fault says otherwise.
const WORDS: std::ops::RangeInclusive<u64> = 12..=40;

const VOCABULARY: [&str; 40] = [
    "river",
    "gauge",
    "level",
    "rises",
    "slowly",
    "under",
    "morning",
    "rain",
    "and",
    "the",
    "keeper",
    "opens",
    "a",
    "second",
    "gate",
    "before",
    "noon",
    "because",
    "downstream",
    "meadows",
    "hold",
    "more",
    "water",
    "than",
    "last",
    "measurements",
    "suggested",
    "so",
    "flow",
    "stays",
    "within",
    "its",
    "agreed",
    "limit",
    "while",
    "every",
    "litre",
    "is",
    "counted",
    "twice",
];

/// An answer to the prompt of that hash; `choice` tells the choices apart.
pub(super) fn text(prompt_hash: u64, choice: u64, words: Option<u64>) -> String {
    let mut mixer = Mixer::new(prompt_hash ^ choice.wrapping_mul(0x9e37_79b9));
    let span = WORDS.end().saturating_sub(*WORDS.start()).saturating_add(1);
    let count = words.unwrap_or_else(|| WORDS.start().saturating_add(mixer.below(span)));
    let mut text = String::new();
    for position in 0..count {
        let index = usize::try_from(mixer.below(VOCABULARY.len() as u64)).unwrap_or(0);
        let word = VOCABULARY.get(index).copied().unwrap_or_default();
        if position > 0 {
            text.push_str(if mixer.below(9) == 0 { ", " } else { " " });
        }
        text.push_str(word);
    }
    if count > 0 {
        text.push('.');
    }
    text
}
