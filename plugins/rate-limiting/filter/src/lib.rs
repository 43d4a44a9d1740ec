//! The proxy-wasm filter that tells the host how many requests a tenant may
//! make.

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
    shared::{self, Change},
};
use weir_rate_limiting_core::{Config, Limit, Verdict, admit};
use weir_wire::{error::ApiError, headers as names};

const NAME: &str = "rate-limiting";

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root::<RateLimiting>::default()));
}}

struct RateLimiting {
    config: Config,
    admitted: Counter,
    refused: Counter,
}

impl Filter for RateLimiting {
    fn configure(configuration: Option<Bytes>) -> Result<Self, String> {
        let config: Config = config::parse(NAME, configuration.as_deref())?;
        config.validate().map_err(|e| format!("{NAME}: {e}"))?;
        Ok(Self {
            config,
            admitted: Counter::define("weir_rate_limit_admitted"),
            refused: Counter::define("weir_rate_limit_refused"),
        })
    }

    fn request(self: Rc<Self>) -> Box<dyn HttpContext> {
        Box::new(Request { filter: self })
    }
}

struct Request {
    filter: Rc<RateLimiting>,
}

impl Context for Request {}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let filter = &self.filter;
        let (Some(tenant), Some(plan)) = (
            headers::request_text(names::TENANT_ID),
            headers::request_text(names::TENANT_PLAN),
        ) else {
            if headers::is_open() {
                return Action::Continue;
            }
            return misconfigured("the filter tenant-identification must come before it");
        };
        let Some(limit) = filter.config.share(&plan) else {
            return misconfigured(&format!("plans: {plan} is not among them"));
        };
        match self.verdict(&tenant, limit) {
            Verdict::Admit { .. } => {
                filter.admitted.increment();
                Action::Continue
            }
            Verdict::Refuse { retry_after_s } => {
                filter.refused.increment();
                refuse(limit, retry_after_s)
            }
        }
    }
}

impl Request {
    fn verdict(&self, tenant: &str, limit: Limit) -> Verdict {
        // The window is in the key: a record is never read with another one.
        let key = format!("weir/rate/1/{tenant}/{}", limit.window_s);
        let now_ms = clock::monotonic_ms();
        match shared::change(self.filter.config.host, &key, |record| {
            admit(record, limit, now_ms)
        }) {
            Change::Done(verdict) => verdict,
            // What can't be counted is not admitted.
            Change::Contended => Verdict::Refuse { retry_after_s: 1 },
        }
    }
}

fn refuse(limit: Limit, retry_after_s: u32) -> Action {
    let error = ApiError::new(
        "requests",
        "rate_limit_exceeded",
        format!(
            "Rate limit reached: {} requests in {} s. Please try again in {retry_after_s} s.",
            limit.requests, limit.window_s
        ),
    );
    reply::refuse(429, &error, &[("retry-after", &retry_after_s.to_string())])
}

fn misconfigured(why: &str) -> Action {
    config::log(LogLevel::Error, &format!("{NAME}: {why}"));
    let error = ApiError::new(
        "server_error",
        "internal_error",
        "The gateway has no request limit for this tenant's plan.",
    );
    reply::refuse(500, &error, &[])
}
