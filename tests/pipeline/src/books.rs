//! Aggregators with a fake Stripe and without gateways, whose events a test makes up.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use prost::Message as _;
use reqwest::blocking::Client;
use serde_json::{Value, json};
use tempfile::TempDir;
use weir_harness::{
    client,
    parts::{self, AggregatorOptions, Service},
    paths,
    provision::Account,
};
use weir_wire::{
    proto::usage::{PublishRequest, PublishResponse, UsageEvent},
    usage::{PROTO_CONTENT_TYPE, PUBLISH_PATH},
};

use crate::made_up::{CONTEXT_KEYS, METERS, Random, Truth};

/// The gateways' token, and the routers'.
pub const TOKENS: [&str; 2] = [
    "the-gateways-token-of-32-bytes-xx",
    "the-routers-token-of-32-bytes-xxx",
];

/// Of a producer that brings nothing here.
const STORAGE_TOKEN: &str = "a-services-token-of-32-bytes-xxxx";

const STRIPE_KEY: &str = "sk_test_kills";
const ADMIN_TOKEN: &str = "the-operators-token";

/// A fake Stripe, the tenants that it has as customers, and a folder for aggregators.
pub struct World {
    /// Where everything is.
    pub folder: TempDir,
    stripe: Service,
    customers: BTreeMap<String, String>,
}

/// What an aggregator of a [`World`] is to be.
#[derive(Debug, Clone)]
pub struct Replica<'a> {
    /// Its name among the processes.
    pub name: &'a str,
    /// The name of its folder.
    pub data: &'a str,
    /// `host:port` to listen on.
    pub listen: &'a str,
    /// The gateways' log that it follows.
    pub access_log: Option<&'a Path>,
    /// Members of its configuration in the place of the example's.
    pub members: Value,
    /// Variables that those name.
    pub variables: &'a [(&'a str, &'a str)],
}

/// Some requests' second witness comes before, some after.
#[must_use]
pub fn members() -> Value {
    json!({"billing": {"wait_s": 1}, "stripe": {"calls_per_second": 200}})
}

impl World {
    /// One with those tenants.
    ///
    /// # Panics
    /// Where the fake does not start.
    #[must_use]
    pub fn new(tenants: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let stripe = parts::stripe(STRIPE_KEY, folder.path()).expect("Stripe starts");
        let account = Account::new(&stripe.url(), STRIPE_KEY);
        let customers = account.provision(tenants).expect("Stripe has customers");
        Self {
            folder,
            stripe,
            customers,
        }
    }

    /// Starts an aggregator and waits until it listens.
    ///
    /// # Panics
    /// Where it does not start.
    #[must_use]
    pub fn start(&self, replica: &Replica<'_>) -> Service {
        self.with_options(replica, |options| {
            parts::aggregator(options, self.folder.path())
        })
    }

    /// Starts one that may have to wait until it can listen.
    ///
    /// # Panics
    /// Where it can't be started.
    #[must_use]
    pub fn begin(&self, replica: &Replica<'_>) -> Service {
        self.with_options(replica, |options| {
            parts::waiting_aggregator(options, self.folder.path())
        })
    }

    fn with_options(
        &self,
        replica: &Replica<'_>,
        start: impl FnOnce(&AggregatorOptions<'_>) -> anyhow::Result<Service>,
    ) -> Service {
        let data = self.folder.path().join(replica.data);
        std::fs::create_dir_all(&data).expect("a folder");
        let logs: Vec<_> = replica.access_log.iter().map(|p| (*p).to_owned()).collect();
        let options = AggregatorOptions {
            name: replica.name,
            data: &data,
            stripe_base: &self.stripe.url(),
            stripe_key: STRIPE_KEY,
            customers: &self.customers,
            context_keys: CONTEXT_KEYS,
            gateway_token: TOKENS[0],
            router_token: TOKENS[1],
            admin_token: ADMIN_TOKEN,
            access_logs: &logs,
            members: &replica.members,
            variables: replica.variables,
            listen: replica.listen,
        };
        start(&options).expect("an aggregator starts")
    }

    /// Has Stripe misbehave a few times, in one of its ways.
    ///
    /// # Panics
    /// Where the fake does not take it.
    pub fn misbehave(&self, random: &mut Random) {
        let times = 1 + random.below(20);
        let mut fault = match random.below(6) {
            0 => json!({"status": 500}),
            1 => json!({"status": 429, "retry_after_s": 1}),
            2 => json!({"accept_then_drop": true}),
            3 => json!({"accept_then_status": 500}),
            4 => json!({"delay_ms": 150}),
            _ => json!({"status": 503, "should_retry": true}),
        };
        fault["times"] = json!(times);
        self.fault(fault);
    }

    /// Has Stripe refuse the key, until it is to be well again.
    ///
    /// # Panics
    /// Where the fake does not take it.
    pub fn refuse_all(&self) {
        self.fault(json!({"status": 401, "times": 1_000_000}));
    }

    fn fault(&self, mut fault: Value) {
        fault["path"] = json!("/v1/billing/meter_events");
        let url = format!("{}/__fake/faults", self.stripe.url());
        let answer = client::client().post(url).json(&fault).send();
        let answer = answer.expect("the fake answers");
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Has Stripe be well again.
    ///
    /// # Panics
    /// Where the fake does not answer.
    pub fn heal(&self) {
        let url = format!("{}/__fake/faults", self.stripe.url());
        client::client()
            .delete(url)
            .send()
            .expect("the fake answers");
    }

    /// What Stripe counted, by its own log of events.
    ///
    /// # Panics
    /// Where it counted for nobody's customer, or on no meter.
    #[must_use]
    pub fn at_stripe(&self) -> Truth {
        let url = format!("{}/__fake/state", self.stripe.url());
        let answer = client::client().get(url).send().expect("the fake answers");
        let state: Value = answer.json().expect("JSON");
        let mut sums = Truth::new();
        for event in state["events"].as_array().expect("events") {
            let customer = event["customer"].as_str().expect("a customer");
            let of_customer = |(_, c): &(&String, &String)| c.as_str() == customer;
            let (tenant, _) = self.customers.iter().find(of_customer).expect("a tenant");
            let name = event["event_name"].as_str().expect("a name");
            let is_it = |m: &&str| name == format!("weir_{m}");
            let meter = METERS.into_iter().find(is_it).expect("a meter");
            let at = event["timestamp"].as_i64().expect("a time");
            let value = event["value"].as_i64().expect("a value");
            let key = (tenant.clone(), meter, at.div_euclid(3_600));
            *sums.entry(key).or_default() += value;
        }
        sums
    }

    /// Runs `meter-aggregator` against the aggregator of that name.
    ///
    /// # Panics
    /// Where it can't be run.
    #[must_use]
    pub fn command(&self, replica: &Replica<'_>, arguments: &[&str]) -> Output {
        Command::new(paths::binary("meter-aggregator").expect("it is built"))
            .args(arguments)
            .arg("--config")
            .arg(self.folder.path().join(format!("{}.json", replica.name)))
            .env("WEIR_ADMIN_TOKEN", ADMIN_TOKEN)
            .env("WEIR_CONTEXT_KEYS", CONTEXT_KEYS)
            .env("WEIR_GATEWAY_TOKEN", TOKENS[0])
            .env("WEIR_ROUTER_TOKEN", TOKENS[1])
            .env("WEIR_STORAGE_TOKEN", STORAGE_TOKEN)
            .env("STRIPE_API_KEY", STRIPE_KEY)
            .envs(replica.variables.iter().copied())
            .output()
            .expect("it runs")
    }

    /// Closes the hour, again and again until Stripe has all; gives the state of the books.
    ///
    /// # Panics
    /// Where Stripe has not in two minutes; with what the command said last.
    #[must_use]
    pub fn close_hour(&self, replica: &Replica<'_>) -> Value {
        let begun = Instant::now();
        loop {
            let output = self.command(replica, &["close-hour", "--json", "--quiet-ms", "300"]);
            if output.status.success() {
                return serde_json::from_slice(&output.stdout).expect("JSON");
            }
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said).into_owned();
            assert!(begun.elapsed() < Duration::from_secs(120), "{said}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Closes the hour, and checks that Stripe and the ledger have the truth, and that
    /// each tenant's largest line can be proved.
    #[track_caller]
    pub fn check_adds_up(&self, replica: &Replica<'_>, truth: &Truth) {
        let status = self.close_hour(replica);
        assert_eq!(status["quarantined"], 0, "{status:#}");
        assert_eq!(status["missing"], 0, "{status:#}");
        assert_eq!(self.at_stripe(), *truth);
        let mut largest: BTreeMap<&str, (&str, i64, i64)> = BTreeMap::new();
        for ((tenant, meter, hour), quantity) in truth {
            let found = largest.entry(tenant).or_insert((meter, *hour, *quantity));
            if found.2 < *quantity {
                *found = (meter, *hour, *quantity);
            }
        }
        for (tenant, (meter, hour, quantity)) in largest {
            let line = format!("{tenant}/{meter}/{}", time_of(hour));
            let output = self.command(replica, &["prove", "--json", &line]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{line}: {said}");
            let proof: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            assert_eq!(proof["total"], quantity, "{proof:#}");
        }
    }
}

/// Sends to one of those addresses after the other until it is taken, as a producer behind
/// a balancer does.
///
/// # Panics
/// Where it is refused, or not taken in two minutes.
pub fn publish(http: &Client, addresses: &[String], teller: usize, events: Vec<UsageEvent>) {
    let count = events.len();
    let body = PublishRequest { events }.encode_to_vec();
    let begun = Instant::now();
    for address in addresses.iter().cycle() {
        let sent = http
            .post(format!("http://{address}{PUBLISH_PATH}"))
            .bearer_auth(TOKENS[teller])
            .header("content-type", PROTO_CONTENT_TYPE)
            .body(body.clone())
            .send();
        match sent {
            Ok(answer) if answer.status() == 202 => {
                let bytes = answer.bytes().unwrap_or_default();
                // A cut answer says nothing of what it held.
                if let Ok(taken) = PublishResponse::decode(bytes) {
                    assert_eq!(taken.quarantined, 0, "{taken:?} of {count}");
                }
                return;
            }
            Ok(answer) => assert!([429, 503].contains(&answer.status().as_u16()), "{answer:?}"),
            Err(_) => {}
        }
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "nobody takes it"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Such as `2026-11-23T14`.
fn time_of(hour: i64) -> String {
    let days = hour.div_euclid(24);
    // Days of the civil calendar, from the number of days since 1970.
    let (mut year, mut left) = (1970, days);
    let leap = |y: i64| y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
    while left >= 365 + i64::from(leap(year)) {
        left -= 365 + i64::from(leap(year));
        year += 1;
    }
    let lengths = [
        31,
        28 + i64::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let mut month = 0;
    while left >= lengths[month] {
        left -= lengths[month];
        month += 1;
    }
    format!(
        "{year}-{:02}-{:02}T{:02}",
        month + 1,
        left + 1,
        hour.rem_euclid(24)
    )
}
