//! From a request to a tenant, or to an answer that refuses it.

use weir_wire::{
    context,
    directory::State,
    headers,
    host::HostKind,
    ids::{PlanName, RequestId, TenantId},
    keys::Keyring,
    proto::context::TenantContext,
};

use crate::{
    config::{Setup, Source},
    denial::Denial,
    jwt::{Reason, SignatureCheck},
    key_hashes::KeyHashes,
    sources::{
        Kind,
        certificate::Peer,
        credential::{self, At, CREDENTIALS_MAX, Credential, Header, Presented},
        metadata,
    },
    tenants::{Found, Store},
    tokens::{TokenDenied, Tokens},
};

/// The time of a request.
#[derive(Clone, Copy)]
pub struct Now<'a> {
    /// Milliseconds of the Unix epoch, UTC.
    pub wall_ms: u64,
    /// Milliseconds of a clock that never leaps. Asked for only where a signature
    /// is to be checked: on most requests it is a host call too many.
    pub monotonic_ms: &'a dyn Fn() -> u64,
}

/// What a worker of the gateway knows.
pub struct Worker<'a> {
    /// The configuration.
    pub setup: &'a Setup,
    /// The tenants and their keys.
    pub store: &'a Store,
    /// Whether the store is whole. Before it is, nobody is known or unknown.
    pub ready: bool,
    /// The hashes of keys that came before.
    pub key_hashes: &'a mut KeyHashes,
    /// The issuers of tokens, and the tokens that are known.
    pub tokens: &'a mut Tokens,
    /// Who checks signatures.
    pub checker: &'a dyn SignatureCheck,
    /// The keys that sign contexts.
    pub keys: &'a Keyring,
}

/// What a request brings.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// All headers, names in lower case, pseudo-headers with them.
    pub headers: &'a [Header<'a>],
    /// Envoy's dynamic metadata, serialised, where a source reads it.
    pub metadata: Option<&'a [u8]>,
    /// What the client's validated certificate says, where a source reads it.
    pub peer: Option<&'a Peer>,
}

/// What the filter does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It goes on as somebody's.
    Allow(Box<Identification>),
    /// It goes on as nobody's, because its path needs no tenant.
    Open(Change),
    /// It ends here.
    Deny(Box<Denial>),
    /// Its token names a key that a fetch of the issuer's keys may bring. Where
    /// one is under way it waits for that; else it ends as the denial says.
    Fetch {
        /// The issuer's position among [`Tokens::issuers`].
        issuer: usize,
        /// Where nothing is fetched.
        denial: Box<Denial>,
    },
}

/// How a request that goes on is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The headers to remove, every copy of them.
    pub strip: Vec<String>,
    /// The headers to give it then; of these names it has none left.
    pub set: Vec<(&'static str, String)>,
}

/// Whose a request is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identification {
    /// The tenant.
    pub tenant: TenantId,
    /// The plan it is on.
    pub plan: PlanName,
    /// The first source that named it.
    pub source: Kind,
    /// How the request is changed.
    pub change: Change,
}

/// Decides on one request. `random` makes the request id.
#[must_use]
pub fn identify(
    worker: &mut Worker<'_>,
    request: &Request<'_>,
    now: Now<'_>,
    random: [u8; 10],
) -> Decision {
    if let Err(denial) = check_headers(worker.setup.host, request.headers) {
        return Decision::Deny(denial);
    }
    let setup = worker.setup;
    let headers: Vec<Header<'_>> = request
        .headers
        .iter()
        .filter(|(name, _)| setup.reads.may_read(name))
        .copied()
        .collect();
    let request = &Request {
        headers: &headers,
        ..*request
    };
    if let Some(path) = value(request.headers, ":path")
        && setup.open_paths.iter().any(|open| open.matches(path))
    {
        let mut change = strip(setup, request.headers);
        change.set.push((headers::OPEN, "1".to_owned()));
        return Decision::Open(change);
    }
    let (named, plan) = match resolve(worker, request, now) {
        Ok(resolved) => resolved,
        Err(Refusal::Deny(denial)) => return Decision::Deny(denial),
        Err(Refusal::Fetch { issuer, denial }) => return Decision::Fetch { issuer, denial },
    };
    let context = TenantContext {
        tenant: named.tenant.as_str().to_owned(),
        plan: plan.as_str().to_owned(),
        request_id: RequestId::mint(now.wall_ms, random).to_string(),
        issued_at_ms: i64::try_from(now.wall_ms).unwrap_or(i64::MAX),
    };
    let signed = context::sign(&context, worker.keys);
    let mut change = strip(setup, request.headers);
    change.set.extend([
        (headers::TENANT_ID, context.tenant),
        (headers::TENANT_PLAN, context.plan),
        (headers::REQUEST_ID, context.request_id),
        (headers::TENANT_CONTEXT, signed),
    ]);
    Decision::Allow(Box::new(Identification {
        tenant: named.tenant,
        plan,
        source: named.source,
        change,
    }))
}

enum Refusal {
    Deny(Box<Denial>),
    Fetch { issuer: usize, denial: Box<Denial> },
}

impl From<Box<Denial>> for Refusal {
    fn from(denial: Box<Denial>) -> Self {
        Self::Deny(denial)
    }
}

/// The tenant that a source named.
struct Named {
    tenant: TenantId,
    /// The plan that a token claims; the directory's counts before it.
    claimed: Option<PlanName>,
    source: Kind,
}

/// Asks every source, and then the directory.
fn resolve(
    worker: &mut Worker<'_>,
    request: &Request<'_>,
    now: Now<'_>,
) -> Result<(Named, PlanName), Refusal> {
    let setup = worker.setup;
    let presented: Vec<Presented<'_>> = distinct(setup, request.headers)?;
    let mut known: Option<Named> = None;
    for source in &setup.sources {
        match source {
            Source::ApiKey => {
                for (at, key) in presented.iter().filter_map(as_key) {
                    let named = by_key(worker, at, key, now)?;
                    agree(&mut known, named)?;
                }
            }
            Source::Jwt => {
                for token in presented.iter().filter_map(as_token) {
                    let named = by_token(worker, token, now)?;
                    agree(&mut known, named)?;
                }
            }
            Source::JwtAuthn {
                payload,
                tenant,
                plan,
            } => {
                if let Some(claims) = request
                    .metadata
                    .and_then(|bytes| metadata::claims(bytes, payload))
                {
                    let named = Named {
                        tenant: tenant.tenant(&claims).map_err(token_denial)?,
                        claimed: match plan {
                            Some(path) => path.plan(&claims).map_err(token_denial)?,
                            None => None,
                        },
                        source: Kind::JwtAuthn,
                    };
                    agree(&mut known, named)?;
                }
            }
            Source::ClientCertificate(pattern) => {
                if let Some(name) = request.peer.and_then(|peer| pattern.of(peer)) {
                    let named = Named {
                        tenant: TenantId::new(name).map_err(|_| {
                            Denial::unknown(
                                "certificate",
                                "The client certificate names no tenant.".to_owned(),
                            )
                        })?,
                        claimed: None,
                        source: Kind::ClientCertificate,
                    };
                    agree(&mut known, named)?;
                }
            }
            Source::Subdomain(_) => {}
        }
    }
    let named = by_host(setup, request.headers, known)?;
    let plan = plan(worker, &named)?;
    Ok((named, plan))
}

/// Every credential of the request once.
fn distinct<'a>(
    setup: &'a Setup,
    headers: &'a [Header<'a>],
) -> Result<Vec<Presented<'a>>, Box<Denial>> {
    let mut distinct: Vec<Presented<'a>> = Vec::new();
    for presented in credential::presented(&setup.places, headers) {
        if presented.credential == Credential::Unusable {
            return Err(Denial::unknown(
                "unusable_credential",
                format!(
                    "The {} holds no usable API key or token.",
                    presented.at.describe()
                ),
            ));
        }
        if !distinct
            .iter()
            .any(|earlier| earlier.credential == presented.credential)
        {
            distinct.push(presented);
        }
        if distinct.len() > CREDENTIALS_MAX {
            return Err(Denial::too_many(CREDENTIALS_MAX));
        }
    }
    Ok(distinct)
}

fn as_key<'a>(presented: &Presented<'a>) -> Option<(&'a At, &'a [u8])> {
    match presented.credential {
        Credential::Key(key) => Some((presented.at, key)),
        _ => None,
    }
}

fn as_token<'a>(presented: &Presented<'a>) -> Option<&'a [u8]> {
    match presented.credential {
        Credential::Token(token) => Some(token),
        _ => None,
    }
}

fn by_key(
    worker: &mut Worker<'_>,
    at: &At,
    key: &[u8],
    now: Now<'_>,
) -> Result<Named, Box<Denial>> {
    if !worker.ready {
        return Err(Denial::not_ready());
    }
    let refused = |reason, what: &str| {
        let place = at.describe();
        Denial::unknown(reason, format!("{what} API key provided in the {place}."))
    };
    match worker.store.find(&worker.key_hashes.of(key), now.wall_ms) {
        Found::Known(tenant) => Ok(Named {
            tenant: tenant.id.clone(),
            claimed: None,
            source: Kind::ApiKey,
        }),
        Found::Expired { .. } => Err(refused("expired_key", "Expired")),
        Found::Unknown => Err(refused("unknown_key", "Incorrect")),
    }
}

fn by_token(worker: &mut Worker<'_>, token: &[u8], now: Now<'_>) -> Result<Named, Refusal> {
    match worker.tokens.claim(token, now, worker.checker) {
        Ok(claimed) => Ok(Named {
            tenant: claimed.tenant,
            claimed: claimed.plan,
            source: Kind::Jwt,
        }),
        Err(TokenDenied::Exhausted { retry_after_s }) => {
            Err(Denial::exhausted(retry_after_s).into())
        }
        Err(TokenDenied::Refused(refused)) => {
            let denial = match refused.reason {
                Reason::KeysNotLoaded => Denial::no_keys(),
                reason => token_denial(reason),
            };
            Err(match refused.issuer {
                // Keys that are not fetched do not come.
                Some(issuer)
                    if refused.may_heal() && worker.tokens.issuers.remote(issuer).is_some() =>
                {
                    Refusal::Fetch { issuer, denial }
                }
                _ => Refusal::Deny(denial),
            })
        }
    }
}

fn token_denial(reason: Reason) -> Box<Denial> {
    Denial::token(reason.as_str(), reason.message().to_owned())
}

/// The first that is named stands; whoever comes later must name the same.
fn agree(known: &mut Option<Named>, named: Named) -> Result<(), Box<Denial>> {
    match known {
        None => {
            *known = Some(named);
            Ok(())
        }
        Some(first) if first.tenant == named.tenant => {
            if first.claimed.is_none() {
                first.claimed = named.claimed;
            }
            Ok(())
        }
        Some(first) => Err(disagree(first, named.tenant.as_str(), named.source)),
    }
}

fn disagree(first: &Named, other: &str, source: Kind) -> Box<Denial> {
    Denial::conflict(format!(
        "{} names tenant {}, {} names {:?}",
        first.source.as_str(),
        first.tenant,
        source.as_str(),
        other.chars().take(64).collect::<String>(),
    ))
}

/// Holds what the credentials say against the host; or takes the host's word,
/// where the operator wants that.
fn by_host(
    setup: &Setup,
    headers: &[Header<'_>],
    known: Option<Named>,
) -> Result<Named, Box<Denial>> {
    let authority = match setup.host {
        HostKind::Envoy => value(headers, ":authority"),
        // There `:authority` is nginx's own name.
        HostKind::Kong => value(headers, "host"),
    };
    let mut known = known;
    for source in &setup.sources {
        let Source::Subdomain(subdomain) = source else {
            continue;
        };
        let Some(name) = authority.and_then(|authority| subdomain.of(authority)) else {
            continue;
        };
        match &known {
            // Hosts have no case.
            Some(first) if first.tenant.as_str().eq_ignore_ascii_case(&name) => {}
            Some(first) => return Err(disagree(first, &name, Kind::Subdomain)),
            None if subdomain.trusted => {
                known = Some(Named {
                    tenant: TenantId::new(name).map_err(|_| {
                        Denial::unknown("host", "The host names no tenant.".to_owned())
                    })?,
                    claimed: None,
                    source: Kind::Subdomain,
                });
            }
            None => {}
        }
    }
    known.ok_or_else(Denial::nothing)
}

/// The plan, the directory's before a token's.
fn plan(worker: &Worker<'_>, named: &Named) -> Result<PlanName, Box<Denial>> {
    if !worker.ready {
        return Err(Denial::not_ready());
    }
    if let Some(tenant) = worker.store.tenant(named.tenant.as_str()) {
        return match tenant.state {
            State::Active => Ok(tenant.plan.clone()),
            State::Suspended => Err(Denial::suspended()),
        };
    }
    if !worker.setup.admit_unlisted {
        return Err(Denial::unknown(
            "unknown_tenant",
            "The credential's account is unknown at this endpoint.".to_owned(),
        ));
    }
    named
        .claimed
        .clone()
        .or_else(|| worker.setup.default_plan.clone())
        .ok_or_else(Denial::no_plan)
}

fn check_headers(host: HostKind, headers: &[Header<'_>]) -> Result<(), Box<Denial>> {
    for (name, value) in headers {
        // Nearly all are ASCII, which is quicker to see.
        if !value.is_ascii() && std::str::from_utf8(value).is_err() {
            return Err(Denial::not_utf8(name));
        }
        if host == HostKind::Kong && headers::is_internal(name) {
            return Err(Denial::internal(name));
        }
    }
    Ok(())
}

fn value<'a>(headers: &'a [Header<'a>], wanted: &str) -> Option<&'a [u8]> {
    headers
        .iter()
        .find(|(name, _)| *name == wanted)
        .map(|(_, value)| *value)
}

/// Takes out Weir's own headers and every credential.
fn strip(setup: &Setup, headers: &[Header<'_>]) -> Change {
    let mut change = Change {
        strip: headers
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| {
                headers::is_internal(name) || setup.strip.iter().any(|strip| strip == name)
            })
            .map(str::to_owned)
            .collect(),
        set: Vec::with_capacity(5),
    };
    let reads_cookies = setup
        .places
        .iter()
        .any(|place| matches!(place.at, At::Cookie(_)));
    if reads_cookies && value(headers, "cookie").is_some() {
        change.strip.push("cookie".to_owned());
        if let Some(kept) = credential::other_cookies(&setup.places, headers) {
            change.set.push(("cookie", kept));
        }
    }
    change
}
