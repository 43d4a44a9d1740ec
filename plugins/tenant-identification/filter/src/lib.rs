//! The proxy-wasm filter that tells the host who a request is made for.

// proxy_wasm::main! exports a function that it does not document.
#![allow(missing_docs)]

use std::rc::Rc;

use proxy_wasm::{
    traits::{Context, HttpContext, RootContext},
    types::{Action, ContextType, LogLevel},
};
use weir_plugin_host::{clock, config, headers, metrics::Counter, reply};
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
    proxy_wasm::set_root_context(|_| Box::new(Root { state: None }));
}}

struct State {
    host: HostKind,
    directory: Directory,
    keys: Keyring,
    identified: Counter,
    refused: Counter,
}

struct Root {
    state: Option<Rc<State>>,
}

impl Root {
    fn configure(&mut self) -> Result<(), String> {
        let config: Config = config::parse(NAME, self.get_plugin_configuration().as_deref())?;
        let directory = config.validate().map_err(|e| format!("{NAME}: {e}"))?;
        let secrets = config::environment(NAME, keys::ENVIRONMENT)?;
        let keys = Keyring::parse(&secrets).map_err(|e| format!("{NAME}: {e}"))?;
        self.state = Some(Rc::new(State {
            host: config.host,
            directory,
            keys,
            identified: Counter::define("weir_tenant_identified"),
            refused: Counter::define("weir_tenant_refused"),
        }));
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
        let state = self.state.clone()?;
        Some(Box::new(Request { state }))
    }
}

struct Request {
    state: Rc<State>,
}

impl Context for Request {}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let state = &self.state;
        let Some(random) = clock::random() else {
            config::log(
                LogLevel::Error,
                "tenant-identification: the host has no randomness",
            );
            return refuse_without_randomness();
        };
        let decision = identify(
            state.host,
            &state.directory,
            &state.keys,
            &headers::request(),
            clock::wall_ms(),
            random,
        );
        match decision {
            Decision::Allow(identification) => {
                state.identified.increment();
                apply(&identification)
            }
            Decision::Deny(denial) => {
                state.refused.increment();
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
