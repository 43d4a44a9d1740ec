//! A closed loop of chat requests over kept HTTP/1.1 connections.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

/// What each request is.
#[derive(Debug, Clone)]
pub struct Load {
    /// Whether to ask for an event stream.
    pub stream: bool,
    /// Connections, one request at a time on each.
    pub connections: usize,
    /// Requests over all connections.
    pub requests: usize,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// From sending a request to the end of its answer, in nanoseconds, sorted.
    pub latencies_ns: Vec<u64>,
}

/// Open connections to one gateway.
#[derive(Debug)]
pub struct Connections(Vec<SendRequest<Full<Bytes>>>);

impl Connections {
    /// For requests of another kind.
    #[must_use]
    pub fn into_senders(self) -> Vec<SendRequest<Full<Bytes>>> {
        self.0
    }
}

/// Opens that many connections to `authority`.
///
/// # Errors
/// Where the gateway takes none.
pub async fn connect(authority: &str, connections: usize) -> anyhow::Result<Connections> {
    let mut senders = Vec::with_capacity(connections);
    for _ in 0..connections {
        let tcp = TcpStream::connect(authority)
            .await
            .with_context(|| format!("cannot connect to {authority}"))?;
        tcp.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(tcp)).await?;
        // It ends once its sender is dropped; what fails, fails at the sender.
        tokio::spawn(connection);
        senders.push(sender);
    }
    Ok(Connections(senders))
}

impl Load {
    /// Makes every request and measures each, with the credentials in turn.
    ///
    /// # Errors
    /// At the first answer that is not whole or not 200.
    pub async fn run(
        &self,
        authority: &str,
        connections: Connections,
        credentials: &[String],
    ) -> anyhow::Result<Outcome> {
        let requests: Vec<_> = credentials
            .iter()
            .map(|credential| self.request(authority, credential))
            .collect::<anyhow::Result<_>>()?;
        let requests = Arc::new(requests);
        let left = Arc::new(AtomicUsize::new(self.requests));
        let mut tasks = JoinSet::new();
        let start = Instant::now();
        for sender in connections.0 {
            let (requests, left) = (Arc::clone(&requests), Arc::clone(&left));
            tasks.spawn(one_connection(sender, requests, left, self.stream));
        }
        let mut latencies_ns = Vec::with_capacity(self.requests);
        while let Some(done) = tasks.join_next().await {
            latencies_ns.extend(done??);
        }
        let elapsed = start.elapsed();
        latencies_ns.sort_unstable();
        Ok(Outcome {
            elapsed,
            latencies_ns,
        })
    }

    /// A request as OpenAI's Python SDK makes them: the headers count, for a
    /// filter copies all of them.
    fn request(&self, authority: &str, credential: &str) -> anyhow::Result<Request<Full<Bytes>>> {
        let request = Request::builder()
            .method(Method::POST)
            .uri("/v1/chat/completions")
            .header(header::HOST, authority)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "OpenAI/Python 2.8.1")
            .header(header::AUTHORIZATION, format!("Bearer {credential}"))
            .header("x-stainless-lang", "python")
            .header("x-stainless-package-version", "2.8.1")
            .header("x-stainless-os", "Linux")
            .header("x-stainless-arch", "x64")
            .header("x-stainless-runtime", "CPython")
            .header("x-stainless-runtime-version", "3.13.9")
            .header("x-stainless-async", "false")
            .header("x-stainless-retry-count", "0")
            .header("x-stainless-read-timeout", "600");
        Ok(request.body(Full::new(chat_body(self.stream)))?)
    }
}

async fn one_connection(
    mut sender: SendRequest<Full<Bytes>>,
    requests: Arc<Vec<Request<Full<Bytes>>>>,
    left: Arc<AtomicUsize>,
    stream: bool,
) -> anyhow::Result<Vec<u64>> {
    let mut latencies_ns = Vec::new();
    while let Ok(left) = left.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)) {
        let request = left
            .checked_rem(requests.len())
            .and_then(|turn| requests.get(turn))
            .context("no credential")?;
        sender.ready().await?;
        let start = Instant::now();
        let response = sender.send_request(Request::clone(request)).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        latencies_ns.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        check(status, &body, stream)?;
    }
    Ok(latencies_ns)
}

fn check(status: StatusCode, body: &[u8], stream: bool) -> anyhow::Result<()> {
    let end: &[u8] = if stream { b"data: [DONE]" } else { b"}" };
    if status != StatusCode::OK || !body.trim_ascii_end().ends_with(end) {
        bail!(
            "the gateway answered {status}: {}",
            String::from_utf8_lossy(body)
        );
    }
    Ok(())
}

/// About 1.2 KB, as a chat with a short history has.
fn chat_body(stream: bool) -> Bytes {
    const SYSTEM: &str = "You are the assistant of a shop for bicycle parts. Answer in two or three sentences, name the part number where you know it, and say so where you do not. Never promise a delivery date; point to the order page instead.";
    const QUESTION: &str = "My chain slips on the two smallest sprockets when I stand up on the pedals, but only when it is wet. The chain has about 2,500 km on it, the cassette is older, I can't say how much. The shop around the corner says that I need both, and new chain rings as well. Is that so, or can I begin with the chain?";
    const ANSWER: &str = "Slipping on the smallest sprockets under load points to a worn cassette, as those have the fewest teeth to share the force. A new chain alone tends to slip more, not less, so begin with chain and cassette together. Chain rings last two or three times as long: look at the teeth, and keep them while they are not hooked.";
    const AGAIN: &str =
        "Thank you. It is a ten-speed with an 11-32 cassette. Which parts would fit?";
    let body = serde_json::json!({
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": ANSWER},
            {"role": "user", "content": AGAIN},
        ],
        "temperature": 0.2,
        "stream": stream,
    });
    body.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_what_the_upstream_looks_for() {
        assert!((1_100..1_300).contains(&chat_body(false).len()));
        let asks = |body: &[u8]| memchr::memmem::find(body, br#""stream":true"#).is_some();
        assert!(asks(&chat_body(true)));
        assert!(!asks(&chat_body(false)));
    }

    #[test]
    fn an_answer_that_is_refused_or_cut_fails_the_run() {
        assert!(check(StatusCode::OK, b"{}\n", false).is_ok());
        assert!(check(StatusCode::OK, b"data: {}\n\ndata: [DONE]\n\n", true).is_ok());
        assert!(check(StatusCode::OK, b"data: {}\n\n", true).is_err());
        let refused = check(StatusCode::TOO_MANY_REQUESTS, b"{}", false).unwrap_err();
        assert!(refused.to_string().contains("429"), "{refused}");
    }
}
