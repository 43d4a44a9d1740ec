//! The proxy-wasm filter that tells the host what kind of work a request asks
//! for.

// proxy_wasm::main! exports a function that it does not document.
#![allow(missing_docs)]

mod request;
mod tell;

use std::rc::Rc;

use proxy_wasm::{traits::HttpContext, types::Bytes};
use weir_plugin_host::{
    config,
    root::{Filter, Root},
};
use weir_request_classification_core::{Classifier, Config};

use request::Request;

const NAME: &str = "request-classification";

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root::<RequestClassification>::default()));
}}

struct RequestClassification(Classifier);

impl Filter for RequestClassification {
    fn configure(configuration: Option<Bytes>) -> Result<Self, String> {
        let config: Config = config::parse(NAME, configuration.as_deref())?;
        let classifier = Classifier::new(config).map_err(|e| format!("{NAME}: {e}"))?;
        Ok(Self(classifier))
    }

    fn request(self: Rc<Self>) -> Box<dyn HttpContext> {
        Box::new(Request::new(self))
    }
}
