//! The price of tokens: one function for holds, costs and invoices.
//!
//! Amounts are whole micro-dollars (0.000001 dollars), rounded up once for an
//! attempt, never for each kind of token; what lies between is exact.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

mod charge;
mod config;
mod dollars;

pub use self::{
    charge::{Charge, Prices, Tokens, charge, upper_bound},
    config::{MARKUP_MAX, Markup, dollars},
    dollars::{Dollars, DollarsError},
};
