//! Events, accounts and reports in the ledger.

use weir_meter_core::lease::Scope;

use super::*;

fn ledger() -> (tempfile::TempDir, Ledger) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    (folder, ledger)
}

fn change<T>(
    ledger: &mut Ledger,
    work: impl FnOnce(&mut Change<'_>) -> Result<T, LedgerError>,
) -> T {
    ledger.transaction(Scope::Whole, work).unwrap()
}

fn notice(id: &str, what: What) -> Notice {
    Notice {
        id: id.to_owned(),
        kind: "invoice.paid".to_owned(),
        what,
    }
}

#[test]
fn an_event_is_dealt_with_once_and_again_where_it_fails() {
    let (folder, mut ledger) = ledger();
    let paid = |id: &str| notice(id, What::Invoice("in_1".to_owned()));
    assert!(ledger.take_webhook(&paid("evt_2"), 2_000).unwrap());
    assert!(ledger.take_webhook(&paid("evt_1"), 1_000).unwrap());
    assert!(!ledger.take_webhook(&paid("evt_1"), 9_000).unwrap());
    assert!(
        !ledger
            .take_webhook(&notice("evt_3", What::Other), 0)
            .unwrap()
    );
    // What was written outlives the process.
    drop(ledger);
    let mut ledger = Ledger::open(folder.path()).unwrap();
    let first = ledger.next_webhook(5_000).unwrap().unwrap();
    assert_eq!(
        (first.id.as_str(), first.about.as_str(), first.tries),
        ("evt_1", "in_1", 0)
    );
    change(&mut ledger, |c| {
        c.webhook_again(&first, "Stripe is away", 5_000)
    });
    let next = ledger.next_webhook(5_999).unwrap().unwrap();
    assert_eq!(next.id, "evt_2");
    change(&mut ledger, |c| c.webhook_done("evt_2"));
    assert_eq!(ledger.next_webhook(5_999).unwrap(), None);
    let billing = ledger.billing().unwrap();
    assert_eq!(
        (billing.waiting, billing.problem.as_deref()),
        (1, Some("Stripe is away"))
    );
    let again = ledger.next_webhook(6_000).unwrap().unwrap();
    assert_eq!((again.id.as_str(), again.tries), ("evt_1", 1));
    // A pause doubles, up to its bound.
    let mut late = again;
    late.tries = 4_000;
    change(&mut ledger, |c| c.webhook_again(&late, "x", 0));
    assert_eq!(ledger.next_webhook(PAUSE_MAX_MS - 1).unwrap(), None);
    assert!(ledger.next_webhook(PAUSE_MAX_MS).unwrap().is_some());
    // A known event stays done until it is forgotten.
    assert!(!ledger.take_webhook(&paid("evt_2"), 9_000).unwrap());
    for (now_ms, open) in [(IDLE_MAX_MS + 1_001, 1), (IDLE_MAX_MS + 9_000, 0)] {
        let found = change(&mut ledger, |c| c.forget_webhooks(now_ms));
        assert_eq!(found, open);
    }
    assert!(ledger.take_webhook(&paid("evt_2"), 9_000).unwrap());
}

#[test]
fn a_report_is_kept_once() {
    let (_folder, mut ledger) = ledger();
    let report: ErrorReport = serde_json::from_value(serde_json::json!({
        "reason": {"error_count": 3, "error_types": [
            {"code": "no_meter", "error_count": 3, "sample_errors": [
                {"error_message": "gone", "request": {"identifier": "weir_1"}},
                {"error_message": "gone, too", "request": {"identifier": "weir_2"}}]}]},
    }))
    .unwrap();
    for now_ms in [1, 2] {
        change(&mut ledger, |c| {
            c.note_meter_errors("evt_1", "mtr_1", &report, now_ms)
        });
    }
    let found = ledger.billing().unwrap().meter_errors;
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].count, found[0].at_ms, found[0].message.as_str()),
        (3, 1, "gone")
    );
    assert_eq!(found[0].identifiers, ["weir_1", "weir_2"]);
}
