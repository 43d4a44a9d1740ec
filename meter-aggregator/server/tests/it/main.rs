//! The real aggregator, a gateway's log, calls and an operator: the same events by every
//! way, billed once, whenever it is killed. Stripe is away; the ledger says what it has.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)] // tests

mod calls;
mod operator;

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use prost::Message as _;
use serde_json::{Value, json};
use weir_wire::{
    context,
    ids::RequestId,
    keys::Keyring,
    proto::{
        context::TenantContext,
        usage::{Kind, Outcome, UsageEvent, Witness},
    },
    usage::line::{self, LineKey},
};

const TOKENS: [&str; 3] = [
    "the-gateways-token",
    "the-routers-token",
    "the-stores-token",
];
const CONTEXT_KEYS: &str = "k:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

struct Fixture {
    folder: tempfile::TempDir,
    now_ms: u64,
    running: Option<Child>,
    /// What the aggregator knows contexts by.
    keys: &'static str,
}

impl Fixture {
    fn new() -> Self {
        Self::with(&json!({}))
    }

    /// With that section `ingest`.
    fn with(ingest: &Value) -> Self {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let producer =
            |name: &str, token: &str| json!({"name": name, "witness": name, "token_env": token});
        let config = json!({
            "listen": "127.0.0.1:0",
            "data_dir": folder.path().join("data"),
            "producers": [producer("gateway", "GATEWAY"), producer("router", "ROUTER"),
                {"name": "storage", "witness": "service", "token_env": "STORAGE"}],
            "ingest": ingest,
            "access_logs": [{"path": folder.path().join("usage.log"), "producer": "gateway"}],
            "stripe": {
                // Nobody listens there.
                "api_base": "http://127.0.0.1:1", "api_key_env": "STRIPE", "account": "a",
                "meters": {"api_calls": "c", "input_tokens": "i", "output_tokens": "o"},
            },
            // The router tells of nothing here.
            "billing": {"wait_s": 0},
            "tenants": {"acme": {"stripe_customer": "cus"}},
        });
        // JSON is YAML too.
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Self {
            folder,
            now_ms: u64::try_from(since.as_millis()).unwrap(),
            running: None,
            keys: CONTEXT_KEYS,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meter-aggregator"));
        command
            .args(line.split(' '))
            .arg("--config")
            .arg(self.path("config.json"))
            .current_dir(self.folder.path())
            .env("WEIR_CONTEXT_KEYS", self.keys)
            .env("WEIR_ADMIN_TOKEN", "the-operators-token")
            .env("GATEWAY", TOKENS[0])
            .env("ROUTER", TOKENS[1])
            .env("STORAGE", TOKENS[2])
            .env("STRIPE", "sk_test");
        command
    }

    fn start(&mut self) {
        let ready = self.path("ready");
        let _ = fs::remove_file(&ready);
        let log = File::create(self.path("run.log")).unwrap();
        let child = self
            .command("run --ready-file ready")
            .stderr(log)
            .spawn()
            .unwrap();
        self.running = Some(child);
        wait(|| ready.exists().then_some(()));
    }

    /// As a power cut does.
    fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn request_id(&self, n: u64) -> String {
        let mut random = [0; 10];
        random[..8].copy_from_slice(&n.to_be_bytes());
        RequestId::mint(self.now_ms + n, random).to_string()
    }

    fn line(&self, n: u64) -> String {
        line::write(
            &self.event(n).encode_to_vec(),
            &LineKey::of_token(TOKENS[0]),
        )
    }

    fn event(&self, n: u64) -> UsageEvent {
        let signed = TenantContext {
            tenant: "acme".into(),
            plan: "starter".into(),
            request_id: self.request_id(n),
            issued_at_ms: 0,
        };
        UsageEvent {
            kind: Kind::Request.into(),
            event_id: format!("e{n}"),
            request_id: self.request_id(n),
            witness: Witness::Gateway.into(),
            tenant: "acme".into(),
            request_class: "rag".into(),
            outcome: Outcome::Completed.into(),
            status: 200,
            tenant_context: context::sign(&signed, &Keyring::parse(CONTEXT_KEYS).unwrap()),
            producer_run: "run".into(),
            sequence: n,
            ..UsageEvent::default()
        }
    }

    /// What a command answers as JSON.
    #[track_caller]
    fn ask(&self, line: &str) -> Value {
        json_of(&self.command(line).output().unwrap())
    }

    /// Where the aggregator that runs listens.
    fn url(&self) -> String {
        let address = fs::read_to_string(self.path("data/address")).unwrap();
        format!("http://{address}")
    }

    fn append(&self, name: &str, text: &str) {
        let options = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path(name));
        options.unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Envoy's own log, with these events in it.
    fn prefixed(&self, numbers: impl Iterator<Item = u64>) -> String {
        let line = |n| format!("[2026-11-27 error][wasm] usage-events: {}\n", self.line(n));
        let lines: String = numbers.map(line).collect();
        format!("[2026-11-27 info] starting\n{lines}")
    }

    /// API calls in the ledger.
    fn calls(&self) -> u64 {
        let status = json_of(&self.command("status --json").output().unwrap());
        let lines = status["lines"].as_array().unwrap();
        let calls = lines.iter().filter(|l| l["meter"] == "api_calls");
        calls.map(|l| l["total"].as_u64().unwrap()).sum()
    }

    fn wait_for_calls(&self, expected: u64) {
        wait(|| (self.calls() >= expected).then_some(()));
        assert_eq!(self.calls(), expected);
    }

    fn replay(&self, files: &str, expected: [u64; 5], is_whole: bool) {
        let output = self
            .command(&format!("replay --json {files}"))
            .output()
            .unwrap();
        let found = json_of(&output);
        let found = ["lines", "events", "accepted", "quarantined", "torn"]
            .map(|name| found[name].as_u64().unwrap());
        assert_eq!(found, expected);
        assert_eq!(output.status.success(), is_whole);
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.kill();
    }
}

#[track_caller]
fn json_of(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"))
}

#[track_caller]
fn wait(mut until: impl FnMut() -> Option<()>) {
    let begun = Instant::now();
    while until().is_none() {
        assert!(begun.elapsed() < PATIENCE, "it does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_same_events_by_log_and_by_call_bill_once() {
    let mut f = Fixture::new();
    f.start();
    f.append("usage.log", &format!("{}\n", f.line(1)));
    f.wait_for_calls(1);
    // A replay to the one that runs is a producer's call.
    f.append("envoy.log", &f.prefixed(1..=60));
    f.replay("envoy.log", [61, 60, 60, 0, 0], true);
    f.wait_for_calls(60);
    let lines: String = (2..=70).map(|n| format!("{}\n", f.line(n))).collect();
    f.append("usage.log", &lines);
    f.wait_for_calls(70);
}

#[test]
fn killed_while_it_reads_each_event_is_billed_once() {
    let mut f = Fixture::new();
    f.start();
    let mut next = 1;
    for round in 0..4_u64 {
        for _ in 0..300 {
            f.append("usage.log", &format!("{}\n", f.line(next)));
            next += 1;
        }
        if round == 2 {
            fs::rename(f.path("usage.log"), f.path("usage.log.1")).unwrap();
        }
        f.kill();
        f.start();
    }
    f.wait_for_calls(next - 1);
    let status = json_of(&f.command("status --json").output().unwrap());
    assert_eq!(status["quarantined"], 0, "{status}");
}

#[test]
fn a_replay_where_none_runs_books_by_itself() {
    let mut f = Fixture::new();
    f.start();
    f.append("usage.log", &format!("{}\n", f.line(1)));
    f.wait_for_calls(1);
    f.kill();
    let torn = &f.line(9)[..60];
    f.append("envoy.log", &format!("{}x: {torn}\n", f.prefixed(1..=5)));
    f.append("more.log", &f.line(6));
    f.replay("envoy.log more.log", [8, 6, 6, 0, 1], false);
    f.replay("more.log", [1, 1, 1, 0, 0], true);
    let mut child = f
        .command("replay --json -")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(f.prefixed(6..=7).as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(json_of(&output)["accepted"], 2);
    f.start();
    f.wait_for_calls(7);
}

#[test]
fn an_operator_finds_the_request_that_a_tenant_quotes() {
    let mut f = Fixture::new();
    f.start();
    let lines: String = (1..=5).map(|n| format!("{}\n", f.line(n))).collect();
    f.append("usage.log", &lines);
    f.wait_for_calls(5);
    let id = f.request_id(3);
    let run = |line: &str| f.command(line).output().unwrap();
    let found = json_of(&run(&format!("events --request {id}")));
    let request = &found["requests"][0];
    assert_eq!(request["request_id"], id.as_str());
    assert_eq!(
        (&request["class"], &request["outcome"]),
        (&json!("rag"), &json!("completed"))
    );
    let check = |line: &str, expected: &[u64]| {
        let found = json_of(&run(line));
        let ids: Vec<&str> = found["requests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| r["request_id"].as_str().unwrap())
            .collect();
        let expected: Vec<String> = expected.iter().map(|n| f.request_id(*n)).collect();
        assert_eq!(ids, expected, "{line}");
    };
    check("events --limit 2", &[5, 4]);
    check(&format!("events --limit 2 --before {id}"), &[2, 1]);
    check("events --tenant solo", &[]);
    check("events --since 1h --limit 1", &[5]);
    for (line, says) in [
        (
            format!("events --request {}", f.request_id(9)),
            "the ledger has nothing of",
        ),
        ("events --request x".to_owned(), "request: "),
        (
            "events --limit 10001".to_owned(),
            "limit: must be 1 to 10000",
        ),
        ("events --since never".to_owned(), "--since"),
    ] {
        let output = run(&line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains(says),
            "{line}: {said}"
        );
    }
}
