//! How many requests a tenant may make: limits, sliding windows, and leases on
//! them. What a store does is here, with the clock as an argument; the Redis
//! store of the server does the same in Lua.

pub mod gateways;
pub mod lease;
pub mod limits;
pub mod memory;
pub mod service;
pub mod window;

pub use lease::{Answer, Ask, Closing, Granted, LeaseId, LimitState};
pub use limits::{Limit, Limits};
pub use memory::Memory;
