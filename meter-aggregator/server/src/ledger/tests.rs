//! The ledger's invariants, over real SQLite.

#![allow(clippy::arithmetic_side_effects)]

use std::collections::BTreeSet;

use weir_meter_core::intent::Next;
use weir_wire::{
    ids::RequestId,
    proto::usage::{Kind, ModelUsage, Outcome, UsageEvent, UsageSource, Witness},
    usage::cloudevents,
};

use super::{gaps::GAP_GRACE_MS, *};
use crate::stream::Noted;

const NOW_S: i64 = 1_795_000_000;

fn event(n: u8, witness: Witness, source: UsageSource, input: u64) -> UsageEvent {
    UsageEvent {
        kind: Kind::Request.into(),
        event_id: format!("{n}"),
        request_id: RequestId::mint(NOW_S as u64 * 1_000, [n; 10]).to_string(),
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

fn tenants() -> BTreeSet<String> {
    ["acme", "solo"].map(str::to_owned).into()
}

struct Fixture {
    ledger: Ledger,
    seq: i64,
    _folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            ledger: Ledger::open(folder.path()).unwrap(),
            seq: 0,
            _folder: folder,
        }
    }

    fn book(&mut self, events: &[UsageEvent]) {
        let lines: Vec<(i64, String)> = events
            .iter()
            .map(|e| {
                self.seq += 1;
                (self.seq, cloudevents::encode(e.clone()).unwrap())
            })
            .collect();
        self.ledger.book(&lines, NOW_S * 1_000).unwrap();
        self.check_sums();
    }

    /// A bucket is the sum of its postings, `planned` the sum of its intents,
    /// and the journal's chain holds.
    fn check_sums(&self) {
        let count: i64 = self
            .ledger
            .connection
            .query_row(
                "SELECT COUNT(*) FROM bucket WHERE total <> (
                   SELECT SUM(quantity) FROM posting WHERE posting.tenant = bucket.tenant
                   AND posting.meter = bucket.meter AND posting.hour = bucket.hour)
                 OR planned <> (SELECT COALESCE(SUM(delta), 0) FROM intent
                   WHERE intent.tenant = bucket.tenant AND intent.meter = bucket.meter
                   AND intent.hour = bucket.hour)",
                [],
                |r| r.get(0),
            )
            .unwrap();
        assert_eq!(count, 0);
        assert!(self.ledger.journal_holds().unwrap());
    }

    /// Total and accepted of input tokens.
    fn input(&self) -> (i64, i64) {
        let lines = self.ledger.summary(0).unwrap();
        let line = lines.iter().find(|l| l.meter == "input_tokens").unwrap();
        (line.total, line.accepted)
    }

    fn send_all(&mut self, next: &Next, now_ms: i64) -> Vec<Intent> {
        let mut sent = Vec::new();
        while let Some(intent) = self.ledger.start_attempt(now_ms).unwrap() {
            self.ledger
                .finish_attempt(&intent, true, next, now_ms)
                .unwrap();
            sent.push(intent);
        }
        self.check_sums();
        sent
    }
}

#[test]
fn duplicates_and_worse_witnesses_change_nothing() {
    let mut f = Fixture::new();
    let router = event(1, Witness::Router, UsageSource::Reported, 10);
    let gateway = event(1, Witness::Gateway, UsageSource::Reported, 99);
    f.book(std::slice::from_ref(&router));
    f.book(&[router.clone(), gateway, router]);
    assert_eq!(f.input(), (10, 0));
    assert_eq!(f.ledger.booked_upto().unwrap(), 4);
}

#[test]
fn a_better_witness_amends_and_a_contradiction_is_listed() {
    let mut f = Fixture::new();
    f.book(&[event(1, Witness::Router, UsageSource::Estimated, 10)]);
    f.book(&[event(1, Witness::Router, UsageSource::Reported, 7)]);
    assert_eq!(f.input(), (7, 0));
    f.book(&[event(1, Witness::Router, UsageSource::Reported, 8)]);
    assert_eq!(f.input(), (7, 0));
    assert_eq!(f.ledger.conflicts().unwrap(), 1);
}

#[test]
fn an_hour_is_planned_when_over_or_when_asked() {
    let mut f = Fixture::new();
    f.book(&[event(1, Witness::Router, UsageSource::Reported, 10)]);
    assert_eq!(f.ledger.plan("a", &tenants(), NOW_S, false).unwrap(), 0);
    assert_eq!(
        f.ledger
            .plan("a", &tenants(), NOW_S + 3_600 + 300, false)
            .unwrap(),
        3
    );
    assert_eq!(
        f.ledger
            .plan("a", &tenants(), NOW_S + 99_999, true)
            .unwrap(),
        0
    );
    let sent = f.send_all(&Next::Accepted, NOW_S * 1_000);
    assert_eq!(sent.len(), 3);
    let hour = Hour::of_ms(NOW_S * 1_000);
    assert!(sent.iter().all(|i| Hour(i.timestamp_s / 3_600) == hour));
    assert_eq!(f.input(), (10, 10));
}

#[test]
fn later_use_is_the_next_revision_by_its_difference() {
    let mut f = Fixture::new();
    f.book(&[event(1, Witness::Router, UsageSource::Estimated, 10)]);
    f.ledger.plan("a", &tenants(), NOW_S, true).unwrap();
    let first = f.send_all(&Next::Accepted, 0);
    f.book(&[
        event(1, Witness::Router, UsageSource::Reported, 4),
        event(2, Witness::Router, UsageSource::Reported, 1),
    ]);
    f.ledger.plan("a", &tenants(), NOW_S, true).unwrap();
    let second = f.send_all(&Next::Accepted, 0);
    let of = |sent: &[Intent]| {
        let intent = sent.iter().find(|i| i.meter == Meter::InputTokens).unwrap();
        (intent.delta, intent.identifier.clone())
    };
    assert_eq!((of(&first).0, of(&second).0), (10, -5));
    assert_ne!(of(&first).1, of(&second).1);
    assert_eq!(f.input(), (5, 5));
}

#[test]
fn an_attempt_without_an_answer_keeps_its_identifier() {
    let mut f = Fixture::new();
    f.book(&[event(1, Witness::Router, UsageSource::Reported, 10)]);
    f.ledger.plan("a", &tenants(), NOW_S, true).unwrap();
    let first = f.ledger.start_attempt(1_000).unwrap().unwrap();
    // The process dies here: the attempt is in the ledger already.
    let again = f.ledger.start_attempt(2_000).unwrap().unwrap();
    assert_eq!(again.identifier, first.identifier);
    assert_eq!(again.first_attempt_ms, Some(1_000));
    f.ledger
        .finish_attempt(&again, false, &Next::Again, 2_000)
        .unwrap();
    let other = f.ledger.start_attempt(2_000).unwrap().unwrap();
    assert_ne!(other.identifier, first.identifier, "it waits its pause");
    assert_eq!(f.ledger.open_intents().unwrap(), 3);
    f.ledger.hurry().unwrap();
    let hurried = f.ledger.start_attempt(2_000).unwrap().unwrap();
    assert_eq!(hurried.identifier, first.identifier);
}

#[test]
fn what_is_held_blocks_its_hour_and_is_counted() {
    let mut f = Fixture::new();
    f.book(&[event(1, Witness::Router, UsageSource::Reported, 10)]);
    f.ledger.plan("a", &tenants(), NOW_S, true).unwrap();
    f.send_all(&Next::Held("400: no".into()), 0);
    f.book(&[event(2, Witness::Router, UsageSource::Reported, 5)]);
    assert_eq!(f.ledger.plan("a", &tenants(), NOW_S, true).unwrap(), 0);
    assert_eq!(f.input(), (15, 0));
    let counts = f.ledger.intent_counts().unwrap();
    assert_eq!(
        counts,
        [IntentCount {
            state: "held".into(),
            count: 3
        }]
    );
}

#[test]
fn a_tenant_without_a_customer_waits_and_a_new_ledger_gives_new_names() {
    let plan = |billable: &BTreeSet<String>| {
        let mut f = Fixture::new();
        f.book(&[event(1, Witness::Router, UsageSource::Reported, 10)]);
        let planned = f.ledger.plan("a", billable, NOW_S, true).unwrap();
        (planned, f.send_all(&Next::Accepted, 0))
    };
    assert_eq!(plan(&BTreeSet::new()), (0, vec![]));
    let ((_, one), (_, two)) = (plan(&tenants()), plan(&tenants()));
    assert_eq!((one.len(), two.len()), (3, 3));
    for intent in one {
        assert!(two.iter().all(|i| i.identifier != intent.identifier));
    }
}

/// Requests of an hour, a second apart, the oldest first.
fn requests() -> Vec<UsageEvent> {
    let request = |n: u8| {
        let mut e = event(n, Witness::Router, UsageSource::Reported, n.into());
        let ms = (NOW_S as u64 + u64::from(n)) * 1_000;
        e.request_id = RequestId::mint(ms, [n; 10]).to_string();
        e
    };
    (1..=4).map(request).collect()
}

#[test]
fn requests_are_found_the_newest_first_and_by_pages() {
    let mut f = Fixture::new();
    let mut events = requests();
    events[2].tenant = "solo".into();
    f.book(&events);
    let mut gateway = event(1, Witness::Gateway, UsageSource::Estimated, 9);
    gateway.request_id.clone_from(&events[0].request_id);
    f.book(&[gateway]);
    let check = |wanted: Wanted, expected: &[u64]| {
        let found = f.ledger.requests(&wanted).unwrap();
        let inputs: Vec<u64> = found.iter().map(|r| r.tokens.input_tokens).collect();
        assert_eq!(inputs, expected, "{wanted:?}");
        found
    };
    let all = Wanted {
        limit: 100,
        ..Wanted::default()
    };
    let found = check(all.clone(), &[4, 3, 2, 1]);
    assert_eq!(found[3].witnesses, ["gateway", "router"]);
    let limit = |limit| Wanted {
        limit,
        ..all.clone()
    };
    check(limit(2), &[4, 3]);
    let before = Some(events[2].request_id.clone());
    check(Wanted { before, ..limit(1) }, &[2]);
    let tenant = Some("solo".to_owned());
    check(
        Wanted {
            tenant,
            ..all.clone()
        },
        &[3],
    );
    let since_ms = Some((NOW_S + 3) * 1_000);
    check(
        Wanted {
            since_ms,
            ..all.clone()
        },
        &[4, 3],
    );
    let request_id = Some(events[1].request_id.clone());
    check(
        Wanted {
            request_id,
            ..all.clone()
        },
        &[2],
    );
    let request_id = Some(RequestId::mint(1, [0; 10]).to_string());
    check(
        Wanted {
            request_id,
            ..all.clone()
        },
        &[],
    );
}

#[test]
fn a_number_that_is_passed_over_is_told_once_and_closed_late() {
    let mut f = Fixture::new();
    let numbered = |n: u8| {
        let mut e = event(n, Witness::Gateway, UsageSource::Reported, 1);
        e.producer_run = "run".into();
        e.sequence = n.into();
        e
    };
    f.book(&[numbered(1), numbered(5)]);
    let (now_ms, later_ms) = (NOW_S * 1_000, NOW_S * 1_000 + GAP_GRACE_MS);
    assert_eq!(f.ledger.missing(now_ms).unwrap(), 0);
    assert_eq!(f.ledger.tell_gaps(now_ms).unwrap(), []);
    let told = f.ledger.tell_gaps(later_ms).unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].witness, &*told[0].run), ("gateway", "run"));
    assert_eq!((told[0].first, told[0].last), (2, 4));
    f.book(&[numbered(3)]);
    assert_eq!(f.ledger.tell_gaps(later_ms).unwrap(), []);
    assert_eq!(f.ledger.missing(later_ms).unwrap(), 2);
    // One that is in quarantine came, too.
    let noted = Noted {
        id: 7,
        witness: Witness::Gateway.into(),
        run: "run".into(),
        number: 2,
    };
    f.ledger.note(&[noted], now_ms).unwrap();
    assert_eq!(f.ledger.noted_upto().unwrap(), 7);
    let left = f.ledger.gaps(later_ms).unwrap();
    assert_eq!((left[0].first, left[0].last, left.len()), (4, 4, 1));
    f.book(&[numbered(4)]);
    assert_eq!(f.ledger.missing(later_ms).unwrap(), 0);
    // A run that is idle for long is forgotten, and what it misses.
    f.book(&[numbered(9)]);
    assert_eq!(f.ledger.missing(later_ms).unwrap(), 3);
    let long_after_ms = now_ms + 41 * 86_400_000;
    assert_eq!(f.ledger.tell_gaps(long_after_ms).unwrap(), []);
    assert_eq!(f.ledger.missing(long_after_ms).unwrap(), 0);
}
