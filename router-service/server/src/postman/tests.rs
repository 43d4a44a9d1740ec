//! Tests of the outbox's way out, with receivers that come and go.

use std::{
    collections::HashSet,
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
};

use axum::{Router, extract::State, http::HeaderMap, http::StatusCode, routing::post};
use serde_json::Value;
use weir_router_core::budget::{Ask, Ceiling, Held, Month, Progress, Settle, Settled, Standing};
use weir_router_store::{Unavailable, spool::Spool};
use weir_wire::ids::{RequestId, TenantId};

use super::*;
use crate::{alerts::Webhook, witness};

/// An outbox and nothing else.
#[derive(Default)]
struct Outbox {
    mail: Mutex<VecDeque<Mail>>,
    sweeps: AtomicUsize,
}

fn none<T>() -> Result<T, Unavailable> {
    Err(Unavailable {
        why: "an outbox alone".to_owned(),
    })
}

impl BudgetStore for Outbox {
    async fn hold(&self, _: Ask) -> Result<(Held, Standing), Unavailable> {
        none()
    }

    async fn raise(
        &self,
        _: &TenantId,
        _: RequestId,
        _: u32,
        _: u64,
        _: Option<Ceiling>,
    ) -> Result<(Held, Standing), Unavailable> {
        none()
    }

    async fn renew(
        &self,
        _: &TenantId,
        _: RequestId,
        _: u64,
        _: Progress,
    ) -> Result<bool, Unavailable> {
        none()
    }

    async fn settle(&self, _: Settle) -> Result<(Settled, Standing), Unavailable> {
        none()
    }

    async fn standing(&self, _: &TenantId, _: i64) -> Result<Standing, Unavailable> {
        none()
    }

    async fn sweep(&self) -> Result<usize, Unavailable> {
        self.sweeps.fetch_add(1, Ordering::SeqCst);
        Ok(0)
    }

    async fn mail(&self, most: usize) -> Result<Vec<Mail>, Unavailable> {
        Ok(self
            .mail
            .lock()
            .unwrap()
            .iter()
            .take(most)
            .cloned()
            .collect())
    }

    async fn acknowledge(&self, mail: &[Mail]) -> Result<Vec<bool>, Unavailable> {
        let mut held = self.mail.lock().unwrap();
        let take = |entry: &Mail| {
            let at = held.iter().position(|other| other.id == entry.id);
            at.and_then(|at| held.remove(at)).is_some()
        };
        Ok(mail.iter().map(take).collect())
    }
}

impl Outbox {
    fn push(&self, what: Happened) {
        let mut mail = self.mail.lock().unwrap();
        let id = format!("{}-{}", mail.len(), mail.capacity());
        mail.push_back(Mail {
            id,
            tenant: TenantId::new("acme").unwrap(),
            what,
        });
    }

    fn len(&self) -> usize {
        self.mail.lock().unwrap().len()
    }

    async fn wait_for(&self, length: usize) {
        for _ in 0..1_000 {
            if self.len() == length {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} entries are left, not {length}", self.len());
    }
}

fn reached(percent: u8) -> Happened {
    Happened::Reached {
        month: Month(2026 * 12 + 10),
        percent,
        spend: 80_000_001,
        ceiling: 100_000_000,
    }
}

fn swept(n: u8, note: impl FnOnce(&RequestId) -> Vec<u8>) -> Happened {
    let id = RequestId::mint(1_795_000_000_000, [n; 10]);
    Happened::Swept {
        id,
        progress: Progress {
            micros: 5,
            tokens: 3,
            note: note(&id),
        },
    }
}

fn event(id: &RequestId) -> UsageEvent {
    UsageEvent {
        event_id: format!("{id}/rt"),
        request_id: id.to_string(),
        ..UsageEvent::default()
    }
}

/// What a webhook got.
struct Receiver {
    status: AtomicU16,
    got: Mutex<Vec<(String, Value)>>,
}

impl Receiver {
    async fn start(status: u16) -> (Arc<Self>, String) {
        let receiver = Arc::new(Self {
            status: status.into(),
            got: Mutex::default(),
        });
        let take = |State(receiver): State<Arc<Self>>, headers: HeaderMap, body: String| async move {
            let signature = headers["x-weir-signature"].to_str().unwrap().to_owned();
            let body = serde_json::from_str(&body).unwrap();
            receiver.got.lock().unwrap().push((signature, body));
            StatusCode::from_u16(receiver.status.load(Ordering::SeqCst)).unwrap()
        };
        let routes = Router::new()
            .route("/hook", post(take))
            .with_state(receiver.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, routes).into_future());
        (receiver, url)
    }
}

struct Round {
    outbox: Arc<Outbox>,
    spool: Spool,
    postman: Arc<Postman>,
    stopping: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Round {
    fn new(webhook: Option<&str>, spool_bytes: u64) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool.db");
        let (witnesses, _) = witness::open(
            &path,
            spool_bytes,
            "http://127.0.0.1:1",
            "token",
            http.clone(),
        )
        .unwrap();
        let spool = witnesses.spool().clone();
        let webhook = webhook.map(|url| Webhook::with_key(url.parse().unwrap(), &[7; 32]).unwrap());
        let postman = Postman {
            witnesses,
            alerts: Alerts::new(webhook, http),
            metrics: Metrics::new().unwrap(),
        };
        Self {
            outbox: Arc::default(),
            spool,
            postman: Arc::new(postman),
            stopping: CancellationToken::new(),
            _folder: folder,
        }
    }

    fn start(&self) {
        let (outbox, postman) = (self.outbox.clone(), self.postman.clone());
        let stopping = self.stopping.clone();
        tokio::spawn(async move { postman.run(&*outbox, stopping).await });
    }

    #[track_caller]
    fn check_metric(&self, line: &str) {
        let text = self.postman.metrics.text().unwrap();
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
}

#[tokio::test]
async fn what_was_swept_is_witnessed_as_it_was_prepared() {
    let round = Round::new(None, 1 << 20);
    round.outbox.push(swept(1, |id| event(id).encode_to_vec()));
    // Of another request, and none at all: nothing that could ever be told.
    round.outbox.push(swept(2, |_| {
        event(&RequestId::mint(1, [9; 10])).encode_to_vec()
    }));
    round.outbox.push(swept(3, |_| b"\xff\xff".to_vec()));
    round.start();
    round.outbox.wait_for(0).await;
    let records = round.spool.read(0, 10, 1 << 20).await.unwrap();
    let expected = event(&RequestId::mint(1_795_000_000_000, [1; 10]));
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].bytes, expected.encode_to_vec());
    assert!(round.outbox.sweeps.load(Ordering::SeqCst) > 0);
    round.stopping.cancel();
}

#[tokio::test]
async fn a_witness_that_finds_no_place_stays_in_the_outbox() {
    let round = Round::new(None, 10);
    round.outbox.push(swept(1, |id| event(id).encode_to_vec()));
    let turn = round.postman.deliver_swept(&*round.outbox, 0).await;
    assert!(turn.is_refused && turn.taken == 0 && turn.left == 1);
    assert_eq!(round.outbox.len(), 1);
}

#[tokio::test]
async fn an_alert_is_signed_and_told_until_it_is_taken() {
    let (receiver, url) = Receiver::start(500).await;
    let round = Round::new(Some(&url), 1 << 20);
    round.outbox.push(reached(80));
    // A receiver that is down keeps no witness back.
    for n in 0..100 {
        round.outbox.push(swept(n, |id| event(id).encode_to_vec()));
    }
    round.start();
    round.outbox.wait_for(1).await;
    round.check_metric("weir_router_budget_alerts_total 0");
    receiver.status.store(204, Ordering::SeqCst);
    round.outbox.wait_for(0).await;
    round.check_metric("weir_router_budget_alerts_total 1");
    let got = receiver.got.lock().unwrap().clone();
    assert!(got.len() >= 2, "{got:?}");
    for (signature, body) in &got {
        let created = body["created"].as_i64().unwrap();
        assert!(
            signature.starts_with(&format!("t={created},v1=")),
            "{signature}"
        );
        assert_eq!(body["id"], "budget-acme-2026-11-80");
        assert_eq!(body["type"], "budget.reached");
        let data = serde_json::json!({
            "tenant": "acme", "month": "2026-11", "percent": 80,
            "spend_usd": "80.000001", "ceiling_usd": "100.000000",
        });
        assert_eq!(body["data"], data);
    }
    round.stopping.cancel();
}

#[tokio::test]
async fn many_alerts_that_wait_hide_no_witness() {
    let (_, url) = Receiver::start(503).await;
    let round = Round::new(Some(&url), 1 << 20);
    for _ in 0..1_000 {
        round.outbox.push(reached(50));
    }
    round.outbox.push(swept(1, |id| event(id).encode_to_vec()));
    let mut left = 0;
    for _ in 0..10 {
        left = round.postman.deliver_swept(&*round.outbox, left).await.left;
    }
    assert_eq!((round.outbox.len(), round.spool.len()), (1_000, 1));
}

#[tokio::test]
async fn without_a_webhook_the_log_is_told() {
    let round = Round::new(None, 1 << 20);
    for percent in [50, 80, 90] {
        round.outbox.push(reached(percent));
    }
    let turn = round
        .postman
        .deliver_alerts(&*round.outbox, 0, &mut HashSet::new())
        .await;
    assert_eq!((turn.taken, turn.left), (3, 0));
    round.check_metric("weir_router_budget_alerts_total 3");
    // Another router has it by now.
    let turn = round
        .postman
        .deliver_alerts(&*round.outbox, 0, &mut HashSet::new())
        .await;
    assert_eq!(turn, Turn::default());
}
