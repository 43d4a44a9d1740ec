//! Quarantine in the ledger.

use super::*;
use crate::{
    quarantine::Wanted,
    stream::{Aside, Way},
};

fn aside(reason: &str, place: Option<&str>, number: u64) -> Aside {
    Aside {
        bytes: vec![0, 0xff, b'x'],
        reason: reason.into(),
        place: place.map(str::to_owned),
        number: Some((Witness::Gateway, "run".into(), number)),
    }
}

#[test]
fn what_is_set_aside_is_held_until_it_goes_back() {
    let mut f = Fixture::new();
    let long = "x".repeat(5_000);
    let batch = [
        aside("a: wrong\0", None, 1),
        aside("b: wrong", Some("log:7"), 2),
        aside("b: wrong", Some("log:7"), 2),
        aside("c", Some(&long), 4),
    ];
    for now_ms in [NOW_MS, NOW_MS + 1] {
        f.ledger
            .set_aside(&batch[1..], Some("edge"), Way::Log, now_ms)
            .unwrap();
    }
    f.ledger
        .set_aside(&batch[..1], None, Way::Http, NOW_MS)
        .unwrap();
    assert_eq!(f.ledger.quarantined().unwrap(), 3);
    let all = Wanted {
        limit: 9,
        ..Wanted::default()
    };
    let found = f.ledger.quarantine(&all).unwrap();
    let reasons: Vec<&str> = found.iter().map(|one| &one.reason[..1]).collect();
    assert_eq!(reasons, ["a", "c", "b"]);
    let last = &found[2];
    assert_eq!((last.at_ms, last.bytes), (NOW_MS, 3));
    assert_eq!(
        (last.producer.as_deref(), last.way.as_deref(), last.place.as_deref()),
        (Some("edge"), Some("log"), Some("log:7"))
    );
    let wanted = Wanted {
        reason: Some("wrong".into()),
        before: Some(found[0].id),
        limit: 9,
    };
    let ids = |found: &[crate::quarantine::Held]| found.iter().map(|one| one.id).collect::<Vec<_>>();
    assert_eq!(f.ledger.quarantine(&wanted).unwrap()[0].id, last.id);
    let held = f.ledger.held(None, Some("wrong"), 0, 9).unwrap();
    assert_eq!(ids(&held), [last.id, found[0].id]);
    assert_eq!(held[0].bytes, [0, 0xff, b'x']);
    assert_eq!(ids(&f.ledger.held(None, None, last.id, 1).unwrap()), [found[1].id]);
    let some = [found[1].id, found[0].id, 99];
    let held = f.ledger.held(Some(&some), None, 0, 9).unwrap();
    assert_eq!(ids(&held), [found[1].id, found[0].id]);
    assert!(f.ledger.held(Some(&[]), None, 0, 9).unwrap().is_empty());
    assert_eq!(f.ledger.unquarantine(&some).unwrap(), 2);
    assert_eq!(f.ledger.unquarantine(&some).unwrap(), 0);
    assert_eq!(f.ledger.quarantined().unwrap(), 1);
    // They came, so they are not missing.
    let later_ms = NOW_MS + crate::ledger::gaps::GAP_GRACE_MS + 1;
    let gaps = f.ledger.gaps(later_ms).unwrap();
    assert_eq!((gaps.len(), gaps[0].first, gaps[0].last), (1, 3, 3));
}

/// What no event should hold, and Postgres does not take as text.
#[test]
fn a_zero_in_a_text_stops_nothing() {
    let mut f = Fixture::new();
    let mut event = router(1, 10);
    event.producer_run = "ru\0n".into();
    event.sequence = 1;
    f.book(&[event]);
    assert_eq!(f.input(), (10, 0));
}
