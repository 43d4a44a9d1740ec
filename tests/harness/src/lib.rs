//! Starts gateways and services on free ports, for tests and for `make run`.
//!
//! Everything runs as in production: the real binaries, the shipped example
//! configurations with their addresses changed, the real Envoy. Only the AI
//! provider and Stripe are fakes, or the real ones where they are named.

pub mod aggregators;
pub mod client;
pub mod envoy;
pub mod issuer;
pub mod options;

pub mod parts;
pub mod paths;
pub mod pids;
pub mod postgres;
pub mod process;
pub mod providers;
pub mod provision;
pub mod proxy;
pub mod redis;
pub mod secrets;
pub mod shared;
pub mod stack;

pub use options::Options;
pub use stack::Stack;
