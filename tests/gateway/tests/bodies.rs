//! What bodies say of requests, and that they reach the upstream as they are, in the
//! real Envoy.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use reqwest::blocking::{Body, Response};
use serde_json::{Value, json};
use weir_gateway_tests::{
    Fixture,
    fixture::{ACME, BODY, CHAT_PATH},
    raw,
    upstream::Seen,
};
use weir_wire::headers;

/// A gateway with these members in request-classification's configuration.
fn gateway(classification: Value) -> Fixture {
    Fixture::with(|options| {
        options.classification = classification.as_object().unwrap().clone();
    })
}

fn send(f: &Fixture, path: &str, body: impl Into<Body>) -> Response {
    f.post(path)
        .bearer_auth(f.key(ACME))
        .body(body)
        .send()
        .unwrap()
}

/// What reached the upstream of a request that passes.
#[track_caller]
fn passed(f: &Fixture, path: &str, body: &str) -> Seen {
    let answer = send(f, path, body.to_owned());
    assert_eq!(answer.status(), 200, "{path} {body}");
    f.upstream.last()
}

#[track_caller]
fn check_class(f: &Fixture, path: &str, body: &str, class: &str) {
    let seen = passed(f, path, body);
    assert_eq!(seen.path, path);
    assert_eq!(seen.all(headers::REQUEST_CLASS), [class], "{path} {body}");
    assert_eq!(seen.body, body, "{path}");
}

#[test]
fn each_dialects_calls_have_their_class() {
    let f = gateway(json!({}));
    let rag = r#"{"model":"m","retrieval":{"index":"docs"},"messages":[]}"#;
    for (path, class) in [
        (CHAT_PATH, "chat"),
        ("/v1/completions", "completion"),
        ("/v1/responses", "responses"),
        ("/v1/embeddings", "embedding"),
        ("/v1/messages", "chat"),
        ("/v1/messages/count_tokens", "count_tokens"),
        ("/openai/v1/chat/completions", "chat"),
        (
            "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
            "chat",
        ),
        ("/openai/deployments/e/embeddings", "embedding"),
    ] {
        check_class(&f, path, BODY, class);
    }
    for path in [CHAT_PATH, "/v1/messages", "/v1/responses"] {
        check_class(&f, path, rag, "rag");
    }
    let seen = passed(&f, "/openai/deployments/d-1/chat/completions", BODY);
    assert_eq!(seen.all(headers::MODEL_ASKED), ["d-1"]);
}

#[test]
fn model_stream_and_length_are_told() {
    let f = gateway(json!({}));
    let seen = passed(&f, CHAT_PATH, BODY);
    assert_eq!(seen.all(headers::MODEL_ASKED), ["gpt-4o-mini"]);
    assert_eq!(seen.all(headers::STREAM), Vec::<String>::new());
    assert_eq!(seen.all(headers::INPUT_TOKENS), ["2"], "user and hi");
    let seen = passed(&f, CHAT_PATH, r#"{"stream":true,"model":"m\u00f6"}"#);
    assert_eq!(seen.all(headers::MODEL_ASKED), Vec::<String>::new());
    assert_eq!(seen.all(headers::STREAM), ["true"]);
    assert_eq!(seen.all(headers::USAGE_ADDED), Vec::<String>::new());
}

#[test]
fn rules_tell_documents_from_chats() {
    let f = gateway(json!({"rules": [
        {"class": "rag", "path": "/v1/kb/*"},
        {"class": "rag", "header": "x-use-kb", "value": "1*"},
        {"class": "rag", "pointer": "/metadata/index"},
        {"class": "rag", "model": "kb-*"},
    ]}));
    check_class(&f, CHAT_PATH, BODY, "chat");
    check_class(&f, CHAT_PATH, r#"{"model":"kb-1"}"#, "rag");
    check_class(&f, CHAT_PATH, r#"{"metadata":{"index":"i"}}"#, "rag");
    check_class(&f, "/openai/deployments/kb-2/chat/completions", "{}", "rag");
    let request = f.post(CHAT_PATH).bearer_auth(f.key(ACME));
    let answer = request.header("x-use-kb", "12").send().unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(f.upstream.last().all(headers::REQUEST_CLASS), ["rag"]);
    // Known to the filter, and to none of the example's routes.
    let answer = send(&f, "/v1/kb/7", BODY);
    assert_eq!(answer.status(), 404);
    assert!(answer.text().unwrap().contains("route_not_found"));
}

#[test]
fn unknown_paths_are_refused_or_passed_as_configured() {
    let f = gateway(json!({}));
    let answer = send(&f, "/v1/nothing", BODY);
    let id = answer.headers()[headers::REQUEST_ID]
        .to_str()
        .unwrap()
        .len();
    assert_eq!(id, 36, "a tenant can quote it");
    f.check_refused(answer, 404, "unknown_url");
    let f = Fixture::with_config(
        |options| {
            let classification = json!({"unknown": "pass"});
            options.classification = classification.as_object().unwrap().clone();
        },
        |config| {
            route(
                config,
                json!({"match": {"prefix": "/"}, "route": {"cluster": "weir_router"}}),
            )
        },
    );
    check_class(&f, "/v1/nothing", BODY, "unclassified");
    check_class(&f, "/v1/nothing", r#"{"model":7}"#, "unclassified");
    check_class(&f, CHAT_PATH, BODY, "chat");
}

/// Puts a route before the example's.
fn route(config: &mut Value, route: Value) {
    let routes = config.pointer_mut(
        "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes",
    );
    routes.unwrap().as_array_mut().unwrap().insert(0, route);
}

#[test]
fn envoy_routes_by_what_was_found() {
    let answers = |body: &str| json!({"status": 203, "body": {"inline_string": body}});
    let f = Fixture::with_config(
        |_| {},
        |config| {
            let by_state = json!({
                "match": {"prefix": "/", "filter_state": [
                    {"key": "wasm.weir.model_asked", "string_match": {"exact": "by-state"}}]},
                "direct_response": answers("state")});
            let by_header = json!({
                "match": {"prefix": "/", "headers": [
                    {"name": "x-request-class", "string_match": {"exact": "rag"}}]},
                "direct_response": answers("header")});
            route(config, by_state);
            route(config, by_header);
        },
    );
    for (body, expected) in [
        (r#"{"model":"m","retrieval":{}}"#, "header"),
        (r#"{"model":"by-state"}"#, "state"),
    ] {
        let answer = send(&f, CHAT_PATH, body);
        assert_eq!(answer.status(), 203, "{body}");
        assert_eq!(answer.text().unwrap(), expected);
    }
    assert_eq!(f.chat(ACME).status(), 200);
}

/// A chat of about so many bytes.
fn large(bytes: usize) -> String {
    let piece = r#"Grüße, \"text\" and \u00e9. "#;
    let content = piece.repeat(bytes / piece.len());
    format!(r#"{{"messages":[{{"role":"user","content":"{content}"}}],"model":"m"}}"#)
}

#[test]
fn a_large_body_reaches_the_upstream_byte_for_byte() {
    let f = gateway(json!({}));
    let body = large(10_000_000);
    let answer = send(&f, CHAT_PATH, body.clone());
    assert_eq!(answer.status(), 200);
    let seen = f.upstream.last();
    assert!(seen.body == body, "{} bytes", seen.body.len());
    let tokens: usize = seen.all(headers::INPUT_TOKENS)[0].parse().unwrap();
    assert!((2_000_000..3_000_000).contains(&tokens), "{tokens}");
    // Chunked, in pieces of several sizes, and so that Envoy sees no length.
    for size in [7_001, 65_536, 1_000_003] {
        let pieces = std::io::Cursor::new(body.clone().into_bytes());
        let pieces = Pieces(pieces, size);
        let answer = send(&f, CHAT_PATH, Body::new(pieces));
        assert_eq!(answer.status(), 200);
        assert!(f.upstream.last().body == body, "in pieces of {size}");
    }
}

/// Reads at most so many bytes at once.
struct Pieces(std::io::Cursor<Vec<u8>>, usize);

impl std::io::Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(self.1);
        self.0.read(&mut buffer[..most])
    }
}

#[test]
fn a_body_at_the_limit_passes_and_one_beyond_is_413() {
    let f = gateway(json!({}));
    let sized = |length: usize| {
        let frame = r#"{"model":"m","x":""}"#.len();
        format!(r#"{{"model":"m","x":"{}"}}"#, "y".repeat(length - frame))
    };
    let limit = sized(16 << 20);
    assert_eq!(send(&f, CHAT_PATH, limit.clone()).status(), 200);
    assert!(f.upstream.last().body == limit);
    let chunked = |body: String| {
        let pieces = Pieces(std::io::Cursor::new(body.into_bytes()), 60_000);
        send(&f, CHAT_PATH, Body::new(pieces))
    };
    assert_eq!(chunked(limit.clone()).status(), 200);
    assert!(f.upstream.last().body == limit);
    let small = gateway(json!({"max_body_bytes": 1_000}));
    let request = |path: &str, size: usize| {
        let body = format!(r#"{{"x":"{}"}}"#, "y".repeat(size));
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            small.key(ACME),
            body.len()
        );
        raw::exchange(&small.gateway.url, head.as_bytes())
    };
    let before = small.upstream.requests().len();
    let answer = request(CHAT_PATH, 2_000);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("request_too_large"), "{answer}");
    assert_eq!(small.upstream.requests().len(), before);
    assert!(request(CHAT_PATH, 500).starts_with("HTTP/1.1 200"));
}

#[test]
fn broken_json_is_refused_in_each_dialects_words() {
    let f = gateway(json!({}));
    for (body, code, param) in [
        (r#"{"model":"m","#, "invalid_json", Value::Null),
        (r#"{"model":}"#, "invalid_json", Value::Null),
        ("[]", "invalid_json", Value::Null),
        (r#"{"model":1}"#, "invalid_type", json!("model")),
        (r#"{"stream":1}"#, "invalid_type", json!("stream")),
        (
            r#"{"model":"a","model":"b"}"#,
            "invalid_json",
            json!("model"),
        ),
        ("", "invalid_json", Value::Null),
    ] {
        let before = f.upstream.requests().len();
        let answer = send(&f, CHAT_PATH, body.to_owned());
        assert!(answer.headers().contains_key(headers::REQUEST_ID));
        let error = f.check_refused(answer, 400, code);
        assert_eq!(error["error"]["param"], param, "{body}");
        // The one that looked whether the gateway still serves.
        assert_eq!(f.upstream.requests().len(), before + 1);
        let answer = send(&f, "/v1/messages", body.to_owned());
        assert_eq!(answer.status(), 400);
        let error: Value = answer.json().unwrap();
        assert_eq!(error["type"], "error", "{error}");
        assert_eq!(error["error"]["type"], "invalid_request_error", "{error}");
    }
}

#[test]
fn a_stream_is_made_to_report_its_usage() {
    let f = gateway(json!({"add_include_usage": true}));
    for options in [
        "",
        r#","stream_options":{}"#,
        r#","stream_options":null"#,
        r#","stream_options":{"include_usage":false}"#,
        r#","stream_options":{"include_obfuscation":false}"#,
    ] {
        let body = format!(r#"{{"model":"m","messages":[],"stream":true{options}}}"#);
        let seen = passed(&f, CHAT_PATH, &body);
        let mut expected: Value = serde_json::from_str(&body).unwrap();
        expected["stream_options"]["include_usage"] = json!(true);
        let found: Value = serde_json::from_slice(&seen.body).unwrap();
        assert_eq!(found, expected);
        // It is for usage-events, which keeps it.
        assert!(seen.all(headers::USAGE_ADDED).is_empty());
        let length = seen.body.len().to_string();
        assert_eq!(seen.all("content-length"), [length]);
    }
    let asked = r#"{"stream":true,"stream_options":{"include_usage":true}}"#;
    for body in [asked, r#"{"stream":false}"#] {
        let seen = passed(&f, CHAT_PATH, body);
        assert_eq!(seen.body, body);
        assert_eq!(seen.all(headers::USAGE_ADDED), Vec::<String>::new());
    }
    // What came in pieces is changed as a whole.
    let text = "y".repeat(300_000);
    let body =
        format!(r#"{{"stream":true,"messages":["{text}"],"stream_options":{{}},"user":"{text}"}}"#);
    let pieces = Pieces(std::io::Cursor::new(body.clone().into_bytes()), 10_000);
    assert_eq!(send(&f, CHAT_PATH, Body::new(pieces)).status(), 200);
    let expected = body.replace(
        r#""stream_options":{}"#,
        r#""stream_options":{"include_usage":true}"#,
    );
    assert!(f.upstream.last().body == expected);
}

#[test]
fn what_is_no_json_is_not_read_where_none_is_due() {
    let f = Fixture::with_config(
        |options| {
            let classification = json!({"classes": ["chat", "audio", "models"]});
            options.classification = classification.as_object().unwrap().clone();
        },
        |config| {
            route(
                config,
                json!({"match": {"prefix": "/v1/audio/"}, "route": {"cluster": "weir_router"}}),
            )
        },
    );
    let request = f.post("/v1/audio/transcriptions").bearer_auth(f.key(ACME));
    let request = request.header("content-type", "multipart/form-data; boundary=b");
    assert_eq!(request.body("--b--").send().unwrap().status(), 200);
    let seen = f.upstream.last();
    assert_eq!(
        (seen.all(headers::REQUEST_CLASS), &seen.body[..]),
        (vec!["audio".to_owned()], &b"--b--"[..])
    );
    let request = f.http.get(format!("{}/v1/models", f.gateway.url));
    assert_eq!(
        request.bearer_auth(f.key(ACME)).send().unwrap().status(),
        200
    );
    let encoded = f.post(CHAT_PATH).bearer_auth(f.key(ACME));
    let encoded = encoded
        .header("content-encoding", "gzip")
        .body("x")
        .send()
        .unwrap();
    f.check_refused(encoded, 415, "unsupported_content_encoding");
}

#[test]
fn clients_that_leave_or_wait_wedge_nothing() {
    let f = gateway(json!({}));
    let address = f.gateway.url.trim_start_matches("http://").to_owned();
    let head = |lines: &str| {
        format!(
            "POST {CHAT_PATH} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n{lines}\r\n",
            f.key(ACME),
            BODY.len()
        )
    };
    for _ in 0..20 {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(head("").as_bytes()).unwrap();
        stream.write_all(&BODY.as_bytes()[..20]).unwrap();
    }
    let mut stream = TcpStream::connect(&address).unwrap();
    let lines = "Expect: 100-continue\r\nConnection: close\r\n";
    stream.write_all(head(lines).as_bytes()).unwrap();
    let mut begun = [0; 25];
    stream.read_exact(&mut begun).unwrap();
    assert_eq!(&begun, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(BODY.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for _ in 0..5 {
        assert_eq!(f.whole_chat(ACME), 200);
    }
    let classes = f.upstream.requests();
    assert_eq!(classes.len(), 6, "of the others nothing went on");
}

#[test]
fn http_2_is_read_like_http_1() {
    let f = gateway(json!({}));
    let http = reqwest::blocking::Client::builder()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    for body in [
        BODY.to_owned(),
        format!(r#"{{"model":"m","x":"{}"}}"#, "y".repeat(3_000_000)),
    ] {
        let request = http.post(format!("{}{CHAT_PATH}", f.gateway.url));
        let answer = request.bearer_auth(f.key(ACME)).body(body.clone()).send();
        assert_eq!(answer.unwrap().status(), 200);
        assert!(f.upstream.last().body == body);
    }
    let request = http.post(format!("{}{CHAT_PATH}", f.gateway.url));
    let answer = request.bearer_auth(f.key(ACME)).body("{").send().unwrap();
    assert_eq!(answer.status(), 400);
}

#[test]
fn a_body_that_does_not_come_is_408() {
    let f = Fixture::with_config(
        |_| {},
        |config| {
            let manager = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
            let manager = config.pointer_mut(manager).unwrap();
            assert_eq!(manager["request_timeout"], "60s");
            manager["request_timeout"] = json!("1s");
        },
    );
    let cut = format!(
        "POST {CHAT_PATH} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {}\r\nContent-Length: 100\r\n\r\n{{",
        f.key(ACME)
    );
    let answer = raw::exchange(&f.gateway.url, cut.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("\"code\":\"request_timeout\""), "{answer}");
    let event = f.upstream.events(1).pop().unwrap();
    assert_eq!((event.status, event.request_class.as_str()), (408, "chat"));
    assert_eq!(f.chat(ACME).status(), 200);
}
