//! Decides how usage becomes postings, intents and Stripe meter events.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod dunning;
pub mod fold;
pub mod gaps;
pub mod hour;
pub mod intent;
pub mod journal;
pub mod lag;
pub mod lease;
pub mod ledger;
pub mod log;
pub mod meter;
pub mod place;
pub mod policy;
pub mod shown;
pub mod stripe;
pub mod tariff;
