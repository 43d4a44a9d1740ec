//! Hosts, open paths, certificates and what Envoy itself verified, in the real
//! Envoy.

use std::fs;

use reqwest::{Certificate, Identity, blocking::Client};
use serde_json::{Value, json};
use weir_gateway_tests::{
    Fixture,
    fixture::{ACME, CHAT_PATH},
};
use weir_harness::{
    envoy::{self, Gateway},
    issuer::{Algorithm, Issuer},
};
use weir_wire::headers;

#[test]
fn a_host_must_agree_with_the_key() {
    let f = Fixture::start();
    let ask = |host: &str| {
        let request = f.post(CHAT_PATH).bearer_auth(f.key(ACME));
        request.header("host", host).send().unwrap()
    };
    for host in [
        "acme.api.example.com",
        "ACME.api.example.com:8443",
        "api.example.com",
        "else.org",
    ] {
        assert_eq!(ask(host).status(), 200, "{host}");
        assert_eq!(f.upstream.last().all(headers::TENANT_ID), ["acme"]);
    }
    for host in ["solo.api.example.com", "a.acme.api.example.com"] {
        f.check_refused(ask(host), 403, "conflicting_credentials");
    }
    let alone = f.post(CHAT_PATH).header("host", "acme.api.example.com");
    f.check_refused(alone.send().unwrap(), 401, "invalid_api_key");
}

#[test]
fn a_host_alone_is_believed_only_where_that_is_configured_and_told() {
    let f = Fixture::with(|options| {
        let sources = json!([{"type": "api_key"}, {"type": "subdomain",
            "base_domains": ["api.example.com"], "trust_unauthenticated_host": true}]);
        options.identification.insert("sources".to_owned(), sources);
    });
    let log = fs::read_to_string(&f.gateway.process.log).unwrap();
    assert!(log.contains("trust_unauthenticated_host is on"), "{log}");
    let alone = |host: &str| f.post(CHAT_PATH).header("host", host).send().unwrap();
    assert_eq!(alone("solo.api.example.com").status(), 200);
    assert_eq!(f.upstream.last().all(headers::TENANT_ID), ["solo"]);
    f.check_refused(alone("stranger.api.example.com"), 401, "invalid_api_key");
}

#[test]
fn an_open_path_passes_all_filters_as_nobodys() {
    let f = Fixture::with(|options| {
        let paths = json!(["/v1/models/*"]);
        options
            .identification
            .insert("open_paths".to_owned(), paths);
    });
    let open = f
        .http
        .get(format!("{}/v1/models/any", f.gateway.url))
        .header(headers::TENANT_ID, "acme")
        .header("authorization", "Bearer nonsense");
    assert_ne!(open.send().unwrap().status(), 401);
    let seen = f.upstream.last();
    assert_eq!(seen.all(headers::OPEN), ["1"]);
    for name in headers::INTERNAL.iter().filter(|n| **n != headers::OPEN) {
        assert!(seen.all(name).is_empty(), "{name}");
    }
    assert!(seen.all("authorization").is_empty());
    let closed = f
        .http
        .get(format!("{}/v1/models", f.gateway.url))
        .header(headers::OPEN, "1");
    f.check_refused(closed.send().unwrap(), 401, "invalid_api_key");
    // That of the check.
    assert_eq!(f.gateway.counter("weir_usage_events_taken"), 1);
    assert_eq!(f.gateway.counter("weir_tenant_open"), 1);
}

/// A gateway whose configuration is changed before it starts.
fn changed(f: &Fixture, change: impl FnOnce(&mut Value)) -> Gateway {
    let mut config = envoy::configuration(&f.options).unwrap();
    change(&mut config["static_resources"]["listeners"][0]["filter_chains"][0]);
    let path = f.folder.path().join("changed.json");
    fs::write(&path, config.to_string()).unwrap();
    Gateway::start_with("changed", &f.options, f.folder.path(), &path).unwrap()
}

#[test]
fn what_jwt_authn_verified_is_believed() {
    let issuer = Issuer::new();
    let f = Fixture::with(|options| {
        let sources = json!([{"type": "jwt_authn", "payload_in_metadata": "weir"}]);
        options.identification.insert("sources".to_owned(), sources);
    });
    let gateway = changed(&f, |chain| {
        let jwt_authn = json!({
            "name": "envoy.filters.http.jwt_authn",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
                "providers": {"p": {
                    "issuer": issuer.name(Algorithm::Es256),
                    "audiences": ["weir"],
                    "require_expiration": true,
                    "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
                    "local_jwks": {"inline_string": issuer.jwks(&[Algorithm::Es256]).to_string()},
                    "payload_in_metadata": "weir",
                }},
                "rules": [{"match": {"prefix": "/"}, "requires": {"requires_any": {"requirements": [
                    {"provider_name": "p"}, {"allow_missing_or_failed": {}}]}}}],
            },
        });
        let filters = chain["filters"][0]["typed_config"]["http_filters"].as_array_mut();
        filters.unwrap().insert(0, jwt_authn);
    });
    let ask = |token: String| {
        let url = format!("{}{CHAT_PATH}", gateway.url);
        let request = f.http.post(url).bearer_auth(token);
        request
            .header("x-tenant-id", "acme")
            .body("{}")
            .send()
            .unwrap()
            .status()
    };
    assert_eq!(ask(issuer.token(Algorithm::Es256, "solo")), 200);
    assert_eq!(f.upstream.last().all(headers::TENANT_ID), ["solo"]);
    assert_eq!(ask(Issuer::new().token(Algorithm::Es256, "solo")), 401);
    assert_eq!(ask(issuer.token(Algorithm::Es256, "stranger")), 401);
}

fn named(name: &str) -> rcgen::CertificateParams {
    let mut params = rcgen::CertificateParams::default();
    // By default all have one name, and would look self-signed.
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    params
}

/// An authority and, signed by it, a certificate of that name.
struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = named("authority");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: rcgen::Issuer::new(params, key),
            pem,
        }
    }

    /// Certificate and key.
    fn issue(&self, names: Vec<rcgen::SanType>) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = named("leaf");
        params.subject_alt_names = names;
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn client(&self, uri: &str) -> Identity {
        let name = rcgen::SanType::URI(uri.try_into().unwrap());
        let (certificate, key) = self.issue(vec![name]);
        Identity::from_pem(format!("{certificate}{key}").as_bytes()).unwrap()
    }
}

#[test]
fn only_a_certificate_that_was_validated_names_a_tenant() {
    let f = Fixture::with(|options| {
        let sources = json!([{"type": "client_certificate", "san": "uri",
            "pattern": "spiffe://example/tenant/{tenant}"}]);
        options.identification.insert("sources".to_owned(), sources);
    });
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (certificate, key) =
        authority.issue(vec![rcgen::SanType::IpAddress([127, 0, 0, 1].into())]);
    let tls = |validation: Value| {
        json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "disable_stateless_session_resumption": true,
                "disable_stateful_session_resumption": true,
                "common_tls_context": {
                    "tls_certificates": [{
                        "certificate_chain": {"inline_string": certificate},
                        "private_key": {"inline_string": key},
                    }],
                    "validation_context": validation,
                },
            },
        })
    };
    let mut validation = json!({"trusted_ca": {"inline_string": authority.pem}});
    validation["trust_chain_verification"] = json!("ACCEPT_UNTRUSTED");
    let gateway = changed(&f, |chain| chain["transport_socket"] = tls(validation));
    let ask = |identity: Option<Identity>| {
        let root = Certificate::from_pem(authority.pem.as_bytes()).unwrap();
        let mut client = Client::builder().tls_certs_only([root]).no_proxy();
        if let Some(identity) = identity {
            client = client.identity(identity);
        }
        let url = gateway.url.replace("http://", "https://");
        let request = client.build().unwrap().post(format!("{url}{CHAT_PATH}"));
        request
            .header("x-tenant-id", "solo")
            .body("{}")
            .send()
            .unwrap()
            .status()
    };
    let acme = "spiffe://example/tenant/acme";
    assert_eq!(ask(Some(authority.client(acme))), 200);
    assert_eq!(f.upstream.last().all(headers::TENANT_ID), ["acme"]);
    assert_eq!(ask(Some(stranger.client(acme))), 401, "nobody validated it");
    assert_eq!(
        ask(Some(authority.client("spiffe://example/service/a"))),
        401
    );
    assert_eq!(
        ask(Some(authority.client("spiffe://example/tenant/none"))),
        401
    );
    assert_eq!(ask(None), 401);
}
