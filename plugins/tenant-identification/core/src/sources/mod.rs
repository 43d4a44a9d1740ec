//! Where a request may say whose it is. Each source only reads; what it read is
//! believed, or refused, by `decide`.

pub mod certificate;
pub mod credential;
pub mod metadata;
pub mod open_path;
pub mod reads;
pub mod subdomain;

/// A source of identity, for logs and counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// An API key of the directory.
    ApiKey,
    /// A JSON Web Token that this filter verified.
    Jwt,
    /// Claims that Envoy's `jwt_authn` verified.
    JwtAuthn,
    /// The client's certificate.
    ClientCertificate,
    /// The host's first label.
    Subdomain,
}

impl Kind {
    /// Every one, in the order of the enum.
    pub const ALL: [Self; 5] = [
        Self::ApiKey,
        Self::Jwt,
        Self::JwtAuthn,
        Self::ClientCertificate,
        Self::Subdomain,
    ];

    /// As it is called in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::Jwt => "jwt",
            Self::JwtAuthn => "jwt_authn",
            Self::ClientCertificate => "client_certificate",
            Self::Subdomain => "subdomain",
        }
    }
}
