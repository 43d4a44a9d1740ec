//! One worker stands still or dies in the middle of an event, and another does all there is.

use weir_meter_core::{
    dunning::{Accounts as _, Action},
    lease::Scope,
};
use weir_meter_store::ledger::Change;

use super::*;

/// Two workers, and a tenant with two invoices: A knows nothing of the second one.
#[tokio::test]
async fn what_another_wrote_of_another_invoice_is_not_forgotten() {
    let fixture = Fixture::start().await;
    fixture.invoice("in_1", "open", 2);
    fixture
        .event("evt_1", "invoice.payment_failed", "in_1")
        .await;
    let (gate, task) = fixture.stopped_at("get").await;
    fixture.invoice("in_2", "open", 2);
    fixture
        .event("evt_2", "invoice.payment_failed", "in_2")
        .await;
    fixture.another().handle_due().await;
    gate.open.notify_one();
    task.await.unwrap();
    let listed = fixture.billing().await.suspensions;
    let found = (listed[0].hold.as_str(), listed[0].invoices.len());
    assert_eq!(found, ("ours", 2));
    fixture.invoice("in_1", "paid", 2);
    fixture.event("evt_3", "invoice.paid", "in_1").await;
    fixture.worker.handle_due().await;
    assert!(fixture.suspended());
    fixture.invoice("in_2", "paid", 2);
    fixture.event("evt_4", "invoice.paid", "in_2").await;
    fixture.worker.handle_due().await;
    assert!(!fixture.suspended());
    let billing = fixture.billing().await;
    assert_eq!((billing.waiting, billing.suspensions.len()), (0, 0));
}

/// A decided to suspend, and its call comes when B has seen that all is paid.
#[tokio::test]
async fn a_suspension_that_comes_late_is_undone() {
    let fixture = Fixture::start().await;
    fixture.invoice("in_1", "open", 2);
    fixture
        .event("evt_1", "invoice.payment_failed", "in_1")
        .await;
    let (gate, task) = fixture.stopped_at("suspend").await;
    fixture.invoice("in_1", "paid", 2);
    fixture.event("evt_2", "invoice.paid", "in_1").await;
    fixture.another().handle_due().await;
    assert!(fixture.billing().await.suspensions.is_empty());
    gate.open.notify_one();
    task.await.unwrap();
    assert_eq!((fixture.suspended(), fixture.changes()), (false, 2));
    assert!(fixture.billing().await.suspensions.is_empty());
}

/// The same the other way round: A's resumption comes when there is another debt.
#[tokio::test]
async fn a_resumption_that_comes_late_is_undone() {
    let fixture = Fixture::start().await;
    fixture.invoice("in_1", "open", 2);
    fixture
        .event("evt_1", "invoice.payment_failed", "in_1")
        .await;
    fixture.worker.handle_due().await;
    fixture.invoice("in_1", "paid", 2);
    fixture.event("evt_2", "invoice.paid", "in_1").await;
    let (gate, task) = fixture.stopped_at("resume").await;
    fixture.invoice("in_2", "open", 2);
    fixture
        .event("evt_3", "invoice.payment_failed", "in_2")
        .await;
    fixture.another().handle_due().await;
    gate.open.notify_one();
    task.await.unwrap();
    assert!(fixture.suspended());
    let listed = fixture.billing().await.suspensions;
    let found = (listed[0].hold.as_str(), &*listed[0].invoices);
    assert_eq!(found, ("ours", &["in_2".to_owned()][..]));
}

/// A dies with its call on the way, and B is done with all before it comes.
#[tokio::test]
async fn what_one_that_died_told_the_router_is_looked_at_later() {
    let fixture = Fixture::start().await;
    fixture.invoice("in_1", "open", 2);
    fixture
        .event("evt_1", "invoice.payment_failed", "in_1")
        .await;
    let (_gate, task) = fixture.stopped_at("suspend").await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    fixture.invoice("in_1", "paid", 2);
    fixture.event("evt_2", "invoice.paid", "in_1").await;
    let other = fixture.another();
    other.handle_due().await;
    let billing = fixture.billing().await;
    assert_eq!((billing.waiting, billing.suspensions.len()), (1, 0));
    let suspend = |to| {
        let mut all = fixture.router.suspended.lock().unwrap();
        all.insert("acme".to_owned(), to);
    };
    suspend(true);
    other.handle_due().await;
    assert!(fixture.suspended());
    // Its time has come.
    let soon = |c: &mut Change<'_>| {
        c.drop_call("acme", Action::Suspend)?;
        c.put_call("acme", Action::Suspend, 0, 0)
    };
    fixture
        .books
        .with(move |l| l.transaction(Scope::Whole, soon))
        .await
        .unwrap();
    other.handle_due().await;
    assert!(!fixture.suspended());
    let billing = fixture.billing().await;
    assert_eq!((billing.waiting, billing.suspensions.len()), (0, 0));
    // Whom nobody told anything of, an operator suspended.
    suspend(true);
    fixture.event("evt_3", "invoice.paid", "in_1").await;
    other.handle_due().await;
    assert!(fixture.suspended());
}

#[tokio::test]
async fn what_was_decided_too_long_ago_is_not_told() {
    let fixture = Fixture::start().await;
    fixture.invoice("in_1", "open", 2);
    fixture
        .event("evt_1", "invoice.payment_failed", "in_1")
        .await;
    let mut worker = fixture.another();
    worker.patience = Duration::ZERO;
    worker.handle_due().await;
    assert_eq!((fixture.suspended(), fixture.changes()), (false, 0));
    let billing = fixture.billing().await;
    assert!(billing.problem.unwrap().contains("too long"));
    fixture
        .event("evt_2", "invoice.payment_failed", "in_1")
        .await;
    fixture.worker.handle_due().await;
    assert!(fixture.suspended());
}
