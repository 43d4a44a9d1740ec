//! The proxy-wasm filter that tells the host what kind of work a request asks
//! for.

// proxy_wasm::main! exports a function that it does not document.
#![allow(missing_docs)]

use std::rc::Rc;

use proxy_wasm::{
    traits::{Context, HttpContext, RootContext},
    types::{Action, ContextType},
};
use weir_plugin_host::{config, headers, reply};
use weir_request_classification_core::{Config, Denial, classify};
use weir_wire::headers as names;

const NAME: &str = "request-classification";

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root { config: None }));
}}

struct Root {
    config: Option<Rc<Config>>,
}

impl Root {
    fn configure(&mut self) -> Result<(), String> {
        let config: Config = config::parse(NAME, self.get_plugin_configuration().as_deref())?;
        config.validate().map_err(|e| format!("{NAME}: {e}"))?;
        self.config = Some(Rc::new(config));
        Ok(())
    }
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        config::accept(self.configure())
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        let config = self.config.clone()?;
        Some(Box::new(Request { config }))
    }
}

struct Request {
    config: Rc<Config>,
}

impl Context for Request {}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let method = headers::request_text(":method").unwrap_or_default();
        let path = headers::request_text(":path").unwrap_or_default();
        let length = headers::request_value("content-length");
        match classify(&self.config, &method, &path, length.as_deref()) {
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
