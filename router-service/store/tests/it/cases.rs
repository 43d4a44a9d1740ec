//! What holds for every store.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use weir_router_core::quota::{Ask, Granted};
use weir_router_store::{MemoryQuota, QuotaStore};

use crate::{
    asks::{ask, ask_in, closing, granted, is_fenced, limit, of_class, pass, quota},
    server::Server,
};

macro_rules! over_both {
    ($($case:ident),* $(,)?) => {
        mod memory {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(super::MemoryQuota::new().unwrap()).await;
                }
            )*
        }

        mod redis {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let server = super::Server::start();
                    super::$case(super::quota(&server).await).await;
                }
            )*
        }
    };
}

over_both![
    a_lease_is_half_of_what_is_free_and_the_last_ones_come_singly,
    the_same_id_is_one_lease,
    what_is_given_back_may_be_taken_again_and_only_once,
    many_leases_are_given_back_at_once,
    what_was_given_up_before_it_was_asked_for_is_not_granted,
    all_limits_hold_at_once_and_classes_are_apart,
    a_lowered_limit_waits_until_enough_is_over,
    a_gateway_that_knew_another_store_fences_the_tenant,
    longer_windows_go_on_without_a_fence,
    an_idle_tenant_may_use_all_of_it_again,
    no_window_holds_more_than_the_limit,
    nor_does_one_that_many_ask_at_once,
];

async fn take(store: &impl QuotaStore, ask: Ask) -> u32 {
    granted(&store.acquire(ask).await.unwrap())
}

async fn a_lease_is_half_of_what_is_free_and_the_last_ones_come_singly(store: impl QuotaStore) {
    let limits = [limit(10, 2)];
    let start = Instant::now();
    let mut taken = Vec::new();
    for n in 1..=7 {
        taken.push(take(&store, ask(n, 100, &limits)).await);
    }
    assert_eq!(taken, [5, 2, 1, 1, 1, 0, 0]);
    let denied = store.acquire(ask(8, 1, &limits)).await.unwrap();
    let Granted::Denied { free_in_ms } = denied.granted else {
        panic!("{denied:?}");
    };
    let state = denied.limits[0];
    assert_eq!(state.remaining, 0);
    assert!(state.reset_ms >= free_in_ms, "{state:?} {free_in_ms}");
    // A window, a life of 250 ms, a part of 10 ms; less what passed meanwhile.
    let passed = u64::try_from(start.elapsed().as_millis()).unwrap();
    assert!(
        free_in_ms <= 2_261 && free_in_ms + passed >= 2_248,
        "{free_in_ms}"
    );
    pass(free_in_ms.saturating_sub(100).max(1)).await;
    if start.elapsed() < Duration::from_millis(2_234) {
        assert_eq!(take(&store, ask(9, 1, &limits)).await, 0);
    }
    pass(150).await;
    assert_eq!(take(&store, ask(10, 1, &limits)).await, 1);
}

async fn the_same_id_is_one_lease(store: impl QuotaStore) {
    let limits = [limit(100, 60)];
    let first = store.acquire(ask(1, 10, &limits)).await.unwrap();
    pass(20).await;
    let again = store.acquire(ask(1, 50, &limits)).await.unwrap();
    assert_eq!((granted(&first), &again.granted), (10, &first.granted));
    assert_eq!(again.limits[0].remaining, 90);
    assert_eq!(again.epoch, first.epoch);
}

async fn what_is_given_back_may_be_taken_again_and_only_once(store: impl QuotaStore) {
    let limits = [limit(100, 2)];
    take(&store, ask(1, 40, &limits)).await;
    let next = Ask {
        closing: vec![closing(1, 10, 1), closing(1, 10, 1)],
        ..ask(2, 1, &limits)
    };
    let next = store.acquire(next).await.unwrap();
    assert_eq!((granted(&next), next.limits[0].remaining), (1, 89));
    let again = vec![("acme".to_owned(), closing(1, 0, 1))];
    store.close(again).await.unwrap();
    let later = store.acquire(ask(3, 1, &limits)).await.unwrap();
    assert_eq!(later.limits[0].remaining, 88);
}

async fn many_leases_are_given_back_at_once(store: impl QuotaStore) {
    let limits = [limit(10_000, 60)];
    let mut given_back = Vec::new();
    for n in 0..600 {
        let tenant = format!("t{}", n % 3);
        let one = Ask {
            tenant: tenant.clone(),
            ..ask(n, 2, &limits)
        };
        assert_eq!(take(&store, one).await, 2);
        given_back.push((tenant, closing(n, 1, 0)));
    }
    store.close(given_back).await.unwrap();
    for (n, tenant) in ["t0", "t1", "t2"].into_iter().enumerate() {
        let one = Ask {
            tenant: tenant.to_owned(),
            ..ask(1_000 + n as u64, 1, &limits)
        };
        let answer = store.acquire(one).await.unwrap();
        assert_eq!(answer.limits[0].remaining, 10_000 - 200 - 1);
    }
}

async fn what_was_given_up_before_it_was_asked_for_is_not_granted(store: impl QuotaStore) {
    let limits = [limit(100, 60)];
    take(&store, ask(1, 1, &limits)).await;
    let given_up = vec![("acme".to_owned(), closing(2, 0, 0))];
    store.close(given_up).await.unwrap();
    let late = store.acquire(ask(2, 10, &limits)).await.unwrap();
    assert_eq!((granted(&late), late.limits[0].remaining), (0, 99));
}

async fn all_limits_hold_at_once_and_classes_are_apart(store: impl QuotaStore) {
    let both = [limit(100, 60), of_class("chat", 3, 60)];
    let mut taken = 0;
    for n in 0..9 {
        taken += take(&store, ask(n, 1, &both)).await;
    }
    assert_eq!(taken, 3);
    let other = [limit(100, 60), of_class("embedding", 5, 60)];
    let answer = store.acquire(ask(20, 1, &other)).await.unwrap();
    let remaining: Vec<u64> = answer.limits.iter().map(|l| l.remaining).collect();
    assert_eq!(remaining, [96, 4]);
}

async fn a_lowered_limit_waits_until_enough_is_over(store: impl QuotaStore) {
    for n in 0..10 {
        take(&store, ask(n, 1, &[limit(10, 2)])).await;
        pass(30).await;
    }
    let lowered = store.acquire(ask(90, 1, &[limit(4, 2)])).await.unwrap();
    let Granted::Denied { free_in_ms } = lowered.granted else {
        panic!("{lowered:?}");
    };
    // Seven of ten must have gone: of those that count, the fourth from the end.
    let last = lowered.limits[0].reset_ms;
    assert!(
        (60..2_000).contains(&(last - free_in_ms)),
        "{free_in_ms} {last}"
    );
}

async fn a_gateway_that_knew_another_store_fences_the_tenant(store: impl QuotaStore) {
    let limits = [limit(10, 1)];
    let start = Instant::now();
    let stranger = ask_in("e0", 1, 1, &limits);
    let fenced = store.acquire(stranger.clone()).await.unwrap();
    let Granted::Fenced { until_in_ms } = fenced.granted else {
        panic!("{fenced:?}");
    };
    assert!((2_900..=3_000).contains(&until_in_ms), "{until_in_ms}");
    pass(500).await;
    // It tells that epoch again and again, which begins no other fence.
    assert!(is_fenced(&store.acquire(stranger.clone()).await.unwrap()));
    assert!(is_fenced(&store.acquire(ask(2, 1, &limits)).await.unwrap()));
    pass(
        3_050
            - u64::try_from(start.elapsed().as_millis())
                .unwrap()
                .min(3_000),
    )
    .await;
    assert_eq!(take(&store, ask(3, 1, &limits)).await, 1);
    assert_eq!(
        take(
            &store,
            Ask {
                id: [9; 16],
                ..stranger
            }
        )
        .await,
        1
    );
}

async fn longer_windows_go_on_without_a_fence(store: impl QuotaStore) {
    assert_eq!(take(&store, ask_in("e0", 1, 1, &[limit(10, 121)])).await, 1);
}

async fn an_idle_tenant_may_use_all_of_it_again(store: impl QuotaStore) {
    let limits = [limit(6, 1)];
    for n in 0..2 {
        let mut taken = 0;
        for m in 0..10 {
            taken += take(&store, ask(n * 100 + m, 1, &limits)).await;
        }
        assert_eq!(taken, 6);
        pass(1_300).await;
    }
}

/// Asks and spends for some windows; no stretch of one holds more than the limit.
/// What is used counts from when it could be used at the earliest to the latest.
async fn no_window_holds_more_than_the_limit(store: impl QuotaStore) {
    let limits = [limit(20, 1)];
    let (start, mut used) = (Instant::now(), Vec::<(Duration, u32)>::new());
    let mut given_back = Vec::new();
    let mut n = 0;
    let mut total = 0;
    // Three and a half windows of 20; more where the machine stands still.
    while start.elapsed() < Duration::from_millis(3_500)
        || (total < 50 && start.elapsed() < Duration::from_secs(20))
    {
        n += 1;
        let sent = Instant::now();
        let one = Ask {
            closing: std::mem::take(&mut given_back),
            ..ask(n, 1 + u32::try_from(n % 5).unwrap(), &limits)
        };
        let answer = store.acquire(one).await.unwrap();
        if let Granted::Lease {
            requests, life_ms, ..
        } = answer.granted
        {
            // Every third lease is held for a while, and given back half used.
            let is_held = n.is_multiple_of(3);
            let mut spent = requests;
            if is_held {
                pass(20).await;
                spent = requests.div_ceil(2);
            }
            let now = Instant::now();
            let age_ms = u64::try_from((now - sent).as_millis()).unwrap() + 1;
            // No gateway spends of one that is over.
            if age_ms >= life_ms {
                spent = 0;
            }
            used.push((now - start, spent));
            total += spent;
            if is_held || spent == 0 {
                given_back.push(closing(n, spent, age_ms));
            }
        }
        pass(7).await;
    }
    assert!(total >= 50, "{total} in three and a half windows of 20");
    for (from, _) in &used {
        let end = *from + Duration::from_millis(998);
        let inside = used.iter().filter(|(t, _)| t >= from && *t < end);
        let sum: u32 = inside.map(|(_, n)| n).sum();
        assert!(sum <= 20, "{sum} from {from:?}");
    }
}

async fn nor_does_one_that_many_ask_at_once(store: impl QuotaStore) {
    let store = Arc::new(store);
    check_many_at_once(&[Arc::clone(&store), store]).await;
}

/// Sixteen tasks take all that they get, over a window that does not end.
pub async fn check_many_at_once<S: QuotaStore>(stores: &[Arc<S>]) {
    let limits = [limit(500, 120), of_class("chat", 300, 60)];
    let tasks = (0..16_u64).map(|task| {
        let store = Arc::clone(&stores[usize::try_from(task).unwrap() % stores.len()]);
        let limits = limits.clone();
        tokio::spawn(async move {
            let (mut held, mut last) = (0, None);
            for n in 0..150 {
                let one = Ask {
                    gateways: 16,
                    closing: Vec::from_iter(last.take()),
                    ..ask(task * 1_000 + n, 3, &limits)
                };
                let got = take(&*store, one).await;
                // Of some, a part is given back.
                let back = u32::from(got > 0 && n % 4 == 0);
                last = (back > 0).then(|| closing(task * 1_000 + n, got - back, 0));
                held += got - back;
            }
            held
        })
    });
    let mut held = 0;
    for task in tasks.collect::<Vec<_>>() {
        held += task.await.unwrap();
    }
    assert!(held <= 300, "{held}");
    assert!(held >= 285, "{held}: what was given back is taken again");
}
