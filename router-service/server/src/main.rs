//! The inference router: takes a tenant's request to a model within its plan.

fn main() {}
