//! The wire formats of others: where model, text and usage stand in the
//! dialects that clients and providers speak.
//!
//! [`json`] and [`sse`] read bytes as they pass, in chunks cut anywhere, and
//! keep only what was asked for; [`tokens`] knows the names of the fields.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod answer;
pub mod json;
pub mod media;
pub mod routes;
pub mod sse;
pub mod tokens;
pub mod used;
