//! A blocking HTTP client for the harness and for tests.

use std::time::Duration;

use reqwest::blocking::Client;

/// A client that follows no redirects, uses no proxy and waits a minute.
///
/// # Panics
/// Where the client can't be built, which no input can cause.
#[must_use]
pub fn client() -> Client {
    // Whoever comes second finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(60))
        .build()
        .expect("an HTTP client can be built")
}
