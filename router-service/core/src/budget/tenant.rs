//! One tenant: its months, its requests, its minute and its outbox.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use weir_wire::ids::{RequestId, TenantId};

use super::{
    ALERTS, AMOUNT_MAX, Account, Ask, Book, Bounds, Ceiling, Happened, Held, Letter, Month, Open,
    Progress, REMEMBERED_MS, Record, Refused, Row, SWEPT_BY_HOLD, Settle, Settled, Standing, Swept,
    TOKENS_MAX, Taken,
    minute::{self, Minute},
};

const DAY_MS: u64 = 24 * 3_600 * 1_000;

/// What changed, by its name.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Changed {
    Account(Month),
    Request(RequestId),
    Slot(u64),
    Letter(String),
}

#[derive(Debug, Default)]
pub(super) struct Tenant {
    accounts: BTreeMap<Month, Account>,
    open: HashMap<RequestId, Open>,
    expiries: BTreeSet<(u64, RequestId)>,
    swept: HashMap<RequestId, Swept>,
    /// By the day on which they were settled: a day is forgotten at once.
    settled: BTreeMap<u64, HashSet<RequestId>>,
    minute: Minute,
    letters: BTreeMap<String, Letter>,
    changed: Vec<Changed>,
    is_listed: bool,
}

impl Tenant {
    pub(super) fn hold(&mut self, ask: &Ask, now_ms: u64) -> Held {
        if self.is_known(ask.id) {
            return Held::Duplicate;
        }
        self.sweep(SWEPT_BY_HOLD, now_ms);
        self.expire(now_ms);
        let amount = ask.amount.min(AMOUNT_MAX);
        let tokens = ask.tokens.min(TOKENS_MAX);
        let month = month(ask.id);
        let account = self.account(month);
        if let Some(why) = self.refusal(&account, ask, now_ms) {
            return Held::Refused(why);
        }
        let taken = Taken {
            tokens,
            slot: minute::slot(now_ms),
        };
        self.count(taken.slot, 0, tokens);
        let open = Open {
            amount,
            expires_ms: now_ms.saturating_add(ask.life_ms),
            taken,
            step: 0,
            progress: bounded(ask.progress.clone()),
        };
        self.put_open(ask.id, open);
        let held = account.held.saturating_add(amount);
        let account = Account {
            held,
            ceiling: ask.bounds.ceiling.map(|c| c.micros),
            ..account
        };
        self.put_account(month, account);
        Held::Held
    }

    fn refusal(&self, account: &Account, ask: &Ask, now_ms: u64) -> Option<Refused> {
        let Bounds {
            ceiling,
            tokens_per_minute,
            in_flight,
        } = ask.bounds;
        if in_flight.is_some_and(|most| self.in_flight(now_ms) >= most) {
            return Some(Refused::InFlight);
        }
        let tokens = ask.tokens.min(TOKENS_MAX);
        if let Some(limit) = tokens_per_minute
            && self.minute.sum().saturating_add(tokens) > limit
        {
            let retry_ms = self.minute.free_in_ms(tokens, limit, now_ms);
            return Some(Refused::Tokens { retry_ms });
        }
        if ask.not_from.is_some_and(|from| account.spend >= from) {
            return Some(Refused::Near);
        }
        passes(account, ask.amount.min(AMOUNT_MAX), ceiling).then_some(Refused::Budget)
    }

    pub(super) fn raise(
        &mut self,
        id: RequestId,
        step: u32,
        by: u64,
        ceiling: Option<Ceiling>,
    ) -> Held {
        let by = by.min(AMOUNT_MAX);
        let account = self.account(month(id));
        let Some(open) = self.open.get_mut(&id) else {
            return Held::Refused(Refused::Gone);
        };
        if step <= open.step {
            return Held::Duplicate;
        }
        if passes(&account, by, ceiling) {
            return Held::Refused(Refused::Budget);
        }
        open.amount = open.amount.saturating_add(by);
        open.step = step;
        self.changed.push(Changed::Request(id));
        let account = Account {
            held: account.held.saturating_add(by),
            ceiling: ceiling.map(|c| c.micros),
            ..account
        };
        self.put_account(month(id), account);
        Held::Held
    }

    pub(super) fn renew(
        &mut self,
        id: RequestId,
        life_ms: u64,
        progress: Progress,
        now_ms: u64,
    ) -> bool {
        let Some(open) = self.open.remove(&id) else {
            return false;
        };
        self.expiries.remove(&(open.expires_ms, id));
        let open = Open {
            expires_ms: now_ms.saturating_add(life_ms),
            progress: bounded(progress),
            ..open
        };
        self.put_open(id, open);
        true
    }

    pub(super) fn settle(&mut self, settle: &Settle, now_ms: u64) -> Settled {
        let id = settle.id;
        if self.is_settled(id) {
            return Settled::Again;
        }
        self.expire(now_ms);
        let micros = settle.micros.min(AMOUNT_MAX);
        let mut account = self.account(month(id));
        account.ceiling = settle.ceiling.map(|c| c.micros);
        let (found, taken) = if let Some(open) = self.close(id) {
            account.held = account.held.saturating_sub(open.amount);
            account.spend = account.spend.saturating_add(micros);
            (Settled::Held, open.taken)
        } else if let Some(swept) = self.swept.remove(&id) {
            let spend = account.spend.saturating_add(micros);
            account.spend = spend.saturating_sub(swept.micros);
            (Settled::Swept, swept.taken)
        } else {
            account.spend = account.spend.saturating_add(micros);
            (Settled::Orphan, Taken::default())
        };
        self.correct(taken, settle.tokens.min(TOKENS_MAX), now_ms);
        let of_day = self.settled.entry(now_ms / DAY_MS).or_default();
        of_day.insert(id);
        self.changed.push(Changed::Request(id));
        self.tell(month(id), &mut account, now_ms);
        self.put_account(month(id), account);
        found
    }

    /// Sweeps up to `most` holds whose life is over, those first that ended first.
    pub(super) fn sweep(&mut self, most: usize, now_ms: u64) -> usize {
        let mut swept = 0_usize;
        while swept < most {
            let Some((_, id)) = self.expiries.first().filter(|(at, _)| *at <= now_ms) else {
                break;
            };
            self.sweep_one(*id, now_ms);
            swept = swept.saturating_add(1);
        }
        swept
    }

    fn sweep_one(&mut self, id: RequestId, now_ms: u64) {
        self.expire(now_ms);
        let Some(open) = self.close(id) else {
            return;
        };
        let progress = open.progress;
        let taken = self.correct(open.taken, progress.tokens, now_ms);
        let swept = Swept {
            micros: progress.micros,
            taken,
            at_ms: now_ms,
        };
        self.swept.insert(id, swept);
        self.changed.push(Changed::Request(id));
        let mut account = self.account(month(id));
        account.held = account.held.saturating_sub(open.amount);
        account.spend = account.spend.saturating_add(progress.micros);
        self.tell(month(id), &mut account, now_ms);
        self.put_account(month(id), account);
        self.post(
            format!("swept:{id}"),
            Happened::Swept { id, progress },
            now_ms,
        );
    }

    pub(super) fn standing(&mut self, time_ms: i64, now_ms: u64) -> Standing {
        self.expire(now_ms);
        let account = self.account(Month::of_ms(time_ms));
        let (tokens_free_ms, tokens_reset_ms) = self.minute.ends_in_ms(now_ms);
        Standing {
            spend: account.spend,
            held: account.held,
            tokens: self.minute.sum(),
            tokens_free_ms,
            tokens_reset_ms,
            in_flight: self.in_flight(now_ms),
            has_mail: !self.letters.is_empty(),
        }
    }

    pub(super) fn letters(&self) -> impl Iterator<Item = (&String, &Letter)> {
        self.letters.iter()
    }

    pub(super) fn acknowledge(&mut self, name: &str) -> bool {
        let was_there = self.letters.remove(name).is_some();
        if was_there {
            self.changed.push(Changed::Letter(name.to_owned()));
        }
        was_there
    }

    /// Forgets requests of more than a week ago, and months of more than a year. A
    /// store sees by itself which settled requests those are.
    pub(super) fn forget(&mut self, now_ms: u64) {
        let over_ms = now_ms.saturating_sub(REMEMBERED_MS);
        while let Some(first) = self.settled.first_entry() {
            if first.key().saturating_add(1).saturating_mul(DAY_MS) > over_ms {
                break;
            }
            first.remove();
        }
        let changed = &mut self.changed;
        self.swept.retain(|id, swept| {
            let is_kept = swept.at_ms > over_ms;
            if !is_kept {
                changed.push(Changed::Request(*id));
            }
            is_kept
        });
        let first_month = Book::first_month(now_ms);
        while let Some(first) = self.accounts.first_entry() {
            if *first.key() >= first_month || first.get().held > 0 {
                break;
            }
            changed.push(Changed::Account(*first.key()));
            first.remove();
        }
    }

    /// Once, where something changed since [`Tenant::take_changes`].
    pub(super) fn must_be_listed(&mut self) -> bool {
        !self.changed.is_empty() && !std::mem::replace(&mut self.is_listed, true)
    }

    pub(super) fn take_changes(&mut self, id: &TenantId, rows: &mut Vec<Row>) {
        self.is_listed = false;
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        for changed in changed {
            rows.push(match changed {
                Changed::Account(month) => {
                    Row::Account(id.clone(), month, self.accounts.get(&month).copied())
                }
                Changed::Request(request) => {
                    Row::Request(id.clone(), request, self.record(request))
                }
                Changed::Slot(slot) => {
                    let tokens = self.minute.at(slot);
                    Row::Slot(id.clone(), slot, (tokens > 0).then_some(tokens))
                }
                Changed::Letter(name) => {
                    let letter = self.letters.get(&name).cloned();
                    Row::Letter(id.clone(), name, letter)
                }
            });
        }
    }

    pub(super) fn load(&mut self, row: Row) {
        match row {
            Row::Account(_, month, Some(account)) => {
                self.accounts.insert(month, account);
            }
            Row::Slot(_, slot, Some(tokens)) => self.minute.set(slot, tokens),
            Row::Letter(_, name, Some(letter)) => {
                self.letters.insert(name, letter);
            }
            Row::Request(_, id, Some(Record::Held(open))) => {
                self.expiries.insert((open.expires_ms, id));
                self.open.insert(id, open);
            }
            Row::Request(_, id, Some(Record::Swept(swept))) => {
                self.swept.insert(id, swept);
            }
            Row::Request(_, id, Some(Record::Settled { at_ms })) => {
                self.settled.entry(at_ms / DAY_MS).or_default().insert(id);
            }
            // What is gone was never written.
            Row::Account(.., None)
            | Row::Slot(.., None)
            | Row::Letter(.., None)
            | Row::Request(.., None) => {}
        }
    }

    fn record(&self, id: RequestId) -> Option<Record> {
        if let Some(open) = self.open.get(&id) {
            return Some(Record::Held(open.clone()));
        }
        if let Some(swept) = self.swept.get(&id) {
            return Some(Record::Swept(*swept));
        }
        let mut days = self.settled.iter().rev();
        let (day, _) = days.find(|(_, ids)| ids.contains(&id))?;
        let at_ms = day.saturating_mul(DAY_MS);
        Some(Record::Settled { at_ms })
    }

    fn is_known(&self, id: RequestId) -> bool {
        self.open.contains_key(&id) || self.swept.contains_key(&id) || self.is_settled(id)
    }

    fn is_settled(&self, id: RequestId) -> bool {
        self.settled.values().any(|ids| ids.contains(&id))
    }

    /// Expired ones don't count, swept or not.
    fn in_flight(&self, now_ms: u64) -> u32 {
        let expired = self.expiries.iter().take_while(|(at, _)| *at <= now_ms);
        let count = self.open.len().saturating_sub(expired.count());
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    fn account(&self, month: Month) -> Account {
        self.accounts.get(&month).copied().unwrap_or_default()
    }

    fn put_account(&mut self, month: Month, account: Account) {
        self.accounts.insert(month, account);
        self.changed.push(Changed::Account(month));
    }

    fn put_open(&mut self, id: RequestId, open: Open) {
        self.expiries.insert((open.expires_ms, id));
        self.open.insert(id, open);
        self.changed.push(Changed::Request(id));
    }

    fn close(&mut self, id: RequestId) -> Option<Open> {
        let open = self.open.remove(&id)?;
        self.expiries.remove(&(open.expires_ms, id));
        Some(open)
    }

    fn expire(&mut self, now_ms: u64) {
        let gone = self.minute.expire(now_ms);
        self.changed.extend(gone.into_iter().map(Changed::Slot));
    }

    /// Makes a slot hold `to` instead of `from` of some request's tokens.
    fn count(&mut self, slot: u64, from: u64, to: u64) {
        if from != to {
            let tokens = self.minute.at(slot).saturating_add(to);
            self.minute.set(slot, tokens.saturating_sub(from));
            self.changed.push(Changed::Slot(slot));
        }
    }

    /// What was taken becomes what was used: in its slot as long as that counts; what
    /// is more counts from now on after that. Gives what counts then.
    fn correct(&mut self, taken: Taken, used: u64, now_ms: u64) -> Taken {
        if !minute::is_over(taken.slot, now_ms) {
            self.count(taken.slot, taken.tokens, used);
        } else if used > taken.tokens {
            let more = used.saturating_sub(taken.tokens);
            self.count(minute::slot(now_ms), 0, more);
        }
        Taken {
            tokens: used,
            ..taken
        }
    }

    /// Tells of the shares of the ceiling that spend has reached. A ceiling of
    /// nothing has none.
    fn tell(&mut self, month: Month, account: &mut Account, now_ms: u64) {
        let Some(ceiling) = account.ceiling.filter(|c| *c > 0) else {
            return;
        };
        for (n, percent) in ALERTS.into_iter().enumerate() {
            let bit = 1_u8 << n;
            let reached = ceiling.saturating_mul(percent.into()).div_ceil(100);
            if account.told & bit == 0 && account.spend >= reached {
                account.told |= bit;
                let what = Happened::Reached {
                    month,
                    percent,
                    spend: account.spend,
                    ceiling,
                };
                self.post(format!("reached:{month}:{percent:03}"), what, now_ms);
            }
        }
    }

    fn post(&mut self, name: String, what: Happened, at_ms: u64) {
        self.changed.push(Changed::Letter(name.clone()));
        self.letters.insert(name, Letter { at_ms, what });
    }
}

fn month(id: RequestId) -> Month {
    Month::of_ms(id.time_ms())
}

/// Whether so much more passes the ceiling. Nothing more never does.
fn passes(account: &Account, more: u64, ceiling: Option<Ceiling>) -> bool {
    let Some(ceiling) = ceiling.filter(|c| !c.overage && more > 0) else {
        return false;
    };
    let total = account.spend.saturating_add(account.held);
    total.saturating_add(more) > ceiling.micros
}

fn bounded(progress: Progress) -> Progress {
    Progress {
        micros: progress.micros.min(AMOUNT_MAX),
        tokens: progress.tokens.min(TOKENS_MAX),
        ..progress
    }
}
