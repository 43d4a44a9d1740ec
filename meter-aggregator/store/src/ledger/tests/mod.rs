//! The ledger over real SQLite and real Postgres.

#![allow(clippy::arithmetic_side_effects)]

use std::collections::{BTreeMap, BTreeSet};

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

mod reach;
mod replicas;

/// One body of tests, on each database.
macro_rules! on {
    ($name:ident, $kind:ty) => {
        #[allow(clippy::duplicate_mod)]
        #[path = "."]
        mod $name {
            use super::*;

            type Fixture = super::Fixture<$kind>;

            #[path = "accounts.rs"]
            mod accounts;
            #[path = "aside.rs"]
            mod aside;
            #[path = "billing.rs"]
            mod billing;
            #[path = "booking.rs"]
            mod booking;
            #[path = "keeping.rs"]
            mod keeping;
            #[path = "random.rs"]
            mod random;
            #[path = "store.rs"]
            mod store;
        }
    };
}

on!(sqlite, Sqlite);
on!(postgres, Postgres);

mod speed;

/// Which database a fixture is on.
trait Database {
    const IS_SHARED: bool;
    fn place(folder: &std::path::Path) -> Place;
}

struct Sqlite;

impl Database for Sqlite {
    const IS_SHARED: bool = false;

    fn place(folder: &std::path::Path) -> Place {
        Place::Sqlite(folder.to_owned())
    }
}

struct Postgres;

impl Database for Postgres {
    const IS_SHARED: bool = true;

    fn place(_: &std::path::Path) -> Place {
        crate::testing::postgres().database()
    }
}

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

struct Fixture<K> {
    ledger: Ledger,
    policy: Policy,
    seq: i64,
    place: Place,
    folder: tempfile::TempDir,
    kind: std::marker::PhantomData<K>,
}

/// The scope of a tenant's transactions, without a lease.
fn scope<K: Database>(tenant: &str) -> Scope {
    match TenantId::new(tenant) {
        Ok(tenant) if K::IS_SHARED => Scope::Asked(Shard::of(&tenant)),
        _ => Scope::Whole,
    }
}

impl<K: Database> Fixture<K> {
    const IS_SHARED: bool = K::IS_SHARED;

    /// Where the first witness is all there is.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = K::place(folder.path());
        Self {
            ledger: Ledger::open_at(&place).unwrap(),
            policy: Policy {
                two_witnesses: false,
                ..Policy::default()
            },
            seq: 0,
            place,
            folder,
            kind: std::marker::PhantomData,
        }
    }

    fn reopen(&mut self) {
        self.ledger = Ledger::open_at(&self.place).unwrap();
    }

    /// The scopes of all tenants of the tests.
    fn scopes() -> Vec<Scope> {
        match K::IS_SHARED {
            true => TENANTS.0.iter().map(|tenant| scope::<K>(tenant)).collect(),
            false => vec![Scope::Whole],
        }
    }

    fn acme(&self) -> Scope {
        scope::<K>("acme")
    }

    /// A transaction of `acme`'s.
    fn transaction<T, E: From<LedgerError>>(
        &mut self,
        work: impl FnOnce(&mut Change<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.ledger.transaction(self.acme(), work)
    }

    /// The same for every tenant.
    fn each<T>(
        &mut self,
        mut work: impl FnMut(&mut Change<'_>) -> Result<T, LedgerError>,
    ) -> Vec<T> {
        let scopes = Self::scopes().into_iter();
        let done = scopes.map(|scope| self.ledger.transaction(scope, &mut work).unwrap());
        done.collect()
    }

    fn book(&mut self, events: &[UsageEvent]) {
        self.book_at(events, NOW_MS);
    }

    fn book_at(&mut self, events: &[UsageEvent], now_ms: i64) {
        let numbered = events.iter().map(|event| {
            self.seq += 1;
            (self.seq, event.clone())
        });
        let numbered: Vec<(i64, UsageEvent)> = numbered.collect();
        let rules = Rules {
            tariff: &Tariff::default(),
            policy: &self.policy,
        };
        for of in Self::scopes() {
            let events = numbered
                .iter()
                .filter(|(_, event)| of.shard().is_none() || of == scope::<K>(&event.tenant));
            let events: Vec<(i64, UsageEvent)> = events.cloned().collect();
            let Some(last) = events.last().map(|(seq, _)| *seq) else {
                continue;
            };
            let name = Self::lane(&of);
            let position = Some((&*name, last));
            self.ledger
                .book(of, events, &rules, now_ms, position)
                .unwrap();
        }
        self.check();
    }

    fn lane(scope: &Scope) -> String {
        match scope.shard() {
            Some(shard) => format!("lane-{}", shard.number()),
            None => book::STREAM.to_owned(),
        }
    }

    /// The number of the last event that is booked.
    fn booked_upto(&self) -> i64 {
        let upto = |of: &Scope| self.ledger.progress(&Self::lane(of)).unwrap();
        Self::scopes().iter().map(upto).max().unwrap()
    }

    /// The days that have a table.
    fn days(&self) -> BTreeSet<i64> {
        partitions::days(&self.ledger.connection).unwrap()
    }

    fn drop_old(&mut self, now_ms: i64) -> bool {
        self.ledger.drop_old(scope::<K>("acme"), now_ms).unwrap()
    }

    /// Runs statements that change what is there.
    fn tamper(&self, sql: &str) {
        let bytes = match K::IS_SHARED {
            true => sql.replace("x'", "'\\x"),
            false => sql.to_owned(),
        };
        self.ledger.connection.execute_batch(&bytes).unwrap();
    }

    fn book_waiting(&mut self, now_ms: i64, all: bool) -> usize {
        let policy = self.policy.clone();
        let rules = Rules {
            tariff: &Tariff::default(),
            policy: &policy,
        };
        let booked = self.each(|change| book::book_waiting(change, &rules, now_ms, all, 100));
        self.check();
        booked.iter().sum()
    }

    fn plan(&mut self, now_s: i64, all: bool) -> usize {
        self.plan_for(&TENANTS, now_s, all)
    }

    fn plan_for(&mut self, billable: &Tenants, now_s: i64, all: bool) -> usize {
        let policy = self.policy.clone();
        let planned = self.each(|change| plan::plan(change, billable, &policy, now_s * 1_000, all));
        self.check();
        planned.iter().sum()
    }

    fn start(&mut self, now_ms: i64) -> Vec<Intent> {
        let policy = self.policy.clone();
        let started =
            self.each(|change| send::start(change, &Default::default(), 100, &policy, now_ms));
        started.concat()
    }

    fn finish(&mut self, intent: &Intent, attempt: &Attempt, now_ms: i64) -> Option<State> {
        let policy = self.policy.clone();
        self.ledger
            .transaction(scope::<K>(intent.bucket.tenant.as_str()), |change| {
                send::finish(change, intent, attempt, "a", &policy, now_ms)
            })
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
        let mut sums = BTreeMap::<BucketKey, i64>::new();
        let shards = match K::IS_SHARED {
            true => (-1..16).map(Some).collect(),
            false => vec![None],
        };
        for shard in shards {
            let chain = journal::Chain { shard, end: 0 };
            let mut walk = Walk::default();
            let mut after = 0;
            loop {
                let lines = journal::page(connection, &chain, after).unwrap();
                let Some(last) = lines.last() else {
                    break;
                };
                after = last.0;
                for (_, line, hash) in &lines {
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
            "SELECT COUNT(*) FROM (SELECT state, COUNT(*) AS n FROM intent GROUP BY state) AS i
             FULL JOIN (SELECT state, SUM(count) AS m FROM intent_count GROUP BY state
               HAVING SUM(count) <> 0) AS c USING (state)
             WHERE n IS DISTINCT FROM m",
        );
        assert_eq!(miscounted, 0);
    }
}
