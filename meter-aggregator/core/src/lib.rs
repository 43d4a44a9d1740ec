//! Decides how usage becomes postings, intents and Stripe meter events.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod fold;
pub mod gaps;
pub mod hour;
pub mod intent;
pub mod journal;
pub mod log;
pub mod meter;
pub mod shown;
