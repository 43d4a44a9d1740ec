//! Remembers what tokens were found to be, so that a token that comes with each
//! request costs one hash and not one signature check.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hasher as _,
};

use siphasher::sip128::{Hasher128 as _, SipHasher24};

use super::{Claimed, Refused, TOKEN_MAX_BYTES};

/// How long a refusal is remembered, in milliseconds.
const REFUSED_MS: u64 = 60_000;

/// What an entry takes beside the names in it, about: twice its key, itself,
/// and the table's and the ring's own room.
const ENTRY_BYTES: usize = 192;

/// The name of a token in the cache.
type Name = [u8; 16];

/// Outcomes by SipHash-2-4-128 of the token (Aumasson and Bernstein, 2012) under a
/// key of the worker's own; a token itself is never kept. Whoever has not the key
/// makes no token with the name of another, and it costs a twentieth of SHA-256,
/// which a token of 700 bytes would pay on every request.
///
/// Genuine tokens and refused ones have a half each: a flood of forged tokens
/// forgets no genuine one.
#[derive(Debug)]
pub struct VerifiedCache {
    hasher: SipHasher24,
    verified: Half<Claimed>,
    refused: Half<Refused>,
    hits: u64,
    misses: u64,
}

#[derive(Debug)]
struct Half<T> {
    entries: HashMap<Name, Entry<T>>,
    /// The keys of all entries, each once, the next to go first.
    ring: VecDeque<Name>,
    bytes: usize,
    max_entries: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct Entry<T> {
    value: T,
    until_ms: u64,
    origin: usize,
    generation: u32,
    bytes: usize,
    /// Whether it was found since the ring last came past it.
    is_used: bool,
}

impl VerifiedCache {
    /// At most so many entries and about so many bytes, shared in halves by
    /// genuine and refused tokens. `key` must be secret.
    #[must_use]
    pub fn new(max_entries: usize, max_bytes: usize, key: &[u8; 16]) -> Self {
        let (entries, bytes) = (max_entries.div_ceil(2), max_bytes.div_ceil(2));
        Self {
            hasher: SipHasher24::new_with_key(key),
            verified: Half::new(entries, bytes),
            refused: Half::new(entries, bytes),
            hits: 0,
            misses: 0,
        }
    }

    /// What was found for that token, if it still holds at `wall_ms`
    /// (milliseconds of the Unix epoch) and its issuer's keys are those of then:
    /// `generation` is [`super::Issuers::generation`].
    pub fn get(
        &mut self,
        token: &[u8],
        wall_ms: u64,
        generation: impl Fn(usize) -> u32,
    ) -> Option<Result<Claimed, Refused>> {
        let found = self.name(token).and_then(|key| {
            if let Some(claimed) = self.verified.get(&key, wall_ms, &generation) {
                return Some(Ok(claimed.clone()));
            }
            let refused = self.refused.get(&key, wall_ms, &generation)?;
            Some(Err(*refused))
        });
        let counter = match found {
            Some(_) => &mut self.hits,
            None => &mut self.misses,
        };
        *counter = counter.saturating_add(1);
        found
    }

    /// Remembers what a token of issuer `origin` was found to be under the keys
    /// of `generation`: a genuine one until it expires, a refused one for a
    /// minute. What would be refused for nothing, or could be valid soon, is
    /// not kept.
    pub fn put(
        &mut self,
        token: &[u8],
        origin: usize,
        outcome: &Result<Claimed, Refused>,
        wall_ms: u64,
        generation: u32,
    ) {
        let Some(key) = self.name(token) else {
            return;
        };
        match outcome {
            Ok(claimed) if claimed.expires_at_ms > wall_ms => {
                let plan = claimed.plan.as_ref().map_or("", |p| p.as_str());
                let names = claimed.tenant.as_str().len().saturating_add(plan.len());
                self.verified.put(
                    key,
                    Entry {
                        value: claimed.clone(),
                        until_ms: claimed.expires_at_ms,
                        origin,
                        generation,
                        bytes: names.saturating_add(ENTRY_BYTES),
                        is_used: false,
                    },
                );
            }
            Err(refused) if refused.reason.is_worth_caching() => {
                self.refused.put(
                    key,
                    Entry {
                        value: *refused,
                        until_ms: wall_ms.saturating_add(REFUSED_MS),
                        origin,
                        generation,
                        bytes: ENTRY_BYTES,
                        is_used: false,
                    },
                );
            }
            _ => {}
        }
    }

    /// How often a token was known.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits
    }

    /// How often it was not.
    #[must_use]
    pub fn misses(&self) -> u64 {
        self.misses
    }

    /// Nothing for a token that is refused for its length: hashing it would be the
    /// dearest part.
    fn name(&self, token: &[u8]) -> Option<Name> {
        (token.len() <= TOKEN_MAX_BYTES).then(|| {
            let mut hasher = self.hasher;
            hasher.write(token);
            hasher.finish128().as_bytes()
        })
    }

    /// How many tokens are remembered: genuine ones, refused ones.
    #[must_use]
    pub fn lens(&self) -> (usize, usize) {
        (self.verified.ring.len(), self.refused.ring.len())
    }

    /// How many bytes they take, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.verified.bytes.saturating_add(self.refused.bytes)
    }
}

impl<T> Half<T> {
    fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self {
            entries: HashMap::new(),
            ring: VecDeque::new(),
            bytes: 0,
            max_entries,
            max_bytes,
        }
    }

    fn get(&mut self, key: &Name, wall_ms: u64, generation: impl Fn(usize) -> u32) -> Option<&T> {
        let entry = self.entries.get_mut(key)?;
        if wall_ms >= entry.until_ms || entry.generation != generation(entry.origin) {
            // It goes when the ring comes past it, or is replaced before.
            entry.is_used = false;
            return None;
        }
        entry.is_used = true;
        Some(&entry.value)
    }

    fn put(&mut self, key: Name, entry: Entry<T>) {
        if entry.bytes > self.max_bytes || self.max_entries == 0 {
            return;
        }
        self.bytes = self.bytes.saturating_add(entry.bytes);
        match self.entries.insert(key, entry) {
            Some(old) => self.bytes = self.bytes.saturating_sub(old.bytes),
            None => self.ring.push_back(key),
        }
        while self.ring.len() > self.max_entries || self.bytes > self.max_bytes {
            if !self.pass() {
                break;
            }
        }
    }

    /// The ring moves by one: what was used stays for another round, what was
    /// not goes. Each use pays for one such round.
    fn pass(&mut self) -> bool {
        let Some(key) = self.ring.pop_front() else {
            return false;
        };
        match self.entries.get_mut(&key) {
            Some(entry) if entry.is_used => {
                entry.is_used = false;
                self.ring.push_back(key);
            }
            _ => {
                if let Some(gone) = self.entries.remove(&key) {
                    self.bytes = self.bytes.saturating_sub(gone.bytes);
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;
    use weir_wire::ids::TenantId;

    use super::*;
    use crate::jwt::Reason;

    fn claimed(tenant: &str, expires_at_ms: u64) -> Result<Claimed, Refused> {
        Ok(Claimed {
            tenant: TenantId::new(tenant).unwrap(),
            plan: None,
            expires_at_ms,
            issuer: 0,
        })
    }

    fn refused(reason: Reason) -> Result<Claimed, Refused> {
        let issuer = Some(0);
        Err(Refused { reason, issuer })
    }

    #[track_caller]
    fn check_kept(outcome: &Result<Claimed, Refused>, wall_ms: u64, generation: u32, kept: bool) {
        let mut cache = VerifiedCache::new(10, 10_000, &[7; 16]);
        cache.put(b"t", 3, outcome, 1_000, 7);
        let found = cache.get(b"t", wall_ms, |i| if i == 3 { generation } else { 99 });
        assert_eq!(found, kept.then(|| outcome.clone()), "{outcome:?}");
        assert_eq!(
            (cache.hits(), cache.misses()),
            (kept.into(), (!kept).into())
        );
        assert!(cache.get(b"T", wall_ms, |_| generation).is_none());
    }

    #[test]
    fn what_holds_is_kept_as_long_as_it_holds() {
        check_kept(&claimed("a", 5_000), 4_999, 7, true);
        check_kept(&claimed("a", 5_000), 5_000, 7, false);
        check_kept(&claimed("a", 5_000), 4_999, 8, false);
        check_kept(&claimed("a", 1_000), 1_000, 7, false);
        check_kept(&refused(Reason::Signature), 60_999, 7, true);
        check_kept(&refused(Reason::Signature), 61_000, 7, false);
        check_kept(&refused(Reason::Signature), 2_000, 8, false);
        for reason in Reason::ALL {
            let kept = [Reason::Signature, Reason::TenantClaim, Reason::PlanClaim];
            check_kept(&refused(reason), 2_000, 7, kept.contains(&reason));
        }
    }

    #[test]
    fn a_flood_of_forged_tokens_forgets_no_genuine_one() {
        let mut cache = VerifiedCache::new(20, 100_000, &[7; 16]);
        for n in 0..10_u8 {
            cache.put(&[n], 0, &claimed("a", 9_000), 0, 0);
        }
        for n in 0..10_000_u32 {
            cache.put(&n.to_be_bytes(), 0, &refused(Reason::Signature), 0, 0);
        }
        assert_eq!(cache.lens(), (10, 10));
        for n in 0..10_u8 {
            assert!(cache.get(&[n], 1, |_| 0).is_some(), "{n}");
        }
    }

    #[test]
    fn what_is_used_outlives_what_is_not() {
        let mut cache = VerifiedCache::new(8, 100_000, &[7; 16]);
        for n in 0..100_u8 {
            cache.put(&[n], 0, &claimed("a", 9_000), 0, 0);
            assert!(cache.get(&[0], 1, |_| 0).is_some(), "after {n}");
        }
        assert_eq!(cache.lens(), (4, 0));
        assert!(cache.get(&[5], 1, |_| 0).is_none());
    }

    #[test]
    fn a_token_that_is_too_long_is_not_even_hashed() {
        let mut cache = VerifiedCache::new(8, 100_000, &[7; 16]);
        let long = vec![b'a'; TOKEN_MAX_BYTES + 1];
        cache.put(&long, 0, &claimed("a", 9_000), 0, 0);
        assert_eq!(cache.lens(), (0, 0));
        assert_eq!(cache.get(&long, 1, |_| 0), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn bounds_hold_whatever_comes(
            max_entries in 0_usize..12, max_bytes in 0_usize..3_000,
            steps in prop::collection::vec((any::<u8>(), any::<bool>(), any::<bool>(), 1_usize..64), 0..200),
        ) {
            let mut cache = VerifiedCache::new(max_entries, max_bytes, &[7; 16]);
            for (token, is_put, is_genuine, length) in steps {
                if is_put {
                    let outcome = if is_genuine {
                        claimed(&"a".repeat(length), 9_000)
                    } else {
                        refused(Reason::Signature)
                    };
                    cache.put(&[token], 0, &outcome, 0, 0);
                } else {
                    let _ = cache.get(&[token], 1, |_| 0);
                }
                let (verified, refused) = cache.lens();
                prop_assert!(verified <= max_entries.div_ceil(2));
                prop_assert!(refused <= max_entries.div_ceil(2));
                prop_assert!(cache.bytes() <= max_bytes.div_ceil(2) * 2);
                prop_assert_eq!(cache.verified.entries.len(), verified);
                prop_assert_eq!(cache.refused.entries.len(), refused);
                let sum: usize = cache.verified.entries.values().map(|e| e.bytes).sum();
                prop_assert_eq!(cache.verified.bytes, sum);
            }
        }
    }
}
