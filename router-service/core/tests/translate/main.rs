//! Golden translations between the dialects, each with its whole input and
//! output, and a table of what is refused.
#![cfg(not(target_arch = "wasm32"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod answers;
mod golden;
mod refusals;
mod requests;
mod streams;
