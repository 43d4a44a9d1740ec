//! The root context of a filter that has nothing to do between requests: it
//! loads the configuration and makes a context for each request.

use std::rc::Rc;

use proxy_wasm::{
    traits::{Context, HttpContext, RootContext},
    types::{Bytes, ContextType},
};

use crate::config;

/// A filter with its configuration loaded.
pub trait Filter: Sized + 'static {
    /// Loads it.
    ///
    /// # Errors
    /// A message for the log; the host keeps the last good configuration.
    fn configure(configuration: Option<Bytes>) -> Result<Self, String>;

    /// The context of one request.
    fn request(self: Rc<Self>) -> Box<dyn HttpContext>;
}

/// The root context of a [`Filter`].
#[derive(Debug)]
pub struct Root<F>(Option<Rc<F>>);

impl<F> Default for Root<F> {
    fn default() -> Self {
        Self(None)
    }
}

impl<F: Filter> Context for Root<F> {}

impl<F: Filter> RootContext for Root<F> {
    fn on_configure(&mut self, _: usize) -> bool {
        let loaded = F::configure(self.get_plugin_configuration());
        config::accept(loaded.map(|filter| self.0 = Some(Rc::new(filter))))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(self.0.clone()?.request())
    }
}

/// Tells the host that a root context whose `on_done` said no is done now. Says
/// whether the host knew that it was waiting; the SDK's own call panics where not.
#[allow(unsafe_code)]
pub fn done() -> bool {
    // SAFETY: the call takes nothing.
    unsafe { proxy_done() == 0 }
}

#[allow(unsafe_code)]
#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_done() -> u32;
}
