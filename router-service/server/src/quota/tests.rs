//! The quota service as gateways and Envoy see it, over a store in memory that
//! may be away.

mod envoy;
mod grpc;
mod http;

use std::sync::atomic::{AtomicBool, Ordering};

use tonic::{metadata::MetadataValue, transport::Channel};
use weir_router_core::{
    directory::file::File,
    quota::{Answer, Ask, Closing},
};
use weir_router_store::{MemoryQuota, Unavailable};
use weir_wire::proto::quota::{AcquireRequest, CloseRequest, ClosedLease};

use super::*;
use crate::callout::tests::TOKEN;

const PLANS: &str = r#"{
    "starter":{"tiers":[],"limits":[{"requests":3,"window_s":60}]},
    "pro":{"tiers":[],"limits":[{"requests":100,"window_s":3600},{"requests":5,"window_s":1,"class":"chat"}]},
    "free":{"tiers":[]}}"#;

const DIRECTORY: &str =
    "version: 1\ntenants:\n  - {id: own, plan: starter, limits: [{requests: 9, window_s: 7}]}\n";

/// A store that may be away.
struct Flaky {
    memory: MemoryQuota,
    is_away: Arc<AtomicBool>,
}

impl Flaky {
    fn here(&self) -> Result<&MemoryQuota, Unavailable> {
        let why = "a test's".to_owned();
        match self.is_away.load(Ordering::Relaxed) {
            true => Err(Unavailable { why }),
            false => Ok(&self.memory),
        }
    }
}

impl QuotaStore for Flaky {
    async fn acquire(&self, ask: Ask) -> Result<Answer, Unavailable> {
        self.here()?.acquire(ask).await
    }

    async fn close(&self, closing: Vec<(String, Closing)>) -> Result<(), Unavailable> {
        self.here()?.close(closing).await
    }
}

/// Everything on the port, and whether the store is away.
async fn service() -> (Router, Arc<AtomicBool>) {
    let is_away = Arc::new(AtomicBool::new(false));
    let store = Flaky {
        memory: MemoryQuota::new().unwrap(),
        is_away: Arc::clone(&is_away),
    };
    let plans = Plans::new(&serde_json::from_str(PLANS).unwrap());
    let tenants = Tenants::of(&File::parse(DIRECTORY).unwrap());
    let tenants = watch::channel(Arc::new(tenants)).1;
    let service = Service::new(store, plans, tenants);
    let (_, routes) = routes(service, TOKEN, "weir".to_owned()).await.unwrap();
    (routes, is_away)
}

/// The same on a port, and a connection to it. Ends with the test.
async fn connected() -> (Channel, Arc<AtomicBool>) {
    let (routes, is_away) = service().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(weir_process::serve(
        listener,
        routes,
        std::future::pending(),
        STOP_GRACE,
    ));
    let channel = Channel::from_shared(url).unwrap().connect().await;
    (channel.unwrap(), is_away)
}

fn with_token<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let token = MetadataValue::try_from(format!("Bearer {TOKEN}")).unwrap();
    request.metadata_mut().insert("authorization", token);
    request
}

fn acquire(id: u8) -> AcquireRequest {
    AcquireRequest {
        tenant: "acme".to_owned(),
        plan: "starter".to_owned(),
        acquire_id: vec![id; 16],
        wanted: 1,
        life_ms: 2_000,
        ..Default::default()
    }
}

/// Gives back the lease of that id, unspent.
fn close(id: u8) -> CloseRequest {
    CloseRequest {
        closed: vec![ClosedLease {
            tenant: "acme".to_owned(),
            lease_id: vec![id; 16],
            spent: 0,
            age_ms: 0,
        }],
    }
}
