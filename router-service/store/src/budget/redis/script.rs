//! The scripts: what they are asked and what they answer.

use redis::{Cmd, RedisResult, Value};
use weir_router_core::budget::{
    AMOUNT_MAX, Ask, Ceiling, Happened, Held, Mail, Month, Progress, Refused, Settle, Settled,
    Standing, TOKENS_MAX,
};
use weir_wire::ids::{RequestId, TenantId};

use crate::redis::script::{Packed, Script, number, unexpected};

/// Nobody waits longer; Lua's numbers are exact up to 2^53.
const LIFE_MAX_MS: u64 = 1 << 40;

/// All of them.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) hold: Script,
    pub(super) raise: Script,
    pub(super) renew: Script,
    pub(super) settle: Script,
    pub(super) standing: Script,
    pub(super) sweep: Script,
    pub(super) push: Script,
    pub(super) mail: Script,
    pub(super) acknowledge: Script,
    pub(super) unlist: Script,
}

macro_rules! checked {
    ($change:expr, $name:literal) => {
        Script::new(($change)(concat!(
            include_str!("common.lua"),
            include_str!("checked.lua"),
            include_str!($name)
        )))
    };
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self::changed(str::to_owned)
    }

    /// With another text each; the tests show them another clock.
    pub(super) fn changed(change: impl Fn(&str) -> String) -> Self {
        Self {
            hold: checked!(change, "hold.lua"),
            raise: checked!(change, "raise.lua"),
            renew: checked!(change, "renew.lua"),
            settle: checked!(change, "settle.lua"),
            standing: checked!(change, "standing.lua"),
            sweep: checked!(change, "sweep.lua"),
            push: Script::new(change(concat!(
                include_str!("common.lua"),
                include_str!("push.lua")
            ))),
            mail: Script::new(include_str!("mail.lua")),
            acknowledge: Script::new(include_str!("acknowledge.lua")),
            unlist: Script::new(include_str!("unlist.lua")),
        }
    }
}

/// The key from which scripts derive the tenant's others.
pub(super) fn key(tenant: &TenantId) -> String {
    format!("weir:b:{{{tenant}}}:t")
}

/// What a router has booked, in micro-dollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Total {
    /// Upwards, in all.
    pub(super) plus: u64,
    /// Downwards, in all.
    pub(super) minus: u64,
    /// The alerts that were told in that month.
    pub(super) told: u8,
}

/// What every call of a tenant's begins with.
#[derive(Debug, Clone)]
pub(super) struct Head<'a> {
    pub(super) router: &'a str,
    /// Empty where the router knows none.
    pub(super) line: &'a str,
    pub(super) fresh_line: &'a str,
    /// Whether data was lost lately.
    pub(super) is_lost: bool,
    pub(super) month: Month,
    /// Booked in that month on that line.
    pub(super) total: Total,
}

impl Head<'_> {
    pub(super) fn write(&self, command: &mut Cmd) {
        let mut numbers = Packed::for_numbers(5);
        numbers.number(self.is_lost.into());
        numbers.number(self.month.0.into());
        numbers.number(self.total.plus);
        numbers.number(self.total.minus);
        numbers.number(self.total.told.into());
        command
            .arg(self.router)
            .arg(self.line)
            .arg(self.fresh_line)
            .arg(numbers.0);
    }
}

pub(super) fn write_hold(command: &mut Cmd, ask: &Ask) {
    let bounds = &ask.bounds;
    let mut numbers = Packed::for_numbers(10);
    numbers.number(ask.amount.min(AMOUNT_MAX));
    numbers.number(ask.tokens.min(TOKENS_MAX));
    numbers.number(ask.life_ms.min(LIFE_MAX_MS));
    numbers.number_or_minus_one(ask.not_from.map(|from| from.min(1 << 53)));
    write_ceiling(&mut numbers, bounds.ceiling);
    let per_minute = bounds.tokens_per_minute.map(|most| most.min(1 << 52));
    numbers.number_or_minus_one(per_minute);
    numbers.number_or_minus_one(bounds.in_flight.map(u64::from));
    write_progress(&mut numbers, &ask.progress);
    command
        .arg(ask.id.to_string())
        .arg(numbers.0)
        .arg(&ask.progress.note);
}

pub(super) fn write_raise(
    command: &mut Cmd,
    id: RequestId,
    step: u32,
    by: u64,
    ceiling: Option<Ceiling>,
) {
    let mut numbers = Packed::for_numbers(4);
    numbers.number(step.into());
    numbers.number(by.min(AMOUNT_MAX));
    write_ceiling(&mut numbers, ceiling);
    command.arg(id.to_string()).arg(numbers.0);
}

pub(super) fn write_renew(command: &mut Cmd, id: RequestId, life_ms: u64, progress: &Progress) {
    let mut numbers = Packed::for_numbers(3);
    numbers.number(life_ms.min(LIFE_MAX_MS));
    write_progress(&mut numbers, progress);
    command
        .arg(id.to_string())
        .arg(numbers.0)
        .arg(&progress.note);
}

pub(super) fn write_settle(command: &mut Cmd, settle: &Settle) {
    let mut numbers = Packed::for_numbers(3);
    numbers.number(settle.micros.min(AMOUNT_MAX));
    numbers.number(settle.tokens.min(TOKENS_MAX));
    numbers.number_or_minus_one(settle.ceiling.map(|c| c.micros.min(1 << 53)));
    command.arg(settle.id.to_string()).arg(numbers.0);
}

fn write_ceiling(numbers: &mut Packed, ceiling: Option<Ceiling>) {
    numbers.number_or_minus_one(ceiling.map(|c| c.micros.min(1 << 53)));
    numbers.number(ceiling.is_some_and(|c| c.overage).into());
}

fn write_progress(numbers: &mut Packed, progress: &Progress) {
    numbers.number(progress.micros.min(AMOUNT_MAX));
    numbers.number(progress.tokens.min(TOKENS_MAX));
}

/// A hold that a router tells of after a loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownHold {
    pub(super) amount: u64,
    pub(super) tokens: u64,
    pub(super) step: u32,
    pub(super) progress: Progress,
}

/// What `push.lua` is told, beside the head.
#[derive(Debug, Default)]
pub(super) struct Push {
    totals: Vec<(Month, String)>,
    packed_totals: Vec<u8>,
    packed_holds: Vec<u8>,
}

impl Push {
    pub(super) fn is_empty(&self) -> bool {
        self.totals.is_empty() && self.packed_holds.is_empty()
    }

    pub(super) fn has_holds(&self) -> bool {
        !self.packed_holds.is_empty()
    }

    pub(super) fn total(&mut self, month: Month, line: &str, total: Total) {
        let mut packed = Packed(std::mem::take(&mut self.packed_totals));
        packed.text(line);
        packed.number(month.0.into());
        packed.number(total.plus);
        packed.number(total.minus);
        packed.number(total.told.into());
        self.packed_totals = packed.0;
        self.totals.push((month, line.to_owned()));
    }

    pub(super) fn hold(&mut self, id: RequestId, life_ms: u64, hold: &KnownHold) {
        let mut packed = Packed(std::mem::take(&mut self.packed_holds));
        packed.0.extend_from_slice(id.to_string().as_bytes());
        packed.number(hold.amount.min(AMOUNT_MAX));
        packed.number(life_ms.clamp(1, LIFE_MAX_MS));
        packed.number(hold.tokens.min(TOKENS_MAX));
        packed.number(hold.step.into());
        write_progress(&mut packed, &hold.progress);
        packed.number(Month::of_ms(id.time_ms()).0.into());
        let note = &hold.progress.note;
        packed.number(u64::try_from(note.len()).unwrap_or(0));
        packed.0.extend_from_slice(note);
        self.packed_holds = packed.0;
    }

    pub(super) fn write(&self, command: &mut Cmd) {
        command.arg(&self.packed_totals).arg(&self.packed_holds);
    }

    /// What Redis answers to it.
    pub(super) fn read(self, value: &Value) -> RedisResult<Pushed> {
        let read = || {
            let Value::Array(items) = value else {
                return None;
            };
            let [line, items @ ..] = items.as_slice() else {
                return None;
            };
            let (items, []) = items.as_chunks::<3>() else {
                return None;
            };
            let mut totals = Vec::with_capacity(items.len());
            for ((month, line), [plus, minus, told]) in self.totals.into_iter().zip(items) {
                totals.push((month, line, total(plus, minus, told)?));
            }
            let line = text(line)?;
            Some(Pushed { line, totals })
        };
        read().ok_or_else(|| unexpected("the push script"))
    }
}

/// What Redis has of a tenant after a push.
#[derive(Debug)]
pub(super) struct Pushed {
    /// The line that calls are of from now on.
    pub(super) line: String,
    /// Of each month and line that was pushed.
    pub(super) totals: Vec<(Month, String, Total)>,
}

/// What a tenant's script answers.
#[derive(Debug)]
pub(super) enum Reply {
    /// It was done, or refused.
    Decided(Decided),
    /// The tenant's data is of another line than the router knows; nothing was done.
    Stale,
    /// Data was lost; nothing is held for money for so many milliseconds.
    Fenced(u64),
}

/// What was decided.
#[derive(Debug)]
pub(super) struct Decided {
    /// What the script says of it.
    kind: u64,
    /// What belongs to that; −1 for none.
    number: i64,
    pub(super) line: String,
    pub(super) standing: Standing,
    /// Of each month that was booked in.
    pub(super) totals: Vec<(Month, Total)>,
}

impl Reply {
    pub(super) fn read(value: &Value) -> RedisResult<Self> {
        Self::of(value).ok_or_else(|| unexpected("the budget script"))
    }

    fn of(value: &Value) -> Option<Self> {
        let Value::Array(items) = value else {
            return None;
        };
        let [kind, number_of_it, line, rest @ ..] = items.as_slice() else {
            return None;
        };
        let Value::Int(number_of_it) = number_of_it else {
            return None;
        };
        match number(kind)? {
            10 => return Some(Self::Stale),
            11 => return Some(Self::Fenced(u64::try_from(*number_of_it).ok()?)),
            _ => {}
        }
        let [spend, held, tokens, free, reset, in_flight, mail, rest @ ..] = rest else {
            return None;
        };
        let (rest, []) = rest.as_chunks::<4>() else {
            return None;
        };
        let total = |[month, plus, minus, told]: &[Value; 4]| {
            let month = u32::try_from(number(month)?).ok()?;
            Some((Month(month), total(plus, minus, told)?))
        };
        Some(Self::Decided(Decided {
            kind: number(kind)?,
            number: *number_of_it,
            line: text(line)?,
            standing: Standing {
                spend: number(spend)?,
                held: number(held)?,
                tokens: number(tokens)?,
                tokens_free_ms: number(free)?,
                tokens_reset_ms: number(reset)?,
                in_flight: u32::try_from(number(in_flight)?).ok()?,
                has_mail: number(mail)? > 0,
            },
            totals: rest.iter().map(total).collect::<Option<_>>()?,
        }))
    }
}

impl Decided {
    /// As `hold.lua` and `raise.lua` mean it.
    pub(super) fn held(&self) -> RedisResult<Held> {
        Ok(match self.kind {
            0 => Held::Held,
            1 => Held::Duplicate,
            2 => Held::Refused(Refused::InFlight),
            3 => Held::Refused(Refused::Tokens {
                retry_ms: u64::try_from(self.number).ok(),
            }),
            4 => Held::Refused(Refused::Near),
            5 => Held::Refused(Refused::Budget),
            6 => Held::Refused(Refused::Gone),
            _ => return Err(unexpected("the hold script")),
        })
    }

    /// As `settle.lua` means it.
    pub(super) fn settled(&self) -> RedisResult<Settled> {
        Ok(match self.kind {
            0 => Settled::Held,
            1 => Settled::Swept,
            2 => Settled::Orphan,
            3 => Settled::Again,
            _ => return Err(unexpected("the settle script")),
        })
    }

    /// As `renew.lua` means it.
    pub(super) fn renewed(&self) -> bool {
        self.kind == 0
    }

    /// As `sweep.lua` means it: how many were swept, and whether nothing is left.
    pub(super) fn swept(&self) -> (usize, bool) {
        let swept = usize::try_from(self.number / 2).unwrap_or(0);
        (swept, self.number % 2 == 1)
    }
}

/// What `mail.lua` answers, each with its time.
pub(super) fn read_mail(tenant: &TenantId, value: &Value) -> RedisResult<Vec<(u64, Mail)>> {
    let read = || {
        let Value::Array(items) = value else {
            return None;
        };
        let (items, []) = items.as_chunks::<2>() else {
            return None;
        };
        let one = |[name, packed]: &[Value; 2]| {
            let id = text(name)?;
            let Value::BulkString(packed) = packed else {
                return None;
            };
            let (at_ms, what) = happened(&id, packed)?;
            let tenant = tenant.clone();
            Some((at_ms, Mail { id, tenant, what }))
        };
        items.iter().map(one).collect()
    };
    read().ok_or_else(|| unexpected("the outbox"))
}

fn happened(name: &str, packed: &[u8]) -> Option<(u64, Happened)> {
    let (kind, packed) = packed.split_first()?;
    let (numbers, _) = packed.as_chunks::<8>();
    let mut numbers = numbers
        .iter()
        .map(|bytes| f64::from_be_bytes(*bytes) as u64);
    let at_ms = numbers.next()?;
    let what = match kind {
        b'R' => Happened::Reached {
            month: Month(u32::try_from(numbers.next()?).ok()?),
            percent: u8::try_from(numbers.next()?).ok()?,
            spend: numbers.next()?,
            ceiling: numbers.next()?,
        },
        b'S' => Happened::Swept {
            id: RequestId::parse(name.strip_prefix("swept:")?).ok()?,
            progress: Progress {
                micros: numbers.next()?,
                tokens: numbers.next()?,
                note: packed.get(3 * 8..)?.to_vec(),
            },
        },
        _ => return None,
    };
    Some((at_ms, what))
}

fn total(plus: &Value, minus: &Value, told: &Value) -> Option<Total> {
    Some(Total {
        plus: number(plus)?,
        minus: number(minus)?,
        told: u8::try_from(number(told)?).ok()?,
    })
}

fn text(value: &Value) -> Option<String> {
    redis::from_redis_value_ref(value).ok()
}

#[cfg(test)]
mod tests {
    use weir_router_core::budget::{ALERTS, REMEMBERED_MS, SWEPT_BY_HOLD};

    #[test]
    fn lua_holds_the_numbers_of_the_book() {
        let common = include_str!("common.lua");
        let alerts = ALERTS.map(|percent| percent.to_string()).join(", ");
        assert!(common.contains(&format!("local REMEMBERED_MS = {REMEMBERED_MS}\n")));
        assert!(common.contains(&format!("ipairs({{ {alerts} }})")));
        assert!(include_str!("hold.lua").contains(&format!("\nsweep({SWEPT_BY_HOLD})\n")));
    }
}
