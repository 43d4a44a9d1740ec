//! What becomes of requests: by their path, by rules, by their bodies.

use proptest::prelude::*;
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
use weir_dialects::routes::RequestClass;

use crate::{Begun, Classifier, Config, Denial, Next, Step, Told};

const CHAT: &str = "/v1/chat/completions";

fn classifier(members: Value) -> Classifier {
    try_classifier(members).unwrap()
}

fn try_classifier(members: Value) -> Result<Classifier, String> {
    let mut config = json!({"host": "envoy"});
    for (name, value) in members.as_object().unwrap() {
        config[name] = value.clone();
    }
    // Null stands for nothing at all.
    config
        .as_object_mut()
        .unwrap()
        .retain(|_, value| !value.is_null());
    let config: Config = serde_json::from_value(config).map_err(|e| e.to_string())?;
    Classifier::new(config)
}

/// A request, its body in those pieces.
struct Sent<'a> {
    method: &'a str,
    path: &'a str,
    headers: &'a [(&'a str, &'a str)],
    body: Vec<&'a [u8]>,
}

fn post<'a>(path: &'a str, body: &'a str) -> Sent<'a> {
    Sent {
        method: "POST",
        path,
        headers: &[],
        body: vec![body.as_bytes()],
    }
}

/// What comes of it; also the class that the headers give.
fn run(classifier: &Classifier, sent: &Sent<'_>) -> (RequestClass, Result<Told, Box<Denial>>) {
    let length = sent.body.iter().map(|b| b.len()).sum::<usize>();
    let length_text = length.to_string();
    let mut headers: Vec<(&str, &[u8])> = vec![
        (":method", sent.method.as_bytes()),
        (":path", sent.path.as_bytes()),
    ];
    headers.extend(sent.headers.iter().map(|(n, v)| (*n, v.as_bytes())));
    let chunked = sent.headers.iter().any(|(n, _)| *n == "transfer-encoding");
    let counted = sent.headers.iter().any(|(n, _)| *n == "content-length");
    if !chunked && !counted && length > 0 {
        headers.push(("content-length", length_text.as_bytes()));
    }
    let Begun { class, next } = classifier.begin(&headers, length == 0).unwrap();
    let mut reading = match next {
        Next::Refuse(denial) => return (class, Err(denial)),
        Next::Pass(told) => return (class, Ok(told)),
        Next::Read(reading) => reading,
    };
    for piece in &sent.body {
        match reading.feed(classifier, piece) {
            Step::More => {}
            Step::Pass(told) => return (class, Ok(told)),
            Step::Refuse(denial) => return (class, Err(denial)),
        }
    }
    (class, reading.finish(classifier))
}

#[track_caller]
fn check_class(classifier: &Classifier, sent: &Sent<'_>, expected: &str) {
    let (_, found) = run(classifier, sent);
    let shown = (sent.method, sent.path, sent.headers);
    match found {
        Ok(told) => assert_eq!(told.class.as_str(), expected, "{shown:?}"),
        Err(denial) => {
            let code = denial.error.code.unwrap();
            assert_eq!(format!("{} {code}", denial.status), expected, "{shown:?}");
        }
    }
}

#[test]
fn the_path_tells_the_class() {
    let classifier = classifier(json!({}));
    for (path, class) in [
        (CHAT, "chat"),
        ("/v1/messages", "chat"),
        ("/v1/messages/count_tokens", "count_tokens"),
        ("/v1/completions", "completion"),
        ("/v1/responses", "responses"),
        ("/v1/embeddings?x=1", "embedding"),
        ("/openai/v1/embeddings", "embedding"),
        (
            "/openai/deployments/d/chat/completions?api-version=1",
            "chat",
        ),
        ("/v1/images/generations", "404 unknown_url"),
        ("/v1/nothing", "404 unknown_url"),
        ("/v1/models", "405 method_not_allowed"),
    ] {
        check_class(&classifier, &post(path, r#"{"model":"m"}"#), class);
    }
    let get = Sent {
        method: "GET",
        body: vec![],
        ..post("/v1/models/m", "")
    };
    check_class(&classifier, &get, "models");
}

#[test]
fn other_classes_pass_where_the_operator_says_so() {
    let every = classifier(json!({"classes": ["image", "audio", "batch", "moderation"]}));
    for (path, class) in [
        ("/v1/images/generations", "image"),
        ("/v1/audio/transcriptions", "audio"),
        ("/v1/moderations", "moderation"),
        ("/v1/batches/b/cancel", "batch"),
        ("/v1/messages/batches", "batch"),
        (CHAT, "404 unknown_url"),
    ] {
        // What is no JSON is not read as JSON.
        check_class(&every, &post(path, "--form"), class);
    }
    let broken = Sent {
        headers: &[("content-type", "application/json; charset=utf-8")],
        ..post("/v1/moderations", "--form")
    };
    check_class(&every, &broken, "400 invalid_json");
    let passes = classifier(json!({"unknown": "pass"}));
    check_class(&passes, &post("/v1/nothing", "x"), "unclassified");
    check_class(&passes, &post("/v1/models", "x"), "405 method_not_allowed");
}

#[test]
fn a_retrieval_object_makes_a_call_one_for_documents() {
    let classifier = classifier(json!({}));
    let with = r#"{"model":"m","retrieval":{"index":"i"},"messages":[]}"#;
    for path in [CHAT, "/v1/messages", "/v1/responses"] {
        check_class(&classifier, &post(path, with), "rag");
    }
    check_class(&classifier, &post("/v1/embeddings", with), "embedding");
    let null = r#"{"model":"m","retrieval":null,"a":{"retrieval":{}}}"#;
    check_class(&classifier, &post(CHAT, null), "chat");
    let (begun, _) = run(&classifier, &post(CHAT, with));
    assert_eq!(begun, RequestClass::Chat);
    let without = try_classifier(json!({"classes": ["chat"]})).unwrap();
    check_class(&without, &post(CHAT, with), "400 unsupported_parameter");
}

#[test]
fn the_first_rule_that_holds_decides() {
    let classifier = classifier(
        json!({"classes": ["chat", "rag", "embedding", "completion"], "rules": [
            {"class": "rag", "path": "/v1/kb/*", "method": "POST"},
            {"class": "embedding", "header": "x-use", "value": "e*", "path": "/v1/*"},
            {"class": "completion", "pointer": "/metadata/kind", "equals": 7},
            {"class": "rag", "pointer": "/index"},
            {"class": "rag", "model": "kb-*"},
            {"class": "completion", "header": "x-any"},
        ]}),
    );
    let with = |path, body, headers| Sent {
        headers,
        ..post(path, body)
    };
    let plain: &[(&str, &str)] = &[];
    let json = r#"{"model":"m"}"#;
    for (sent, class) in [
        (with("/v1/kb/7?x", "no json", plain), "rag"),
        (with("/v1/other", json, &[("x-use", "e1")]), "embedding"),
        (with("/v1/other", json, &[("x-any", "")]), "404 unknown_url"),
        (with(CHAT, json, &[("x-use", "f")]), "chat"),
        (with(CHAT, json, &[("x-any", "")]), "completion"),
        (with(CHAT, r#"{"model":"kb-1"}"#, &[("x-any", "")]), "rag"),
        (
            with(CHAT, r#"{"metadata":{"kind":7.0},"index":1}"#, plain),
            "completion",
        ),
        (
            with(CHAT, r#"{"metadata":{"kind":"7"},"index":1}"#, plain),
            "rag",
        ),
        (with(CHAT, r#"{"index":null}"#, plain), "chat"),
        (
            with("/openai/deployments/kb-x/chat/completions", "{}", plain),
            "rag",
        ),
    ] {
        check_class(&classifier, &sent, class);
    }
    // The headers alone say it already.
    let (begun, _) = run(&classifier, &with(CHAT, json, &[("x-any", "")]));
    assert_eq!(begun, RequestClass::Completion);
}

#[track_caller]
fn check_told(body: &str, model: Option<&str>, stream: bool, text: &str) {
    let classifier = classifier(json!({}));
    let (_, told) = run(&classifier, &post(CHAT, body));
    let told = told.unwrap();
    assert_eq!(told.model.as_deref(), model, "{body}");
    assert_eq!(told.stream, stream, "{body}");
    let tokens = u64::try_from(text.len()).unwrap().div_ceil(4);
    assert_eq!(told.input_tokens, Some(tokens), "{body}");
}

#[test]
fn model_stream_and_length_are_told() {
    check_told(
        r#"{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"hello there"}]}"#,
        Some("gpt-4o"),
        true,
        "userhello there",
    );
    check_told(
        r#"{"stream":false,"messages":[{"content":[{"image_url":{"url":"data:long"}},{"text":"x"}]}]}"#,
        None,
        false,
        "x",
    );
    check_told(r#"{"model":"m\u00f6del"}"#, None, false, "");
    check_told(r#"{"model":"two words"}"#, None, false, "");
    let long = "m".repeat(300);
    let clipped = "m".repeat(256);
    check_told(
        &format!(r#"{{"model":"{long}"}}"#),
        Some(&clipped),
        false,
        "",
    );
    // A deployment is the model, whatever the body says.
    let (_, told) = run(
        &classifier(json!({})),
        &post("/openai/deployments/d-1/embeddings", r#"{"model":"m"}"#),
    );
    assert_eq!(told.unwrap().model.as_deref(), Some("d-1"));
}

#[test]
fn what_can_be_read_in_two_ways_or_not_at_all_is_refused() {
    let classifier = classifier(json!({}));
    for (body, expected, names) in [
        (r#"{"model":"a","model":"b"}"#, "400 invalid_json", "model"),
        (
            r#"{"stream":true,"x":1,"stre\u0061m":false}"#,
            "400 invalid_json",
            "stream",
        ),
        (
            r#"{"retrieval":{},"retrieval":null}"#,
            "400 invalid_json",
            "retrieval",
        ),
        (r#"{"model":7}"#, "400 invalid_type", "model"),
        (r#"{"stream":"true"}"#, "400 invalid_type", "stream"),
        (r#"["model"]"#, "400 invalid_json", "object"),
        (r#"{"model":"m""#, "400 invalid_json", "byte 12"),
        (
            r#"{"model":}"#,
            "400 invalid_json",
            "expected a value at byte 9",
        ),
        ("", "400 invalid_json", "byte 0"),
        (" ", "400 invalid_json", "byte 1"),
        (r#"{} {}"#, "400 invalid_json", "byte 3"),
    ] {
        check_class(&classifier, &post(CHAT, body), expected);
        let (begun, found) = run(&classifier, &post(CHAT, body));
        let error = found.unwrap_err().error;
        let text = format!("{} {:?}", error.message, error.param);
        assert!(text.contains(names), "{text} should name {names}");
        assert_eq!(begun.as_str(), "chat", "{body}");
    }
}

#[test]
fn a_body_has_a_bound() {
    let small = classifier(json!({"max_body_bytes": 20}));
    check_class(
        &small,
        &post(CHAT, r#"{"model":"012345678"}"#),
        "413 request_too_large",
    );
    check_class(&small, &post(CHAT, r#"{"model":"01234567"}"#), "chat");
    for (length, expected) in [
        ("1,1", "400 invalid_header"),
        ("21", "413 request_too_large"),
        ("99999999999999999999", "400 invalid_header"),
    ] {
        let sent = Sent {
            headers: &[("content-length", length)],
            ..post(CHAT, "{}")
        };
        check_class(&small, &sent, expected);
    }
    let pieces = Sent {
        headers: &[("transfer-encoding", "chunked")],
        body: vec![&b"{\"model\": "[..]; 3],
        ..post(CHAT, "")
    };
    let (_, found) = run(&small, &pieces);
    // The second piece is no JSON any more.
    assert_eq!(found.unwrap_err().status, 400);
    let pieces = Sent {
        body: vec![&b"          "[..]; 3],
        ..pieces
    };
    assert_eq!(run(&small, &pieces).1.unwrap_err().status, 413);
}

#[test]
fn it_stops_once_it_knows() {
    let classifier = classifier(json!({}));
    let first = br#"{"model":"m","input":"abc"#;
    let rest = br#"defg"} and what the upstream says of it"#;
    let sent = Sent {
        body: vec![first, rest],
        ..post("/v1/embeddings", "")
    };
    let (_, told) = run(&classifier, &sent);
    let text = u64::try_from(3 + rest.len()).unwrap();
    assert_eq!(told.unwrap().input_tokens, Some(text.div_ceil(4)));
    let chat = Sent { path: CHAT, ..sent };
    // Whether there are documents is known at the end alone.
    check_class(&classifier, &chat, "400 invalid_json");
    let chunked = Sent {
        path: "/v1/embeddings",
        headers: &[("transfer-encoding", "chunked")],
        ..chat
    };
    check_class(&classifier, &chunked, "400 invalid_json");
}

#[test]
fn what_cannot_be_read_is_a_matter_of_policy() {
    let gzip = |headers| Sent {
        headers,
        ..post(CHAT, "\x1f\u{8b}")
    };
    let encoded = gzip(&[("content-encoding", "gzip")]);
    let plain = gzip(&[("content-encoding", "identity")]);
    let envoy = classifier(json!({}));
    check_class(&envoy, &encoded, "415 unsupported_content_encoding");
    check_class(&envoy, &plain, "400 invalid_json");
    check_class(
        &classifier(json!({"unreadable": "pass"})),
        &encoded,
        "unclassified",
    );
    // Kong can't show what it spooled.
    for (config, status) in [
        (json!({"host": "kong"}), None),
        (json!({"host": "kong", "unreadable": "refuse"}), Some(415)),
    ] {
        let kong = classifier(config);
        let headers: [(&str, &[u8]); 3] = [
            (":method", b"POST"),
            (":path", b"/v1/messages"),
            ("content-length", b"9000"),
        ];
        let Next::Read(reading) = kong.begin(&headers, false).unwrap().next else {
            panic!("a body is read");
        };
        let found = reading.unreadable(&kong);
        assert_eq!(found.as_ref().err().map(|d| d.status), status);
        assert!(found.is_err() || found.unwrap().class == RequestClass::Unclassified);
    }
    let headers_alone = classifier(json!({"read_body": false}));
    check_class(&headers_alone, &post(CHAT, "no json"), "chat");
}

#[test]
fn an_open_path_is_left_alone() {
    let headers: [(&str, &[u8]); 3] = [
        (":method", b"GET"),
        (":path", b"/healthz"),
        ("x-weir-open", b"1"),
    ];
    assert!(classifier(json!({})).begin(&headers, true).is_none());
}

/// The body after the change that the filter makes.
fn with_usage(path: &str, body: &str) -> Option<String> {
    let classifier = classifier(json!({"add_include_usage": true}));
    let told = run(&classifier, &post(path, body)).1.unwrap();
    let edit = told.edit?;
    let changed = format!("{}{}{}", &body[..edit.start], edit.text, &body[edit.end..]);
    let before = u64::try_from(body.len()).unwrap();
    assert_eq!(edit.length(before), u64::try_from(changed.len()).unwrap());
    Some(changed)
}

#[track_caller]
fn check_usage(body: &str, expected: Option<&str>) {
    for path in [CHAT, "/v1/completions", "/openai/deployments/d/completions"] {
        assert_eq!(with_usage(path, body).as_deref(), expected, "{body}");
    }
    for path in ["/v1/responses", "/v1/messages", "/v1/embeddings"] {
        assert_eq!(with_usage(path, body), None, "{path} {body}");
    }
}

#[test]
fn a_stream_is_made_to_report_its_usage() {
    check_usage(
        r#" {"stream":true}"#,
        Some(r#" {"stream_options":{"include_usage":true},"stream":true}"#),
    );
    check_usage(
        r#"{"stream_options":{ },"stream":true}"#,
        Some(r#"{"stream_options":{"include_usage":true},"stream":true}"#),
    );
    check_usage(
        r#"{"stream":true,"stream_options":null}"#,
        Some(r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
    );
    for off in ["false", "null"] {
        check_usage(
            &format!(r#"{{"stream":true,"stream_options":{{"a":1,"include_usage":{off}}}}}"#),
            Some(r#"{"stream":true,"stream_options":{"a":1,"include_usage":true}}"#),
        );
    }
    check_usage(
        r#"{"stream":true,"stream_options":{"a":[1]}}"#,
        Some(r#"{"stream":true,"stream_options":{"include_usage":true,"a":[1]}}"#),
    );
    for body in [
        r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        r#"{"stream":true,"stream_options":7}"#,
        r#"{"stream":true,"stream_options":{"include_usage":"x"}}"#,
        r#"{"stream":false}"#,
        "{}",
    ] {
        check_usage(body, None);
    }
    let usual = classifier(json!({}));
    let told = run(&usual, &post(CHAT, r#"{"stream":true}"#)).1.unwrap();
    assert_eq!(told.edit, None);
}

#[test]
fn what_is_wrong_in_the_config_is_named() {
    let rule = |rule: Value| json!({"rules": [rule]});
    for (members, names) in [
        (json!({"max_body": 1}), "max_body"),
        (json!({"host": null}), "host"),
        (json!({"max_body_bytes": 0}), "max_body_bytes"),
        (json!({"classes": ["chats"]}), "classes"),
        (json!({"classes": []}), "classes"),
        (json!({"unknown": "let"}), "let"),
        (json!({"unreadable": "let"}), "let"),
        (
            json!({"host": "kong", "filter_state": true}),
            "filter_state",
        ),
        (
            json!({"host": "kong", "add_include_usage": true}),
            "add_include_usage",
        ),
        (
            json!({"read_body": false, "add_include_usage": true}),
            "read_body",
        ),
        (
            json!({"read_body": false, "rules": [{"class": "rag", "model": "a"}]}),
            "read_body",
        ),
        (
            json!({"rules": vec![json!({"class": "rag", "path": "/"}); 17]}),
            "rules",
        ),
        (rule(json!({"class": "rag"})), "rules[0].must have one of"),
        (
            rule(json!({"class": "image", "path": "/a"})),
            "rules[0].class",
        ),
        (rule(json!({"class": "rag", "path": "a"})), "rules[0].path"),
        (rule(json!({"class": "rag", "pth": "/a"})), "pth"),
        (
            rule(json!({"class": "rag", "method": "post"})),
            "rules[0].method",
        ),
        (
            rule(json!({"class": "rag", "header": "X-A"})),
            "rules[0].header",
        ),
        (
            rule(json!({"class": "rag", "header": "x-tenant-id"})),
            "none of Weir's own",
        ),
        (
            rule(json!({"class": "rag", "path": "/a", "value": "x"})),
            "rules[0].value",
        ),
        (
            rule(json!({"class": "rag", "pointer": "a"})),
            "rules[0].pointer",
        ),
        (
            rule(json!({"class": "rag", "path": "/a", "equals": 1})),
            "rules[0].equals",
        ),
        (
            rule(json!({"class": "rag", "pointer": "/a", "equals": []})),
            "rules[0].equals",
        ),
        (rule(json!({"class": "rag", "model": ""})), "rules[0].model"),
    ] {
        let error = try_classifier(members).unwrap_err();
        assert!(error.contains(names), "{error} should name {names}");
    }
}

#[test]
fn a_refusal_says_what_is_allowed_and_repeats_no_query() {
    let classifier = classifier(json!({}));
    let sent = Sent {
        method: "GET",
        body: vec![],
        ..post("/v1/embeddings?key=secret", "")
    };
    let denial = run(&classifier, &sent).1.unwrap_err();
    assert_eq!(denial.allow, Some("POST"));
    assert!(!denial.error.message.contains("secret"), "{denial:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_make_no_difference_and_nothing_panics(
        members in prop::collection::vec(prop_oneof![
            Just(r#""model":"m""#), Just(r#""stream":true"#), Just(r#""stream":1"#),
            Just(r#""retrieval":{}"#), Just(r#""stream_options":{"include_usage":false}"#),
            Just(r#""messages":[{"content":"é"}]"#), Just("\"x\":nul")], 0..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let classifier = classifier(json!({"add_include_usage": true}));
        let body = format!("{{{}}}", members.join(","));
        let whole = run(&classifier, &post(CHAT, &body)).1;
        let (a, b) = body.as_bytes().split_at(cut.index(body.len() + 1));
        // Without a length, so that both read to the end.
        let chunked: &[(&str, &str)] = &[("transfer-encoding", "chunked")];
        let cut = Sent { body: vec![a, b], headers: chunked, ..post(CHAT, "") };
        let whole_chunked = Sent { body: vec![body.as_bytes()], headers: chunked, ..post(CHAT, "") };
        let found = run(&classifier, &cut).1;
        prop_assert_eq!(found.is_ok(), whole.is_ok());
        if let Ok(told) = &found {
            prop_assert_eq!(told, &run(&classifier, &whole_chunked).1.unwrap());
        }
    }
}
