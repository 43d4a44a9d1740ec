//! Decides who a request is made for, and what of it may go on upstream.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod board;
pub mod config;
pub mod decide;
pub mod denial;
pub mod inline;
pub mod jwt;
pub mod key_hashes;
pub mod sources;
pub mod tenants;
pub mod tokens;

pub use config::Config;
pub use decide::{Change, Decision, Identification, Now, Request, Worker, identify};
pub use denial::Denial;

#[cfg(test)]
mod tests;
