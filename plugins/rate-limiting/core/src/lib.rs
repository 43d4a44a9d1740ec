//! Decides how many requests a tenant may make.
