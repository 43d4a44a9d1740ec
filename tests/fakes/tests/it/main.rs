//! The two fakes over real TCP, held to what the real services do.
// Clippy knows tests by their attribute; here the helpers are tests, too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod client;

mod provider_chat;
mod provider_control;
mod provider_embeddings;
mod provider_refusals;
mod provider_stream;

mod stripe_billing;
mod stripe_calls;
mod stripe_events;
mod stripe_meters;
mod stripe_refusals;
mod stripe_summaries;

mod binaries;
