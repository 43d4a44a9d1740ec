//! A gateway that writes, tears and rotates, and an aggregator that is killed at any
//! time: every whole event is booked once, and every byte is accounted for.

#![allow(clippy::arithmetic_side_effects)]

use std::{collections::BTreeMap, sync::atomic::Ordering};

use proptest::prelude::*;

use super::tests::{Fixture, text};

#[derive(Debug, Clone)]
enum Act {
    /// The next event, whole.
    Write,
    /// Part of the next event; what comes then stands in the same line.
    Tear(usize),
    /// Nothing, or text that is no event.
    Say(&'static str),
    Rotate,
    Read,
    /// Killed between the stream and the ledger.
    Die,
    Restart,
    Wait,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => Just(Act::Write),
        1 => (4_usize..200).prop_map(Act::Tear),
        1 => prop_oneof![Just("-\n"), Just("GET /\n"), Just("\n")].prop_map(Act::Say),
        1 => Just(Act::Rotate),
        2 => Just(Act::Read),
        1 => Just(Act::Die),
        1 => Just(Act::Restart),
        1 => Just(Act::Wait),
    ]
}

/// Gives what should be booked and set aside, and what the ledger says of each file.
async fn run(acts: Vec<Act>) {
    let mut f = Fixture::new();
    let (mut next, mut whole, mut aside) = (0, Vec::new(), 0);
    // Whether a torn line waits for what comes behind it.
    let mut is_torn = false;
    for act in acts {
        match act {
            Act::Write => {
                next += 1;
                f.append("usage.log", &format!("{}\n", text(next)));
                whole.push(next);
                is_torn = false;
            }
            // Two parts in a row are one.
            Act::Tear(_) if is_torn => {}
            Act::Tear(length) => {
                next += 1;
                f.append("usage.log", &text(next)[..length]);
                aside += 1;
                is_torn = true;
            }
            Act::Say(text) => {
                f.append("usage.log", text);
                aside += i64::from(text == "GET /\n" && !is_torn);
                is_torn = false;
            }
            Act::Rotate => {
                f.rotate();
                is_torn = false;
            }
            Act::Read => f.read().await.unwrap(),
            Act::Die => {
                f.tail.dies.store(true, Ordering::Relaxed);
                if f.read().await.is_err() {
                    f.restart();
                }
                f.tail.dies.store(false, Ordering::Relaxed);
            }
            Act::Restart => f.restart(),
            Act::Wait => {
                f.now_ms += 2_000;
                f.read().await.unwrap();
            }
        }
    }
    next += 1;
    f.append("usage.log", &format!("{}\n", text(next)));
    whole.push(next);
    f.read().await.unwrap();
    f.settle().await;
    assert_eq!(f.booked().await, whole);
    assert_eq!(f.quarantined().await, aside);
    let mut marks = BTreeMap::new();
    let data = f.folder.path().join("data/ledger.db");
    let ledger = rusqlite::Connection::open(data).unwrap();
    let mut rows = ledger.prepare("SELECT inode, MAX(offset) FROM log_file GROUP BY inode");
    let read = rows
        .as_mut()
        .unwrap()
        .query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)));
    marks.extend(read.unwrap().map(Result::unwrap));
    for entry in std::fs::read_dir(f.folder.path()).unwrap() {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = entry.unwrap().metadata().unwrap();
        if metadata.is_file() {
            let offset = marks.get(&metadata.ino().cast_signed());
            assert_eq!(offset, Some(&metadata.len().cast_signed()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None, cases: 60, ..ProptestConfig::default()
    })]

    #[test]
    fn every_whole_event_is_booked_once(acts in prop::collection::vec(act(), 1..60)) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(run(acts));
    }
}
