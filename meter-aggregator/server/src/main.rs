//! Turns usage events into Stripe meter events that add up.

fn main() {}
