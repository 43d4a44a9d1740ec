//! What tokens come to, exactly, and what they can come to at the most.

use serde::Deserialize;

use crate::Markup;

/// Prices are for so many tokens.
const PRICED_TOKENS: u128 = 1_000_000;

/// What a model costs, in micro-dollars for a million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// Input that no cache served and none took.
    pub input: u64,
    /// Input that the provider's cache served; as `input` where absent.
    pub cached_input: Option<u64>,
    /// Input that the provider wrote to its cache; as `input` where absent.
    pub cache_write: Option<u64>,
    /// Output, that of reasoning included.
    pub output: u64,
}

/// Tokens in disjoint counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    /// Input that no cache served and none took.
    pub input: u64,
    /// Input that the provider's cache served.
    pub cached_input: u64,
    /// Input that the provider wrote to its cache.
    pub cache_write: u64,
    /// Output, that of reasoning included.
    pub output: u64,
}

/// What one attempt comes to, in micro-dollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Charge {
    /// What its provider charges us.
    pub cost: u64,
    /// What the tenant pays.
    pub price: u64,
}

/// What so many tokens come to: Σ tokens × price / 1,000,000, and that times the
/// markup, each rounded up once to a whole micro-dollar. What passes `u64` is its
/// largest.
#[must_use]
pub fn charge(prices: &Prices, markup: Markup, tokens: Tokens) -> Charge {
    of(
        markup,
        [
            (tokens.input, prices.input),
            (
                tokens.cached_input,
                prices.cached_input.unwrap_or(prices.input),
            ),
            (
                tokens.cache_write,
                prices.cache_write.unwrap_or(prices.input),
            ),
            (tokens.output, prices.output),
        ],
    )
}

/// The most that a call can come to: all of its input at the dearest price of
/// input, and so many tokens of output.
#[must_use]
pub fn upper_bound(prices: &Prices, markup: Markup, input: u64, output: u64) -> Charge {
    let dearest = prices
        .input
        .max(prices.cached_input.unwrap_or(0))
        .max(prices.cache_write.unwrap_or(0));
    of(markup, [(input, dearest), (output, prices.output)])
}

fn of<const N: usize>(markup: Markup, parts: [(u64, u64); N]) -> Charge {
    let sum = parts.iter().fold(0_u128, |sum, (tokens, price)| {
        sum.saturating_add(u128::from(*tokens).saturating_mul(u128::from(*price)))
    });
    let marked_up = sum.saturating_mul(markup.millionths().into());
    let whole = |n: u128, divisor: u128| u64::try_from(n.div_ceil(divisor)).unwrap_or(u64::MAX);
    Charge {
        cost: whole(sum, PRICED_TOKENS),
        price: whole(marked_up, PRICED_TOKENS.saturating_mul(PRICED_TOKENS)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rust_decimal::Decimal;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn markup(text: &str) -> Markup {
        Markup::new(text.parse().unwrap()).unwrap()
    }

    fn check_charge(tokens: [u64; 4], prices: [u64; 4], by: &str, expected: (u64, u64)) {
        let [input, cached_input, cache_write, output] = tokens;
        let tokens = Tokens {
            input,
            cached_input,
            cache_write,
            output,
        };
        let prices = Prices {
            input: prices[0],
            cached_input: Some(prices[1]),
            cache_write: Some(prices[2]),
            output: prices[3],
        };
        let charge = charge(&prices, markup(by), tokens);
        assert_eq!((charge.cost, charge.price), expected, "{tokens:?} {by}");
    }

    #[test]
    fn what_tokens_come_to_is_rounded_up_once() {
        let prices = [3_000_000, 300_000, 3_750_000, 15_000_000];
        check_charge([0; 4], prices, "1", (0, 0));
        check_charge([1_000_000, 0, 0, 0], prices, "1", (3_000_000, 3_000_000));
        check_charge([10, 10, 10, 10], prices, "1", (221, 221)); // 30 + 3 + 37.5 + 150
        check_charge([0, 1, 0, 0], prices, "1", (1, 1)); // 0.3
        check_charge([0, 1, 0, 0], prices, "3.333333", (1, 1)); // 0.9999999
        check_charge([0, 1, 0, 0], prices, "3.333334", (1, 2)); // 1.0000002
        check_charge([0, 3, 2, 0], prices, "1", (9, 9)); // 0.9 + 7.5, once
        check_charge([100, 0, 0, 0], prices, "0", (300, 0));
        check_charge([100, 0, 0, 0], prices, "1000", (300, 300_000));
        check_charge([100, 0, 0, 0], prices, "1.25", (300, 375));
    }

    #[test]
    fn a_price_that_is_not_told_is_that_of_input() {
        let prices = Prices {
            input: 7_000_000,
            cached_input: None,
            cache_write: None,
            output: 0,
        };
        let tokens = Tokens {
            cached_input: 3,
            cache_write: 2,
            ..Tokens::default()
        };
        assert_eq!(charge(&prices, Markup::default(), tokens).cost, 35);
        assert_eq!(upper_bound(&prices, Markup::default(), 5, 9).cost, 35);
    }

    #[test]
    fn what_passes_all_bounds_is_the_largest() {
        check_charge([u64::MAX; 4], [u64::MAX; 4], "1000", (u64::MAX, u64::MAX));
    }

    prop_compose! {
        fn any_prices()(
            input in 0..=10_000_000_000_u64,
            cached_input in prop::option::of(0..=10_000_000_000_u64),
            cache_write in prop::option::of(0..=10_000_000_000_u64),
            output in 0..=10_000_000_000_u64,
        ) -> Prices {
            Prices { input, cached_input, cache_write, output }
        }
    }

    fn any_markup() -> impl Strategy<Value = Markup> {
        (0..=1_000_000_000_i64).prop_map(|n| Markup::new(Decimal::new(n, 6)).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_call_comes_to_more_than_its_bound(
            prices in any_prices(),
            markup in any_markup(),
            counts in prop::array::uniform4(0..=1_000_000_000_u64),
            more in 0..=1_000_u64,
        ) {
            let [input, cached_input, cache_write, output] = counts;
            let tokens = Tokens { input, cached_input, cache_write, output };
            let charged = charge(&prices, markup, tokens);
            let all = input + cached_input + cache_write;
            let bound = upper_bound(&prices, markup, all, output);
            prop_assert!(charged.cost <= bound.cost && charged.price <= bound.price);
            // More tokens never come to less.
            let wider = upper_bound(&prices, markup, all + more, output + more);
            prop_assert!(bound.cost <= wider.cost && bound.price <= wider.price);
            let dearer = Tokens { output: output + more, ..tokens };
            prop_assert!(charged.price <= charge(&prices, markup, dearer).price);
        }

        #[test]
        fn it_is_the_exact_sum_rounded_up(
            prices in any_prices(),
            markup in any_markup(),
            counts in prop::array::uniform4(0..=1_000_000_u64),
        ) {
            let [input, cached_input, cache_write, output] = counts;
            let tokens = Tokens { input, cached_input, cache_write, output };
            let charged = charge(&prices, markup, tokens);
            let of = |n: u64, price: u64| Decimal::from(n) * Decimal::from(price);
            let sum = of(input, prices.input)
                + of(cached_input, prices.cached_input.unwrap_or(prices.input))
                + of(cache_write, prices.cache_write.unwrap_or(prices.input))
                + of(output, prices.output);
            let cost = sum / Decimal::from(1_000_000);
            prop_assert_eq!(Decimal::from(charged.cost), cost.ceil());
            let price = u128::from(charged.price) * 1_000_000_000_000;
            let exact = u128::try_from(sum).unwrap() * u128::from(markup.millionths());
            prop_assert!(price >= exact && price < exact + 1_000_000_000_000);
        }
    }
}
