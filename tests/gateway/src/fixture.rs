//! One Envoy with the four filters in front of an [`Upstream`].

use std::{fs, path::Path};

use reqwest::blocking::{Client, RequestBuilder, Response};
use serde_json::Value;
use tempfile::TempDir;
use weir_harness::{
    client,
    envoy::{self, Gateway, GatewayOptions, Tenant},
    secrets,
};
use weir_wire::keys::Keyring;

use crate::Upstream;

/// A gateway, its upstream, and a client.
pub struct Fixture {
    /// The gateway.
    pub gateway: Gateway,
    /// What it was started with.
    pub options: GatewayOptions,
    /// What stands behind it.
    pub upstream: Upstream,
    /// For tenants' requests.
    pub http: Client,
    /// Its logs and configuration.
    pub folder: TempDir,
}

/// The tenant on the plan enterprise.
pub const ACME: usize = 0;
/// The tenant on the plan starter.
pub const SOLO: usize = 1;

/// A body that an upstream would accept.
pub const BODY: &str = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}"#;

/// Where chats are posted.
pub const CHAT_PATH: &str = "/v1/chat/completions";

impl Fixture {
    /// A gateway with the shipped limits.
    ///
    /// # Panics
    /// Where it does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// A gateway with other options.
    ///
    /// # Panics
    /// Where it does not start.
    #[must_use]
    pub fn with(change: impl FnOnce(&mut GatewayOptions)) -> Self {
        Self::changed(|options, _| change(options), |_, _| {})
    }

    /// A gateway with other options, and a configuration that is changed further.
    ///
    /// # Panics
    /// Where it does not start.
    #[must_use]
    pub fn with_config(
        change: impl FnOnce(&mut GatewayOptions),
        change_config: impl FnOnce(&mut Value),
    ) -> Self {
        Self::changed(
            |options, _| change(options),
            |config, _| change_config(config),
        )
    }

    /// The same, where both may name files in its folder.
    ///
    /// # Panics
    /// Where it does not start.
    #[must_use]
    pub fn changed(
        change: impl FnOnce(&mut GatewayOptions, &Path),
        change_config: impl FnOnce(&mut Value, &Path),
    ) -> Self {
        let upstream = Upstream::start();
        let mut options = options(&upstream);
        let folder = tempfile::tempdir().expect("a folder");
        change(&mut options, folder.path());
        let mut config = envoy::configuration(&options).expect("a configuration");
        change_config(&mut config, folder.path());
        let path = folder.path().join("envoy.json");
        fs::write(&path, format!("{config:#}")).expect("the folder can be written");
        let gateway = Gateway::start_with("envoy", &options, folder.path(), &path);
        let gateway = gateway.expect("Envoy starts");
        Self {
            gateway,
            options,
            upstream,
            http: client::client(),
            folder,
        }
    }

    /// The API key of a tenant.
    #[must_use]
    pub fn key(&self, tenant: usize) -> &str {
        &self.options.tenants[tenant].key
    }

    /// A POST without any credential.
    pub fn post(&self, path: &str) -> RequestBuilder {
        self.http
            .post(format!("{}{path}", self.gateway.url))
            .header("content-type", "application/json")
            .body(BODY)
    }

    /// A chat of a tenant.
    ///
    /// # Panics
    /// Where the gateway does not answer.
    #[must_use]
    pub fn chat(&self, tenant: usize) -> Response {
        self.post(CHAT_PATH)
            .bearer_auth(self.key(tenant))
            .send()
            .expect("the gateway answers")
    }

    /// The status of a tenant's chat whose answer was read to its end: of one
    /// that was not, the gateway may see that the client left.
    ///
    /// # Panics
    /// Where the answer does not come whole.
    #[must_use]
    pub fn whole_chat(&self, tenant: usize) -> u16 {
        let answer = self.chat(tenant);
        let status = answer.status().as_u16();
        answer.bytes().expect("the answer comes whole");
        status
    }

    /// The keys that its contexts are signed with.
    ///
    /// # Panics
    /// Never: the fixture made them.
    #[must_use]
    pub fn keyring(&self) -> Keyring {
        Keyring::parse(&self.options.context_keys).expect("good keys")
    }

    /// Checks that an answer is an error of OpenAI's shape, with that status
    /// and code, and that the gateway serves the next request.
    ///
    /// # Panics
    /// Where it is not, or does not.
    #[track_caller]
    pub fn check_refused(&self, answer: Response, status: u16, code: &str) -> Value {
        assert_eq!(answer.status(), status);
        let kind = answer.headers()["content-type"]
            .to_str()
            .unwrap_or_default();
        assert_eq!(kind, "application/json");
        let body: Value = answer.json().expect("JSON");
        let error = &body["error"];
        assert_eq!(error["code"], code, "{body}");
        assert!(
            error["message"].as_str().is_some_and(|m| !m.is_empty()),
            "{body}"
        );
        assert!(error["type"].is_string(), "{body}");
        assert!(error.get("param").is_some(), "{body}");
        assert_eq!(self.chat(ACME).status(), 200, "the next request is served");
        body
    }
}

fn options(upstream: &Upstream) -> GatewayOptions {
    let tenant = |id: &str, plan: &str| Tenant {
        id: id.to_owned(),
        plan: plan.to_owned(),
        key: secrets::api_key(plan),
    };
    GatewayOptions {
        tenants: vec![tenant("acme", "enterprise"), tenant("solo", "starter")],
        ..GatewayOptions::new(&upstream.address, &upstream.address)
    }
}
