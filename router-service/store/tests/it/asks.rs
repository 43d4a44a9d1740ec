//! What the cases ask, and how they read the answers.

use std::{num::NonZeroU32, time::Duration};

use weir_router_core::quota::{Answer, Ask, Closing, Granted, LeaseId, Limit};
use weir_router_store::{QuotaStore, RedisQuota, RedisSettings};

use crate::server::Server;

/// Long enough for a machine that does other things, too.
pub const TIMEOUT: Duration = Duration::from_secs(2);

pub fn limit(requests: u32, window_s: u32) -> Limit {
    of_class("", requests, window_s)
}

pub fn of_class(class: &str, requests: u32, window_s: u32) -> Limit {
    Limit {
        requests: NonZeroU32::new(requests).unwrap(),
        window_s: NonZeroU32::new(window_s).unwrap(),
        class: class.to_owned(),
    }
}

pub fn id(n: u64) -> LeaseId {
    u128::from(n).to_be_bytes()
}

pub fn ask(n: u64, wanted: u32, limits: &[Limit]) -> Ask {
    Ask {
        tenant: "acme".to_owned(),
        limits: limits.to_vec(),
        id: id(n),
        wanted,
        life_ms: 2_000,
        gateways: 1,
        epoch: String::new(),
        closing: Vec::new(),
    }
}

/// Of a gateway that was granted something in that epoch.
pub fn ask_in(epoch: &str, n: u64, wanted: u32, limits: &[Limit]) -> Ask {
    Ask {
        epoch: epoch.to_owned(),
        ..ask(n, wanted, limits)
    }
}

pub fn closing(n: u64, spent: u32, age_ms: u64) -> Closing {
    Closing {
        id: id(n),
        spent,
        age_ms,
    }
}

pub fn granted(answer: &Answer) -> u32 {
    match answer.granted {
        Granted::Lease { requests, .. } => requests,
        _ => 0,
    }
}

pub fn is_fenced(answer: &Answer) -> bool {
    matches!(answer.granted, Granted::Fenced { .. })
}

pub async fn pass(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

pub fn settings(url: String) -> RedisSettings {
    RedisSettings {
        url,
        cluster: false,
        timeout: TIMEOUT,
    }
}

pub async fn quota(server: &Server) -> RedisQuota {
    RedisQuota::connect(&settings(server.url())).await.unwrap()
}

/// Asks until the store answers.
pub async fn answer_of(store: &impl QuotaStore, ask: Ask) -> Answer {
    let mut why = None;
    for _ in 0..100 {
        match store.acquire(ask.clone()).await {
            Ok(answer) => return answer,
            Err(error) => why = Some(error),
        }
        pass(100).await;
    }
    panic!("it does not recover: {why:?}");
}
