//! Remembers what keys hash to: SHA-256 of a key is a tenth of what the filter
//! costs, and a key comes with every request.

use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher24};
use weir_wire::key_hash::KeyHash;

/// Places for keys, 48 bytes each. A key that another pushed out is hashed again.
const PLACES: usize = 0x400;

/// A place's number, of a name.
const PLACE: u128 = 0x3ff;

/// The hashes of keys that came before, known and unknown ones alike, by
/// SipHash-2-4-128 of the key (Aumasson and Bernstein, 2012) under a key of the
/// worker's own; a key itself is never kept. Whoever has not the worker's key
/// makes no key with the name of another.
#[derive(Debug)]
pub struct KeyHashes {
    hasher: SipHasher24,
    places: Box<[Option<(u128, KeyHash)>]>,
}

impl KeyHashes {
    /// With none known. `secret` names the keys.
    #[must_use]
    pub fn new(secret: &[u8; 16]) -> Self {
        Self {
            hasher: SipHasher24::new_with_key(secret),
            places: vec![None; PLACES].into(),
        }
    }

    /// The hash of a key as a client sent it.
    pub fn of(&mut self, key: &[u8]) -> KeyHash {
        let mut hasher = self.hasher;
        hasher.write(key);
        let name = hasher.finish128().as_u128();
        let place = usize::try_from(name & PLACE)
            .ok()
            .and_then(|place| self.places.get_mut(place));
        match place {
            Some(Some((known, hash))) if *known == name => *hash,
            Some(place) => place.insert((name, KeyHash::of(key))).1,
            None => KeyHash::of(key),
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_key_hashes_to_the_same_remembered_pushed_out_and_anew() {
        let mut hashes = KeyHashes::new(&[7; 16]);
        let keys: Vec<String> = (0..3 * PLACES).map(|i| format!("sk-{i}")).collect();
        for key in keys.iter().chain(keys.iter()).chain(keys.iter().rev()) {
            assert_eq!(hashes.of(key.as_bytes()), KeyHash::of(key.as_bytes()));
            assert_eq!(hashes.of(key.as_bytes()), KeyHash::of(key.as_bytes()));
        }
        assert!(hashes.places.iter().flatten().count() > PLACES / 2);
    }
}
