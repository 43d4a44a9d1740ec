//! Each request that passed the limit leaves one event, whatever became of it, in
//! the real Envoy.

use std::{io::Write as _, net::TcpStream, time::Duration};

use serde_json::json;
use weir_gateway_tests::{
    Answer, Fixture,
    fixture::{ACME, BODY, CHAT_PATH, SOLO},
    upstream::CHAT_STREAM,
    usage::insert,
};
use weir_harness::envoy::MANAGER;
use weir_wire::{
    headers,
    proto::usage::{Outcome, UsageEvent},
    usage,
};

/// The event that `act` leaves, and no other.
#[track_caller]
fn only(f: &Fixture, act: impl FnOnce()) -> UsageEvent {
    let before = f.gateway.counter("weir_usage_events_taken");
    act();
    let event = f.upstream.events(1).pop().unwrap();
    assert_eq!(f.gateway.counter("weir_usage_events_taken"), before + 1);
    f.upstream.forget_events();
    usage::check(&event, &f.keyring(), usage::ContextRule::Needed).unwrap();
    event
}

#[track_caller]
fn check(f: &Fixture, path: &str, abort: Option<u16>, status: u16, expected: Outcome) {
    let event = only(f, || {
        let mut request = f.post(path).bearer_auth(f.key(ACME));
        if let Some(status) = abort {
            request = request.header("x-envoy-fault-abort-request", status);
        }
        let answer = request.send().unwrap();
        assert_eq!(answer.status(), status, "{path}");
        assert!(answer.headers().contains_key(headers::REQUEST_ID), "{path}");
        answer.bytes().unwrap();
    });
    assert_eq!(event.outcome(), expected, "{path}");
    assert_eq!(event.status, u32::from(status));
    assert!(
        event
            .usage
            .iter()
            .all(|u| u.input_tokens + u.output_tokens == 0)
    );
}

#[test]
fn what_envoy_answers_itself_leaves_one_event() {
    let f = Fixture::changed(
        |options, _| {
            options
                .clusters
                .push(("nobody".into(), "127.0.0.1:1".into()))
        },
        |config, _| {
            insert(
                config,
                "envoy.filters.http.router",
                json!({"name": "test.fault", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
                    "abort": {"header_abort": {}, "percentage": {"numerator": 100}}}}),
            );
            let routes = config
                .pointer_mut(&format!("{MANAGER}/route_config/virtual_hosts/0/routes"))
                .unwrap();
            let routes = routes.as_array_mut().unwrap();
            routes.retain(|route| route["match"]["path"] != "/v1/embeddings");
            for route in routes {
                if route["match"]["path"] == "/v1/completions" {
                    route["route"]["cluster"] = json!("nobody");
                }
                if route["match"]["path"] == "/v1/responses" {
                    route["route"]["timeout"] = json!("0.3s");
                }
            }
        },
    );
    // A later filter.
    check(&f, CHAT_PATH, Some(429), 429, Outcome::Rejected);
    check(&f, CHAT_PATH, Some(500), 500, Outcome::UpstreamError);
    // No route, no upstream, no answer in time.
    check(&f, "/v1/embeddings", None, 404, Outcome::Rejected);
    check(&f, "/v1/completions", None, 503, Outcome::UpstreamError);
    f.upstream.answer(Answer::Never);
    check(&f, "/v1/responses", None, 504, Outcome::UpstreamError);
}

/// Sends `request` by a connection that is closed once `until` is over.
fn leave(f: &Fixture, head: &str, body: &str, until: impl FnOnce()) {
    let address = f.gateway.url.trim_start_matches("http://");
    let mut client = TcpStream::connect(address).unwrap();
    write!(
        client,
        "POST {CHAT_PATH} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {}\r\n{head}\r\n\r\n{body}",
        f.key(ACME)
    )
    .unwrap();
    until();
    drop(client);
}

fn wait_for_requests(f: &Fixture, count: usize) {
    while f.upstream.requests().len() < count {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_client_that_leaves_before_the_answer_leaves_one_event() {
    let f = Fixture::start();
    f.upstream.answer(Answer::Never);
    let event = only(&f, || {
        let length = format!("Content-Length: {}", BODY.len());
        leave(&f, &length, BODY, || wait_for_requests(&f, 1));
    });
    assert_eq!(event.outcome(), Outcome::ClientDisconnected);
    assert_eq!((event.status, event.usage.len()), (0, 0));

    // In the middle of the upload.
    let accepted = || {
        while f.gateway.counter("http.tenants.downstream_rq_active") < 1 {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let event = only(&f, || {
        let head = "Content-Type: application/json\r\nContent-Length: 9999";
        leave(&f, head, BODY, accepted);
    });
    assert_eq!(event.outcome(), Outcome::ClientDisconnected);
    assert_eq!((event.status, event.usage.len()), (0, 0));
}

#[test]
fn what_is_refused_on_the_way_leaves_an_event_if_it_passed_the_limit() {
    let f = Fixture::with(|options| options.limits.push(("starter".into(), 3)));
    for (path, body, status, class) in [
        ("/v1/nothing", BODY, 404, "unclassified"),
        ("/v1/models", BODY, 405, "unclassified"),
        (CHAT_PATH, "{\"model\"", 400, "chat"),
    ] {
        let event = only(&f, || {
            let request = f.post(path).bearer_auth(f.key(SOLO)).body(body);
            let answer = request.send().unwrap();
            assert_eq!(answer.status(), status);
            assert!(answer.headers().contains_key(headers::REQUEST_ID), "{path}");
        });
        assert_eq!(event.outcome(), Outcome::Rejected);
        assert_eq!(event.status, u32::from(status));
        assert_eq!(event.request_class, class);
        assert_eq!(event.tenant, "solo");
        assert!(event.started_at_ms > 0 && event.duration_ms < 10_000);
    }
    let before = f.gateway.counter("weir_usage_events_taken");
    // The limit, no credential, a wrong one.
    assert_eq!(f.whole_chat(SOLO), 429);
    assert_eq!(f.post(CHAT_PATH).send().unwrap().status(), 401);
    let wrong = f.post(CHAT_PATH).bearer_auth("sk-wrong").send().unwrap();
    assert_eq!(wrong.status(), 401);
    assert_eq!(f.gateway.counter("weir_usage_events_taken"), before);
}

#[test]
fn a_stream_that_is_not_whole_is_told_from_one_that_is() {
    let f = Fixture::start();
    for (text, breaks, expected) in [
        (CHAT_STREAM, false, Outcome::Completed),
        ("data: {\"choices\":[]}\n\n", false, Outcome::UpstreamError),
        ("data: {\"choices\":[]}\n\n", true, Outcome::UpstreamError),
        (CHAT_STREAM, true, Outcome::UpstreamError),
    ] {
        let event = only(&f, || {
            let stream = f.upstream.stream();
            stream.send(Some(text.to_owned())).unwrap();
            if breaks {
                stream.send(None).unwrap();
            }
            drop(stream);
            let _ = f.chat(ACME).text();
        });
        assert_eq!(event.outcome(), expected, "{text} {breaks}");
    }
}
