//! What the tests of the filters share: an upstream that remembers what it was
//! sent, and a gateway in front of it.
//!
//! The upstream stands where the router and the aggregator would, so that a
//! test sees exactly what leaves the gateway.

pub mod fixture;
pub mod issuer_server;
pub mod raw;
pub mod server;
pub mod upstream;
pub mod usage;

pub use fixture::Fixture;
pub use upstream::{Answer, Seen, Upstream};
