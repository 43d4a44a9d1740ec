//! One request and its answer, as they pass.

use std::{borrow::Cow, rc::Rc};

use proxy_wasm::{
    traits::{Context, HttpContext},
    types::Action,
};
use weir_plugin_host::{body, clock, headers, property};
use weir_usage_events_core::{End, Exchange};
use weir_wire::{headers as names, host::HostKind};

use crate::state::State;

/// The context of a request.
pub struct Request {
    state: Rc<State>,
    stage: Stage,
}

enum Stage {
    /// Its headers were not here.
    Before,
    Passing(Box<Exchange>),
    /// It is nobody's, or its event is taken.
    Over,
}

impl Request {
    /// Before its headers.
    pub fn new(state: Rc<State>) -> Self {
        Self {
            state,
            stage: Stage::Before,
        }
    }

    /// Bytes of the request's body. Envoy counted them; on Kong a body without
    /// a `content-length` counts as empty.
    fn request_bytes(&self, announced: u64) -> u64 {
        if self.state.config.host == HostKind::Kong {
            return announced;
        }
        // An integer property comes as eight bytes, little end first.
        property::get(&["request", "size"])
            .and_then(|bytes| Some(i64::from_le_bytes(bytes.try_into().ok()?)))
            .and_then(|size| u64::try_from(size).ok())
            .unwrap_or(announced)
    }

    /// Kong does not say who ended a stream: an answer without an end means there
    /// that the client left.
    fn end(&self) -> End {
        match self.state.config.host {
            HostKind::Kong => End::ClientGone,
            HostKind::Envoy => {
                let details = property::get(&["response", "code_details"]);
                End::of_details(&details.unwrap_or_default())
            }
        }
    }
}

/// Of a request whose headers never came here.
fn missed() -> Option<Box<Exchange>> {
    let (request, answer) = (headers::Request::read(), headers::Response::read());
    Exchange::missed(&request.pairs(), &answer.pairs()).map(Box::new)
}

impl Context for Request {}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let (all, config) = (headers::Request::read(), &self.state.config);
        let begun = Exchange::begin(&all.pairs(), config.accept_encoding, clock::wall_ms());
        let Some((exchange, changes)) = begun else {
            self.stage = Stage::Over;
            return Action::Continue;
        };
        if changes.identity {
            headers::set_request("accept-encoding", "identity");
        }
        if changes.usage_added {
            headers::remove_request(names::USAGE_ADDED);
        }
        self.stage = Stage::Passing(Box::new(exchange));
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        if let Stage::Passing(exchange) = &mut self.stage {
            let all = headers::Response::read();
            let changes = exchange.answer(&all.pairs(), headers::response_status, end_of_stream);
            if let Some(id) = changes.request_id {
                headers::give_response(self.state.config.host, names::REQUEST_ID, id);
            }
            if changes.content_length {
                headers::remove_response("content-length");
            }
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if let Stage::Passing(exchange) = &mut self.stage {
            let bytes = body::response(size);
            match exchange.body(&bytes, end_of_stream, clock::wall_ms) {
                Cow::Borrowed(all) if all.len() == bytes.len() => {}
                changed => {
                    body::replace_response(size, &changed);
                }
            }
        }
        Action::Continue
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        if let Stage::Passing(exchange) = &mut self.stage {
            exchange.end();
        }
        Action::Continue
    }

    fn on_log(&mut self) {
        let exchange = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Passing(exchange) => Some(exchange),
            // Envoy logs a request with every filter, also with those that an
            // earlier one kept it from.
            Stage::Before if self.state.config.host == HostKind::Envoy => missed(),
            Stage::Before | Stage::Over => None,
        };
        if let Some(exchange) = exchange {
            let announced = exchange.content_length();
            let request_bytes = || self.request_bytes(announced);
            let event = exchange.finish(|| self.end(), request_bytes, clock::wall_ms());
            self.state.take(event);
        }
    }
}
