//! The scripts: what they are asked and what they answer.

use std::borrow::Cow;

use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use weir_router_core::quota::{
    Answer, Ask, Closing, Granted, LeaseId, LimitState, memory::fenced_until_ms, window::part_ms,
};

use super::{
    clock::Bounds,
    link::{Connection, Identity},
};

/// Ages beyond that are as good as that one, in milliseconds; Lua's numbers are
/// exact up to 2^53.
const AGE_MAX_MS: u64 = 1 << 40;

/// A script, run by its digest where the server knows it.
#[derive(Debug)]
pub(crate) struct Script {
    text: Cow<'static, str>,
    digest: String,
}

impl Script {
    pub(crate) fn new(text: impl Into<Cow<'static, str>>) -> Self {
        let text = text.into();
        let digest = redis::Script::new(&text).get_hash().to_owned();
        Self { text, digest }
    }

    /// Runs it for one key.
    pub(crate) async fn run(
        &self,
        connection: &Connection,
        key: &str,
        arguments: impl Fn(&mut Cmd),
    ) -> RedisResult<Value> {
        let command = |verb: &str, script: &str| {
            let mut command = redis::cmd(verb);
            command.arg(script).arg(1).arg(key);
            arguments(&mut command);
            command
        };
        let known = connection.query(&command("EVALSHA", &self.digest)).await;
        match known {
            // The server was started, or told to forget: this loads it, too.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                connection.query(&command("EVAL", &self.text)).await
            }
            answered => answered,
        }
    }
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Scripts {
    pub(crate) acquire: Script,
    pub(crate) close: Script,
    pub(crate) leap: Script,
    pub(crate) time: Script,
}

impl Scripts {
    pub(crate) fn new() -> Self {
        Self {
            acquire: Script::new(concat!(
                include_str!("common.lua"),
                include_str!("acquire.lua")
            )),
            close: Script::new(concat!(
                include_str!("common.lua"),
                include_str!("close.lua")
            )),
            leap: Script::new(include_str!("leap.lua")),
            time: Script::new(include_str!("time.lua")),
        }
    }

    /// TIME of the server that holds a key, in milliseconds.
    pub(crate) async fn time(&self, connection: &Connection, key: &str) -> RedisResult<i64> {
        let value = self.time.run(connection, key, |_| ()).await?;
        redis::from_redis_value(value).map_err(RedisError::from)
    }
}

/// The key of a tenant's marker, from which scripts derive the others.
pub(crate) fn marker_key(tenant: &str) -> String {
    format!("weir:q:{{{tenant}}}:m")
}

/// What `acquire.lua` is asked.
pub(crate) struct Acquire<'a> {
    pub(crate) ask: &'a Ask,
    pub(crate) identity: &'a Identity,
    /// For a marker that is to be written.
    pub(crate) epoch: &'a str,
    pub(crate) bounds: Bounds,
}

impl Acquire<'_> {
    pub(crate) fn write(&self, command: &mut Cmd) {
        let ask = self.ask;
        let mut numbers = Packed::for_numbers(ask.limits.len().saturating_add(7));
        numbers.number(self.identity.leap);
        numbers.number(self.bounds.low_ms.unsigned_abs());
        numbers.number(self.bounds.high_ms.unsigned_abs());
        numbers.number(ask.wanted.max(1).into());
        numbers.number(ask.gateways.max(1).into());
        numbers.number(ask.bounded_life_ms());
        numbers.number_or_minus_one(fenced_until_ms(&ask.limits, 0));
        let mut limits = Packed::for_numbers(ask.limits.len().saturating_mul(5));
        for limit in &ask.limits {
            let window_ms = limit.window_ms();
            numbers.number(limit.requests.get().into());
            limits.text(&format!("{window_ms}:{}", limit.class));
            limits.number(window_ms);
            limits.number(part_ms(window_ms));
        }
        command
            .arg(&self.identity.server)
            .arg(self.epoch)
            .arg(&ask.epoch)
            .arg(hex(&ask.id).collect::<Vec<u8>>())
            .arg(numbers.0)
            .arg(limits.0);
        write_close(command, &ask.closing);
    }
}

/// What `close.lua` is asked.
pub(crate) fn write_close(command: &mut Cmd, closing: &[Closing]) {
    let mut packed = Packed::for_numbers(closing.len().saturating_mul(6));
    for closing in closing {
        packed.0.extend(hex(&closing.id));
        packed.number(closing.spent.into());
        packed.number(closing.age_ms.min(AGE_MAX_MS));
    }
    command.arg(packed.0);
}

/// What Lua's `struct.unpack` takes apart: numbers are doubles, high byte first.
pub(crate) struct Packed(pub(crate) Vec<u8>);

impl Packed {
    /// With room for about so many.
    pub(crate) fn for_numbers(count: usize) -> Self {
        Self(Vec::with_capacity(count.saturating_mul(size_of::<f64>())))
    }

    /// Exact up to 2^53.
    pub(crate) fn number(&mut self, n: u64) {
        self.0.extend_from_slice(&(n as f64).to_be_bytes());
    }

    pub(crate) fn number_or_minus_one(&mut self, n: Option<u64>) {
        let n = n.map_or(-1.0, |n| n as f64);
        self.0.extend_from_slice(&n.to_be_bytes());
    }

    /// No zero byte is in any; one ends it.
    pub(crate) fn text(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }
}

/// In small letters. Each call names some leases, and `{:032x}` takes its time.
fn hex(id: &LeaseId) -> impl Iterator<Item = u8> {
    let digit = |n: u8| match n {
        0..=9 => b'0'.wrapping_add(n),
        _ => b'a'.wrapping_add(n.wrapping_sub(10)),
    };
    id.iter()
        .flat_map(move |byte| [digit(byte >> 4), digit(byte & 0xf)])
}

/// What `acquire.lua` answers.
#[derive(Debug)]
pub(crate) enum Reply {
    /// The answer, and what TIME was.
    Decided(Answer, i64),
    /// TIME is not within its bounds; nothing was done.
    Leapt,
    /// The tenant was asked for by a router that knows of so many leaps; nothing
    /// was done.
    Stale(u64),
}

impl Reply {
    pub(crate) fn read(value: &Value) -> RedisResult<Self> {
        Self::of(value).ok_or_else(|| unexpected("the quota script"))
    }

    fn of(value: &Value) -> Option<Self> {
        let Value::Array(items) = value else {
            return None;
        };
        let [kind, a, b, rest @ ..] = items.as_slice() else {
            return None;
        };
        let granted = match number(kind)? {
            0 => Granted::Denied {
                free_in_ms: number(a)?,
            },
            1 => Granted::Lease {
                requests: u32::try_from(number(a)?).ok()?,
                life_ms: number(b)?,
            },
            2 => Granted::Fenced {
                until_in_ms: number(a)?,
            },
            3 => return Some(Self::Leapt),
            4 => return Some(Self::Stale(number(a)?)),
            _ => return None,
        };
        let [epoch, time, states @ ..] = rest else {
            return None;
        };
        let (states, []) = states.as_chunks::<2>() else {
            return None;
        };
        let state = |[remaining, reset]: &[Value; 2]| {
            Some(LimitState {
                remaining: number(remaining)?,
                reset_ms: number(reset)?,
            })
        };
        let answer = Answer {
            granted,
            epoch: redis::from_redis_value_ref(epoch).ok()?,
            limits: states.iter().map(state).collect::<Option<_>>()?,
        };
        Some(Self::Decided(answer, i64::try_from(number(time)?).ok()?))
    }
}

pub(crate) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(n) => u64::try_from(*n).ok(),
        _ => None,
    }
}

/// A server that answers what none of ours would.
pub(crate) fn unexpected(who: &'static str) -> RedisError {
    (
        ErrorKind::UnexpectedReturnType,
        "unexpected answer",
        who.to_owned(),
    )
        .into()
}

#[cfg(test)]
mod tests {
    use weir_wire::quota::{FENCED_WINDOW_MAX_S, LIFE_MAX_MS};

    #[test]
    fn lua_holds_the_numbers_of_the_contract() {
        let text = include_str!("common.lua");
        for line in [
            format!("local FENCED_WINDOW_MAX_MS = {FENCED_WINDOW_MAX_S}000\n"),
            format!("local LIFE_MAX_MS = {LIFE_MAX_MS}\n"),
        ] {
            assert!(text.contains(&line), "{line}");
        }
    }
}
