//! What each way to say who a request is for costs.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use serde_json::{Value, json};
use weir_harness::{
    envoy::{self, Gateway, GatewayOptions},
    issuer::{Algorithm, Issuer},
    secrets,
};

use crate::{
    load::Load,
    nothing,
    report::{show, table},
    series::{self, Round},
    stats::{pairs, quantile, spread},
    upstream::Upstream,
};

/// After a round, until the kernel has counted its CPU time. Short, so that many
/// rounds fit: a busy machine is quiet for moments only.
const SETTLE: Duration = Duration::from_millis(30);

/// Of a subject's rounds, the one that so many of a hundred are quicker than:
/// what others on the machine do only ever adds to a round.
pub const QUIET_PERCENT: usize = 10;

/// Who looks at the credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// A filter that does nothing.
    Nothing,
    /// Nobody: Envoy without a filter.
    Nobody,
    /// Weir's.
    Weir,
    /// Envoy's own `jwt_authn`.
    Native,
}

/// What comes with the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Credential {
    /// The same key.
    Key,
    /// The same token.
    Same(Algorithm),
    /// A token that was never seen.
    New(Algorithm),
}

const SUBJECTS: [(&str, By, Credential); 10] = [
    ("a filter that does nothing", By::Nothing, Credential::Key),
    ("no filter", By::Nobody, Credential::Key),
    ("key", By::Weir, Credential::Key),
    (
        "RS256, cached",
        By::Weir,
        Credential::Same(Algorithm::Rs256),
    ),
    ("RS256, new", By::Weir, Credential::New(Algorithm::Rs256)),
    (
        "RS256, new, jwt_authn",
        By::Native,
        Credential::New(Algorithm::Rs256),
    ),
    ("ES256, new", By::Weir, Credential::New(Algorithm::Es256)),
    (
        "ES256, new, jwt_authn",
        By::Native,
        Credential::New(Algorithm::Es256),
    ),
    ("HS256, new", By::Weir, Credential::New(Algorithm::Hs256)),
    ("EdDSA, new", By::Weir, Credential::New(Algorithm::EdDsa)),
];

/// What is compared: a first and a second row, less a base of each.
const RATIOS: [(&str, [usize; 4]); 2] = [
    (
        "RS256, new: Weir over a cached token, against jwt_authn over none",
        [4, 3, 5, 1],
    ),
    (
        "ES256, new: Weir over a cached token, against jwt_authn over none",
        [6, 3, 7, 1],
    ),
];

struct Subject {
    /// Among [`SUBJECTS`].
    index: usize,
    credential: Credential,
    gateway: Gateway,
    key: String,
    same: String,
    made: u64,
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Each time every gateway is a new process: where its memory comes to lie
    /// makes it slower or faster for as long as it lives.
    pub starts: usize,
    /// Of each start.
    pub rounds: usize,
}

/// Measures in turn those whose name holds one of `only`, or all, and the first.
///
/// # Errors
/// Where one request fails.
pub fn measure(extent: Extent, load: &Load, only: &[String]) -> anyhow::Result<String> {
    let upstream = Upstream::start()?;
    let issuer = Issuer::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut starts = Vec::with_capacity(extent.starts);
    for _ in 0..extent.starts {
        let folder = tempfile::tempdir()?;
        let mut subjects = start(&issuer, &upstream, folder.path(), only)?;
        let measured = series::run(&mut subjects, extent.rounds, |subject| {
            let credentials = subject.credentials(&issuer, load.requests);
            let events = upstream.events();
            series::one_round(
                &subject.gateway,
                &runtime,
                load,
                &upstream,
                (&credentials, events, SETTLE),
            )
        })?;
        let indices = subjects.iter().map(|subject| subject.index);
        starts.push(indices.zip(measured).collect());
    }
    Ok(text(&starts))
}

fn start(
    issuer: &Issuer,
    upstream: &Upstream,
    folder: &Path,
    only: &[String],
) -> anyhow::Result<Vec<Subject>> {
    let key = secrets::api_key("enterprise");
    let mut subjects = Vec::new();
    for (index, (name, by, credential)) in SUBJECTS.iter().enumerate() {
        let is_wanted = only.is_empty() || only.iter().any(|part| name.contains(part));
        if index > 0 && !is_wanted {
            continue;
        }
        let mut options = options(&key, issuer, upstream);
        if *by != By::Weir {
            options.filters.clear();
        }
        let config = config(&options, *by, issuer, folder)?;
        let name = format!("envoy-{index}");
        let path = folder.join(format!("{name}.json"));
        fs::write(&path, config.to_string())?;
        subjects.push(Subject {
            index,
            credential: *credential,
            gateway: Gateway::start_with(&name, &options, folder, &path)?,
            key: key.clone(),
            same: match credential {
                Credential::Same(algorithm) => issuer.token(*algorithm, "acme"),
                _ => String::new(),
            },
            made: 0,
        });
    }
    Ok(subjects)
}

impl Subject {
    /// Made before a round, so that signing is no part of it.
    fn credentials(&mut self, issuer: &Issuer, count: usize) -> Vec<String> {
        match self.credential {
            Credential::Key => vec![self.key.clone()],
            Credential::Same(_) => vec![self.same.clone()],
            Credential::New(algorithm) => (0..count)
                .map(|_| {
                    self.made = self.made.saturating_add(1);
                    issuer.numbered(algorithm, "acme", self.made)
                })
                .collect(),
        }
    }
}

/// A gateway of one worker with the one filter.
pub fn options(key: &str, issuer: &Issuer, upstream: &Upstream) -> GatewayOptions {
    GatewayOptions {
        identification: [
            (
                "sources".to_owned(),
                json!([{"type": "api_key"}, issuer.source()]),
            ),
            ("tokens".to_owned(), json!({"checks_per_s": 100_000})),
        ]
        .into_iter()
        .collect(),
        variables: issuer.variables(),
        filters: vec!["tenant_identification".to_owned()],
        ..series::options(key, upstream)
    }
}

fn config(
    options: &GatewayOptions,
    by: By,
    issuer: &Issuer,
    folder: &Path,
) -> anyhow::Result<Value> {
    let mut config = envoy::configuration(options)?;
    let filters = envoy::http_filters(&mut config)?;
    match by {
        By::Weir | By::Nobody => {}
        By::Nothing => filters.insert(0, nothing::filter(folder)?),
        By::Native => {
            let provider = |algorithm: Algorithm| {
                json!({
                    "issuer": issuer.name(algorithm),
                    "audiences": ["weir"],
                    "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
                    "local_jwks": {"inline_string": issuer.jwks(&[algorithm]).to_string()},
                    "payload_in_metadata": "weir",
                })
            };
            filters.insert(0, json!({
                "name": "envoy.filters.http.jwt_authn",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
                    "providers": {
                        "rs256": provider(Algorithm::Rs256),
                        "es256": provider(Algorithm::Es256),
                    },
                    "rules": [{"match": {"prefix": "/"}, "requires": {"requires_any": {"requirements": [
                        {"provider_name": "rs256"}, {"provider_name": "es256"}]}}}],
                },
            }));
        }
    }
    Ok(config)
}

/// The rounds of each subject, by its index.
type Measured = BTreeMap<usize, Vec<Round>>;

fn text(starts: &[Measured]) -> String {
    // What a quiet round cost, of each start.
    let quiet = |at: usize| -> Vec<f64> {
        let rounds = starts.iter().filter_map(|start| start.get(&at));
        rounds
            .map(|rounds| {
                let cpu: Vec<f64> = rounds.iter().map(|round| round.cpu_us).collect();
                quantile(&cpu, QUIET_PERCENT)
            })
            .collect()
    };
    let more = |base: usize, own: usize| pairs(&quiet(base), &quiet(own), |a, b| b - a);
    let ratio = |base: usize, own: usize| pairs(&quiet(base), &quiet(own), |a, b| b / a);
    let mut rows = vec![
        [
            "quiet rounds: median (min–max) of the starts",
            "CPU µs/request",
            "more than the first",
            "ratio to the first",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for (index, (name, _, _)) in SUBJECTS.iter().enumerate() {
        if quiet(index).is_empty() {
            continue;
        }
        rows.push(vec![
            (*name).to_owned(),
            show(spread(&quiet(index)), 1),
            show(spread(&more(0, index)), 1),
            show(spread(&ratio(0, index)), 2),
        ]);
    }
    let mut ratios = vec![vec![
        "µs".to_owned(),
        "Weir".to_owned(),
        "jwt_authn".to_owned(),
        "ratio of the medians".to_owned(),
    ]];
    for (name, [own, own_base, native, native_base]) in RATIOS {
        let weir = spread(&more(own_base, own));
        let envoy = spread(&more(native_base, native));
        if weir.median.is_nan() || envoy.median.is_nan() {
            continue;
        }
        ratios.push(vec![
            name.to_owned(),
            show(weir, 1),
            show(envoy, 1),
            format!("{:.2}", weir.median / envoy.median),
        ]);
    }
    format!("{}\n{}", table(&rows), table(&ratios))
}
