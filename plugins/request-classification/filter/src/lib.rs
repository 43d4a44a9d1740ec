//! The proxy-wasm filter that tells the host what kind of work a request asks for.
