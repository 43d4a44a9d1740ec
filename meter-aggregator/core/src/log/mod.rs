//! The gateways' access log, read as a write-ahead log: where a line ends, what
//! stands in it, and which file comes next.

pub mod lines;
pub mod rotation;
pub mod sift;
