//! What the router adds to a call of a provider: against a process that only hands
//! bytes on, with the same server and the same client, in pairs.

mod provider;
mod relay;

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, runtime::Runtime, task::JoinSet};
use weir_harness::{
    parts::{self, RouterOptions, Service},
    providers::Providers,
    secrets,
};
use weir_wire::{context, headers, ids::RequestId, keys::Keyring, proto::context::TenantContext};

pub use self::relay::serve as serve_relay;

use crate::{
    machine,
    report::{show, table},
    series::NO_LIMIT,
    stats::{pairs, spread},
};

/// Connections to the router, as from a gateway's workers.
const CONNECTIONS: usize = 4;

/// Streams held open on each connection, of which a server takes 200.
const STREAMS_EACH: usize = 100;

/// Calls under way on each.
const IN_FLIGHT: usize = 4;

/// Chunks with text in a stream.
const CHUNKS: usize = 200;

/// After a round, until the kernel has counted its CPU time and the router has sent
/// its events.
const SETTLE: Duration = Duration::from_millis(150);

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Rounds that count, of each load.
    pub rounds: usize,
    /// Calls in a round; of streams a twentieth of them.
    pub calls: usize,
    /// Streams that are open at once, for the memory that they take; none where 0.
    pub streams: usize,
}

/// One kind of calls.
struct Load {
    name: &'static str,
    path: &'static str,
    model: &'static str,
    stream: bool,
    /// The load of the plain relay that it is compared with.
    plain: &'static str,
}

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";

const LOADS: [Load; 6] = [
    Load {
        name: "chat → OpenAI",
        path: CHAT,
        model: "gpt-4o-mini",
        stream: false,
        plain: CHAT,
    },
    Load {
        name: "chat → Anthropic",
        path: CHAT,
        model: "claude-haiku-4-5",
        stream: false,
        plain: MESSAGES,
    },
    Load {
        name: "messages → OpenAI",
        path: MESSAGES,
        model: "gpt-4o-mini",
        stream: false,
        plain: CHAT,
    },
    Load {
        name: "chat → OpenAI, stream",
        path: CHAT,
        model: "gpt-4o-mini",
        stream: true,
        plain: CHAT,
    },
    Load {
        name: "chat → Anthropic, stream",
        path: CHAT,
        model: "claude-haiku-4-5",
        stream: true,
        plain: MESSAGES,
    },
    Load {
        name: "messages → OpenAI, stream",
        path: MESSAGES,
        model: "gpt-4o-mini",
        stream: true,
        plain: CHAT,
    },
];

/// Measures the router against a plain relay.
///
/// # Errors
/// Where an answer is not 200 and whole.
pub fn measure(extent: Extent) -> anyhow::Result<String> {
    let folder = tempfile::tempdir()?;
    let upstream = provider::Upstream::start(CHUNKS)?;
    let keys = format!("k1:{}", secrets::random());
    let router = start(&upstream, &keys, folder.path())?;
    let relay = Relay::start(&format!("http://{}", upstream.address))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let bench = Bench {
        runtime,
        keys: Keyring::parse(&keys)?,
    };
    let (address, pid) = (&router.address, router.process.id());
    let router = bench.subject(address, pid, CONNECTIONS)?;
    let relay = bench.subject(&relay.address, relay.process.id(), CONNECTIONS)?;
    let mut text = bench.calls(extent, &router, &relay)?;
    if extent.streams > 0 {
        let router = bench.subject(address, pid, extent.streams.div_ceil(STREAMS_EACH))?;
        text.push_str(&match bench.memory(extent.streams, &upstream, &router) {
            Ok(text) => text,
            Err(error) => format!("\nstreams held open: {error:#}\n"),
        });
    }
    Ok(text)
}

fn start(upstream: &provider::Upstream, keys: &str, folder: &Path) -> anyhow::Result<Service> {
    let base = format!("http://{}", upstream.address);
    let options = RouterOptions {
        members: &serde_json::Value::Null,
        providers: &Providers::at(&format!("{base}/v1")),
        aggregator: &base,
        context_keys: keys,
        router_token: &secrets::random(),
        service_token: &secrets::random(),
        services_listen: "127.0.0.1:0",
        directory: None,
        quota: None,
        limits: &[("enterprise".to_owned(), NO_LIMIT)],
        listen: "127.0.0.1:0",
    };
    // The binary beside this one: of the same profile.
    parts::router(&options, folder).context("cargo build --release -p router-service makes it")
}

/// The plain relay: this binary again.
struct Relay {
    process: Child,
    address: String,
}

impl Relay {
    fn start(upstream: &str) -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["--serve-relay", upstream])
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().context("no output")?;
        let mut address = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut address)?;
        Ok(Self {
            process,
            address: address.trim().to_owned(),
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

type Sender = SendRequest<Full<Bytes>>;

/// A process that is measured.
struct Subject {
    senders: Vec<Sender>,
    pid: u32,
}

struct Bench {
    runtime: Runtime,
    keys: Keyring,
}

impl Bench {
    fn subject(&self, address: &str, pid: u32, connections: usize) -> anyhow::Result<Subject> {
        let senders = self.runtime.block_on(async {
            let mut senders = Vec::with_capacity(connections);
            for _ in 0..connections {
                let tcp = TcpStream::connect(address).await?;
                tcp.set_nodelay(true)?;
                let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                    .initial_stream_window_size(1 << 20)
                    .initial_connection_window_size(1 << 24)
                    .handshake(TokioIo::new(tcp))
                    .await?;
                tokio::spawn(connection);
                senders.push(sender);
            }
            anyhow::Ok(senders)
        });
        Ok(Subject {
            senders: senders?,
            pid,
        })
    }

    /// A body of about 1.2 KB.
    fn body(load: &Load) -> Bytes {
        let text = "The keeper opens a second gate before noon. ".repeat(24);
        let body = serde_json::json!({
            "model": load.model,
            "max_tokens": 500,
            "stream": load.stream,
            "messages": [{"role": "user", "content": text}],
        });
        body.to_string().into()
    }

    fn request(&self, path: &str, body: &Bytes) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut random = [0; 10];
        getrandom::fill(&mut random).map_err(|e| anyhow::anyhow!("{e}"))?;
        let now_ms = i64::try_from(
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)?
                .as_millis(),
        )?;
        let signed = TenantContext {
            tenant: "acme".to_owned(),
            plan: "enterprise".to_owned(),
            request_id: RequestId::mint(u64::try_from(now_ms)?, random).to_string(),
            issued_at_ms: now_ms,
        };
        Ok(Request::post(format!("http://router{path}"))
            .header(headers::TENANT_CONTEXT, context::sign(&signed, &self.keys))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body.clone()))?)
    }

    /// Makes so many calls; gives the microseconds of CPU that one took.
    fn round(
        &self,
        subject: &Subject,
        path: &str,
        body: &Bytes,
        calls: usize,
    ) -> anyhow::Result<f64> {
        let requests: Vec<_> = (0..calls)
            .map(|_| self.request(path, body))
            .collect::<anyhow::Result<_>>()?;
        let before = machine::cpu_ns(subject.pid)?;
        self.runtime.block_on(async {
            let mut tasks = JoinSet::new();
            let mut senders = subject.senders.iter().cycle();
            for request in requests {
                if tasks.len() >= CONNECTIONS * IN_FLIGHT {
                    tasks.join_next().await.context("no task")???;
                }
                let mut sender = senders.next().context("no connection")?.clone();
                tasks.spawn(async move { one(&mut sender, request).await });
            }
            while let Some(done) = tasks.join_next().await {
                done??;
            }
            anyhow::Ok(())
        })?;
        thread::sleep(SETTLE);
        let after = machine::cpu_ns(subject.pid)?;
        Ok(after.saturating_sub(before) as f64 / 1_000.0 / calls as f64)
    }

    fn calls(&self, extent: Extent, router: &Subject, relay: &Subject) -> anyhow::Result<String> {
        let mut rows = vec![
            [
                "median (min–max), CPU µs",
                "router",
                "plain relay",
                "router adds, a call",
                "a chunk",
            ]
            .map(str::to_owned)
            .to_vec(),
        ];
        for load in &LOADS {
            let body = Self::body(load);
            let calls = match load.stream {
                true => extent.calls.div_ceil(20),
                false => extent.calls,
            };
            let (mut ours, mut plain) = (Vec::new(), Vec::new());
            for round in 0..=extent.rounds {
                let a = self.round(router, load.path, &body, calls)?;
                let b = self.round(relay, load.plain, &body, calls)?;
                // The first one warms up.
                if round > 0 {
                    ours.push(a);
                    plain.push(b);
                }
            }
            let added = pairs(&plain, &ours, |base, other| other - base);
            let mut row = vec![
                load.name.to_owned(),
                show(spread(&ours), 1),
                show(spread(&plain), 1),
                show(spread(&added), 1),
            ];
            if load.stream {
                let chunks: Vec<f64> = ours.iter().map(|us| us / CHUNKS as f64).collect();
                row.push(show(spread(&chunks), 2));
            }
            rows.push(row);
        }
        Ok(table(&rows))
    }

    /// Holds so many streams open, and tells what the router's memory is then.
    fn memory(
        &self,
        streams: usize,
        upstream: &provider::Upstream,
        router: &Subject,
    ) -> anyhow::Result<String> {
        let before = machine::resident_bytes(router.pid)?;
        let load = &LOADS[3];
        let body = Bytes::from_static(
            br#"{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"hold"}]}"#,
        );
        let during = self.runtime.block_on(async {
            let mut tasks = JoinSet::new();
            let mut senders = router.senders.iter().cycle();
            for _ in 0..streams {
                let request = self.request(load.path, &body)?;
                let mut sender = senders.next().context("no connection")?.clone();
                tasks.spawn(async move { one(&mut sender, request).await });
                tokio::task::yield_now().await;
            }
            while upstream.held() < streams {
                tokio::time::sleep(Duration::from_millis(100)).await;
                if let Some(ended) = tasks.try_join_next() {
                    ended??;
                    anyhow::bail!("a stream ended too early");
                }
            }
            let during = machine::resident_bytes(router.pid)?;
            upstream.release();
            while let Some(done) = tasks.join_next().await {
                done??;
            }
            anyhow::Ok(during)
        })?;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        Ok(format!(
            "\n{streams} streams open at once: {:.0} MiB resident, {:.0} MiB before\n",
            mib(during),
            mib(before)
        ))
    }
}

async fn one(sender: &mut Sender, request: Request<Full<Bytes>>) -> anyhow::Result<()> {
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let mut body = response.into_body();
    let mut last = Bytes::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            last = data;
        }
    }
    ensure!(
        status == 200,
        "{status}: {}",
        String::from_utf8_lossy(&last)
    );
    Ok(())
}
