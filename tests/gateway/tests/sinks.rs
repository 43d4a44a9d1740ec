//! No event is lost on its way to the aggregator, and none comes twice, from the
//! real Envoy: by batches, by the access log, and by Envoy's own log where nothing
//! else is left.

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weir_gateway_tests::{
    Answer, Fixture, Upstream,
    fixture::{ACME, SOLO},
    upstream::CHAT_STREAM,
    usage::{Discovered, load, logged, requests_of},
};
use weir_harness::envoy::GatewayOptions;
use weir_wire::proto::usage::{Outcome, UsageEvent};

/// How long a test waits for what must come; it ends as soon as it came.
const PATIENCE: Duration = Duration::from_secs(60);

fn plenty(options: &mut GatewayOptions) {
    options.limits.push(("enterprise".into(), 1_000_000));
    options.limits.push(("starter".into(), 1_000_000));
}

/// A gateway that writes events to an access log, and sends batches if `batches`.
fn with_log(batches: bool) -> Fixture {
    Fixture::changed(
        |options, folder| {
            plenty(options);
            options.access_log = Some(folder.join("usage.log"));
            options
                .usage_events
                .insert("access_log".into(), json!(true));
            if !batches {
                options.usage_events.insert("cluster".into(), Value::Null);
            }
        },
        |_, _| {},
    )
}

/// All events of the access logs that there are, also of those that were renamed.
fn in_access_logs(f: &Fixture) -> Vec<UsageEvent> {
    let paths = fs::read_dir(f.folder.path())
        .unwrap()
        .map(|e| e.unwrap().path());
    let logs = paths.filter(|p| {
        p.file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("usage.log")
    });
    logs.flat_map(|log| logged(&log, &f.options.ingest_token))
        .collect()
}

fn in_own_log(f: &Fixture) -> Vec<UsageEvent> {
    logged(&f.gateway.process.log, &f.options.ingest_token)
}

/// Waits until the gateway has taken so many events and all have left.
#[track_caller]
fn wait_until_empty(f: &Fixture) {
    let start = Instant::now();
    loop {
        let count = |name| f.gateway.counter(&format!("weir_usage_events_{name}"));
        if count("taken") == count("acknowledged") + count("logged") {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "events still wait");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn both_sinks_get_the_same_bytes() {
    let mut f = with_log(true);
    for _ in 0..3 {
        assert_eq!(f.whole_chat(ACME), 200);
    }
    let mut sent = f.upstream.events(3);
    assert!(f.gateway.process.stop());
    let mut written = in_access_logs(&f);
    for events in [&mut sent, &mut written] {
        events.sort_by(|a, b| a.request_id.cmp(&b.request_id));
    }
    assert_eq!(sent, written);
    for event in &sent {
        assert_eq!(event.producer_run.len(), 16);
        assert!((1..=3).contains(&event.sequence));
    }
}

#[test]
fn sigterm_under_load_loses_no_line_of_the_log() {
    let mut f = with_log(false);
    let stream = f.upstream.stream();
    let begin = "data: {\"choices\":[]}\n\n";
    stream.send(Some(begin.into())).unwrap();
    let open = f.chat(ACME);
    let answered = load(&f, || {
        let start = Instant::now();
        std::thread::sleep(Duration::from_secs(2));
        while f.gateway.counter("weir_usage_events_taken") < 150 {
            assert!(start.elapsed() < PATIENCE, "nearly nothing is answered");
            std::thread::sleep(Duration::from_millis(50));
        }
        f.gateway.process.signal(Signal::SIGTERM);
    });
    assert!(f.gateway.process.stop());
    drop((open, stream));
    let events = in_access_logs(&f);
    let ids = requests_of(&events);
    let first_ms = events.iter().map(|e| e.started_at_ms).min().unwrap();
    assert!(answered.len() > 100, "{} requests", answered.len());
    let lost: Vec<&String> = answered.difference(&ids).collect();
    assert!(
        lost.is_empty(),
        "{} of {} are lost",
        lost.len(),
        answered.len()
    );
    // The one that the end of the gateway cut has its own, too.
    let cut = events.iter().find(|e| e.started_at_ms == first_ms).unwrap();
    assert_eq!(cut.outcome(), Outcome::UpstreamError);
    // Each run's numbers have no gap.
    let runs: BTreeSet<&String> = events.iter().map(|e| &e.producer_run).collect();
    for run in runs {
        let of_run = events.iter().filter(|e| e.producer_run == *run);
        let numbers: BTreeSet<u64> = of_run.map(|e| e.sequence).collect();
        let count = numbers.len() as u64;
        assert_eq!(numbers, (1..=count).collect(), "{run}");
    }
}

#[test]
fn a_rotated_log_loses_no_line() {
    let mut f = with_log(false);
    let log = f.folder.path().join("usage.log");
    let answered = load(&f, || {
        for n in 0..5 {
            std::thread::sleep(Duration::from_millis(400));
            fs::rename(&log, f.folder.path().join(format!("usage.log.{n}"))).unwrap();
            let reopen = f.http.post(format!("{}/reopen_logs", f.gateway.admin));
            assert_eq!(reopen.send().unwrap().status(), 200);
            while !log.exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    });
    assert!(f.gateway.process.stop());
    assert_eq!(requests_of(&in_access_logs(&f)), answered);
}

#[test]
fn a_replaced_configuration_loses_no_event() {
    let mut discovered = None;
    let f = Fixture::changed(
        |options, _| plenty(options),
        |config, folder| discovered = Some(Discovered::take(config, folder)),
    );
    let discovered = discovered.unwrap();
    let away = Arc::new(AtomicBool::new(false));
    let is_away = Arc::clone(&away);
    f.upstream
        .judge_batches(move |_| is_away.load(Ordering::Relaxed).then_some(503));
    // A stream that was begun under the first configuration ends under the last.
    let stream = f.upstream.stream();
    stream
        .send(Some("data: {\"choices\":[]}\n\n".into()))
        .unwrap();
    let open = f.chat(ACME);
    let reloads = || f.gateway.counter("weir.usage_events.config_reload");
    let before = reloads();
    let mut answered = load(&f, || {
        for n in 0..8 {
            // Some are replaced while they can't deliver, one by its likes.
            away.store(n % 2 == 0, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(300));
            discovered.replace(|settings| settings["flush_ms"] = json!(50 + n % 3));
            // Of two that come at once Envoy takes the last.
            let start = Instant::now();
            while reloads() <= before + n {
                assert!(start.elapsed() < PATIENCE, "the {n}th is not taken");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        away.store(false, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(300));
    });
    stream.send(Some(CHAT_STREAM.to_owned())).unwrap();
    drop(stream);
    answered.insert(id_of(open));
    wait_until_empty(&f);
    assert_eq!(requests_of(&f.upstream.events(answered.len())), answered);
    assert_eq!(f.gateway.counter("weir_usage_waiting_bytes"), 0);
    // What waited as a configuration ended is in the log as well.
    assert!(requests_of(&in_own_log(&f)).is_subset(&answered));
}

fn id_of(answer: reqwest::blocking::Response) -> String {
    let id = answer.headers()["x-weir-request-id"].to_str().unwrap();
    let id = id.to_owned();
    answer.bytes().unwrap();
    id
}

/// A gateway whose aggregator is not there yet.
fn alone(settings: Value, concurrency: usize) -> (Fixture, String) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap().to_string();
    let f = Fixture::with(|options| {
        plenty(options);
        options.aggregator.clone_from(&address);
        options.concurrency = concurrency;
        options.usage_events = settings.as_object().unwrap().clone();
    });
    (f, address)
}

#[test]
fn an_aggregator_that_is_away_for_a_minute_misses_nothing() {
    let (f, address) = alone(json!({}), 2);
    let start = Instant::now();
    let answered = load(&f, || std::thread::sleep(Duration::from_secs(2)));
    std::thread::sleep(Duration::from_secs(60).saturating_sub(start.elapsed()));
    assert!(f.gateway.counter("weir_usage_waiting_bytes") > 0);
    let aggregator = Upstream::start_on(&address);
    wait_until_empty(&f);
    assert_eq!(requests_of(&aggregator.events(answered.len())), answered);
    assert_eq!(f.gateway.counter("weir_usage_events_logged"), 0);
    assert_eq!(f.gateway.counter("weir_usage_waiting_bytes"), 0);
}

#[test]
fn what_has_no_room_goes_to_the_log() {
    let (f, address) = alone(json!({"max_waiting_bytes": 65536}), 1);
    for _ in 0..300 {
        assert_eq!(f.whole_chat(ACME), 200);
    }
    let logged = f.gateway.counter("weir_usage_events_logged");
    assert!((50..290).contains(&logged), "{logged} were logged");
    let aggregator = Upstream::start_on(&address);
    wait_until_empty(&f);
    let mut all = in_own_log(&f);
    assert_eq!(all.len() as u64, logged);
    all.extend(aggregator.events(300 - all.len()));
    assert_eq!(requests_of(&all).len(), 300);
}

#[test]
fn what_the_aggregator_refuses_is_told_apart() {
    let f = Fixture::with(plenty);
    // It takes no batch of more than three, and none of one tenant.
    f.upstream.judge_batches(|events| match events {
        [_, _, _, _, ..] => Some(413),
        events => events.iter().any(|e| e.tenant == "solo").then_some(400),
    });
    for n in 0..40 {
        assert_eq!(f.whole_chat(if n % 10 == 0 { SOLO } else { ACME }), 200);
    }
    wait_until_empty(&f);
    let (taken, refused) = (f.upstream.events(36), in_own_log(&f));
    assert_eq!(
        (requests_of(&taken).len(), requests_of(&refused).len()),
        (36, 4)
    );
    assert!(refused.iter().all(|e| e.tenant == "solo"));
    assert_eq!(f.gateway.counter("weir_usage_events_logged"), 4);
}

#[test]
fn a_batch_leaves_once_it_is_large_enough() {
    let f = Fixture::with(|options| {
        plenty(options);
        options.concurrency = 1;
        let settings = json!({"flush_ms": 60_000, "batch_bytes": 2048});
        options.usage_events = settings.as_object().unwrap().clone();
    });
    for _ in 0..20 {
        assert_eq!(f.whole_chat(ACME), 200);
    }
    // Without that they would come in a minute.
    assert!(f.upstream.events(12).len() <= 20);
}

#[test]
fn what_a_gateway_could_not_deliver_as_it_ended_is_in_its_log() {
    let (mut f, _) = alone(json!({}), 2);
    for _ in 0..20 {
        assert_eq!(f.whole_chat(ACME), 200);
    }
    assert!(f.gateway.process.stop());
    let lost = 20 - requests_of(&in_own_log(&f)).len();
    assert_eq!(lost, 0);
}

/// Two hundred streams at once, of which some have a client that leaves.
#[test]
fn clients_that_leave_at_random_leave_one_event_each() {
    let f = Fixture::with(plenty);
    f.upstream.answer_all(|seen| {
        let n: u64 = seen.all("x-n")[0].parse().unwrap();
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            for _ in 0..20 {
                let text = "data: {\"choices\":[{\"delta\":{\"content\":\"hello\"}}]}\n\n";
                if sender.send(Some(text.to_owned())).is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10 + n % 7)).await;
            }
            let usage = format!(
                "{{\"prompt_tokens\":{},\"completion_tokens\":{n}}}",
                n + 1_000
            );
            let end = format!("data: {{\"choices\":[],\"usage\":{usage}}}\n\ndata: [DONE]\n\n");
            let _ = sender.send(Some(end));
        });
        Answer::Stream(receiver)
    });
    let whole: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..200)
            .map(|n| {
                scope.spawn({
                    let f = &f;
                    move || stream_or_leave(f, n)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|t| usize::from(t.join().unwrap()))
            .sum()
    });
    let events = f.upstream.events(200);
    wait_until_empty(&f);
    assert_eq!(requests_of(&events).len(), 200);
    let asked: std::collections::BTreeMap<String, u64> = f
        .upstream
        .requests()
        .iter()
        .map(|seen| {
            (
                seen.all("x-weir-request-id")[0].clone(),
                seen.all("x-n")[0].parse().unwrap(),
            )
        })
        .collect();
    let mut completed = 0;
    for event in &events {
        match event.outcome() {
            Outcome::Completed => {
                completed += 1;
                let n = asked[&event.request_id];
                let used = &event.usage[0];
                assert_eq!((used.input_tokens, used.output_tokens), (n + 1_000, n));
            }
            outcome => assert_eq!(outcome, Outcome::ClientDisconnected),
        }
    }
    assert!(whole > 50 && whole < 150, "{whole} were read to their end");
    assert!(completed >= whole, "{completed} of {whole}");
    assert!(completed < 200);
}

/// Reads a stream, or leaves it after a while that `n` says; says whether all came.
fn stream_or_leave(f: &Fixture, n: u64) -> bool {
    use std::io::{Read as _, Write as _};
    let address = f.gateway.url.trim_start_matches("http://");
    let mut client = std::net::TcpStream::connect(address).unwrap();
    let body = weir_gateway_tests::fixture::BODY;
    write!(
        client,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {}\r\nX-N: {n}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        f.key(ACME),
        body.len()
    )
    .unwrap();
    // Spread without a generator: each client's patience, in bytes.
    let patience = match n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 60 {
        0..8 => usize::MAX,
        k => (k as usize - 8) * 200,
    };
    let mut seen = Vec::new();
    let mut bytes = [0; 512];
    while seen.len() < patience {
        let count = client.read(&mut bytes).unwrap();
        seen.extend_from_slice(&bytes[..count]);
        if count == 0 || seen.ends_with(b"0\r\n\r\n") {
            return true;
        }
    }
    // It has to have come to the router, or there is no request to speak of.
    while patience == 0
        && f.upstream
            .requests()
            .iter()
            .all(|s| s.all("x-n")[0] != n.to_string())
    {
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}
