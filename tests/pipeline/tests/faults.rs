//! What goes wrong on the way, and still adds up.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use weir_harness::Options;
use weir_pipeline_tests::{PATIENCE, Pipeline, chat};

const CHAT: &str = "/v1/chat/completions";

/// Whether the tenant `solo` was billed so many calls, and tokens of both kinds.
#[track_caller]
fn check_solo(p: &Pipeline, calls: i64) {
    p.billed_once(|billed| {
        let solo = billed.get("solo");
        solo.is_some_and(|[c, input, output]| *c == calls && *input > 0 && *output > 0)
    });
}

#[track_caller]
fn wait_until(mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "it is not so in a minute");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn usage_that_a_provider_does_not_report_is_estimated() {
    let p = Pipeline::start();
    p.provider_fault(&json!({"missing_usage": true}));
    assert_eq!(p.chat("solo", "sixteen bytes ok").status(), 200);
    let stream = p
        .post("solo", CHAT, chat("the same again", true))
        .text()
        .unwrap();
    assert!(stream.ends_with("data: [DONE]\n\n"));
    check_solo(&p, 2);
}

#[test]
fn a_stream_that_is_cut_never_looks_complete_and_bills_what_came() {
    let p = Pipeline::start();
    p.provider_fault(&json!({"cut_after_chunks": 4, "times": 1}));
    let mut text = String::new();
    let mut answer = p.post("solo", CHAT, chat("tell me more and more", true));
    let clean = answer.read_to_string(&mut text).is_ok();
    assert!(!clean, "the connection ended cleanly: {text}");
    assert!(!text.contains("[DONE]"), "{text}");
    assert!(text.contains("\"provider_error\""), "{text}");
    check_solo(&p, 0);
}

#[test]
fn an_error_inside_a_stream_reaches_the_client() {
    let p = Pipeline::start();
    p.provider_fault(&json!({"error_in_stream_after_chunks": 2, "times": 1}));
    let mut answer = p.post("solo", CHAT, chat("tell me", true));
    let mut text = String::new();
    let clean = answer.read_to_string(&mut text).is_ok();
    assert!(!clean && text.contains("\"error\""), "{text}");
    p.close_hour();
    assert_eq!(p.billed().get("solo").map_or(0, |s| s[0]), 0);
}

#[test]
fn a_client_that_leaves_is_billed_what_the_provider_reports() {
    let p = Pipeline::with(Options {
        router: json!({"plans": {"starter": {"timeout_s": 30}}}),
        ..Options::default()
    });
    p.provider_fault(&json!({"chunk_delay_ms": 40}));
    for n in 0..5 {
        let mut answer = p.post("solo", CHAT, chat(&format!("a long story {n}"), true));
        let mut first = [0; 40];
        answer.read_exact(&mut first).unwrap();
        drop(answer);
    }
    // Leaving before any answer is no way round the bill either: after the request has
    // come to the provider, and before that answers.
    let impatient = reqwest::blocking::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(4))
        .build()
        .unwrap();
    p.provider_heals();
    p.provider_fault(&json!({"delay_ms": 8_000}));
    let mut body = chat("slow", false);
    body["user"] = json!("solo");
    let left = impatient
        .post(format!("{}{CHAT}", p.stack.url()))
        .bearer_auth(p.key("solo"))
        .json(&body)
        .send();
    assert!(left.is_err());
    let served = p.served();
    assert_eq!(served["solo"][0], 6, "the provider finished each");
    p.check_adds_up();
}

#[test]
fn an_aggregator_killed_in_the_middle_loses_and_doubles_nothing() {
    let mut p = Pipeline::start();
    for round in 0..4 {
        for n in 0..5 {
            assert_eq!(p.chat("solo", &format!("{round} {n}")).status(), 200);
        }
        if round == 2 {
            p.close_hour();
        }
        p.stack.aggregator_process().kill();
        assert_eq!(p.chat("acme", "while it is away").status(), 200);
        p.stack.restart_aggregator().unwrap();
    }
    let served = p.check_adds_up();
    assert_eq!((served["solo"][0], served["acme"][0]), (20, 4));
}

#[test]
fn stripes_troubles_bill_nothing_twice() {
    let p = Pipeline::start();
    for (n, fault) in [
        json!({"path": "/v1/billing/meter_events", "times": 2, "status": 500}),
        json!({"path": "/v1/billing/meter_events", "times": 2, "accept_then_drop": true}),
        json!({"path": "/v1/billing/meter_events", "times": 2, "accept_then_status": 500}),
        json!({"path": "/v1/billing/meter_events", "times": 1, "status": 429}),
    ]
    .iter()
    .enumerate()
    {
        p.stripe_fault(fault);
        assert_eq!(p.chat("solo", &format!("fault {n}")).status(), 200);
        p.check_adds_up();
    }
}

#[test]
fn what_stripe_refuses_is_held_and_said() {
    let p = Pipeline::start();
    p.stripe_fault(&json!({"path": "/v1/billing/meter_events", "times": 1, "status": 400}));
    assert_eq!(p.chat("solo", "x").status(), 200);
    let output = p.try_close_hour();
    assert!(!output.status.success());
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    let held = status["intents"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["state"] == "held");
    assert_eq!(held.unwrap()["count"], 1, "{status}");
}

#[test]
fn signals_stop_services_cleanly_and_lose_nothing() {
    let mut p = Pipeline::start();
    for n in 0..10 {
        assert_eq!(p.chat("solo", &n.to_string()).status(), 200);
    }
    // The router hands its last events over before it goes.
    p.stack.router.process.signal(Signal::SIGTERM);
    assert!(p.stack.router.process.stop(), "the router had to be killed");
    p.check_adds_up();
    assert!(p.stack.stop().is_empty());
}

#[test]
fn streams_under_way_at_a_signal_bill_what_came() {
    let mut p = Pipeline::start();
    p.provider_fault(&json!({"chunk_delay_ms": 200, "answer_words": 2_000}));
    let mut answer = p.post("solo", CHAT, chat("a story without an end", true));
    let mut first = [0; 400];
    answer.read_exact(&mut first).unwrap();
    let mut left = p.post("acme", CHAT, chat("another", true));
    left.read_exact(&mut first).unwrap();
    drop(left);
    // The gateway has seen that one left.
    let active = "http.tenants.downstream_rq_active";
    wait_until(|| p.stack.gateways[0].counter(active) == 1);

    p.stack.router.process.signal(Signal::SIGTERM);
    let mut text = String::new();
    assert!(answer.read_to_string(&mut text).is_err(), "cut: {text}");
    assert!(text.contains("\"router_stopping\""), "{text}");
    assert!(!text.contains("[DONE]"), "{text}");
    assert!(p.stack.router.process.stop(), "the router had to be killed");
    p.billed_once(|billed| {
        [("solo", 0), ("acme", 1)].iter().all(|(tenant, calls)| {
            let sums = billed.get(*tenant);
            sums.is_some_and(|[c, input, output]| c == calls && *input > 0 && *output > 0)
        })
    });
}

#[test]
fn a_router_killed_before_it_told_tells_when_it_is_back() {
    let mut p = Pipeline::start();
    p.stack.aggregator_process().kill();
    // The gateway, which sees no usage in this stream, could only guess.
    let stream = p.post("solo", CHAT, chat("tell me something", true));
    assert!(stream.text().unwrap().ends_with("data: [DONE]\n\n"));
    assert_eq!(p.chat("acme", "and me").status(), 200);
    // What is told is written a few milliseconds later.
    let spool = p.stack.folder.join("router-data/spool.db");
    let spool = Connection::open_with_flags(spool, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let records = "SELECT count(*) FROM record";
    wait_until(|| spool.query_row(records, [], |row| row.get(0)) == Ok(2_i64));
    drop(spool);
    p.stack.router.process.kill();
    p.stack.restart_aggregator().unwrap();
    p.stack.restart_router().unwrap();
    let served = p.check_adds_up();
    assert_eq!((served["solo"][0], served["acme"][0]), (1, 1));
}

#[test]
fn slow_clients_do_not_keep_services_from_stopping() {
    let mut p = Pipeline::start();
    let mut open = Vec::new();
    for address in [&p.stack.router.address, &p.stack.aggregator().address] {
        for sent in [
            "",
            "GET / HTTP/1.1\r\nhost:",
            "POST /weir.usage.v1.UsageIngest/Publish HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ] {
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(sent.as_bytes()).unwrap();
            open.push(client);
        }
    }
    assert!(p.stack.router.process.stop(), "the router had to be killed");
    assert!(
        p.stack.aggregator_process().stop(),
        "the aggregator had to be killed"
    );
}

#[test]
fn as_many_headers_as_the_gateway_takes_reach_the_router() {
    let p = Pipeline::start();
    let long = "x".repeat(40_000);
    let answer = p
        .http
        .get(format!("{}/v1/models", p.stack.url()))
        .bearer_auth(p.key("solo"))
        .header("x-long", &long)
        .send()
        .unwrap();
    assert_eq!(answer.status(), 200);
    let too_long = p
        .http
        .get(format!("{}/v1/models", p.stack.url()))
        .bearer_auth(p.key("solo"))
        .header("x-long", long.repeat(2))
        .send()
        .unwrap();
    assert_eq!(too_long.status(), 431);
    let error: Value = too_long.json().unwrap();
    assert_eq!(error["error"]["type"], "gateway_error");
}
