//! Several ledgers on one Postgres.

use std::{sync::Barrier, thread};

use weir_meter_core::{
    dunning::{self, Account, Action, Decision, Hold, OnPaymentFailed, OnUncollectible, Seen, Why},
    lease::{Lease, Leases as _, Member, Replica, Terms},
    stripe::{Invoice, InvoiceStatus, Notice, What},
};

use super::{
    super::postgres::schema::{Migration, prepare_to},
    *,
};
use crate::testing;

type F = Fixture<Postgres>;

fn another(f: &F) -> Ledger {
    f.ledger.another().unwrap()
}

/// A tenant of that shard.
fn tenant_of(shard: Shard) -> TenantId {
    (0..)
        .map(|n: u32| tenant(&format!("tenant-{n}")))
        .find(|tenant| Shard::of(tenant) == shard)
        .unwrap()
}

fn acme() -> Shard {
    Shard::of(&tenant("acme"))
}

fn rules(policy: &Policy) -> Rules<'_> {
    static TARIFF: std::sync::LazyLock<Tariff> = std::sync::LazyLock::new(Tariff::default);
    Rules {
        tariff: &TARIFF,
        policy,
    }
}

/// Books an event in that scope, without a position.
fn book(ledger: &mut Ledger, scope: Scope, events: &[UsageEvent]) -> Result<(), LedgerError> {
    let policy = Policy {
        two_witnesses: false,
        ..Policy::default()
    };
    let events = events.iter().cloned().map(|event| (1, event)).collect();
    ledger.book(scope, events, &rules(&policy), NOW_MS, None)
}

fn claim(ledger: &mut Ledger, shard: Shard, epoch: i64, holder: &str) -> bool {
    ledger
        .leases(|leases| leases.claim(shard, epoch, Some(holder)))
        .unwrap()
}

#[test]
fn replicas_that_start_at_once_make_the_tables_once() {
    let place = testing::postgres().database();
    let start = Barrier::new(4);
    thread::scope(|scope| {
        let opened: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    let mut ledger = Ledger::open_at(&place).unwrap();
                    let scope = Scope::Asked(acme());
                    let identity = ledger.transaction(scope, |change| change.identity());
                    identity.map_err(|error: LedgerError| error).unwrap()
                })
            })
            .collect();
        let ids: BTreeSet<String> = opened.into_iter().map(|t| t.join().unwrap()).collect();
        assert_eq!(ids.len(), 1);
    });
}

#[test]
fn an_older_program_works_beside_a_newer_form_as_long_as_it_may() {
    let Place::Postgres(settings) = testing::postgres().database() else {
        panic!("another place");
    };
    let steps = [
        ("CREATE TABLE a (n BIGINT)", 1, 1),
        ("ALTER TABLE a ADD COLUMN m BIGINT", 2, 1),
        ("ALTER TABLE a DROP COLUMN n", 3, 2),
    ];
    let steps = steps.map(|(sql, version, oldest)| Migration {
        version,
        oldest,
        sql,
    });
    let open = |version: usize| {
        let mut session = Session::new(&settings.url).unwrap();
        prepare_to(&mut session, version as i64, &steps[..version])
    };
    for version in [1, 2, 1, 2, 3, 2] {
        open(version).unwrap();
    }
    let error = open(1).unwrap_err().to_string();
    let says = "is of version 3, on which programs of version 2 and later can work; this \
                meter-aggregator is of version 1";
    assert!(error.contains(says), "{error}");
}

#[test]
fn who_lost_its_shard_writes_nothing_more() {
    let mut f = F::new();
    let mut other = another(&f);
    let held = |epoch| {
        let shard = acme();
        Scope::Held(Lease { shard, epoch })
    };
    assert!(claim(&mut f.ledger, acme(), 0, "one"));
    book(&mut f.ledger, held(1), &[router(1, 10)]).unwrap();
    assert!(!claim(&mut other, acme(), 0, "two"));
    assert!(claim(&mut other, acme(), 1, "two"));
    let fenced = book(&mut f.ledger, held(1), &[router(2, 10)]).unwrap_err();
    assert!(matches!(fenced, LedgerError::Fenced { shard } if shard == acme()));
    assert!(!fenced.is_passing());
    book(&mut other, held(2), &[router(3, 5)]).unwrap();
    // An operator's word counts whoever holds the shard.
    book(&mut f.ledger, Scope::Asked(acme()), &[router(4, 1)]).unwrap();
    f.check();
    assert_eq!(f.input(), (16, 0));
    let rows = f.ledger.leases(|leases| leases.rows()).unwrap();
    let row = &rows[usize::from(acme().number())];
    assert_eq!((rows.len(), row.epoch), (16, 2));
    assert_eq!(row.holder.as_deref(), Some("two"));
    let whole = book(&mut f.ledger, Scope::Whole, &[]).unwrap_err();
    assert!(matches!(whole, LedgerError::Database(_)));
}

/// A decides that a tenant is suspended, and stands still before it says so to the router;
/// B has the invoice paid; and A goes on.
#[test]
fn who_lost_the_first_shard_writes_nothing_of_an_account_and_is_made_good() {
    let mut f = F::new();
    let mut other = another(&f);
    let shard = Shard::new(0).unwrap();
    let held = |epoch| Scope::Held(Lease { shard, epoch });
    let policy = dunning::Policy {
        on_payment_failed: OnPaymentFailed::Suspend,
        after_attempts: 1.try_into().unwrap(),
        on_uncollectible: OnUncollectible::Keep,
    };
    let invoice = |id: &str, status| Invoice {
        id: id.into(),
        customer: None,
        status: Some(status),
        attempt_count: 1,
        period_start: 0,
        period_end: 1,
    };
    let decide = |ledger: &mut Ledger, epoch, why: Why<'_>, seen, now_ms| {
        ledger.transaction(held(epoch), |c| {
            let view = dunning::look(c, "acme")?;
            dunning::decide(c, "acme", &view, why, seen, now_ms)
        })
    };
    let fenced = |done: Result<(), LedgerError>| {
        assert!(matches!(done, Err(LedgerError::Fenced { .. })), "{done:?}");
    };
    // Any replica takes an event.
    for (n, ledger) in [&mut f.ledger, &mut other].into_iter().enumerate() {
        let notice = Notice {
            id: format!("evt_{n}"),
            kind: "invoice.paid".into(),
            what: What::Invoice("in_1".into()),
        };
        assert!(ledger.take_webhook(&notice, NOW_MS).unwrap());
    }
    assert!(claim(&mut f.ledger, shard, 0, "A"));
    let (due, paid) = (
        invoice("in_1", InvoiceStatus::Open),
        invoice("in_1", InvoiceStatus::Paid),
    );
    let why = Why::Invoice(&policy, &due);
    let decided = decide(&mut f.ledger, 1, why, Seen::Active, NOW_MS).unwrap();
    let Decision::Tell(call) = decided else {
        panic!("{decided:?}");
    };
    assert_eq!(call.action, Action::Suspend);
    // B finds what A was about to do, and that the router has not heard of it.
    assert!(claim(&mut other, shard, 1, "B"));
    let why = Why::Invoice(&policy, &paid);
    let agreed = decide(&mut other, 2, why, Seen::Active, NOW_MS + 1).unwrap();
    assert_eq!(agreed, Decision::Agreed(Account::default()));
    // What A does is for nothing, but that it says what it told the router.
    let late = Why::Invoice(&policy, &due);
    fenced(decide(&mut f.ledger, 1, late, Seen::Active, NOW_MS).map(|_| ()));
    let webhook = f.ledger.next_webhook(NOW_MS).unwrap().unwrap();
    fenced(
        f.ledger
            .transaction(held(1), |c| c.webhook_done(&webhook.id)),
    );
    fenced(
        f.ledger
            .transaction(held(1), |c| c.webhook_again(&webhook, "x", NOW_MS)),
    );
    fenced(
        f.ledger
            .transaction(held(1), |c| c.forget_webhooks(i64::MAX).map(|_| ())),
    );
    let done = |ledger: &mut Ledger, epoch, call: &dunning::Call, seen| {
        ledger.transaction(held(epoch), |c| {
            dunning::done(c, "acme", call, seen, NOW_MS + 2).map(|_| ())
        })
    };
    fenced(done(&mut f.ledger, 1, &call, Seen::Suspended));
    assert!(f.ledger.billing().unwrap().suspensions.is_empty());
    f.ledger
        .transaction(Scope::Asked(shard), |c| {
            dunning::doubt(c, "acme", call.action, NOW_MS + 2, NOW_MS + 2)
        })
        .unwrap();
    // B looks at once, resumes it, and once more when nothing can come any more.
    for id in ["evt_0", "evt_1"] {
        other.transaction(held(2), |c| c.webhook_done(id)).unwrap();
    }
    let due = other.next_webhook(NOW_MS + 2).unwrap().unwrap();
    assert_eq!((due.call(), &*due.about), (Some(Action::Suspend), "acme"));
    let why = Why::Doubt(Action::Suspend);
    let decided = decide(&mut other, 2, why, Seen::Suspended, NOW_MS + 2).unwrap();
    let Decision::Tell(call) = decided else {
        panic!("{decided:?}");
    };
    assert_eq!(
        (call.action, call.account.hold),
        (Action::Resume, Hold::Resuming)
    );
    done(&mut other, 2, &call, Seen::Active).unwrap();
    let later_ms = NOW_MS + 10 + dunning::DOUBT_MS;
    assert_eq!(other.next_webhook(NOW_MS + 1_000).unwrap(), None);
    let due = other.next_webhook(later_ms).unwrap().unwrap();
    assert_eq!(due.call(), Some(Action::Suspend));
    let agreed = decide(&mut other, 2, why, Seen::Active, later_ms).unwrap();
    assert_eq!(agreed, Decision::Agreed(Account::default()));
    assert_eq!(other.next_webhook(i64::MAX).unwrap(), None);
}

/// Whoever waited for its shard's row sees what was committed meanwhile, whatever the
/// database has as its default.
#[test]
fn a_transaction_is_at_read_committed() {
    let mut f = F::new();
    let name = "SELECT current_database()";
    let name: String = f
        .ledger
        .connection
        .query_row(name, [], |row| row.get(0))
        .unwrap();
    f.tamper(&format!(
        "ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'"
    ));
    f.reopen();
    let level = |connection: &Connection| -> String {
        let query = "SELECT current_setting('transaction_isolation')";
        connection.query_row(query, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(level(&f.ledger.connection), "serializable");
    let within = f.transaction(|c| Ok::<_, LedgerError>(level(&c.transaction)));
    assert_eq!(within.unwrap(), "read committed");
    let transaction = f.ledger.connection.transaction().unwrap();
    assert_eq!(level(&transaction), "read committed");
    drop(transaction);
    let snapshot = f.ledger.connection.snapshot().unwrap();
    assert_eq!(level(&snapshot), "repeatable read");
}

#[test]
fn a_shard_that_is_worked_on_is_not_claimed_now() {
    let mut f = F::new();
    let mut other = another(&f);
    f.transaction(|_| {
        assert!(!claim(&mut other, acme(), 0, "two"));
        let free = Shard::new(0).unwrap();
        assert!(claim(&mut other, free, 0, "two"));
        Ok::<_, LedgerError>(())
    })
    .unwrap();
    assert!(claim(&mut other, acme(), 0, "two"));
}

#[test]
fn replicas_are_known_by_their_rows() {
    let mut f = F::new();
    let replica = |id: &str, until_ms| Replica {
        id: id.into(),
        version: 3,
        until_ms,
    };
    let found = f.ledger.leases(|leases| {
        for (id, until_ms) in [("b", 1), ("a", 2), ("b", 3), ("c", 4)] {
            leases.put_replica(&replica(id, until_ms))?;
        }
        leases.drop_replica("c")?;
        let now_ms = leases.now_ms()?;
        assert!((now_ms - weir_process::now_ms()).abs() < 60_000);
        leases.replicas()
    });
    assert_eq!(found.unwrap(), [replica("a", 2), replica("b", 3)]);
}

#[test]
fn replicas_share_the_shards_and_take_over() {
    let mut f = F::new();
    let mut other = another(&f);
    let terms = Terms::default();
    let member = |id: &str| Member {
        id: id.into(),
        version: VERSION,
        wants_all: false,
    };
    let beat = |ledger: &mut Ledger, id: &str| {
        let held = ledger.leases(|leases| lease::keep(leases, &member(id), &terms));
        held.unwrap()
    };
    assert_eq!(beat(&mut f.ledger, "one").len(), 16);
    assert_eq!(beat(&mut other, "two").len(), 0);
    assert_eq!(beat(&mut f.ledger, "one").len(), 8);
    let held = beat(&mut other, "two");
    assert_eq!(held.len(), 8);
    // Whoever is gone loses all, and what it still does is fenced.
    let gone = "UPDATE replica SET until_ms = until_ms - 60000 WHERE id = 'two'";
    f.ledger.connection.execute_batch(gone).unwrap();
    assert_eq!(beat(&mut f.ledger, "one").len(), 16);
    let late = other.transaction(Scope::Held(held[0]), |change| change.set_progress("x", 1));
    assert!(matches!(late, Err(LedgerError::Fenced { .. })));
    f.ledger
        .leases(|leases| lease::leave(leases, &member("one")))
        .unwrap();
    assert_eq!(beat(&mut other, "two").len(), 16);
}

/// Whoever saw no table of a day looks again before it bills as new what is in there.
#[test]
fn what_another_replica_booked_is_not_billed_again() {
    let mut f = F::new();
    let mut other = another(&f);
    let mut old = router(2, 7);
    old.request_id = id(2, NOW_MS - 86_400_000).to_string();
    let scope = Scope::Asked(acme());
    for event in [router(1, 10), old] {
        let event = [event];
        book(&mut f.ledger, scope, &event).unwrap();
        book(&mut other, scope, &event).unwrap();
        book(&mut f.ledger, scope, &event).unwrap();
    }
    f.check();
    let lines = f.ledger.summary(0).unwrap();
    let input = lines.iter().filter(|line| line.meter == "input_tokens");
    assert_eq!(input.map(|line| line.total).sum::<i64>(), 17);
    assert_eq!(f.number("SELECT COUNT(*) FROM journal"), 2);
}

/// A day that another one dropped is forgotten after it failed once.
#[test]
fn a_day_that_is_gone_is_forgotten() {
    let f = F::new();
    let mut other = another(&f);
    let scope = Scope::Asked(acme());
    book(&mut other, scope, &[router(1, 10)]).unwrap();
    let day = partitions::table(partitions::day_of_ms(NOW_MS));
    f.tamper(&format!("DROP TABLE {day}"));
    let failed = book(&mut other, scope, &[router(2, 10)]).unwrap_err();
    assert!(failed.is_passing(), "{failed:?}");
    book(&mut other, scope, &[router(2, 10)]).unwrap();
}

/// Four replicas at once, each with shards of its own, one producer for all of them.
#[test]
fn shards_are_booked_side_by_side() {
    const EACH: u64 = 40;
    let mut f = F::new();
    let shards = [1, 5, 9, 14].map(|n| Shard::new(n).unwrap());
    let start = Barrier::new(shards.len());
    thread::scope(|scope| {
        for (place, shard) in shards.into_iter().enumerate() {
            let (mut ledger, start) = (another(&f), &start);
            scope.spawn(move || {
                start.wait();
                let name = tenant_of(shard);
                for n in 0..EACH {
                    let ms = NOW_MS + (n as i64 % 4) * 86_400_000;
                    let mut event = router(1, 10);
                    event.request_id = id(u8::try_from(n).unwrap(), ms).to_string();
                    event.tenant = name.to_string();
                    event.producer_run = "run".into();
                    event.sequence = n * 4 + place as u64 + 1;
                    // One number is nobody's.
                    event.sequence += u64::from(event.sequence > 50);
                    loop {
                        let done = book(&mut ledger, Scope::Asked(shard), &[event.clone()]);
                        match done {
                            Ok(()) => break,
                            Err(error) => assert!(error.is_passing(), "{error:?}"),
                        }
                    }
                }
            });
        }
    });
    f.check();
    let total =
        f.number("SELECT CAST(SUM(total) AS BIGINT) FROM bucket WHERE meter = 'input_tokens'");
    assert_eq!(total, 4 * 10 * EACH as i64);
    assert_eq!(f.days().len(), 4);
    let later_ms = NOW_MS + gaps::GAP_GRACE_MS;
    let gaps = f.ledger.tell_gaps(later_ms).unwrap();
    let found: Vec<(u64, u64)> = gaps.iter().map(|gap| (gap.first, gap.last)).collect();
    assert_eq!(found, [(51, 51)]);
    assert_eq!(f.number("SELECT COUNT(*) FROM seen"), 0);
}

/// Parts of a run that come later than others are no gap, however many they are.
#[test]
fn what_another_shard_brings_later_is_no_gap() {
    let mut f = F::new();
    let mut late = Vec::new();
    let mut early = Vec::new();
    for n in 1..=3_000_u64 {
        match n % 2 {
            0 => late.push((1, "run", n)),
            _ => early.push((1, "run", n)),
        }
    }
    let see = |f: &mut F, came: Vec<(i32, &'static str, u64)>, at_ms: i64| {
        f.transaction(|change| {
            gaps::see(&change.transaction, came.into_iter(), at_ms)?;
            Ok::<_, LedgerError>(())
        })
        .unwrap();
    };
    see(&mut f, early, NOW_MS);
    see(&mut f, late, NOW_MS + gaps::GAP_GRACE_MS / 2);
    assert_eq!(f.ledger.missing(NOW_MS + gaps::GAP_GRACE_MS).unwrap(), 0);
    assert_eq!(f.number("SELECT COUNT(*) FROM seen"), 1);
    assert_eq!(
        f.ledger.missing(NOW_MS + 2 * gaps::GAP_GRACE_MS).unwrap(),
        0
    );
    assert_eq!(f.number("SELECT COUNT(*) FROM seen"), 0);
}

#[test]
fn a_connection_that_was_ended_is_made_anew_and_bills_once() {
    let mut f = F::new();
    book(&mut f.ledger, Scope::Asked(acme()), &[router(1, 10)]).unwrap();
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE pid <> pg_backend_pid() AND datname = current_database()";
    let killer = another(&f);
    let end = || killer.connection.execute_batch(kill).unwrap();
    // Between two transactions, in the middle of one, and before it is committed.
    end();
    let failed = book(&mut f.ledger, Scope::Asked(acme()), &[router(2, 5)]).unwrap_err();
    assert!(failed.is_passing(), "{failed:?}");
    book(&mut f.ledger, Scope::Asked(acme()), &[router(2, 5)]).unwrap();
    let failed = f.transaction(|change| {
        change.add_to_buckets(&[(bucket("input_tokens"), 100)])?;
        end();
        let lost = change.add_to_buckets(&[(bucket("input_tokens"), 100)]);
        assert!(lost.unwrap_err().is_passing());
        // What is swallowed is not committed, nor done outside of the transaction.
        assert!(change.identity().is_err());
        Ok::<_, LedgerError>(())
    });
    assert!(failed.is_err());
    let failed = f.transaction(|change| {
        change.add_to_buckets(&[(bucket("input_tokens"), 100)])?;
        end();
        Ok::<_, LedgerError>(())
    });
    assert!(failed.unwrap_err().is_passing());
    book(
        &mut f.ledger,
        Scope::Asked(acme()),
        &[router(2, 5), router(3, 1)],
    )
    .unwrap();
    f.check();
    assert_eq!(f.input(), (16, 0));
    // What only looks comes back, too.
    end();
    assert!(f.ledger.summary(0).is_err());
    assert_eq!(f.input(), (16, 0));
}

#[test]
fn what_failed_in_part_is_not_committed() {
    let mut f = F::new();
    let failed = f.transaction(|change| {
        change.set_progress("x", 5)?;
        assert!(change.transaction.execute_batch("SELECT nothing").is_err());
        Ok::<_, LedgerError>(())
    });
    assert!(failed.is_err());
    assert_eq!(f.ledger.progress("x").unwrap(), 0);
    f.transaction(|change| change.set_progress("x", 5)).unwrap();
    assert_eq!(f.ledger.progress("x").unwrap(), 5);
}
