//! What holds for every store.

use std::sync::Arc;

use weir_router_core::budget::{
    Ask, Bounds, Happened, Held, Month, Progress, Refused, Settle, Settled,
};
use weir_router_store::{BudgetStore, SqliteBudget};

use super::{
    acme, ask, ceiling, check_ceiling, id_of, money, percents, router, settle, standing, tenant,
    under, wait_until_open,
};
use crate::{asks::pass, server::Server};

macro_rules! over_both {
    ($($case:ident),* $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let folder = tempfile::tempdir().unwrap();
                    let path = folder.path().join("budget.sqlite");
                    super::$case(super::SqliteBudget::open(&path).unwrap()).await;
                }
            )*
        }

        mod redis {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let folder = tempfile::tempdir().unwrap();
                    let server = super::Server::start();
                    let store = super::router(&server, folder.path(), "r1").await;
                    super::wait_until_open(&store).await;
                    super::$case(store).await;
                }
            )*
        }
    };
}

over_both![
    what_is_held_becomes_what_was_spent,
    a_repeated_call_changes_nothing,
    a_raise_counts_once_and_only_within_the_ceiling,
    reasons_come_in_their_order,
    a_hold_of_which_nothing_is_heard_is_swept_and_told,
    alerts_come_once_each_at_the_boundary,
    months_are_apart_and_so_are_tenants,
    tokens_are_put_right_by_the_settle,
    large_amounts_stay_exact,
    many_at_once_never_pass_the_ceiling,
];

async fn what_is_held_becomes_what_was_spent(store: impl BudgetStore) {
    let one = under(1_000, ask(400));
    let (held, after) = store.hold(one.clone()).await.unwrap();
    assert_eq!((held, after.spend, after.held), (Held::Held, 0, 400));
    assert_eq!(after.in_flight, 1);
    let (settled, after) = store.settle(settle(one.id, 150)).await.unwrap();
    assert_eq!((settled, after.spend, after.held), (Settled::Held, 150, 0));
    assert_eq!(after.in_flight, 0);
    let (held, _) = store.hold(under(1_000, ask(851))).await.unwrap();
    assert_eq!(held, Held::Refused(Refused::Budget));
    let (held, _) = store.hold(under(1_000, ask(850))).await.unwrap();
    assert_eq!(held, Held::Held);
    assert_eq!(money(&store).await, (150, 850));
}

async fn a_repeated_call_changes_nothing(store: impl BudgetStore) {
    let one = under(1_000, ask(400));
    store.hold(one.clone()).await.unwrap();
    let (again, after) = store.hold(one.clone()).await.unwrap();
    assert_eq!((again, after.held), (Held::Duplicate, 400));
    store.settle(settle(one.id, 100)).await.unwrap();
    let (again, after) = store.settle(settle(one.id, 300)).await.unwrap();
    assert_eq!((again, after.spend), (Settled::Again, 100));
    let (again, after) = store.hold(one.clone()).await.unwrap();
    assert_eq!((again, after.held), (Held::Duplicate, 0));
    let acme = acme();
    let renewed = store.renew(&acme, one.id, 1_000, Progress::default());
    assert!(!renewed.await.unwrap());
    let orphan = id_of(super::now_ms());
    let (settled, after) = store.settle(settle(orphan, 7)).await.unwrap();
    assert_eq!((settled, after.spend), (Settled::Orphan, 107));
    let (settled, after) = store.settle(settle(orphan, 7)).await.unwrap();
    assert_eq!((settled, after.spend), (Settled::Again, 107));
}

async fn a_raise_counts_once_and_only_within_the_ceiling(store: impl BudgetStore) {
    let one = under(1_000, ask(400));
    store.hold(one.clone()).await.unwrap();
    let tenant = acme();
    let raise = |step, by| store.raise(&tenant, one.id, step, by, ceiling(1_000));
    assert_eq!(raise(1, 500).await.unwrap().0, Held::Held);
    let (again, after) = raise(1, 500).await.unwrap();
    assert_eq!((again, after.held), (Held::Duplicate, 900));
    let (refused, _) = raise(2, 101).await.unwrap();
    assert_eq!(refused, Held::Refused(Refused::Budget));
    store.settle(settle(one.id, 1)).await.unwrap();
    let (gone, after) = raise(2, 1).await.unwrap();
    assert_eq!((gone, after.held), (Held::Refused(Refused::Gone), 0));
}

async fn reasons_come_in_their_order(store: impl BudgetStore) {
    store
        .settle(settle(id_of(super::now_ms()), 900))
        .await
        .unwrap();
    let first = Ask {
        tokens: 90,
        ..ask(0)
    };
    store.hold(first).await.unwrap();
    let bounds = |in_flight, tokens| Bounds {
        ceiling: ceiling(1_000),
        tokens_per_minute: Some(tokens),
        in_flight: Some(in_flight),
    };
    let refused = async |bounds, not_from| {
        let one = Ask {
            bounds,
            not_from,
            tokens: 11,
            ..ask(101)
        };
        match store.hold(one).await.unwrap().0 {
            Held::Refused(why) => why,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(bounds(1, 100), Some(900)).await, Refused::InFlight);
    let Refused::Tokens { retry_ms } = refused(bounds(2, 100), Some(900)).await else {
        panic!("tokens");
    };
    let retry_ms = retry_ms.unwrap();
    assert!((50_000..=61_000).contains(&retry_ms), "{retry_ms}");
    let never = refused(bounds(2, 10), None).await;
    assert_eq!(never, Refused::Tokens { retry_ms: None });
    assert_eq!(refused(bounds(2, 101), Some(900)).await, Refused::Near);
    assert_eq!(refused(bounds(2, 101), Some(901)).await, Refused::Budget);
    let free = Ask {
        bounds: bounds(2, 101),
        ..ask(0)
    };
    assert_eq!(store.hold(free).await.unwrap().0, Held::Held);
}

async fn a_hold_of_which_nothing_is_heard_is_swept_and_told(store: impl BudgetStore) {
    // As large as notes become, and with all bytes in it.
    let note: Vec<u8> = (0..=255_u8).cycle().take(8 * 1_024).collect();
    let one = Ask {
        life_ms: 300,
        tokens: 50,
        ..under(1_000, ask(400))
    };
    store.hold(one.clone()).await.unwrap();
    let other = under(1_000, ask(10));
    store.hold(other).await.unwrap();
    let progress = Progress {
        micros: 120,
        tokens: 30,
        note,
    };
    let acme = acme();
    let renewed = store.renew(&acme, one.id, 600, progress.clone());
    assert!(renewed.await.unwrap());
    pass(400).await;
    assert_eq!(store.sweep().await.unwrap(), 0, "it was renewed");
    pass(300).await;
    assert_eq!(standing(&store).await.in_flight, 1, "expired, not swept");
    assert_eq!(store.sweep().await.unwrap(), 1);
    assert_eq!(store.sweep().await.unwrap(), 0);
    let after = standing(&store).await;
    assert_eq!((after.spend, after.held, after.tokens), (120, 10, 30));
    assert!(after.has_mail);
    let mail = store.mail(10).await.unwrap();
    let what = Happened::Swept {
        id: one.id,
        progress,
    };
    assert_eq!(mail.len(), 1);
    assert_eq!((&mail[0].tenant, &mail[0].what), (&acme, &what));
    assert_eq!(store.acknowledge(&mail).await.unwrap(), [true]);
    assert_eq!(store.acknowledge(&mail).await.unwrap(), [false]);
    assert!(store.mail(10).await.unwrap().is_empty());
    let late = Settle {
        tokens: 70,
        ..settle(one.id, 90)
    };
    let (settled, after) = store.settle(late).await.unwrap();
    assert_eq!(
        (settled, after.spend, after.tokens),
        (Settled::Swept, 90, 70)
    );
    assert!(!after.has_mail);
}

async fn alerts_come_once_each_at_the_boundary(store: impl BudgetStore) {
    let spend = async |micros, most| {
        let one = Settle {
            ceiling: ceiling(most),
            ..settle(id_of(super::now_ms()), micros)
        };
        store.settle(one).await.unwrap();
        percents(&store.mail(10).await.unwrap())
    };
    assert_eq!(spend(500, 1_001).await, [0_u8; 0]);
    assert_eq!(spend(1, 1_001).await, [50]);
    pass(2).await;
    assert_eq!(spend(399, 1_001).await, [50, 80]);
    assert_eq!(spend(0, 90_000).await, [50, 80]);
    pass(2).await;
    assert_eq!(spend(101, 1_001).await, [50, 80, 90, 100]);
    let mail = store.mail(10).await.unwrap();
    let Happened::Reached { spend: at, .. } = mail[3].what else {
        panic!("{mail:?}");
    };
    assert_eq!(at, 1_001);
    let there = store.acknowledge(&mail).await.unwrap();
    assert_eq!(there, [true; 4]);
    assert_eq!(spend(5_000, 1_001).await, [0_u8; 0]);
}

async fn months_are_apart_and_so_are_tenants(store: impl BudgetStore) {
    // The end of February 2027.
    let (before, after) = (1_803_859_199_999, 1_803_859_200_000);
    let [old, new] = [before, after].map(|ms| Ask {
        id: id_of(ms),
        ..under(100, ask(100))
    });
    for one in [&old, &new] {
        assert_eq!(store.hold(one.clone()).await.unwrap().0, Held::Held);
    }
    let late = Settle {
        ceiling: ceiling(100),
        ..settle(old.id, 60)
    };
    let (_, standing) = store.settle(late).await.unwrap();
    assert_eq!((standing.spend, standing.held), (60, 0));
    let months: Vec<String> = store
        .mail(10)
        .await
        .unwrap()
        .into_iter()
        .map(|mail| match mail.what {
            Happened::Reached { month, .. } => month.to_string(),
            Happened::Swept { .. } => panic!("swept"),
        })
        .collect();
    assert_eq!(months, ["2027-02"]);
    let march = i64::try_from(after).unwrap();
    assert_eq!(Month::of_ms(march).to_string(), "2027-03");
    let standing = store.standing(&acme(), march).await.unwrap();
    assert_eq!((standing.spend, standing.held), (0, 100));
    let other = store.standing(&tenant("solo"), march).await.unwrap();
    assert_eq!((other.spend, other.held, other.in_flight), (0, 0, 0));
    assert!(!other.has_mail);
}

async fn tokens_are_put_right_by_the_settle(store: impl BudgetStore) {
    let bounds = Bounds {
        tokens_per_minute: Some(100),
        ..Bounds::default()
    };
    let of = |tokens| Ask {
        bounds,
        tokens,
        ..ask(0)
    };
    let one = of(100);
    let (_, after) = store.hold(one.clone()).await.unwrap();
    assert_eq!(after.tokens, 100);
    assert!(after.tokens_free_ms > 59_000 && after.tokens_free_ms <= 61_000);
    assert_eq!(after.tokens_free_ms, after.tokens_reset_ms);
    let (held, _) = store.hold(of(1)).await.unwrap();
    assert!(matches!(held, Held::Refused(Refused::Tokens { .. })));
    let used = Settle {
        tokens: 40,
        ..settle(one.id, 0)
    };
    store.settle(used).await.unwrap();
    assert_eq!(store.hold(of(60)).await.unwrap().0, Held::Held);
    let nothing = Settle {
        tokens: 9,
        ..settle(id_of(super::now_ms()), 0)
    };
    assert_eq!(store.settle(nothing).await.unwrap().1.tokens, 109);
}

async fn large_amounts_stay_exact(store: impl BudgetStore) {
    let most = 1 << 50;
    let one = under(most, ask(u64::MAX));
    assert_eq!(store.hold(one.clone()).await.unwrap().0, Held::Held);
    let (held, after) = store.hold(under(most, ask(1))).await.unwrap();
    assert_eq!((held, after.held), (Held::Refused(Refused::Budget), most));
    store.settle(settle(one.id, most - 1)).await.unwrap();
    let (held, _) = store.hold(under(most, ask(2))).await.unwrap();
    assert_eq!(held, Held::Refused(Refused::Budget));
    let (held, after) = store.hold(under(most, ask(1))).await.unwrap();
    assert_eq!((held, after.spend, after.held), (Held::Held, most - 1, 1));
}

async fn many_at_once_never_pass_the_ceiling(store: impl BudgetStore) {
    let store = Arc::new(store);
    check_ceiling(&[Arc::clone(&store), store], 1_500).await;
}
