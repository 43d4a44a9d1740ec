//! The proxy-wasm filter that tells the host what a request used.
