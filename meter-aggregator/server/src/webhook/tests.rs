//! From a webhook to a tenant that is suspended, with a Stripe and a router of a few
//! lines: events come twice, late and in the wrong order, and either side is away.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Mutex, atomic::AtomicBool, atomic::Ordering},
};

use tonic::{Request, Response as Answer, Status};
use weir_meter_core::{
    dunning::{OnPaymentFailed, OnUncollectible, Policy},
    stripe::{METER_ERRORS, sign},
};
use weir_meter_store::{
    ledger::{Billing, Ledger},
    stream::Stream,
};

use super::*;
use crate::{
    config::RouterSettings,
    proto::{
        CreateTenantRequest, GetTenantRequest, ListTenantsRequest, ListTenantsResponse,
        MakeKeyRequest, MakeKeyResponse, ResumeTenantRequest, RevokeKeyRequest, RevokeKeyResponse,
        RotateKeyRequest, RotateKeyResponse, SuspendTenantRequest, Tenant, TenantState,
        UpdateTenantRequest,
        tenants_server::{Tenants, TenantsServer},
    },
    stripe::stub::{self, Stub, good},
};

mod overtaken;

const SECRET: &str = "whsec_1";

/// A router that knows some tenants.
#[derive(Clone, Default)]
struct FakeRouter {
    suspended: Arc<Mutex<BTreeMap<String, bool>>>,
    away: Arc<AtomicBool>,
    /// What changed something.
    changes: Arc<Mutex<Vec<String>>>,
    gate: Arc<Mutex<Option<Gate>>>,
}

/// Where the next call of one kind stands still, before it does anything.
#[derive(Clone, Default)]
struct Gate {
    at: &'static str,
    reached: Arc<Notify>,
    open: Arc<Notify>,
}

impl FakeRouter {
    fn stop_at(&self, at: &'static str) -> Gate {
        let gate = Gate {
            at,
            ..Gate::default()
        };
        *self.gate.lock().unwrap() = Some(gate.clone());
        gate
    }

    async fn pass(&self, call: &str) {
        let gate = self.gate.lock().unwrap().take_if(|gate| gate.at == call);
        if let Some(gate) = gate {
            gate.reached.notify_one();
            gate.open.notified().await;
        }
    }

    fn tenant<T>(
        &self,
        request: &Request<T>,
        name: &str,
        to: Option<bool>,
    ) -> Result<Answer<Tenant>, Status> {
        if request
            .metadata()
            .get("authorization")
            .map(|v| v.as_bytes())
            != Some(b"Bearer t0ken")
        {
            return Err(Status::unauthenticated("no"));
        }
        if self.away.load(Ordering::SeqCst) {
            return Err(Status::unavailable("away"));
        }
        let mut all = self.suspended.lock().unwrap();
        let Some(suspended) = all.get_mut(name) else {
            return Err(Status::not_found("no such tenant"));
        };
        if let Some(to) = to.filter(|to| *to != *suspended) {
            *suspended = to;
            self.changes.lock().unwrap().push(format!("{name} {to}"));
        }
        let state = if *suspended {
            TenantState::Suspended
        } else {
            TenantState::Active
        };
        Ok(Answer::new(Tenant {
            tenant: name.to_owned(),
            state: state.into(),
            ..Tenant::default()
        }))
    }
}

macro_rules! refuse {
    ($($name:ident($request:ty) -> $answer:ty;)*) => {
        #[tonic::async_trait]
        impl Tenants for FakeRouter {
            async fn get_tenant(&self, r: Request<GetTenantRequest>) -> Result<Answer<Tenant>, Status> {
                self.pass("get").await;
                self.tenant(&r, &r.get_ref().tenant, None)
            }
            async fn suspend_tenant(&self, r: Request<SuspendTenantRequest>) -> Result<Answer<Tenant>, Status> {
                self.pass("suspend").await;
                self.tenant(&r, &r.get_ref().tenant, Some(true))
            }
            async fn resume_tenant(&self, r: Request<ResumeTenantRequest>) -> Result<Answer<Tenant>, Status> {
                self.pass("resume").await;
                self.tenant(&r, &r.get_ref().tenant, Some(false))
            }
            $(async fn $name(&self, _: Request<$request>) -> Result<Answer<$answer>, Status> {
                Err(Status::unimplemented("not asked for"))
            })*
        }
    };
}

refuse! {
    create_tenant(CreateTenantRequest) -> Tenant;
    list_tenants(ListTenantsRequest) -> ListTenantsResponse;
    update_tenant(UpdateTenantRequest) -> Tenant;
    make_key(MakeKeyRequest) -> MakeKeyResponse;
    rotate_key(RotateKeyRequest) -> RotateKeyResponse;
    revoke_key(RevokeKeyRequest) -> RevokeKeyResponse;
}

struct Fixture {
    folder: tempfile::TempDir,
    books: Books,
    stripe: Stub,
    router: FakeRouter,
    worker: Arc<Worker>,
    url: String,
}

impl Fixture {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let stream = Stream::open(folder.path()).unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        let books = Books::alone(ledger, stream, Default::default()).unwrap();
        let (stub, stripe) = stub::start(Vec::new(), 10_000).await;
        let sender = Arc::new(Sender::new(stripe, books.clone()));
        let router = FakeRouter::default();
        router
            .suspended
            .lock()
            .unwrap()
            .insert("acme".to_owned(), false);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = RouterSettings {
            url: format!("http://{}", listener.local_addr().unwrap()),
            token: Some("t0ken".to_owned()),
            tls: None,
        };
        let services = tonic::service::Routes::new(TenantsServer::new(router.clone()));
        tokio::spawn(async move {
            axum::serve(listener, services.into_axum_router())
                .await
                .unwrap()
        });
        let policy = Policy {
            on_payment_failed: OnPaymentFailed::Suspend,
            after_attempts: NonZeroU32::new(2).unwrap(),
            on_uncollectible: OnUncollectible::Keep,
        };
        let wake = Arc::new(Notify::new());
        let worker = Worker {
            books: books.clone(),
            sender,
            dunning: Some((policy, Router::new(&settings).unwrap())),
            wake: wake.clone(),
            patience: PATIENCE,
        };
        let door = Door {
            secrets: vec!["whsec_0".to_owned(), SECRET.to_owned()],
            books: books.clone(),
            wake,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}{PATH}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes(door)).await.unwrap() });
        Self {
            folder,
            books,
            stripe: stub,
            router,
            worker: Arc::new(worker),
            url,
        }
    }

    /// Another process's worker, which deals with the same.
    fn another(&self) -> Worker {
        Worker {
            books: self.books.clone(),
            sender: self.worker.sender.clone(),
            dunning: self.worker.dunning.clone(),
            wake: Arc::default(),
            patience: self.worker.patience,
        }
    }

    /// Has the worker deal with what is due, up to that call of the router's.
    async fn stopped_at(&self, call: &'static str) -> (Gate, tokio::task::JoinHandle<()>) {
        let gate = self.router.stop_at(call);
        let worker = Arc::clone(&self.worker);
        let task = tokio::spawn(async move { worker.handle_due().await });
        gate.reached.notified().await;
        (gate, task)
    }

    async fn post(&self, body: &str, signature: Option<String>) -> (u16, String) {
        let mut request = reqwest::Client::new().post(&self.url).body(body.to_owned());
        if let Some(signature) = signature {
            request = request.header("stripe-signature", signature);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn event(&self, id: &str, kind: &str, invoice: &str) {
        let body = format!(
            r#"{{"id":"{id}","object":"event","type":"{kind}","data":{{"object":{{"id":"{invoice}"}}}}}}"#
        );
        let signature = sign(SECRET, now_ms() / 1_000, body.as_bytes());
        assert_eq!(self.post(&body, Some(signature)).await.0, 200);
    }

    fn invoice(&self, id: &str, status: &str, attempts: u32) {
        let body = format!(
            r#"{{"id":"{id}","customer":"cus_1","status":"{status}","attempt_count":{attempts},
                "period_start":0,"period_end":1}}"#
        );
        let path = format!("/v1/invoices/{id}");
        self.stripe
            .objects
            .lock()
            .unwrap()
            .insert(path, good(&body));
    }

    async fn billing(&self) -> Billing {
        self.books.with(|l| l.billing()).await.unwrap()
    }

    fn suspended(&self) -> bool {
        self.router.suspended.lock().unwrap()["acme"]
    }

    fn changes(&self) -> usize {
        self.router.changes.lock().unwrap().len()
    }
}

#[tokio::test]
async fn only_what_stripe_signed_is_taken() {
    let fixture = Fixture::start().await;
    let now_s = now_ms() / 1_000;
    let good =
        r#"{"id":"e","object":"event","type":"invoice.paid","data":{"object":{"id":"in_1"}}}"#;
    let other =
        r#"{"id":"f","object":"event","type":"customer.created","data":{"object":{"id":"cus_1"}}}"#;
    let large = "x".repeat(BODY_MAX_BYTES + 1);
    let signed = |body: &str, secret: &str, at: i64| Some(sign(secret, at, body.as_bytes()));
    for (body, signature, status, names) in [
        (good, None, 400, "stripe-signature: is missing"),
        (good, Some("x".to_owned()), 400, "stripe-signature"),
        (good, signed(good, "whsec_2", now_s), 400, "secrets_env"),
        (good, signed(other, SECRET, now_s), 400, "secrets_env"),
        (good, signed(good, SECRET, now_s - 400), 400, "at most 300"),
        ("{}", signed("{}", SECRET, now_s), 400, "body"),
        (&large, signed(&large, SECRET, now_s), 413, "262144"),
        (other, signed(other, SECRET, now_s), 200, "ignored"),
        (good, signed(good, SECRET, now_s), 200, "taken"),
        (good, signed(good, "whsec_0", now_s), 200, "known"),
    ] {
        let (found, text) = fixture.post(body, signature).await;
        assert_eq!(found, status, "{text}");
        assert!(text.contains(names), "{text} should say {names}");
        assert!(!text.contains(SECRET));
    }
    assert_eq!(fixture.billing().await.waiting, 1);
}

#[tokio::test]
async fn who_does_not_pay_is_suspended_until_all_is_paid() {
    let fixture = Fixture::start().await;
    let check = async |kind: &str, id: &str, invoice: &str, suspended: bool, changes: usize| {
        fixture.event(id, kind, invoice).await;
        fixture.worker.handle_due().await;
        assert_eq!(fixture.suspended(), suspended, "{id}");
        assert_eq!(fixture.changes(), changes, "{id}");
        assert_eq!(fixture.billing().await.waiting, 0, "{id}");
    };
    // Not yet the second attempt.
    fixture.invoice("in_1", "open", 1);
    check("invoice.payment_failed", "evt_1", "in_1", false, 0).await;
    fixture.invoice("in_1", "open", 2);
    check("invoice.payment_failed", "evt_2", "in_1", true, 1).await;
    check("invoice.payment_failed", "evt_2", "in_1", true, 1).await;
    fixture.invoice("in_2", "open", 3);
    check("invoice.payment_failed", "evt_3", "in_2", true, 1).await;
    let listed = fixture.billing().await.suspensions;
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].hold.as_str(), listed[0].invoices.len()),
        ("ours", 2)
    );
    fixture.invoice("in_1", "paid", 3);
    check("invoice.paid", "evt_4", "in_1", true, 1).await;
    // Late, and no longer true: the invoice is looked at.
    check("invoice.payment_failed", "evt_5", "in_1", true, 1).await;
    fixture.invoice("in_2", "void", 3);
    check("invoice.voided", "evt_6", "in_2", false, 2).await;
    check("invoice.payment_failed", "evt_7", "in_2", false, 2).await;
    assert!(fixture.billing().await.suspensions.is_empty());
}

#[tokio::test]
async fn whom_an_operator_suspended_nobody_else_resumes() {
    let fixture = Fixture::start().await;
    fixture
        .router
        .suspended
        .lock()
        .unwrap()
        .insert("acme".to_owned(), true);
    fixture.invoice("in_1", "open", 2);
    fixture
        .event("evt_1", "invoice.payment_failed", "in_1")
        .await;
    fixture.worker.handle_due().await;
    assert_eq!(fixture.billing().await.suspensions[0].hold, "operators");
    fixture.invoice("in_1", "paid", 2);
    fixture.event("evt_2", "invoice.paid", "in_1").await;
    fixture.worker.handle_due().await;
    assert_eq!((fixture.suspended(), fixture.changes()), (true, 0));
}

#[tokio::test]
async fn what_is_away_is_asked_again_and_what_is_unknown_is_not() {
    let fixture = Fixture::start().await;
    fixture.invoice("in_1", "open", 2);
    fixture.router.away.store(true, Ordering::SeqCst);
    fixture
        .event("evt_1", "invoice.payment_failed", "in_1")
        .await;
    fixture.worker.handle_due().await;
    let billing = fixture.billing().await;
    assert_eq!(billing.waiting, 1);
    let problem = billing.problem.unwrap();
    assert!(
        problem.contains("Unavailable") && problem.contains("dunning.router.url"),
        "{problem}"
    );
    // Its pause is a second, however long this takes; another event does not wait for it.
    let file = fixture.folder.path().join("ledger.db");
    let longer = "UPDATE webhook SET not_before_ms = not_before_ms + 3600000 WHERE id = 'evt_1'";
    let changed = rusqlite::Connection::open(file).unwrap();
    assert_eq!(changed.execute(longer, []).unwrap(), 1);
    fixture.router.away.store(false, Ordering::SeqCst);
    fixture.router.suspended.lock().unwrap().clear();
    fixture
        .event("evt_2", "invoice.payment_failed", "in_1")
        .await;
    fixture.worker.handle_due().await;
    let billing = fixture.billing().await;
    assert_eq!((billing.waiting, billing.suspensions.len()), (1, 1));
    let suspension = &billing.suspensions[0];
    assert_eq!(suspension.hold, "unknown");
    assert!(
        suspension
            .problem
            .as_deref()
            .unwrap()
            .contains("does not know")
    );
    // The tenant is made: the event that waits suspends it.
    fixture
        .router
        .suspended
        .lock()
        .unwrap()
        .insert("acme".to_owned(), false);
    let later = fixture
        .books
        .with(|l| l.next_webhook(i64::MAX))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((later.id.as_str(), later.tries), ("evt_1", 1));
    fixture
        .event("evt_3", "invoice.payment_failed", "in_1")
        .await;
    fixture.worker.handle_due().await;
    assert!(fixture.suspended());
    // No such invoice, another's invoice: said once, and done with.
    fixture.event("evt_4", "invoice.paid", "in_9").await;
    fixture.invoice("in_8", "open", 9);
    let body = fixture.stripe.objects.lock().unwrap()["/v1/invoices/in_8"]
        .2
        .replace("cus_1", "cus_9");
    fixture
        .stripe
        .objects
        .lock()
        .unwrap()
        .insert("/v1/invoices/in_8".to_owned(), good(&body));
    fixture
        .event("evt_5", "invoice.payment_failed", "in_8")
        .await;
    fixture.worker.handle_due().await;
    assert_eq!(fixture.billing().await.waiting, 1);
}

#[tokio::test]
async fn an_error_report_is_fetched_and_kept() {
    let fixture = Fixture::start().await;
    let meters = r#"{"has_more":false,"data":[{"id":"mtr_1","event_name":"calls","status":"active",
        "default_aggregation":{"formula":"sum"},
        "customer_mapping":{"event_payload_key":"stripe_customer_id","type":"by_id"},
        "value_settings":{"event_payload_key":"value"}}]}"#;
    let event = format!(
        r#"{{"id":"evt_1","type":"{METER_ERRORS}","related_object":{{"id":"mtr_1","type":"billing.meter"}},
        "data":{{"developer_message_summary":"There is 1 invalid event","reason":{{"error_count":1,
        "error_types":[{{"code":"meter_event_customer_not_found","error_count":1,"sample_errors":[
        {{"error_message":"no","request":{{"identifier":"weir_1"}}}}]}}]}}}}}}"#
    );
    let body = format!(
        r#"{{"id":"evt_1","object":"v2.core.event","type":"{METER_ERRORS}",
            "related_object":{{"id":"mtr_1","type":"billing.meter"}}}}"#
    );
    let signature = sign(SECRET, now_ms() / 1_000, body.as_bytes());
    assert_eq!(fixture.post(&body, Some(signature)).await.0, 200);
    // Stripe is away at first.
    let path = "/v2/core/events/evt_1".to_owned();
    let no: &[_] = &[("stripe-should-retry", "false")];
    fixture
        .stripe
        .objects
        .lock()
        .unwrap()
        .insert(path.clone(), (503, no, String::new()));
    fixture.worker.handle_due().await;
    assert_eq!(fixture.billing().await.waiting, 1);
    fixture.stripe.objects.lock().unwrap().extend([
        (path, good(&event)),
        ("/v1/billing/meters".to_owned(), good(meters)),
    ]);
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    fixture.worker.handle_due().await;
    let billing = fixture.billing().await;
    assert_eq!((billing.waiting, billing.meter_errors.len()), (0, 1));
    let error = &billing.meter_errors[0];
    assert_eq!(
        (error.meter_id.as_str(), error.identifiers.len()),
        ("mtr_1", 1)
    );
}
