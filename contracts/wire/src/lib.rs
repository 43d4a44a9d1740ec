//! What Weir's parts say to each other: header names, identifiers, the signed
//! tenant context, usage events and the error object that tenants know.
//!
//! Builds for the filters (wasm32-wasip1) and for the servers. Nothing here
//! reads a clock, an environment or a network: time and randomness are
//! arguments.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod context;
pub mod directory;
pub mod error;
pub mod headers;
pub mod host;
pub mod ids;
pub mod key_hash;
pub mod keys;
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects
)]
pub mod proto;
pub mod quota;
pub mod shown;
pub mod timestamp;
pub mod usage;
