//! Money, tokens and requests under way: what each tenant may, to the last one.

use std::{
    io::Read as _,
    sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use reqwest::blocking::Response;
use serde_json::{Value, json};
use weir_harness::{Options, redis::Redis};
use weir_pipeline_tests::{PATIENCE, Pipeline, chat};

const CHAT: &str = "/v1/chat/completions";

fn header(answer: &Response, name: &str) -> String {
    let value = answer.headers().get(name);
    value.map_or("", |v| v.to_str().unwrap()).to_owned()
}

fn ask(p: &Pipeline, model: &str, stream: bool) -> Response {
    ask_for(p, model, stream, 200)
}

fn ask_for(p: &Pipeline, model: &str, stream: bool, max_tokens: u32) -> Response {
    let mut body = chat("tell me something of rivers and weirs", stream);
    body["model"] = json!(model);
    body["max_tokens"] = json!(max_tokens);
    p.post("acme", CHAT, body)
}

/// Dollars as a header says them, in micro-dollars.
fn micros(dollars: &str) -> i64 {
    let (whole, part) = dollars.split_once('.').unwrap_or((dollars, ""));
    let whole: i64 = whole.parse().unwrap_or_else(|_| panic!("{dollars:?}"));
    whole * 1_000_000 + format!("{part:0<6}").parse::<i64>().unwrap()
}

fn dollars(micros: i64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

/// What is left of acme's budget while nothing else is under way: what costs
/// nothing holds nothing.
fn remaining(p: &Pipeline) -> i64 {
    let start = Instant::now();
    loop {
        let answer = ask(p, "mistral-7b", false);
        if answer.status() == 200 {
            return micros(&header(&answer, "x-weir-budget-remaining"));
        }
        // A router that has just started: the gateway finds it in a moment.
        let text = answer.text().unwrap();
        assert!(start.elapsed() < PATIENCE, "{text}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Prices of the example's catalogue, micro-dollars for a million tokens.
fn price(model: &str) -> [i64; 2] {
    match model {
        "gpt-4o" => [2_500_000, 10_000_000],
        "gpt-4o-mini" => [150_000, 600_000],
        "claude-haiku-4-5" => [1_000_000, 5_000_000],
        "claude-sonnet-5-5" => [2_000_000, 10_000_000],
        "claude-opus-5-5" => [4_000_000, 20_000_000],
        other => panic!("no price of {other}"),
    }
}

/// What the fakes served comes to.
fn cost(p: &Pipeline) -> i64 {
    let logs = ["anthropic", "openai"].map(|name| p.log_of(name));
    logs.iter().flatten().map(cost_of).sum()
}

fn cost_of(entry: &Value) -> i64 {
    cost_by(entry, entry["model"].as_str().unwrap())
}

fn cost_by(usage: &Value, model: &str) -> i64 {
    let tokens = |name: &str| usage[name].as_i64().unwrap_or(0);
    let [input, output] = price(model);
    let exact = tokens("prompt_tokens") * input + tokens("completion_tokens") * output;
    (exact + 999_999) / 1_000_000
}

fn budget(micros: i64, at_ceiling: &str) -> Value {
    json!({"budget": {"monthly_usd": dollars(micros), "at_ceiling": at_ceiling}})
}

#[test]
fn the_last_tenth_goes_to_fast_models_and_the_end_to_the_self_hosted() {
    let p = Pipeline::start();
    p.allow("acme", &budget(5_000_000, "self_hosted_only"));
    p.fault_of("anthropic", &json!({"answer_words": 150}));
    for n in 0..8 {
        let answer = ask(&p, "claude-opus-5-5", n % 2 == 0);
        assert_eq!(answer.status(), 200);
        assert!(!answer.text().unwrap().contains("error"));
    }
    check_spent(&p, 5_000_000);
    let spent = cost(&p);

    // 9.5 % left.
    p.allow("acme", &budget(spent * 1_000 / 905, "self_hosted_only"));
    for stream in [false, true] {
        let answer = ask(&p, "claude-opus-5-5", stream);
        assert_eq!(header(&answer, "x-weir-model"), "gpt-4o-mini");
        assert_eq!(header(&answer, "x-weir-model-reason"), "budget-low");
        assert_eq!(answer.status(), 200);
    }
    // The boundary itself, and a micro-dollar before it.
    for (more, model) in [(0, "gpt-4o-mini"), (2, "claude-opus-5-5")] {
        let monthly = cost(&p) * 10 / 9 + more;
        p.allow("acme", &budget(monthly, "self_hosted_only"));
        let answer = ask(&p, "claude-opus-5-5", false);
        assert_eq!(header(&answer, "x-weir-model"), model, "{monthly}");
    }

    let spent = cost(&p);
    p.allow("acme", &budget(spent, "self_hosted_only"));
    let answer = ask(&p, "claude-opus-5-5", false);
    assert_eq!(header(&answer, "x-weir-provider"), "self-hosted");
    assert_eq!(header(&answer, "x-weir-model-reason"), "budget-spent");
    assert_eq!(header(&answer, "x-weir-budget-remaining"), "0.000000");

    p.allow("acme", &budget(spent, "reject"));
    let answer = ask(&p, "gpt-4o", false);
    assert_eq!(answer.status(), 402);
    let error: Value = answer.json().unwrap();
    assert_eq!(error["error"]["code"], "insufficient_quota");

    p.allow("acme", &budget(spent, "allow_overage"));
    let answer = ask(&p, "gpt-4o", false);
    assert_eq!(header(&answer, "x-weir-model"), "gpt-4o-mini");
    p.check_adds_up();
}

#[test]
fn an_answer_is_as_long_as_the_budget_covers() {
    let p = Pipeline::start();
    // Some 100 tokens of gpt-4o's output beside the input.
    p.allow(
        "acme",
        &json!({"budget": {"monthly_usd": "0.0012", "downgrade_percent": 0}}),
    );
    p.fault_of("openai", &json!({"answer_words": 500}));
    let answer = ask(&p, "gpt-4o", false);
    assert_eq!(header(&answer, "x-weir-model"), "gpt-4o");
    let most: i64 = header(&answer, "x-weir-max-tokens").parse().unwrap();
    assert!((16..120).contains(&most), "{most}");
    let body: Value = answer.json().unwrap();
    assert!(body["usage"]["completion_tokens"].as_i64().unwrap() <= most);
    assert!(cost(&p) <= 1_200);
}

#[test]
fn tokens_of_the_minute_and_requests_under_way_are_bounded() {
    let p = Pipeline::start();
    p.allow("acme", &json!({"tokens_per_minute": 700, "in_flight": 2}));
    let answer = ask(&p, "gpt-4o-mini", false);
    assert_eq!(answer.status(), 200);
    assert_eq!(header(&answer, "x-ratelimit-limit-tokens"), "700");
    let left: u64 = header(&answer, "x-ratelimit-remaining-tokens")
        .parse()
        .unwrap();
    assert!(left < 500, "{left}");
    assert!(!header(&answer, "x-ratelimit-reset-tokens").is_empty());
    let mut statuses = Vec::new();
    for _ in 0..30 {
        let answer = ask(&p, "gpt-4o-mini", false);
        statuses.push(answer.status().as_u16());
        if answer.status() == 429 {
            let wait: u64 = header(&answer, "retry-after").parse().unwrap();
            assert!((1..=61).contains(&wait), "{wait}");
            let error: Value = answer.json().unwrap();
            assert_eq!(error["error"]["type"], "tokens", "{error}");
            break;
        }
    }
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");

    p.allow("acme", &json!({"in_flight": 2}));
    p.fault_of("openai", &json!({"delay_ms": 8_000}));
    let served = AtomicUsize::new(0);
    let refused = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| match ask(&p, "gpt-4o-mini", false).status().as_u16() {
                200 => served.fetch_add(1, Relaxed),
                429 => refused.fetch_add(1, Relaxed),
                other => panic!("{other}"),
            });
        }
    });
    assert_eq!((served.into_inner(), refused.into_inner()), (2, 4));
    p.heal("openai");
    assert_eq!(ask(&p, "gpt-4o-mini", false).status(), 200);
    p.check_adds_up();
}

/// Short holds, and progress that is noted often; and no limits on requests, which
/// a router that starts again makes wait.
fn short() -> Value {
    json!({
        "budgets": {"hold_life_s": 3, "progress_ms": 500},
        "plans": {"enterprise": {"limits": null}},
    })
}

/// What is left is the budget less what the fakes served, once all is settled.
#[track_caller]
fn check_spent(p: &Pipeline, budget: i64) {
    let start = Instant::now();
    loop {
        let (spent, served) = (budget - remaining(p), cost(p));
        if spent == served {
            return;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "{spent} is spent, {served} was served"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn aborted_streams_and_a_killed_router_lose_no_spend() {
    let mut p = Pipeline::with(Options {
        router: short(),
        ..Options::default()
    });
    p.allow("acme", &json!({"budget": {"monthly_usd": "50"}}));
    p.fault_of("openai", &json!({"chunk_delay_ms": 20, "answer_words": 60}));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let mut answer = ask(&p, "gpt-4o", true);
                    let mut some = [0; 300];
                    answer.read_exact(&mut some).unwrap();
                }
            });
        }
    });
    // Each was read to its end.
    check_spent(&p, 50_000_000);

    p.heal("openai");
    p.fault_of(
        "openai",
        &json!({"chunk_delay_ms": 50, "answer_words": 600}),
    );
    let ask_long = |_| ask_for(&p, "gpt-4o", true, 700);
    let mut open: Vec<Response> = (0..5).map(ask_long).collect();
    for answer in &mut open {
        let mut some = [0; 5_000];
        answer.read_exact(&mut some).unwrap();
    }
    // So long that what came since the last note is little of it.
    std::thread::sleep(Duration::from_secs(8));
    p.stack.router.process.kill();
    drop(open);
    p.stack.restart_router().unwrap();
    p.heal("openai");
    let served = cost(&p);
    let start = Instant::now();
    // The holds' lives are over, and they are swept.
    let spent = loop {
        let spent = 50_000_000 - remaining(&p);
        if is_near(spent, served) || start.elapsed() > PATIENCE {
            break spent;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    assert!(is_near(spent, served), "{spent} of {served}");
    let sums = p.served()["acme"];
    p.billed_once(|billed| {
        let acme = billed.get("acme");
        acme.is_some_and(|billed| [1, 2].iter().all(|m| is_near(billed[*m], sums[*m])))
    });
}

/// To a fifth.
fn is_near(found: i64, served: i64) -> bool {
    found * 10 > served * 8 && found * 10 < served * 12
}

#[test]
fn a_router_killed_again_and_again_loses_nothing_that_it_answered() {
    let mut p = Pipeline::with(Options {
        router: short(),
        ..Options::default()
    });
    p.allow("acme", &json!({"budget": {"monthly_usd": "50"}}));
    let answered = AtomicI64::new(0);
    let kills = 6;
    let clients = 4;
    for round in 0..kills {
        let (whole, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..clients {
                scope.spawn(|| {
                    while !is_over.load(Relaxed) {
                        let answer = ask(&p, "gpt-4o-mini", false);
                        // Some meet a router that is gone, or goes in the middle.
                        let Ok(body) = answer.json::<Value>() else {
                            continue;
                        };
                        if let Some(usage) = body.get("usage") {
                            answered.fetch_add(cost_by(usage, "gpt-4o-mini"), Relaxed);
                            whole.fetch_add(1, Relaxed);
                        }
                    }
                });
            }
            // Many more than the four that may be cut by the kill, and another number each
            // time.
            let start = Instant::now();
            while whole.load(Relaxed) < 40 + 7 * round && start.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(1));
            }
            p.stack.router.process.signal(Signal::SIGKILL);
            is_over.store(true, Relaxed);
        });
        assert!(whole.into_inner() >= 40, "next to nothing was answered");
        p.stack.router.process.kill();
        p.stack.restart_router().unwrap();
    }
    let answered = answered.into_inner();
    let served = cost(&p);
    assert!(answered > 0 && answered <= served);
    // What was under way is swept after its life, at what was known of it.
    let input = 12;
    let most = served + i64::from(clients) * i64::try_from(kills).unwrap() * input;
    let start = Instant::now();
    loop {
        let spent = 50_000_000 - remaining(&p);
        if (answered..=most).contains(&spent) {
            break;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "{answered} {spent} {served} {most}"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    let served = p.served()["acme"][2];
    let billed = p.billed_once(|billed| billed.get("acme").is_some_and(|b| b[2] * 10 > served * 8));
    assert!(billed["acme"][2] <= served, "{billed:?} {served}");
}

#[test]
fn a_redis_that_loses_everything_loses_no_spend() {
    let folder = tempfile::tempdir().unwrap();
    let mut redis = Redis::start(folder.path()).unwrap();
    let p = Pipeline::with(Options {
        redis: Some(redis.url()),
        // The gateway counts requests there, too.
        quota: [("on_failure".to_owned(), json!("allow"))]
            .into_iter()
            .collect(),
        ..Options::default()
    });
    p.allow("acme", &json!({"budget": {"monthly_usd": "50"}}));
    let start = Instant::now();
    while ask(&p, "gpt-4o", false).status() != 200 || cost(&p) == 0 {
        // An empty Redis may have lost something.
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(200));
    }
    for _ in 0..5 {
        assert_eq!(ask(&p, "gpt-4o", false).status(), 200);
    }
    check_spent(&p, 50_000_000);
    let port = redis.port;
    redis.process.kill();
    // Nothing that costs something while nobody knows what is left.
    let start = Instant::now();
    while header(&ask(&p, "gpt-4o", false), "x-weir-provider") != "self-hosted" {
        // What was known a moment ago still holds for a second.
        assert!(start.elapsed() < PATIENCE);
    }
    let _redis = Redis::start_at(port, folder.path()).unwrap();
    let start = Instant::now();
    loop {
        let answer = ask(&p, "gpt-4o", false);
        if header(&answer, "x-weir-provider") == "openai" {
            break;
        }
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(200));
    }
    check_spent(&p, 50_000_000);
}
