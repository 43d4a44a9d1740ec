//! What is answered, which depends on the prompt and nothing else.

use serde_json::{Value, json};

use super::{schema, tokens, tools::Wanted};
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

/// What an answer is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Brief<'a> {
    pub(crate) prompt_hash: u64,
    /// Tells the choices of one request apart.
    pub(crate) choice: u64,
    /// How many words; the prompt decides where absent.
    pub(crate) words: Option<u64>,
    /// The most tokens.
    pub(crate) limit: Option<u64>,
    /// Sequences before which the text ends.
    pub(crate) stop: &'a [&'a str],
    pub(crate) format: Format<'a>,
    /// The tools that are called; where there are some, they replace the text.
    pub(crate) calls: &'a [Wanted<'a>],
    /// How many words of text come before the calls.
    pub(crate) preamble_words: u64,
}

/// The form of an answer's text.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Format<'a> {
    /// Prose.
    Text,
    /// Any JSON object.
    Object,
    /// JSON that fits this schema.
    Schema(&'a Value),
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// All was said.
    Done,
    /// This sequence was about to come.
    Sequence(String),
    /// The limit was reached.
    Limit,
    /// It calls tools.
    Calls,
}

/// An answer in tokens.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) text: Vec<String>,
    pub(crate) calls: Vec<Call>,
    pub(crate) end: End,
}

/// A call of a tool.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// What is counted for the name.
    pub(crate) name_tokens: u64,
    /// The input as JSON, in tokens.
    pub(crate) input: Vec<String>,
    /// Whether the limit left room for all of the input.
    pub(crate) whole: bool,
}

impl Call {
    pub(crate) fn tokens(&self) -> u64 {
        self.name_tokens.saturating_add(self.input.len() as u64)
    }
}

impl Answer {
    pub(crate) fn new(brief: &Brief<'_>) -> Self {
        let mut mixer = Mixer::new(brief.prompt_hash ^ brief.choice.wrapping_mul(0x9e37_79b9));
        let words = if brief.calls.is_empty() {
            brief.words
        } else {
            Some(brief.preamble_words)
        };
        let mut text = match brief.format {
            Format::Schema(schema) if brief.calls.is_empty() => {
                schema::fit(schema, &mut mixer).to_string()
            }
            Format::Object if brief.calls.is_empty() => {
                json!({"answer": prose(&mut mixer, words)}).to_string()
            }
            _ => prose(&mut mixer, words),
        };
        // Both providers end the text before the stop sequence that comes first.
        let found = brief.stop.iter().filter(|stop| !stop.is_empty());
        let first = found
            .filter_map(|stop| Some((text.find(stop)?, *stop)))
            .min_by_key(|(at, _)| *at);
        if let Some((at, _)) = first {
            text.truncate(at);
        }
        let mut left = brief.limit.unwrap_or(u64::MAX);
        let all: Vec<String> = tokens::split(&text).map(str::to_owned).collect();
        let mut answer = Self {
            end: if brief.calls.is_empty() {
                End::Done
            } else {
                End::Calls
            },
            text: all,
            calls: Vec::new(),
        };
        if answer.cut_text(&mut left) {
            return answer;
        }
        if let Some((_, stop)) = first {
            answer.end = End::Sequence(stop.to_owned());
            return answer;
        }
        for wanted in brief.calls {
            answer.call(wanted, &mut mixer, &mut left);
        }
        answer
    }

    /// All tokens that are counted for it.
    pub(crate) fn tokens(&self) -> u64 {
        let calls: u64 = self.calls.iter().map(Call::tokens).sum();
        calls.saturating_add(self.text.len() as u64)
    }

    fn cut_text(&mut self, left: &mut u64) -> bool {
        let length = self.text.len() as u64;
        if length > *left {
            self.text
                .truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            self.end = End::Limit;
            return true;
        }
        *left = left.saturating_sub(length);
        false
    }

    /// Adds a call as far as the limit has room for it.
    fn call(&mut self, wanted: &Wanted<'_>, mixer: &mut Mixer, left: &mut u64) {
        let input = match wanted.schema {
            Some(schema) => schema::fit(schema, mixer),
            None => json!({}),
        };
        let input = if input.is_object() { input } else { json!({}) };
        let name_tokens = tokens::count(wanted.name);
        if self.end == End::Limit || name_tokens > *left {
            self.end = End::Limit;
            return;
        }
        *left = left.saturating_sub(name_tokens);
        let mut input: Vec<String> = tokens::split(&input.to_string())
            .map(str::to_owned)
            .collect();
        let whole = input.len() as u64 <= *left;
        if !whole {
            input.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            self.end = End::Limit;
        }
        *left = left.saturating_sub(input.len() as u64);
        self.calls.push(Call {
            name: wanted.name.to_owned(),
            name_tokens,
            input,
            whole,
        });
    }
}

/// Text of that many words, or of as many as the mixer says.
pub(crate) fn prose(mixer: &mut Mixer, words: Option<u64>) -> String {
    let span = WORDS.end().saturating_sub(*WORDS.start()).saturating_add(1);
    let count = words.unwrap_or_else(|| WORDS.start().saturating_add(mixer.below(span)));
    let mut text = String::new();
    for position in 0..count {
        let word = word(mixer);
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

/// One word.
pub(crate) fn word(mixer: &mut Mixer) -> &'static str {
    let index = usize::try_from(mixer.below(VOCABULARY.len() as u64)).unwrap_or(0);
    VOCABULARY.get(index).copied().unwrap_or_default()
}
