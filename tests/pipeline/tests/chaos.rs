//! Ten thousand requests while everything fails at random: each ends in one answer,
//! one settlement and one witness, and spend is the sum of what they came to.

use std::{
    collections::HashMap,
    io::Read as _,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use prost::Message as _;
use reqwest::blocking::Response;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use weir_harness::Options;
use weir_pipeline_tests::{PATIENCE, Pipeline, chat};
use weir_wire::proto::usage::{PublishRequest, UsageEvent, UsageSource, Witness};

const REQUESTS: usize = 10_000;
const CLIENTS: usize = 24;
const BUDGET_MICROS: i64 = 5_000_000_000;

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

fn fault(random: &mut Random) -> Value {
    let times = 1 + random.below(8);
    match random.below(9) {
        0 => json!({"status": 529, "times": times}),
        1 => json!({"status": 500, "times": times}),
        2 => json!({"status": 429, "retry_after_s": 1, "times": times}),
        3 => json!({"status": 503, "times": times}),
        4 => json!({"cut_after_chunks": random.below(6), "times": times}),
        5 => json!({"error_in_stream_after_chunks": random.below(4), "times": times}),
        6 => json!({"missing_usage": true, "times": times}),
        7 => json!({"delay_ms": 30, "times": times}),
        _ => json!({"chunk_delay_ms": 3, "times": times}),
    }
}

/// What one client saw.
#[derive(Default)]
struct Tally {
    answers: AtomicUsize,
    whole: AtomicUsize,
    cut: AtomicUsize,
    left: AtomicUsize,
    refused: AtomicUsize,
}

fn one(p: &Pipeline, random: &mut Random, tally: &Tally) {
    let models = [
        "claude-opus-5-5",
        "claude-haiku-4-5",
        "gpt-4o",
        "gpt-4o-mini",
        "mistral-7b",
    ];
    let model = models[usize::try_from(random.below(5)).unwrap()];
    let stream = random.below(2) == 0;
    let path = match random.below(3) {
        0 => "/v1/messages",
        _ => "/v1/chat/completions",
    };
    let mut body = chat("a few words", stream);
    body["model"] = json!(model);
    body["max_tokens"] = json!(1 + random.below(40));
    let mut answer: Response = p.post("acme", path, body);
    tally.answers.fetch_add(1, Relaxed);
    if answer.status() != 200 {
        assert!([429, 500, 502, 503, 504, 529].contains(&answer.status().as_u16()));
        tally.refused.fetch_add(1, Relaxed);
        return;
    }
    if stream && random.below(5) == 0 {
        let mut some = [0; 200];
        let _ = answer.read(&mut some);
        tally.left.fetch_add(1, Relaxed);
        return;
    }
    let mut text = String::new();
    let clean = answer.read_to_string(&mut text).is_ok();
    let complete = text.contains("[DONE]") || text.contains("message_stop");
    if stream {
        assert_eq!(clean, complete, "a cut stream looks complete: {text}");
    }
    let counter = if clean { &tally.whole } else { &tally.cut };
    counter.fetch_add(1, Relaxed);
}

#[test]
fn whatever_fails_each_request_ends_once_and_spend_is_the_sum_of_costs() {
    let p = Pipeline::with(Options {
        router: json!({
            "failover": {"health": {"open_ms": 200}},
            "plans": {"enterprise": {"budget": {"monthly_usd": "5000"}}},
        }),
        limits: vec![("enterprise".into(), 1_000_000)],
        ..Options::default()
    });
    let tally = Tally::default();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (p, tally) = (&p, &tally);
            scope.spawn(move || {
                let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (client as u64 + 1));
                for n in 0..REQUESTS / CLIENTS + 1 {
                    if client < 3 && n % 12 == 0 {
                        let name = ["anthropic", "openai", "self-hosted"][client];
                        p.fault_of(name, &fault(&mut random));
                    }
                    one(p, &mut random, tally);
                }
            });
        }
    });
    let requests = CLIENTS * (REQUESTS / CLIENTS + 1);
    assert_eq!(tally.answers.load(Relaxed), requests);
    for name in ["anthropic", "openai", "self-hosted"] {
        p.heal(name);
        let _ = p.log_of(name);
    }
    let start = Instant::now();
    let events = loop {
        p.close_hour();
        let events = witnesses(&p);
        if events.len() >= requests || start.elapsed() > PATIENCE {
            break events;
        }
    };
    assert_eq!(events.len(), requests, "one witness each");
    let mut spend = 0_i64;
    let mut estimated = 0;
    for event in events.values() {
        let billed: Vec<_> = event.usage.iter().filter(|u| !u.unbilled).collect();
        assert!(billed.len() <= 1, "{event:?}");
        for usage in &event.usage {
            assert_eq!(usage.unbilled, !billed.contains(&usage));
            spend += i64::try_from(usage.price_micros.unwrap_or(0)).unwrap();
            estimated += usize::from(usage.source() == UsageSource::Estimated);
        }
    }
    assert!(estimated > 0, "some usage was missing");
    // The last settles may be under way.
    let start = Instant::now();
    while BUDGET_MICROS - remaining(&p) != spend && start.elapsed() < PATIENCE {}
    assert_eq!(BUDGET_MICROS - remaining(&p), spend);
    let shown = [&tally.whole, &tally.cut, &tally.left, &tally.refused].map(|n| n.load(Relaxed));
    println!("whole, cut, left, refused: {shown:?}; {estimated} estimated; spend {spend}");
    assert!(shown.iter().all(|n| *n > 0), "{shown:?}");
    assert!(shown[0] > requests / 2, "most are served: {shown:?}");
}

/// What is left of the budget once all is settled.
fn remaining(p: &Pipeline) -> i64 {
    let start = Instant::now();
    loop {
        // All settles are made by then, and the model's breaker is closed again.
        std::thread::sleep(Duration::from_millis(500));
        let mut body = chat("a few words", false);
        body["model"] = json!("mistral-7b");
        let answer = p.post("acme", "/v1/chat/completions", body);
        if answer.status() == 200 {
            let left = answer.headers()["x-weir-budget-remaining"]
                .to_str()
                .unwrap();
            let (whole, part) = left.split_once('.').unwrap();
            return whole.parse::<i64>().unwrap() * 1_000_000 + part.parse::<i64>().unwrap();
        }
        assert!(start.elapsed() < PATIENCE, "{answer:?}");
    }
}

/// The router's witness of each request of acme's, by its id.
fn witnesses(p: &Pipeline) -> HashMap<String, UsageEvent> {
    let path = p.stack.data.join("ledger.db");
    let ledger = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let partitions: Vec<String> = ledger
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'request_*'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let mut found = HashMap::new();
    for partition in partitions {
        let query = format!("SELECT events FROM {partition} WHERE tenant = 'acme'");
        let mut rows = ledger.prepare(&query).unwrap();
        let rows = rows.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
        for bytes in rows {
            let events = PublishRequest::decode(bytes.unwrap().as_slice()).unwrap();
            let by_router = |e: &UsageEvent| e.witness() == Witness::Router;
            for event in events.events.into_iter().filter(by_router) {
                found.insert(event.request_id.clone(), event);
            }
        }
    }
    found
}
