//! Tests of the way from a spool to an aggregator that comes and goes.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};

use weir_wire::proto::usage::PublishRequest;

use super::*;

/// How long is waited for what must come; it ends as soon as it came.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Aggregator {
    is_down: AtomicBool,
    batches: Mutex<Vec<PublishRequest>>,
}

impl Aggregator {
    async fn start(is_down: bool) -> (Arc<Self>, String) {
        let aggregator = Arc::new(Self::default());
        aggregator.is_down.store(is_down, Ordering::SeqCst);
        let take = |State(aggregator): State<Arc<Self>>, body: Bytes| async move {
            if aggregator.is_down.load(Ordering::SeqCst) {
                return Err(StatusCode::SERVICE_UNAVAILABLE);
            }
            let batch = PublishRequest::decode(body).map_err(|_| StatusCode::BAD_REQUEST)?;
            let accepted = u32::try_from(batch.events.len()).unwrap_or(u32::MAX);
            aggregator.batches.lock().unwrap().push(batch);
            let answer = PublishResponse {
                accepted,
                quarantined: 0,
            };
            Ok(answer.encode_to_vec())
        };
        let routes = Router::new()
            .route(PUBLISH_PATH, post(take))
            .with_state(aggregator.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, routes).into_future());
        (aggregator, url)
    }

    fn ids(&self) -> Vec<String> {
        let batches = self.batches.lock().unwrap();
        let events = batches.iter().flat_map(|batch| &batch.events);
        events.map(|event| event.event_id.clone()).collect()
    }
}

fn event(n: usize) -> UsageEvent {
    UsageEvent {
        event_id: n.to_string(),
        ..UsageEvent::default()
    }
}

fn spool(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("spool.db")
}

fn http() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().build().unwrap()
}

#[tokio::test]
async fn a_stop_sends_what_waits_in_batches() {
    let folder = tempfile::tempdir().unwrap();
    let (aggregator, url) = Aggregator::start(false).await;
    let (witnesses, sender) = open(&spool(&folder), 1 << 20, &url, "token", http()).unwrap();
    let closing = CancellationToken::new();
    let sending = tokio::spawn(sender.run(closing.clone()));
    let expected: Vec<String> = (0..1_200).map(|n| n.to_string()).collect();
    for n in 0..1_200 {
        witnesses.tell(&event(n));
    }
    closing.cancel();
    sending.await.unwrap();
    assert_eq!(aggregator.ids(), expected);
    assert!(aggregator.batches.lock().unwrap().len() < 20);
    assert!(witnesses.spool().is_empty());
}

#[tokio::test]
async fn what_an_aggregator_that_is_down_did_not_take_goes_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (aggregator, url) = Aggregator::start(true).await;
    let (witnesses, sender) = open(&spool(&folder), 1 << 20, &url, "token", http()).unwrap();
    let sending = tokio::spawn(sender.run(CancellationToken::new()));
    assert!(witnesses.keep(&event(1)).await);
    witnesses.tell(&event(2));
    tokio::time::sleep(Duration::from_millis(60)).await;
    sending.abort();
    let _ = sending.await;
    drop(witnesses);
    assert!(aggregator.ids().is_empty());

    aggregator.is_down.store(false, Ordering::SeqCst);
    let start = std::time::Instant::now();
    let (witnesses, sender) = loop {
        // What was read as it was aborted may still have the file.
        match open(&spool(&folder), 1 << 20, &url, "token", http()) {
            Ok(opened) => break opened,
            Err(error) => assert!(start.elapsed() < PATIENCE, "{error:#}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let waiting = witnesses.waiting(0).await.unwrap();
    let ids: Vec<&str> = waiting.iter().map(|(_, e)| e.event_id.as_str()).collect();
    assert_eq!(ids, ["1", "2"]);
    assert!(witnesses.waiting(waiting[1].0).await.unwrap().is_empty());
    let closing = CancellationToken::new();
    let sending = tokio::spawn(sender.run(closing.clone()));
    // By itself, without a further event and without a stop.
    let start = std::time::Instant::now();
    while !witnesses.spool().is_empty() && start.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(aggregator.ids(), ["1", "2"]);
    closing.cancel();
    sending.await.unwrap();
}

#[tokio::test]
async fn a_full_spool_drops_the_newest_and_counts_them() {
    let folder = tempfile::tempdir().unwrap();
    let (_, url) = Aggregator::start(true).await;
    let (witnesses, _) = open(&spool(&folder), 4, &url, "token", http()).unwrap();
    assert!(witnesses.keep(&event(1)).await);
    witnesses.tell(&event(2));
    assert!(!witnesses.keep(&event(3)).await);
    let spool = witnesses.spool();
    assert_eq!((spool.len(), spool.refused()), (1, 2));
}

#[test]
fn a_batch_is_a_publish_request() {
    let events: Vec<UsageEvent> = (0..200).map(event).collect();
    let records: Vec<Record> = events
        .iter()
        .map(|event| Record {
            number: 1,
            bytes: event.encode_to_vec(),
        })
        .collect();
    let request = PublishRequest::decode(publish_request(&records)).unwrap();
    assert_eq!(request.events, events);
}
