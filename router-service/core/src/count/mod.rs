//! How many tokens a text is where nobody says: by OpenAI's own tokenizers for its
//! models, by a stated approximation for others.

mod approximate;
mod input;
mod sample;
mod tools;

pub use self::input::Input;

use std::collections::HashSet;

use tiktoken_rs::tokenizer::{Tokenizer as Known, get_tokenizer};

use crate::provider::ProviderKind;

use self::sample::Sampler;

/// Tokens of Anthropic's models in percent of o200k_base's. Anthropic publishes no
/// tokenizer; it states about 3.5 characters of English to a token, OpenAI about
/// four, and comparisons of the two find 15 to 30 % more.
const ANTHROPIC_PERCENT: u64 = 120;

/// The same of open models, whose vocabularies are smaller: Mistral 7B's has 32,768
/// entries, o200k_base 200,000.
const OPEN_PERCENT: u64 = 125;

/// What counts a model's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tokenizer {
    /// OpenAI's of gpt-4o and later.
    O200k,
    /// OpenAI's of gpt-4, gpt-3.5 and the embeddings.
    Cl100k,
    /// By scripts, see [`approximate`], in percent of what o200k_base makes of such
    /// texts.
    Approximate {
        /// 100 is as many.
        percent: u64,
    },
}

impl Tokenizer {
    /// That of a model, by its provider's name for it.
    #[must_use]
    pub fn of(kind: ProviderKind, model: &str) -> Self {
        let open = Self::Approximate {
            percent: OPEN_PERCENT,
        };
        match kind {
            ProviderKind::Anthropic => Self::Approximate {
                percent: ANTHROPIC_PERCENT,
            },
            // What is not known is newer than what is.
            ProviderKind::OpenAi => known(model).unwrap_or(Self::O200k),
            // gpt-oss is served by many, as `openai/gpt-oss-20b`.
            ProviderKind::OpenAiCompatible => {
                let name = model.rsplit('/').next().unwrap_or(model);
                known(name).unwrap_or(open)
            }
        }
    }

    /// Tokens of a text. Of one above 64 KiB a sample that is spread over it is
    /// counted.
    #[must_use]
    pub fn count(self, text: &str) -> u64 {
        let mut sampler = Sampler::new(self, text.len());
        sampler.add(text);
        sampler.finish()
    }

    /// Tokens of a text of so many bytes of which `text` is what was kept.
    #[must_use]
    pub fn count_kept(self, text: &str, bytes: usize) -> u64 {
        let tokens = self.count(text);
        if text.len() >= bytes || text.is_empty() {
            return tokens;
        }
        scale(tokens, wide(bytes), wide(text.len()))
    }

    /// Of a text short enough for no regular expression to run away.
    fn count_piece(self, piece: &str) -> u64 {
        let bpe = match self {
            Self::O200k => tiktoken_rs::o200k_base_singleton(),
            Self::Cl100k => tiktoken_rs::cl100k_base_singleton(),
            Self::Approximate { percent } => {
                return scale(approximate::millitokens(piece), percent, 100_000);
            }
        };
        // Nothing that a tenant writes is a special token.
        match bpe.encode(piece, &HashSet::new()) {
            Ok((tokens, _)) => wide(tokens.len()),
            Err(_) => scale(approximate::millitokens(piece), 1, 1_000),
        }
    }

    /// Reads the vocabulary, which the first count does otherwise: for a thread on
    /// which nothing waits.
    pub fn warm(self) {
        let _ = self.count_piece("a");
    }
}

fn known(model: &str) -> Option<Tokenizer> {
    // The crate knows no o4 but its mini.
    if model.starts_with("o4") {
        return Some(Tokenizer::O200k);
    }
    get_tokenizer(model).map(|known| match known {
        Known::O200kBase | Known::O200kHarmony => Tokenizer::O200k,
        _ => Tokenizer::Cl100k,
    })
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// `n × by / of`, to the nearest; `n` where `of` is 0.
fn scale(n: u64, by: u64, of: u64) -> u64 {
    let product = u128::from(n).saturating_mul(u128::from(by));
    let half = u128::from(of / 2);
    product
        .saturating_add(half)
        .checked_div(u128::from(of))
        .map_or(n, |n| u64::try_from(n).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
