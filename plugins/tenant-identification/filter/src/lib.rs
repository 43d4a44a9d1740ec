//! The proxy-wasm filter that tells the host who a request is made for.

// proxy_wasm::main! exports a function that it does not document.
#![allow(missing_docs)]

mod board;
mod checker;
mod metrics;
mod request;
mod root;
mod state;

pub(crate) const NAME: &str = "tenant-identification";

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|id| Box::new(root::Root::new(id)));
}}
