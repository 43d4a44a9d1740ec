//! How many requests a tenant may make: two Envoys that lease them of one quota
//! service, which is killed, stopped and restarted while they do.

use std::{
    collections::HashMap,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use reqwest::blocking::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use weir_harness::{Options, client, envoy::Gateway, redis::Redis};
use weir_pipeline_tests::{PATIENCE, Pipeline, chat};

/// Requests a minute, where the test says nothing else.
const LIMIT: u32 = 60;

fn options(gateways: usize) -> Options {
    Options {
        gateways,
        limits: vec![("starter".into(), LIMIT), ("enterprise".into(), 100_000)],
        ..Options::default()
    }
}

/// The same, with gateways that wait for the quota service only so long as they do where
/// nothing is set.
fn impatient(gateways: usize) -> Options {
    Options {
        quota: [("timeout_ms".to_owned(), json!(250))]
            .into_iter()
            .collect(),
        ..options(gateways)
    }
}

fn request(http: &Client, p: &Pipeline, gateway: &Gateway, tenant: &str) -> RequestBuilder {
    http.post(format!("{}/v1/chat/completions", gateway.url))
        .bearer_auth(p.key(tenant))
        .json(&chat("hello", false))
}

fn ask(p: &Pipeline, gateway: &Gateway, tenant: &str) -> Response {
    request(&client::client(), p, gateway, tenant)
        .send()
        .expect("the gateway answers")
}

/// What became of requests: when each was answered, and how.
struct Storm(Vec<(Instant, u16)>);

impl Storm {
    /// Sends a tenant's chats from eight threads to all gateways in turn for so
    /// long; `meanwhile` runs beside it.
    fn run(p: &Pipeline, tenant: &str, length: Duration, meanwhile: impl FnOnce()) -> Self {
        let found = Mutex::new(Vec::new());
        let end = Instant::now() + length;
        thread::scope(|scope| {
            for worker in 0..8 {
                let found = &found;
                scope.spawn(move || {
                    let http = client::client();
                    for n in worker.. {
                        if Instant::now() >= end {
                            return;
                        }
                        let gateway = &p.stack.gateways[n % p.stack.gateways.len()];
                        let answer = request(&http, p, gateway, tenant).send();
                        // One whose gateway is being killed is answered by none.
                        let status = answer.map_or(0, |answer| {
                            let status = answer.status().as_u16();
                            answer.bytes().map_or(0, |_| status)
                        });
                        found.lock().unwrap().push((Instant::now(), status));
                        if status != 200 {
                            thread::sleep(Duration::from_millis(10));
                        }
                    }
                });
            }
            meanwhile();
        });
        Self(found.into_inner().unwrap())
    }

    fn count(&self, status: u16) -> usize {
        self.0.iter().filter(|(_, found)| *found == status).count()
    }
}

/// A whole header of an answer as a number.
fn number(answer: &Response, name: &str) -> u64 {
    let value = answer.headers()[name].to_str().unwrap();
    value.parse().unwrap_or_else(|_| panic!("{name}: {value}"))
}

#[test]
fn two_gateways_admit_the_limit_and_say_what_is_left() {
    let p = Pipeline::with(options(2));
    let begun = Instant::now();
    let first = ask(&p, &p.stack.gateways[0], "solo");
    assert_eq!(first.status(), 200);
    let left = u64::from(LIMIT) - 1;
    assert_eq!(
        number(&first, "x-ratelimit-limit-requests"),
        u64::from(LIMIT)
    );
    assert_eq!(number(&first, "x-ratelimit-remaining-requests"), left);
    assert_eq!(
        first.headers()["ratelimit-policy"],
        format!("\"requests-60s\";q={LIMIT};w=60")
    );
    let shown = first.headers()["ratelimit"].to_str().unwrap();
    let begins = format!("\"requests-60s\";r={left};t=");
    assert!(shown.starts_with(&begins), "{shown}");

    let storm = Storm::run(&p, "solo", Duration::from_secs(8), || {});
    let passed = storm.count(200) + 1;
    assert!(
        (LIMIT as usize - 2..=LIMIT as usize).contains(&passed),
        "{passed}"
    );
    assert_eq!(storm.count(200) + storm.count(429), storm.0.len());

    let refused = ask(&p, &p.stack.gateways[1], "solo");
    assert_eq!(refused.status(), 429);
    // What passed first makes room after a minute.
    let passed_s = begun.elapsed().as_secs() + 2;
    let wait = number(&refused, "retry-after");
    assert!(
        (60_u64.saturating_sub(passed_s)..=63).contains(&wait),
        "{wait}"
    );
    assert_eq!(number(&refused, "x-ratelimit-remaining-requests"), 0);
    let error: Value = refused.json().unwrap();
    assert_eq!(error["error"]["code"], "rate_limit_exceeded");
    // Another tenant is not concerned; and nobody is billed for what was refused.
    assert_eq!(ask(&p, &p.stack.gateways[1], "acme").status(), 200);
    assert_eq!(p.served()[""][0] as usize, passed + 1);
    for gateway in &p.stack.gateways {
        let strays = gateway.counter("weir_rate_limit_strays");
        assert!(gateway.counter("weir_rate_limit_leased") > 0 && strays == 0);
    }
}

#[test]
fn four_gateways_of_four_workers_on_one_redis_admit_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path()).unwrap();
    let p = Pipeline::with(Options {
        redis: Some(redis.url()),
        concurrency: 4,
        ..options(4)
    });
    let storm = Storm::run(&p, "solo", Duration::from_secs(6), || {});
    let passed = storm.count(200);
    assert!(
        (LIMIT as usize - 4..=LIMIT as usize).contains(&passed),
        "{passed}"
    );
    assert_eq!(passed + storm.count(429), storm.0.len());
}

/// Sets other limits for the tenant `solo`.
fn limit_solo(p: &Pipeline, limits: &Value) {
    p.change("solo", "limits", limits);
}

/// Asks until the answer is told that limit.
#[track_caller]
fn wait_for_limit(p: &Pipeline, requests: u64) {
    let begun = Instant::now();
    loop {
        let answer = ask(p, &p.stack.gateways[0], "solo");
        // One that was not counted is not told.
        let told = answer.headers().get("x-ratelimit-limit-requests");
        if told.is_some_and(|told| told == requests.to_string().as_str()) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{answer:?}");
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn an_override_takes_effect_and_the_sdks_own_retry_succeeds() {
    let p = Pipeline::with(options(1));
    assert_eq!(ask(&p, &p.stack.gateways[0], "solo").status(), 200);
    limit_solo(&p, &json!([{"requests": 4, "window_s": 2}]));
    wait_for_limit(&p, 4);
    let printed = p.python("retries.py");
    assert!(printed.contains("all 12 answered"), "{printed}");
    assert!(p.stack.gateways[0].counter("weir_rate_limit_refused") > 0);
    // A limit of a class is no limit of another.
    limit_solo(
        &p,
        &json!([{"requests": 1000, "window_s": 60}, {"requests": 7, "window_s": 5, "class": "chat"}]),
    );
    wait_for_limit(&p, 7);
    let embedding = p.post(
        "solo",
        "/v1/embeddings",
        json!({"model": "text-embedding-3-small", "input": "hello"}),
    );
    assert_eq!(number(&embedding, "x-ratelimit-limit-requests"), 1000);
}

#[test]
fn what_is_leased_is_spent_and_then_nothing_passes_while_the_service_is_away() {
    let mut p = Pipeline::with(impatient(2));
    // Also where the machine is so busy that a first answer comes too late.
    wait_for_status(&p, 0, 200);
    let calls_failed = "weir_rate_limit_calls_failed";
    let failed_before = p.stack.gateways[0].counter(calls_failed);
    let router = p.stack.router.process.id();
    // Stopped, as a machine that hangs: no answer at all.
    p.stack.router.process.signal(Signal::SIGSTOP);
    thread::sleep(Duration::from_millis(2_100));
    let begun = Instant::now();
    let answer = ask(&p, &p.stack.gateways[0], "solo");
    assert_eq!(answer.status(), 503);
    assert!(number(&answer, "retry-after") >= 1);
    let error: Value = answer.json().unwrap();
    assert_eq!(error["error"]["code"], "rate_limit_unavailable");
    assert!(begun.elapsed() < Duration::from_secs(20));
    let http = client::client();
    for _ in 0..20 {
        let answer = request(&http, &p, &p.stack.gateways[0], "solo").send();
        assert_eq!(answer.unwrap().status(), 503);
    }
    assert!(p.stack.gateways[0].counter("weir_rate_limit_degraded") >= 21);
    // Most of them asked nobody.
    assert!(p.stack.gateways[0].counter(calls_failed) < failed_before + 10);
    p.stack.router.process.signal(Signal::SIGCONT);
    assert_eq!(p.stack.router.process.id(), router);
    wait_for_status(&p, 0, 200);
    // Gone, and back without what it had counted: the gateway says so, and nothing
    // passes until that cannot matter, of no class.
    p.stack.router.process.kill();
    p.stack.restart_router().unwrap();
    thread::sleep(Duration::from_millis(2_100));
    let embedding = json!({"model": "text-embedding-3-small", "input": "hello"});
    let embedding = p.post("solo", "/v1/embeddings", embedding);
    assert_eq!(embedding.status(), 503);
    wait_for_error(&p, "rate_limit_unavailable");
}

#[track_caller]
fn wait_for_status(p: &Pipeline, gateway: usize, status: u16) {
    let begun = Instant::now();
    while ask(p, &p.stack.gateways[gateway], "solo").status() != status {
        assert!(begun.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(100));
    }
}

#[track_caller]
fn wait_for_error(p: &Pipeline, code: &str) {
    let begun = Instant::now();
    loop {
        let answer: Value = ask(p, &p.stack.gateways[0], "solo").json().unwrap();
        if answer["error"]["code"] == code {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{answer}");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn clients_that_leave_while_they_wait_leave_nothing_behind() {
    let mut p = Pipeline::with(impatient(1));
    p.stack.router.process.signal(Signal::SIGSTOP);
    let leaves = Client::builder()
        .timeout(Duration::from_millis(60))
        .build()
        .unwrap();
    let left = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| {
                // Nobody answers within 60 ms; a machine that stands still may find a
                // refusal there before it looks at the time.
                let answer = request(&leaves, &p, &p.stack.gateways[0], "solo").send();
                match answer {
                    Err(_) => _ = left.fetch_add(1, Relaxed),
                    Ok(answer) => assert_eq!(answer.status(), 503),
                }
            });
        }
    });
    assert!(left.into_inner() >= 1, "nobody left");
    p.stack.router.process.signal(Signal::SIGCONT);
    wait_for_status(&p, 0, 200);
    assert!(p.stack.gateways[0].counter("weir_rate_limit_waited") >= 1);
    let storm = Storm::run(&p, "solo", Duration::from_secs(10), || {});
    let admitted = p.stack.gateways[0].counter("weir_rate_limit_admitted");
    // None of those who left took anything.
    assert!(
        storm.count(200) as u64 + 3 >= u64::from(LIMIT),
        "{}",
        storm.count(200)
    );
    assert!(admitted <= u64::from(LIMIT));
    assert!(p.stack.ended().is_none());
}

/// Envoy answers each inside of the one before: all of them at once are more than a
/// worker's stack holds.
#[test]
fn many_that_wait_for_one_answer_are_all_answered() {
    const WAITING: usize = 1_500;
    let p = Pipeline::with(Options {
        concurrency: 1,
        ..impatient(1)
    });
    let body = chat("hello", false).to_string();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: weir\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        p.key("solo"),
        body.len()
    );
    let address = p.stack.url().strip_prefix("http://").unwrap();
    p.stack.router.process.signal(Signal::SIGSTOP);
    let mut clients: Vec<TcpStream> = (0..WAITING)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    for client in &mut clients {
        client.write_all(request.as_bytes()).unwrap();
    }
    thread::sleep(Duration::from_millis(100));
    p.stack.router.process.signal(Signal::SIGCONT);
    let mut statuses = HashMap::<String, usize>::new();
    for mut client in clients {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).expect("each is answered");
        let line = String::from_utf8_lossy(&answer[..12.min(answer.len())]).into_owned();
        *statuses.entry(line).or_default() += 1;
    }
    let passed = statuses.get("HTTP/1.1 200").copied().unwrap_or(0);
    let refused = statuses.get("HTTP/1.1 429").copied().unwrap_or(0);
    let uncounted = statuses.get("HTTP/1.1 503").copied().unwrap_or(0);
    assert!(passed <= LIMIT as usize, "{statuses:?}");
    assert_eq!(passed + refused + uncounted, WAITING, "{statuses:?}");
    // No filter started anew, so everybody is known still.
    assert_eq!(p.stack.gateways[0].counter("vm_reload_success"), 0);
    // Its calls may have failed so long that none is made for a second.
    let begun = Instant::now();
    while ask(&p, &p.stack.gateways[0], "acme").status() != 200 {
        assert!(begun.elapsed() < PATIENCE, "another tenant stays refused");
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(p.stack.gateways[0].counter("vm_reload_success"), 0);
}

#[test]
fn a_gateway_that_is_killed_takes_its_lease_along_and_no_more() {
    let mut p = Pipeline::with(options(2));
    let begun = Instant::now();
    let first = Storm::run(&p, "solo", Duration::from_millis(400), || {});
    p.stack.gateways[0].process.kill();
    let gateway = p.stack.gateways.remove(0);
    drop(gateway);
    let second = Storm::run(&p, "solo", Duration::from_secs(5), || {});
    assert!(begun.elapsed() < Duration::from_secs(55));
    let passed = first.count(200) + second.count(200);
    assert!(passed <= LIMIT as usize, "{passed}");
    // What the dead one held, and those whose answers it did not bring.
    assert!(passed >= LIMIT as usize / 2, "{passed}");
}

#[test]
fn in_shadow_everything_passes_and_is_told() {
    let p = Pipeline::with(Options {
        shadow: true,
        limits: vec![("starter".into(), 3), ("enterprise".into(), 100_000)],
        ..Options::default()
    });
    for _ in 0..8 {
        assert_eq!(ask(&p, &p.stack.gateways[0], "solo").status(), 200);
    }
    let gateway = &p.stack.gateways[0];
    assert_eq!(gateway.counter("weir_rate_limit_shadow"), 5);
    assert_eq!(gateway.counter("weir_rate_limit_refused"), 0);
    let log = fs::read_to_string(&gateway.process.log).unwrap();
    // Said once a second, and counted each time.
    assert!((1..=5).contains(&log.matches("would be refused").count()));
}

#[test]
fn a_redis_that_loses_everything_in_the_middle_admits_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let mut redis = Redis::start(folder.path()).unwrap();
    let port = redis.port;
    let p = Pipeline::with(Options {
        redis: Some(redis.url()),
        ..options(2)
    });
    let begun = Instant::now();
    let storm = Storm::run(&p, "solo", Duration::from_secs(12), || {
        thread::sleep(Duration::from_secs(1));
        redis.process.kill();
        thread::sleep(Duration::from_secs(1));
        redis = Redis::start_at(port, folder.path()).unwrap();
    });
    assert!(begun.elapsed() < Duration::from_secs(55));
    let passed = storm.count(200);
    assert!((1..=LIMIT as usize).contains(&passed), "{passed}");
    assert!(storm.count(503) > 0, "the store was away, and is fenced");
    let others = storm.0.len() - passed - storm.count(503) - storm.count(429);
    assert_eq!(others, 0);
}
