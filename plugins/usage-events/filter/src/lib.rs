//! The proxy-wasm filter that tells the aggregator what a request used.

// proxy_wasm::main! exports a function that it does not document.
#![allow(missing_docs)]

mod request;
mod root;
mod state;

const NAME: &str = "usage-events";

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(root::Root::default()));
}}
