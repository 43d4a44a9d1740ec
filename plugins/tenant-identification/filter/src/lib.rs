//! The proxy-wasm filter that tells the host who a request is made for.

// proxy_wasm::main! exports a function that it does not document.
#![allow(missing_docs)]

use std::rc::Rc;

use proxy_wasm::{
    traits::{Context, HttpContext},
    types::{Action, Bytes, LogLevel},
};
use weir_plugin_host::{
    clock, config, headers,
    metrics::Counter,
    reply,
    root::{Filter, Root},
};
use weir_tenant_identification_core::{
    Config, Decision, Denial, Identification, directory::Directory, identify,
};
use weir_wire::{
    error::ApiError,
    host::HostKind,
    keys::{self, Keyring},
};

const NAME: &str = "tenant-identification";

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root::<TenantIdentification>::default()));
}}

struct TenantIdentification {
    host: HostKind,
    directory: Directory,
    keys: Keyring,
    identified: Counter,
    refused: Counter,
}

impl Filter for TenantIdentification {
    fn configure(configuration: Option<Bytes>) -> Result<Self, String> {
        let config: Config = config::parse(NAME, configuration.as_deref())?;
        let directory = config.validate().map_err(|e| format!("{NAME}: {e}"))?;
        let secrets = config::environment(NAME, keys::ENVIRONMENT)?;
        Ok(Self {
            host: config.host,
            directory,
            keys: Keyring::parse(&secrets).map_err(|e| format!("{NAME}: {e}"))?,
            identified: Counter::define("weir_tenant_identified"),
            refused: Counter::define("weir_tenant_refused"),
        })
    }

    fn request(self: Rc<Self>) -> Box<dyn HttpContext> {
        Box::new(Request { filter: self })
    }
}

struct Request {
    filter: Rc<TenantIdentification>,
}

impl Context for Request {}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let filter = &self.filter;
        let Some(random) = clock::random() else {
            config::log(
                LogLevel::Error,
                "tenant-identification: the host has no randomness",
            );
            return refuse_without_randomness();
        };
        let decision = identify(
            filter.host,
            &filter.directory,
            &filter.keys,
            &headers::request(),
            clock::wall_ms(),
            random,
        );
        match decision {
            Decision::Allow(identification) => {
                filter.identified.increment();
                apply(&identification)
            }
            Decision::Deny(denial) => {
                filter.refused.increment();
                deny(&denial)
            }
        }
    }
}

fn apply(identification: &Identification) -> Action {
    for name in &identification.strip {
        headers::remove_request(name);
    }
    for (name, value) in &identification.set {
        headers::set_request(name, value);
    }
    Action::Continue
}

fn deny(denial: &Denial) -> Action {
    config::log(
        LogLevel::Info,
        &format!("{NAME}: refused: {}", denial.reason),
    );
    let challenge = [("www-authenticate", "Bearer")];
    let extra = if denial.challenge {
        &challenge[..]
    } else {
        &[]
    };
    reply::refuse(denial.status, &denial.error, extra)
}

fn refuse_without_randomness() -> Action {
    let error = ApiError::new(
        "server_error",
        "internal_error",
        "The gateway could not name this request.",
    );
    reply::refuse(500, &error, &[])
}
