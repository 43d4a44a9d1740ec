//! What classification and usage cost: bodies short and long, streams of many chunks,
//! and the time to the first byte.

use std::{
    convert::Infallible,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, State},
    response::{IntoResponse as _, Response},
    routing::post,
};
use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use prost::Message as _;
use serde_json::json;
use tokio::runtime::Runtime;
use weir_harness::envoy::{self, Gateway, GatewayOptions};
use weir_wire::{headers as names, proto::usage::PublishRequest, usage::PUBLISH_PATH};

use crate::{
    identity::QUIET_PERCENT,
    load, machine, nothing,
    report::{show, table},
    stats::{pairs, quantile, spread},
    upstream,
};

/// Chunks of a stream.
const CHUNKS: u64 = 1_000;

/// Between two chunks, so that Envoy reads each by itself.
const CHUNK_PAUSE: Duration = Duration::from_millis(1);

/// After a round, until events have left and the kernel has counted its CPU time.
const SETTLE: Duration = Duration::from_millis(150);

/// Pairs of requests for the time to the first byte, of each start.
const FIRST_BYTES: usize = 3_000;

const CHUNK: &str = r#"data: {"id":"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG","object":"chat.completion.chunk","created":1741570283,"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_50cad350e4","choices":[{"index":0,"delta":{"content":" river"},"logprobs":null,"finish_reason":null}],"usage":null}

"#;

const LAST: &str = r#"data: {"id":"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG","object":"chat.completion.chunk","created":1741570283,"model":"gpt-4o-mini-2024-07-18","choices":[],"usage":{"prompt_tokens":19,"completion_tokens":1000,"total_tokens":1019}}

data: [DONE]

"#;

const JSON: &str = include_str!("../../contracts/fixtures/openai-chat.json");

/// What is sent, how often in a round, and over how many connections.
#[derive(Debug, Clone, Copy)]
struct Ask {
    name: &'static str,
    body_bytes: usize,
    stream: bool,
    requests: usize,
    connections: usize,
    /// What the CPU time of a round is divided by beside requests, such as chunks.
    parts: u64,
    unit: &'static str,
}

const ASKS: [Ask; 3] = [
    Ask {
        name: "a chat of 1.2 KB",
        body_bytes: 1_200,
        stream: false,
        requests: 400,
        connections: 8,
        parts: 1,
        unit: "µs a request",
    },
    Ask {
        name: "a chat of 1 MB",
        body_bytes: 1_000_000,
        stream: false,
        requests: 40,
        connections: 2,
        parts: 1,
        unit: "µs a request",
    },
    Ask {
        name: "a stream of 1,000 chunks",
        body_bytes: 1_200,
        stream: true,
        requests: 8,
        connections: 8,
        parts: CHUNKS,
        unit: "µs a chunk",
    },
];

/// The filters that are compared with one that does nothing.
const FILTERS: [(&str, &[&str]); 4] = [
    ("a filter that does nothing", &[]),
    ("request-classification", &["request_classification"]),
    ("usage-events", &["usage_events"]),
    ("both", &["request_classification", "usage_events"]),
];

/// Measures `rounds` rounds on each of `starts` starts of the gateways.
///
/// # Errors
/// Where one request fails.
pub fn measure(rounds: usize, starts: usize) -> anyhow::Result<String> {
    let seen = Arc::new(AtomicU64::new(0));
    let router = Router::new()
        .route("/v1/chat/completions", post(chat))
        .route(PUBLISH_PATH, post(publish))
        .layer(DefaultBodyLimit::disable())
        .with_state(Arc::clone(&seen));
    let address = upstream::serve("upstream", router)?.to_string();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // By what is asked, and by filter: what a quiet round cost, of each start.
    let mut quiet = vec![vec![Vec::new(); FILTERS.len()]; ASKS.len()];
    let mut first_bytes = vec![Vec::new(); FILTERS.len()];
    for _ in 0..starts {
        let folder = tempfile::tempdir()?;
        let gateways = FILTERS
            .iter()
            .enumerate()
            .map(|(index, (_, filters))| start(index, filters, &address, folder.path()))
            .collect::<anyhow::Result<Vec<_>>>()?;
        for (ask, quiet) in ASKS.iter().zip(&mut quiet) {
            let costs = measure_one(ask, &gateways, rounds, &runtime)?;
            for (quiet, costs) in quiet.iter_mut().zip(costs) {
                quiet.push(quantile(&costs, QUIET_PERCENT));
            }
        }
        let times = measure_first_bytes(&gateways, &runtime)?;
        for (all, times) in first_bytes.iter_mut().zip(times) {
            all.extend(times);
        }
    }
    if seen.load(Relaxed) == 0 {
        bail!("no usage event arrived");
    }
    Ok(format!("{}\n{}", text(&quiet), first_text(&first_bytes)))
}

fn start(index: usize, filters: &[&str], address: &str, folder: &Path) -> anyhow::Result<Gateway> {
    let options = GatewayOptions {
        filters: filters.iter().map(ToString::to_string).collect(),
        concurrency: 1,
        ..GatewayOptions::new(address, address)
    };
    let mut config = envoy::configuration(&options)?;
    if filters.is_empty() {
        envoy::http_filters(&mut config)?.insert(0, nothing::filter(folder)?);
    }
    let name = format!("envoy-{index}");
    let path = folder.join(format!("{name}.json"));
    fs::write(&path, config.to_string())?;
    Gateway::start_with(&name, &options, folder, &path)
}

/// CPU time of each round, by gateway, in µs for each part.
fn measure_one(
    ask: &Ask,
    gateways: &[Gateway],
    rounds: usize,
    runtime: &Runtime,
) -> anyhow::Result<Vec<Vec<f64>>> {
    let mut costs = vec![Vec::with_capacity(rounds); gateways.len()];
    // One more warms up.
    for round in 0..=rounds {
        let mut order: Vec<_> = gateways.iter().zip(&mut costs).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for (gateway, costs) in order {
            let cost = one_round(ask, gateway, runtime)?;
            if round > 0 {
                costs.push(cost);
            }
        }
    }
    Ok(costs)
}

fn one_round(ask: &Ask, gateway: &Gateway, runtime: &Runtime) -> anyhow::Result<f64> {
    let authority = gateway.url.trim_start_matches("http://");
    let connections = runtime.block_on(load::connect(authority, ask.connections))?;
    let request = request(authority, ask.body_bytes, ask.stream)?;
    let each = ask.requests.div_ceil(ask.connections);
    thread::sleep(SETTLE);
    let before_ns = machine::cpu_ns(gateway.process.id())?;
    runtime.block_on(async {
        let tasks: Vec<_> = connections
            .into_senders()
            .into_iter()
            .map(|sender| tokio::spawn(one_after_the_other(sender, request.clone(), each)))
            .collect();
        for task in tasks {
            task.await??;
        }
        anyhow::Ok(())
    })?;
    thread::sleep(SETTLE);
    let spent_ns = machine::cpu_ns(gateway.process.id())?.saturating_sub(before_ns);
    let requests = u64::try_from(each.saturating_mul(ask.connections))?;
    let parts = requests.saturating_mul(ask.parts);
    Ok(spent_ns as f64 / 1_000.0 / parts as f64)
}

async fn one_after_the_other(
    mut sender: SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
    times: usize,
) -> anyhow::Result<()> {
    for _ in 0..times {
        sender.ready().await?;
        let answer = sender.send_request(request.clone()).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if status != StatusCode::OK || body.is_empty() {
            bail!("{status}: {}", String::from_utf8_lossy(&body));
        }
    }
    Ok(())
}

/// By gateway: from sending a request to the first byte of its answer's body, in µs;
/// the requests at one position were made one right after the other.
fn measure_first_bytes(gateways: &[Gateway], runtime: &Runtime) -> anyhow::Result<Vec<Vec<f64>>> {
    runtime.block_on(async {
        let mut ways = Vec::new();
        for gateway in gateways {
            let authority = gateway.url.trim_start_matches("http://");
            let senders = load::connect(authority, 1).await?.into_senders();
            let sender = senders.into_iter().next().context("no connection")?;
            let request = request(authority, 1_200, true)?;
            ways.push((sender, request, Vec::with_capacity(FIRST_BYTES)));
        }
        for round in 0..FIRST_BYTES {
            let mut order: Vec<_> = ways.iter_mut().collect();
            // Who comes first finds cold caches.
            let count = order.len();
            order.rotate_left(round.checked_rem(count).unwrap_or(0));
            for (sender, request, times) in order {
                times.push(first_byte_us(sender, request.clone()).await?);
            }
        }
        Ok(ways.into_iter().map(|(_, _, times)| times).collect())
    })
}

async fn first_byte_us(
    sender: &mut SendRequest<Full<Bytes>>,
    mut request: Request<Full<Bytes>>,
) -> anyhow::Result<f64> {
    // A stream of a few chunks, at once.
    request
        .headers_mut()
        .insert(CHUNKS_HEADER, header::HeaderValue::from_static("8"));
    sender.ready().await?;
    let start = Instant::now();
    let mut body = sender.send_request(request).await?.into_body();
    body.frame().await.context("no body")??;
    let time = start.elapsed();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(time.as_secs_f64() * 1e6)
}

/// Asks the upstream for so many chunks, without pauses.
const CHUNKS_HEADER: &str = "bench-chunks";

fn request(
    authority: &str,
    body_bytes: usize,
    stream: bool,
) -> anyhow::Result<Request<Full<Bytes>>> {
    const WORDS: &str = "My chain slips on the two smallest sprockets. ";
    let count = body_bytes.saturating_sub(200).div_ceil(WORDS.len());
    let body = json!({
        "messages": [
            {"role": "system", "content": "Answer in two or three sentences."},
            {"role": "user", "content": WORDS.repeat(count)},
        ],
        "model": "gpt-4o-mini",
        "temperature": 0.2,
        "stream": stream,
        "user": "bench",
    });
    let request = Request::builder()
        .method(Method::POST)
        .uri("/v1/chat/completions")
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, "OpenAI/Python 3.54.0")
        .header("x-stainless-lang", "python")
        .header("x-stainless-os", "Linux")
        .header("x-stainless-async", "false")
        .header("x-stainless-retry-count", "0")
        // As tenant-identification leaves them, which is not in the chain here.
        .header(names::TENANT_ID, "acme")
        .header(names::TENANT_PLAN, "enterprise")
        .header(names::REQUEST_ID, "01a2c5e0-0000-7000-8000-000000000000")
        .header(
            names::TENANT_CONTEXT,
            format!("v1.k1.{}.{}", "x".repeat(110), "x".repeat(43)),
        );
    Ok(request.body(Full::new(body.to_string().into()))?)
}

async fn chat(headers: http::HeaderMap, body: Bytes) -> Response {
    if memchr::memmem::rfind(&body, br#""stream":true"#).is_none() {
        return ([(header::CONTENT_TYPE, "application/json")], JSON).into_response();
    }
    let asked = headers
        .get(CHUNKS_HEADER)
        .and_then(|v| v.to_str().ok()?.parse().ok());
    let (chunks, pause) = match asked {
        Some(chunks) => (chunks, None),
        None => (CHUNKS, Some(CHUNK_PAUSE)),
    };
    let events = stream::unfold(0, move |sent: u64| async move {
        if sent > chunks {
            return None;
        }
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        let event = if sent == chunks { LAST } else { CHUNK };
        let event = Ok::<_, Infallible>(Bytes::from_static(event.as_bytes()));
        Some((event, sent.saturating_add(1)))
    });
    (
        [(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")],
        Body::from_stream(events),
    )
        .into_response()
}

async fn publish(State(seen): State<Arc<AtomicU64>>, body: Bytes) -> StatusCode {
    let Ok(batch) = PublishRequest::decode(body) else {
        return StatusCode::BAD_REQUEST;
    };
    seen.fetch_add(u64::try_from(batch.events.len()).unwrap_or(0), Relaxed);
    StatusCode::ACCEPTED
}

fn text(quiet: &[Vec<Vec<f64>>]) -> String {
    let mut rows = vec![
        [
            "quiet rounds: median (min–max) of the starts",
            "CPU µs",
            "more than nothing",
            "of",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for (ask, by_filter) in ASKS.iter().zip(quiet) {
        let Some(base) = by_filter.first() else {
            continue;
        };
        for ((name, _), own) in FILTERS.iter().zip(by_filter) {
            rows.push(vec![
                format!("{}: {name}", ask.name),
                show(spread(own), 2),
                show(spread(&pairs(base, own, |a, b| b - a)), 2),
                ask.unit.to_owned(),
            ]);
        }
    }
    table(&rows)
}

/// The median of paired differences and its 95 % interval, by the binomial law of
/// order statistics: the values at n/2 ± 1.96 √n / 2.
fn first_text(times: &[Vec<f64>]) -> String {
    let mut rows = vec![
        [
            "to the first byte",
            "median µs",
            "more, pair by pair",
            "95 % interval of that",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    let Some(base) = times.first() else {
        return String::new();
    };
    for ((name, _), own) in FILTERS.iter().zip(times) {
        let mut more = pairs(base, own, |a, b| b - a);
        more.sort_by(f64::total_cmp);
        let half = more.len() as f64 / 2.0;
        let reach = 0.98 * (more.len() as f64).sqrt();
        let at = |rank: f64| {
            more.get(rank.max(0.0) as usize)
                .copied()
                .unwrap_or(f64::NAN)
        };
        rows.push(vec![
            (*name).to_owned(),
            format!("{:.1}", spread(own).median),
            format!("{:.1}", at(half)),
            format!("{:.1}–{:.1}", at(half - reach), at(half + reach)),
        ]);
    }
    table(&rows)
}
