//! What is kept for good, what goes, and what the journal proves.

use super::*;

const DAY_MS: i64 = 86_400_000;

fn proof() -> Proof {
    Proof {
        tenant: tenant("acme"),
        meter: meter("input_tokens"),
        from: Hour::of_s(NOW_S),
        to: Hour(Hour::of_s(NOW_S).0 + 1),
    }
}

fn prove(ledger: &Ledger) -> (Proved, Vec<Behind>) {
    let mut behind = Vec::new();
    let proved = ledger.prove(&proof(), |one| behind.push(one), |_, _| ());
    (proved.unwrap(), behind)
}

/// Something that is used that much later.
fn book_later(f: &mut Fixture, ms: i64) {
    let mut event = router(9, 1);
    event.tenant = "solo".into();
    event.request_id = id(9, NOW_MS + ms).to_string();
    let two_witnesses = std::mem::replace(&mut f.policy.two_witnesses, false);
    f.book(&[event]);
    f.policy.two_witnesses = two_witnesses;
}

#[test]
fn a_day_goes_after_forty_with_what_did_not_fit_about_it() {
    let mut f = Fixture::new();
    f.book(&[router(1, 10), router(1, 11), router(2, 5)]);
    let drop_all = |f: &mut Fixture, now_ms: i64| {
        while f.drop_old(now_ms) {}
        f.check();
        let days = f.days().len();
        (days, f.number("SELECT COUNT(*) FROM discrepancy"))
    };
    // The clock alone lets nothing go.
    assert_eq!(drop_all(&mut f, NOW_MS + 41 * DAY_MS), (1, 1));
    book_later(&mut f, 41 * DAY_MS);
    assert_eq!(drop_all(&mut f, NOW_MS + 40 * DAY_MS), (2, 1));
    assert_eq!(drop_all(&mut f, NOW_MS + 41 * DAY_MS), (1, 0));
    // What was billed stays provable, but for the witnesses.
    let (proved, behind) = prove(&f.ledger);
    assert_eq!((proved.used, proved.total, proved.kept), (15, 15, 0));
    assert_eq!(proved.problems, [""; 0]);
    assert!(behind.iter().all(|b| b.witness == "dropped"));
}

#[test]
fn what_still_waits_does_not_go() {
    let mut f = Fixture::new();
    f.policy.two_witnesses = true;
    f.book(&[router(1, 10)]);
    book_later(&mut f, 50 * DAY_MS);
    let later_ms = NOW_MS + 50 * DAY_MS;
    while f.drop_old(later_ms) {}
    assert_eq!(f.ledger.waiting().unwrap(), 1);
    f.book_waiting(later_ms, false);
    while f.drop_old(later_ms) {}
    assert_eq!((f.input(), f.days().len()), ((10, 0), 1));
}

#[test]
fn a_large_day_goes_in_steps() {
    let mut f = Fixture::new();
    let many: Vec<UsageEvent> = (0..12_000_u32)
        .map(|n| {
            let mut random = [0; 10];
            random[..4].copy_from_slice(&n.to_be_bytes());
            let mut event = router(1, 1);
            event.request_id = RequestId::mint(NOW_MS.cast_unsigned(), random).to_string();
            event
        })
        .collect();
    f.book(&many);
    book_later(&mut f, 60 * DAY_MS);
    let mut steps = 0;
    while f.drop_old(NOW_MS + 60 * DAY_MS) {
        steps += 1;
    }
    // Two of 5,001, the rest, and the table; the table alone where that is quick.
    let expected = match f.ledger.is_shared() {
        true => 1,
        false => 4,
    };
    assert_eq!((steps, f.input()), (expected, (12_000, 0)));
}

#[test]
fn a_line_is_proved_back_to_its_requests() {
    let mut f = Fixture::new();
    let mut other = router(4, 100);
    other.tenant = "solo".into();
    f.book(&[router(1, 10), router(2, 5), other]);
    f.book(&[event(3, Witness::Router, UsageSource::Estimated, 9)]);
    f.book(&[router(3, 7)]);
    f.plan(NOW_S, true);
    f.send(&answered(200), NOW_MS);
    let (proved, behind) = prove(&f.ledger);
    let found = (
        proved.journal_lines,
        proved.lines,
        proved.requests,
        proved.kept,
    );
    // The other tenant's line is in another chain where there are shards.
    let walked = 5 - u64::from(f.ledger.is_shared());
    assert_eq!(found, (walked, 4, 3, 3));
    assert_eq!((proved.used, proved.total, proved.planned), (22, 22, 22));
    assert_eq!((proved.accepted, proved.at_stripe), (22, 22));
    assert_eq!(proved.problems, [""; 0]);
    let quantities: Vec<i64> = behind.iter().map(|b| b.quantity).collect();
    assert_eq!(quantities, [10, 5, 7]);
}

/// That another event is believed now is in the journal, even where it says the same.
#[test]
fn a_witness_that_changes_no_number_is_in_the_journal() {
    let mut f = Fixture::new();
    f.book(&[event(1, Witness::Gateway, UsageSource::Reported, 10)]);
    f.book(&[router(1, 10)]);
    let (proved, behind) = prove(&f.ledger);
    assert_eq!((proved.journal_lines, proved.lines), (2, 1));
    assert_eq!(proved.problems, [""; 0]);
    assert_eq!(behind[0].witness, "kept");
}

#[track_caller]
fn check_found(tampering: &str, names: &str) {
    let mut f = Fixture::new();
    f.book(&[router(1, 10), router(2, 5), router(3, 7)]);
    f.plan(NOW_S, true);
    f.send(&answered(200), NOW_MS);
    assert_eq!(prove(&f.ledger).0.problems, [""; 0]);
    f.tamper(tampering);
    let problems = prove(&f.ledger).0.problems.join("; ");
    assert!(problems.contains(names), "{tampering}: {problems:?}");
}

#[test]
fn what_was_tampered_with_is_found() {
    let second = "line 2 of the journal";
    check_found("UPDATE journal SET deltas = x'0006' WHERE seq = 2", second);
    check_found("UPDATE journal SET tenant = 'solo' WHERE seq = 2", second);
    check_found("DELETE FROM journal WHERE seq = 2", second);
    check_found(
        "DELETE FROM journal WHERE seq = 3",
        "the buckets' total is 22",
    );
    check_found(
        "UPDATE bucket SET total = total + 1",
        "the buckets' total is 23",
    );
    check_found("UPDATE bucket SET planned = 0", "the buckets' planned is 0");
    check_found("UPDATE intent SET delta = 1", "the buckets' accepted is 22");
    let day = NOW_MS / DAY_MS;
    let swap = format!("UPDATE request_{day} SET events = (SELECT events FROM request_{day} LIMIT 1)");
    let another = "the ledger has another event or quantity";
    check_found(&swap, another);
    check_found(&format!("UPDATE request_{day} SET posted = x''"), another);
    check_found(&format!("UPDATE request_{day} SET events = x'ff'"), another);
    let gone = "its events are gone before their time";
    check_found(&format!("DELETE FROM request_{day}"), gone);
    check_found(
        "UPDATE intent SET timestamp_s = timestamp_s - 3600",
        "is told under hour",
    );
}

#[test]
fn a_proof_reads_beside_who_books() {
    let mut f = Fixture::new();
    f.book(&[router(1, 10)]);
    let other = f.ledger.another().unwrap();
    let mut told = Vec::new();
    let proved = other.prove(
        &proof(),
        |_| f.book(&[router(2, 5)]),
        |done, of| told.push((done, of)),
    );
    let proved = proved.unwrap();
    assert_eq!((proved.used, proved.total), (10, 10));
    assert_eq!(told, [(1, 1)]);
    assert_eq!(prove(&other).0.used, 15);
}
