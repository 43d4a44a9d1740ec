//! Who a client is by its certificate.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// A certificate that the client showed and that an authority of `tls.client_ca`
/// vouches for: an extension of each request on its connection. A request without
/// it came without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// What it names: the URIs of its subject alternative names (SPIFFE ids among
    /// them), then their DNS names; the subject's common name where there is none
    /// of either.
    pub names: Arc<[String]>,
}

impl ClientCertificate {
    /// Of a certificate that was verified.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Self {
        let parsed = X509Certificate::from_der(certificate);
        let names = parsed.map_or_else(|_| Vec::new(), |(_, parsed)| names(&parsed));
        Self {
            names: names.into(),
        }
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let all = extension.map_or(&[][..], |e| e.value.general_names.as_slice());
    let uris = all.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    });
    let hosts = all.iter().filter_map(|name| match name {
        GeneralName::DNSName(host) => Some((*host).to_owned()),
        _ => None,
    });
    let names: Vec<String> = uris.chain(hosts).collect();
    if !names.is_empty() {
        return names;
    }
    let common = certificate.subject().iter_common_name();
    common
        .filter_map(|name| name.as_str().ok())
        .map(str::to_owned)
        .collect()
}
