//! TLS with roots of its own, and with a certificate that says who calls.

use std::{
    fs,
    path::{Path, PathBuf},
};

use redis::{Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, TlsCertificates};

use crate::stream::transport::OpenError;

/// PEM files, which are read once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedisTls {
    /// Whose certificates are believed, in place of the system's roots.
    pub ca_file: Option<PathBuf>,
    /// The certificate that is shown to the server, with those that are between it and the
    /// root; goes with its key.
    pub certificate_file: Option<PathBuf>,
    /// The certificate's key, which is not encrypted.
    pub key_file: Option<PathBuf>,
}

/// What the files hold.
pub(super) fn certificates(tls: &RedisTls) -> Result<TlsCertificates, OpenError> {
    let mut all = TlsCertificates {
        client_tls: None,
        root_cert: None,
    };
    if let Some(path) = &tls.ca_file {
        all.root_cert = Some(certificate("ca_file", path)?);
        parsed(&all, &format!("ca_file: {} can't be used", path.display()))?;
    }
    match (&tls.certificate_file, &tls.key_file) {
        (None, None) => {}
        (Some(path), Some(key)) => {
            all.client_tls = Some(ClientTlsConfig {
                client_cert: certificate("certificate_file", path)?,
                client_key: read("key_file", key)?,
            });
            let why = format!(
                "certificate_file, key_file: {} and {} must be a certificate and its key, \
                 unencrypted, in PEM",
                path.display(),
                key.display()
            );
            parsed(&all, &why)?;
        }
        _ => return Err(wrong("certificate_file and key_file go together")),
    }
    Ok(all)
}

/// Files of TLS are for a URL of TLS.
pub(super) fn check_url(info: &ConnectionInfo) -> Result<(), OpenError> {
    match info.addr() {
        ConnectionAddr::TcpTls { .. } => Ok(()),
        _ => Err(wrong("needs a URL of rediss:// or rediss+sentinel://")),
    }
}

/// The library takes a file without any for one that believes nobody.
fn certificate(field: &str, path: &Path) -> Result<Vec<u8>, OpenError> {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    let bytes = read(field, path)?;
    if bytes.windows(BEGIN.len()).any(|window| window == BEGIN) {
        return Ok(bytes);
    }
    let path = path.display();
    Err(wrong(&format!("{field}: no certificate in PEM in {path}")))
}

fn read(field: &str, path: &Path) -> Result<Vec<u8>, OpenError> {
    let why = |error| {
        wrong(&format!(
            "{field}: {} can't be read: {error}",
            path.display()
        ))
    };
    fs::read(path).map_err(why)
}

/// What the library says of it is left out: it may show a line of a key.
fn parsed(certificates: &TlsCertificates, why: &str) -> Result<(), OpenError> {
    let client = Client::build_with_tls("rediss://localhost", certificates.clone());
    client.map(|_| ()).map_err(|_| wrong(why))
}

fn wrong(why: &str) -> OpenError {
    OpenError::Settings(format!("tls: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_can_not_be_used_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            Some(path)
        };
        let certificate = file("certificate.pem", &made.cert.pem());
        let key = file("key.pem", &made.signing_key.serialize_pem());
        let nothing = file("nothing.pem", "");
        let broken = "-----BEGIN CERTIFICATE-----\n!hush\n-----END CERTIFICATE-----\n";
        let broken = file("broken.pem", broken);
        let away = Some(folder.path().join("away.pem"));
        let check = |files: [&Option<PathBuf>; 3], expected: Option<&str>| {
            let [ca_file, certificate_file, key_file] = files.map(Clone::clone);
            let found = certificates(&RedisTls {
                ca_file,
                certificate_file,
                key_file,
            });
            let found = found.err().map(|error| error.to_string());
            let begins = |error: &String| error.contains(&format!("tls: {}", expected.unwrap()));
            assert_eq!(found.is_some(), expected.is_some(), "{found:?}");
            assert!(found.iter().all(begins), "{found:?}");
            assert!(!format!("{found:?}").contains("hush"), "{found:?}");
        };
        check([&None, &None, &None], None);
        check([&certificate, &None, &None], None);
        check([&certificate, &certificate, &key], None);
        check([&None, &certificate, &key], None);
        check([&away, &None, &None], Some("ca_file: "));
        check([&nothing, &None, &None], Some("ca_file: no certificate"));
        check([&broken, &None, &None], Some("ca_file: "));
        check([&None, &certificate, &None], Some("certificate_file and"));
        check([&None, &None, &key], Some("certificate_file and key_file"));
        check([&None, &nothing, &key], Some("certificate_file: no"));
        check([&None, &certificate, &away], Some("key_file: "));
        let both = Some("certificate_file, key_file: ");
        check([&None, &certificate, &nothing], both);
        check([&None, &broken, &key], both);
        check([&None, &certificate, &certificate], both);
    }
}
