//! The fakes over real TCP, held to what the real services do.
// Clippy knows tests by their attribute; here the helpers are tests, too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod anthropic_client;
mod client;
mod openapi;
mod sse;

mod anthropic_messages;
mod anthropic_refusals;
mod anthropic_stream;

mod provider_chat;
mod provider_completions;
mod provider_control;
mod provider_embeddings;
mod provider_refusals;
mod provider_responses;
mod provider_stream;
mod provider_strictness;
mod provider_tools;

mod stripe_billing;
mod stripe_calls;
mod stripe_events;
mod stripe_invoices;
mod stripe_meters;
mod stripe_openapi;
mod stripe_refusals;
mod stripe_summaries;

mod binaries;
