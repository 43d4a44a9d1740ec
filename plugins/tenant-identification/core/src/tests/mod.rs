//! From a configuration and a request to what becomes of it.

mod configs;
mod requests;
mod sources;

use weir_wire::{host::HostKind, keys::Keyring};

use crate::{
    Config, Decision, Denial, Identification, Now, Request, Worker,
    config::Validated,
    identify,
    jwt::{JwtSimple, tests as jwt},
    sources::certificate::Peer,
};

/// Of this time are the tokens of [`jwt`].
const NOW: Now<'_> = Now {
    wall_ms: jwt::NOW_MS,
    monotonic_ms: &|| 5_000,
};

fn keys() -> Keyring {
    Keyring::parse("k:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap()
}

/// A configuration: tenants `a` with the keys `sk-a` and `sk-a2`, `b` with
/// `sk-b`, and `off`, suspended, with `sk-off`; and what `more` says.
fn config(more: &str) -> Result<Validated, String> {
    let key = |key: &str| {
        let hash = weir_wire::key_hash::KeyHash::of(key.as_bytes());
        format!(r#"{{"sha256":"{hash}"}}"#)
    };
    let json = format!(
        r#"{{"host":"envoy","tenants":[
            {{"id":"a","plan":"starter","keys":[{},{}]}},
            {{"id":"b","plan":"starter","keys":[{}]}},
            {{"id":"off","plan":"starter","state":"suspended","keys":[{}]}}]{more}}}"#,
        key("sk-a"),
        key("sk-a2"),
        key("sk-b"),
        key("sk-off"),
    );
    read(&json)
}

fn read(json: &str) -> Result<Validated, String> {
    serde_json::from_str::<Config>(json)
        .map_err(|e| e.to_string())?
        .validate(|_| Ok(jwt::SECRET.to_owned()), &[7; 16])
}

/// A source of tokens: HS256 of [`jwt::ISSUER`].
fn jwt_source(more: &str) -> String {
    format!(
        r#"{{"type":"jwt","issuers":[{{"issuer":"{}","audiences":["weir"],
            "algorithms":["HS256"],"secret_env":"S"}}]{more}}}"#,
        jwt::ISSUER
    )
}

/// What a request brings beside its headers.
struct Beside {
    metadata: Option<Vec<u8>>,
    peer: Option<Peer>,
    /// Of the worker: whether its directory is whole.
    ready: bool,
}

fn decide(validated: &mut Validated, headers: &[(&str, &[u8])], beside: &Beside) -> Decision {
    let keys = keys();
    let mut worker = Worker {
        setup: &validated.setup,
        store: &validated.store,
        ready: beside.ready,
        key_hashes: &mut validated.key_hashes,
        tokens: &mut validated.tokens,
        checker: &JwtSimple,
        keys: &keys,
    };
    let request = Request {
        headers,
        metadata: beside.metadata.as_deref(),
        peer: beside.peer.as_ref(),
    };
    identify(&mut worker, &request, NOW, [1; 10])
}

/// One request after the other to one configuration.
struct Check {
    validated: Validated,
    beside: Beside,
}

impl Check {
    fn with(more: &str) -> Self {
        Self {
            validated: config(more).unwrap(),
            beside: Beside {
                metadata: None,
                peer: None,
                ready: true,
            },
        }
    }

    fn on_kong(mut self) -> Self {
        self.validated.setup.host = HostKind::Kong;
        self
    }

    #[track_caller]
    fn allows(&mut self, headers: &[(&str, &[u8])], tenant: &str) -> Identification {
        match decide(&mut self.validated, headers, &self.beside) {
            Decision::Allow(id) => {
                assert_eq!(id.tenant.as_str(), tenant);
                *id
            }
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn denies(&mut self, headers: &[(&str, &[u8])], status: u32, reason: &str) -> Denial {
        match decide(&mut self.validated, headers, &self.beside) {
            Decision::Deny(denial) | Decision::Fetch { denial, .. } => {
                assert_eq!((denial.status, denial.reason), (status, reason));
                assert!(!denial.error.message.contains("sk-"), "{denial:?}");
                assert_eq!(denial.challenge.is_some(), status == 401);
                assert_eq!(denial.retry_after_s.is_some(), status == 429);
                *denial
            }
            other => panic!("{other:?}"),
        }
    }
}
