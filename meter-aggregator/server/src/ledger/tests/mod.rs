//! The ledger over real SQLite.

#![allow(clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;

use weir_meter_core::{
    hour::Hour,
    intent::{Attempt, State},
    journal::Walk,
    ledger::{
        Books as _, BucketKey, Intent,
        book::{self, Rules},
        plan::{self, Billable},
        send,
    },
    meter::Meter,
    policy::Policy,
    tariff::Tariff,
};
use weir_wire::{
    ids::{RequestId, TenantId},
    proto::usage::{Kind, ModelUsage, Outcome, UsageEvent, UsageSource, Witness},
};

use super::*;

mod billing;
mod booking;
mod keeping;
mod random;
mod speed;
mod store;

/// A time, some minutes into an hour.
const NOW_S: i64 = 1_795_000_000;
const NOW_MS: i64 = NOW_S * 1_000;

/// An event of the request of that number.
fn event(n: u8, witness: Witness, source: UsageSource, input: u64) -> UsageEvent {
    UsageEvent {
        kind: Kind::Request.into(),
        event_id: format!("{n}"),
        request_id: id(n, NOW_MS).to_string(),
        witness: witness.into(),
        tenant: "acme".into(),
        request_class: "chat".into(),
        outcome: Outcome::Completed.into(),
        usage: vec![ModelUsage {
            input_tokens: input,
            output_tokens: 1,
            source: source.into(),
            ..ModelUsage::default()
        }],
        ..UsageEvent::default()
    }
}

fn router(n: u8, input: u64) -> UsageEvent {
    event(n, Witness::Router, UsageSource::Reported, input)
}

fn id(n: u8, ms: i64) -> RequestId {
    RequestId::mint(ms.cast_unsigned(), [n; 10])
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn meter(name: &str) -> Meter {
    Meter::parse(name).unwrap()
}

/// A bucket of `acme`'s in the hour of [`NOW_S`].
fn bucket(name: &str) -> BucketKey {
    BucketKey {
        hour: Hour::of_s(NOW_S),
        tenant: tenant("acme"),
        meter: meter(name),
    }
}

/// Tenants that can be billed.
struct Tenants(&'static [&'static str]);

impl Billable for Tenants {
    fn account(&self) -> &str {
        "a"
    }

    fn is_billable(&self, tenant: &TenantId, _: &Meter) -> bool {
        self.0.contains(&tenant.as_str())
    }
}

const TENANTS: Tenants = Tenants(&["acme", "solo"]);

fn answered(status: u16) -> Attempt {
    Attempt::Answered {
        status,
        message: String::new(),
        should_retry: None,
        retry_after_ms: None,
    }
}

struct Fixture {
    ledger: Ledger,
    policy: Policy,
    seq: i64,
    folder: tempfile::TempDir,
}

impl Fixture {
    /// Where the first witness is all there is.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            ledger: Ledger::open(folder.path()).unwrap(),
            policy: Policy {
                two_witnesses: false,
                ..Policy::default()
            },
            seq: 0,
            folder,
        }
    }

    fn book(&mut self, events: &[UsageEvent]) {
        self.book_at(events, NOW_MS);
    }

    fn book_at(&mut self, events: &[UsageEvent], now_ms: i64) {
        let numbered = events.iter().map(|event| {
            self.seq += 1;
            (self.seq, event.clone())
        });
        let events = numbered.collect();
        let rules = Rules {
            tariff: &Tariff::default(),
            policy: &self.policy,
        };
        self.ledger.book(events, &rules, now_ms).unwrap();
        self.check();
    }

    fn book_waiting(&mut self, now_ms: i64, all: bool) -> usize {
        let rules = Rules {
            tariff: &Tariff::default(),
            policy: &self.policy,
        };
        let booked = self
            .ledger
            .transaction(|change| book::book_waiting(change, &rules, now_ms, all, 100))
            .unwrap();
        self.check();
        booked
    }

    fn plan(&mut self, now_s: i64, all: bool) -> usize {
        self.plan_for(&TENANTS, now_s, all)
    }

    fn plan_for(&mut self, billable: &Tenants, now_s: i64, all: bool) -> usize {
        let policy = self.policy.clone();
        let planned = self
            .ledger
            .transaction(|change| plan::plan(change, billable, &policy, now_s * 1_000, all));
        self.check();
        planned.unwrap()
    }

    fn start(&mut self, now_ms: i64) -> Vec<Intent> {
        let policy = self.policy.clone();
        self.ledger
            .transaction(|change| send::start(change, &Default::default(), 100, &policy, now_ms))
            .unwrap()
    }

    fn finish(&mut self, intent: &Intent, attempt: &Attempt, now_ms: i64) -> Option<State> {
        let policy = self.policy.clone();
        self.ledger
            .transaction(|change| send::finish(change, intent, attempt, "a", &policy, now_ms))
            .unwrap()
    }

    /// Sends what is due, and gives what was sent.
    fn send(&mut self, attempt: &Attempt, now_ms: i64) -> Vec<Intent> {
        let sent = self.start(now_ms);
        for intent in &sent {
            self.finish(intent, attempt, now_ms);
        }
        self.check();
        sent
    }

    /// Total and accepted of input tokens.
    fn input(&self) -> (i64, i64) {
        let lines = self.ledger.summary(0).unwrap();
        let line = lines.iter().find(|l| l.meter == "input_tokens").unwrap();
        (line.total, line.accepted)
    }

    fn number(&self, query: &str) -> i64 {
        let connection = &self.ledger.connection;
        connection.query_row(query, [], |row| row.get(0)).unwrap()
    }

    /// What always holds: the journal's chain; a bucket's total is the journal's sum, and
    /// its other sums and counts are its intents'; and what is left to do is found.
    #[track_caller]
    fn check(&self) {
        let connection = &self.ledger.connection;
        let query = format!("SELECT {} FROM journal ORDER BY seq", journal::COLUMNS);
        let (mut walk, mut sums) = (Walk::default(), BTreeMap::<BucketKey, i64>::new());
        let lines = columns::all(connection, &query, journal::line).unwrap();
        for (line, hash) in &lines {
            walk.next(line, hash).unwrap();
            for (meter, delta) in &line.deltas {
                let key = BucketKey {
                    hour: Hour::of_ms(line.request_id.time_ms()),
                    tenant: line.tenant.clone(),
                    meter: meter.clone(),
                };
                *sums.entry(key).or_default() += delta;
            }
        }
        let query = "SELECT hour, tenant, meter, total FROM bucket";
        let totals: BTreeMap<BucketKey, i64> = columns::all(connection, query, |row| {
            Ok((buckets::bucket_key(row, 0)?, row.get(3)?))
        })
        .unwrap()
        .into_iter()
        .collect();
        assert_eq!(totals, sums);
        let wrong = self.number(
            "SELECT COUNT(*) FROM bucket AS b LEFT JOIN (
               SELECT hour, tenant, meter,
                 SUM(delta) FILTER (WHERE state <> 'expired') AS planned,
                 SUM(delta) FILTER (WHERE state IN ('accepted', 'confirmed')) AS accepted,
                 SUM(delta) FILTER (WHERE state = 'cancelled') AS waived
               FROM intent GROUP BY hour, tenant, meter) AS i
               ON i.hour = b.hour AND i.tenant = b.tenant AND i.meter = b.meter
             WHERE b.planned <> COALESCE(i.planned, 0) OR b.accepted <> COALESCE(i.accepted, 0)
               OR b.waived <> COALESCE(i.waived, 0)
               OR (NOT is_open AND (total <> b.planned OR total <> b.accepted + b.waived))",
        );
        assert_eq!(wrong, 0);
        let miscounted = self.number(
            "SELECT COUNT(*) FROM (SELECT state, COUNT(*) AS n FROM intent GROUP BY state)
             FULL JOIN (SELECT * FROM intent_count WHERE count <> 0) USING (state)
             WHERE n IS NOT count",
        );
        assert_eq!(miscounted, 0);
    }
}
