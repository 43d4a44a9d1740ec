//! Which request ids were used already: a signed context is good for one use.

use std::collections::HashSet;

use weir_wire::{
    context::{LIFETIME_MS, SKEW_MS},
    ids::RequestId,
};

/// How long an id must be remembered: as long as its context could be good.
const REMEMBER_MS: i64 = LIFETIME_MS + SKEW_MS;

/// Whether an id may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It is the first time.
    First,
    /// It was used before.
    Again,
    /// No more ids can be remembered just now.
    Full,
}

/// The ids of the last while, in two generations: memory is bounded, and an id
/// is forgotten after one to two times its context's life.
#[derive(Debug)]
pub struct UsedOnce {
    young: HashSet<u128>,
    old: HashSet<u128>,
    generation_max: usize,
    since_ms: i64,
}

impl UsedOnce {
    /// Remembers up to twice `generation_max` ids, about 32 bytes each.
    #[must_use]
    pub fn new(generation_max: usize) -> Self {
        Self {
            young: HashSet::new(),
            old: HashSet::new(),
            generation_max,
            since_ms: i64::MIN,
        }
    }

    /// Uses an id at `now_ms`, milliseconds of the Unix epoch.
    pub fn use_id(&mut self, id: RequestId, now_ms: i64) -> Use {
        let age_ms = now_ms.saturating_sub(self.since_ms);
        if age_ms > REMEMBER_MS {
            self.old = std::mem::take(&mut self.young);
            if age_ms > REMEMBER_MS.saturating_mul(2) {
                self.old.clear();
            }
            self.since_ms = now_ms;
        }
        let id = id.as_u128();
        if self.old.contains(&id) || self.young.contains(&id) {
            return Use::Again;
        }
        if self.young.len() >= self.generation_max {
            return Use::Full;
        }
        self.young.insert(id);
        Use::First
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn id(n: u64) -> RequestId {
        RequestId::mint(n, [0; 10])
    }

    #[test]
    fn memory_is_bounded() {
        let mut used = UsedOnce::new(2);
        assert_eq!(used.use_id(id(1), 0), Use::First);
        assert_eq!(used.use_id(id(2), 0), Use::First);
        assert_eq!(used.use_id(id(3), 0), Use::Full);
        assert_eq!(used.use_id(id(1), 0), Use::Again);
        assert_eq!(used.use_id(id(3), REMEMBER_MS + 1), Use::First);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_id_is_used_twice_while_its_context_is_good(
            uses in prop::collection::vec((0u64..5, 0i64..40_000), 1..100),
        ) {
            let mut used = UsedOnce::new(1_000);
            let mut last: std::collections::HashMap<u64, i64> = std::collections::HashMap::new();
            let mut now = 1_000_000;
            for (n, gap) in uses {
                now += gap;
                let outcome = used.use_id(id(n), now);
                match last.get(&n) {
                    Some(first) if now - first <= REMEMBER_MS => prop_assert_eq!(outcome, Use::Again),
                    None => prop_assert_eq!(outcome, Use::First),
                    Some(_) => {}
                }
                if outcome == Use::First {
                    last.insert(n, now);
                }
            }
        }
    }
}
