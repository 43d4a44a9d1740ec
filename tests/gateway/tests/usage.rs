//! What a request used, as it leaves the real Envoy.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use weir_gateway_tests::{
    Answer, Fixture,
    fixture::{ACME, BODY, CHAT_PATH, SOLO},
    upstream::{CHAT, CHAT_STREAM},
    usage::set_header,
};
use weir_wire::{
    headers,
    proto::usage::{Outcome, UsageEvent, UsageSource, Witness},
    usage,
};

fn tokens(event: &UsageEvent) -> Vec<[u64; 4]> {
    event
        .usage
        .iter()
        .filter(|u| u.source() == UsageSource::Reported)
        .map(|u| {
            [
                u.input_tokens,
                u.cached_input_tokens,
                u.output_tokens,
                u.reasoning_tokens,
            ]
        })
        .collect()
}

#[test]
fn a_served_request_leaves_one_event_that_the_aggregator_would_book() {
    // Events of one worker come in their order.
    let f = Fixture::with(|o| o.concurrency = 1);
    assert_eq!(f.whole_chat(SOLO), 200);
    f.upstream.answer(Answer::Whole(
        200,
        "text/event-stream",
        CHAT_STREAM.to_owned(),
    ));
    assert_eq!(f.chat(ACME).text().unwrap(), CHAT_STREAM);
    let events = f.upstream.events(2);
    assert_eq!(events.len(), 2);
    for (event, tenant, expected) in [
        (&events[0], "solo", [3, 16, 6, 4]),
        (&events[1], "acme", [19, 0, 10, 0]),
    ] {
        assert_eq!(event.tenant, tenant);
        assert_eq!(event.witness(), Witness::Gateway);
        assert_eq!(event.outcome(), Outcome::Completed);
        assert_eq!(event.request_class, "chat");
        assert_eq!(event.status, 200);
        assert_eq!(tokens(event), [expected]);
        usage::check(event, &f.keyring(), usage::ContextRule::Needed).unwrap();
    }
    let credential = format!("Bearer {}", f.options.ingest_token);
    assert!(f.upstream.credentials().iter().all(|c| *c == credential));
}

#[test]
fn an_answer_that_reports_no_usage_is_estimated() {
    // By who read the request, or by its size where nobody did.
    let size = u64::try_from(BODY.len()).unwrap().div_ceil(4);
    for (read_body, asked) in [(true, "userhi".len().div_ceil(4) as u64), (false, size)] {
        let f = Fixture::with(|o| {
            o.classification
                .insert("read_body".into(), json!(read_body));
        });
        let text = "data: {\"choices\":[{\"delta\":{\"content\":\"eight...\"}}]}\n\n";
        f.upstream.answer(Answer::Whole(
            200,
            "text/event-stream",
            format!("{text}data: [DONE]\n\n"),
        ));
        assert_eq!(f.whole_chat(SOLO), 200);
        let event = f.upstream.events(1).pop().unwrap();
        assert_eq!(event.outcome(), Outcome::Completed);
        let usage = &event.usage[0];
        assert_eq!(usage.source(), UsageSource::Estimated);
        assert_eq!((usage.input_tokens, usage.output_tokens), (asked, 2));
    }
}

#[test]
fn an_acknowledgement_that_breaks_off_costs_neither_events_nor_requests() {
    let f = Fixture::with(|o| o.concurrency = 1);
    f.upstream.cut_batches(3);
    for _ in 0..6 {
        assert_eq!(f.whole_chat(SOLO), 200);
        std::thread::sleep(Duration::from_millis(150));
    }
    assert_eq!(f.upstream.events(6).len(), 6);
    assert_eq!(f.whole_chat(SOLO), 200);
}

#[test]
fn each_end_of_a_request_has_its_outcome() {
    let f = Fixture::start();
    for (status, outcome) in [
        (404, Outcome::Rejected),
        (429, Outcome::Rejected),
        (500, Outcome::UpstreamError),
    ] {
        f.upstream.answer(Answer::Whole(
            status,
            "application/json",
            "{\"error\":{}}".into(),
        ));
        assert_eq!(f.whole_chat(ACME), status);
        let event = f.upstream.events(1).pop().unwrap();
        assert_eq!(
            (event.outcome(), event.status),
            (outcome, u32::from(status))
        );
        assert!(tokens(&event).is_empty());
        f.upstream.forget_events();
    }
    // A stream that breaks off.
    let stream = f.upstream.stream();
    stream
        .send(Some("data: {\"choices\":[]}\n\n".into()))
        .unwrap();
    stream.send(None).unwrap();
    let _ = f.chat(ACME).text();
    let event = f.upstream.events(1).pop().unwrap();
    assert_eq!(event.outcome(), Outcome::UpstreamError);
}

#[test]
fn a_stream_is_not_held_back_and_a_client_that_leaves_is_seen() {
    let f = Fixture::start();
    let stream = f.upstream.stream();
    let address = f.gateway.url.trim_start_matches("http://");
    let mut client = TcpStream::connect(address).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    write!(
        client,
        "POST {CHAT_PATH} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{BODY}",
        f.key(ACME),
        BODY.len()
    )
    .unwrap();
    // Each piece arrives before the next is sent: nothing is buffered.
    for n in 0..5 {
        let piece = format!("data: {{\"n\":{n}}}\n\n");
        stream.send(Some(piece.clone())).unwrap();
        let mut seen = String::new();
        while !seen.contains(&piece) {
            let mut bytes = [0; 1_000];
            let count = client.read(&mut bytes).unwrap();
            assert!(count > 0, "{seen}");
            seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }
    drop(client);
    let event = f.upstream.events(1).pop().unwrap();
    assert_eq!(event.outcome(), Outcome::ClientDisconnected);
    assert_eq!(event.status, 200);
}

#[test]
fn events_are_kept_until_they_are_acknowledged() {
    let f = Fixture::start();
    f.upstream.refuse_batches(3);
    for _ in 0..20 {
        assert_eq!(f.whole_chat(ACME), 200);
    }
    let mut ids: Vec<String> = f
        .upstream
        .events(20)
        .into_iter()
        .map(|e| e.event_id)
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(
        f.upstream.events(20).len(),
        20,
        "none is sent twice once acknowledged"
    );
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 20);
    assert!(f.gateway.counter("weir_usage_batches_failed") >= 1);
    assert_eq!(f.gateway.counter("weir_usage_events_logged"), 0);
}

#[test]
fn many_at_once_leave_one_event_each() {
    let f = Fixture::start();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    assert_eq!(f.whole_chat(ACME), 200);
                }
            });
        }
    });
    let events = f.upstream.events(200);
    let mut ids: Vec<&String> = events.iter().map(|e| &e.request_id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!((events.len(), ids.len()), (200, 200));
    assert!(events.iter().all(|e| tokens(e) == [[3, 16, 6, 4]]));
}

/// A gateway whose filter sees these headers as if request-classification had set
/// them.
fn classified(set: &[(&str, &str)]) -> Fixture {
    Fixture::changed(
        |_, _| {},
        |config, _| {
            for (name, value) in set {
                set_header(config, "weir.usage_events", name, value);
            }
        },
    )
}

#[test]
fn what_classification_says_is_in_the_event() {
    let f = classified(&[
        (headers::MODEL_ASKED, "gpt-4o-mini"),
        (headers::INPUT_TOKENS, "77"),
    ]);
    let text = "data: {\"choices\":[{\"delta\":{\"content\":\"eight...\"}}]}\n\n";
    f.upstream.answer(Answer::Whole(
        200,
        "text/event-stream",
        format!("{text}data: [DONE]\n\n"),
    ));
    assert_eq!(f.whole_chat(ACME), 200);
    let event = f.upstream.events(1).pop().unwrap();
    assert_eq!(event.model_asked, "gpt-4o-mini");
    let usage = &event.usage[0];
    assert_eq!((usage.input_tokens, usage.output_tokens), (77, 2));
}

#[test]
fn each_answer_has_its_request_id_once() {
    let f = Fixture::start();
    for status in [200, 404, 500] {
        f.upstream
            .answer(Answer::Whole(status, "application/json", CHAT.to_owned()));
        let answer = f.chat(ACME);
        let ids: Vec<_> = answer
            .headers()
            .get_all(headers::REQUEST_ID)
            .iter()
            .collect();
        assert_eq!(
            ids,
            [f.upstream.last().all(headers::REQUEST_ID)[0].as_str()]
        );
    }
}

#[test]
fn the_usage_that_nobody_asked_for_is_hidden_and_counted() {
    let f = classified(&[(headers::USAGE_ADDED, "true")]);
    let text = "data: {\"choices\":[{\"delta\":{\"content\":\"h\u{e9}llo\"}}]}\r\n\r\n";
    let usage =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":19,\"completion_tokens\":10}}\r\n\r\n";
    let end = "data: [DONE]\n\n";
    let sent = format!("{text}{usage}{end}");
    let expected = format!("{text}{end}");
    // With a length, and in pieces that end anywhere.
    f.upstream
        .answer(Answer::Whole(200, "text/event-stream", sent.clone()));
    assert_eq!(f.chat(ACME).text().unwrap(), expected);
    assert!(f.upstream.last().all(headers::USAGE_ADDED).is_empty());
    for size in [1, 7, 40, 1_000] {
        let stream = f.upstream.stream();
        let address = std::thread::spawn(move || {
            let mut rest = sent_pieces(text, usage, end, size);
            rest.drain(..).for_each(|piece| {
                stream.send(Some(piece)).unwrap();
                std::thread::sleep(Duration::from_millis(2));
            });
        });
        assert_eq!(f.chat(ACME).text().unwrap(), expected, "{size}");
        address.join().unwrap();
    }
    for event in f.upstream.events(5) {
        assert_eq!(tokens(&event), [[19, 0, 10, 0]]);
        assert_eq!(event.outcome(), Outcome::Completed);
    }
}

/// Pieces of about `size` bytes; a character stays whole, for the upstream sends text.
fn sent_pieces(text: &str, usage: &str, end: &str, size: usize) -> Vec<String> {
    let all: Vec<char> = format!("{text}{usage}{end}").chars().collect();
    all.chunks(size)
        .map(|piece| piece.iter().collect())
        .collect()
}

#[test]
fn an_answer_in_gzip_passes_as_it_is_and_is_read() {
    // Events of one worker come in their order.
    let f = Fixture::with(|o| o.concurrency = 1);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(CHAT.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    for (encoding, body) in [("gzip", gzip.clone()), ("br", b"12345678".to_vec())] {
        f.upstream
            .answer(Answer::Encoded("application/json", encoding, body.clone()));
        let answer = f
            .post(CHAT_PATH)
            .bearer_auth(f.key(ACME))
            .header("accept-encoding", "gzip, br")
            .send()
            .unwrap();
        assert_eq!(answer.headers()["content-encoding"], encoding);
        assert_eq!(answer.bytes().unwrap(), body);
        // The upstream was asked for none.
        assert_eq!(f.upstream.last().all("accept-encoding"), ["identity"]);
    }
    let events = f.upstream.events(2);
    assert_eq!(tokens(&events[0]), [[3, 16, 6, 4]]);
    let estimated = &events[1].usage[0];
    assert_eq!(estimated.source(), UsageSource::Estimated);
    assert_eq!(estimated.output_tokens, 2);
    assert!(events.iter().all(|e| e.outcome() == Outcome::Completed));
}

#[test]
fn a_client_may_be_given_the_encoding_that_it_wants() {
    let f = Fixture::with(|o| {
        o.usage_events
            .insert("accept_encoding".into(), json!("client"));
    });
    let request = f.post(CHAT_PATH).bearer_auth(f.key(ACME));
    let answer = request.header("accept-encoding", "gzip").send().unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(f.upstream.last().all("accept-encoding"), ["gzip"]);
}
