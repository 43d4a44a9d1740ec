//! Redis over TLS.

use std::{fs, process::Command};

use weir_router_store::{QuotaStore as _, RedisQuota};

use crate::{
    asks::{ask, granted, limit, settings},
    server::{Server, free_port},
};

const URL: &str = "WEIR_TEST_REDIS_URL";

/// The roots are read from the environment, which is the process's: so another one
/// is the client.
#[test]
fn a_server_is_believed_by_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (path("certificate.pem"), path("key.pem"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let port = free_port();
    let _server = Server::start_with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &certificate,
        "--tls-auth-clients",
        "no",
    ]);
    let url = format!("rediss://127.0.0.1:{port}/");
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let stranger = path("other.pem");
    fs::write(&stranger, other.cert.pem()).unwrap();
    for (roots, is_granted) in [(&certificate, true), (&stranger, false)] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tls::client", "--ignored", "--nocapture"])
            .env("SSL_CERT_FILE", roots)
            .env(URL, &url)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.success(), is_granted, "{said}");
        assert_eq!(said.contains("certificate"), !is_granted, "{said}");
    }
}

#[tokio::test]
#[ignore = "the process that the test above starts"]
async fn client() {
    rustls::crypto::ring::default_provider()
        .install_default()
        .unwrap();
    let url = std::env::var(URL).unwrap();
    let store = RedisQuota::connect(&settings(url)).await.unwrap();
    let answer = store.acquire(ask(1, 1, &[limit(10, 60)])).await;
    println!("{answer:?}");
    assert_eq!(granted(&answer.unwrap()), 1);
}
