//! The aggregator's configuration: one YAML, and secrets from the environment.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use weir_meter_core::meter::Meter;
use weir_process::secret;
use weir_wire::{
    ids::TenantId,
    keys::{self, Keyring},
    proto::usage::Witness,
};

/// The variable that holds the admin credential.
pub const ADMIN_ENVIRONMENT: &str = "WEIR_ADMIN_TOKEN";

/// What the operator writes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    listen: SocketAddr,
    /// Where the stream and the ledger are.
    pub data_dir: PathBuf,
    producers: Vec<ProducerFile>,
    #[serde(default)]
    access_logs: Vec<AccessLogFile>,
    stripe: StripeFile,
    tenants: BTreeMap<TenantId, TenantFile>,
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

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WitnessName {
    Gateway,
    Router,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StripeFile {
    api_base: String,
    api_key_env: String,
    account: String,
    meters: BTreeMap<Meter, String>,
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
    pub producers: Vec<Producer>,
    pub access_logs: Vec<AccessLog>,
    pub admin_token: String,
    pub keys: Keyring,
    pub stripe: StripeSettings,
}

/// A gateway's log that is followed.
#[derive(Clone)]
pub struct AccessLog {
    /// Absolute.
    pub path: PathBuf,
    /// Who writes it.
    pub producer: Producer,
}

/// What a replay needs.
pub struct ReplaySettings {
    pub data_dir: PathBuf,
    pub producers: Vec<Producer>,
    /// Where no aggregator runs, events are checked by these.
    pub keys: Keyring,
}

/// Someone who may send events.
#[derive(Clone)]
pub struct Producer {
    pub name: String,
    pub witness: Witness,
    pub token: String,
}

/// The way to Stripe.
pub struct StripeSettings {
    pub api_base: String,
    pub api_key: String,
    pub account: String,
    /// Each meter's `event_name`.
    pub meters: BTreeMap<Meter, String>,
    /// Each tenant's customer.
    pub customers: BTreeMap<String, String>,
}

/// Reads the file alone.
pub fn read(path: &Path) -> anyhow::Result<File> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{}: cannot be read", path.display()))?;
    serde_saphyr::from_str(&text).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))
}

/// Reads and checks everything; the message names the field.
pub fn load(path: &Path) -> anyhow::Result<Settings> {
    let file = read(path)?;
    validate(&file).with_context(|| path.display().to_string())?;
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
    let admin_token = secret(ADMIN_ENVIRONMENT)?;
    check_tokens(&producers, &admin_token)?;
    let customers = file
        .tenants
        .into_iter()
        .map(|(tenant, t)| (tenant.to_string(), t.stripe_customer))
        .collect();
    Ok(Settings {
        listen: file.listen,
        data_dir: file.data_dir,
        producers,
        access_logs,
        admin_token,
        keys: Keyring::parse(&secret(keys::ENVIRONMENT)?)?,
        stripe: StripeSettings {
            api_key: secret(&file.stripe.api_key_env).context("stripe.api_key_env")?,
            api_base: file.stripe.api_base.trim_end_matches('/').to_owned(),
            account: file.stripe.account,
            meters: file.stripe.meters,
            customers,
        },
    })
}

/// Reads what a replay needs, and no secret beside that.
pub fn load_for_replay(path: &Path) -> anyhow::Result<ReplaySettings> {
    let file = read(path)?;
    validate(&file).with_context(|| path.display().to_string())?;
    Ok(ReplaySettings {
        data_dir: file.data_dir,
        producers: producers(file.producers)?,
        keys: Keyring::parse(&secret(keys::ENVIRONMENT)?)?,
    })
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

fn validate(file: &File) -> anyhow::Result<()> {
    if file.producers.is_empty() {
        bail!("producers: must name at least one");
    }
    validate_logs(file)?;
    for meter in Meter::ALL {
        match file.stripe.meters.get(&meter) {
            Some(name) if (1..=100).contains(&name.len()) => {}
            Some(name) => {
                bail!("stripe.meters.{meter}: must have 1 to 100 characters, found {name:?}")
            }
            None => bail!("stripe.meters.{meter}: is missing"),
        }
    }
    let names: BTreeSet<&String> = file.stripe.meters.values().collect();
    if names.len() != file.stripe.meters.len() {
        bail!("stripe.meters: two meters have the same event_name");
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
    Ok(())
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
            .and_then(|f| validate(&f).map_err(|e| e.to_string()))
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
    fn what_is_wrong_is_named() {
        check_refused("data_dir:", "datadir:", "datadir");
        check_refused("witness: router", "witness: proxy", "proxy");
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
            "access_logs[0].producer: must be one of gateway, router, found \"envoy\"",
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
        check_refused("  acme:", "  a b:", "a b");
    }
}
