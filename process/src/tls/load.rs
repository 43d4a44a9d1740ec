//! From PEM files to what rustls serves by.

use std::{fs, path::Path, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};

use super::{TlsError, TlsFiles};

/// HTTP/2 is preferred.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Reads and checks all files.
pub fn config(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let certificates = certificates("tls.cert", &files.cert)?;
    let key = key(&files.key)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| wrong("tls.cert", &files.cert, error.to_string()))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => builder.with_client_cert_verifier(verifier(path, provider)?),
    };
    let mut config = builder
        .with_single_cert(certificates, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                let message = format!("is not the key of {}", files.cert.display());
                wrong("tls.key", &files.key, message)
            }
            error => wrong("tls.cert", &files.cert, error.to_string()),
        })?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    if files.client_ca.is_some() {
        // A session that is taken up again would not look at the certificate's end.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(Arc::new(config))
}

fn certificates(
    field: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(field, path)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_| wrong(field, path, "must be PEM, found a part that is not whole"))?;
    if found.is_empty() {
        return Err(wrong(
            field,
            path,
            "must hold a PEM CERTIFICATE, found none",
        ));
    }
    Ok(found)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    // The parser's own message could repeat a part of the key.
    PrivateKeyDer::from_pem_slice(&read("tls.key", path)?).map_err(|_| {
        let message = "must hold a PEM PRIVATE KEY (PKCS#8, PKCS#1 or SEC1), found none";
        wrong("tls.key", path, message)
    })
}

fn verifier(
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    const FIELD: &str = "tls.client_ca";
    let mut roots = RootCertStore::empty();
    for (i, certificate) in certificates(FIELD, path)?.into_iter().enumerate() {
        roots
            .add(certificate)
            .map_err(|error| wrong(FIELD, path, format!("certificate {i}: {error}")))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| wrong(FIELD, path, error.to_string()))
}

fn read(field: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read {
        field,
        path: path.to_owned(),
        source,
    })
}

fn wrong(field: &'static str, path: &Path, message: impl Into<String>) -> TlsError {
    TlsError::Wrong {
        field,
        path: path.to_owned(),
        message: message.into(),
    }
}
