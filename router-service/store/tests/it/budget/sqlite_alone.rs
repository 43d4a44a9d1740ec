//! What concerns SQLite alone: who may open the file, and what a kill leaves in it.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use weir_router_core::budget::{Ask, Held, Progress, Settled};
use weir_router_store::{BudgetStore as _, OpenError, SqliteBudget};
use weir_wire::ids::RequestId;

use super::{acme, ask, ceiling, money, percents, settle, standing, under};
use crate::asks::pass;

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("budget.sqlite");
    let store = SqliteBudget::open(&path).unwrap();
    let [kept, settled, expiring] = [100, 200, 300].map(|amount| Ask {
        tokens: 10,
        ..under(1_000, ask(amount))
    });
    let expiring = Ask {
        life_ms: 1,
        progress: Progress {
            micros: 250,
            tokens: 5,
            note: vec![0, 1, 255],
        },
        ..expiring
    };
    for one in [&kept, &settled, &expiring] {
        store.hold(one.clone()).await.unwrap();
    }
    store.settle(settle(settled.id, 150)).await.unwrap();
    store
        .raise(&acme(), kept.id, 3, 11, ceiling(1_000))
        .await
        .unwrap();
    pass(5).await;
    assert_eq!(store.sweep().await.unwrap(), 1);
    let over = settle(super::id(), 200);
    let over = weir_router_core::budget::Settle {
        ceiling: ceiling(1_000),
        ..over
    };
    store.settle(over).await.unwrap();
    let (before, mail) = (standing(&store).await, store.mail(10).await.unwrap());
    assert_eq!((before.spend, before.held), (600, 111));
    assert_eq!((percents(&mail), mail.len()), (vec![50], 2));
    drop(store);

    let store = SqliteBudget::open(&path).unwrap();
    let after = standing(&store).await;
    assert_eq!((after.spend, after.held), (600, 111));
    assert_eq!((after.tokens, after.in_flight), (before.tokens, 1));
    assert_eq!(store.mail(10).await.unwrap(), mail);
    let again = store.raise(&acme(), kept.id, 3, 11, ceiling(1_000)).await;
    assert_eq!(again.unwrap().0, Held::Duplicate);
    let again = store.settle(settle(settled.id, 1)).await.unwrap();
    assert_eq!(again.0, Settled::Again);
    let late = store.settle(settle(expiring.id, 251)).await.unwrap();
    assert_eq!((late.0, late.1.spend), (Settled::Swept, 601));
    assert_eq!(store.acknowledge(&mail).await.unwrap(), [true, true]);
    drop(store);
    let store = SqliteBudget::open(&path).unwrap();
    assert!(store.mail(10).await.unwrap().is_empty());
    assert_eq!(money(&store).await, (601, 111));
}

#[tokio::test]
async fn two_may_not_open_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("budget.sqlite");
    let first = SqliteBudget::open(&path).unwrap();
    let second = SqliteBudget::open(&path).unwrap_err();
    assert!(matches!(second, OpenError::InUse { .. }), "{second}");
    assert!(second.to_string().contains("budget.sqlite is in use"));
    drop(first);
    SqliteBudget::open(&path).unwrap();
}

#[tokio::test]
async fn what_is_none_of_ours_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("budget.sqlite");
    std::fs::write(&path, [b'x'; 4_096]).unwrap();
    let refused = SqliteBudget::open(&path).unwrap_err();
    assert!(matches!(refused, OpenError::File { .. }), "{refused}");
    let missing = SqliteBudget::open(Path::new("/nowhere/at/all")).unwrap_err();
    assert!(missing.to_string().contains("/nowhere/at/all"), "{missing}");
}

/// Where the child below keeps its books.
const PATH: &str = "WEIR_TEST_BUDGET_PATH";

/// Not a test of its own: the one below kills it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the child of the next one"]
async fn child() {
    let Ok(path) = std::env::var(PATH) else {
        return;
    };
    let store = SqliteBudget::open(Path::new(&path)).unwrap();
    let tasks = (0..8_u64).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0.. {
                let one = ask(100);
                store.hold(one.clone()).await.unwrap();
                println!("held {}", one.id);
                let cost = (task + n) % 7;
                store.settle(settle(one.id, cost)).await.unwrap();
                println!("settled {} {cost}", one.id);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_kill_loses_nothing_that_was_answered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("budget.sqlite");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "budget::sqlite_alone::child"])
        .args(["--ignored", "--nocapture"])
        .env(PATH, &path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said: Vec<String> = Vec::new();
    while said.len() < 2_000 {
        said.push(lines.next().unwrap().unwrap());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    said.extend(lines.map_while(Result::ok));

    let store = SqliteBudget::open(&path).unwrap();
    let (mut settled, mut held, mut spent) = (0, 0, 0);
    for line in &said {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["settled", id, cost] => {
                let id = RequestId::parse(id).unwrap();
                let cost: u64 = cost.parse().unwrap();
                let (found, _) = store.settle(settle(id, cost)).await.unwrap();
                assert_eq!(found, Settled::Again, "{line}");
                (settled, spent) = (settled + 1, spent + cost);
            }
            ["held", id] => {
                let id = RequestId::parse(id).unwrap();
                let (found, _) = store.hold(Ask { id, ..ask(100) }).await.unwrap();
                assert_eq!(found, Held::Duplicate, "{line}");
                held += 1;
            }
            _ => {}
        }
    }
    assert!(settled > 900 && held >= settled, "{settled} of {held}");
    // What was not answered yet may be there: one of each task's.
    let (spend, amount) = money(&store).await;
    assert!((spent..=spent + 8 * 6).contains(&spend), "{spend} {spent}");
    assert!(amount <= 8 * 100 && amount % 100 == 0, "{amount}");
}
