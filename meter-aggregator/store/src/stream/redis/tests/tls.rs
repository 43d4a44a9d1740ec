//! TLS: whom a client believes, and who it says it is.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use super::{
    server::{Server, free_port},
    ways::{KEEPS, check_round},
};
use crate::stream::{
    redis::{RedisSettings, RedisStream, RedisTls},
    transport::{OpenError, Transport},
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
    let tls_port = port.to_string();
    let files = [
        ["--tls-port", &tls_port],
        ["--tls-cert-file", &certificate],
        ["--tls-key-file", &key],
        ["--tls-ca-cert-file", &certificate],
        ["--tls-auth-clients", "no"],
    ];
    let _server = Server::start_with(&[&KEEPS[..], files.as_flattened()].concat());
    let url = format!("rediss://127.0.0.1:{port}/");
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let stranger = path("other.pem");
    fs::write(&stranger, other.cert.pem()).unwrap();
    for (roots, is_taken) in [(&certificate, true), (&stranger, false)] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "stream::redis::tests::tls::client"])
            .args(["--ignored", "--nocapture"])
            .env("SSL_CERT_FILE", roots)
            .env(URL, &url)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), is_taken, "{said}{error}");
        assert!(said.contains("1 passed") == is_taken, "{said}");
        assert_eq!(error.contains("certificate"), !is_taken, "{error}");
    }
}

#[tokio::test]
#[ignore = "the process that the test above starts"]
async fn client() {
    let provider = rustls::crypto::ring::default_provider();
    provider.install_default().unwrap();
    let url = std::env::var(URL).unwrap();
    let stream = RedisStream::open(RedisSettings::new(url, "a".to_owned()));
    let stream: Arc<dyn Transport> = Arc::new(stream.await.unwrap());
    check_round(&stream).await;
}

/// An authority, and what it signs, in files.
struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    folder: PathBuf,
    file: PathBuf,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        // Who is signed has another name, or would pass for one that signed itself.
        let common_name = rcgen::DnType::CommonName;
        params.distinguished_name.push(common_name, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let file = folder.join(format!("{name}.pem"));
        fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self {
            issuer: rcgen::Issuer::new(params, key),
            folder: folder.to_owned(),
            file,
        }
    }

    /// A certificate for this host, and its key.
    fn signs(&self, name: &str) -> [PathBuf; 2] {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        let [certificate_file, key_file] =
            ["pem", "key"].map(|kind| self.folder.join(format!("{name}.{kind}")));
        fs::write(&certificate_file, signed.pem()).unwrap();
        fs::write(&key_file, key.serialize_pem()).unwrap();
        [certificate_file, key_file]
    }

    /// What a server is started with that asks for a certificate.
    fn arguments(&self, tls_port: u16) -> Vec<String> {
        let [certificate, key] = self.signs("server");
        let text = |path: &Path| path.display().to_string();
        let pairs = [
            ("--tls-port", tls_port.to_string()),
            ("--tls-cert-file", text(&certificate)),
            ("--tls-key-file", text(&key)),
            ("--tls-ca-cert-file", text(&self.file)),
            ("--tls-auth-clients", "yes".to_owned()),
        ];
        let pairs = pairs.map(|(name, value)| [name.to_owned(), value]);
        pairs.into_iter().flatten().collect()
    }
}

/// In a cluster the port of the bus is larger by 10,000.
fn tls_port() -> u16 {
    let mut ports = std::iter::repeat_with(free_port);
    ports.find(|port| *port < 55_000).unwrap()
}

fn start(arguments: &[String], more: &[&str]) -> Server {
    let arguments = arguments.iter().map(String::as_str);
    Server::start_with(&[more, &arguments.collect::<Vec<_>>()].concat())
}

/// What is taken and refused at a server that asks for a certificate.
async fn check_clients(authority: &Authority, settings: RedisSettings) {
    // The tests' process may have one already.
    drop(rustls::crypto::ring::default_provider().install_default());
    let [certificate, key] = authority.signs("client").map(Some);
    let stranger = Authority::new(&authority.folder, "stranger");
    let [strange_certificate, strange_key] = stranger.signs("strange").map(Some);
    let (ours, theirs) = (Some(authority.file.clone()), Some(stranger.file.clone()));
    let open = |ca_file: &Option<PathBuf>, client: [&Option<PathBuf>; 2]| {
        let [certificate_file, key_file] = client.map(Clone::clone);
        let tls = RedisTls {
            ca_file: ca_file.clone(),
            certificate_file,
            key_file,
        };
        RedisStream::open(RedisSettings {
            tls: Some(tls),
            ..settings.clone()
        })
    };
    let stream = open(&ours, [&certificate, &key]).await.unwrap();
    let stream: Arc<dyn Transport> = Arc::new(stream);
    check_round(&stream).await;
    for (ca, client) in [
        // The system's roots have no such authority.
        (&None, [&certificate, &key]),
        (&theirs, [&certificate, &key]),
        (&ours, [&None, &None]),
        (&ours, [&strange_certificate, &strange_key]),
    ] {
        let refused = open(ca, client).await.err().unwrap();
        let is_away = matches!(refused, OpenError::Unavailable(_));
        assert!(is_away, "{ca:?} {client:?}: {refused}");
    }
    if !settings.cluster {
        let wrong = open(&ours, [&certificate, &strange_key]).await.err();
        assert!(matches!(wrong, Some(OpenError::Settings(_))), "{wrong:?}");
    }
}

fn settings(url: String) -> RedisSettings {
    RedisSettings {
        timeout: Duration::from_secs(20),
        ..RedisSettings::new(url, "a".to_owned())
    }
}

#[tokio::test]
async fn a_client_has_a_certificate_and_an_authority_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let port = tls_port();
    let server = start(&authority.arguments(port), &KEEPS);
    let settings = settings(format!("rediss://127.0.0.1:{port}/"));
    check_clients(&authority, settings.clone()).await;
    // Who asks for no certificate is believed by the authority alone.
    server.run::<()>(&["CONFIG", "SET", "tls-auth-clients", "no"]);
    let tls = RedisTls {
        ca_file: Some(authority.file.clone()),
        ..RedisTls::default()
    };
    let stream = RedisStream::open(RedisSettings {
        tls: Some(tls),
        ..settings
    });
    let stream: Arc<dyn Transport> = Arc::new(stream.await.unwrap());
    check_round(&stream).await;
}

#[tokio::test]
async fn a_cluster_is_shown_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let port = tls_port();
    let arguments = authority.arguments(port);
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    arguments.extend(["--tls-cluster", "yes"]);
    let _server = Server::start_cluster_with(&arguments);
    let mut settings = settings(format!("rediss://127.0.0.1:{port}/"));
    settings.cluster = true;
    check_clients(&authority, settings).await;
}

#[tokio::test]
async fn sentinels_and_their_master_are_shown_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let (port, sentinel_port) = (tls_port(), tls_port());
    let _master = start(&authority.arguments(port), &KEEPS);
    let file = folder.path().join("sentinel.conf");
    let line = format!("sentinel monitor primary 127.0.0.1 {port} 1\n");
    fs::write(&file, line).unwrap();
    // It asks the master by TLS, too.
    let more = [
        file.to_str().unwrap(),
        "--sentinel",
        "--tls-replication",
        "yes",
    ];
    let _sentinel = start(&authority.arguments(sentinel_port), &more);
    let url = format!("rediss+sentinel://127.0.0.1:{sentinel_port}/primary");
    check_clients(&authority, settings(url)).await;
}
