//! The configuration of the way to Stripe and back: `stripe`, `webhook`, `dunning`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use weir_meter_core::{
    dunning::{OnPaymentFailed, OnUncollectible, Policy},
    meter::Meter,
};
use weir_process::{NotSet, secret};

/// Calls a second that a sandbox of Stripe takes.
const SANDBOX_CALLS: NonZeroU32 = NonZeroU32::new(25).unwrap();

/// Calls a second for meter events that Stripe takes in live mode.
const LIVE_CALLS: NonZeroU32 = NonZeroU32::new(1_000).unwrap();

/// The section `stripe`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StripeFile {
    api_base: String,
    api_key_env: String,
    account: String,
    pub meters: BTreeMap<Meter, String>,
    calls_per_second: Option<u32>,
}

/// The section `webhook`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookFile {
    listen: SocketAddr,
    secrets_env: Vec<String>,
}

/// The section `dunning`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DunningFile {
    #[serde(default)]
    on_payment_failed: OnPaymentFailed,
    #[serde(default = "one")]
    after_attempts: u32,
    #[serde(default)]
    on_uncollectible: OnUncollectible,
    router: RouterFile,
}

fn one() -> u32 {
    1
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RouterFile {
    url: String,
    token_env: Option<String>,
    tls: Option<RouterTlsFile>,
}

/// PEM files; relative ones are beside the configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RouterTlsFile {
    ca: PathBuf,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
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
    /// The most calls a second.
    pub calls_per_second: NonZeroU32,
}

/// Where Stripe's webhooks come.
pub struct WebhookSettings {
    pub listen: SocketAddr,
    /// Each destination of Stripe's signs with its own.
    pub secrets: Vec<String>,
}

/// What becomes of a tenant that does not pay.
pub struct DunningSettings {
    pub policy: Policy,
    pub router: RouterSettings,
}

/// The router's services.
#[derive(Clone)]
pub struct RouterSettings {
    /// `http://` or `https://`, host and port.
    pub url: String,
    /// Nothing where a certificate is shown instead.
    pub token: Option<String>,
    pub tls: Option<RouterTls>,
}

/// PEM texts.
#[derive(Clone)]
pub struct RouterTls {
    /// The authorities that vouch for the router.
    pub ca: String,
    /// A certificate of ours and its key.
    pub identity: Option<(String, String)>,
}

impl StripeFile {
    /// Checks what can be checked without a secret.
    pub fn validate(&self) -> anyhow::Result<()> {
        ensure!(
            self.api_base.starts_with("https://") || self.api_base.starts_with("http://"),
            "stripe.api_base: must begin with https:// or http://, found {:?}",
            self.api_base
        );
        ensure!(
            self.calls_per_second
                .is_none_or(|n| (1..=10_000).contains(&n)),
            "stripe.calls_per_second: must be 1 to 10000, found {}",
            self.calls_per_second.unwrap_or_default()
        );
        for (meter, name) in &self.meters {
            if !(1..=100).contains(&name.len()) {
                bail!("stripe.meters.{meter}: must have 1 to 100 characters, found {name:?}");
            }
        }
        let names: BTreeSet<&String> = self.meters.values().collect();
        if names.len() != self.meters.len() {
            bail!("stripe.meters: two meters have the same event_name");
        }
        Ok(())
    }

    /// Reads the key, by `secret`.
    pub fn load(
        self,
        customers: BTreeMap<String, String>,
        secret: impl FnOnce(&str) -> Result<String, NotSet>,
    ) -> anyhow::Result<StripeSettings> {
        let api_key = secret(&self.api_key_env).context("stripe.api_key_env")?;
        Ok(StripeSettings {
            calls_per_second: calls_per_second(&api_key, self.calls_per_second),
            api_base: self.api_base.trim_end_matches('/').to_owned(),
            api_key,
            account: self.account,
            meters: self.meters,
            customers,
        })
    }
}

/// What is configured, or what Stripe takes with such a key.
fn calls_per_second(api_key: &str, configured: Option<u32>) -> NonZeroU32 {
    let sandbox = ["sk_test_", "rk_test_"]
        .iter()
        .any(|p| api_key.starts_with(p));
    let default = if sandbox { SANDBOX_CALLS } else { LIVE_CALLS };
    configured.and_then(NonZeroU32::new).unwrap_or(default)
}

impl WebhookFile {
    /// Checks what can be checked without a secret.
    pub fn validate(&self) -> anyhow::Result<()> {
        ensure!(
            (1..=8).contains(&self.secrets_env.len()),
            "webhook.secrets_env: must name 1 to 8 variables, found {}",
            self.secrets_env.len()
        );
        Ok(())
    }

    /// Reads the secrets.
    pub fn load(self) -> anyhow::Result<WebhookSettings> {
        let read = |(i, name): (usize, &String)| {
            secret(name).with_context(|| format!("webhook.secrets_env[{i}]"))
        };
        Ok(WebhookSettings {
            listen: self.listen,
            secrets: self
                .secrets_env
                .iter()
                .enumerate()
                .map(read)
                .collect::<anyhow::Result<_>>()?,
        })
    }
}

impl DunningFile {
    /// Checks what can be checked without a secret.
    pub fn validate(&self, webhook: Option<&WebhookFile>) -> anyhow::Result<()> {
        ensure!(
            (1..=100).contains(&self.after_attempts),
            "dunning.after_attempts: must be 1 to 100, found {}",
            self.after_attempts
        );
        if webhook.is_none() {
            bail!("dunning: needs the section webhook, by which Stripe tells of payments");
        }
        let router = &self.router;
        let https = router.url.starts_with("https://");
        ensure!(
            https || router.url.starts_with("http://"),
            "dunning.router.url: must begin with https:// or http://, found {:?}",
            router.url
        );
        ensure!(
            https == router.tls.is_some(),
            "dunning.router.tls: is needed with https:// and refused without, dunning.router.url is {:?}",
            router.url
        );
        let tls = router.tls.as_ref();
        ensure!(
            tls.is_none_or(|tls| tls.cert.is_some() == tls.key.is_some()),
            "dunning.router.tls.cert: needs dunning.router.tls.key and the other way round"
        );
        ensure!(
            router.token_env.is_some() || tls.is_some_and(|tls| tls.cert.is_some()),
            "dunning.router.token_env: is missing; only where dunning.router.tls.cert is shown it may be"
        );
        Ok(())
    }

    /// Reads the token and the files; relative ones are beside `base`.
    pub fn load(self, base: &Path) -> anyhow::Result<DunningSettings> {
        let pem = |field: &str, path: &Path| {
            let path = base.join(path);
            std::fs::read_to_string(&path)
                .with_context(|| format!("dunning.router.tls.{field}: {}", path.display()))
        };
        let tls = |tls: RouterTlsFile| -> anyhow::Result<RouterTls> {
            let identity = match (&tls.cert, &tls.key) {
                (Some(cert), Some(key)) => Some((pem("cert", cert)?, pem("key", key)?)),
                _ => None,
            };
            Ok(RouterTls {
                ca: pem("ca", &tls.ca)?,
                identity,
            })
        };
        let token = |name: String| secret(&name).context("dunning.router.token_env");
        Ok(DunningSettings {
            policy: Policy {
                on_payment_failed: self.on_payment_failed,
                after_attempts: NonZeroU32::new(self.after_attempts).unwrap_or(NonZeroU32::MIN),
                on_uncollectible: self.on_uncollectible,
            },
            router: RouterSettings {
                url: self.router.url,
                token: self.router.token_env.map(token).transpose()?,
                tls: self.router.tls.map(tls).transpose()?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_says_how_fast() {
        for (key, configured, wanted) in [
            ("sk_test_1", None, 25),
            ("rk_test_1", None, 25),
            ("sk_live_1", None, 1_000),
            ("rk_live_1", Some(40), 40),
            ("sk_test_1", Some(500), 500),
        ] {
            assert_eq!(calls_per_second(key, configured).get(), wanted, "{key}");
        }
    }

    const DUNNING: &str = "
on_payment_failed: suspend
after_attempts: 3
on_uncollectible: keep
router:
  url: https://router:8083
  token_env: WEIR_SERVICE_TOKEN
  tls:
    ca: ca.pem
    cert: cert.pem
    key: key.pem
";

    #[track_caller]
    fn check_refused(from: &str, to: &str, names: &str) {
        let text = DUNNING.replace(from, to);
        assert_ne!(text, DUNNING, "{from} is not in the example");
        let webhook = WebhookFile {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            secrets_env: vec!["A".to_owned()],
        };
        let error = serde_saphyr::from_str::<DunningFile>(&text)
            .map_err(|e| e.to_string())
            .and_then(|f| f.validate(Some(&webhook)).map_err(|e| e.to_string()))
            .unwrap_err();
        assert!(error.contains(names), "{error} should name {names}");
    }

    #[test]
    fn what_is_wrong_with_dunning_is_named() {
        check_refused("after_attempts: 3", "after_attempts: 0", "after_attempts");
        check_refused("after_attempts", "after_attempt", "after_attempt");
        check_refused("suspend", "delete", "delete");
        check_refused("https://router", "router", "dunning.router.url");
        check_refused("https://", "http://", "dunning.router.tls");
        check_refused("    key: key.pem\n", "", "dunning.router.tls.cert");
        let token = "  token_env: WEIR_SERVICE_TOKEN\n";
        let bare = DUNNING.replace("    cert: cert.pem\n    key: key.pem\n", "");
        let without = serde_saphyr::from_str::<DunningFile>(&bare.replace(token, "")).unwrap();
        let error = without.validate(None).unwrap_err().to_string();
        assert!(error.contains("webhook"), "{error}");
        let good = serde_saphyr::from_str::<DunningFile>(DUNNING).unwrap();
        assert!(good.validate(None).is_err());
    }

    #[test]
    fn a_webhook_has_secrets() {
        let check = |text: &str, good: bool| {
            let file = serde_saphyr::from_str::<WebhookFile>(text);
            let checked = file.map_err(anyhow::Error::from).and_then(|f| f.validate());
            assert_eq!(checked.is_ok(), good, "{text}: {checked:?}");
        };
        check("{listen: '127.0.0.1:0', secrets_env: [A, B]}", true);
        check("{listen: '127.0.0.1:0', secrets_env: []}", false);
        check("{listen: '127.0.0.1:0', secret_env: [A]}", false);
        check("{listen: 'here', secrets_env: [A]}", false);
    }
}
