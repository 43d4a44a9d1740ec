//! What every filter needs of its host: byte-safe headers, clocks, randomness,
//! configuration, replies, callouts, shared data, metrics and turns.
//!
//! The SDK's own accessors panic on what a client can send (a header that is
//! not UTF-8) or on what a host may answer; a panic restarts the VM for every
//! tenant on that worker. Nothing here panics on either.

pub mod body;
pub mod callout;
pub mod clock;
pub mod config;
pub mod headers;
pub mod metrics;
pub mod property;
pub mod reply;
pub mod root;
pub mod shared;
pub mod turn;
