//! What becomes of a request, by what was seen of it.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
use weir_wire::proto::usage::UsageSource;

use super::*;

const STREAM: &str = include_str!("../../../../../contracts/fixtures/openai-chat-stream.txt");
const JSON: &str = include_str!("../../../../../contracts/fixtures/openai-chat.json");

const EVENTS: (&str, &[u8]) = ("content-type", b"text/event-stream");
const ID: &str = "01a89c2e-5d00-7000-8000-000000000000";

/// Headers as the filters before leave them, and `more`.
fn request<'a>(more: &[(&'a str, &'a [u8])]) -> Vec<(&'a str, &'a [u8])> {
    let mut headers: Vec<(&str, &[u8])> = vec![
        (names::TENANT_ID, b"a"),
        (names::TENANT_CONTEXT, b"ctx"),
        (names::REQUEST_ID, ID.as_bytes()),
        (names::REQUEST_CLASS, b"chat"),
    ];
    headers.extend(more);
    headers
}

fn exchange(more: &Pairs<'_>) -> Exchange {
    let begun = Exchange::begin(&request(more), AcceptEncoding::Identity, 1_000);
    begun.unwrap().0
}

fn answer(exchange: &mut Exchange, status: u32, more: &Pairs<'_>) {
    let status = status.to_string();
    let mut headers: Vec<(&str, &[u8])> = vec![(":status", status.as_bytes())];
    headers.extend(more);
    exchange.answer(&headers, || 0, false);
}

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
fn a_whole_answer_is_completed_with_its_tokens() {
    let mut json = exchange(&[(names::MODEL_ASKED, b"gpt-4o")]);
    answer(&mut json, 200, &[("content-type", b"application/json")]);
    assert_eq!(json.body(JSON.as_bytes(), true, || 1_040), JSON.as_bytes());
    let event = json.finish(|| End::Other, || 9, 1_050);
    assert_eq!(event.outcome(), Outcome::Completed);
    assert_eq!(tokens(&event), [[3, 16, 6, 4]]);
    assert_eq!(event.usage[0].model_served, "gpt-4o-2024-08-06");
    assert_eq!(event.duration_ms, 50);
    assert_eq!(event.time_to_first_token_ms, Some(40));
    assert_eq!(
        (event.tenant.as_str(), event.request_class.as_str()),
        ("a", "chat")
    );
    assert_eq!(event.model_asked, "gpt-4o");
    assert_eq!(event.event_id, format!("{ID}/gw"));

    let mut stream = exchange(&[]);
    answer(&mut stream, 200, &[EVENTS]);
    for byte in STREAM.as_bytes() {
        assert_eq!(stream.body(&[*byte], false, || 1_001), [*byte].as_slice());
    }
    assert!(stream.body(b"", true, || 1_002).is_empty());
    let event = stream.finish(|| End::Other, || 9, 1_002);
    assert_eq!(event.outcome(), Outcome::Completed);
    assert_eq!(tokens(&event), [[19, 0, 10, 0]]);
}

#[track_caller]
fn check(status: u32, kind: &str, body: &str, ended: bool, end: End, expected: Outcome) {
    let mut exchange = exchange(&[]);
    answer(&mut exchange, status, &[("content-type", kind.as_bytes())]);
    let _ = exchange.body(body.as_bytes(), ended, || 1_001);
    let event = exchange.finish(|| end, || 9, 1_002);
    assert_eq!(event.outcome(), expected, "{status} {kind} {body:?}");
}

#[test]
fn each_end_has_its_outcome() {
    let half = &STREAM[..STREAM.len() / 2];
    let events = "text/event-stream";
    for (status, kind, body, ended, end, expected) in [
        (
            200,
            events,
            half,
            false,
            End::ClientGone,
            Outcome::ClientDisconnected,
        ),
        (200, events, half, false, End::Other, Outcome::UpstreamError),
        // A stream that ends without [DONE] was cut, however clean it looks.
        (200, events, half, true, End::Other, Outcome::UpstreamError),
        (
            200,
            "application/json",
            "{",
            true,
            End::Other,
            Outcome::UpstreamError,
        ),
        (429, events, "{}", true, End::Other, Outcome::Rejected),
        (503, events, "{}", true, End::Other, Outcome::UpstreamError),
        (
            200,
            events,
            "data: {\"error\":{\"message\":\"m\"}}\n\ndata: [DONE]\n\n",
            true,
            End::Other,
            Outcome::UpstreamError,
        ),
        // What has no end of its own is whole once it ends.
        (
            200,
            "audio/mpeg",
            "ID3",
            true,
            End::Other,
            Outcome::Completed,
        ),
        (
            200,
            "audio/mpeg",
            "ID3",
            false,
            End::ClientGone,
            Outcome::ClientDisconnected,
        ),
        (
            200,
            "text/plain",
            "Hello",
            true,
            End::Other,
            Outcome::Completed,
        ),
        (204, "", "", true, End::Other, Outcome::Completed),
    ] {
        check(status, kind, body, ended, end, expected);
    }
}

#[test]
fn an_answer_may_end_with_trailers() {
    let mut exchange = exchange(&[]);
    answer(&mut exchange, 200, &[EVENTS]);
    let _ = exchange.body(STREAM.as_bytes(), false, || 1_001);
    exchange.end();
    let event = exchange.finish(|| End::Other, || 9, 1_002);
    assert_eq!(event.outcome(), Outcome::Completed);
}

#[test]
fn a_client_that_leaves_before_the_answer_is_no_error() {
    let event = exchange(&[]).finish(|| End::ClientGone, || 9, 1_500);
    assert_eq!(event.outcome(), Outcome::ClientDisconnected);
    assert!(event.usage.is_empty());
    assert_eq!(event.status, 0);
}

#[track_caller]
fn check_estimate(more: &Pairs<'_>, body: &str, ended: bool, expected: Option<[u64; 2]>) {
    let mut exchange = exchange(more);
    let encoding = more.iter().find(|(name, _)| *name == "content-encoding");
    let mut headers = vec![EVENTS];
    headers.extend(encoding);
    answer(&mut exchange, 200, &headers);
    let _ = exchange.body(body.as_bytes(), ended, || 1_001);
    let event = exchange.finish(|| End::ClientGone, || 9, 1_002);
    let usage = &event.usage[0];
    let found = (usage.source() == UsageSource::Estimated)
        .then_some([usage.input_tokens, usage.output_tokens]);
    assert_eq!(found, expected, "{body}");
}

#[test]
fn what_a_stream_does_not_report_is_estimated() {
    let text = "data: {\"choices\":[{\"delta\":{\"content\":\"hello\"}}]}\n\n";
    let whole = format!("{text}{text}data: [DONE]\n\n");
    check_estimate(&[], &whole, true, Some([3, 3]));
    // Who read the request knows better than its size.
    check_estimate(&[(names::INPUT_TOKENS, b"7")], &whole, true, Some([7, 3]));
    check_estimate(&[(names::INPUT_TOKENS, b"-7")], &whole, true, Some([3, 3]));
    check_estimate(&[], text, false, Some([3, 2]));
    check_estimate(&[], "data: [DONE]\n\n", true, Some([3, 0]));
    check_estimate(&[], "", false, None);
    check_estimate(&[], STREAM, true, None);
    // Of what can't be read the bytes are what is known.
    check_estimate(
        &[("content-encoding", b"br")],
        "12345678",
        true,
        Some([3, 2]),
    );
}

#[test]
fn what_is_nobodys_makes_no_event() {
    let open: Vec<(&str, &[u8])> = vec![(names::OPEN, b"1")];
    assert!(Exchange::begin(&open, AcceptEncoding::Identity, 1).is_none());
    assert!(Exchange::missed(&open, &[]).is_none());
    // The limit refused it, before it had a class.
    let mut refused = request(&[]);
    refused.retain(|(name, _)| *name != names::REQUEST_CLASS);
    assert!(Exchange::missed(&refused, &[(":status", b"429")]).is_none());
}

#[test]
fn a_request_that_was_refused_on_its_way_here_is_witnessed() {
    for (status, end, expected) in [
        (Some("400"), End::Other, Outcome::Rejected),
        (None, End::ClientGone, Outcome::ClientDisconnected),
        (None, End::Other, Outcome::UpstreamError),
    ] {
        let mut headers: Vec<(&str, &[u8])> = Vec::new();
        headers.extend(status.map(|s| (":status", s.as_bytes())));
        let missed = Exchange::missed(&request(&[]), &headers).unwrap();
        let minted = u64::try_from(RequestId::parse(ID).unwrap().time_ms()).unwrap();
        let event = missed.finish(|| end, || 9, minted + 30);
        assert_eq!(event.outcome(), expected);
        assert_eq!(event.duration_ms, 30);
        assert!(event.usage.is_empty());
    }
}

#[test]
fn encodings_are_asked_for_as_configured() {
    for (accepted, config, more, expected) in [
        (Some("gzip, br"), AcceptEncoding::Identity, None, true),
        (Some("gzip, br"), AcceptEncoding::Client, None, false),
        (
            Some("gzip"),
            AcceptEncoding::Client,
            Some(names::USAGE_ADDED),
            true,
        ),
        (Some(" Identity"), AcceptEncoding::Identity, None, false),
        (None, AcceptEncoding::Identity, None, false),
    ] {
        let mut headers = request(&[]);
        headers.extend(accepted.map(|a| ("accept-encoding", a.as_bytes())));
        headers.extend(more.map(|name| (name, b"true".as_slice())));
        let (_, changes) = Exchange::begin(&headers, config, 1).unwrap();
        assert_eq!(changes.identity, expected, "{accepted:?} {config:?}");
        assert_eq!(changes.usage_added, more.is_some());
    }
}

#[test]
fn the_chunk_that_nobody_asked_for_is_hidden_and_counted() {
    let chunk =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":19,\"completion_tokens\":10}}\n\n";
    let text = "data: {\"choices\":[{\"delta\":{\"content\":\"hello\"}}]}\n\n";
    let (end, json) = (
        "data: [DONE]\n\n",
        ("content-type", b"application/json".as_slice()),
    );
    let sent = format!("{text}{chunk}{end}");
    for (added, kind, encoding, is_hidden) in [
        (true, EVENTS, "", true),
        (true, EVENTS, "identity", true),
        (false, EVENTS, "", false),
        (true, json, "", false),
        (true, EVENTS, "br", false),
    ] {
        let mut exchange = exchange(if added {
            &[(names::USAGE_ADDED, b"true")]
        } else {
            &[]
        });
        let mut headers: Vec<(&str, &[u8])> =
            vec![(":status", b"200"), kind, ("content-length", b"9")];
        if !encoding.is_empty() {
            headers.push(("content-encoding", encoding.as_bytes()));
        }
        let changes = exchange.answer(&headers, || 0, false);
        assert_eq!(changes.content_length, is_hidden);
        assert_eq!(changes.request_id, Some(ID));
        let mut shown = Vec::new();
        for piece in sent.as_bytes().chunks(7) {
            shown.extend_from_slice(&exchange.body(piece, false, || 1_001));
        }
        shown.extend_from_slice(&exchange.body(b"", true, || 1_001));
        let expected = if is_hidden {
            format!("{text}{end}")
        } else {
            sent.clone()
        };
        assert_eq!(String::from_utf8(shown).unwrap(), expected);
        if kind == EVENTS && encoding != "br" {
            let event = exchange.finish(|| End::Other, || 9, 1_002);
            assert_eq!(tokens(&event), [[19, 0, 10, 0]]);
        }
    }
}

#[test]
fn an_answer_that_has_the_id_keeps_its_own() {
    let mut exchange = exchange(&[]);
    let changes = exchange.answer(&[("X-Weir-Request-Id", b"x")], || 204, true);
    assert_eq!(changes.request_id, None);
    let event = exchange.finish(|| End::Other, || 9, 1_002);
    assert_eq!((event.status, event.outcome()), (204, Outcome::Completed));
}

#[test]
fn an_answer_without_a_body_misses_nothing() {
    for (status, kind) in [
        (200, "application/json"),
        (204, ""),
        (200, "text/event-stream"),
    ] {
        let mut exchange = exchange(&[]);
        let status = u32::to_string(&status);
        let headers: Vec<(&str, &[u8])> = vec![
            (":status", status.as_bytes()),
            ("content-type", kind.as_bytes()),
        ];
        exchange.answer(&headers, || 0, true);
        let event = exchange.finish(|| End::Other, || 9, 1_002);
        assert_eq!(event.outcome(), Outcome::Completed, "{status} {kind}");
    }
}

#[test]
fn a_stream_that_reported_its_usage_and_ended_is_whole() {
    let text = "data: {\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n";
    for (ended, expected) in [(true, Outcome::Completed), (false, Outcome::UpstreamError)] {
        let mut one = exchange(&[]);
        answer(&mut one, 200, &[EVENTS]);
        let _ = one.body(text.as_bytes(), ended, || 1_001);
        let event = one.finish(|| End::Other, || 9, 1_002);
        assert_eq!(event.outcome(), expected);
        assert_eq!(tokens(&event), [[3, 0, 1, 0]]);
    }
}
