//! Usage objects: OpenAI's as `chat/completions`, `completions` and `embeddings`
//! report them, that of `responses`, Anthropic's (both API references, "usage"), and
//! what others who speak these dialects make of them. They are told apart by the
//! names of their members.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use weir_wire::usage::{MODEL_MAX_BYTES, TOKENS_MAX};

/// Tokens in disjoint counts: none is in two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenCounts {
    /// Input, but for sound, that no cache served and none took.
    pub input: u64,
    /// Input that the provider's cache served.
    pub cached_input: u64,
    /// Input that the provider wrote to its cache.
    pub cache_write: u64,
    /// Output, but for sound, that the client could see.
    pub output: u64,
    /// Output that the model spent on reasoning, where the provider counts it
    /// apart.
    pub reasoning: u64,
    /// Input of sound, where the provider counts it apart.
    pub audio_input: u64,
    /// Output of sound, where the provider counts it apart.
    pub audio_output: u64,
}

/// A model's name as an answer gives it, cut to [`MODEL_MAX_BYTES`].
#[must_use]
pub fn clip_model(mut name: String) -> String {
    name.truncate(name.floor_char_boundary(MODEL_MAX_BYTES));
    name
}

/// A usage object as any dialect has it.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Usage {
    prompt_tokens: Count,
    completion_tokens: Count,
    total_tokens: Count,
    #[serde(deserialize_with = "or_nothing")]
    prompt_tokens_details: Details,
    #[serde(deserialize_with = "or_nothing")]
    completion_tokens_details: Details,
    /// DeepSeek's name for the cached part.
    prompt_cache_hit_tokens: Count,
    /// Moonshot's.
    cached_tokens: Count,
    input_tokens: Count,
    output_tokens: Count,
    #[serde(deserialize_with = "or_nothing")]
    input_tokens_details: Details,
    /// The name that transcriptions use.
    #[serde(deserialize_with = "or_nothing")]
    input_token_details: Details,
    #[serde(deserialize_with = "or_nothing")]
    output_tokens_details: Details,
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
    #[serde(deserialize_with = "or_nothing")]
    cache_creation: CacheCreation,
}

/// Parts of a count.
#[derive(Deserialize, Default, Clone, Copy)]
#[serde(default)]
struct Details {
    cached_tokens: Count,
    /// OpenRouter's.
    cache_write_tokens: Count,
    audio_tokens: Count,
    reasoning_tokens: Count,
}

/// What Anthropic's cache took, by how long it is kept.
#[derive(Deserialize, Default)]
#[serde(default)]
struct CacheCreation {
    ephemeral_5m_input_tokens: Count,
    ephemeral_1h_input_tokens: Count,
}

/// One number of a usage object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Count {
    /// Not there, or null.
    #[default]
    Absent,
    Tokens(u64),
    /// A value that is no count: a fraction, a negative number, a string.
    Odd,
}

impl Count {
    /// The number, where there is one; none where the value is no count.
    fn read(self) -> Option<Option<u64>> {
        match self {
            Self::Absent => Some(None),
            Self::Tokens(tokens) => Some(Some(tokens)),
            Self::Odd => None,
        }
    }

    /// The number; a value that is no count says nothing.
    fn known(self) -> Option<u64> {
        self.read().flatten()
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Option::<&RawValue>::deserialize(deserializer)? {
            None => Self::Absent,
            Some(raw) => raw.get().parse().map_or(Self::Odd, Self::Tokens),
        })
    }
}

/// An object that is none of its kind says nothing, and does not hide the others.
fn or_nothing<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    let raw = Option::<&RawValue>::deserialize(deserializer)?;
    Ok(raw
        .and_then(|raw| serde_json::from_str(raw.get()).ok())
        .unwrap_or_default())
}

/// Reads a raw `usage` value. `None` where it is null, is no usage object, lacks
/// its count of input, or where a whole of input or output is no count or above
/// [`TOKENS_MAX`]; an explicit zero is a count. A part that is odd is none.
#[must_use]
pub fn parse_usage(raw: &[u8]) -> Option<TokenCounts> {
    parse_usage_after(raw, None)
}

/// The same of a stream that told some counts `earlier`: what a later usage
/// object lacks holds still (Anthropic's `message_delta` need not repeat what
/// `message_start` said).
///
/// OpenAI counts cached tokens and sound within the input, reasoning and sound
/// within the output; Anthropic counts what its cache served and took beside the
/// input. Here all are disjoint, and their sum is the provider's whole.
///
/// Gemini and xAI leave what a model thought out of `completion_tokens`, but not
/// out of `total_tokens`: what the total has beyond input and output is reasoning.
#[must_use]
pub fn parse_usage_after(raw: &[u8], earlier: Option<TokenCounts>) -> Option<TokenCounts> {
    let usage: Usage = serde_json::from_slice::<Option<Usage>>(raw).ok()??;
    let has_input = usage.all_input()?.is_some();
    let all_output = usage.all_output()?;
    if !has_input && (earlier.is_none() || all_output.is_none()) {
        return None;
    }
    let mut counts = earlier.unwrap_or_default();
    usage.set_input(&mut counts)?;
    let total = usage.total_tokens.known().filter(|_| has_input);
    let rest = total.map(|total| total.saturating_sub(all_input(&counts)));
    if let Some(whole) = all_output.max(rest) {
        let surplus = all_output.map_or(0, |output| whole.saturating_sub(output));
        usage.set_output(&mut counts, whole, surplus);
    }
    bounded(counts)
}

/// Reads llama.cpp's `timings`, which its answers have where they have no usage:
/// what was evaluated of the prompt, what of it the cache had, and what was
/// generated.
#[must_use]
pub fn parse_timings(raw: &[u8]) -> Option<TokenCounts> {
    #[derive(Deserialize)]
    struct Timings {
        prompt_n: u64,
        #[serde(default)]
        cache_n: Count,
        predicted_n: u64,
    }
    let timings: Timings = serde_json::from_slice(raw).ok()?;
    bounded(TokenCounts {
        input: timings.prompt_n,
        cached_input: timings.cache_n.known().unwrap_or(0),
        output: timings.predicted_n,
        ..TokenCounts::default()
    })
}

/// Reads the raw `prompt_eval_count` and `eval_count` of Ollama's own API.
#[must_use]
pub fn parse_eval_counts(prompt: &[u8], output: &[u8]) -> Option<TokenCounts> {
    bounded(TokenCounts {
        input: serde_json::from_slice(prompt).ok()?,
        output: serde_json::from_slice(output).ok()?,
        ..TokenCounts::default()
    })
}

fn bounded(counts: TokenCounts) -> Option<TokenCounts> {
    let wholes = [all_input(&counts), all_output(&counts)];
    let fits = wholes.iter().all(|whole| *whole <= TOKENS_MAX);
    fits.then_some(counts)
}

fn all_input(counts: &TokenCounts) -> u64 {
    let parts = [counts.cached_input, counts.cache_write, counts.audio_input];
    parts
        .iter()
        .fold(counts.input, |sum, n| sum.saturating_add(*n))
}

fn all_output(counts: &TokenCounts) -> u64 {
    let parts = [counts.reasoning, counts.audio_output];
    parts
        .iter()
        .fold(counts.output, |sum, n| sum.saturating_add(*n))
}

/// Takes a part off what is left of its whole: parts that overlap, or exceed it,
/// are clamped.
fn take(rest: &mut u64, part: u64) -> u64 {
    let part = part.min(*rest);
    *rest = rest.saturating_sub(part);
    part
}

impl Usage {
    fn all_input(&self) -> Option<Option<u64>> {
        Some(self.prompt_tokens.read()?.or(self.input_tokens.read()?))
    }

    fn all_output(&self) -> Option<Option<u64>> {
        Some(
            self.completion_tokens
                .read()?
                .or(self.output_tokens.read()?),
        )
    }

    /// Of several objects of details, the first that has that part.
    fn part<const N: usize>(details: [&Details; N], part: fn(&Details) -> Count) -> Option<u64> {
        details.into_iter().find_map(|d| part(d).known())
    }

    fn set_input(&self, counts: &mut TokenCounts) -> Option<()> {
        let details = [
            &self.prompt_tokens_details,
            &self.input_tokens_details,
            &self.input_token_details,
        ];
        let within = Self::part(details, |d| d.cached_tokens)
            .or(self.prompt_cache_hit_tokens.known())
            .or(self.cached_tokens.known());
        let write_within = Self::part(details, |d| d.cache_write_tokens);
        // Anthropic's names.
        let read = self.cache_read_input_tokens.read()?;
        let read = read.unwrap_or(counts.cached_input);
        let written = self.cache_creation_input_tokens.read()?;
        let written = written
            .or(self.cache_creation.all())
            .unwrap_or(counts.cache_write);
        let read = if within.is_some() { 0 } else { read };
        let written = if write_within.is_some() { 0 } else { written };

        let mut rest = self.all_input()?.unwrap_or(counts.input);
        let (mut beside_read, mut beside_written) = (read, written);
        // Some that use OpenAI's names tell Anthropic's beside them, of the same
        // tokens: unless they don't fit.
        if self.prompt_tokens.known().is_some() && read.saturating_add(written) <= rest {
            (beside_read, beside_written) = (take(&mut rest, read), take(&mut rest, written));
        }
        counts.cached_input = take(&mut rest, within.unwrap_or(0)).saturating_add(beside_read);
        counts.cache_write =
            take(&mut rest, write_within.unwrap_or(0)).saturating_add(beside_written);
        let audio = Self::part(details, |d| d.audio_tokens).unwrap_or(0);
        counts.audio_input = take(&mut rest, audio);
        counts.input = rest;
        Some(())
    }

    fn set_output(&self, counts: &mut TokenCounts, whole: u64, surplus: u64) {
        let details = [&self.completion_tokens_details, &self.output_tokens_details];
        let mut rest = whole;
        let audio = Self::part(details, |d| d.audio_tokens).unwrap_or(0);
        counts.audio_output = take(&mut rest, audio);
        let reasoning = Self::part(details, |d| d.reasoning_tokens).unwrap_or(surplus);
        counts.reasoning = take(&mut rest, reasoning);
        counts.output = rest;
    }
}

impl CacheCreation {
    fn all(&self) -> Option<u64> {
        let kept = [
            self.ephemeral_5m_input_tokens.known(),
            self.ephemeral_1h_input_tokens.known(),
        ];
        kept.into_iter().flatten().reduce(u64::saturating_add)
    }
}

/// A chunk of a stream, as far as it is asked whether it is the one with the usage.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(rename = "choices")]
    _choices: [(); 0],
    #[serde(borrow)]
    usage: &'a RawValue,
}

/// Whether an event's data is the chunk that a stream of `chat/completions` ends
/// with where `stream_options.include_usage` is set: its `choices` are empty, and
/// its `usage` is an object.
#[must_use]
pub fn is_usage_alone(data: &[u8]) -> bool {
    // Few chunks have it, but for `"usage":null`, and a parser is dearer than a look.
    memchr::memmem::find(data, b"\"usage\"").is_some()
        && serde_json::from_slice::<Chunk<'_>>(data)
            .is_ok_and(|chunk| chunk.usage.get().starts_with('{'))
}

#[cfg(test)]
mod tests;
