//! What the tests of the whole share: a running Weir, the provider's log, and
//! the comparison of the two ends.

pub mod books;
pub mod load;
pub mod made_up;

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use reqwest::blocking::{Client, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use weir_harness::{Options, Stack, client, parts::Service, paths, providers::PROVIDERS};

/// A running Weir, in a folder of its own.
pub struct Pipeline {
    /// All of it.
    pub stack: Stack,
    /// For tenants' requests.
    pub http: Client,
    /// When it was started, seconds of the Unix epoch.
    started_s: i64,
    _folder: TempDir,
}

/// How long a test waits for what must come. It ends as soon as it came: the time is for
/// a machine that has much else to do.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long a gateway waits for the quota service, where a test is not about that.
const QUOTA_TIMEOUT_MS: u64 = 5_000;

/// How long a probe of the self-hosted provider waits, where a test is not about that.
const PROBE_TIMEOUT_MS: u64 = 20_000;

/// Sums by tenant: API calls, input tokens, output tokens.
pub type Sums = BTreeMap<String, [i64; 3]>;

/// The meters of [`Sums`], in its order: input tokens have two.
pub const METERS: [&[&str]; 3] = [
    &["weir_api_calls"],
    &["weir_input_tokens", "weir_cached_input_tokens"],
    &["weir_output_tokens"],
];

impl Pipeline {
    /// The embedded defaults, with limits that no test meets by accident.
    ///
    /// # Panics
    /// Where a part does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::with(Options {
            limits: vec![("starter".into(), 100_000), ("enterprise".into(), 100_000)],
            ..Options::default()
        })
    }

    /// One whose requests are served by the model that they ask for or by none: each is
    /// sent once, whatever came of those before.
    ///
    /// # Panics
    /// Where a part does not start.
    #[must_use]
    pub fn alone() -> Self {
        let alone = json!({"fallback": false});
        Self::with(Options {
            limits: vec![("starter".into(), 100_000), ("enterprise".into(), 100_000)],
            router: json!({
                "failover": {
                    "retry": {"max_attempts": 1},
                    "health": {"pause_max_ms": 1, "faults_in_a_row": 1_000, "calls_min": 1_000},
                },
                "plans": {"enterprise": alone.clone(), "starter": alone},
            }),
            ..Options::default()
        })
    }

    /// A Weir with other options; its plans have no bounds of money and tokens but
    /// those that the options name. Where they say nothing of it, its gateways and its
    /// probes wait longer than the shipped defaults: a router or a fake that a busy
    /// machine keeps waiting is not away.
    ///
    /// # Panics
    /// Where a part does not start.
    #[must_use]
    pub fn with(mut options: Options) -> Self {
        let without = json!({"budget": null, "tokens_per_minute": null, "in_flight": null});
        for plan in ["enterprise", "starter"] {
            let mut members = without.clone();
            if let Value::Object(own) = options.router["plans"][plan].take() {
                own.into_iter().for_each(|(k, v)| members[k] = v);
            }
            options.router["plans"][plan] = members;
        }
        let timeout = options.quota.entry("timeout_ms");
        timeout.or_insert(json!(QUOTA_TIMEOUT_MS));
        let probe = &mut options.router["providers"]["self-hosted"]["probe"];
        if probe["timeout_ms"].is_null() {
            probe["timeout_ms"] = json!(PROBE_TIMEOUT_MS);
        }
        let folder = tempfile::tempdir().expect("a folder");
        Self {
            stack: Stack::start(&options, folder.path()).expect("Weir starts"),
            http: client::client(),
            started_s: now_s(),
            _folder: folder,
        }
    }

    /// The key of a tenant.
    ///
    /// # Panics
    /// Where there is no such tenant.
    #[must_use]
    pub fn key(&self, tenant: &str) -> &str {
        match tenant {
            "acme" => &self.stack.secrets.enterprise_key,
            "solo" => &self.stack.secrets.starter_key,
            other => panic!("no tenant {other}"),
        }
    }

    /// Posts `body` for a tenant through the first gateway, with the tenant's
    /// name as its `user`, which the provider's log shows.
    ///
    /// # Panics
    /// Where the gateway does not answer.
    #[must_use]
    pub fn post(&self, tenant: &str, path: &str, mut body: Value) -> Response {
        match path.ends_with("/messages") {
            true => body["metadata"] = json!({"user_id": tenant}),
            false => body["user"] = json!(tenant),
        }
        self.http
            .post(format!("{}{path}", self.stack.url()))
            .bearer_auth(self.key(tenant))
            .json(&body)
            .send()
            .expect("the gateway answers")
    }

    /// A chat of a tenant on the fast model.
    #[must_use]
    pub fn chat(&self, tenant: &str, text: &str) -> Response {
        self.post(tenant, "/v1/chat/completions", chat(text, false))
    }

    /// Allows a tenant that in its plan's place; the router decides by it once this
    /// returns.
    ///
    /// # Panics
    /// Where the directory's file can't be changed, or is not served.
    pub fn allow(&self, tenant: &str, allowance: &Value) {
        self.change(tenant, "allowance", allowance);
    }

    /// Gives a tenant another member in the directory, and waits until the router serves
    /// it; the gateways have it a moment later.
    ///
    /// # Panics
    /// Where the directory's file can't be changed, or is not served.
    pub fn change(&self, tenant: &str, member: &str, value: &Value) {
        let path = &self.stack.directory;
        let text = std::fs::read_to_string(path).expect("the directory");
        let mut file: Value = serde_json::from_str(&text).expect("JSON, which is YAML too");
        let version = file["version"].as_u64().expect("a version");
        let version = version + 1;
        file["version"] = json!(version);
        let tenants = file["tenants"].as_array_mut().expect("tenants");
        let listed = tenants.iter_mut().find(|t| t["id"] == tenant);
        listed.expect("a tenant")[member] = value.clone();
        let new = path.with_extension("new");
        std::fs::write(&new, format!("{file:#}")).expect("the directory");
        std::fs::rename(&new, path).expect("the directory");
        let wanted = format!("version={version}");
        let is_served = || {
            let log = std::fs::read_to_string(&self.stack.router.process.log);
            log.expect("a log").lines().any(|line| {
                let mut words = line.split_whitespace();
                line.contains("serving a new version of the directory")
                    && words.any(|word| word == wanted)
            })
        };
        let start = Instant::now();
        while !is_served() {
            assert!(start.elapsed() < PATIENCE, "{version} is not served");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Tells the fake provider to fail as `fault` says.
    ///
    /// # Panics
    /// Where it does not take it.
    pub fn provider_fault(&self, fault: &Value) {
        self.fault_of("openai", fault);
    }

    /// The same of the provider of that name.
    ///
    /// # Panics
    /// Where it does not take it.
    pub fn fault_of(&self, name: &str, fault: &Value) {
        control(self.stack.providers.get(name).fake.as_ref(), fault);
    }

    /// Lets the fake provider be well again.
    ///
    /// # Panics
    /// Where it does not answer.
    pub fn provider_heals(&self) {
        self.heal("openai");
    }

    /// The same of the provider of that name.
    ///
    /// # Panics
    /// Where it does not answer.
    pub fn heal(&self, name: &str) {
        let provider = self.stack.providers.get(name).fake.as_ref();
        let provider = provider.expect("a fake provider");
        let url = format!("{}/__fake/faults", provider.url());
        let answer = self.http.delete(url).send().expect("the fake answers");
        assert!(answer.status().is_success());
    }

    /// Tells the fake Stripe to fail as `fault` says.
    ///
    /// # Panics
    /// Where it does not take it.
    pub fn stripe_fault(&self, fault: &Value) {
        control(self.stack.stripe.as_ref(), fault);
    }

    /// What the provider served, once nothing is under way there.
    ///
    /// # Panics
    /// Where requests stay under way for a minute.
    #[must_use]
    pub fn provider_log(&self) -> Vec<Value> {
        self.log_of("openai")
    }

    /// The same of the provider of that name.
    ///
    /// # Panics
    /// Where requests stay under way for a minute.
    #[must_use]
    pub fn log_of(&self, name: &str) -> Vec<Value> {
        let provider = self.stack.providers.get(name).fake.as_ref();
        let provider = provider.expect("a fake provider");
        let start = Instant::now();
        loop {
            let answer = self
                .http
                .get(format!("{}/__fake/log", provider.url()))
                .send();
            let answer = answer.expect("the fake answers");
            let open = answer.headers()["x-fake-open-requests"]
                .to_str()
                .unwrap_or("")
                .to_owned();
            let log: Vec<Value> = answer.json().expect("a log");
            if open == "0" {
                return log;
            }
            assert!(start.elapsed() < PATIENCE, "{open} requests are open");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What each tenant should be billed by the provider's log: requests that
    /// were served, and their tokens.
    #[must_use]
    pub fn served(&self) -> Sums {
        let mut sums = Sums::new();
        let logs = PROVIDERS.iter().flat_map(|name| self.log_of(name));
        // Nobody charges for what counts alone, and the router's probes are free.
        let free = ["/v1/messages/count_tokens", "/v1/models"];
        let charged = logs.filter(|entry| !free.iter().any(|path| entry["path"] == *path));
        for entry in charged {
            let tenant = entry["user"].as_str().unwrap_or_default().to_owned();
            let sum = sums.entry(tenant).or_default();
            let billed = matches!(entry["outcome"].as_str(), Some("completed" | "client_gone"));
            sum[0] += i64::from(billed);
            sum[1] += entry["prompt_tokens"].as_i64().unwrap_or(0);
            sum[2] += entry["completion_tokens"].as_i64().unwrap_or(0);
        }
        sums
    }

    /// What Stripe holds for each tenant, by its own summaries.
    ///
    /// # Panics
    /// Where Stripe does not answer.
    #[must_use]
    pub fn billed(&self) -> Sums {
        let account = self.stack.account();
        let start = (self.started_s - 3_600).div_euclid(60) * 60;
        let end = (now_s() + 7_200).div_euclid(60) * 60;
        self.stack
            .customers
            .iter()
            .map(|(tenant, customer)| {
                let sum = METERS.map(|meters| {
                    let sums = meters.iter().map(|meter| {
                        account
                            .metered(meter, customer, start, end)
                            .expect("a summary")
                    });
                    sums.sum()
                });
                (tenant.clone(), sum)
            })
            .filter(|(_, sum)| *sum != [0; 3])
            .collect()
    }

    /// Sends Stripe everything; gives what the command printed.
    ///
    /// # Panics
    /// Where the command fails.
    pub fn close_hour(&self) -> Value {
        let output = self.try_close_hour();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// The same, failing or not.
    ///
    /// # Panics
    /// Where the command can't be run.
    #[must_use]
    pub fn try_close_hour(&self) -> Output {
        self.stack
            .meter_aggregator(&["close-hour", "--json", "--quiet-ms", "600"])
            .expect("meter-aggregator runs")
    }

    /// What the ledger holds of requests, as `meter-aggregator events` lists it, once
    /// all that came is booked.
    ///
    /// # Panics
    /// Where the command fails.
    #[must_use]
    pub fn events(&self, arguments: &[&str]) -> Vec<Value> {
        let arguments = [&["events", "--json"], arguments].concat();
        let output = self.stack.meter_aggregator(&arguments);
        let output = output.expect("meter-aggregator runs");
        assert!(output.status.success(), "{output:?}");
        let listed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        listed["requests"].as_array().expect("requests").clone()
    }

    /// Closes the hour, and checks that Stripe holds exactly what the provider
    /// served, for each tenant; and that closing it again bills nothing more.
    #[track_caller]
    pub fn check_adds_up(&self) -> Sums {
        let billed = self.billed_once(|billed| *billed == self.served());
        self.close_hour();
        assert_eq!(self.billed(), billed, "billed again");
        billed
    }

    /// What Stripe holds once it is all, as `is_all` says. The hour is closed until then:
    /// an event comes late where a gateway or a router waits for the machine.
    ///
    /// # Panics
    /// Where it is not in a minute.
    #[track_caller]
    pub fn billed_once(&self, is_all: impl Fn(&Sums) -> bool) -> Sums {
        let start = Instant::now();
        loop {
            self.close_hour();
            let billed = self.billed();
            if is_all(&billed) {
                return billed;
            }
            let served = self.served();
            assert!(
                start.elapsed() < PATIENCE,
                "billed {billed:?} of {served:?}"
            );
        }
    }

    /// What the ledger holds of requests, as [`events`](Self::events) gives it, once it
    /// is all of it.
    ///
    /// # Panics
    /// Where it is not in a minute.
    #[must_use]
    #[track_caller]
    pub fn events_once(&self, arguments: &[&str], is_all: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let start = Instant::now();
        loop {
            let events = self.events(arguments);
            if is_all(&events) {
                return events;
            }
            assert!(start.elapsed() < PATIENCE, "{events:#?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Runs a Python script of this crate, with the virtual environment's SDK.
    ///
    /// # Panics
    /// Where it fails; with what it printed.
    pub fn python(&self, script: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("sdk")
            .join(script);
        let output = Command::new(paths::python().expect("Python"))
            .arg(path)
            .env("WEIR_BASE_URL", format!("{}/v1", self.stack.url()))
            .env("WEIR_STARTER_KEY", self.key("solo"))
            .env("WEIR_ENTERPRISE_KEY", self.key("acme"))
            .output()
            .expect("Python runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "{}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }
}

/// A chat on the fast model.
#[must_use]
pub fn chat(text: &str, stream: bool) -> Value {
    json!({
        "model": "gpt-4o-mini",
        "stream": stream,
        "messages": [{"role": "user", "content": text}],
    })
}

/// Seconds of the Unix epoch.
///
/// # Panics
/// Where the clock stands before it.
#[must_use]
pub fn now_s() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    i64::try_from(since.as_secs()).expect("before the end of time")
}

fn control(fake: Option<&Service>, fault: &Value) {
    let url = format!("{}/__fake/faults", fake.expect("a fake").url());
    let answer = client::client()
        .post(url)
        .json(fault)
        .send()
        .expect("the fake answers");
    let status = answer.status();
    assert!(
        status.is_success(),
        "{status} {}",
        answer.text().unwrap_or_default()
    );
}
