//! Load generator and paired measurements.

fn main() {}
