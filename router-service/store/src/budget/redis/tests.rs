//! The scripts under a clock of the test's, beside the book.

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use redis::{Cmd, Value};
use weir_router_core::budget::{
    Ask, Book, Bounds, Ceiling, Held, Mail, Month, Progress, Settle, Settled, Standing,
};
use weir_wire::ids::{RequestId, TenantId};

use super::script::{
    Decided, Head, Reply, Scripts, Total, key, read_mail, write_hold, write_raise, write_renew,
    write_settle,
};
use crate::redis::{link::Connection, script::Script, tests::Histories};

const TIME: &str = "redis.call('TIME')";

/// The scripts where TIME comes from the arguments.
fn with_time() -> Scripts {
    Scripts::changed(|text| text.replace(TIME, "{ARGV[#ARGV - 1], ARGV[#ARGV]}"))
}

/// 2026-11-30 23:59:00 UTC.
const NOW: u64 = 1_796_083_140_000;

#[derive(Debug, Clone)]
enum Step {
    Hold {
        n: u8,
        amount: u64,
        tokens: u64,
        life_ms: u64,
        not_from: Option<u64>,
        bounds: Bounds,
    },
    Raise(u8, u32, u64, Option<Ceiling>),
    Renew(u8, u64, u64, u64),
    Settle(u8, u64, u64, Option<Ceiling>),
    Standing(u8),
    Sweep(usize),
    Acknowledge(usize),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let n = || 0..20_u8;
    let ceiling = || {
        let micros = prop::sample::select(vec![0, 99, 400, 1_001, 1 << 50]);
        let some = (micros, prop::bool::weighted(0.2));
        let some = some.prop_map(|(micros, overage)| Ceiling { micros, overage });
        prop::option::weighted(0.9, some)
    };
    let amount = || prop_oneof![9 => 0..300_u64, 1 => Just(u64::MAX)];
    let bounds = (
        ceiling(),
        prop::option::of(prop::sample::select(vec![50_u64, 200])),
        prop::option::of(1_u32..6),
    );
    let bounds = bounds.prop_map(|(ceiling, tokens_per_minute, in_flight)| Bounds {
        ceiling,
        tokens_per_minute,
        in_flight,
    });
    let life = prop::sample::select(vec![1_u64, 500, 5_000, 30_000]);
    let not_from = prop::option::weighted(0.2, 0..500_u64);
    let hold = (n(), amount(), 0..70_u64, life, not_from, bounds);
    let hold = hold.prop_map(
        |(n, amount, tokens, life_ms, not_from, bounds)| Step::Hold {
            n,
            amount,
            tokens,
            life_ms,
            not_from,
            bounds,
        },
    );
    let step = prop_oneof![
        8 => hold,
        2 => (n(), 1..4_u32, amount(), ceiling())
            .prop_map(|(n, step, by, ceiling)| Step::Raise(n, step, by, ceiling)),
        2 => (n(), 1..20_000_u64, 0..150_u64, 0..60_u64)
            .prop_map(|(n, life, micros, tokens)| Step::Renew(n, life, micros, tokens)),
        5 => (n(), amount(), 0..90_u64, ceiling())
            .prop_map(|(n, micros, tokens, c)| Step::Settle(n, micros, tokens, c)),
        1 => n().prop_map(Step::Standing),
        2 => (1..4_usize).prop_map(Step::Sweep),
        1 => (1..4_usize).prop_map(Step::Acknowledge),
        4 => prop_oneof![0..1_500_u64, 0..70_000_u64].prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..100)
}

/// On both sides of a month's end.
fn id(n: u8) -> RequestId {
    RequestId::mint(NOW + 60_000 - 10 + u64::from(n), [n; 10])
}

fn progress(n: u8, micros: u64, tokens: u64) -> Progress {
    Progress {
        micros,
        tokens,
        // Zero bytes among them.
        note: vec![n; usize::from(n % 3)],
    }
}

struct Both {
    book: Book,
    connection: Connection,
    scripts: Scripts,
    tenant: TenantId,
    now_ms: u64,
}

impl Both {
    async fn run(&self, script: &Script, n: u8, write: impl Fn(&mut Cmd)) -> Decided {
        let head = Head {
            router: "r1",
            line: "",
            fresh_line: "l1",
            is_lost: false,
            month: Month::of_ms(id(n).time_ms()),
            total: Total::default(),
        };
        let write = |command: &mut Cmd| {
            head.write(command);
            write(command);
            command.arg(self.now_ms / 1_000);
            command.arg(self.now_ms % 1_000 * 1_000);
        };
        let key = key(&self.tenant);
        let value = script.run(&self.connection, &key, write).await.unwrap();
        match Reply::read(&value).unwrap() {
            Reply::Decided(decided) => decided,
            other => panic!("{other:?}"),
        }
    }

    async fn mail(&self, most: usize) -> Vec<Mail> {
        let write = |command: &mut Cmd| {
            command.arg(most);
        };
        let script = &self.scripts.mail;
        let key = key(&self.tenant);
        let value = script.run(&self.connection, &key, write).await.unwrap();
        let mail = read_mail(&self.tenant, &value).unwrap();
        mail.into_iter().map(|(_, mail)| mail).collect()
    }

    async fn acknowledge(&self, mail: &[Mail]) -> Vec<bool> {
        let write = |command: &mut Cmd| {
            for mail in mail {
                command.arg(&mail.id);
            }
        };
        let script = &self.scripts.acknowledge;
        let value: Value = script
            .run(&self.connection, &key(&self.tenant), write)
            .await
            .unwrap();
        redis::from_redis_value(value).unwrap()
    }

    fn ask(&self, step: &Step) -> Option<Ask> {
        let Step::Hold {
            n,
            amount,
            tokens,
            life_ms,
            not_from,
            bounds,
        } = step.clone()
        else {
            return None;
        };
        Some(Ask {
            tenant: self.tenant.clone(),
            id: id(n),
            amount,
            not_from,
            bounds,
            tokens,
            life_ms,
            progress: progress(n, amount / 2, tokens / 2),
        })
    }

    async fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let now = self.now_ms;
        let tenant = self.tenant.clone();
        let (expected, found): (Seen, Seen) = match step.clone() {
            Step::Hold { n, .. } => {
                let ask = self.ask(step).unwrap();
                let (held, standing) = self.book.hold(&ask, now);
                let write = |command: &mut Cmd| write_hold(command, &ask);
                let found = self.run(&self.scripts.hold, n, write).await;
                let held_there = found.held().unwrap();
                (
                    Seen::Held(held, standing),
                    Seen::Held(held_there, found.standing),
                )
            }
            Step::Raise(n, step, by, ceiling) => {
                let (held, standing) = self.book.raise(&tenant, id(n), step, by, ceiling, now);
                let write = |command: &mut Cmd| write_raise(command, id(n), step, by, ceiling);
                let found = self.run(&self.scripts.raise, n, write).await;
                let held_there = found.held().unwrap();
                (
                    Seen::Held(held, standing),
                    Seen::Held(held_there, found.standing),
                )
            }
            Step::Renew(n, life_ms, micros, tokens) => {
                let progress = progress(n, micros, tokens);
                let write = |command: &mut Cmd| write_renew(command, id(n), life_ms, &progress);
                let found = self.run(&self.scripts.renew, n, write).await.renewed();
                let renewed = self
                    .book
                    .renew(&tenant, id(n), life_ms, progress.clone(), now);
                (Seen::Is(renewed), Seen::Is(found))
            }
            Step::Settle(n, micros, tokens, ceiling) => {
                let settle = Settle {
                    tenant,
                    id: id(n),
                    micros,
                    tokens,
                    ceiling,
                };
                let (settled, standing) = self.book.settle(&settle, now);
                let write = |command: &mut Cmd| write_settle(command, &settle);
                let found = self.run(&self.scripts.settle, n, write).await;
                let there = found.settled().unwrap();
                (
                    Seen::Settled(settled, standing),
                    Seen::Settled(there, found.standing),
                )
            }
            Step::Standing(n) => {
                let standing = self.book.standing(&tenant, id(n).time_ms(), now);
                let found = self.run(&self.scripts.standing, n, |_| ()).await;
                (Seen::Standing(standing), Seen::Standing(found.standing))
            }
            Step::Sweep(most) => {
                let swept = self.book.sweep(most, now);
                let write = |command: &mut Cmd| {
                    command.arg(most);
                };
                let found = self.run(&self.scripts.sweep, 0, write).await;
                let (found, is_idle) = found.swept();
                let standing = self.book.standing(&tenant, 0, now);
                if standing.in_flight > 0 || standing.has_mail {
                    prop_assert!(!is_idle);
                }
                (Seen::Count(swept), Seen::Count(found))
            }
            Step::Acknowledge(most) => {
                let mail = self.book.mail(most);
                prop_assert_eq!(&self.mail(most).await, &mail);
                let twice = [mail.clone(), mail].concat();
                let found = self.acknowledge(&twice).await;
                (Seen::All(self.book.acknowledge(&twice)), Seen::All(found))
            }
            Step::Pass(ms) => {
                self.now_ms += ms;
                return Ok(());
            }
        };
        prop_assert_eq!(expected, found, "{:?}", step);
        Ok(())
    }
}

#[derive(Debug, PartialEq)]
enum Seen {
    Held(Held, Standing),
    Settled(Settled, Standing),
    Standing(Standing),
    Is(bool),
    Count(usize),
    All(Vec<bool>),
}

static TENANTS: AtomicU64 = AtomicU64::new(0);

/// Whatever is called when: both answer the same. `WEIR_CASES` says how many histories
/// are tried.
#[test]
fn lua_answers_as_the_book_does() {
    let Histories {
        server: _server,
        runtime,
        connection,
        config,
    } = Histories::new(128);
    proptest!(config, |(steps in steps())| {
        let tenant = TENANTS.fetch_add(1, Ordering::Relaxed);
        let mut both = Both {
            book: Book::default(),
            connection: connection.clone(),
            scripts: with_time(),
            tenant: TenantId::new(format!("t{tenant}")).unwrap(),
            now_ms: NOW,
        };
        for step in &steps {
            runtime.block_on(both.step(step))?;
        }
        let mail = runtime.block_on(both.mail(1_000));
        prop_assert_eq!(mail, both.book.mail(1_000));
    });
}
