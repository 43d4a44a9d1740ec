//! A process that hands bytes on and nothing else: what any router in Rust costs
//! that takes requests by hyper and makes them by reqwest.

use std::io::Write as _;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
};
use http::header;
use tokio::net::TcpListener;

#[derive(Clone)]
struct To {
    upstream: String,
    http: reqwest::Client,
}

/// Serves until it is killed; prints its address.
///
/// # Errors
/// Where it can't listen.
pub fn serve(upstream: &str) -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is installed already"))?;
    let to = To {
        upstream: upstream.to_owned(),
        http: reqwest::Client::builder().no_proxy().build()?,
    };
    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        std::io::stdout().flush()?;
        let router = Router::new().fallback(hand_on).with_state(to);
        weir_process::serve(
            listener,
            router,
            std::future::pending(),
            std::time::Duration::ZERO,
        )
        .await;
        Ok(())
    })
}

async fn hand_on(State(to): State<To>, request: Request) -> Response {
    let url = format!("{}{}", to.upstream, request.uri().path());
    let body = axum::body::to_bytes(request.into_body(), 16 << 20).await;
    let answer = to
        .http
        .post(url)
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.unwrap_or_default())
        .send()
        .await;
    let Ok(answer) = answer else {
        return Response::new(Body::empty());
    };
    let content_type = answer.headers().get(header::CONTENT_TYPE).cloned();
    let mut response = Response::new(Body::from_stream(answer.bytes_stream()));
    if let Some(value) = content_type {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
}
