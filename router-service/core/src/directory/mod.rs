//! The directory of tenants and their keys: its file, what gateways are told of
//! it, and what they lack when they ask again.

pub mod file;
pub mod served;
pub mod snapshot;
