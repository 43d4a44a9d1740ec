//! What a flood of forged tokens does to tenants that are known.
//!
//! A malformed token costs next to nothing to refuse; a forged one that is well
//! formed costs a signature check, until the budget of checks is spent. Both
//! floods come at the same rate, each token once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use weir_harness::{
    envoy::Gateway,
    issuer::{Algorithm, Issuer},
    secrets,
};

use crate::{
    identity,
    load::{self, Load},
    report::{show, table},
    series::{self, Round},
    stats::{pairs, spread},
    upstream::Upstream,
};

/// Connections of a flood.
const CONNECTIONS: usize = 16;

/// What comes beside the known tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flood {
    None,
    Malformed,
    Forged,
}

const FLOODS: [(&str, Flood); 3] = [
    ("malformed tokens", Flood::Malformed),
    ("forged RS256 tokens", Flood::Forged),
    ("no flood", Flood::None),
];

/// Measures a known tenant's requests beside each flood in turn, on one gateway.
///
/// # Errors
/// Where one of the tenant's requests fails, or a token of a flood passes.
pub fn measure(rounds: usize, load: &Load, rate: u32) -> anyhow::Result<String> {
    let upstream = Upstream::start()?;
    let folder = tempfile::tempdir()?;
    let issuer = Arc::new(Issuer::new());
    let mut options = identity::options(&secrets::api_key("enterprise"), &issuer, &upstream);
    // As shipped.
    options.identification.remove("tokens");
    let gateway = Gateway::start("envoy", &options, folder.path())?;
    let known = [
        issuer.token(Algorithm::Rs256, "acme"),
        options.tenants.first().context("no tenant")?.key.clone(),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut sent = [0_u64; FLOODS.len()];
    let mut subjects: Vec<usize> = (0..FLOODS.len()).collect();
    let measured = series::run(&mut subjects, rounds, |index| {
        let flood = FLOODS.get(*index).map_or(Flood::None, |(_, flood)| *flood);
        let running = Running::start(flood, rate, &gateway, &issuer);
        let events = upstream.events();
        let round = series::one_round(
            &gateway,
            &runtime,
            load,
            &upstream,
            (&known, events, series::SETTLE),
        );
        let count = running.stop()?;
        if let Some(sent) = sent.get_mut(*index) {
            *sent = sent.saturating_add(count);
        }
        round
    })?;
    Ok(text(&measured, &sent))
}

/// A flood on a thread of its own.
struct Running {
    stopping: Arc<AtomicBool>,
    thread: thread::JoinHandle<anyhow::Result<u64>>,
}

impl Running {
    fn start(flood: Flood, rate: u32, gateway: &Gateway, issuer: &Arc<Issuer>) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let authority = gateway.url.trim_start_matches("http://").to_owned();
        let (stop, issuer) = (Arc::clone(&stopping), Arc::clone(issuer));
        let thread = thread::spawn(move || {
            if flood == Flood::None {
                return Ok(0);
            }
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(send(flood, rate, &authority, &issuer, &stop))
        });
        Self { stopping, thread }
    }

    /// How many tokens it sent.
    fn stop(self) -> anyhow::Result<u64> {
        self.stopping.store(true, Relaxed);
        let ended = self.thread.join();
        ended.map_err(|_| anyhow!("the flood broke down"))?
    }
}

async fn send(
    flood: Flood,
    rate: u32,
    authority: &str,
    issuer: &Issuer,
    stopping: &Arc<AtomicBool>,
) -> anyhow::Result<u64> {
    let each = Duration::from_secs(1)
        .checked_mul(u32::try_from(CONNECTIONS)?)
        .and_then(|time| time.checked_div(rate))
        .context("rate")?;
    let sent = Arc::new(AtomicU64::new(0));
    let genuine = issuer.token(Algorithm::Rs256, "acme");
    let (input, _) = genuine.rsplit_once('.').context("no token")?;
    let mut tasks = tokio::task::JoinSet::new();
    for mut sender in load::connect(authority, CONNECTIONS).await?.into_senders() {
        let (input, authority) = (input.to_owned(), authority.to_owned());
        let (sent, stopping) = (Arc::clone(&sent), Arc::clone(stopping));
        tasks.spawn(async move {
            let mut next = Instant::now();
            while !stopping.load(Relaxed) {
                tokio::time::sleep_until(next.into()).await;
                next = next.checked_add(each).context("time")?;
                let token = match flood {
                    Flood::Forged => format!("{input}.{}", signature()),
                    // Three parts, and what is no header in the first.
                    _ => format!("{}.e30.{}", secrets::random(), signature()),
                };
                let request = Request::get("/v1/models")
                    .header(header::HOST, &authority)
                    .header(header::AUTHORIZATION, format!("Bearer {token}"))
                    .body(Full::<Bytes>::default())?;
                sender.ready().await?;
                let response = sender.send_request(request).await?;
                let status = response.status();
                response.into_body().collect().await?;
                let refused = [StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS];
                if !refused.contains(&status) {
                    bail!("a token of the flood got {status}");
                }
                sent.fetch_add(1, Relaxed);
            }
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(sent.load(Relaxed))
}

/// As long as that of a key of 2,048 bits, and less than its modulus; never the
/// same.
fn signature() -> String {
    let random: Vec<String> = (0..8).map(|_| secrets::random()).collect();
    // 342 characters are 256 bytes; the first is 0, the last has no bits over.
    let text: String = random.concat().chars().take(339).collect();
    format!("AA{text}A")
}

fn text(measured: &[Vec<Round>], sent: &[u64]) -> String {
    let p99 = |at: usize| -> Vec<f64> {
        let rounds = measured.get(at).map(Vec::as_slice).unwrap_or_default();
        rounds.iter().map(|round| round.p99_us).collect()
    };
    let mut rows = vec![
        [
            "beside the tenant",
            "tokens of the flood",
            "tenant's p99 µs",
            "ratio to the first, pair by pair",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for (index, (name, _)) in FLOODS.iter().enumerate() {
        let own = p99(index);
        rows.push(vec![
            (*name).to_owned(),
            sent.get(index).copied().unwrap_or(0).to_string(),
            show(spread(&own), 0),
            show(spread(&pairs(&p99(0), &own, |a, b| b / a)), 2),
        ]);
    }
    table(&rows)
}
