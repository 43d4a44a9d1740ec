//! Who does not pay is suspended at the router, and who paid is resumed: the real
//! aggregator and router with the fake Stripe, over a kill between.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use reqwest::blocking::Client;
use serde_json::{Value, json};
use weir_harness::{
    client,
    parts::{self, DirectoryOptions, RouterOptions, Service},
    paths,
    process::Process,
    providers::Providers,
    provision::Account,
    secrets::random,
};

const STRIPE_KEY: &str = "sk_test_dunning";

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

struct Fixture {
    folder: tempfile::TempDir,
    http: Client,
    stripe: Service,
    aggregator: Option<Process>,
    service_token: String,
    config: Value,
    _router: Service,
}

impl Fixture {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let stripe = parts::stripe(STRIPE_KEY, at).unwrap();
        let customers = Account::new(&stripe.url(), STRIPE_KEY)
            .provision(&["acme", "solo"])
            .unwrap();
        let directory = at.join("directory.yaml");
        fs::copy(
            paths::workspace().join("router-service/examples/directory.yaml"),
            &directory,
        )
        .unwrap();
        let (service_token, directory_token) = (random(), random());
        let router = parts::router(
            &RouterOptions {
                providers: &Providers::none(),
                aggregator: "http://127.0.0.1:1",
                context_keys: &format!("k:{}", random()),
                router_token: &random(),
                service_token: &service_token,
                services_listen: "127.0.0.1:0",
                directory: Some(DirectoryOptions {
                    file: &directory,
                    token: &directory_token,
                    listen: "127.0.0.1:0",
                }),
                quota: None,
                limits: &[],
                members: &Value::Null,
                listen: "127.0.0.1:0",
            },
            at,
        )
        .unwrap();
        let services = router.services.clone().unwrap();
        let tenant = |name: &str| json!({"stripe_customer": customers[name]});
        let config = json!({
            "listen": "127.0.0.1:0",
            "data_dir": at.join("data"),
            "producers": [{"name": "router", "witness": "router", "token_env": "ROUTER"}],
            "stripe": {
                "api_base": stripe.url(), "api_key_env": "STRIPE", "account": "a",
                "meters": {
                    "api_calls": "weir_api_calls",
                    "input_tokens": "weir_input_tokens",
                    "output_tokens": "weir_output_tokens",
                },
            },
            "webhook": {"listen": "127.0.0.1:0", "secrets_env": ["OLD_SECRET", "SECRET"]},
            "dunning": {
                "after_attempts": 2,
                "router": {"url": format!("http://{services}"), "token_env": "SERVICES"},
            },
            "tenants": {"acme": tenant("acme"), "solo": tenant("solo")},
        });
        let mut fixture = Self {
            folder,
            http: client::client(),
            stripe,
            aggregator: None,
            service_token,
            config,
            _router: router,
        };
        fixture.run();
        // Where it listened once it listens again: Stripe knows that address.
        let address = fixture.read("data/webhook-address");
        fixture.config["webhook"]["listen"] = json!(address);
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn run(&mut self) {
        fs::write(self.path("aggregator.json"), self.config.to_string()).unwrap();
        let ready = self.path("aggregator.address");
        let _ = fs::remove_file(&ready);
        let mut command = Command::new(paths::binary("meter-aggregator").unwrap());
        command
            .args(["run", "--config"])
            .arg(self.path("aggregator.json"))
            .arg("--ready-file")
            .arg(&ready)
            .env("WEIR_CONTEXT_KEYS", format!("k:{}", random()))
            .env("WEIR_ADMIN_TOKEN", "the-operators-token")
            .env("ROUTER", "the-routers-token")
            .env("STRIPE", STRIPE_KEY)
            .env("OLD_SECRET", "whsec_old")
            .env("SECRET", "whsec_new")
            .env("SERVICES", &self.service_token);
        let folder: &Path = self.folder.path();
        let mut process = Process::start("aggregator", &mut command, folder).unwrap();
        process.wait_for_file(&ready).unwrap();
        self.aggregator = Some(process);
    }

    fn control(&self, path: &str, body: &Value) -> Value {
        let url = format!("{}/__fake/{path}", self.stripe.url());
        let response = self.http.post(url).json(body).send().unwrap();
        assert!(response.status().is_success(), "{path}: {response:?}");
        response.json().unwrap()
    }

    /// What the aggregator says of Stripe's webhooks.
    fn billing(&self) -> Value {
        let url = format!("http://{}/admin/status", self.read("aggregator.address"));
        let request = self.http.get(url).bearer_auth("the-operators-token");
        request.send().unwrap().json::<Value>().unwrap()["billing"].take()
    }

    /// Whether the router refuses a tenant: only acme is ever suspended here.
    fn suspended(&self) -> bool {
        self.read("directory.yaml").contains("state: suspended")
    }
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn who_does_not_pay_is_suspended_and_who_paid_is_resumed() {
    let mut fixture = Fixture::start();
    let hook = format!(
        "http://{}/stripe/webhook",
        fixture.config["webhook"]["listen"].as_str().unwrap()
    );
    for (form, secret) in [("snapshot", "whsec_new"), ("thin", "whsec_old")] {
        let endpoint = json!({"url": hook, "secret": secret, "form": form});
        fixture.control("webhooks", &endpoint);
    }
    let customer = fixture.config["tenants"]["acme"]["stripe_customer"].clone();
    let invoice = fixture.control("invoices", &json!({"customer": customer}));
    let change = format!("invoices/{}", invoice["id"].as_str().unwrap());
    fixture.control(&change, &json!({"attempt_count": 1}));
    wait("the first failure", || {
        fixture
            .read("aggregator.log")
            .contains("invoice.payment_failed")
            && fixture.billing()["waiting"] == 0
    });
    assert!(!fixture.suspended());
    fixture.control(&change, &json!({"attempt_count": 2}));
    wait("the suspension", || fixture.suspended());
    wait("the books", || {
        fixture.billing()["suspensions"][0]["hold"] == "ours"
    });
    // Paid while nobody listens: Stripe tells of it until somebody does.
    fixture.aggregator.as_mut().unwrap().kill();
    fixture.control(&change, &json!({"status": "paid"}));
    fixture.run();
    wait("the resumption", || !fixture.suspended());
    wait("the books", || {
        fixture.billing()["suspensions"] == json!([])
    });
    // A meter event that Stripe took and bills nobody.
    let event = [
        ("event_name", "weir_api_calls"),
        ("payload[stripe_customer_id]", "cus_nope"),
        ("payload[value]", "3"),
        ("identifier", "weir_lost"),
    ];
    let url = format!("{}/v1/billing/meter_events", fixture.stripe.url());
    let sent = fixture.http.post(url).bearer_auth(STRIPE_KEY).form(&event);
    assert!(sent.send().unwrap().status().is_success());
    wait("the report", || {
        fixture.billing()["meter_errors"][0]["identifiers"] == json!(["weir_lost"])
    });
    let log = fixture.read("aggregator.log");
    for secret in [STRIPE_KEY, "whsec_new", "whsec_old", &fixture.service_token] {
        assert!(!log.contains(secret), "a secret is in the log");
    }
}
