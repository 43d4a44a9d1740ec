//! The proxy-wasm filter that tells the host how many requests a tenant may
//! make.

// proxy_wasm::main! exports a function that it does not document.
#![allow(missing_docs)]

mod calls;
mod epoch;
mod local;
mod metrics;
mod request;
mod root;
mod state;

pub(crate) const NAME: &str = "rate-limiting";

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|id| Box::new(root::Root::new(id)));
}}
