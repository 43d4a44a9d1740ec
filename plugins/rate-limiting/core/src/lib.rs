//! Decides how many requests a tenant may make.
//!
//! Each gateway counts for itself, exactly over all its workers, in a record
//! that they share. Of a tenant's limit each of `gateways` admits its share, so
//! that all together never admit more than the limit.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod config;
pub mod window;

pub use config::{Config, Limit};
pub use window::{Verdict, admit};
