//! Random identifiers and the one hash on which everything deterministic rests.

use std::time::{SystemTime, UNIX_EPOCH};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// `prefix` and `length` random letters and digits.
pub(crate) fn random(prefix: &str, length: usize) -> String {
    let mut id = String::with_capacity(prefix.len().saturating_add(length));
    id.push_str(prefix);
    id.extend(random_bytes(length).into_iter().map(letter));
    id
}

/// `prefix` and `length` random lower-case hexadecimal digits.
pub(crate) fn random_hex(prefix: &str, length: usize) -> String {
    let mut id = prefix.to_owned();
    id.extend(
        random_bytes(length)
            .into_iter()
            .filter_map(|b| char::from_digit(u32::from(b & 15), 16)),
    );
    id
}

/// `prefix` and 22 characters that depend on `seed` alone.
pub(crate) fn derived(prefix: &str, seed: &str) -> String {
    let mut mixer = Mixer::new(hash(seed.as_bytes()));
    let mut id = prefix.to_owned();
    id.extend((0..22).map(|_| letter(mixer.next().to_le_bytes().first().copied().unwrap_or(0))));
    id
}

fn letter(byte: u8) -> char {
    let index = usize::from(byte).checked_rem(ALPHABET.len()).unwrap_or(0);
    ALPHABET.get(index).map_or('0', |b| char::from(*b))
}

fn random_bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    if getrandom::fill(&mut bytes).is_err() {
        // No entropy source: the process and the clock still keep ids apart.
        let mut mixer = Mixer::new(u64::from(std::process::id()) ^ now_ms());
        bytes
            .iter_mut()
            .for_each(|b| *b = mixer.below(256).to_le_bytes()[0]);
    }
    bytes
}

/// FNV-1a, 64 bits: small, and the same on every machine and in every release.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A deterministic sequence of numbers (SplitMix64).
pub(crate) struct Mixer(u64);

impl Mixer {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 where the bound is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }
}

/// Milliseconds since 1970, UTC.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Seconds since 1970, UTC.
pub(crate) fn now_s() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
