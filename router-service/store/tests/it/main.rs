//! The stores: one body of cases over both, and what concerns Redis alone.

// Helpers outside of #[test] functions are tests, too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod asks;
mod budget;
mod cases;
mod outages;
mod redis_alone;
mod server;
mod tls;
