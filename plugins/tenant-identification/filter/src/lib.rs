//! The proxy-wasm filter that tells the host who a request is made for.
