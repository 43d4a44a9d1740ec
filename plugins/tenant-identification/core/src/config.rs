//! The plugin's configuration.

use serde::{Deserialize, de::DeserializeOwned};
use weir_wire::{host::HostKind, ids::PlanName, shown};

use crate::{
    inline,
    jwt::{ClaimPath, IssuerConfig, Issuers},
    key_hashes::KeyHashes,
    sources::{
        Kind,
        certificate::{Pattern, San},
        credential::{self, At, HEADERS, Place},
        open_path::OpenPath,
        reads::Reads,
        subdomain::Subdomain,
    },
    tenants::Store,
    tokens::{Tokens, TokensConfig},
};

/// What the operator writes. No secret is in it: those come from the VM's
/// environment, because gateways show plugin configurations on their admin port.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The gateway that runs the filter.
    pub host: HostKind,
    /// Where a request may say whose it is. The first of them that finds
    /// something names the tenant, and what the others find must agree.
    #[serde(default = "default_sources")]
    pub sources: Vec<SourceJson>,
    /// The tenants and their keys, where they stand here.
    pub tenants: Option<Vec<inline::Tenant>>,
    /// Where the tenants and their keys are asked for, otherwise.
    pub directory: Option<DirectoryConfig>,
    /// Whether a tenant that the directory does not list is admitted on what
    /// its token or certificate says. Then the plan is the token's, or
    /// `default_plan`.
    #[serde(default)]
    pub admit_unlisted: bool,
    /// The plan of an unlisted tenant whose credential names none.
    pub default_plan: Option<PlanName>,
    /// Paths that need no tenant: `/healthz`, or `/docs/*` for all under it.
    #[serde(default)]
    pub open_paths: Vec<String>,
    /// Bounds of the work on tokens.
    #[serde(default)]
    pub tokens: TokensConfig,
}

/// One source of identity, by its `type`: [`ApiKeySource`], [`JwtSource`],
/// [`JwtAuthnSource`], [`CertificateSource`] or [`SubdomainSource`]. Read by [`Config::validate`], so
/// that an error names the whole path.
pub type SourceJson = serde_json::Map<String, serde_json::Value>;

/// `api_key`: API keys of the directory.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeySource {
    /// The headers that may hold one; in `authorization` as Bearer.
    #[serde(default = "default_key_headers")]
    pub headers: Vec<String>,
}

/// `jwt`: JSON Web Tokens, verified here.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtSource {
    /// The headers that may hold one; in `authorization` as Bearer.
    #[serde(default = "default_token_headers")]
    pub headers: Vec<String>,
    /// The cookies that may hold one.
    #[serde(default)]
    pub cookies: Vec<String>,
    /// Who may sign them.
    pub issuers: Vec<IssuerConfig>,
}

/// `jwt_authn`: claims that Envoy's own filter, placed before, verified.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtAuthnSource {
    /// Its provider's `payload_in_metadata`.
    pub payload_in_metadata: String,
    /// The claim that names the tenant.
    #[serde(default)]
    pub tenant_claim: ClaimPath,
    /// The claim that names the plan.
    pub plan_claim: Option<ClaimPath>,
}

/// `client_certificate`: one that the gateway validated.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateSource {
    /// Which kind of name is read.
    pub san: San,
    /// How it looks, `{tenant}` where the tenant stands.
    pub pattern: String,
}

/// `subdomain`: the host. It must agree with a credential.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubdomainSource {
    /// The domains under which the next label names the tenant.
    pub base_domains: Vec<String>,
    /// Believes the host alone, which any client may choose.
    #[serde(default)]
    pub trust_unauthenticated_host: bool,
}

/// Where the directory is polled.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryConfig {
    /// The gateway's cluster (on Kong: `host:port`) of the router's directory.
    pub cluster: String,
    /// The `:authority` of the calls; the cluster's name where it is left out.
    pub authority: Option<String>,
    /// How soon a change takes effect at the latest, in milliseconds.
    #[serde(default = "default_poll_ms")]
    pub poll_ms: u64,
    /// How long an answer may take, in milliseconds.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
}

fn default_sources() -> Vec<SourceJson> {
    let api_key = ("type".to_owned(), Kind::ApiKey.as_str().into());
    vec![[api_key].into_iter().collect()]
}

fn default_key_headers() -> Vec<String> {
    HEADERS.map(str::to_owned).to_vec()
}

fn default_token_headers() -> Vec<String> {
    vec!["authorization".to_owned()]
}

fn default_poll_ms() -> u64 {
    5000
}

fn default_timeout_ms() -> u64 {
    2000
}

/// The shortest and the longest `poll_ms`.
const POLL_MS: std::ops::RangeInclusive<u64> = 250..=3_600_000;

/// The shortest and the longest `timeout_ms`.
const TIMEOUT_MS: std::ops::RangeInclusive<u64> = 50..=30_000;

/// A source as requests meet it.
#[derive(Debug, Clone)]
pub enum Source {
    /// Keys at the places of [`Setup::places`].
    ApiKey,
    /// Tokens at the places of [`Setup::places`].
    Jwt,
    /// Claims in the metadata.
    JwtAuthn {
        /// Their name there.
        payload: String,
        /// The claim that names the tenant.
        tenant: ClaimPath,
        /// The claim that names the plan.
        plan: Option<ClaimPath>,
    },
    /// A certificate.
    ClientCertificate(Pattern),
    /// The host.
    Subdomain(Subdomain),
}

/// The configuration as requests meet it.
#[derive(Debug)]
pub struct Setup {
    /// The gateway that runs the filter.
    pub host: HostKind,
    /// In the order in which they are asked.
    pub sources: Vec<Source>,
    /// Where keys and tokens may stand.
    pub places: Vec<Place>,
    /// Headers to strip on the way upstream, beside Weir's own.
    pub strip: Vec<String>,
    /// The headers that a request is asked for.
    pub reads: Reads,
    /// Paths that need no tenant.
    pub open_paths: Vec<OpenPath>,
    /// Whether a tenant outside of the directory is admitted.
    pub admit_unlisted: bool,
    /// The plan of such a tenant whose credential names none.
    pub default_plan: Option<PlanName>,
}

/// All that a configuration makes.
#[derive(Debug)]
pub struct Validated {
    /// What requests meet.
    pub setup: Setup,
    /// The issuers of tokens, and what is known of their tokens.
    pub tokens: Tokens,
    /// The hashes of keys that came before: none yet.
    pub key_hashes: KeyHashes,
    /// The tenants that stand in the configuration.
    pub store: Store,
    /// Where they are asked for, otherwise.
    pub directory: Option<DirectoryConfig>,
}

impl Setup {
    /// Whether requests have to be looked at for what Envoy knows beside their
    /// headers: the metadata of `jwt_authn`, the client's certificate.
    #[must_use]
    pub fn needs(&self) -> (bool, bool) {
        let any = |is: fn(&Source) -> bool| self.sources.iter().any(is);
        (
            any(|s| matches!(s, Source::JwtAuthn { .. })),
            any(|s| matches!(s, Source::ClientCertificate(_))),
        )
    }

    /// Whether a host alone is believed: for a warning at the start.
    #[must_use]
    pub fn trusts_hosts(&self) -> bool {
        self.sources
            .iter()
            .any(|s| matches!(s, Source::Subdomain(subdomain) if subdomain.trusted))
    }
}

impl Config {
    /// Checks the whole. `secret` reads a variable of the environment; `cache_key`
    /// is for [`Tokens`].
    ///
    /// # Errors
    /// A message that names the field, what was found and what is allowed.
    pub fn validate(
        self,
        secret: impl Fn(&str) -> Result<String, String>,
        cache_key: &[u8; 16],
    ) -> Result<Validated, String> {
        let mut builder = Builder::default();
        for (i, source) in self.sources.into_iter().enumerate() {
            builder
                .add(source, self.host)
                .map_err(|e| format!("sources[{i}].{e}"))?;
        }
        builder.check_whole()?;
        let listed = self.tenants.is_some() || self.directory.is_some();
        match (&self.tenants, &self.directory) {
            (Some(_), Some(_)) => {
                return Err("directory: tenants must not be given beside it".to_owned());
            }
            (None, None) if !self.admit_unlisted => {
                return Err(
                    "tenants: missing; name the tenants, or a directory, or set admit_unlisted"
                        .to_owned(),
                );
            }
            _ => {}
        }
        if !listed && builder.has(|s| matches!(s, Source::ApiKey)) {
            return Err(
                "tenants: missing; the source api_key needs tenants or a directory".to_owned(),
            );
        }
        let open_paths = self
            .open_paths
            .iter()
            .enumerate()
            .map(|(i, path)| OpenPath::new(path).map_err(|e| format!("open_paths[{i}]: {e}")))
            .collect::<Result<_, _>>()?;
        let issuers = Issuers::new(builder.issuers, secret)
            .map_err(|e| format!("sources[{}].{e}", builder.jwt_at))?;
        if let Some(directory) = &self.directory {
            directory.validate()?;
        }
        let strip = strip(&builder.places);
        Ok(Validated {
            tokens: Tokens::new(&self.tokens, issuers, cache_key)?,
            key_hashes: KeyHashes::new(cache_key),
            store: inline::store(self.tenants.as_deref().unwrap_or_default())?,
            directory: self.directory,
            setup: Setup {
                host: self.host,
                sources: builder.sources,
                reads: Reads::of(&strip),
                strip,
                places: builder.places,
                open_paths,
                admit_unlisted: self.admit_unlisted,
                default_plan: self.default_plan,
            },
        })
    }
}

impl DirectoryConfig {
    fn validate(&self) -> Result<(), String> {
        if self.cluster.is_empty() {
            return Err("directory.cluster: must name a cluster, found nothing".to_owned());
        }
        for (field, found, allowed) in [
            ("poll_ms", self.poll_ms, POLL_MS),
            ("timeout_ms", self.timeout_ms, TIMEOUT_MS),
        ] {
            if !allowed.contains(&found) {
                return Err(format!(
                    "directory.{field}: must be {} to {}, found {found}",
                    allowed.start(),
                    allowed.end()
                ));
            }
        }
        Ok(())
    }
}

/// Every header that may hold a credential, configured or known as one.
fn strip(places: &[Place]) -> Vec<String> {
    let mut names: Vec<String> = HEADERS.map(str::to_owned).to_vec();
    for place in places {
        if let At::Header(name) = &place.at
            && !names.contains(name)
        {
            names.push(name.clone());
        }
    }
    names
}

/// Reads a source's members; an error names the path to the wrong one.
fn read<T: DeserializeOwned>(source: SourceJson) -> Result<T, String> {
    serde_path_to_error::deserialize(serde_json::Value::Object(source))
        .map_err(|e| format!("{}: {}", e.path(), shown::shorten(&e.inner().to_string())))
}

#[derive(Default)]
struct Builder {
    sources: Vec<Source>,
    places: Vec<Place>,
    issuers: Vec<IssuerConfig>,
    jwt_at: usize,
}

impl Builder {
    fn has(&self, is: fn(&Source) -> bool) -> bool {
        self.sources.iter().any(is)
    }

    fn add(&mut self, mut source: SourceJson, host: HostKind) -> Result<(), String> {
        let found = source.remove("type").unwrap_or_default();
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| found == kind.as_str())
            .ok_or_else(|| {
                let all = Kind::ALL.map(Kind::as_str).join(", ");
                format!("type: must be one of {all}, found {found}")
            })?;
        let made = match kind {
            Kind::ApiKey => self.api_key(read(source)?)?,
            Kind::Jwt => self.jwt(read(source)?)?,
            Kind::JwtAuthn | Kind::ClientCertificate if host == HostKind::Kong => {
                return Err("type: only host envoy has this source".to_owned());
            }
            Kind::JwtAuthn => {
                let config: JwtAuthnSource = read(source)?;
                Source::JwtAuthn {
                    payload: config.payload_in_metadata,
                    tenant: config.tenant_claim,
                    plan: config.plan_claim,
                }
            }
            Kind::ClientCertificate => {
                let config: CertificateSource = read(source)?;
                let pattern = Pattern::new(config.san, &config.pattern);
                Source::ClientCertificate(pattern.map_err(|e| format!("pattern: {e}"))?)
            }
            Kind::Subdomain => {
                let config: SubdomainSource = read(source)?;
                let trusted = config.trust_unauthenticated_host;
                let subdomain = Subdomain::new(&config.base_domains, trusted);
                Source::Subdomain(subdomain.map_err(|e| format!("base_domains: {e}"))?)
            }
        };
        self.sources.push(made);
        Ok(())
    }

    fn api_key(&mut self, config: ApiKeySource) -> Result<Source, String> {
        if self.has(|s| matches!(s, Source::ApiKey)) {
            return Err("type: api_key comes twice".to_owned());
        }
        if config.headers.is_empty() {
            return Err("headers: must name at least one, found none".to_owned());
        }
        self.add_headers(config.headers, |place| place.keys = true)?;
        Ok(Source::ApiKey)
    }

    fn jwt(&mut self, config: JwtSource) -> Result<Source, String> {
        if self.has(|s| matches!(s, Source::Jwt)) {
            return Err("type: jwt comes twice; list its issuers in one".to_owned());
        }
        if config.issuers.is_empty() {
            return Err("issuers: must name at least one, found none".to_owned());
        }
        if config.headers.is_empty() && config.cookies.is_empty() {
            return Err("headers: must name at least one, or a cookie".to_owned());
        }
        self.add_headers(config.headers, |place| place.tokens = true)?;
        self.add_cookies(config.cookies)?;
        self.issuers = config.issuers;
        self.jwt_at = self.sources.len();
        Ok(Source::Jwt)
    }

    fn add_headers(
        &mut self,
        headers: Vec<String>,
        reader: impl Fn(&mut Place),
    ) -> Result<(), String> {
        for (i, name) in headers.into_iter().enumerate() {
            credential::check_header(&name).map_err(|e| format!("headers[{i}]: {e}"))?;
            self.add_place(At::Header(name), &reader);
        }
        Ok(())
    }

    fn add_cookies(&mut self, cookies: Vec<String>) -> Result<(), String> {
        for (i, name) in cookies.into_iter().enumerate() {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            if name.is_empty() || !name.bytes().all(plain) {
                return Err(format!(
                    "cookies[{i}]: must be a cookie's name, found {name:?}"
                ));
            }
            self.add_place(At::Cookie(name), &|place: &mut Place| place.tokens = true);
        }
        Ok(())
    }

    fn add_place(&mut self, at: At, reader: &impl Fn(&mut Place)) {
        match self.places.iter_mut().find(|place| place.at == at) {
            Some(place) => reader(place),
            None => {
                let mut place = Place {
                    at,
                    keys: false,
                    tokens: false,
                };
                reader(&mut place);
                self.places.push(place);
            }
        }
    }

    fn check_whole(&self) -> Result<(), String> {
        if self.sources.is_empty() {
            return Err("sources: must name at least one, found none".to_owned());
        }
        let only_hosts = self
            .sources
            .iter()
            .all(|s| matches!(s, Source::Subdomain(subdomain) if !subdomain.trusted));
        if only_hosts {
            return Err(
                "sources: a subdomain must agree with a credential; name a source for one"
                    .to_owned(),
            );
        }
        Ok(())
    }
}
