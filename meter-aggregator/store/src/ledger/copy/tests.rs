//! From SQLite to Postgres, whole or in parts.

#![allow(clippy::arithmetic_side_effects)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use weir_meter_core::{
    fold::Quantities,
    hour::Hour,
    intent::State,
    journal::{GENESIS, Line, chain},
    lease::{Scope, Shard},
    ledger::{Books as _, BucketKey, Intent, RequestKey, RequestRow},
    meter::Meter,
};
use weir_wire::{
    ids::{RequestId, TenantId},
    proto::usage::UsageEvent,
};

use super::*;
use crate::{
    ledger::{IntentFilter, LedgerError, Proof},
    stream::{Aside, Way},
    testing,
};

const NOW_MS: i64 = 1_795_000_000_000;

fn tenant(n: i64) -> TenantId {
    TenantId::new(format!("tenant-{}", n % 7)).unwrap()
}

fn input() -> Meter {
    Meter::parse("input_tokens").unwrap()
}

fn bucket(n: i64) -> BucketKey {
    BucketKey {
        hour: Hour::of_ms(NOW_MS),
        tenant: tenant(n),
        meter: input(),
    }
}

/// A ledger in SQLite with so many requests, of three days, and some of everything.
fn source(requests: i64) -> (tempfile::TempDir, Ledger) {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(folder.path()).unwrap();
    let filled = ledger.transaction(Scope::Whole, |change| {
        let mut end = GENESIS;
        let (mut rows, mut lines) = (Vec::new(), Vec::new());
        for n in 0..requests {
            let mut random = [0; 10];
            random[2..].copy_from_slice(&n.to_be_bytes());
            let ms = NOW_MS - n % 3 * 86_400_000;
            let key = RequestKey {
                id: RequestId::mint(ms.cast_unsigned(), random),
                tenant: tenant(n),
            };
            let line = Line {
                tenant: key.tenant.clone(),
                request_id: key.id,
                event: [7; 32],
                deltas: Quantities::from([(input(), 3)]),
            };
            end = chain(&end, &line);
            lines.push((line, end));
            let row = RequestRow {
                events: vec![UsageEvent::default()],
                posted: Quantities::from([(input(), 3)]),
                due_ms: (n % 5 == 0).then_some(n),
            };
            rows.push((key, row));
        }
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        change.put_requests(&rows)?;
        change.append_journal(&lines)?;
        for n in 0..7 {
            change.add_to_buckets(&[(bucket(n), 10)])?;
            change.insert_intent(&Intent {
                id: 0,
                bucket: bucket(n),
                revision: 1,
                generation: 0,
                delta: 10,
                identifier: format!("weir_{n}"),
                timestamp_s: NOW_MS / 1_000,
                state: State::Planned,
                first_attempt_ms: None,
                last_attempt_ms: None,
                answers: 0,
                unknown: 0,
                not_before_ms: 0,
                reading: None,
                reason: Some("a \0 reason".into()),
                carried_from: None,
            })?;
            change.set_planned(&bucket(n), 10, 1)?;
        }
        change.set_progress("stream", 99)
    });
    filled.unwrap();
    let aside = Aside {
        bytes: vec![0, 1],
        reason: "wrong".into(),
        place: Some("log:1".into()),
        number: Some((Default::default(), "run".into(), 5)),
    };
    ledger
        .set_aside(&[aside], Some("edge"), Way::Log, NOW_MS)
        .unwrap();
    ledger.log_files("/log", "host", NOW_MS).unwrap();
    (folder, ledger)
}

fn target() -> Ledger {
    Ledger::open_at(&testing::postgres().database()).unwrap()
}

fn identity_of(ledger: &mut Ledger) -> String {
    let scope = Scope::Asked(Shard::of(&tenant(1)));
    let identity: Result<_, LedgerError> = ledger.transaction(scope, |change| change.identity());
    identity.unwrap()
}

#[test]
fn all_of_it_is_there_and_goes_on() {
    let (_folder, mut from) = source(2_500);
    let mut to = target();
    let mut told = Vec::new();
    let copied = copy(&from, &mut to, |done, all| told.push((done, all))).unwrap();
    assert_eq!(copied.journal_lines, 2_500);
    assert_eq!(told.last(), Some(&(copied.rows * 2, copied.rows * 2)));
    assert_eq!(identity_of(&mut to), identity_of(&mut from));
    assert_eq!(to.progress("stream").unwrap(), 99);
    assert_eq!(to.intent_counts().unwrap(), from.intent_counts().unwrap());
    assert_eq!(to.summary(0).unwrap(), from.summary(0).unwrap());
    assert_eq!(to.waiting().unwrap(), 500);
    assert_eq!(to.quarantined().unwrap(), 1);
    assert_eq!(to.missing(NOW_MS * 2).unwrap(), 4);
    // What waits is found in its shard, and new intents have new ids.
    let mut due = 0;
    for shard in Shard::all() {
        let keys = to.transaction(Scope::Asked(shard), |change| {
            change.due_requests(NOW_MS, 999)
        });
        due += keys.map_err(|error: LedgerError| error).unwrap().len();
    }
    assert_eq!(due, 500);
    let scope = Scope::Asked(Shard::of(&tenant(1)));
    let filter = IntentFilter {
        limit: 9,
        ..IntentFilter::default()
    };
    let highest = to.intents(&filter).unwrap()[0].id;
    let id: Result<i64, LedgerError> = to.transaction(scope, |change| {
        let intent = change.open_intent(&bucket(1))?.unwrap();
        change.update_intent(&Intent {
            state: State::Cancelled,
            ..intent.clone()
        })?;
        change.insert_intent(&Intent {
            identifier: "weir_new".into(),
            ..intent
        })
    });
    assert_eq!(id.unwrap(), highest + 1);
    // The old chain and the new one are walked.
    let proof = Proof {
        tenant: tenant(1),
        meter: input(),
        from: Hour(0),
        to: Hour(i64::MAX),
    };
    let proved = to.prove(&proof, |_| (), |_, _| ()).unwrap();
    assert_eq!(proved.journal_lines, 2_500);
    // Somebody worked on it: it is another one now.
    let again = copy(&from, &mut to, |_, _| ()).unwrap_err().to_string();
    assert!(again.contains("is not the same in both"), "{again}");
}

#[test]
fn it_goes_on_where_it_was_interrupted_and_nobody_works_on_a_part() {
    let (_folder, from) = source(2_500);
    let mut to = target();
    let mut calls = 0;
    loop {
        let mut pages = 0;
        let tried = catch_unwind(AssertUnwindSafe(|| {
            copy(&from, &mut to, |_, _| {
                pages += 1;
                assert!(pages < 3, "interrupted");
            })
        }));
        calls += 1;
        if tried.is_ok() {
            break;
        }
        let worked: Result<(), LedgerError> =
            to.transaction(Scope::Asked(Shard::of(&tenant(1))), |_| Ok(()));
        assert!(worked.is_err());
        assert!(!from.is_moved().unwrap(), "a part of it is there");
        if calls > 10 {
            // All is copied, and what compares always begins anew.
            copy(&from, &mut to, |_, _| ()).unwrap();
            break;
        }
    }
    assert!(from.is_moved().unwrap(), "both may be worked on");
    assert_eq!(to.waiting().unwrap(), 500);
    assert_eq!(
        copy(&from, &mut to, |_, _| ()).unwrap().journal_lines,
        2_500
    );
    let error = copy(&from, &mut target(), |_, _| ()).unwrap_err();
    assert!(error.to_string().contains("another database"), "{error}");
    let change = "UPDATE bucket SET total = total + 1 WHERE tenant = 'tenant-3'";
    to.connection.execute_batch(change).unwrap();
    let error = copy(&from, &mut to, |_, _| ()).unwrap_err().to_string();
    assert!(error.contains("bucket is not the same in both"), "{error}");
}

#[test]
fn a_target_with_rows_of_its_own_is_refused() {
    let (_folder, mut from) = source(3);
    let mut to = target();
    to.transaction(Scope::Asked(Shard::of(&tenant(1))), |change| {
        change.set_progress("x", 1)
    })
    .map_err(|error: LedgerError| error)
    .unwrap();
    let error = copy(&from, &mut to, |_, _| ()).unwrap_err().to_string();
    assert!(
        error.contains("has rows of its own already, in progress"),
        "{error}"
    );
    let before = identity_of(&mut to);
    assert_ne!(before, identity_of(&mut from));
    let other = from.another().unwrap();
    let error = copy(&other, &mut from, |_, _| ()).unwrap_err().to_string();
    assert!(error.contains("from SQLite to Postgres only"), "{error}");
}
