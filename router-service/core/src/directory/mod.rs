//! The directory of tenants and their keys: its file, what may be done to it and
//! what is logged of that, what gateways are told of it, and what they lack when
//! they ask again.

pub mod audit;
pub mod change;
pub mod file;
pub mod secret;
pub mod served;
pub mod snapshot;
