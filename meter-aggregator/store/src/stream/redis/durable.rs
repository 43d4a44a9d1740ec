//! Whether what a Redis acknowledges outlives it.

use std::collections::BTreeMap;

use redis::{Cmd, ErrorKind, RedisResult, ServerErrorKind, Value};

use super::endpoint::Connection;
use crate::stream::transport::OpenError;

/// XAUTOCLAIM tells what was deleted from this version on.
const VERSION_MIN: u32 = 7;

/// What a server is set to, as far as it says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Set {
    appendonly: Option<bool>,
    appendfsync: Option<String>,
    /// Keys may be dropped to make room.
    evicts: bool,
}

/// The servers that are there: their runs, which change where one starts or another takes
/// its place. One that is too old is an error.
pub(super) async fn runs(on: &Connection) -> Result<Vec<String>, OpenError> {
    let servers = on.query_each(redis::cmd("INFO").arg("server")).await;
    let servers = servers.map_err(|error| OpenError::Unavailable(error.to_string()))?;
    let mut runs = Vec::new();
    for server in servers {
        let server = redis::from_redis_value::<String>(server)
            .map_err(|error| OpenError::Unavailable(error.to_string()))?;
        let version = field(&server, "redis_version").unwrap_or_default();
        let major = version.split('.').next().and_then(|n| n.parse().ok());
        if major.is_none_or(|major: u32| major < VERSION_MIN) {
            return Err(OpenError::Unfit(format!(
                "Redis {VERSION_MIN}.0 or later is needed, found {version:?}"
            )));
        }
        runs.push(field(&server, "run_id").unwrap_or_default().to_owned());
    }
    runs.sort_unstable();
    Ok(runs)
}

/// Looks whether acknowledged events outlive the servers. What can be lost is said in the
/// log; where it may be all, that is an error unless `allow_volatile`.
pub(super) async fn check(on: &Connection, allow_volatile: bool) -> Result<(), OpenError> {
    let set = set(on).await;
    let set = set.map_err(|error| OpenError::Unavailable(error.to_string()))?;
    for set in &set {
        match judge(set) {
            Judgement::Good => {}
            Judgement::Doubtful(what) => tracing::warn!("{what}"),
            Judgement::Volatile(what) if allow_volatile => tracing::warn!("{what}"),
            Judgement::Volatile(what) => return Err(OpenError::Unfit(what)),
        }
    }
    Ok(())
}

/// What a server that takes another's place may miss, where nobody waits until it has it.
pub(super) fn missed(fails_over: bool, replicas: u32) -> Option<&'static str> {
    (fails_over && replicas == 0).then_some(
        "stream.redis.replicas is 0: where a replica takes a master's place, acknowledged \
         events that it was not sent yet are lost; with 1 an event is acknowledged once a \
         replica has it",
    )
}

#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Good,
    Doubtful(String),
    Volatile(String),
}

fn judge(set: &Set) -> Judgement {
    if set.appendonly == Some(false) {
        return Judgement::Volatile(
            "Redis has appendonly no, and loses every event that waits when it stops: set \
             appendonly yes and appendfsync always, or allow_volatile"
                .to_owned(),
        );
    }
    if set.evicts {
        return Judgement::Volatile(
            "Redis drops keys where memory is short, events with them: set maxmemory-policy \
             noeviction, or allow_volatile"
                .to_owned(),
        );
    }
    let doubtful = |what: &str| Judgement::Doubtful(what.to_owned());
    match (set.appendonly, set.appendfsync.as_deref()) {
        (Some(true), Some("always")) => Judgement::Good,
        (Some(true), Some("everysec")) => doubtful(
            "Redis has appendfsync everysec: where its machine fails, acknowledged events of \
             about the last second are lost; appendfsync always keeps them",
        ),
        (Some(true), Some(_)) => doubtful(
            "Redis has appendfsync no: where its machine fails, acknowledged events of about \
             the last 30 seconds are lost; appendfsync always keeps them",
        ),
        (Some(true), None) => doubtful(
            "Redis has appendonly yes and does not say how often that is synced: where its \
             machine fails, acknowledged events may be lost",
        ),
        _ => doubtful(
            "Redis does not say whether it has appendonly yes; without it, acknowledged \
             events are lost where it fails",
        ),
    }
}

async fn set(on: &Connection) -> RedisResult<Vec<Set>> {
    let mut all = Vec::new();
    for pattern in ["append*", "maxmemory*"] {
        match on
            .query_each(redis::cmd("CONFIG").arg("GET").arg(pattern))
            .await
        {
            Ok(answers) => all.push(answers),
            Err(error) if is_forbidden(&error) => return informed(on).await,
            Err(error) => return Err(error),
        }
    }
    let mut all = all.into_iter().map(Vec::into_iter);
    let (Some(append), Some(memory)) = (all.next(), all.next()) else {
        return Ok(Vec::new());
    };
    let members = |answer: Value| redis::from_redis_value::<BTreeMap<String, String>>(answer);
    let mut set = Vec::new();
    for (append, memory) in append.zip(memory) {
        let (append, memory) = (members(append)?, members(memory)?);
        let evicts = evicts(
            memory.get("maxmemory").map(String::as_str),
            memory.get("maxmemory-policy").map(String::as_str),
        );
        set.push(Set {
            appendonly: append.get("appendonly").map(|value| value == "yes"),
            appendfsync: append.get("appendfsync").cloned(),
            evicts,
        });
    }
    Ok(set)
}

/// What INFO says, where CONFIG is not for us, as where others run the server.
async fn informed(on: &Connection) -> RedisResult<Vec<Set>> {
    let info = |section: &str| -> Cmd {
        let mut command = redis::cmd("INFO");
        command.arg(section);
        command
    };
    let persistence = on.query_each(&info("persistence")).await?;
    let memory = on.query_each(&info("memory")).await?;
    let mut set = Vec::new();
    for (persistence, memory) in persistence.into_iter().zip(memory) {
        let persistence: String = redis::from_redis_value(persistence)?;
        let memory: String = redis::from_redis_value(memory)?;
        set.push(Set {
            appendonly: field(&persistence, "aof_enabled").map(|value| value == "1"),
            appendfsync: None,
            evicts: evicts(
                field(&memory, "maxmemory"),
                field(&memory, "maxmemory_policy"),
            ),
        });
    }
    Ok(set)
}

/// Streams have no time to live: the policies that end with it leave them alone.
fn evicts(maxmemory: Option<&str>, policy: Option<&str>) -> bool {
    maxmemory.is_some_and(|bytes| bytes != "0")
        && policy.is_some_and(|policy| policy.starts_with("allkeys"))
}

fn is_forbidden(error: &redis::RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Server(ServerErrorKind::NoPerm | ServerErrorKind::ResponseError)
    )
}

/// The value of a line of INFO.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    info.lines().find_map(value).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_is_set_to_says_what_it_loses() {
        let check = |appendonly, appendfsync: Option<&str>, evicts, expected: &str| {
            let found = judge(&Set {
                appendonly,
                appendfsync: appendfsync.map(str::to_owned),
                evicts,
            });
            let found = format!("{found:?}");
            assert!(found.starts_with(expected), "{found}");
        };
        check(Some(true), Some("always"), false, "Good");
        check(
            Some(true),
            Some("everysec"),
            false,
            "Doubtful(\"Redis has appendfsync everysec",
        );
        check(
            Some(true),
            Some("no"),
            false,
            "Doubtful(\"Redis has appendfsync no",
        );
        check(Some(true), None, false, "Doubtful");
        check(None, None, false, "Doubtful");
        check(
            Some(true),
            Some("always"),
            true,
            "Volatile(\"Redis drops keys",
        );
        check(
            Some(false),
            Some("always"),
            false,
            "Volatile(\"Redis has appendonly no",
        );
    }

    #[test]
    fn only_some_policies_drop_streams() {
        assert!(evicts(Some("100"), Some("allkeys-lru")));
        assert!(!evicts(Some("0"), Some("allkeys-lru")));
        assert!(!evicts(Some("100"), Some("volatile-lru")));
        assert!(!evicts(Some("100"), Some("noeviction")));
        assert!(!evicts(None, None));
    }
}
