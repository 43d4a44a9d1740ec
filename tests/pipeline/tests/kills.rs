//! The aggregator is killed a hundred times while producers send and Stripe misbehaves:
//! what the ledger has is what was used, and what Stripe counts is what the ledger has.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use prost::Message as _;
use serde_json::{Value, json};
use weir_harness::{
    client,
    parts::{self, AggregatorOptions, Service},
    paths,
    provision::Account,
};
use weir_pipeline_tests::now_s;
use weir_wire::{
    context,
    ids::RequestId,
    keys::Keyring,
    proto::{
        context::TenantContext,
        usage::{Kind, ModelUsage, Outcome, PublishRequest, UsageEvent, UsageSource, Witness},
    },
    usage::{PROTO_CONTENT_TYPE, PUBLISH_PATH},
};

const KILLS: usize = 100;
const TENANTS: [&str; 3] = ["acme", "solo", "third"];
const METERS: [&str; 3] = ["api_calls", "input_tokens", "output_tokens"];
const CONTEXT_KEYS: &str = "k:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const STRIPE_KEY: &str = "sk_test_kills";
const TOKENS: [&str; 2] = [
    "the-gateways-token-of-32-bytes-xx",
    "the-routers-token-of-32-bytes-xxx",
];

/// By tenant, meter and hour.
type Sums = BTreeMap<(String, &'static str, i64), i64>;

/// xorshift: the same requests in each run, in whatever order they meet.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn usage(source: UsageSource, input: u64, output: u64) -> ModelUsage {
    ModelUsage {
        model_served: "m".into(),
        provider: "p".into(),
        attempt: 1,
        input_tokens: input,
        output_tokens: output,
        source: source.into(),
        ..ModelUsage::default()
    }
}

/// A request's events in the order in which they are told, as which witness, and what it
/// comes to. Of the last three days, so most hours are over and are planned meanwhile.
fn request(random: &mut Random, keys: &Keyring, truth: &mut Sums) -> Vec<(usize, UsageEvent)> {
    let tenant = TENANTS[usize::try_from(random.below(3)).unwrap()];
    let hours_ago = i64::try_from(random.below(30)).unwrap();
    let at_ms = u64::try_from((now_s() - hours_ago * 3_600) * 1_000).unwrap();
    let mut bytes = [0; 10];
    getrandom::fill(&mut bytes).unwrap();
    let id = RequestId::mint(at_ms, bytes);
    let signed = TenantContext {
        tenant: tenant.into(),
        plan: "starter".into(),
        request_id: id.to_string(),
        issued_at_ms: 0,
    };
    let tenant_context = context::sign(&signed, keys);
    let event = |n: u64, witness: Witness, usage: Vec<ModelUsage>| UsageEvent {
        kind: Kind::Request.into(),
        event_id: format!("{n}-{id}").chars().take(60).collect(),
        request_id: id.to_string(),
        witness: witness.into(),
        tenant: tenant.into(),
        request_class: "chat".into(),
        outcome: Outcome::Completed.into(),
        status: 200,
        usage,
        tenant_context: tenant_context.clone(),
        ..UsageEvent::default()
    };
    let (input, output) = (1 + random.below(900), 1 + random.below(300));
    let guess = event(
        1,
        Witness::Gateway,
        vec![usage(UsageSource::Estimated, input / 2, output * 2)],
    );
    let told = event(
        2,
        Witness::Router,
        vec![usage(UsageSource::Reported, input, output)],
    );
    let (mut events, billed) = match random.below(10) {
        // The router's word was lost.
        0 => (vec![(0, guess)], [1, input / 2, output * 2]),
        // The gateway's was.
        1 => (vec![(1, told)], [1, input, output]),
        _ => (vec![(0, guess), (1, told)], [1, input, output]),
    };
    if random.below(2) == 0 {
        events.reverse();
    }
    if random.below(4) == 0 {
        events.extend(events.clone());
    }
    for (meter, quantity) in METERS.into_iter().zip(billed) {
        let hour = id.time_ms().div_euclid(3_600_000);
        *truth.entry((tenant.to_owned(), meter, hour)).or_default() +=
            i64::try_from(quantity).unwrap();
    }
    events
}

/// Sends until it is taken, as a producer does.
fn publish(http: &reqwest::blocking::Client, url: &str, witness: usize, events: Vec<UsageEvent>) {
    let count = events.len();
    let body = PublishRequest { events }.encode_to_vec();
    let begun = Instant::now();
    loop {
        let sent = http
            .post(format!("{url}{PUBLISH_PATH}"))
            .bearer_auth(TOKENS[witness])
            .header("content-type", PROTO_CONTENT_TYPE)
            .body(body.clone())
            .send();
        match sent {
            Ok(answer) if answer.status() == 202 => {
                let bytes = answer.bytes().unwrap_or_default();
                // A cut answer says nothing of what it held.
                if let Ok(taken) = weir_wire::proto::usage::PublishResponse::decode(bytes) {
                    assert_eq!(
                        usize::try_from(taken.quarantined),
                        Ok(0),
                        "{taken:?} of {count}"
                    );
                }
                return;
            }
            Ok(answer) => assert!([429, 503].contains(&answer.status().as_u16()), "{answer:?}"),
            Err(_) => {}
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody takes it");
        std::thread::sleep(Duration::from_millis(10));
    }
}

struct World {
    folder: tempfile::TempDir,
    stripe: Service,
    customers: BTreeMap<String, String>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let stripe = parts::stripe(STRIPE_KEY, folder.path()).unwrap();
        let account = Account::new(&stripe.url(), STRIPE_KEY);
        let customers = account.provision(&TENANTS).unwrap();
        Self {
            folder,
            stripe,
            customers,
        }
    }

    fn aggregator(&self, listen: &str) -> Service {
        let members = json!({
            // Some requests' second witness comes before, some after.
            "billing": {"wait_s": 1},
            "stripe": {"calls_per_second": 200},
        });
        let options = AggregatorOptions {
            data: &self.folder.path().join("data"),
            stripe_base: &self.stripe.url(),
            stripe_key: STRIPE_KEY,
            customers: &self.customers,
            context_keys: CONTEXT_KEYS,
            gateway_token: TOKENS[0],
            router_token: TOKENS[1],
            admin_token: "the-operators-token",
            access_logs: &[],
            members: &members,
            variables: &[],
            listen,
        };
        std::fs::create_dir_all(options.data).unwrap();
        parts::aggregator(&options, self.folder.path()).unwrap()
    }

    fn fault(&self, fault: &Value) {
        let url = format!("{}/__fake/faults", self.stripe.url());
        let answer = client::client().post(url).json(fault).send().unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    fn heal(&self) {
        let url = format!("{}/__fake/faults", self.stripe.url());
        client::client().delete(url).send().unwrap();
    }

    /// What Stripe counted, by its own log of events.
    fn at_stripe(&self) -> Sums {
        let url = format!("{}/__fake/state", self.stripe.url());
        let state: Value = client::client().get(url).send().unwrap().json().unwrap();
        let mut sums = Sums::new();
        for event in state["events"].as_array().unwrap() {
            let customer = event["customer"].as_str().unwrap();
            let of_customer = |(_, c): &(&String, &String)| c.as_str() == customer;
            let (tenant, _) = self.customers.iter().find(of_customer).unwrap();
            let name = event["event_name"].as_str().unwrap();
            let meter = METERS
                .into_iter()
                .find(|m| name == format!("weir_{m}"))
                .unwrap();
            let hour = event["timestamp"].as_i64().unwrap().div_euclid(3_600);
            let value = event["value"].as_i64().unwrap();
            *sums.entry((tenant.clone(), meter, hour)).or_default() += value;
        }
        sums
    }

    fn command(&self, arguments: &[&str]) -> std::process::Output {
        std::process::Command::new(paths::binary("meter-aggregator").unwrap())
            .args(arguments)
            .arg("--config")
            .arg(self.folder.path().join("aggregator.json"))
            .env("WEIR_ADMIN_TOKEN", "the-operators-token")
            .env("WEIR_CONTEXT_KEYS", CONTEXT_KEYS)
            .env("WEIR_GATEWAY_TOKEN", TOKENS[0])
            .env("WEIR_ROUTER_TOKEN", TOKENS[1])
            .env("STRIPE_API_KEY", STRIPE_KEY)
            .output()
            .unwrap()
    }
}

fn misbehave(world: &World, random: &mut Random) {
    let times = 1 + random.below(20);
    let path = "/v1/billing/meter_events";
    let mut fault = match random.below(6) {
        0 => json!({"status": 500}),
        1 => json!({"status": 429, "retry_after_s": 1}),
        2 => json!({"accept_then_drop": true}),
        3 => json!({"accept_then_status": 500}),
        4 => json!({"delay_ms": 150}),
        _ => json!({"status": 503, "should_retry": true}),
    };
    fault["times"] = json!(times);
    fault["path"] = json!(path);
    world.fault(&fault);
}

#[test]
fn killed_a_hundred_times_nothing_is_lost_and_nothing_billed_twice() {
    let world = World::new();
    let mut aggregator = world.aggregator("127.0.0.1:0");
    let (address, url) = (aggregator.address.clone(), aggregator.url());
    let keys = Keyring::parse(CONTEXT_KEYS).unwrap();
    let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let truth = std::thread::scope(|scope| {
        let producers: Vec<_> = (0..4_u64)
            .map(|n| {
                let (keys, stop, sent, url) = (&keys, &stop, &sent, &url);
                scope.spawn(move || {
                    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (n + 1));
                    let http = client::client();
                    let mut truth = Sums::new();
                    // What is told later than the rest.
                    let mut late: Vec<(usize, UsageEvent)> = Vec::new();
                    while !stop.load(Relaxed) {
                        let mut batches: [Vec<UsageEvent>; 2] = Default::default();
                        for _ in 0..1 + random.below(20) {
                            for (witness, event) in request(&mut random, keys, &mut truth) {
                                sent.fetch_add(1, Relaxed);
                                match random.below(6) {
                                    0 => late.push((witness, event)),
                                    _ => batches[witness].push(event),
                                }
                            }
                        }
                        if random.below(5) == 0 {
                            late.drain(..)
                                .for_each(|(witness, e)| batches[witness].push(e));
                        }
                        for (witness, events) in batches.into_iter().enumerate() {
                            publish(&http, url, witness, events);
                        }
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    for (witness, event) in late {
                        publish(&http, url, witness, vec![event]);
                    }
                    truth
                })
            })
            .collect();
        let mut random = Random(7);
        for _ in 0..KILLS {
            misbehave(&world, &mut random);
            std::thread::sleep(Duration::from_millis(20 + random.below(400)));
            aggregator.process.kill();
            aggregator = world.aggregator(&address);
        }
        stop.store(true, Relaxed);
        let mut truth = Sums::new();
        for producer in producers {
            for (key, quantity) in producer.join().unwrap() {
                *truth.entry(key).or_default() += quantity;
            }
        }
        truth
    });
    world.heal();
    let begun = Instant::now();
    let status = loop {
        let output = world.command(&["close-hour", "--json", "--quiet-ms", "300"]);
        if output.status.success() {
            break serde_json::from_slice::<Value>(&output.stdout).unwrap();
        }
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(begun.elapsed() < Duration::from_secs(120), "{said}");
    };
    assert_eq!(status["quarantined"], 0, "{status:#}");
    // The hour may have been another's by the time the id was made: both sides have it.
    assert_eq!(world.at_stripe(), truth);
    println!("{} events, {} sums", sent.load(Relaxed), truth.len());
    prove_each(&world, &truth);
}

/// `prove` finds each bucket's requests, and that they add up.
fn prove_each(world: &World, truth: &Sums) {
    let largest = truth.iter().max_by_key(|(_, quantity)| **quantity).unwrap();
    let ((tenant, meter, hour), quantity) = largest;
    let at = time_of(*hour);
    let line = format!("{tenant}/{meter}/{at}");
    let output = world.command(&["prove", "--json", &line]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let proof: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(proof["total"], *quantity, "{proof:#}");
    assert!(Path::new(&world.folder.path().join("data")).exists());
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
