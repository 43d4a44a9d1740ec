//! A server of a test: HTTP/1.1 and HTTP/2 on a free port, in threads of its own.

use axum::Router;
use tokio::{net::TcpListener, runtime};

/// The server. Dropping it stops it.
pub struct Server {
    /// `host:port`.
    pub address: String,
    _runtime: runtime::Runtime,
}

impl Server {
    /// Starts it.
    ///
    /// # Panics
    /// Where there is no free port.
    #[must_use]
    pub fn start(router: Router) -> Self {
        Self::start_on("127.0.0.1:0", router)
    }

    /// Starts it on that address.
    ///
    /// # Panics
    /// Where it is not free.
    #[must_use]
    pub fn start_on(address: &str, router: Router) -> Self {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(TcpListener::bind(address))
            .expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            address,
            _runtime: runtime,
        }
    }
}
