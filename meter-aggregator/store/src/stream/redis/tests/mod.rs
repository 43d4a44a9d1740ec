//! What concerns Redis alone, on a real one.

#![allow(clippy::arithmetic_side_effects)]

mod body;
mod cluster;
mod full;
mod loss;
mod server;
mod tls;
mod ways;
