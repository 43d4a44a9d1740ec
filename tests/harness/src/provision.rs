//! What Stripe must know before it can bill: meters, customers, prices and
//! subscriptions, found or made.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use reqwest::blocking::Client;
use serde_json::Value;

use crate::client;

/// The meters: the ledger's name, Stripe's `event_name`, and the price of one
/// unit in cents.
const METERS: [(&str, &str, &str); 5] = [
    ("api_calls", "weir_api_calls", "0.01"),
    ("input_tokens", "weir_input_tokens", "0.001"),
    ("cached_input_tokens", "weir_cached_input_tokens", "0.0005"),
    ("output_tokens", "weir_output_tokens", "0.004"),
    ("storage_mb_hours", "weir_storage_mb_hours", "0.00002"),
];

/// An account of Stripe's, or the fake.
#[derive(Debug)]
pub struct Account {
    http: Client,
    base: String,
    key: String,
}

impl Account {
    /// An account at that address.
    #[must_use]
    pub fn new(base: &str, key: &str) -> Self {
        Self {
            http: client::client(),
            base: base.trim_end_matches('/').to_owned(),
            key: key.to_owned(),
        }
    }

    /// Makes what is missing for those tenants; gives each one's customer.
    ///
    /// # Errors
    /// Where Stripe refuses or is not there, and for a key that is not a
    /// sandbox's: a trial run has no business in a live account.
    pub fn provision(&self, tenants: &[&str]) -> anyhow::Result<BTreeMap<String, String>> {
        if !["sk_test_", "rk_test_"]
            .iter()
            .any(|p| self.key.starts_with(p))
        {
            bail!("STRIPE_API_KEY: must be a sandbox's, sk_test_… or rk_test_…");
        }
        let mut prices = Vec::new();
        for (name, event_name, cents) in METERS {
            let meter = self.meter(name, event_name)?;
            prices.push(self.price(name, &meter, cents)?);
        }
        let mut customers = BTreeMap::new();
        for tenant in tenants {
            let customer = self.customer(tenant)?;
            self.subscription(&customer, &prices)?;
            customers.insert((*tenant).to_owned(), customer);
        }
        Ok(customers)
    }

    fn meter(&self, name: &str, event_name: &str) -> anyhow::Result<String> {
        let all = self.get("/v1/billing/meters?limit=100&status=active")?;
        if let Some(id) = id_where(&all, |m| m["event_name"] == event_name) {
            return Ok(id);
        }
        self.make(
            "/v1/billing/meters",
            &[
                ("display_name", name),
                ("event_name", event_name),
                ("default_aggregation[formula]", "sum"),
            ],
        )
    }

    fn price(&self, name: &str, meter: &str, cents: &str) -> anyhow::Result<String> {
        let key = format!("weir_demo_{name}");
        let found = self.get(&format!("/v1/prices?lookup_keys[]={key}&limit=1"))?;
        if let Some(id) = id_where(&found, |p| p["recurring"]["meter"] == meter) {
            return Ok(id);
        }
        self.make(
            "/v1/prices",
            &[
                ("currency", "usd"),
                ("unit_amount_decimal", cents),
                ("recurring[interval]", "month"),
                ("recurring[usage_type]", "metered"),
                ("recurring[meter]", meter),
                ("product_data[name]", name),
                ("lookup_key", &key),
                ("transfer_lookup_key", "true"),
            ],
        )
    }

    fn customer(&self, tenant: &str) -> anyhow::Result<String> {
        let email = format!("{tenant}@weir.example");
        let found = self.get(&format!("/v1/customers?email={email}&limit=1"))?;
        if let Some(id) = id_where(&found, |_| true) {
            return Ok(id);
        }
        self.make(
            "/v1/customers",
            &[
                ("name", tenant),
                ("email", &email),
                ("metadata[weir_tenant]", tenant),
            ],
        )
    }

    fn subscription(&self, customer: &str, prices: &[String]) -> anyhow::Result<String> {
        let found = self.get(&format!("/v1/subscriptions?customer={customer}&limit=1"))?;
        if let Some(id) = id_where(&found, |_| true) {
            return Ok(id);
        }
        let mut form = vec![("customer".to_owned(), customer.to_owned())];
        for (i, price) in prices.iter().enumerate() {
            form.push((format!("items[{i}][price]"), price.clone()));
        }
        let form: Vec<(&str, &str)> = form.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        self.make("/v1/subscriptions", &form)
    }

    /// The invoice that a customer would get now, by Stripe's own sums.
    ///
    /// # Errors
    /// Where Stripe refuses or is not there.
    pub fn preview(&self, customer: &str) -> anyhow::Result<Value> {
        let found = self.get(&format!("/v1/subscriptions?customer={customer}&limit=1"))?;
        let subscription =
            id_where(&found, |_| true).context("the customer has no subscription")?;
        self.post(
            "/v1/invoices/create_preview",
            &[("customer", customer), ("subscription", &subscription)],
        )
    }

    /// What the account holds on a meter for a customer, over `[start, end)`,
    /// seconds of the Unix epoch, whole minutes.
    ///
    /// # Errors
    /// Where Stripe refuses or is not there, or has no such meter.
    pub fn metered(
        &self,
        event_name: &str,
        customer: &str,
        start_s: i64,
        end_s: i64,
    ) -> anyhow::Result<i64> {
        let meters = self.get("/v1/billing/meters?limit=100&status=active")?;
        let meter = id_where(&meters, |m| m["event_name"] == event_name)
            .with_context(|| format!("no meter {event_name}"))?;
        let summaries = self.get(&format!(
            "/v1/billing/meters/{meter}/event_summaries?customer={customer}&start_time={start_s}&end_time={end_s}"
        ))?;
        summaries["data"]
            .as_array()
            .context("no list")?
            .iter()
            .map(|s| {
                s["aggregated_value"]
                    .as_f64()
                    .map(|v| v as i64)
                    .context("no sum")
            })
            .sum()
    }

    fn make(&self, path: &str, form: &[(&str, &str)]) -> anyhow::Result<String> {
        let made = self.post(path, form)?;
        made["id"].as_str().map(str::to_owned).context("no id")
    }

    /// One GET.
    ///
    /// # Errors
    /// Where Stripe refuses or is not there.
    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(self.http.get(format!("{}{path}", self.base)), path)
    }

    fn post(&self, path: &str, form: &[(&str, &str)]) -> anyhow::Result<Value> {
        self.ask(
            self.http.post(format!("{}{path}", self.base)).form(form),
            path,
        )
    }

    fn ask(&self, request: reqwest::blocking::RequestBuilder, path: &str) -> anyhow::Result<Value> {
        let response = request.bearer_auth(&self.key).send()?;
        let status = response.status();
        let body: Value = response.json()?;
        if !status.is_success() {
            bail!(
                "Stripe answered {status} to {path}: {}",
                body["error"]["message"]
            );
        }
        Ok(body)
    }
}

fn id_where(list: &Value, mut is: impl FnMut(&Value) -> bool) -> Option<String> {
    let found = list["data"].as_array()?.iter().find(|item| is(item))?;
    found["id"].as_str().map(str::to_owned)
}
