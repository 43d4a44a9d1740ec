//! From events to requests, buckets, the journal and gaps.

use super::*;
use crate::ledger::gaps::GAP_GRACE_MS;
use crate::stream::Noted;

#[test]
fn duplicates_and_worse_witnesses_change_nothing() {
    let mut f = Fixture::new();
    let gateway = event(1, Witness::Gateway, UsageSource::Reported, 99);
    f.book(&[router(1, 10)]);
    f.book(&[router(1, 10), gateway, router(1, 10)]);
    assert_eq!(f.input(), (10, 0));
    assert_eq!(f.booked_upto(), 4);
}

#[test]
fn a_batch_that_comes_again_is_passed_over() {
    // Where there are shards, what was booked is known by itself.
    if Fixture::IS_SHARED {
        return;
    }
    let mut f = Fixture::new();
    f.book(&[router(1, 10), router(2, 5)]);
    f.seq = 0;
    f.book(&[router(3, 7), router(4, 7)]);
    assert_eq!(f.input(), (15, 0));
    assert_eq!(f.number("SELECT COUNT(*) FROM journal"), 2);
}

#[test]
fn a_better_witness_amends_and_a_contradiction_is_listed() {
    let mut f = Fixture::new();
    f.book(&[event(1, Witness::Router, UsageSource::Estimated, 10)]);
    f.book(&[router(1, 7)]);
    assert_eq!(f.input(), (7, 0));
    f.book(&[router(1, 8)]);
    f.book(&[router(1, 9)]);
    assert_eq!(f.input(), (7, 0));
    assert_eq!(f.ledger.conflicts().unwrap(), 1);
}

#[test]
fn a_request_waits_for_its_second_witness_until_it_is_due() {
    let mut f = Fixture::new();
    f.policy.two_witnesses = true;
    f.book(&[router(1, 10), router(2, 3)]);
    assert_eq!(f.ledger.summary(0).unwrap(), []);
    assert_eq!(f.ledger.waiting().unwrap(), 2);
    f.book(&[event(1, Witness::Gateway, UsageSource::Estimated, 1)]);
    assert_eq!((f.input(), f.ledger.waiting().unwrap()), ((10, 0), 1));
    assert_eq!(f.book_waiting(NOW_MS + 899_999, false), 0);
    assert_eq!(f.book_waiting(NOW_MS + 900_000, false), 1);
    assert_eq!((f.input(), f.ledger.waiting().unwrap()), ((13, 0), 0));
    let counts = f.ledger.discrepancy_counts().unwrap();
    assert_eq!((&*counts[0].state, counts[0].count), ("single_witness", 1));
    // The other one comes after all.
    f.book(&[event(2, Witness::Gateway, UsageSource::Estimated, 1)]);
    assert_eq!(f.ledger.discrepancy_counts().unwrap(), []);
    assert_eq!(f.input(), (13, 0));
}

#[test]
fn closed_books_wait_for_nobody() {
    let mut f = Fixture::new();
    f.policy.two_witnesses = true;
    f.book(&[router(1, 10)]);
    assert_eq!(f.book_waiting(NOW_MS, true), 1);
    assert_eq!(f.input(), (10, 0));
}

/// Requests of an hour, a second apart, the oldest first.
fn requests() -> Vec<UsageEvent> {
    let request = |n: u8| {
        let mut e = router(n, n.into());
        e.request_id = id(n, NOW_MS + i64::from(n) * 1_000).to_string();
        e
    };
    (1..=4).map(request).collect()
}

#[test]
fn requests_are_found_the_newest_first_and_by_pages() {
    let mut f = Fixture::new();
    let mut events = requests();
    events[2].tenant = "solo".into();
    // Of another day, and so in another table.
    let mut old = router(9, 9);
    old.request_id = id(9, NOW_MS - 3 * 86_400_000).to_string();
    events.push(old);
    f.book(&events);
    let mut gateway = event(1, Witness::Gateway, UsageSource::Estimated, 9);
    gateway.request_id.clone_from(&events[0].request_id);
    f.book(&[gateway]);
    let check = |wanted: Wanted, expected: &[u64]| {
        let found = f.ledger.requests(&wanted, &Tariff::default()).unwrap();
        let inputs: Vec<u64> = found.iter().map(|r| r.tokens.input_tokens).collect();
        assert_eq!(inputs, expected, "{wanted:?}");
        found
    };
    let all = Wanted {
        limit: 100,
        ..Wanted::default()
    };
    let with = |change: &dyn Fn(&mut Wanted)| {
        let mut wanted = all.clone();
        change(&mut wanted);
        wanted
    };
    let found = check(all.clone(), &[4, 3, 2, 1, 9]);
    assert_eq!(found[3].witnesses, ["gateway", "router"]);
    check(with(&|w| w.limit = 2), &[4, 3]);
    let before = Some(events[2].request_id.clone());
    check(with(&|w| (w.before, w.limit) = (before.clone(), 1)), &[2]);
    let before = Some(events[0].request_id.clone());
    check(with(&|w| w.before.clone_from(&before)), &[9]);
    check(with(&|w| w.tenant = Some("solo".into())), &[3]);
    check(with(&|w| w.since_ms = Some((NOW_S + 3) * 1_000)), &[4, 3]);
    let one = Some(events[1].request_id.clone());
    check(with(&|w| w.request_id.clone_from(&one)), &[2]);
    for wrong in ["x", "", &id(0, 1).to_string()] {
        check(with(&|w| w.request_id = Some(wrong.into())), &[]);
    }
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
    let later_ms = NOW_MS + GAP_GRACE_MS;
    assert_eq!(f.ledger.missing(NOW_MS).unwrap(), 0);
    assert_eq!(f.ledger.tell_gaps(NOW_MS).unwrap(), []);
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
    f.ledger.note(book::STREAM, &[noted], NOW_MS).unwrap();
    assert_eq!(f.ledger.noted_upto(book::STREAM).unwrap(), 7);
    let left = f.ledger.gaps(later_ms).unwrap();
    assert_eq!((left[0].first, left[0].last, left.len()), (4, 4, 1));
    f.book(&[numbered(4)]);
    assert_eq!(f.ledger.missing(later_ms).unwrap(), 0);
    // A run that is idle for long is forgotten, and what it misses.
    f.book(&[numbered(9)]);
    assert_eq!(f.ledger.missing(later_ms).unwrap(), 3);
    let long_after_ms = NOW_MS + 41 * 86_400_000;
    assert_eq!(f.ledger.tell_gaps(long_after_ms).unwrap(), []);
    assert_eq!(f.ledger.missing(long_after_ms).unwrap(), 0);
}
