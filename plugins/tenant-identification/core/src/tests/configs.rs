//! What a configuration may say.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

#[track_caller]
fn check_refused(json: &str, names: &str) {
    let error = read(json).map(|_| ()).unwrap_err();
    assert!(error.contains(names), "{error} should name {names}");
}

#[test]
fn what_is_wrong_with_the_tenants_is_named() {
    let hash = "ab".repeat(32);
    check_refused(r#"{"host":"nginx","tenants":[]}"#, "nginx");
    check_refused(r#"{"host":"envoy","tenant":[]}"#, "tenant");
    check_refused(r#"{"host":"envoy"}"#, "tenants");
    let tenant = |keys: &str| {
        format!(r#"{{"host":"envoy","tenants":[{{"id":"a","plan":"p","keys":[{keys}]}}]}}"#)
    };
    check_refused(&tenant(r#"{"sha256":"xyz"}"#), "tenants[0].keys[0].sha256");
    check_refused(&tenant(r#"{"sha":"xyz"}"#), "sha");
    let key = format!(r#"{{"sha256":"{hash}"}}"#);
    check_refused(&tenant(&format!("{key},{key}")), "keys[1].sha256");
    let key = format!(r#"{{"sha256":"{hash}","expires_at":"tomorrow"}}"#);
    check_refused(&tenant(&key), "keys[0].expires_at");
    let key = format!(r#"{{"sha256":"{hash}","state":"off"}}"#);
    check_refused(&tenant(&key), "off");
    check_refused(
        r#"{"host":"envoy","tenants":[{"id":"a b","plan":"p","keys":[]}]}"#,
        "a b",
    );
    check_refused(
        r#"{"host":"envoy","tenants":[{"id":"a","plan":"p"},{"id":"a","plan":"q"}]}"#,
        "tenants[1].id",
    );
}

#[test]
fn what_is_wrong_with_the_rest_is_named() {
    for (more, names) in [
        (r#""sources":[]"#, "sources"),
        (r#""sources":[{"type":"cookie"}]"#, "cookie"),
        (r#""sources":[{"type":"api_key","header":"x"}]"#, "header"),
        (
            r#""sources":[{"type":"api_key"},{"type":"api_key"}]"#,
            "sources[1].type",
        ),
        (
            r#""sources":[{"type":"api_key","headers":[]}]"#,
            "sources[0].headers",
        ),
        (
            r#""sources":[{"type":"api_key","headers":["X-Key"]}]"#,
            "sources[0].headers[0]",
        ),
        (
            r#""sources":[{"type":"jwt","issuers":[]}]"#,
            "sources[0].issuers",
        ),
        (
            r#""sources":[{"type":"api_key"},{"type":"jwt","issuers":[{"issuer":"i","algorithms":["HS256"],"audiences":["w"]}]}]"#,
            "sources[1].issuers[0]",
        ),
        (
            r#""sources":[{"type":"jwt","issuers":[{"issuer":"i","algorithms":["none"]}]}]"#,
            "none",
        ),
        (
            r#""sources":[{"type":"subdomain","base_domains":["a.example"]}]"#,
            "sources",
        ),
        (
            r#""sources":[{"type":"api_key"},{"type":"subdomain","base_domains":["a b"]}]"#,
            "sources[1].base_domains",
        ),
        (
            r#""sources":[{"type":"client_certificate","san":"uri","pattern":"x"}]"#,
            "sources[0].pattern",
        ),
        (
            r#""sources":[{"type":"jwt","issuers":[{"issuer":"i","algorithms":["RS256"],"leeway_s":-1}]}]"#,
            "sources[0].issuers[0].leeway_s",
        ),
        (
            r#""sources":[{"type":"jwt","issuers":[{"issuer":"i","algorithms":["HS256"],"audiences":["w"],"secret_env":"c2VjcmV0"}]}]"#,
            "sources[0].issuers[0].secret_env",
        ),
        (r#""open_paths":["x"]"#, "open_paths[0]"),
        (r#""tokens":{"checks_per_s":0}"#, "tokens.checks_per_s"),
        (r#""tokens":{"cache":1}"#, "cache"),
        (r#""directory":{"cluster":"c"}"#, "directory"),
    ] {
        check_refused(&format!(r#"{{"host":"envoy","tenants":[],{more}}}"#), names);
    }
    for (directory, names) in [
        (r#"{"cluster":""}"#, "directory.cluster"),
        (r#"{"cluster":"c","poll_ms":10}"#, "directory.poll_ms"),
        (r#"{"cluster":"c","timeout_ms":0}"#, "directory.timeout_ms"),
    ] {
        let json = format!(r#"{{"host":"envoy","directory":{directory}}}"#);
        check_refused(&json, names);
    }
    // What Kong can't tell is no source there.
    for source in [
        r#"{"type":"jwt_authn","payload_in_metadata":"weir"}"#,
        r#"{"type":"client_certificate","san":"uri","pattern":"x/{tenant}"}"#,
    ] {
        let json = format!(r#"{{"host":"kong","tenants":[],"sources":[{source}]}}"#);
        check_refused(&json, "sources[0].type");
    }
}

#[test]
fn without_tenants_only_credentials_that_say_all_are_admitted() {
    check_refused(r#"{"host":"envoy","admit_unlisted":true}"#, "tenants");
    let source = jwt_source("");
    let json = format!(r#"{{"host":"envoy","admit_unlisted":true,"sources":[{source}]}}"#);
    assert_eq!(read(&json).unwrap().store.tenants(), 0);
    let json = r#"{"host":"envoy","directory":{"cluster":"c"}}"#;
    assert_eq!(read(json).unwrap().directory.unwrap().poll_ms, 5000);
}

#[test]
fn the_hosts_word_alone_is_told_at_the_start() {
    let source = |trusted: bool| {
        config(&format!(
            r#","sources":[{{"type":"api_key"}},{{"type":"subdomain","base_domains":["x.y"],"trust_unauthenticated_host":{trusted}}}]"#
        ))
    };
    assert!(source(true).unwrap().setup.trusts_hosts());
    assert!(!source(false).unwrap().setup.trusts_hosts());
}
