//! TLS as clients see it: real handshakes, with certificates made here.

use std::fs;

use axum::{Extension, Router, routing::get};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    SanType,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::oneshot,
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;

use super::*;
use crate::{StillOpen, serve_tls};

const URI: &str = "spiffe://weir/operator";

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn issuer(name: &str) -> Issuer {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key, PEM.
type Leaf = (String, String);

fn leaf(issuer: &Issuer, names: Vec<SanType>, common: &str) -> Leaf {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common);
    let certificate = params.signed_by(&key, issuer).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn host() -> SanType {
    SanType::DnsName("localhost".try_into().unwrap())
}

fn uri() -> SanType {
    SanType::URI(URI.try_into().unwrap())
}

/// Files of a service, which ends with the test.
struct Service {
    folder: TempDir,
    authority: Issuer,
    files: TlsFiles,
    tls: Tls,
    address: std::net::SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Option<StillOpen>>,
}

impl Service {
    async fn start(client_ca: Option<&Issuer>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = issuer("authority");
        let path = |name: &str| folder.path().join(name);
        if let Some(issuer) = client_ca {
            fs::write(path("ca.pem"), issuer.pem()).unwrap();
        }
        let files = TlsFiles {
            cert: "cert.pem".into(),
            key: "key.pem".into(),
            client_ca: client_ca.map(|_| "ca.pem".into()),
        }
        .beside(folder.path());
        write(&files, &leaf(&authority, vec![host()], "service"));
        let tls = Tls::open(files.clone()).unwrap();
        assert_eq!(tls.asks_for_clients(), client_ca.is_some());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shown = |client: Option<Extension<ClientCertificate>>| async move {
            client.map_or("nobody".to_owned(), |c| c.names.join(" "))
        };
        let (stop, stopping) = oneshot::channel::<()>();
        let serving = tokio::spawn(serve_tls(
            listener,
            Some(tls.clone()),
            Router::new().route("/", get(shown)),
            async { drop(stopping.await) },
            Duration::from_secs(30),
        ));
        Self {
            folder,
            authority,
            files,
            tls,
            address,
            stop: Some(stop),
            serving,
        }
    }

    /// One request over HTTP/1.1 by such a client; gives the answer.
    async fn ask(&self, client: Arc<ClientConfig>) -> io::Result<String> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(client).connect(name, stream).await?;
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// The files are due to be looked at.
    fn later(&self) {
        self.tls.state().looked = Instant::now().checked_sub(LOOK).unwrap();
    }

    fn client(&self, shows: Option<&Leaf>, protocol: &[u8]) -> Arc<ClientConfig> {
        client(&self.authority, shows, &rustls::version::TLS13, protocol)
    }

    #[track_caller]
    fn check(answer: io::Result<String>, says: &str) {
        let answer = answer.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{says}")), "{answer}");
    }
}

fn write(files: &TlsFiles, leaf: &Leaf) {
    fs::write(&files.cert, &leaf.0).unwrap();
    fs::write(&files.key, &leaf.1).unwrap();
}

fn client(
    authority: &Issuer,
    shows: Option<&Leaf>,
    version: &'static rustls::SupportedProtocolVersion,
    protocol: &[u8],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shows {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder
                .with_client_auth_cert(vec![certificate], key)
                .unwrap()
        }
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}

#[tokio::test]
async fn both_versions_and_both_protocols_are_served() {
    let service = Service::start(None).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = client(&service.authority, None, version, b"http/1.1");
        Service::check(service.ask(client).await, "nobody");
    }
    let stream = TcpStream::connect(service.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(service.client(None, b"h2"));
    let stream = connector.connect(name, stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io)
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::get("https://localhost/")
        .body(axum::body::Body::empty())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_client_is_known_by_its_certificate_or_refused() {
    let ours = issuer("clients");
    let service = Service::start(Some(&ours)).await;
    for (names, says) in [
        (vec![host(), uri()], "spiffe://weir/operator localhost"),
        (vec![], "common"),
    ] {
        let shows = leaf(&ours, names, "common");
        for _ in 0..2 {
            let client = service.client(Some(&shows), b"http/1.1");
            Service::check(service.ask(client).await, says);
        }
    }
    let strange = leaf(&issuer("clients"), vec![uri()], "common");
    for shows in [None, Some(&strange)] {
        let client = service.client(shows, b"http/1.1");
        assert!(service.ask(client).await.is_err());
    }
}

#[tokio::test]
async fn new_files_are_served_and_broken_ones_are_not() {
    let mut service = Service::start(None).await;
    let fixed = fs::read(&service.files.key).unwrap();
    fs::write(
        &service.files.key,
        format!("-----BEGIN {} KEY-----\nAAAA", "PRIVATE"),
    )
    .unwrap();
    service.later();
    let client = service.client(None, b"http/1.1");
    Service::check(service.ask(client).await, "nobody");
    fs::write(&service.files.key, fixed).unwrap();
    let next = issuer("next");
    write(&service.files, &leaf(&next, vec![host()], "service"));
    service.later();
    let client = service.client(None, b"http/1.1");
    assert!(service.ask(client).await.is_err(), "the old one is trusted");
    service.authority = next;
    let client = service.client(None, b"http/1.1");
    Service::check(service.ask(client).await, "nobody");
}

#[tokio::test]
async fn who_stalls_in_the_handshake_holds_up_nobody() {
    let mut service = Service::start(None).await;
    let mut stalled = Vec::new();
    for sent in [&b""[..], b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\n"] {
        for _ in 0..8 {
            let mut stream = TcpStream::connect(service.address).await.unwrap();
            stream.write_all(sent).await.unwrap();
            stalled.push(stream);
        }
    }
    let client = service.client(None, b"http/1.1");
    Service::check(service.ask(client).await, "nobody");
    let start = Instant::now();
    service.stop.take().unwrap().send(()).unwrap();
    assert!(service.serving.await.unwrap().is_none(), "all have ended");
    // Handshakes have ten seconds, and the stop has thirty.
    assert!(start.elapsed() < Duration::from_secs(8));
    drop((stalled, service.folder));
}

#[tokio::test]
async fn a_handshake_has_an_end() {
    let service = Service::start(None).await;
    let mut stream = TcpStream::connect(service.address).await.unwrap();
    tokio::time::pause();
    // The paused clock leaps to the end of the handshake's time once all is idle.
    let mut read = Vec::new();
    let ended = tokio::time::timeout(HANDSHAKE_TIME * 2, stream.read_to_end(&mut read)).await;
    assert!(ended.is_ok() && read.is_empty());
}

#[test]
fn what_is_wrong_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let authority = issuer("authority");
    let good = leaf(&authority, vec![host()], "service");
    let other = leaf(&authority, vec![host()], "service");
    let cut = good.0.get(..good.0.len() / 2).unwrap();
    let check = |cert: &str, key: &str, ca: Option<&str>, says: &[&str]| {
        let files = TlsFiles {
            cert: "cert.pem".into(),
            key: "key.pem".into(),
            client_ca: ca.map(|_| "ca.pem".into()),
        }
        .beside(folder.path());
        write(&files, &(cert.to_owned(), key.to_owned()));
        fs::write(folder.path().join("ca.pem"), ca.unwrap_or_default()).unwrap();
        let error = Tls::open(files).err().unwrap().to_string();
        for says in says {
            assert!(error.contains(says), "{error} should say {says}");
        }
        assert!(!error.contains("MI"), "{error} repeats a file");
    };
    check("", &good.1, None, &["tls.cert", "cert.pem", "found none"]);
    check(cut, &good.1, None, &["tls.cert", "not whole"]);
    check(
        &good.0,
        &good.0,
        None,
        &["tls.key", "key.pem", "found none"],
    );
    check(&good.0, &other.1, None, &["tls.key", "is not the key of"]);
    check(&good.0, &good.1, Some(""), &["tls.client_ca", "ca.pem"]);
    let section = serde_json::json!({"cert": "c", "key": "k", "client_cas": "x"});
    let error = serde_json::from_value::<TlsFiles>(section).unwrap_err();
    assert!(error.to_string().contains("client_cas"), "{error}");
    let files = TlsFiles {
        cert: "/nowhere/cert.pem".into(),
        key: "k".into(),
        client_ca: None,
    };
    let error = Tls::open(files).err().unwrap().to_string();
    assert_eq!(error, "tls.cert: /nowhere/cert.pem: cannot be read");
}
