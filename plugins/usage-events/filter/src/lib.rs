//! The proxy-wasm filter that tells the aggregator what a request used.

// proxy_wasm::main! exports a function that it does not document.
#![allow(missing_docs)]

use std::{cell::RefCell, rc::Rc, time::Duration};

use proxy_wasm::{
    traits::{Context, HttpContext, RootContext},
    types::{Action, ContextType, LogLevel},
};
use weir_plugin_host::{callout::Service, clock, config, headers, metrics::Counter};
use weir_usage_events_core::{Config, End, Exchange, Outbox, config::TOKEN_ENVIRONMENT};
use weir_wire::{headers as names, host::HostKind, usage::PUBLISH_PATH};

const NAME: &str = "usage-events";

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root { state: None, stopping: false }));
}}

struct State {
    config: Config,
    authorization: String,
    outbox: RefCell<Outbox>,
    taken: Counter,
    acknowledged: Counter,
    dropped: Counter,
    failed: Counter,
}

struct Root {
    state: Option<Rc<State>>,
    /// The host wants to end this context, which waits for acknowledgements.
    stopping: bool,
}

impl Root {
    fn configure(&mut self) -> Result<(), String> {
        let config: Config = config::parse(NAME, self.get_plugin_configuration().as_deref())?;
        config.validate().map_err(|e| format!("{NAME}: {e}"))?;
        let token = config::environment(NAME, TOKEN_ENVIRONMENT)?;
        self.set_tick_period(Duration::from_millis(config.flush_ms));
        self.state = Some(Rc::new(State {
            authorization: format!("Bearer {token}"),
            outbox: RefCell::new(Outbox::new(config.max_waiting_bytes)),
            taken: Counter::define("weir_usage_events_taken"),
            acknowledged: Counter::define("weir_usage_events_acknowledged"),
            dropped: Counter::define("weir_usage_events_dropped"),
            failed: Counter::define("weir_usage_batches_failed"),
            config,
        }));
        Ok(())
    }

    fn flush(&self) {
        let Some(state) = &self.state else { return };
        let now_ms = clock::monotonic_ms();
        let Some(body) = state.outbox.borrow_mut().next_batch(now_ms) else {
            return;
        };
        let service = Service {
            cluster: &state.config.cluster,
            authority: state.config.authority(),
            authorization: &state.authorization,
            timeout_ms: state.config.timeout_ms,
        };
        if service.post(PUBLISH_PATH, &body).is_none() {
            state.failed.increment();
            state.outbox.borrow_mut().fail(now_ms);
        }
    }

    fn stop_when_empty(&self) {
        let empty = self
            .state
            .as_ref()
            .is_none_or(|s| s.outbox.borrow().is_empty());
        if self.stopping && empty {
            self.done();
        }
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, _: u32, num_headers: usize, _: usize, _: usize) {
        let Some(state) = &self.state else { return };
        match headers::callout_status(num_headers) {
            Some(200..300) => {
                let count = state.outbox.borrow_mut().acknowledge();
                state.acknowledged.add(count);
            }
            status => {
                state.failed.increment();
                config::log(
                    LogLevel::Warn,
                    &format!("{NAME}: the aggregator answered {status:?}; the batch is kept"),
                );
                state.outbox.borrow_mut().fail(clock::monotonic_ms());
            }
        }
        self.flush();
        self.stop_when_empty();
    }

    fn on_done(&mut self) -> bool {
        let empty = self
            .state
            .as_ref()
            .is_none_or(|s| s.outbox.borrow().is_empty());
        self.stopping = !empty;
        if !empty {
            self.flush();
        }
        empty
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        config::accept(self.configure())
    }

    fn on_tick(&mut self) {
        self.flush();
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        let state = self.state.clone()?;
        Some(Box::new(Request {
            state,
            exchange: None,
            content_length: 0,
        }))
    }
}

struct Request {
    state: Rc<State>,
    exchange: Option<Exchange>,
    /// Of the request, where the host can't say it in the end.
    content_length: u64,
}

impl Context for Request {}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let value = |name| headers::request_text(name).unwrap_or_default();
        let tenant = value(names::TENANT_ID);
        // Nobody's request uses nothing.
        if tenant.is_empty() && headers::is_open() {
            return Action::Continue;
        }
        self.exchange = Some(Exchange::begin(
            tenant,
            value(names::TENANT_CONTEXT),
            value(names::REQUEST_ID),
            value(names::REQUEST_CLASS),
            clock::wall_ms(),
        ));
        if self.state.config.host == HostKind::Kong {
            self.content_length = value("content-length").parse().unwrap_or(0);
        }
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        if let Some(exchange) = &mut self.exchange {
            let content_type = headers::response_value("content-type").unwrap_or_default();
            exchange.answer(headers::response_status(), &content_type, end_of_stream);
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if let Some(exchange) = &mut self.exchange {
            let bytes = response_body(size);
            exchange.body(&bytes, end_of_stream, clock::wall_ms);
        }
        Action::Continue
    }

    fn on_log(&mut self) {
        let Some(exchange) = self.exchange.take() else {
            return;
        };
        let event = exchange.finish(|| self.end(), || self.request_bytes(), clock::wall_ms());
        self.state.taken.increment();
        if let Err(event) = self.state.outbox.borrow_mut().push(event) {
            self.state.dropped.increment();
            config::log(
                LogLevel::Error,
                &format!("{NAME}: outbox full, event {} dropped", event.event_id),
            );
        }
    }
}

/// The bytes of the response body that are at hand.
fn response_body(size: usize) -> Vec<u8> {
    proxy_wasm::hostcalls::get_buffer(proxy_wasm::types::BufferType::HttpResponseBody, 0, size)
        .ok()
        .flatten()
        .unwrap_or_default()
}

impl Request {
    /// Bytes of the request's body. Envoy counted them; on Kong a body without
    /// a `content-length` counts as empty.
    fn request_bytes(&self) -> u64 {
        if self.state.config.host == HostKind::Kong {
            return self.content_length;
        }
        // An integer property comes as eight bytes, little end first.
        self.get_property(vec!["request", "size"])
            .and_then(|bytes| Some(i64::from_le_bytes(bytes.try_into().ok()?)))
            .and_then(|size| u64::try_from(size).ok())
            .unwrap_or(0)
    }

    /// Envoy says in `response.code_details` who ended the stream; Kong does
    /// not, and there an answer without an end means that the client left.
    fn end(&self) -> End {
        if self.state.config.host == HostKind::Kong {
            return End::ClientGone;
        }
        let details = self
            .get_property(vec!["response", "code_details"])
            .unwrap_or_default();
        if details.starts_with(b"downstream") || details.starts_with(b"http2.remote_re") {
            End::ClientGone
        } else {
            End::Other
        }
    }
}
