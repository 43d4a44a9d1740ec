//! The real router serves its directory, follows the file and stops.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)] // tests

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use prost::Message as _;
use weir_wire::{
    directory::{Page, SNAPSHOT_PATH, Version},
    proto::directory::SnapshotRequest,
};

const TOKEN: &str = "a-token-of-more-than-thirty-two-bytes";

/// Ends with the test.
struct Router(Child);

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(folder: &Path, token: &str) -> Router {
    let config = concat!(
        "listen: 127.0.0.1:0\ncatalogue: catalogue.yaml\nplans: {pro: {tiers: []}}\n",
        "providers: {openai: {base_url: 'http://127.0.0.1:1/v1', api_key_env: P_KEY}}\n",
        "aggregator: http://127.0.0.1:1\n",
        "directory: {file: directory.yaml, listen: '127.0.0.1:0', poll_ms: 20}\n"
    );
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
        .env("WEIR_CONTEXT_KEYS", format!("k1:{}", "A".repeat(43)))
        .env("WEIR_INGEST_TOKEN", "t")
        .env("P_KEY", "k")
        .env("WEIR_DIRECTORY_TOKEN", token)
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

/// A page, as a gateway asks for it.
fn ask(address: &str, held: Option<Version>) -> Page {
    let request = SnapshotRequest {
        held: held.map(Into::into),
        ..Default::default()
    };
    let body = request.encode_to_vec();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST {SNAPSHOT_PATH} HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer {TOKEN}\r\n\
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
    Page::decode(&answer[at + 4..]).unwrap()
}

#[test]
fn the_file_is_followed_until_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let file = folder.join("directory.yaml");
    let log = || fs::read_to_string(folder.join("log")).unwrap();
    fs::write(&file, "version: 1\ntenants: [{id: a, plan: pro}]\n").unwrap();
    let mut router = start(folder, TOKEN);
    let ready = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let address = wait_for("address", || ready("directory-ready"));
    wait_for("router", || ready("ready"));
    let first = ask(&address, None);
    assert_eq!(
        (first.version.number, first.base, first.tenants.len()),
        (1, None, 1)
    );

    fs::write(&file, "version: 2\ntenants: [{id: a, plan: free}]\n").unwrap();
    wait_for("error", || log().contains("tenants[0].plan").then_some(()));
    assert_eq!(ask(&address, None).version, first.version);

    fs::write(&file, "version: 2\ntenants: [{id: b, plan: pro}]\n").unwrap();
    let next = wait_for("version 2", || {
        let page = ask(&address, Some(first.version));
        (page.version.number == 2).then_some(page)
    });
    assert_eq!(next.base, Some(first.version));
    assert_eq!((next.tenants.len(), next.removed.len()), (1, 1));

    // A gateway that is connected and silent keeps nothing from stopping.
    let _idle = TcpStream::connect(&address).unwrap();
    let id = router.0.id().to_string();
    assert!(Command::new("kill").arg(&id).status().unwrap().success());
    let status = wait_for("end", || router.0.try_wait().unwrap());
    assert!(status.success(), "{}", log());
    assert!(TcpStream::connect(&address).is_err());
    assert!(!log().contains(TOKEN));
    assert_eq!(
        log().matches("tenants[0].plan").count(),
        1,
        "told once: {}",
        log()
    );
}

#[test]
fn what_is_wrong_at_the_start_is_named() {
    let check = |directory: &str, token: &str, says: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("directory.yaml"), directory).unwrap();
        let mut router = start(folder.path(), token);
        let status = wait_for("end", || router.0.try_wait().unwrap());
        let log = fs::read_to_string(folder.path().join("log")).unwrap();
        assert!(!status.success(), "{log}");
        for say in says {
            assert!(log.contains(say), "{log} should say {say}");
        }
    };
    check(
        "version: 1\ntenants: []\n",
        "short",
        &["WEIR_DIRECTORY_TOKEN", "found 5"],
    );
    check(
        "version: 0\ntenants: []\n",
        TOKEN,
        &["directory.yaml: version: ", "found 0"],
    );
    check("tenants: []\n", TOKEN, &["directory.yaml", "version"]);
}
