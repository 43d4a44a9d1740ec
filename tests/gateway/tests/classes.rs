//! What kind of work a request asks for, in the real Envoy.

use weir_gateway_tests::{
    Fixture,
    fixture::{ACME, BODY, CHAT_PATH},
    raw,
};
use weir_wire::headers;

#[test]
fn chat_and_embeddings_are_told_apart() {
    let f = Fixture::start();
    for (path, class) in [
        (CHAT_PATH, "chat"),
        ("/v1/embeddings", "embedding"),
        ("/v1/embeddings?x=1", "embedding"),
        ("//v1/./embeddings", "embedding"),
    ] {
        let request = f.http.post(format!("{}{path}", f.gateway.url));
        let answer = request.bearer_auth(f.key(ACME)).body(BODY).send().unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(
            f.upstream.last().all(headers::REQUEST_CLASS),
            [class],
            "{path}"
        );
    }
    let request = f.http.get(format!("{}/v1/models", f.gateway.url));
    assert_eq!(
        request.bearer_auth(f.key(ACME)).send().unwrap().status(),
        200
    );
    assert_eq!(f.upstream.last().all(headers::REQUEST_CLASS), ["models"]);
}

#[test]
fn what_is_none_of_ours_never_reaches_the_router() {
    let f = Fixture::start();
    for (method, path, status, code) in [
        ("POST", "/v1/nothing", 404, "unknown_url"),
        (
            "POST",
            "/weir.usage.v1.UsageIngest/Publish",
            404,
            "unknown_url",
        ),
        ("POST", "/grpc.health.v1.Health/Check", 404, "unknown_url"),
        ("GET", "/healthz", 404, "unknown_url"),
        ("GET", CHAT_PATH, 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/v1%2Fembeddings", 400, "gateway_error"),
    ] {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let request = f.http.request(method, format!("{}{path}", f.gateway.url));
        let answer = request.bearer_auth(f.key(ACME)).send().unwrap();
        let allow = answer.headers().contains_key("allow");
        assert_eq!(allow, status == 405, "{path}");
        f.check_refused(answer, status, code);
    }
    assert!(
        f.upstream
            .requests()
            .iter()
            .all(|seen| seen.path == CHAT_PATH)
    );
}

#[test]
fn a_body_that_announces_too_much_is_413() {
    let f = Fixture::start();
    let send = || {
        let request = f.http.post(format!("{}{CHAT_PATH}", f.gateway.url));
        let request = request.bearer_auth(f.key(ACME));
        request.body(vec![b'x'; 20_000_000]).send()
    };
    // The gateway closes a second after its answer: who still writes then, because the
    // machine stood still, does not see it.
    let answer = send().or_else(|_| send()).or_else(|_| send());
    f.check_refused(answer.unwrap(), 413, "request_too_large");
}

#[test]
fn a_length_that_is_none_is_refused() {
    let f = Fixture::start();
    let request = format!(
        "POST {CHAT_PATH} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {}\r\nContent-Length: 1x\r\n\r\n{{}}",
        f.key(ACME)
    );
    let answer = raw::exchange(&f.gateway.url, request.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(f.chat(ACME).status(), 200);
}
