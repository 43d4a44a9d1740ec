//! Events, accounts and reports in the ledger.

use super::*;

fn ledger() -> (tempfile::TempDir, Ledger) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    (folder, ledger)
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
    ledger
        .webhook_again(&first, "Stripe is away", 5_000)
        .unwrap();
    let next = ledger.next_webhook(5_999).unwrap().unwrap();
    assert_eq!(next.id, "evt_2");
    ledger.webhook_done("evt_2").unwrap();
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
    ledger.webhook_again(&late, "x", 0).unwrap();
    assert_eq!(ledger.next_webhook(PAUSE_MAX_MS - 1).unwrap(), None);
    assert!(ledger.next_webhook(PAUSE_MAX_MS).unwrap().is_some());
    // A known event stays done until it is forgotten.
    assert!(!ledger.take_webhook(&paid("evt_2"), 9_000).unwrap());
    assert_eq!(ledger.forget_webhooks(IDLE_MAX_MS + 1_001).unwrap(), 1);
    assert_eq!(ledger.forget_webhooks(IDLE_MAX_MS + 9_000).unwrap(), 0);
    assert!(ledger.take_webhook(&paid("evt_2"), 9_000).unwrap());
}

#[test]
fn an_account_is_kept_while_it_says_something() {
    let (_folder, mut ledger) = ledger();
    assert_eq!(ledger.account("acme").unwrap(), Account::default());
    let mut account = Account {
        hold: Hold::Suspending,
        due: ["in_2", "in_1"].map(str::to_owned).into(),
    };
    ledger.set_account("acme", &account, Some("no"), 5).unwrap();
    ledger.set_account("acme", &account, None, 6).unwrap();
    assert_eq!(ledger.account("acme").unwrap(), account);
    assert_eq!(ledger.account("solo").unwrap(), Account::default());
    account.hold = Hold::Ours;
    account.due.remove("in_1");
    ledger.set_account("acme", &account, None, 7).unwrap();
    ledger.set_account("acme", &account, None, 8).unwrap();
    let listed = ledger.billing().unwrap().suspensions;
    let wanted = Suspension {
        tenant: "acme".to_owned(),
        hold: "ours".to_owned(),
        at_ms: 7,
        invoices: vec!["in_2".to_owned()],
        problem: None,
    };
    assert_eq!(listed, [wanted]);
    ledger
        .set_account("acme", &Account::default(), None, 9)
        .unwrap();
    assert!(ledger.billing().unwrap().suspensions.is_empty());
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
        ledger
            .note_meter_errors("evt_1", "mtr_1", &report, now_ms)
            .unwrap();
    }
    let found = ledger.billing().unwrap().meter_errors;
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].count, found[0].at_ms, found[0].message.as_str()),
        (3, 1, "gone")
    );
    assert_eq!(found[0].identifiers, ["weir_1", "weir_2"]);
}
