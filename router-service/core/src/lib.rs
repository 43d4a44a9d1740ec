//! Decides what the router does with a request: whether its context is
//! believed, what model the plan has for it, how it is rewritten for the
//! provider, and what the answer used; and what gateways are told of the
//! directory of tenants.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod allowance;
pub mod attempts;
pub mod budget;
pub mod catalogue;
pub mod count;
pub mod directory;
pub mod explain;
pub mod fair;
pub mod health;
pub mod infer;
pub mod meter;
pub mod offer;
pub mod plan;
pub mod provider;
pub mod quota;
pub mod refusal;
pub mod relay;
pub mod request;
pub mod seen;
pub mod translate;
pub mod used_once;
