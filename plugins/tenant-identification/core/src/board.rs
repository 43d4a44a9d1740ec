//! Data that all workers of a gateway share, and numbers in it.

/// What the host keeps under a key for all its workers.
pub trait Board {
    /// The value of a key.
    fn read(&self, key: &str) -> Option<Vec<u8>>;

    /// Lets `decide` see the value of a key and say what to put in its place, if
    /// anything; again where another worker came between. `None` where nothing
    /// was written that should have been.
    fn change<T>(
        &self,
        key: &str,
        decide: impl FnMut(Option<&[u8]>) -> (T, Option<Vec<u8>>),
    ) -> Option<T>;
}

/// The bytes of one number.
pub(crate) const WORD_BYTES: usize = 8;

/// The first `N` numbers, little end first, and what follows them; `None` where
/// there are fewer.
pub(crate) fn read_words<const N: usize>(bytes: &[u8]) -> Option<([u64; N], &[u8])> {
    let mut words = [0; N];
    let mut rest = bytes;
    for word in &mut words {
        let (first, after) = rest.split_first_chunk()?;
        (*word, rest) = (u64::from_le_bytes(*first), after);
    }
    Some((words, rest))
}

/// The bytes of numbers, the reverse of [`read_words`].
pub(crate) fn words<const N: usize>(words: [u64; N]) -> impl Iterator<Item = u8> {
    words.into_iter().flat_map(u64::to_le_bytes)
}

/// A time that may not have been; 0 where it has not.
pub(crate) fn time_word(at_ms: Option<u64>) -> u64 {
    at_ms.map_or(0, |at_ms| at_ms.saturating_add(1))
}

/// The reverse of [`time_word`].
pub(crate) fn word_time(word: u64) -> Option<u64> {
    word.checked_sub(1)
}
