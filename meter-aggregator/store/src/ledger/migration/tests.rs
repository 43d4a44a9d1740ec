//! A ledger as the version before wrote it.

#![allow(clippy::arithmetic_side_effects)]

use rusqlite::{Connection, params};
use weir_meter_core::{lease::Scope, ledger::Books as _, tariff::Tariff};
use weir_wire::proto::usage::{Outcome, Witness};

use super::*;
use crate::ledger::{IntentFilter, Ledger, Proof, Wanted};

/// That version's tables, as it made them.
const OLD: &str = "
CREATE TABLE identity (one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL);
CREATE TABLE progress (name TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE witness (
  tenant TEXT NOT NULL, request_id TEXT NOT NULL, witness INTEGER NOT NULL,
  rank INTEGER NOT NULL, hash BLOB NOT NULL, event BLOB NOT NULL,
  PRIMARY KEY (tenant, request_id, witness)) WITHOUT ROWID;
CREATE TABLE conflict (
  tenant TEXT NOT NULL, request_id TEXT NOT NULL, witness INTEGER NOT NULL,
  hash BLOB NOT NULL, event BLOB NOT NULL,
  PRIMARY KEY (tenant, request_id, witness, hash)) WITHOUT ROWID;
CREATE TABLE posting (
  tenant TEXT NOT NULL, request_id TEXT NOT NULL, meter TEXT NOT NULL,
  hour INTEGER NOT NULL, quantity INTEGER NOT NULL,
  PRIMARY KEY (tenant, request_id, meter)) WITHOUT ROWID;
CREATE TABLE bucket (
  tenant TEXT NOT NULL, meter TEXT NOT NULL, hour INTEGER NOT NULL, total INTEGER NOT NULL,
  planned INTEGER NOT NULL, revision INTEGER NOT NULL,
  PRIMARY KEY (tenant, meter, hour)) WITHOUT ROWID;
CREATE INDEX bucket_unplanned ON bucket (hour) WHERE total <> planned;
CREATE TABLE journal (
  seq INTEGER PRIMARY KEY, tenant TEXT NOT NULL, request_id TEXT NOT NULL,
  meter TEXT NOT NULL, hour INTEGER NOT NULL, delta INTEGER NOT NULL, hash BLOB NOT NULL);
CREATE TABLE intent (
  id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, meter TEXT NOT NULL,
  hour INTEGER NOT NULL, revision INTEGER NOT NULL, generation INTEGER NOT NULL,
  delta INTEGER NOT NULL, identifier TEXT NOT NULL UNIQUE, timestamp_s INTEGER NOT NULL,
  state TEXT NOT NULL, first_attempt_ms INTEGER, answers INTEGER NOT NULL DEFAULT 0,
  not_before_ms INTEGER NOT NULL DEFAULT 0, reason TEXT);
CREATE UNIQUE INDEX intent_one_open ON intent (tenant, meter, hour) WHERE state <> 'accepted';
CREATE INDEX intent_due ON intent (not_before_ms) WHERE state IN ('planned', 'sending');
CREATE INDEX witness_request ON witness (request_id);
CREATE TABLE log (path TEXT PRIMARY KEY, since_ns INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO identity VALUES (1, 'the-old-id');
INSERT INTO progress VALUES ('stream', 77);
INSERT INTO log VALUES ('/usage.log', 5);
";

const NOW_MS: u64 = 1_795_000_000_000;

fn event(n: u8, witness: Witness) -> UsageEvent {
    UsageEvent {
        request_id: RequestId::mint(NOW_MS, [n; 10]).to_string(),
        tenant: "acme".into(),
        witness: witness.into(),
        outcome: Outcome::Completed.into(),
        tenant_context: "a context".into(),
        ..UsageEvent::default()
    }
}

fn old_ledger(folder: &std::path::Path) {
    let old = Connection::open(folder.join("ledger.db")).unwrap();
    old.execute_batch(OLD).unwrap();
    let hour = i64::try_from(NOW_MS / 3_600_000).unwrap();
    for (n, witness) in [
        (1, Witness::Router),
        (1, Witness::Gateway),
        (2, Witness::Router),
    ] {
        let event = event(n, witness);
        let of = (&event.tenant, &event.request_id, event.witness);
        old.execute(
            "INSERT INTO witness VALUES (?1, ?2, ?3, 1, x'00', ?4)",
            params![of.0, of.1, of.2, event.encode_to_vec()],
        )
        .unwrap();
        if witness == Witness::Router {
            old.execute(
                "INSERT INTO posting VALUES (?1, ?2, 'input_tokens', ?3, 10)",
                params![of.0, of.1, hour],
            )
            .unwrap();
        }
    }
    let other = event(2, Witness::Router);
    old.execute(
        "INSERT INTO conflict VALUES (?1, ?2, ?3, x'01', ?4)",
        params![
            other.tenant,
            other.request_id,
            other.witness,
            other.encode_to_vec()
        ],
    )
    .unwrap();
    let start_s = hour * 3_600;
    old.execute_batch(&format!(
        "INSERT INTO bucket VALUES ('acme', 'input_tokens', {hour}, 20, 20, 2);
         INSERT INTO intent (id, tenant, meter, hour, revision, generation, delta, identifier,
           timestamp_s, state, first_attempt_ms, answers, not_before_ms, reason)
         VALUES
           (4, 'acme', 'input_tokens', {hour}, 1, 0, 15, 'weir_4', {start_s}, 'accepted', 1, 1, 0,
            NULL),
           (7, 'acme', 'input_tokens', {hour}, 2, 0, 5, 'weir_7', {start_s}, 'sending', 9, 0, 3,
            'why');",
    ))
    .unwrap();
}

#[test]
fn the_version_before_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    old_ledger(folder.path());
    let mut ledger = Ledger::open(folder.path()).unwrap();
    assert_eq!(ledger.booked_upto().unwrap(), 77);
    let identity = ledger
        .transaction(Scope::Whole, |change| change.identity())
        .unwrap();
    assert_eq!(identity, "the-old-id");
    let logs = ledger.log_files("/usage.log", "h", 0).unwrap();
    assert_eq!(logs.1, 5);

    let filter = IntentFilter {
        limit: 9,
        ..IntentFilter::default()
    };
    let intents = ledger.intents(&filter).unwrap();
    let found: Vec<(i64, &str, &str, i64)> = intents
        .iter()
        .map(|i| (i.id, &*i.identifier, i.state, i.unknown))
        .collect();
    let expected = [(7, "weir_7", "sending", 1), (4, "weir_4", "accepted", 0)];
    assert_eq!(found, expected);
    let line = &ledger.summary(0).unwrap()[0];
    assert_eq!((line.total, line.accepted), (20, 15));
    assert_eq!(ledger.conflicts().unwrap(), 1);

    let wanted = Wanted {
        limit: 9,
        ..Wanted::default()
    };
    let requests = ledger.requests(&wanted, &Tariff::default()).unwrap();
    let witnesses: Vec<usize> = requests.iter().map(|r| r.witnesses.len()).collect();
    assert_eq!(witnesses, [1, 2]);
    let hour = i64::try_from(NOW_MS / 3_600_000).unwrap();
    let proof = Proof {
        tenant: weir_wire::ids::TenantId::new("acme").unwrap(),
        meter: weir_meter_core::meter::Meter::parse("input_tokens").unwrap(),
        from: weir_meter_core::hour::Hour(hour),
        to: weir_meter_core::hour::Hour(hour + 1),
    };
    let proved = ledger.prove(&proof, |_| (), |_, _| ()).unwrap();
    assert_eq!(proved.problems, [""; 0]);
    assert_eq!((proved.requests, proved.kept, proved.used), (2, 2, 20));

    // The next id is none that was given before, and it is done once.
    drop(ledger);
    let mut ledger = Ledger::open(folder.path()).unwrap();
    let kept = ledger
        .transaction(Scope::Whole, |change| change.intent(7))
        .unwrap()
        .unwrap();
    let id = ledger.transaction(Scope::Whole, |change| {
        change.update_intent(&Intent {
            state: State::Accepted,
            ..kept.clone()
        })?;
        change.insert_intent(&Intent {
            identifier: "weir_8".into(),
            ..kept
        })
    });
    assert_eq!(id.unwrap(), 8);
}
