//! Random histories against a model that keeps lists and counts them anew each
//! time: duplicates, late settles, calls that are never made, month ends, and
//! restarts from the rows.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{super::*, NOW, tenant};

const REQUESTS: u8 = 24;

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
    Sweep(usize),
    Acknowledge(usize),
    Pass(u64),
    /// The store is started anew, with what it kept.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let n = || 0..REQUESTS;
    let ceiling = || {
        let some = (
            prop::sample::select(vec![0, 99, 400, 1_000]),
            prop::bool::weighted(0.2),
        );
        let some = some.prop_map(|(micros, overage)| Ceiling { micros, overage });
        prop::option::weighted(0.9, some)
    };
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
    let hold = (n(), 0..200_u64, 0..70_u64, life, not_from, bounds);
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
    let raise = (n(), 1..4_u32, 0..200_u64, ceiling());
    let settle = (n(), 0..300_u64, 0..90_u64, ceiling());
    let step = prop_oneof![
        8 => hold,
        2 => raise.prop_map(|(n, step, by, ceiling)| Step::Raise(n, step, by, ceiling)),
        2 => (n(), 1..20_000_u64, 0..150_u64, 0..60_u64)
            .prop_map(|(n, life, micros, tokens)| Step::Renew(n, life, micros, tokens)),
        5 => settle.prop_map(|(n, micros, tokens, c)| Step::Settle(n, micros, tokens, c)),
        2 => (0..4_usize).prop_map(Step::Sweep),
        1 => (0..4_usize).prop_map(Step::Acknowledge),
        4 => prop_oneof![0..1_500_u64, 0..70_000_u64].prop_map(Step::Pass),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..150)
}

/// The ids' times lie on both sides of a month's end, whatever the clock shows.
fn id(n: u8) -> RequestId {
    RequestId::mint(NOW + 60_000 - 12 + u64::from(n), [n; 10])
}

fn month(n: u8) -> Month {
    Month::of_ms(id(n).time_ms())
}

#[derive(Debug, Clone)]
enum State {
    Held {
        amount: u64,
        expires_ms: u64,
        step: u32,
        progress: (u64, u64),
    },
    Swept(u64),
    Settled(u64),
}

#[derive(Default)]
struct Model {
    requests: BTreeMap<u8, State>,
    /// When tokens were taken, how many count of them now, and for which request.
    tokens: Vec<(u64, u64, Option<u8>)>,
    ceilings: HashMap<Month, Option<u64>>,
    told: BTreeSet<(Month, u8)>,
    swept: Vec<u8>,
}

fn counts(taken_ms: u64, now_ms: u64) -> bool {
    (taken_ms + 60_000).div_ceil(1_000) * 1_000 > now_ms
}

impl Model {
    fn spend(&self, of: Month) -> u64 {
        let cost = |(n, state): (&u8, &State)| match state {
            State::Swept(micros) | State::Settled(micros) if month(*n) == of => *micros,
            _ => 0,
        };
        self.requests.iter().map(cost).sum()
    }

    fn held(&self, of: Month) -> u64 {
        let amount = |(n, state): (&u8, &State)| match state {
            State::Held { amount, .. } if month(*n) == of => *amount,
            _ => 0,
        };
        self.requests.iter().map(amount).sum()
    }

    fn taken(&self, now_ms: u64) -> u64 {
        let counting = self.tokens.iter().filter(|(at, ..)| counts(*at, now_ms));
        counting.map(|(_, tokens, _)| tokens).sum()
    }

    fn in_flight(&self, now_ms: u64) -> usize {
        let open = |state: &&State| matches!(state, State::Held { expires_ms, .. } if *expires_ms > now_ms);
        self.requests.values().filter(open).count()
    }

    fn correct(&mut self, n: u8, used: u64, now_ms: u64) {
        let own = self.tokens.iter_mut().find(|(.., of)| *of == Some(n));
        let Some((at, tokens, _)) = own else {
            self.tokens.push((now_ms, used, Some(n)));
            return;
        };
        if counts(*at, now_ms) {
            *tokens = used;
        } else {
            let more = used.saturating_sub(*tokens);
            *tokens = used;
            self.tokens.push((now_ms, more, None));
        }
    }

    fn tell(&mut self, of: Month) {
        let Some(Some(ceiling)) = self.ceilings.get(&of).copied() else {
            return;
        };
        for percent in ALERTS {
            let reached = self.spend(of) * 100 >= ceiling * u64::from(percent);
            if ceiling > 0 && reached {
                self.told.insert((of, percent));
            }
        }
    }

    fn sweep(&mut self, most: usize, now_ms: u64) -> usize {
        let mut expired: Vec<_> = self
            .requests
            .iter()
            .filter_map(|(n, state)| match state {
                State::Held {
                    expires_ms,
                    progress,
                    ..
                } if *expires_ms <= now_ms => Some((*expires_ms, id(*n), *n, *progress)),
                _ => None,
            })
            .collect();
        expired.sort_unstable();
        expired.truncate(most);
        for (_, _, n, (micros, tokens)) in &expired {
            self.requests.insert(*n, State::Swept(*micros));
            self.correct(*n, *tokens, now_ms);
            self.swept.push(*n);
            self.tell(month(*n));
        }
        expired.len()
    }
}

struct Both {
    book: Book,
    model: Model,
    now_ms: u64,
    kept: HashMap<String, Row>,
    acknowledged: BTreeSet<String>,
    mailed: BTreeSet<String>,
}

impl Both {
    fn keep(&mut self) {
        for row in self.book.take_changes() {
            let (key, is_gone) = match &row {
                Row::Account(t, month, value) => (format!("a {t} {month}"), value.is_none()),
                Row::Request(t, id, value) => (format!("r {t} {id}"), value.is_none()),
                Row::Slot(t, slot, value) => (format!("s {t} {slot}"), value.is_none()),
                Row::Letter(t, name, value) => (format!("l {t} {name}"), value.is_none()),
            };
            match is_gone {
                true => self.kept.remove(&key),
                false => self.kept.insert(key, row),
            };
        }
    }

    fn hold(&mut self, ask: &Ask, n: u8) -> Result<(), TestCaseError> {
        let (model, now) = (&mut self.model, self.now_ms);
        let expected = if model.requests.contains_key(&n) {
            Held::Duplicate
        } else {
            model.sweep(SWEPT_BY_HOLD, now);
            let (spend, held) = (model.spend(month(n)), model.held(month(n)));
            let total = spend + held + ask.amount;
            let Bounds {
                ceiling,
                tokens_per_minute,
                in_flight,
            } = ask.bounds;
            if in_flight.is_some_and(|most| model.in_flight(now) >= most as usize) {
                Held::Refused(Refused::InFlight)
            } else if tokens_per_minute.is_some_and(|most| model.taken(now) + ask.tokens > most) {
                Held::Refused(Refused::Tokens { retry_ms: None })
            } else if ask.not_from.is_some_and(|from| spend >= from) {
                Held::Refused(Refused::Near)
            } else if ask.amount > 0 && ceiling.is_some_and(|c| !c.overage && total > c.micros) {
                Held::Refused(Refused::Budget)
            } else {
                Held::Held
            }
        };
        let (held, standing) = self.book.hold(ask, now);
        match (held, expected) {
            (
                Held::Refused(Refused::Tokens { retry_ms }),
                Held::Refused(Refused::Tokens { .. }),
            ) => {
                let most = ask.bounds.tokens_per_minute.unwrap();
                prop_assert_eq!(retry_ms.is_none(), ask.tokens > most);
                // There are enough then, and not a millisecond earlier.
                if let Some(retry_ms) = retry_ms {
                    prop_assert!(model.taken(now + retry_ms) + ask.tokens <= most);
                    prop_assert!(model.taken(now + retry_ms - 1) + ask.tokens > most);
                }
            }
            (held, expected) => prop_assert_eq!(held, expected),
        }
        if held == Held::Held {
            let state = State::Held {
                amount: ask.amount,
                expires_ms: now + ask.life_ms,
                step: 0,
                progress: (ask.progress.micros, ask.progress.tokens),
            };
            model.requests.insert(n, state);
            model.tokens.push((now, ask.tokens, Some(n)));
            let ceiling = ask.bounds.ceiling;
            model.ceilings.insert(month(n), ceiling.map(|c| c.micros));
            if let Some(ceiling) = ceiling.filter(|c| !c.overage && ask.amount > 0) {
                prop_assert!(standing.spend + standing.held <= ceiling.micros);
            }
            if let Some(most) = ask.bounds.tokens_per_minute {
                let rolling = model.tokens.iter().filter(|(at, ..)| at + 60_000 > now);
                prop_assert!(rolling.map(|(_, tokens, _)| tokens).sum::<u64>() <= most);
            }
        }
        Ok(())
    }

    fn raise(&mut self, n: u8, step: u32, by: u64, ceiling: Option<Ceiling>) -> Held {
        let model = &mut self.model;
        let total = model.spend(month(n)) + model.held(month(n)) + by;
        let Some(State::Held {
            amount, step: last, ..
        }) = model.requests.get_mut(&n)
        else {
            return Held::Refused(Refused::Gone);
        };
        if step <= *last {
            return Held::Duplicate;
        }
        if by > 0 && ceiling.is_some_and(|c| !c.overage && total > c.micros) {
            return Held::Refused(Refused::Budget);
        }
        (*amount, *last) = (*amount + by, step);
        model.ceilings.insert(month(n), ceiling.map(|c| c.micros));
        Held::Held
    }

    fn settle(&mut self, n: u8, micros: u64, tokens: u64, ceiling: Option<Ceiling>) -> Settled {
        let model = &mut self.model;
        let found = match model.requests.get(&n) {
            Some(State::Settled(_)) => return Settled::Again,
            Some(State::Held { .. }) => Settled::Held,
            Some(State::Swept(_)) => Settled::Swept,
            None => Settled::Orphan,
        };
        model.requests.insert(n, State::Settled(micros));
        model.ceilings.insert(month(n), ceiling.map(|c| c.micros));
        model.correct(n, tokens, self.now_ms);
        model.tell(month(n));
        found
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let now = self.now_ms;
        match step.clone() {
            Step::Hold {
                n,
                amount,
                tokens,
                life_ms,
                not_from,
                bounds,
            } => {
                let progress = Progress {
                    micros: amount / 2,
                    tokens: tokens / 2,
                    note: vec![n],
                };
                let ask = Ask {
                    tenant: tenant(),
                    id: id(n),
                    amount,
                    not_from,
                    bounds,
                    tokens,
                    life_ms,
                    progress,
                };
                self.hold(&ask, n)?;
            }
            Step::Raise(n, step, by, ceiling) => {
                let expected = self.raise(n, step, by, ceiling);
                let (held, _) = self.book.raise(&tenant(), id(n), step, by, ceiling, now);
                prop_assert_eq!(held, expected);
            }
            Step::Renew(n, life_ms, micros, tokens) => {
                let known = self.model.requests.get_mut(&n);
                let is_held = if let Some(State::Held {
                    expires_ms,
                    progress,
                    ..
                }) = known
                {
                    (*expires_ms, *progress) = (now + life_ms, (micros, tokens));
                    true
                } else {
                    false
                };
                let progress = Progress {
                    micros,
                    tokens,
                    note: Vec::new(),
                };
                let renewed = self.book.renew(&tenant(), id(n), life_ms, progress, now);
                prop_assert_eq!(renewed, is_held);
            }
            Step::Settle(n, micros, tokens, ceiling) => {
                let expected = self.settle(n, micros, tokens, ceiling);
                let settle = Settle {
                    tenant: tenant(),
                    id: id(n),
                    micros,
                    tokens,
                    ceiling,
                };
                prop_assert_eq!(self.book.settle(&settle, now).0, expected);
                let before = self.book.standing(&tenant(), id(n).time_ms(), now);
                let again = Settle {
                    micros: micros + 1,
                    ..settle
                };
                prop_assert_eq!(self.book.settle(&again, now), (Settled::Again, before));
            }
            Step::Sweep(most) => {
                let expected = self.model.sweep(most, now);
                prop_assert_eq!(self.book.sweep(most, now), expected);
            }
            Step::Acknowledge(most) => {
                let mail = self.book.mail(most);
                let twice = [mail.clone(), mail.clone()].concat();
                let there = self.book.acknowledge(&twice);
                prop_assert_eq!(
                    there,
                    [vec![true; mail.len()], vec![false; mail.len()]].concat()
                );
                for mail in mail {
                    prop_assert!(self.acknowledged.insert(mail.id), "once each");
                }
            }
            Step::Pass(ms) => self.now_ms += ms,
            Step::Restart => {
                self.book = Book::default();
                for row in self.kept.values() {
                    self.book.load(row.clone());
                }
            }
        }
        self.keep();
        self.check()
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        for of in [month(0), month(REQUESTS - 1)] {
            let n = if of == month(0) { 0 } else { REQUESTS - 1 };
            let standing = self.book.standing(&tenant(), id(n).time_ms(), self.now_ms);
            prop_assert_eq!(standing.spend, self.model.spend(of));
            prop_assert_eq!(standing.held, self.model.held(of));
            prop_assert_eq!(standing.tokens, self.model.taken(self.now_ms));
            prop_assert_eq!(
                standing.in_flight as usize,
                self.model.in_flight(self.now_ms)
            );
        }
        for mail in self.book.mail(usize::MAX) {
            prop_assert!(!self.acknowledged.contains(&mail.id), "told again");
            self.mailed.insert(mail.id);
        }
        let told = self.model.told.iter();
        let mut expected: BTreeSet<String> = told
            .map(|(month, percent)| format!("reached:{month}:{percent:03}"))
            .collect();
        expected.extend(self.model.swept.iter().map(|n| format!("swept:{}", id(*n))));
        prop_assert_eq!(&self.mailed, &expected);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_books_add_up(steps in steps()) {
        let mut both = Both {
            book: Book::default(),
            model: Model::default(),
            now_ms: NOW,
            kept: HashMap::new(),
            acknowledged: BTreeSet::new(),
            mailed: BTreeSet::new(),
        };
        for step in &steps {
            both.step(step)?;
        }
    }
}
