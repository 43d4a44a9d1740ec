//! The real router, with what it serves to gateways beside tenants' paths.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)] // tests

mod directory;
mod quota;
mod tenants;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use prost::Message;

const TOKEN: &str = "a-token-of-more-than-thirty-two-bytes";

const PLANS: &str = "plans: {pro: {tiers: []}}\n";

const DIRECTORY: &str = "directory: {file: directory.yaml, listen: '127.0.0.1:0', poll_ms: 20}\n";

/// Ends with the test.
struct Router(Child);

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Router {
    /// Asks it to stop, and waits until it has.
    fn stop(&mut self, log: impl Fn() -> String) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").arg(&id).status().unwrap().success());
        let status = wait_for("end", || self.0.try_wait().unwrap());
        assert!(status.success(), "{}", log());
    }
}

/// Starts it on those plans and sections; `token` is for every service.
fn start(folder: &Path, sections: &[&str], token: &str) -> Router {
    let config = concat!(
        "listen: 127.0.0.1:0\ncatalogue: catalogue.yaml\n",
        "providers:\n",
        "  anthropic: {kind: anthropic, base_url: 'http://127.0.0.1:1/v1', api_key_env: P_KEY}\n",
        "  openai: {kind: openai, base_url: 'http://127.0.0.1:1/v1', api_key_env: P_KEY}\n",
        "  self-hosted: {kind: openai-compatible, base_url: 'http://127.0.0.1:1/v1'}\n",
        "aggregator: http://127.0.0.1:1\n"
    );
    let config = config.to_owned() + &sections.concat();
    fs::write(folder.join("router.yaml"), config).unwrap();
    let catalogue = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/catalogue.yaml");
    fs::copy(catalogue, folder.join("catalogue.yaml")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_router-service"));
    command
        .arg("--config")
        .arg(folder.join("router.yaml"))
        .arg("--ready-file")
        .arg(folder.join("ready"))
        .arg("--directory-ready-file")
        .arg(folder.join("directory-ready"))
        .arg("--quota-ready-file")
        .arg(folder.join("quota-ready"))
        .arg("--services-ready-file")
        .arg(folder.join("services-ready"))
        .env("WEIR_SERVICE_TOKEN", token)
        .env("WEIR_CONTEXT_KEYS", format!("k1:{}", "A".repeat(43)))
        .env("WEIR_INGEST_TOKEN", "t")
        .env("P_KEY", "k")
        .env("WEIR_DIRECTORY_TOKEN", token)
        .env("WEIR_QUOTA_TOKEN", token)
        .stderr(Stdio::from(fs::File::create(folder.join("log")).unwrap()));
    Router(command.spawn().unwrap())
}

#[track_caller]
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "no {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A message's answer, as a gateway asks for it.
fn ask(address: &str, path: &str, message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer {TOKEN}\r\n\
         content-type: application/proto\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream
        .write_all(&[head.as_bytes(), &body].concat())
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let at = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let shown = String::from_utf8_lossy(&answer[..at]);
    assert!(shown.starts_with("HTTP/1.1 200"), "{shown}");
    answer.split_off(at + 4)
}

/// Starts it in vain; the log says why.
#[track_caller]
fn check_no_start(folder: &Path, sections: &[&str], token: &str, says: &[&str]) {
    let mut router = start(folder, sections, token);
    let status = wait_for("end", || router.0.try_wait().unwrap());
    let log = fs::read_to_string(folder.join("log")).unwrap();
    assert!(!status.success(), "{log}");
    for say in says {
        assert!(log.contains(say), "{log} should say {say}");
    }
}
