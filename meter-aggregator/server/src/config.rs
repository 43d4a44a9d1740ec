//! The aggregator's configuration: one YAML, and secrets from the environment.

mod billing;
mod fleet;
mod stripe;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use weir_meter_core::{lag::Bounds, lease::Terms};
use weir_meter_store::stream::Mark;
use weir_process::secret;
use weir_wire::{
    ids::TenantId,
    keys::{self, Keyring},
    proto::usage::Witness,
};

use self::stripe::{DunningFile, StripeFile, WebhookFile};
pub use self::stripe::{DunningSettings, RouterSettings, StripeSettings, WebhookSettings};
pub use billing::Billing;
use billing::{BillingFile, TierFile};
use fleet::{LedgerFile, StreamFile};
pub use fleet::{LedgerSettings, StreamSettings};

/// The variable that holds the admin credential.
pub const ADMIN_ENVIRONMENT: &str = "WEIR_ADMIN_TOKEN";

/// What the operator writes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    listen: SocketAddr,
    /// What is this process's own: the stream and the ledger, where they are not shared.
    pub data_dir: PathBuf,
    #[serde(default)]
    stream: StreamFile,
    #[serde(default)]
    ledger: LedgerFile,
    producers: Vec<ProducerFile>,
    #[serde(default)]
    ingest: IngestFile,
    #[serde(default)]
    access_logs: Vec<AccessLogFile>,
    stripe: StripeFile,
    #[serde(default)]
    billing: BillingFile,
    #[serde(default)]
    tiers: BTreeMap<String, TierFile>,
    webhook: Option<WebhookFile>,
    dunning: Option<DunningFile>,
    #[serde(default)]
    health: HealthFile,
    tenants: BTreeMap<TenantId, TenantFile>,
}

/// From where on billing is behind.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HealthFile {
    /// How long an event may wait to be booked.
    unbooked_after_s: u32,
    /// How long after it was to be planned Stripe may not wholly have an hour.
    unbilled_after_s: u32,
}

impl HealthFile {
    /// What is late at once, because it came to light late, is not behind yet.
    fn bounds(&self) -> Bounds {
        let ms = |s: u32| i64::from(s).saturating_mul(1_000);
        let hour_ms = ms(self.unbilled_after_s);
        let bounds = Bounds::default();
        Bounds {
            event_ms: ms(self.unbooked_after_s),
            hour_ms,
            seen_ms: bounds.seen_ms.min(hour_ms),
            sender_ms: bounds.sender_ms.min(hour_ms),
        }
    }
}

impl Default for HealthFile {
    fn default() -> Self {
        Self {
            unbooked_after_s: 300,
            unbilled_after_s: 7_200,
        }
    }
}

/// From where on producers have to wait.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct IngestFile {
    /// Events that are durable and not booked.
    spool_max_events: u64,
    /// What of `stream.db` is in use, quarantine included.
    spool_max_mib: u64,
}

impl Default for IngestFile {
    fn default() -> Self {
        Self {
            spool_max_events: 2_000_000,
            spool_max_mib: 4_096,
        }
    }
}

impl File {
    /// Whether replicas share the ledger.
    pub fn is_shared(&self) -> bool {
        self.ledger.is_shared()
    }

    /// What is billed and when, checked.
    fn billing(&self) -> anyhow::Result<Billing> {
        let tells = |witness| self.producers.iter().any(|p| p.witness == witness);
        let two_witnesses = tells(WitnessName::Gateway) && tells(WitnessName::Router);
        let meters = &self.stripe.meters;
        billing::validate(&self.billing, &self.tiers, meters, two_witnesses)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProducerFile {
    name: String,
    witness: WitnessName,
    token_env: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AccessLogFile {
    path: PathBuf,
    producer: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WitnessName {
    Gateway,
    Router,
    /// Tells of storage, and is believed without a tenant's context.
    Service,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantFile {
    stripe_customer: String,
}

/// What the aggregator runs on, checked.
pub struct Settings {
    pub listen: SocketAddr,
    pub data_dir: PathBuf,
    pub stream: StreamSettings,
    pub ledger: LedgerSettings,
    /// How long a replica's part is its own.
    pub lease: Terms,
    pub producers: Vec<Producer>,
    /// From where on producers have to wait.
    pub mark: Mark,
    pub access_logs: Vec<AccessLog>,
    pub admin_token: String,
    pub keys: Keyring,
    pub billing: Billing,
    pub stripe: StripeSettings,
    pub webhook: Option<WebhookSettings>,
    pub dunning: Option<DunningSettings>,
    /// From where on billing is behind.
    pub bounds: Bounds,
}

/// A gateway's log that is followed.
#[derive(Clone)]
pub struct AccessLog {
    /// Absolute.
    pub path: PathBuf,
    /// Who writes it.
    pub producer: Producer,
}

/// Someone who may send events.
#[derive(Clone)]
pub struct Producer {
    pub name: String,
    pub witness: Witness,
    pub token: String,
}

/// Reads the file alone.
pub fn read(path: &Path) -> anyhow::Result<File> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{}: cannot be read", path.display()))?;
    serde_saphyr::from_str(&text).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))
}

/// Who needs the settings, and so which secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// The service, which needs all.
    Service,
    /// A command on the data folder of a service that does not run: nobody is let in,
    /// and of what Stripe is not asked its key may be away, too.
    Command,
}

/// Reads and checks everything; the message names the field.
pub fn load(path: &Path, whom: For) -> anyhow::Result<Settings> {
    let needed = |name: &str| match (secret(name), whom) {
        (Err(_), For::Command) => Ok(String::new()),
        (found, _) => found,
    };
    let file = read(path)?;
    let billing = validate(&file).with_context(|| path.display().to_string())?;
    let producers = producers(file.producers)?;
    let access_logs = file
        .access_logs
        .into_iter()
        .filter_map(|log| {
            let producer = producers.iter().find(|p| p.name == log.producer)?;
            Some(AccessLog {
                path: log.path,
                producer: producer.clone(),
            })
        })
        .collect();
    let admin_token = needed(ADMIN_ENVIRONMENT)?;
    check_tokens(&producers, &admin_token)?;
    let base = path.parent().unwrap_or(Path::new("."));
    let customers = file
        .tenants
        .into_iter()
        .map(|(tenant, t)| (tenant.to_string(), t.stripe_customer))
        .collect();
    let found = |name: &str| Ok(secret(name)?);
    let (ledger, lease) = file.ledger.load(&found)?;
    Ok(Settings {
        listen: file.listen,
        data_dir: file.data_dir,
        stream: file.stream.load(base, &found)?,
        ledger,
        lease,
        producers,
        mark: Mark {
            events_max: file.ingest.spool_max_events,
            bytes_max: file.ingest.spool_max_mib.saturating_mul(1 << 20),
        },
        access_logs,
        admin_token,
        keys: Keyring::parse(&secret(keys::ENVIRONMENT)?)?,
        billing,
        stripe: file.stripe.load(customers, needed)?,
        bounds: file.health.bounds(),
        webhook: match whom {
            For::Service => file.webhook.map(WebhookFile::load).transpose()?,
            For::Command => None,
        },
        dunning: match whom {
            For::Service => file.dunning.map(|d| d.load(base)).transpose()?,
            For::Command => None,
        },
    })
}

/// Reads the producers alone, with their tokens.
pub fn producers_of(path: &Path) -> anyhow::Result<Vec<Producer>> {
    let file = read(path)?;
    validate(&file).with_context(|| path.display().to_string())?;
    producers(file.producers)
}

fn producers(files: Vec<ProducerFile>) -> anyhow::Result<Vec<Producer>> {
    let named = files.into_iter().enumerate().map(|(i, producer)| {
        Ok(Producer {
            token: secret(&producer.token_env)
                .with_context(|| format!("producers[{i}].token_env"))?,
            name: producer.name,
            witness: match producer.witness {
                WitnessName::Gateway => Witness::Gateway,
                WitnessName::Router => Witness::Router,
                WitnessName::Service => Witness::Service,
            },
        })
    });
    named.collect()
}

/// A token says who sends, and so as which witness: with one token for two the
/// second's events would be quarantined as the first's.
fn check_tokens(producers: &[Producer], admin_token: &str) -> anyhow::Result<()> {
    for (i, producer) in producers.iter().enumerate() {
        if producer.token == admin_token {
            bail!("producers[{i}].token_env: holds the token of {ADMIN_ENVIRONMENT}");
        }
        for (j, other) in producers.iter().enumerate().take(i) {
            if other.token == producer.token {
                bail!("producers[{i}].token_env: holds the same token as producers[{j}].token_env");
            }
        }
    }
    Ok(())
}

fn validate(file: &File) -> anyhow::Result<Billing> {
    if file.producers.is_empty() {
        bail!("producers: must name at least one");
    }
    for (found, name) in [
        (file.health.unbooked_after_s, "unbooked_after_s"),
        (file.health.unbilled_after_s, "unbilled_after_s"),
    ] {
        if found == 0 {
            bail!("health.{name}: must be 1 or more, found 0");
        }
    }
    for (found, name) in [
        (file.ingest.spool_max_events, "spool_max_events"),
        (file.ingest.spool_max_mib, "spool_max_mib"),
    ] {
        if found == 0 {
            bail!("ingest.{name}: must be 1 or more, found 0");
        }
    }
    validate_logs(file)?;
    file.stream.validate()?;
    file.ledger.validate()?;
    file.stripe.validate()?;
    if let Some(webhook) = &file.webhook {
        webhook.validate()?;
    }
    if let Some(dunning) = &file.dunning {
        dunning.validate(file.webhook.as_ref())?;
    }
    let mut seen = BTreeMap::new();
    for (tenant, t) in &file.tenants {
        if t.stripe_customer.is_empty() {
            bail!("tenants.{tenant}.stripe_customer: must not be empty");
        }
        if let Some(other) = seen.insert(&t.stripe_customer, tenant) {
            bail!(
                "tenants.{tenant}.stripe_customer: {} is {other}'s already; one customer is one tenant",
                t.stripe_customer
            );
        }
    }
    file.billing()
}

fn validate_logs(file: &File) -> anyhow::Result<()> {
    for (i, producer) in file.producers.iter().enumerate() {
        if file
            .producers
            .iter()
            .take(i)
            .any(|p| p.name == producer.name)
        {
            bail!(
                "producers[{i}].name: another producer is named {:?}, too",
                producer.name
            );
        }
    }
    for (i, log) in file.access_logs.iter().enumerate() {
        if !log.path.is_absolute() || log.path.file_name().is_none() {
            bail!(
                "access_logs[{i}].path: must be a file's absolute path, found {:?}",
                log.path
            );
        }
        if file.access_logs.iter().take(i).any(|l| l.path == log.path) {
            bail!("access_logs[{i}].path: {:?} is listed twice", log.path);
        }
        if !file.producers.iter().any(|p| p.name == log.producer) {
            let names: Vec<&str> = file.producers.iter().map(|p| p.name.as_str()).collect();
            bail!(
                "access_logs[{i}].producer: must be one of {}, found {:?}",
                names.join(", "),
                log.producer
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../examples/aggregator.yaml");

    #[track_caller]
    fn check_refused(from: &str, to: &str, names: &str) {
        let text = EXAMPLE.replace(from, to);
        assert_ne!(text, EXAMPLE, "{from} is not in the example");
        let error = serde_saphyr::from_str::<File>(&text)
            .map_err(|e| e.to_string())
            .and_then(|f| validate(&f).map(|_| ()).map_err(|e| e.to_string()))
            .unwrap_err();
        assert!(error.contains(names), "{error} should name {names}");
    }

    #[test]
    fn a_token_is_one_producers() {
        let check = |tokens: [&str; 2], admin: &str| {
            let producers = tokens.map(|token| Producer {
                name: "p".into(),
                witness: Witness::Router,
                token: token.into(),
            });
            check_tokens(&producers, admin).map_err(|e| e.to_string())
        };
        assert_eq!(check(["a", "b"], "c"), Ok(()));
        assert!(check(["a", "a"], "c").unwrap_err().contains("producers[1]"));
        assert!(check(["a", "b"], "a").unwrap_err().contains("producers[0]"));
    }

    #[test]
    fn the_example_parses() {
        validate(&serde_saphyr::from_str(EXAMPLE).unwrap()).unwrap();
    }

    #[test]
    fn the_example_of_kafka_parses() {
        let text = include_str!("../../examples/kafka.yaml");
        validate(&serde_saphyr::from_str(text).unwrap()).unwrap();
    }

    /// What is commented out: `#` and no blank, or `#` and two.
    #[test]
    fn what_the_example_offers_parses() {
        let offered = |line: &str| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') || rest.starts_with("  ") => rest.to_owned(),
            _ => line.to_owned(),
        };
        let text: Vec<String> = EXAMPLE.lines().map(offered).collect();
        let file: File = serde_saphyr::from_str(&text.join("\n")).unwrap();
        validate(&file).unwrap();
        assert!(file.webhook.is_some() && file.dunning.is_some() && file.is_shared());
    }

    #[test]
    fn what_is_wrong_is_named() {
        check_refused("data_dir:", "datadir:", "datadir");
        check_refused("witness: router", "witness: proxy", "proxy");
        check_refused("spool_max_events: ", "spool_events: ", "spool_events");
        check_refused(
            "spool_max_mib: 4096",
            "spool_max_mib: 0",
            "ingest.spool_max_mib: must be 1 or more, found 0",
        );
        check_refused("name: router", "name: gateway", "producers[1].name");
        let log = "access_logs:\n  - path: ";
        check_refused(
            "/var/log/envoy/usage.log",
            "usage.log",
            "access_logs[0].path",
        );
        check_refused(
            "producer: gateway",
            "producer: envoy",
            "access_logs[0].producer: must be one of gateway, router, storage, found \"envoy\"",
        );
        check_refused("producer: gateway", "producers: gateway", "producers");
        check_refused(
            log,
            &format!("{log}/var/log/envoy/usage.log\n    producer: router\n  - path: "),
            "access_logs[1].path",
        );
        check_refused(
            "    api_calls: weir_api_calls\n",
            "",
            "stripe.meters.api_calls",
        );
        check_refused("weir_api_calls", "weir_input_tokens", "stripe.meters");
        check_refused("cus_solo", "cus_acme", "tenants.solo.stripe_customer");
        check_refused("tenants:", "billing: {wait: 1}\ntenants:", "wait");
        check_refused("tenants:", "tiers: {a: {models: [m]}}\ntenants:", "tiers.a");
        check_refused("  acme:", "  a b:", "a b");
    }
}
