//! How many gateways share what a tenant may do.

use std::collections::HashMap;

/// A gateway that has not asked for that long counts no more, in milliseconds.
const SEEN_MS: u64 = 10_000;

/// More than that many are counted as that many.
const GATEWAYS_MAX: usize = 256;

/// The gateways that asked lately. What each is granted leaves something for the
/// others, so a number that is wrong for a while costs calls and no more.
#[derive(Debug, Clone, Default)]
pub struct Gateways(HashMap<u64, u64>);

impl Gateways {
    /// Notes that this one asked; says how many there are, at least 1.
    pub fn seen(&mut self, gateway: u64, now_ms: u64) -> u32 {
        self.0
            .retain(|_, seen_ms| now_ms.saturating_sub(*seen_ms) < SEEN_MS);
        if self.0.len() < GATEWAYS_MAX {
            self.0.insert(gateway, now_ms);
        }
        u32::try_from(self.0.len()).unwrap_or(1).max(1)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn those_count_that_asked_lately() {
        let mut gateways = Gateways::default();
        assert_eq!(gateways.seen(1, 0), 1);
        assert_eq!(gateways.seen(2, 5_000), 2);
        assert_eq!(gateways.seen(1, 9_000), 2);
        assert_eq!(gateways.seen(3, 16_000), 2, "the second is gone");
        assert_eq!(gateways.seen(3, 20_000), 1, "the first, too");
        for gateway in 0..2_000 {
            gateways.seen(gateway, 20_000);
        }
        assert_eq!(gateways.seen(5_000, 20_000), 256);
    }
}
