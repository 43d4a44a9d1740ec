//! Strict stand-ins for what can't be had in a test: OpenAI, Anthropic and Stripe.
//!
//! They speak the real wire format over real TCP, refuse what the real service
//! refuses, misbehave on demand through `/__fake/faults`, and keep an exact
//! record of what they did, against which tests hold an invoice.

pub mod anthropic;
pub mod provider;

mod inference;

pub mod stripe;

pub mod cli;
mod control;
mod headers;
mod ids;
pub mod server;
