//! Decides what a request used, as far as the gateway can see, and keeps the
//! events until the aggregator has them.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod config;
pub mod decode;
pub mod exchange;
pub mod hide;
pub mod outbox;
pub mod producer;

pub use config::Config;
pub use decode::Decoder;
pub use exchange::{End, Exchange};
pub use hide::Hide;
pub use outbox::Outbox;
pub use producer::Producer;
