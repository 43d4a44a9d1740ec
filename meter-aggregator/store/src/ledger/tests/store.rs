//! The store itself: each transaction whole or not at all, and files of other versions.

use weir_meter_core::{
    fold::Quantities,
    ledger::{Books, Reading, RequestKey, RequestRow},
};

use super::*;

fn intent() -> Intent {
    Intent {
        id: 0,
        bucket: bucket("input_tokens.premium"),
        revision: 1,
        generation: 2,
        delta: -3,
        identifier: "weir_1".into(),
        timestamp_s: NOW_S,
        state: State::Planned,
        first_attempt_ms: Some(4),
        last_attempt_ms: Some(5),
        answers: 6,
        unknown: 7,
        not_before_ms: 8,
        reading: Some(Reading { sum: 9, at_ms: 10 }),
        reason: Some("reason".into()),
        carried_from: Some(11),
    }
}

#[test]
fn rows_are_read_as_they_were_written() {
    let mut f = Fixture::new();
    f.transaction(|change| {
            let id = change.insert_intent(&intent())?;
            let written = Intent { id, ..intent() };
            assert_eq!(change.intent(id)?, Some(written.clone()));
            assert_eq!(change.open_intent(&written.bucket)?, Some(written.clone()));
            let sending = Intent {
                state: State::Sending,
                reading: None,
                ..written
            };
            change.update_intent(&sending)?;
            let expected = [sending.clone()];
            assert_eq!(change.sendable(8, 1)?, expected);
            assert_eq!(change.sendable(7, 1)?, []);
            assert_eq!(change.aged(NOW_S + 1, 1)?, expected);
            assert_eq!(change.aged(NOW_S, 1)?, []);
            let key = &sending.bucket;
            let at = change.intents_at(&key.tenant, &key.meter, key.hour)?;
            assert_eq!(at, expected);
            let confirmed = Intent {
                state: State::Confirmed,
                ..sending.clone()
            };
            change.update_intent(&confirmed)?;
            assert_eq!(change.open_intent(key)?, None);
            let meter = &key.meter;
            assert_eq!(change.confirmed(meter, NOW_S, NOW_S + 1)?, [confirmed]);
            assert_eq!(change.confirmed(meter, NOW_S + 1, NOW_S + 9_999)?, []);
            assert_eq!(change.progress("x")?, 0);
            change.set_progress("x", -1)?;
            change.set_progress("x", 5)?;
            assert_eq!(change.progress("x")?, 5);
            Ok::<_, LedgerError>(())
        })
        .unwrap();
}

#[test]
fn requests_are_kept_by_day_and_found_when_due() {
    let mut f = Fixture::new();
    let key = |n: u8, days: i64| RequestKey {
        id: id(n, NOW_MS + days * 86_400_000),
        tenant: tenant("acme"),
    };
    let row = |due_ms| RequestRow {
        events: vec![router(1, 1)],
        posted: Quantities::from([(meter("input_tokens"), 1)]),
        due_ms,
    };
    let rows = [
        (key(1, -1), row(Some(30))),
        (key(2, 0), row(None)),
        (key(3, 1), row(Some(20))),
    ];
    let keys = rows.clone().map(|(key, _)| key);
    let other = RequestKey {
        tenant: tenant("solo"),
        ..key(2, 0)
    };
    f.transaction(|change| {
            change.put_requests(&rows)?;
            let expected = rows.clone().map(|(_, row)| Some(row));
            assert_eq!(change.requests(&keys)?, expected);
            assert_eq!(change.requests(&[other, key(1, 9)])?, [None, None]);
            assert_eq!(change.due_requests(30, 9)?, [key(3, 1), key(1, -1)]);
            assert_eq!(change.due_requests(30, 1)?, [key(3, 1)]);
            assert_eq!(change.due_requests(19, 9)?, []);
            change.put_requests(&[(key(3, 1), row(None))])?;
            assert_eq!(change.due_requests(30, 9)?, [key(1, -1)]);
            Ok::<_, LedgerError>(())
        })
        .unwrap();
    assert_eq!(f.ledger.waiting().unwrap(), 1);
}

#[test]
fn two_intents_of_a_bucket_are_never_open() {
    let mut f = Fixture::new();
    let second = Intent {
        identifier: "weir_2".into(),
        ..intent()
    };
    let insert = |f: &mut Fixture, intents: &[&Intent]| {
        f.transaction(|change| {
            for intent in intents {
                change.insert_intent(intent)?;
            }
            Ok::<_, LedgerError>(())
        })
    };
    assert!(insert(&mut f, &[&intent(), &second]).is_err());
    assert_eq!(f.number("SELECT COUNT(*) FROM intent"), 0);
    let closed = Intent {
        state: State::Cancelled,
        ..second.clone()
    };
    insert(&mut f, &[&intent(), &closed]).unwrap();
    // Nor do two have the same name.
    let same = Intent {
        state: State::Expired,
        ..second
    };
    assert!(insert(&mut f, &[&same]).is_err());
}

#[test]
fn what_fails_in_the_middle_leaves_nothing() {
    let mut f = Fixture::new();
    f.book(&[router(1, 10)]);
    let before = f.days();
    let key = RequestKey {
        id: id(7, NOW_MS + 9 * 86_400_000),
        tenant: tenant("acme"),
    };
    let name = Fixture::lane(&f.acme());
    let failed = f.transaction(|change| {
        change.put_requests(&[(key.clone(), RequestRow::default())])?;
        change.add_to_buckets(&[(bucket("output_tokens"), 5)])?;
        change.set_progress(&name, 99)?;
        Err::<(), _>(LedgerError::Database(sql::Error::NoRows))
    });
    assert!(failed.is_err());
    f.check();
    assert_eq!(f.booked_upto(), 1);
    assert_eq!(f.days(), before);
    // The day's table can be made again.
    f.transaction(|change| change.put_requests(&[(key.clone(), RequestRow::default())]))
        .unwrap();
    let found = f.transaction(|change| change.requests(&[key]))
        .unwrap();
    assert_eq!(found, [Some(RequestRow::default())]);
}

#[test]
fn a_later_versions_ledger_is_refused_and_left_alone() {
    let f = Fixture::new();
    let (later, says) = match f.ledger.is_shared() {
        true => ("UPDATE schema_version SET version = 9, oldest = 7", "of version 9"),
        false => ("PRAGMA user_version = 7", "ledger.db: is of version 7"),
    };
    f.ledger.connection.execute_batch(later).unwrap();
    let error = Ledger::open_at(&f.place).err().unwrap().to_string();
    assert!(error.contains(says), "{error}");
    let identity = f.number("SELECT COUNT(*) FROM identity");
    assert_eq!(identity, 1);
}

#[test]
fn a_ledger_is_opened_again_as_it_was() {
    let mut f = Fixture::new();
    f.book(&[router(1, 10)]);
    let identity = |f: &mut Fixture| f.transaction(|change| change.identity()).unwrap();
    let before = identity(&mut f);
    f.reopen();
    assert_eq!(identity(&mut f), before);
    if !f.ledger.is_shared() {
        assert_eq!(f.number("PRAGMA user_version"), 1);
        assert_eq!(f.number("PRAGMA page_size"), 8_192);
    }
    f.book(&[router(1, 10), router(2, 1)]);
    assert_eq!(f.input(), (11, 0));
}
