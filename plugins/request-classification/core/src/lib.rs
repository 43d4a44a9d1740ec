//! Decides what kind of work a request asks for, and refuses what is none.
//!
//! [`Classifier::begin`] looks at the headers; where the body has a say, a
//! [`Reading`] takes it as it comes.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

mod begin;
mod config;
mod denial;
mod include_usage;
mod pattern;
mod reading;
mod rules;
#[cfg(test)]
mod tests;

pub use begin::{Begun, Classifier, Next};
pub use config::{Config, Policy, Rule};
pub use denial::Denial;
pub use include_usage::Edit;
pub use reading::{Reading, Step, Told};
