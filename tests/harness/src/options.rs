//! What a stack is started with: what is different from the embedded defaults, and its
//! tokens and keys.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{providers::Real, secrets};

/// What is to be different from the embedded defaults.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How many gateways; 1 where 0.
    pub gateways: usize,
    /// Worker threads of each; 2 where 0.
    pub concurrency: usize,
    /// Requests a minute for plans, in place of the example's.
    pub limits: Vec<(String, u32)>,
    /// Members of the gateways' quota settings in the place of the example's, such
    /// as `on_failure`.
    pub quota: serde_json::Map<String, Value>,
    /// Whether the gateways only tell what they would refuse.
    pub shadow: bool,
    /// The Redis that the router counts requests and money in, and that has the stream
    /// where there is a database; memory and files where absent.
    pub redis: Option<String>,
    /// The Postgres that has the ledger; a file where absent.
    pub database: Option<String>,
    /// How many aggregators; 1 where 0. Without a database and a Redis one works, and the
    /// others wait for its folder.
    pub aggregators: usize,
    /// Members of the router's configuration in place of the example's, at any
    /// depth; null takes one away.
    pub router: Value,
    /// The same of the aggregator's configuration.
    pub aggregator: Value,
    /// Whether tenants may come with tokens, too, of an issuer that is made for
    /// the run, and by their own hosts.
    pub tokens: bool,
    /// The providers that are real, by name; the others are fakes.
    pub providers: BTreeMap<&'static str, Real>,
    /// Whether each gateway also writes its events to a log, which the aggregator
    /// follows.
    pub access_log: bool,
    /// Stripe's address and key; the fake where absent.
    pub stripe: Option<(String, String)>,
    /// Whether the fake Stripe tells the aggregator of unpaid invoices and of what it
    /// does not count, and the aggregator suspends who does not pay.
    pub webhooks: bool,
}

/// The tokens and keys of a stack.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// `WEIR_CONTEXT_KEYS`.
    pub context_keys: String,
    /// The gateways' credential at the aggregator.
    pub gateway_token: String,
    /// The router's.
    pub router_token: String,
    /// That of a service that tells of storage.
    pub storage_token: String,
    /// The operator's.
    pub admin_token: String,
    /// The gateways' credential at the router's directory.
    pub directory_token: String,
    /// The gateways' credential at the router's quota service.
    pub quota_token: String,
    /// What services show the router.
    pub service_token: String,
    /// The aggregator's key at Stripe.
    pub stripe_key: String,
    /// What Stripe signs its webhooks with.
    pub webhook_secret: String,
    /// The tenant `solo`'s key, plan starter.
    pub starter_key: String,
    /// The tenant `acme`'s key, plan enterprise.
    pub enterprise_key: String,
}

impl Secrets {
    /// New ones, but for those that the options bring.
    pub(crate) fn new(options: &Options) -> Self {
        let given = |pair: &Option<(String, String)>| pair.as_ref().map(|(_, key)| key.clone());
        Self {
            context_keys: format!("k1:{}", secrets::random()),
            gateway_token: secrets::random(),
            router_token: secrets::random(),
            storage_token: secrets::random(),
            admin_token: secrets::random(),
            directory_token: secrets::random(),
            quota_token: secrets::random(),
            service_token: secrets::random(),
            stripe_key: given(&options.stripe)
                .unwrap_or_else(|| format!("sk_test_{}", secrets::random())),
            webhook_secret: format!("whsec_{}", secrets::random()),
            starter_key: secrets::api_key("starter"),
            enterprise_key: secrets::api_key("enterprise"),
        }
    }
}
