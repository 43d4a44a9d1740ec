//! Who is told when a share of a budget is reached: the log and, where one is
//! configured, a webhook.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{Client, Url, header::CONTENT_TYPE};
use serde_json::json;
use sha2::Sha256;
use weir_process::secret;
use weir_router_core::budget::{Happened, Mail};
use weir_wire::headers::SIGNATURE;

/// The variable with the key of signatures, where the configuration names none.
const SECRET_ENVIRONMENT: &str = "WEIR_ALERT_SECRET";

/// How long a receiver may take.
const TIME: Duration = Duration::from_secs(10);

/// The least bytes of a key.
const SECRET_MIN_BYTES: usize = 32;

/// Where alerts go beside the log.
pub struct Webhook {
    url: Url,
    key: Hmac<Sha256>,
}

impl Webhook {
    /// The webhook at `url`, whose receiver checks signatures by the secret in that
    /// variable.
    ///
    /// # Errors
    /// Where the URL is none, or the variable holds less than 32 bytes.
    pub fn new(url: &str, secret_env: Option<&str>) -> anyhow::Result<Self> {
        // The URL may hold a credential: it is not repeated.
        let parsed = Url::parse(url).ok();
        let parsed = parsed.filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = parsed.context("budgets.alert_webhook: must be a URL of http or https")?;
        let variable = secret_env.unwrap_or(SECRET_ENVIRONMENT);
        let secret = secret(variable).context("budgets.alert_secret_env")?;
        Self::with_key(url, secret.as_bytes()).context(variable.to_owned())
    }

    pub(crate) fn with_key(url: Url, key: &[u8]) -> anyhow::Result<Self> {
        ensure!(
            key.len() >= SECRET_MIN_BYTES,
            "must be at least {SECRET_MIN_BYTES} bytes, found {}",
            key.len()
        );
        let key = Hmac::new_from_slice(key).context("no key")?;
        Ok(Self { url, key })
    }

    /// `t=<seconds>,v1=<hex of HMAC-SHA256 over "<seconds>.<body>">`, as Stripe signs.
    fn signature(&self, now_s: i64, body: &str) -> String {
        let mut mac = self.key.clone();
        mac.update(format!("{now_s}.{body}").as_bytes());
        let hex = mac.finalize().into_bytes();
        let hex: String = hex.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("t={now_s},v1={hex}")
    }
}

/// A share of a budget that was reached.
pub struct Reached<'a> {
    mail: &'a Mail,
    month: String,
    percent: u8,
    spend: u64,
    ceiling: u64,
}

impl<'a> Reached<'a> {
    /// What of the outbox is one.
    pub fn of(mail: &'a Mail) -> Option<Self> {
        match &mail.what {
            Happened::Reached {
                month,
                percent,
                spend,
                ceiling,
            } => Some(Self {
                mail,
                month: month.to_string(),
                percent: *percent,
                spend: *spend,
                ceiling: *ceiling,
            }),
            Happened::Swept { .. } => None,
        }
    }

    /// One line for the log.
    pub fn log(&self) {
        tracing::warn!(
            tenant = %self.mail.tenant,
            month = self.month,
            percent = self.percent,
            spend_usd = weir_pricing::dollars(self.spend),
            ceiling_usd = weir_pricing::dollars(self.ceiling),
            "a share of a budget is reached"
        );
    }

    /// The same however often it is sent: by it a receiver knows one it has.
    fn id(&self) -> String {
        let (tenant, percent) = (&self.mail.tenant, self.percent);
        format!("budget-{tenant}-{}-{percent}", self.month)
    }

    fn body(&self, now_s: i64) -> String {
        json!({
            "id": self.id(),
            "type": "budget.reached",
            "created": now_s,
            "data": {
                "tenant": self.mail.tenant,
                "month": self.month,
                "percent": self.percent,
                "spend_usd": weir_pricing::dollars(self.spend),
                "ceiling_usd": weir_pricing::dollars(self.ceiling),
            },
        })
        .to_string()
    }
}

/// Tells the webhook, where there is one.
pub struct Alerts {
    webhook: Option<Webhook>,
    http: Client,
}

impl Alerts {
    /// To that webhook, or to none.
    pub fn new(webhook: Option<Webhook>, http: Client) -> Self {
        Self { webhook, http }
    }

    /// Whether whoever is to be told was; without a webhook there is nobody beside
    /// the log.
    pub async fn tell(&self, reached: &Reached<'_>) -> bool {
        let Some(webhook) = &self.webhook else {
            return true;
        };
        let now_s = weir_process::now_ms().div_euclid(1_000);
        let body = reached.body(now_s);
        let call = self
            .http
            .post(webhook.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(SIGNATURE, webhook.signature(now_s, &body))
            .timeout(TIME)
            .body(body)
            .send();
        let why = match call.await {
            Ok(response) if response.status().is_success() => return true,
            Ok(response) => response.status().to_string(),
            Err(error) => error.without_url().to_string(),
        };
        tracing::warn!(
            id = reached.id(),
            why,
            "the alert webhook did not take an alert; it is kept"
        );
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://example.com/hook";

    #[test]
    fn a_signature_is_as_stripes() {
        let key = b"whsec_0123456789abcdef0123456789";
        let webhook = Webhook::with_key(URL.parse().unwrap(), key).unwrap();
        // By `printf '1795000000.{}' | openssl dgst -sha256 -hmac …`.
        assert_eq!(
            webhook.signature(1_795_000_000, "{}"),
            "t=1795000000,v1=774cf672cd1d93b2160b8af316bfe892e397f28612aa75eb5a3cea0f48da2a72"
        );
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_its_name() {
        for (url, variable, names) in [
            ("example.com", None, "budgets.alert_webhook"),
            ("ftp://example.com", None, "budgets.alert_webhook"),
            (URL, Some("WEIR_NO_SUCH_VARIABLE"), "WEIR_NO_SUCH_VARIABLE"),
            // Too short.
            (URL, Some("HOME"), "HOME"),
        ] {
            let error = Webhook::new(url, variable).err().unwrap();
            let message = format!("{error:#}");
            assert!(message.contains(names), "{message}");
        }
    }
}
