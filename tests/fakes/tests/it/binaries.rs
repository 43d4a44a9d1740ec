//! The binaries: ready file, signals, and logs that keep secrets.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use http::Method;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::client::{eventually, send};

fn start(binary: &str, key: &str, ready: &Path) -> Child {
    Command::new(binary)
        .args(["--listen", "127.0.0.1:0", "--key", key, "--ready-file"])
        .arg(ready)
        .env("RUST_LOG", "trace")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

async fn check(binary: &str, key: &str, path: &str, kind: &str, body: &str, signal: Signal) {
    let folder = tempfile::tempdir().unwrap();
    let ready = folder.path().join("ready");
    let child = start(binary, key, &ready);
    eventually(|| ready.exists()).await;
    let address = fs::read_to_string(&ready).unwrap();
    let port: u16 = address.strip_prefix("127.0.0.1:").unwrap().parse().unwrap();
    assert_ne!(port, 0);
    let bearer = format!("Bearer {key}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("x-api-key", key),
        ("anthropic-version", "2023-06-01"),
        ("content-type", kind),
    ];
    let url = format!("http://{address}{path}");
    send(Method::POST, url, &headers, body.to_owned())
        .await
        .unwrap()
        .with_status(200);
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap())
        .await
        .unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("answered"), "{log}");
    assert!(!log.contains(key) && !log.contains("s3cret"), "{log}");
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "no temporary file is left"
    );
}

#[tokio::test]
async fn the_provider() {
    let body =
        r#"{"model":"gpt-4o","messages":[{"role":"user","content":"s3cret"}],"user":"s3cret"}"#;
    let binary = env!("CARGO_BIN_EXE_fake-provider");
    check(
        binary,
        "sk-k3y",
        "/v1/chat/completions",
        "application/json",
        body,
        Signal::SIGTERM,
    )
    .await;
}

#[tokio::test]
async fn a_compatible_provider_needs_no_key() {
    let folder = tempfile::tempdir().unwrap();
    let ready = folder.path().join("ready");
    let mut child = Command::new(env!("CARGO_BIN_EXE_fake-provider"))
        .args(["--compatible", "--ready-file"])
        .arg(&ready)
        .env("FAKE_PROVIDER_KEYS", "")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually(|| ready.exists()).await;
    let url = format!("http://{}/v1/models", fs::read_to_string(&ready).unwrap());
    let list = send(Method::GET, url, &[], "").await.unwrap();
    assert!(list.with_status(200).text.contains("mistralai/"));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn anthropic() {
    let body = r#"{"model":"claude-opus-4-5","max_tokens":9,"messages":[{"role":"user","content":"s3cret"}]}"#;
    let binary = env!("CARGO_BIN_EXE_fake-anthropic");
    let kind = "application/json";
    check(
        binary,
        "sk-ant-k3y",
        "/v1/messages",
        kind,
        body,
        Signal::SIGTERM,
    )
    .await;
}

#[tokio::test]
async fn stripe() {
    let kind = "application/x-www-form-urlencoded";
    let binary = env!("CARGO_BIN_EXE_fake-stripe");
    check(
        binary,
        "sk_test_k3y",
        "/v1/customers",
        kind,
        "name=s3cret",
        Signal::SIGINT,
    )
    .await;
}

#[test]
fn flags_are_checked() {
    for (binary, arguments, named) in [
        (
            env!("CARGO_BIN_EXE_fake-stripe"),
            &["--key", "sk_live_x"][..],
            "sk_test_",
        ),
        (env!("CARGO_BIN_EXE_fake-stripe"), &[], "--key"),
        (
            env!("CARGO_BIN_EXE_fake-provider"),
            &["--key", "k", "--model", "m=image"],
            "ID=chat",
        ),
        (env!("CARGO_BIN_EXE_fake-provider"), &[], "--key"),
        (env!("CARGO_BIN_EXE_fake-anthropic"), &[], "--key"),
        (
            env!("CARGO_BIN_EXE_fake-anthropic"),
            &["--key", "k", "--model", "@x"],
            "ID@SERVED",
        ),
    ] {
        let output = Command::new(binary).args(arguments).output().unwrap();
        assert!(!output.status.success());
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(named), "{error}");
    }
}
