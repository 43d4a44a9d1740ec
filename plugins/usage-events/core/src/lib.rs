//! Decides what a request used, as far as the gateway can see, and keeps the
//! events until the aggregator has them.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod config;
pub mod exchange;
pub mod outbox;

pub use config::Config;
pub use exchange::{End, Exchange};
pub use outbox::Outbox;
