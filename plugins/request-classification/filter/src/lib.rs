//! The proxy-wasm filter that tells the host what kind of work a request asks
//! for.

// proxy_wasm::main! exports a function that it does not document.
#![allow(missing_docs)]

use std::rc::Rc;

use proxy_wasm::{
    traits::{Context, HttpContext},
    types::{Action, Bytes},
};
use weir_plugin_host::{
    config, headers, reply,
    root::{Filter, Root},
};
use weir_request_classification_core::{Config, Denial, classify};
use weir_wire::headers as names;

const NAME: &str = "request-classification";

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root::<RequestClassification>::default()));
}}

struct RequestClassification(Config);

impl Filter for RequestClassification {
    fn configure(configuration: Option<Bytes>) -> Result<Self, String> {
        let config: Config = config::parse(NAME, configuration.as_deref())?;
        config.validate().map_err(|e| format!("{NAME}: {e}"))?;
        Ok(Self(config))
    }

    fn request(self: Rc<Self>) -> Box<dyn HttpContext> {
        Box::new(Request { filter: self })
    }
}

struct Request {
    filter: Rc<RequestClassification>,
}

impl Context for Request {}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        if headers::is_open() {
            return Action::Continue;
        }
        let method = headers::request_text(":method").unwrap_or_default();
        let path = headers::request_text(":path").unwrap_or_default();
        let length = headers::request_value("content-length");
        match classify(&self.filter.0, &method, &path, length.as_deref()) {
            Ok(class) => {
                headers::set_request(names::REQUEST_CLASS, class.as_str());
                Action::Continue
            }
            Err(denial) => refuse(&denial),
        }
    }
}

fn refuse(denial: &Denial) -> Action {
    let allow: Vec<(&str, &str)> = denial.allow.map(|a| ("allow", a)).into_iter().collect();
    reply::refuse(denial.status, &denial.error, &allow)
}
