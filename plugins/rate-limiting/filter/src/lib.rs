//! The proxy-wasm filter that tells the host how many requests a tenant may make.
