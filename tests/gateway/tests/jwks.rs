//! Keys that are fetched from their issuer, in the real Envoy.

use std::{
    io::Write as _,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use weir_gateway_tests::{
    Fixture,
    fixture::{ACME, BODY, CHAT_PATH},
    issuer_server::{IssuerServer, Keys},
};
use weir_harness::{
    client,
    issuer::{Algorithm, Issuer},
};

/// The shortest pause between two fetches for an unknown key.
const PAUSE: Duration = Duration::from_secs(1);

/// How long the gateway waits for keys, where a test is not about that.
const LONG_MS: u64 = 10_000;

fn start(server: &IssuerServer, issuer: &Issuer, timeout_ms: u64) -> Fixture {
    Fixture::with(|options| {
        let sources = json!([{"type": "api_key"}, {"type": "jwt", "issuers": [{
            "issuer": issuer.name(Algorithm::EdDsa),
            "audiences": ["weir"],
            "algorithms": ["EdDSA"],
            "jwks_uri": {
                "cluster": "issuer", "authority": "issuer", "path": "/jwks",
                "refresh_s": 3600, "unknown_kid_pause_s": PAUSE.as_secs(), "timeout_ms": timeout_ms,
            },
        }]}]);
        options.identification.insert("sources".to_owned(), sources);
        options
            .clusters
            .push(("issuer".to_owned(), server.address.clone()));
    })
}

fn set(issuer: &Issuer) -> Keys {
    Keys::Set(issuer.jwks(&[Algorithm::EdDsa]))
}

fn status(f: &Fixture, issuer: &Issuer) -> u16 {
    let token = issuer.token(Algorithm::EdDsa, "acme");
    let answer = f.post(CHAT_PATH).bearer_auth(token).send().unwrap();
    answer.status().as_u16()
}

/// Until a token of that issuer gets that status: a pause may have to pass.
#[track_caller]
fn check_becomes(f: &Fixture, issuer: &Issuer, expected: u16) {
    let start = Instant::now();
    loop {
        let found = status(f, issuer);
        if found == expected {
            return;
        }
        assert!(start.elapsed() < 60 * PAUSE, "it stays {found}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_new_key_serves_at_once_and_is_fetched_once_for_all() {
    let (old, new) = (Issuer::new(), Issuer::new());
    let server = IssuerServer::start(set(&old));
    let f = start(&server, &old, LONG_MS);
    assert_eq!(
        status(&f, &old),
        200,
        "the first request waits for the keys"
    );
    let before = server.fetches();
    assert_eq!(before, 1, "over two workers and the main thread");

    server.set(Keys::Late(
        new.jwks(&[Algorithm::EdDsa]),
        Duration::from_millis(200),
    ));
    let token = new.token(Algorithm::EdDsa, "acme");
    let url = format!("{}{CHAT_PATH}", f.gateway.url);
    let all: Vec<u16> = thread::scope(|scope| {
        let one = || {
            let sent = client::client().post(&url).bearer_auth(&token);
            let sent = sent.body(BODY).send();
            sent.unwrap().status().as_u16()
        };
        let threads: Vec<_> = (0..40).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(all.iter().all(|status| *status == 200), "{all:?}");
    assert_eq!(server.fetches(), before + 1);
    assert_eq!(status(&f, &old), 401, "the old key is gone");
    assert!(f.gateway.counter("weir_jwks_age_ms_0") < 60_000);
}

#[test]
fn unknown_keys_do_not_make_the_gateway_call_at_will() {
    let (known, stranger) = (Issuer::new(), Issuer::new());
    let server = IssuerServer::start(set(&known));
    let f = start(&server, &known, LONG_MS);
    assert_eq!(status(&f, &known), 200);
    let begun = Instant::now();
    for _ in 0..200 {
        assert_eq!(status(&f, &stranger), 401);
    }
    let pauses = begun.elapsed().as_secs_f64() / PAUSE.as_secs_f64();
    let fetches = server.fetches() - 1;
    assert!(
        fetches >= 1 && fetches as f64 <= pauses + 2.0,
        "{fetches} in {pauses} pauses"
    );
    assert_eq!(status(&f, &known), 200);
}

#[test]
fn whatever_the_issuer_does_the_old_keys_serve_and_nobody_hangs() {
    let (known, stranger) = (Issuer::new(), Issuer::new());
    let server = IssuerServer::start(set(&known));
    let f = start(&server, &known, 1_000);
    check_becomes(&f, &known, 200);
    for keys in [
        Keys::Status(500),
        Keys::Status(302),
        Keys::Hang,
        Keys::Cut,
        Keys::Garbage,
    ] {
        server.set(keys.clone());
        let before = server.fetches();
        let start = Instant::now();
        while server.fetches() == before {
            assert!(start.elapsed() < 20 * PAUSE, "{keys:?} is never asked for");
            assert_eq!(status(&f, &stranger), 401, "{keys:?}");
            assert_eq!(status(&f, &known), 200, "{keys:?}");
        }
    }
    server.set(set(&stranger));
    check_becomes(&f, &stranger, 200);
    assert!(f.gateway.counter("weir_jwks_failed") >= 4);
}

#[test]
fn keys_that_were_not_there_at_the_start_come_later() {
    let issuer = Issuer::new();
    let server = IssuerServer::start(Keys::Status(503));
    let f = start(&server, &issuer, LONG_MS);
    assert_eq!(status(&f, &issuer), 503, "nobody can say that it is bad");
    assert_eq!(f.chat(ACME).status(), 200, "a key needs no issuer");
    server.set(set(&issuer));
    check_becomes(&f, &issuer, 200);
}

#[test]
fn clients_that_leave_while_they_wait_harm_nobody() {
    let (known, stranger) = (Issuer::new(), Issuer::new());
    let server = IssuerServer::start(set(&known));
    let f = start(&server, &known, LONG_MS);
    assert_eq!(status(&f, &known), 200);
    server.set(Keys::Late(
        stranger.jwks(&[Algorithm::EdDsa]),
        Duration::from_millis(500),
    ));
    let address = f.gateway.url.trim_start_matches("http://").to_owned();
    let token = stranger.token(Algorithm::EdDsa, "acme");
    let request =
        format!("GET /v1/models HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n");
    let waiting: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            stream
        })
        .collect();
    thread::sleep(Duration::from_millis(200));
    drop(waiting);
    check_becomes(&f, &stranger, 200);
    assert_eq!(f.chat(ACME).status(), 200);
}
