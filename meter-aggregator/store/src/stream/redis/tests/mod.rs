//! What concerns Redis alone, on a real one.

#![allow(clippy::arithmetic_side_effects)]

mod body;
mod loss;
mod server;
mod ways;
