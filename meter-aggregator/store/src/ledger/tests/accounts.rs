//! What tenants owe, and what the router is told.

use weir_meter_core::dunning::{Account, Accounts as _, Action, Hold};

use super::*;

#[test]
fn an_account_is_kept_while_it_says_something() {
    let mut f = Fixture::new();
    let account = |f: &mut Fixture, of: &str| f.transaction(|c| c.account(of)).unwrap();
    assert_eq!(account(&mut f, "acme"), Account::default());
    f.transaction(|c| {
        c.set_due("acme", "in_2", true)?;
        c.set_due("acme", "in_1", true)?;
        c.set_due("acme", "in_1", true)?;
        c.set_hold("acme", Hold::Unknown, 5)?;
        c.set_hold("acme", Hold::Unknown, 6)
    })
    .unwrap();
    let mut wanted = Account {
        hold: Hold::Unknown,
        due: ["in_1", "in_2"].map(str::to_owned).into(),
    };
    assert_eq!(account(&mut f, "acme"), wanted);
    assert_eq!(account(&mut f, "solo"), Account::default());
    let listed = f.ledger.billing().unwrap().suspensions;
    assert_eq!((listed[0].hold.as_str(), listed[0].at_ms), ("unknown", 5));
    assert!(listed[0].problem.is_some());
    // Of one invoice something is said, and of no other.
    f.transaction(|c| {
        c.set_due("acme", "in_1", false)?;
        c.set_hold("acme", Hold::Ours, 7)?;
        c.set_hold("acme", Hold::Ours, 8)
    })
    .unwrap();
    wanted.hold = Hold::Ours;
    wanted.due.remove("in_1");
    assert_eq!(account(&mut f, "acme"), wanted);
    let listed = f.ledger.billing().unwrap().suspensions;
    assert_eq!((listed[0].hold.as_str(), listed[0].at_ms), ("ours", 7));
    assert_eq!((&*listed[0].invoices, &listed[0].problem), (&["in_2".to_owned()][..], &None));
    f.transaction(|c| {
        c.set_due("acme", "in_2", false)?;
        c.set_hold("acme", Hold::None, 9)
    })
    .unwrap();
    assert_eq!(account(&mut f, "acme"), Account::default());
    assert!(f.ledger.billing().unwrap().suspensions.is_empty());
}

#[test]
fn a_call_that_may_come_is_looked_at_at_its_time() {
    let mut f = Fixture::new();
    let put = |f: &mut Fixture, action, now_ms, look_ms| {
        f.transaction(|c| c.put_call("acme", action, now_ms, look_ms))
            .unwrap()
    };
    assert_eq!(put(&mut f, Action::Suspend, 10, 70), 10);
    assert_eq!(put(&mut f, Action::Resume, 11, 71), 11);
    // Each has another stamp, whatever the clock says.
    for (now_ms, stamp) in [(10, 11), (10, 12), (20, 20)] {
        assert_eq!(put(&mut f, Action::Suspend, now_ms, 80), stamp);
    }
    let calls = f.transaction(|c| c.calls("acme")).unwrap();
    let wanted = [(Action::Suspend, 20), (Action::Resume, 11)];
    assert_eq!(calls, BTreeMap::from(wanted));
    assert!(f.transaction(|c| c.calls("solo")).unwrap().is_empty());
    assert_eq!(f.ledger.next_webhook(70).unwrap(), None);
    let due = f.ledger.next_webhook(71).unwrap().unwrap();
    assert_eq!((due.call(), &*due.about), (Some(Action::Resume), "acme"));
    f.transaction(|c| c.drop_call("acme", Action::Resume))
        .unwrap();
    assert_eq!(f.ledger.next_webhook(79).unwrap(), None);
    let due = f.ledger.next_webhook(80).unwrap().unwrap();
    assert_eq!(due.call(), Some(Action::Suspend));
    f.transaction(|c| c.webhook_again(&due, "away", 80)).unwrap();
    assert_eq!(f.ledger.next_webhook(1_079).unwrap(), None);
}
