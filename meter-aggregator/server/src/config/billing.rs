//! What is billed and when: the parts `billing`, `tiers` and the names of the meters.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::bail;
use serde::Deserialize;
use weir_meter_core::{
    ledger::book::Rules,
    meter::{Dimension, Meter, Tier},
    policy::Policy,
    tariff::Tariff,
};

/// How long is waited for what, where it is not as usual ([`Policy`]).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BillingFile {
    /// How long a request with one witness waits for the other.
    wait_s: Option<u32>,
    /// How long an hour must be over before it is told Stripe.
    grace_s: Option<u32>,
    /// After how many hours a change of an hour needs an operator's word.
    final_h: Option<u32>,
    /// How long after the last attempt Stripe's sums are believed.
    settle_s: Option<u32>,
    /// How far apart two equal readings of a sum must be.
    reread_s: Option<u32>,
    /// How long the same identifier is sent again.
    same_identifier_s: Option<u32>,
}

/// Models that are billed alike.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierFile {
    models: Vec<String>,
}

/// What is billed and when.
#[derive(Debug, Clone, Default)]
pub struct Billing {
    pub policy: Arc<Policy>,
    pub tariff: Arc<Tariff>,
}

impl Billing {
    /// As booking wants it.
    pub fn rules(&self) -> Rules<'_> {
        Rules {
            tariff: &self.tariff,
            policy: &self.policy,
        }
    }
}

/// The meters that must be configured.
const REQUIRED: [Dimension; 3] = [
    Dimension::ApiCalls,
    Dimension::InputTokens,
    Dimension::OutputTokens,
];

/// The latest that Stripe takes something under its own hour, less a day: 34 days.
const FINAL_MAX_H: u32 = 34 * 24;

const DAY_S: u32 = 86_400;

/// Stripe knows an identifier for 24 hours; two are for clocks.
const SAME_IDENTIFIER_MAX_S: u32 = 22 * 3_600;

/// Checks all of it; the message names the field. `two_witnesses` says whether a gateway
/// and a router tell of each request.
pub fn validate(
    file: &BillingFile,
    tiers: &BTreeMap<String, TierFile>,
    meters: &BTreeMap<Meter, String>,
    two_witnesses: bool,
) -> anyhow::Result<Billing> {
    for dimension in REQUIRED {
        if !meters.contains_key(&Meter::of(dimension)) {
            bail!("stripe.meters.{}: is missing", dimension.as_str());
        }
    }
    let models = models(tiers)?;
    for meter in meters.keys() {
        if let Some(tier) = &meter.tier
            && !tiers.contains_key(tier.as_str())
        {
            bail!("stripe.meters.{meter}: tiers.{} is missing", tier.as_str());
        }
    }
    for name in tiers.keys() {
        let has_meter = meters
            .keys()
            .any(|meter| meter.tier.as_ref().is_some_and(|t| t.as_str() == name));
        if !has_meter {
            bail!("tiers.{name}: stripe.meters has none of it, such as input_tokens.{name}");
        }
    }
    Ok(Billing {
        policy: Arc::new(policy(file, two_witnesses)?),
        tariff: Arc::new(Tariff::new(meters.keys().cloned(), models)),
    })
}

fn models(tiers: &BTreeMap<String, TierFile>) -> anyhow::Result<BTreeMap<String, Tier>> {
    let mut models: BTreeMap<String, Tier> = BTreeMap::new();
    for (name, file) in tiers {
        let tier = Tier::new(name).map_err(|error| anyhow::anyhow!("tiers.{name}: {error}"))?;
        if file.models.is_empty() {
            bail!("tiers.{name}.models: must name at least one");
        }
        for (i, model) in file.models.iter().enumerate() {
            if model.is_empty() {
                bail!("tiers.{name}.models[{i}]: must not be empty");
            }
            if let Some(other) = models.insert(model.clone(), tier.clone()) {
                bail!(
                    "tiers.{name}.models[{i}]: {model} is in tiers.{} already",
                    other.as_str()
                );
            }
        }
    }
    Ok(models)
}

fn policy(file: &BillingFile, two_witnesses: bool) -> anyhow::Result<Policy> {
    for (name, found, max) in [
        ("wait_s", file.wait_s, DAY_S),
        ("grace_s", file.grace_s, DAY_S),
        ("final_h", file.final_h, FINAL_MAX_H),
        ("settle_s", file.settle_s, DAY_S),
        ("reread_s", file.reread_s, DAY_S),
        (
            "same_identifier_s",
            file.same_identifier_s,
            SAME_IDENTIFIER_MAX_S,
        ),
    ] {
        if let Some(found) = found.filter(|found| *found > max) {
            bail!("billing.{name}: must be 0 to {max}, found {found}");
        }
    }
    let usual = Policy::default();
    let ms = |given: Option<u32>, usual: i64| {
        given.map_or(usual, |s| i64::from(s).saturating_mul(1_000))
    };
    Ok(Policy {
        two_witnesses,
        wait_ms: ms(file.wait_s, usual.wait_ms),
        grace_s: file.grace_s.map_or(usual.grace_s, i64::from),
        final_s: file
            .final_h
            .map_or(usual.final_s, |h| i64::from(h).saturating_mul(3_600)),
        same_identifier_ms: ms(file.same_identifier_s, usual.same_identifier_ms),
        settle_ms: ms(file.settle_s, usual.settle_ms),
        reread_ms: ms(file.reread_s, usual.reread_ms),
        expire_s: usual.expire_s,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(billing: Value, tiers: Value, meters: &[&str]) -> Result<Billing, String> {
        let billing = serde_json::from_value(billing).map_err(|e| e.to_string())?;
        let tiers = serde_json::from_value(tiers).map_err(|e| e.to_string())?;
        let meters: serde_json::Map<String, Value> = meters
            .iter()
            .map(|name| ((*name).to_owned(), json!("m")))
            .collect();
        let meters = serde_json::from_value(meters.into()).map_err(|e| e.to_string())?;
        validate(&billing, &tiers, &meters, true).map_err(|e| e.to_string())
    }

    const METERS: [&str; 3] = ["api_calls", "input_tokens", "output_tokens"];

    #[test]
    fn what_is_not_said_is_as_usual() {
        let usual = read(json!({}), json!({}), &METERS).unwrap();
        assert_eq!(*usual.policy, Policy::default());
        let other = read(json!({"wait_s": 0, "final_h": 2}), json!({}), &METERS).unwrap();
        assert_eq!((other.policy.wait_ms, other.policy.final_s), (0, 7_200));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let tiered = [&METERS[..], &["input_tokens.premium"]].concat();
        let premium = json!({"premium": {"models": ["big"]}});
        assert!(read(json!({}), premium.clone(), &tiered).is_ok());
        let check = |billing: Value, tiers: &Value, meters: &[&str], names: &str| {
            let error = read(billing, tiers.clone(), meters).unwrap_err();
            assert!(error.contains(names), "{error} should name {names}");
        };
        let none = json!({});
        check(json!({"waits": 1}), &none, &METERS, "waits");
        check(
            json!({"final_h": 817}),
            &none,
            &METERS,
            "billing.final_h: must be 0 to 816",
        );
        check(
            json!({}),
            &none,
            &METERS[1..],
            "stripe.meters.api_calls: is missing",
        );
        check(json!({}), &none, &["api_call"], "must be one of api_calls");
        check(json!({}), &none, &tiered, "tiers.premium is missing");
        check(
            json!({}),
            &premium,
            &METERS,
            "tiers.premium: stripe.meters has none",
        );
        let wrong = json!({"premium": {"model": []}});
        check(json!({}), &wrong, &tiered, "model");
        let wrong = json!({"premium": {"models": ["a", "a"]}});
        check(json!({}), &wrong, &tiered, "tiers.premium.models[1]");
        let wrong = json!({"Premium": {"models": ["a"]}});
        check(json!({}), &wrong, &METERS, "tiers.Premium: a tier must be");
    }
}
