//! A pseudo-tokenizer: nobody's real one, but deterministic, lossless and dependent on the content.

use crate::ids;

/// How many bytes of a word decide where it is split; bounds the work on a long one.
const LOOK: usize = 8;

/// How many tokens `text` has: at most its length in bytes, 0 only if it is empty.
#[must_use]
pub fn count(text: &str) -> u64 {
    u64::try_from(split(text).count()).unwrap_or(u64::MAX)
}

/// The tokens of `text`, which joined give `text` again.
///
/// A token is a piece of three to six ASCII letters or digits, with the space
/// before it if there is one; any other character is one by itself.
pub(crate) fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let body = rest.strip_prefix(' ').unwrap_or(rest);
        let word = body
            .bytes()
            .take(LOOK)
            .take_while(u8::is_ascii_alphanumeric)
            .count();
        let length = if word == 0 {
            first.len_utf8()
        } else {
            let seed = ids::hash(body.as_bytes().get(..word).unwrap_or_default());
            let piece = usize::try_from(ids::Mixer::new(seed).below(4))
                .unwrap_or(0)
                .saturating_add(3);
            rest.len()
                .saturating_sub(body.len())
                .saturating_add(word.min(piece))
        };
        let (token, after) = rest.split_at_checked(length)?;
        rest = after;
        Some(token)
    })
}
