//! Decides how many requests a tenant may make.
//!
//! A gateway holds leases of the quota service: so many requests until then. They
//! stand in records that all its workers share, and while one lasts a request
//! costs no call. Where there is no such service, or the policy says so while it
//! can't be asked, each gateway counts for itself in a sliding window, and admits
//! its share of the limit.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod breaker;
pub mod config;
pub mod lease;
pub mod record;
pub mod shown;
pub mod window;

pub use config::{Config, Limit, OnFailure, QuotaConfig};
pub use window::{Verdict, admit};
