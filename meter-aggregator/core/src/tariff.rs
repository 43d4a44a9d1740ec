//! Which meter counts what: by dimension, and by the model that served.

use std::collections::{BTreeMap, BTreeSet};

use crate::meter::{Dimension, Meter, Tier};

/// What the operator bills, as configured.
#[derive(Debug, Clone, Default)]
pub struct Tariff {
    meters: BTreeSet<Meter>,
    tiers: BTreeMap<String, Tier>,
}

impl Tariff {
    /// Bills on these meters; `tiers` says which model is of which tier, the others
    /// are of none.
    #[must_use]
    pub fn new(
        meters: impl IntoIterator<Item = Meter>,
        tiers: impl IntoIterator<Item = (String, Tier)>,
    ) -> Self {
        Self {
            meters: meters.into_iter().collect(),
            tiers: tiers.into_iter().collect(),
        }
    }

    /// Whether there is such a meter.
    #[must_use]
    pub fn has(&self, meter: &Meter) -> bool {
        self.meters.contains(meter)
    }

    /// The meter that counts this of that model: its tier's where there is one, else
    /// that of all models. What caches served counts as input where no meter has it
    /// apart. What nothing counts is kept on the dimension's own meter, unbilled.
    #[must_use]
    pub fn meter(&self, dimension: Dimension, model: &str) -> Meter {
        let tier = self.tiers.get(model);
        let dimensions = match dimension {
            Dimension::CachedInputTokens => &[dimension, Dimension::InputTokens][..],
            _ => &[dimension],
        };
        for dimension in dimensions {
            for tier in [tier.cloned(), None] {
                let meter = Meter {
                    dimension: *dimension,
                    tier,
                };
                if self.meters.contains(&meter) {
                    return meter;
                }
            }
        }
        Meter::of(dimension)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_models_tier_decides_where_it_has_a_meter() {
        let premium = Tier::new("premium").unwrap();
        let tiers = [("big".to_owned(), premium)];
        let meters = |names: &[&str]| {
            let meters: Vec<Meter> = names.iter().map(|n| Meter::parse(n).unwrap()).collect();
            Tariff::new(meters, tiers.clone())
        };
        let (cached, input) = (Dimension::CachedInputTokens, Dimension::InputTokens);
        for (names, dimension, model, expected) in [
            (
                &["input_tokens", "input_tokens.premium"][..],
                input,
                "big",
                "input_tokens.premium",
            ),
            (
                &["input_tokens", "input_tokens.premium"],
                input,
                "small",
                "input_tokens",
            ),
            (
                &["input_tokens", "input_tokens.premium"],
                cached,
                "big",
                "input_tokens.premium",
            ),
            (
                &["input_tokens", "cached_input_tokens"],
                cached,
                "big",
                "cached_input_tokens",
            ),
            (&["input_tokens"], cached, "big", "input_tokens"),
            (
                &["input_tokens"],
                Dimension::StorageMbHours,
                "",
                "storage_mb_hours",
            ),
            (&[], cached, "big", "cached_input_tokens"),
        ] {
            assert_eq!(meters(names).meter(dimension, model).to_string(), expected);
        }
    }
}
