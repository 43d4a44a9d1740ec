//! Who a request is for, from the client to the bill, on the router's directory.

use std::{
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use reqwest::blocking::Response;
use weir_harness::{Options, client, issuer::Algorithm, paths, stack::BASE_DOMAIN};
use weir_pipeline_tests::{Pipeline, chat};

/// A change takes effect within a second, and the router looks ten times in one;
/// the rest is for a machine that is busy.
const SOON: Duration = Duration::from_secs(60);

fn start() -> Pipeline {
    Pipeline::with(Options {
        tokens: true,
        limits: vec![("starter".into(), 100_000), ("enterprise".into(), 100_000)],
        ..Options::default()
    })
}

fn ask(p: &Pipeline, credential: &str, host: Option<&str>) -> Response {
    let mut body = chat("hello", false);
    body["user"] = "solo".into();
    // A connection of its own, so that every worker is asked.
    let mut request = client::client()
        .post(format!("{}/v1/chat/completions", p.stack.url()))
        .header("x-tenant-id", "acme")
        .header("X-Tenant-Plan", "enterprise")
        .bearer_auth(credential)
        .json(&body);
    if let Some(host) = host {
        request = request.header("host", host);
    }
    request.send().unwrap()
}

fn keys(p: &Pipeline, arguments: &[&str]) -> Output {
    let output = Command::new(paths::binary("weir-keys").unwrap())
        .arg("--file")
        .arg(&p.stack.directory)
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

/// Until each of many connections in turn gets that status.
#[track_caller]
fn check_becomes(p: &Pipeline, credential: &str, expected: u16) {
    let begun = Instant::now();
    let mut in_turn = 0;
    while in_turn < 20 {
        let found = ask(p, credential, None).status().as_u16();
        in_turn = if found == expected { in_turn + 1 } else { 0 };
        assert!(
            found == expected || begun.elapsed() < SOON,
            "it stays {found}"
        );
    }
}

#[test]
fn key_token_and_host_are_one_tenant_to_the_bill() {
    let p = start();
    let issuer = p.stack.issuer.as_ref().unwrap();
    let key = p.key("solo");
    let mut calls = 0;
    for algorithm in [Algorithm::Hs256, Algorithm::EdDsa, Algorithm::Rs256] {
        let token = issuer.token(algorithm, "solo");
        assert_eq!(ask(&p, &token, None).status(), 200, "{algorithm:?}");
        calls += 1;
    }
    assert_eq!(ask(&p, key, None).status(), 200);
    let own = format!("solo.{BASE_DOMAIN}");
    assert_eq!(ask(&p, key, Some(&own)).status(), 200);
    calls += 2;
    let other = format!("acme.{BASE_DOMAIN}");
    assert_eq!(ask(&p, key, Some(&other)).status(), 403);
    let sums = p.check_adds_up();
    assert_eq!(sums.keys().collect::<Vec<_>>(), ["solo"]);
    assert_eq!(sums["solo"][0], calls);
}

#[test]
fn a_change_of_the_directory_takes_effect_on_every_worker() {
    let p = start();
    let made = keys(&p, &["make", "--tenant", "solo"]);
    let key = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    check_becomes(&p, &key, 200);
    keys(&p, &["revoke", "--tenant", "solo", "--prefix", &key[..16]]);
    check_becomes(&p, &key, 401);
    let issuer = p.stack.issuer.as_ref().unwrap();
    let token = issuer.token(Algorithm::EdDsa, "solo");
    check_becomes(&p, &token, 200);
    keys(&p, &["suspend", "--tenant", "solo"]);
    check_becomes(&p, &token, 403);
    check_becomes(&p, p.key("solo"), 403);
    keys(&p, &["resume", "--tenant", "solo"]);
    check_becomes(&p, p.key("solo"), 200);
}

#[test]
fn the_last_directory_serves_while_the_router_is_away() {
    let mut p = start();
    let gateway = &p.stack.gateways[0];
    assert!(gateway.counter("weir_directory_age_ms") < 20_000);
    let models = |p: &Pipeline, key: &str| {
        let url = format!("{}/v1/models", p.stack.url());
        let answer = client::client().get(url).bearer_auth(key).send().unwrap();
        answer.status().as_u16()
    };
    p.stack.router.process.kill();
    let begun = Instant::now();
    while p.stack.gateways[0].counter("weir_directory_age_ms") < 3_000 {
        assert!(begun.elapsed() < 3 * SOON, "its age does not grow");
        // Identified, and then no router is there.
        assert_eq!(models(&p, p.key("solo")), 503);
        assert_eq!(models(&p, "weir-unknown"), 401);
        thread::sleep(Duration::from_millis(100));
    }
    assert!(p.stack.gateways[0].counter("weir_directory_failed") > 0);
}
