//! Decides who a request is made for, and what of it may go on upstream.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod config;
pub mod credential;
pub mod decide;
pub mod directory;

pub use config::Config;
pub use decide::{Decision, Denial, Identification, identify};
