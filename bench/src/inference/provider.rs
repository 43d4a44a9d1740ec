//! A provider that answers at once in both dialects, and takes the router's events.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use axum::{
    Router,
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
    routing::post,
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{StatusCode, header::CONTENT_TYPE};
use tokio::sync::watch;
use weir_wire::usage::PUBLISH_PATH;

use crate::upstream;

const CHAT: &str = include_str!("../../../contracts/fixtures/openai-chat.json");

const MESSAGE: &str = r#"{"id":"msg_01","type":"message","role":"assistant","model":"claude-haiku-4-5-20251001","content":[{"type":"text","text":"Paris, it says, and goes on for a while about rivers."}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":19,"cache_creation_input_tokens":0,"cache_read_input_tokens":16,"output_tokens":10}}"#;

/// A running provider. It ends with the process.
#[derive(Debug)]
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    held: Arc<AtomicUsize>,
    gate: watch::Sender<bool>,
}

#[derive(Clone)]
struct Shared {
    chat: Arc<[Bytes]>,
    messages: Arc<[Bytes]>,
    held: Arc<AtomicUsize>,
    gate: watch::Receiver<bool>,
}

impl Upstream {
    /// Starts it on a thread of its own; its streams have so many chunks with text.
    ///
    /// # Errors
    /// Where it can't listen.
    pub fn start(chunks: usize) -> anyhow::Result<Self> {
        let held = Arc::new(AtomicUsize::new(0));
        let (gate, open) = watch::channel(false);
        let shared = Shared {
            chat: chat_stream(chunks).into(),
            messages: messages_stream(chunks).into(),
            held: Arc::clone(&held),
            gate: open,
        };
        let router = Router::new()
            .route("/v1/chat/completions", post(chat))
            .route("/v1/messages", post(messages))
            .route(
                PUBLISH_PATH,
                post(|_: Bytes| async { StatusCode::ACCEPTED }),
            )
            .with_state(shared);
        let address = upstream::serve("provider", router)?;
        Ok(Self {
            address,
            held,
            gate,
        })
    }

    /// Streams that have begun and wait.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Lets those that wait end.
    pub fn release(&self) {
        self.gate.send_replace(true);
    }
}

fn chat_stream(chunks: usize) -> Vec<Bytes> {
    let chunk = |delta: &str, finish: &str| {
        Bytes::from(format!(
            "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish}}}],\"usage\":null}}\n\n"
        ))
    };
    let mut all = vec![chunk(r#"{"role":"assistant","content":""}"#, "null")];
    all.extend((0..chunks).map(|_| chunk(r#"{"content":" morning rain and"}"#, "null")));
    all.push(chunk("{}", "\"stop\""));
    all.push(Bytes::from_static(b"data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[],\"usage\":{\"prompt_tokens\":19,\"completion_tokens\":600,\"total_tokens\":619}}\n\n"));
    all.push(Bytes::from_static(b"data: [DONE]\n\n"));
    all
}

fn messages_stream(chunks: usize) -> Vec<Bytes> {
    let event = |kind: &str, rest: &str| {
        Bytes::from(format!(
            "event: {kind}\ndata: {{\"type\":\"{kind}\"{rest}}}\n\n"
        ))
    };
    let mut all = vec![
        event(
            "message_start",
            r#","message":{"id":"msg_01","type":"message","role":"assistant","model":"claude-haiku-4-5-20251001","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":19,"output_tokens":1}}"#,
        ),
        event(
            "content_block_start",
            r#","index":0,"content_block":{"type":"text","text":""}"#,
        ),
    ];
    let text = r#","index":0,"delta":{"type":"text_delta","text":" morning rain and"}"#;
    all.extend((0..chunks).map(|_| event("content_block_delta", text)));
    all.push(event("content_block_stop", r#","index":0"#));
    all.push(event(
        "message_delta",
        r#","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":600}"#,
    ));
    all.push(event("message_stop", ""));
    all
}

async fn chat(State(shared): State<Shared>, body: Bytes) -> Response {
    answer(&shared, &body, CHAT, &shared.chat)
}

async fn messages(State(shared): State<Shared>, body: Bytes) -> Response {
    answer(&shared, &body, MESSAGE, &shared.messages)
}

fn answer(shared: &Shared, body: &[u8], whole: &'static str, events: &Arc<[Bytes]>) -> Response {
    let says = |text: &[u8]| memchr::memmem::find(body, text).is_some();
    if !says(br#""stream":true"#) {
        return ([(CONTENT_TYPE, "application/json")], whole).into_response();
    }
    let events: Vec<Bytes> = events.to_vec();
    // Each chunk by itself, as from a model.
    let all = stream::iter(events).then(|event| async {
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(event)
    });
    let head = [(CONTENT_TYPE, "text/event-stream; charset=utf-8")];
    if !says(br#""hold""#) {
        return (head, Body::from_stream(all)).into_response();
    }
    let (held, gate) = (Arc::clone(&shared.held), shared.gate.clone());
    let mut sent = 0_usize;
    let slow = all.then(move |event| {
        sent = sent.saturating_add(1);
        let wait = (sent == 10).then(|| (Arc::clone(&held), gate.clone()));
        async move {
            if let Some((held, mut gate)) = wait {
                held.fetch_add(1, Relaxed);
                let _ = gate.wait_for(|open| *open).await;
            }
            event
        }
    });
    (head, Body::from_stream(slow)).into_response()
}
