//! Budgets: one body of cases over both stores, and what concerns each alone.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use weir_router_core::budget::{
    Ask, Bounds, Ceiling, Happened, Held, Mail, Progress, Settle, Standing,
};
use weir_router_store::{BudgetStore, RedisBudget};
use weir_wire::ids::{RequestId, TenantId};

use crate::{asks::settings, server::Server};

mod cases;
mod loss;
mod redis_alone;
mod sqlite_alone;

/// How long is waited for what must come; it ends as soon as it came.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

pub fn acme() -> TenantId {
    tenant("acme")
}

pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

static IDS: AtomicU64 = AtomicU64::new(0);

/// Another one each time, minted then.
pub fn id_of(time_ms: u64) -> RequestId {
    let n = IDS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let process = std::process::id().to_be_bytes();
    let mut random = [0; 10];
    random[..2].copy_from_slice(&process[2..]);
    random[2..].copy_from_slice(&n);
    RequestId::mint(time_ms, random)
}

pub fn id() -> RequestId {
    id_of(now_ms())
}

pub fn ask(amount: u64) -> Ask {
    Ask {
        tenant: acme(),
        id: id(),
        amount,
        not_from: None,
        bounds: Bounds::default(),
        tokens: 0,
        life_ms: 60_000,
        progress: Progress::default(),
    }
}

pub fn ceiling(micros: u64) -> Option<Ceiling> {
    Some(Ceiling {
        micros,
        overage: false,
    })
}

pub fn under(micros: u64, ask: Ask) -> Ask {
    let bounds = Bounds {
        ceiling: ceiling(micros),
        ..ask.bounds
    };
    Ask { bounds, ..ask }
}

pub fn settle(id: RequestId, micros: u64) -> Settle {
    Settle {
        tenant: acme(),
        id,
        micros,
        tokens: 0,
        ceiling: None,
    }
}

/// Nothing is answered while a router tells a Redis that lost data what it has booked.
pub async fn standing(store: &impl BudgetStore) -> Standing {
    let now = i64::try_from(now_ms()).unwrap();
    let (start, mut why) = (Instant::now(), None);
    while start.elapsed() < PATIENCE {
        match store.standing(&acme(), now).await {
            Ok(standing) => return standing,
            Err(error) => why = Some(error),
        }
        crate::asks::pass(20).await;
    }
    panic!("it does not answer: {why:?}");
}

/// Spend and what is held.
pub async fn money(store: &impl BudgetStore) -> (u64, u64) {
    let standing = standing(store).await;
    (standing.spend, standing.held)
}

pub fn percents(mail: &[Mail]) -> Vec<u8> {
    let percent = |mail: &Mail| match mail.what {
        Happened::Reached { percent, .. } => Some(percent),
        Happened::Swept { .. } => None,
    };
    mail.iter().filter_map(percent).collect()
}

/// Connects a router whose own totals are in that file.
pub async fn router(server: &Server, folder: &Path, name: &str) -> RedisBudget {
    let end = Instant::now() + PATIENCE;
    loop {
        // The file is given up a moment after the store was dropped.
        match RedisBudget::connect(&settings(server.url()), &folder.join(name)).await {
            Ok(store) => return store,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        crate::asks::pass(20).await;
    }
}

/// Asks until money is held again.
pub async fn wait_until_open(store: &impl BudgetStore) {
    let (start, mut why) = (Instant::now(), None);
    while start.elapsed() < PATIENCE {
        let probe = Ask {
            tenant: tenant("probe"),
            ..ask(1)
        };
        match store.hold(probe.clone()).await {
            Ok(_) => {
                let over = Settle {
                    tenant: probe.tenant,
                    ..settle(probe.id, 0)
                };
                store.settle(over).await.unwrap();
                return;
            }
            Err(error) => why = Some(error),
        }
        crate::asks::pass(20).await;
    }
    panic!("it does not recover: {why:?}");
}

/// Many hold and settle at once; what is spent and held never passes the ceiling, and
/// all that was settled is spent in the end.
pub async fn check_ceiling<S: BudgetStore>(stores: &[std::sync::Arc<S>], most: u64) {
    let tasks = (0..16_u64).map(|task| {
        let store = std::sync::Arc::clone(&stores[usize::try_from(task).unwrap() % stores.len()]);
        tokio::spawn(async move {
            let (mut spent, mut held) = (0, 0);
            for n in 0..60 {
                let amount = 1 + (task * 31 + n * 17) % 40;
                let one = under(most, ask(amount));
                let (outcome, standing) = store.hold(one.clone()).await.unwrap();
                if outcome != Held::Held {
                    continue;
                }
                assert!(standing.spend + standing.held <= most, "{standing:?}");
                held += 1;
                let cost = amount / 3;
                let raised = store.raise(&acme(), one.id, 1, 5, ceiling(most)).await;
                let (_, standing) = raised.unwrap();
                assert!(standing.spend + standing.held <= most, "{standing:?}");
                for _ in 0..=n % 2 {
                    store.settle(settle(one.id, cost)).await.unwrap();
                }
                spent += cost;
            }
            (spent, held)
        })
    });
    let (mut spent, mut held) = (0, 0);
    for task in tasks.collect::<Vec<_>>() {
        let (its_spent, its_held) = task.await.unwrap();
        spent += its_spent;
        held += its_held;
    }
    assert!(held > 20, "{held}");
    for store in stores {
        assert_eq!(money(&**store).await, (spent, 0));
    }
}
