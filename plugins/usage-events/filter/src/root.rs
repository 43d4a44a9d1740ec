//! The work between requests: batches, and the end of a configuration.

use std::rc::Rc;

use proxy_wasm::{
    traits::{Context, HttpContext, RootContext},
    types::ContextType,
};
use weir_plugin_host::{config, headers, root};

use crate::{request::Request, state::State};

/// The root context.
#[derive(Default)]
pub struct Root {
    state: Option<Rc<State>>,
}

impl Context for Root {
    fn on_http_call_response(&mut self, _: u32, num_headers: usize, _: usize, _: usize) {
        let Some(state) = &self.state else { return };
        state.settle(headers::callout_status(num_headers));
        if state.is_done() {
            root::done();
        } else {
            state.flush();
        }
    }

    fn on_done(&mut self) -> bool {
        let Some(state) = &self.state else {
            return true;
        };
        state.stop();
        state.flush();
        state.is_done()
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let loaded = State::load(self.get_plugin_configuration());
        config::accept(loaded.map(|state| {
            if state.config.cluster.is_some() {
                state.tick.every(state.config.flush_ms);
            }
            self.state = Some(state);
        }))
    }

    fn on_tick(&mut self) {
        let Some(state) = &self.state else { return };
        state.tick.every(state.config.flush_ms);
        state.flush();
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Request::new(self.state.clone()?)))
    }
}
