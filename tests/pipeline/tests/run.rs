//! `make run`, `make close-hour` and `make stop`, as their program does them.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use weir_harness::{client, paths, pids, postgres::Postgres, redis::Redis};
use weir_pipeline_tests::{PATIENCE, chat};

fn weir_run(folder: &Path, verb: &str) -> Command {
    let mut command = Command::new(paths::binary("weir-run").unwrap());
    command.arg(verb).arg("--folder").arg(folder);
    for name in [
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_BASE_URL",
        "SELF_HOSTED_API_KEY",
        "SELF_HOSTED_BASE_URL",
        "STRIPE_API_KEY",
        "STRIPE_API_BASE",
        "DATABASE_URL",
        "REDIS_URL",
        "WEIR_AGGREGATORS",
    ] {
        command.env_remove(name);
    }
    command
        .env("WEIR_GATEWAYS", "2")
        .env("KAFKA_BOOTSTRAP", "nowhere:9092");
    command
}

fn start(folder: &Path) -> (Child, Value) {
    start_with(folder, &[])
}

fn start_with(folder: &Path, variables: &[(&str, &str)]) -> (Child, Value) {
    let output = fs::File::create(folder.with_extension("out")).unwrap();
    let child = weir_run(folder, "run")
        .envs(variables.iter().copied())
        .stdout(output)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let endpoints = wait_for(|| {
        let text = fs::read_to_string(folder.join("endpoints.json")).ok()?;
        serde_json::from_str(&text).ok()
    });
    (child, endpoints)
}

/// How long all parts together may take to start, or a bill to be complete.
const START_MAX: Duration = Duration::from_secs(240);

#[track_caller]
fn wait_for<T>(mut ready: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(start.elapsed() < START_MAX, "it takes too long");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What becomes of a chat; it is asked anew where it was not counted, as a gateway says
/// whose question to a router that is kept waiting came to nothing.
fn ask(endpoints: &Value, gateway: usize, plan: &str) -> u16 {
    let gateway = endpoints["gateways"][gateway].as_str().unwrap();
    let begun = Instant::now();
    loop {
        let answer = client::client()
            .post(format!("{gateway}/v1/chat/completions"))
            .bearer_auth(endpoints["keys"][plan].as_str().unwrap())
            .json(&chat("hello", false))
            .send()
            .unwrap();
        let status = answer.status().as_u16();
        let uncounted = "rate_limit_unavailable";
        if status != 503
            || begun.elapsed() > PATIENCE
            || !answer.text().unwrap().contains(uncounted)
        {
            return status;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn is_running(process: &Value) -> bool {
    let pid = process["pid"].as_i64().unwrap();
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[track_caller]
fn check_gone(endpoints: &Value, folder: &Path) {
    for process in endpoints["processes"].as_array().unwrap() {
        assert!(!is_running(process), "{process} still runs");
    }
    assert!(!folder.join("endpoints.json").exists());
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_run_serves_bills_and_stops_at_ctrl_c() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("run");
    let (mut child, endpoints) = start(&folder);
    for gateway in 0..2 {
        for plan in ["starter", "enterprise"] {
            assert_eq!(ask(&endpoints, gateway, plan), 200);
        }
    }
    for field in [
        "gateway",
        "router",
        "aggregator",
        "stripe",
        "ledger",
        "logs",
    ] {
        assert!(endpoints[field].is_string(), "{field}");
    }
    assert!(endpoints["providers"]["openai"].is_string());
    assert_eq!(endpoints["envoy_admin"].as_array().unwrap().len(), 2);

    check_bills(&folder, &[(2, 2), (2, 2)]);

    // Nobody starts a second one on the same folder.
    assert!(!weir_run(&folder, "run").output().unwrap().status.success());

    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    assert!(child.wait().unwrap().success());
    check_gone(&endpoints, &folder);
    let output = fs::read_to_string(folder.with_extension("out")).unwrap();
    assert!(output.contains("KAFKA_BOOTSTRAP is not used"), "{output}");
    assert!(output.contains("aggregator       process "), "{output}");
    assert!(output.contains("curl http://127.0.0.1:"), "{output}");
}

/// Closes the hour until it has those [`calls`]: events may come late.
#[track_caller]
fn check_bills(folder: &Path, expected: &[(u32, u32)]) {
    let begun = Instant::now();
    loop {
        let closed = weir_run(folder, "close-hour").output().unwrap();
        if closed.status.success() && calls(&closed) == expected {
            println!("{}", text(&closed));
            return;
        }
        assert!(begun.elapsed() < START_MAX, "{closed:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Of each tenant's API calls, what was used and what Stripe has of it.
fn calls(closed: &Output) -> Vec<(u32, u32)> {
    let text = text(closed);
    let lines = text.lines().filter(|l| l.contains("api_calls"));
    let pair = lines.map(|line| {
        let mut words = line.split_whitespace().rev().map(|n| n.parse().unwrap());
        let at_stripe = words.next().unwrap();
        (words.next().unwrap(), at_stripe)
    });
    pair.collect()
}

/// Runs with several aggregators, kills some, and bills all the same; more than once,
/// because a run begins with empty books wherever they are.
#[track_caller]
fn check_several(variables: &[(&str, &str)], answering: usize, runs: usize) {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("run");
    for _ in 0..runs {
        let (mut child, endpoints) = start_with(&folder, variables);
        let replicas = endpoints["aggregators"].as_array().unwrap();
        let mut addresses: Vec<&str> = replicas.iter().map(|a| a.as_str().unwrap()).collect();
        assert_eq!(addresses.len(), 3);
        addresses.dedup();
        assert_eq!(addresses.len(), answering);
        for n in ["aggregator", "aggregator-2", "aggregator-3"] {
            assert_eq!(ask(&endpoints, 0, "starter"), 200);
            let running = pids::running(&folder);
            let victim = running.iter().find(|p| p.name == n).unwrap();
            kill(Pid::from_raw(victim.pid as i32), Signal::SIGKILL).unwrap();
            assert_eq!(ask(&endpoints, 1, "starter"), 200);
        }
        check_bills(&folder, &[(6, 6)]);
        kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
        assert!(child.wait().unwrap().success());
        check_gone(&endpoints, &folder);
        let output = fs::read_to_string(folder.with_extension("out")).unwrap();
        let again = "aggregator-2 ended, and was started again: process ";
        assert!(output.contains(again), "{output}");
    }
}

#[test]
fn three_aggregators_share_a_postgres_and_a_redis() {
    let folder = tempfile::tempdir().unwrap();
    let postgres = Postgres::start(folder.path()).unwrap();
    let redis = Redis::durable(folder.path()).unwrap();
    let (database, stream) = (postgres.url(), redis.url());
    let count = ("WEIR_AGGREGATORS", "3");
    check_several(
        &[count, ("DATABASE_URL", &database), ("REDIS_URL", &stream)],
        3,
        2,
    );
    // Without a stream that they share one works.
    check_several(&[count, ("DATABASE_URL", &database)], 1, 1);
}

#[test]
fn of_three_aggregators_on_one_folder_one_works() {
    check_several(&[("WEIR_AGGREGATORS", "3")], 1, 1);
}

#[test]
fn stop_ends_what_a_killed_run_left_behind() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("run");
    let (mut child, endpoints) = start(&folder);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(ask(&endpoints, 0, "starter"), 200, "its parts go on");
    assert!(weir_run(&folder, "stop").output().unwrap().status.success());
    check_gone(&endpoints, &folder);
    let nothing = weir_run(&folder, "stop").output().unwrap();
    assert!(nothing.status.success() && text(&nothing).contains("no run is up"));
}

#[test]
fn stop_ends_a_run_that_was_killed_while_it_started() {
    // A machine that stands still before the kill lets it start.
    let was_early = (0..5).any(|_| {
        let temp = tempfile::tempdir().unwrap();
        is_stopped_while_it_starts(&temp.path().join("run"))
    });
    assert!(was_early, "it was up already, five times");
}

/// Kills a run with some of its parts up, and stops what is left; `false` where it was up
/// before the kill.
fn is_stopped_while_it_starts(folder: &Path) -> bool {
    let mut child = weir_run(folder, "run")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let first = wait_for(|| {
        let left = pids::running(folder);
        (left.len() >= 3).then_some(left)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let was_early = !folder.join("endpoints.json").exists();
    assert!(weir_run(folder, "stop").output().unwrap().status.success());
    assert!(first.iter().all(|p| !p.is_running()));
    assert!(pids::running(folder).is_empty());
    was_early
}

#[test]
fn of_two_runs_started_at_once_one_runs() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("run");
    let mut both: Vec<Child> = (0..2)
        .map(|_| {
            weir_run(&folder, "run")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    wait_for(|| folder.join("endpoints.json").exists().then_some(()));
    // The other one may not have had its turn yet.
    let loser = wait_for(|| {
        let mut ended = both.iter_mut().map(|c| c.try_wait().unwrap().is_some());
        ended.position(|has_ended| has_ended)
    });
    assert!(both[1 - loser].try_wait().unwrap().is_none(), "both ended");
    assert!(weir_run(&folder, "stop").output().unwrap().status.success());
    for child in &mut both {
        child.wait().unwrap();
    }
}

#[test]
fn a_real_accounts_ledger_outlives_a_run_on_the_fake() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("run");
    let kept = folder.join("data-stripe-0123456789ab");
    fs::create_dir_all(&kept).unwrap();
    fs::write(kept.join("ledger.db"), "kept").unwrap();
    let (mut child, endpoints) = start(&folder);
    let ledger = endpoints["ledger"].as_str().unwrap();
    assert!(ledger.ends_with("data/ledger.db"), "{ledger}");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(fs::read_to_string(kept.join("ledger.db")).unwrap(), "kept");
}
