//! Reads a shard's stream as a member of the group: first what others left, then what
//! is new.
//!
//! Redis keeps for each group what was delivered and not acknowledged (*pending*), with
//! the consumer that has it. A reader begins by claiming all that is pending, whoever has
//! it: the caller holds the shard's lease, so others only may not know yet that they lost
//! it. Later it looks now and then for what such a one took and did not book.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use redis::{Cmd, RedisError, RedisResult, Value};

use super::{
    GROUP, RedisSettings,
    append::{ENTRY_BYTES_MAX, ENTRY_EVENTS_MAX},
    endpoint::{Connection, Endpoint},
    entry::{self, Entry, Id, Unknown},
    wait::{BLOCK_MAX, within},
};
use crate::stream::transport::{Chunk, LaneReader, StreamError};

/// The most entries that are asked for at once: each may have [`ENTRY_BYTES_MAX`].
const ENTRIES_MAX: usize = 32;

/// From so many bytes on a chunk takes no more.
const CHUNK_BYTES: usize = 4 << 20;

/// Ids in one XACK.
const ACK_MAX: usize = 1_000;

/// How often it is looked for what another consumer took, and did not book for so long.
const CLAIM: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 5_000 });

/// How often what is booked is trimmed.
const TRIM: Duration = Duration::from_millis(if cfg!(test) { 0 } else { 1_000 });

/// Consumers that read nothing for so long are forgotten.
const FORGET: Duration = Duration::from_secs(3_600);

const CREATE_SCRIPT: &str = include_str!("create.lua");
const TRIM_SCRIPT: &str = include_str!("trim.lua");
const FORGET_SCRIPT: &str = include_str!("forget.lua");
const MISSED_SCRIPT: &str = include_str!("missed.lua");

const FIRST: Id = Id { ms: 0, sequence: 0 };

/// Where a reader is with what is pending.
#[derive(Clone, Copy)]
enum Claim {
    /// It claims from that id on what its consumer has for `idle`.
    From { next: Id, idle: Duration },
    /// It claimed all, then.
    Done(Instant),
}

impl Claim {
    /// Of all that anybody has.
    const ALL: Self = Self::From {
        next: FIRST,
        idle: Duration::ZERO,
    };
}

/// What one call brought.
#[derive(Default)]
struct More {
    entries: Vec<Entry>,
    /// Was pending, and is gone.
    deleted: Vec<Id>,
    /// So many are gone without having been delivered.
    missed: usize,
    /// There is no more now.
    is_all: bool,
}

enum Fault {
    Redis(RedisError),
    Unknown(Unknown),
}

impl From<RedisError> for Fault {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

impl From<Unknown> for Fault {
    fn from(unknown: Unknown) -> Self {
        Self::Unknown(unknown)
    }
}

pub(super) struct Reader {
    connection: Connection,
    timeout: Duration,
    key: String,
    consumer: String,
    claim: Claim,
    /// What was handed out and not acknowledged.
    unbooked: BTreeSet<Id>,
    /// What was acknowledged and not trimmed, and when it was last trimmed.
    is_untrimmed: bool,
    trimmed: Option<Instant>,
    forgot: Option<Instant>,
    /// A read is under way. Where one was given up, what it asked for may have come.
    is_reading: bool,
    /// What an entry had lately: events and bytes.
    sizes: (usize, usize),
    /// The group was there.
    has_group: bool,
}

impl Reader {
    /// With a connection of its own, on which it waits.
    pub(super) async fn begin(
        endpoint: &Endpoint,
        settings: &RedisSettings,
        key: String,
    ) -> Result<Self, StreamError> {
        let connection = within(settings.timeout, endpoint.connect_blocking()).await;
        Ok(Self {
            connection: connection.map_err(unavailable)?,
            timeout: settings.timeout,
            key,
            consumer: settings.consumer.clone(),
            claim: Claim::ALL,
            unbooked: BTreeSet::new(),
            // An earlier reader may not have come to it.
            is_untrimmed: true,
            trimmed: None,
            forgot: None,
            is_reading: false,
            sizes: (ENTRY_EVENTS_MAX, ENTRY_BYTES_MAX),
            has_group: false,
        })
    }

    /// Creates group and stream, where a read found that they are not there. All that is
    /// there is new to the group. `false` where it was there: the shard's slot moved to
    /// another server of the cluster.
    async fn create_group(&self) -> RedisResult<bool> {
        match self.run(CREATE_SCRIPT, &[GROUP]).await {
            Err(error) if error.code() != Some("BUSYGROUP") => Err(error),
            created => Ok(created.is_ok()),
        }
    }

    /// A call that is answered at once.
    async fn call(&self, command: &Cmd) -> RedisResult<Value> {
        within(self.timeout, self.connection.query(command)).await
    }

    /// A script on the key.
    async fn run(&self, script: &str, arguments: &[&str]) -> RedisResult<Value> {
        let mut command = redis::cmd("EVAL");
        command.arg(script).arg(1).arg(&self.key).arg(arguments);
        self.call(&command).await
    }

    /// Reads until there is enough, no more, or until it waited long enough for the first.
    async fn gather(&mut self, limit: usize, patience: Duration) -> Result<Chunk, StreamError> {
        let begun = Instant::now();
        let mut chunk = Chunk::default();
        // Handed out once this returns, and not before: it may be given up.
        let mut ids = BTreeSet::new();
        let mut bytes = 0_usize;
        loop {
            let left = limit.saturating_sub(chunk.events.len()).max(1);
            let count = self.count(left, CHUNK_BYTES.saturating_sub(bytes));
            let is_empty = chunk.events.is_empty() && chunk.lost.is_empty();
            if is_empty {
                self.tidy().await.map_err(unavailable)?;
            }
            let block = is_empty.then(|| patience.saturating_sub(begun.elapsed()));
            let more = self.more(count, block.unwrap_or_default()).await?;
            let deleted = more.deleted.iter();
            let lost = deleted.filter(|id| !self.unbooked.contains(id) && !ids.contains(*id));
            for id in lost {
                chunk.lose(format!("{} {id}", self.key), 1);
            }
            if let missed @ 1.. = more.missed {
                let what = format!("{} {missed} entries that were never read", self.key);
                chunk.lose(what, missed);
            }
            for entry in more.entries {
                // What was claimed may be claimed again, and is handed out once.
                if self.unbooked.contains(&entry.id) || !ids.insert(entry.id) {
                    continue;
                }
                bytes = bytes.saturating_add(entry.bytes());
                // Such an id is nobody's but a stranger's, or of the year 2039.
                let place = entry.id.place().unwrap_or(i64::MAX);
                let events = entry.events.into_iter();
                chunk.events.extend(events.map(|text| (place, text)));
            }
            let is_empty = chunk.events.is_empty() && chunk.lost.is_empty();
            let is_full = chunk.events.len() >= limit || bytes >= CHUNK_BYTES;
            if is_full || (more.is_all && (!is_empty || begun.elapsed() >= patience)) {
                break;
            }
        }
        self.unbooked.append(&mut ids);
        Ok(chunk)
    }

    /// How many entries to ask for: with about so many events and bytes, by the last ones.
    fn count(&self, events: usize, bytes: usize) -> usize {
        let (events_each, bytes_each) = self.sizes;
        let by_events = events.div_ceil(events_each.max(1));
        let by_bytes = bytes.div_ceil(bytes_each.max(1));
        by_events.min(by_bytes).clamp(1, ENTRIES_MAX)
    }

    /// Some entries; where the group is gone, it is created again.
    async fn more(&mut self, count: usize, block: Duration) -> Result<More, StreamError> {
        if let Claim::Done(at) = self.claim
            && at.elapsed() >= CLAIM
        {
            self.claim = Claim::From {
                next: FIRST,
                idle: CLAIM,
            };
        }
        let more = match self.claim {
            Claim::From { next, idle } => self.claimed(next, idle, count).await,
            Claim::Done(_) => self.new_ones(count, block).await,
        };
        match more {
            Err(Fault::Redis(error)) if is_gone(&error) => {
                let had_group = std::mem::take(&mut self.has_group);
                let created = self.create_group().await;
                if had_group && !matches!(created, Ok(false)) {
                    tracing::error!(
                        stream = self.key,
                        "Redis lost the group of a stream, and maybe events that were not \
                         booked; what is there is read again"
                    );
                }
                created.map_err(unavailable)?;
                self.claim = Claim::ALL;
                Ok(More::default())
            }
            Err(Fault::Redis(error)) => Err(unavailable(error)),
            Err(Fault::Unknown(Unknown(what))) => {
                Err(StreamError::Unreadable(format!("{}: {what}", self.key)))
            }
            Ok(more) => {
                self.has_group = true;
                let mean = |sum: usize| sum.checked_div(more.entries.len());
                let events = more.entries.iter().map(|entry| entry.events.len());
                let bytes = more.entries.iter().map(Entry::bytes);
                let means = mean(events.sum()).zip(mean(bytes.sum()));
                self.sizes = means.unwrap_or(self.sizes);
                Ok(more)
            }
        }
    }

    async fn new_ones(&self, count: usize, block: Duration) -> Result<More, Fault> {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg(&self.consumer);
        command.arg("COUNT").arg(count);
        let block = block.min(BLOCK_MAX);
        // 0 would be for ever.
        if block.as_millis() > 0 {
            let block_ms = u64::try_from(block.as_millis()).unwrap_or(1);
            command.arg("BLOCK").arg(block_ms);
        }
        command.arg("STREAMS").arg(&self.key).arg(">");
        let most = self.timeout.saturating_add(block);
        let answer = within(most, self.connection.query(&command)).await?;
        let entries = entry::of_read(answer)?;
        Ok(More {
            is_all: entries.len() < count,
            entries,
            ..More::default()
        })
    }

    /// What is pending from that id on.
    async fn claimed(&mut self, next: Id, idle: Duration, count: usize) -> Result<More, Fault> {
        let mut command = redis::cmd("XAUTOCLAIM");
        command.arg(&self.key).arg(GROUP).arg(&self.consumer);
        command.arg(u64::try_from(idle.as_millis()).unwrap_or(u64::MAX));
        command.arg(next.to_string()).arg("COUNT").arg(count);
        let claimed = entry::of_claim(self.call(&command).await?)?;
        let missed = match claimed.next {
            Some(_) => 0,
            None => redis::from_redis_value(self.run(MISSED_SCRIPT, &[GROUP]).await?)
                .map_err(RedisError::from)?,
        };
        self.claim = match claimed.next {
            Some(next) => Claim::From { next, idle },
            None => Claim::Done(Instant::now()),
        };
        Ok(More {
            entries: claimed.entries,
            deleted: claimed.deleted,
            missed,
            is_all: false,
        })
    }

    async fn acknowledge(&mut self) -> RedisResult<()> {
        let ids: Vec<_> = self.unbooked.iter().map(Id::to_string).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let mut commands = redis::pipe();
        for ids in ids.chunks(ACK_MAX) {
            commands.cmd("XACK").arg(&self.key).arg(GROUP).arg(ids);
        }
        within(self.timeout, self.connection.query_all(&commands)).await?;
        self.unbooked.clear();
        self.is_untrimmed = true;
        Ok(())
    }

    /// Trims and forgets where it is time.
    async fn tidy(&mut self) -> RedisResult<()> {
        let is_due = |at: Option<Instant>, every| at.is_none_or(|at| at.elapsed() >= every);
        if self.is_untrimmed && is_due(self.trimmed, TRIM) {
            self.run(TRIM_SCRIPT, &[GROUP]).await?;
            self.is_untrimmed = false;
            self.trimmed = Some(Instant::now());
        }
        if self.has_group && is_due(self.forgot, FORGET) {
            match self.forget(FORGET).await {
                // The next read finds that, too.
                Err(error) if is_gone(&error) => {}
                forgot => return forgot,
            }
        }
        Ok(())
    }

    /// Forgets consumers that read nothing for so long.
    pub(super) async fn forget(&mut self, idle: Duration) -> RedisResult<()> {
        let idle_ms = idle.as_millis().to_string();
        let arguments = [GROUP, &idle_ms, &self.consumer];
        self.run(FORGET_SCRIPT, &arguments).await?;
        self.forgot = Some(Instant::now());
        Ok(())
    }
}

#[async_trait]
impl LaneReader for Reader {
    async fn read(&mut self, limit: usize, patience: Duration) -> Result<Chunk, StreamError> {
        if std::mem::replace(&mut self.is_reading, true) {
            self.claim = Claim::ALL;
        }
        let chunk = self.gather(limit, patience).await?;
        self.is_reading = false;
        Ok(chunk)
    }

    async fn booked(&mut self) -> Result<(), StreamError> {
        self.acknowledge().await.map_err(unavailable)?;
        self.tidy().await.map_err(unavailable)
    }
}

/// Whether the group is not there: Redis was flushed, or came back without it. A read that
/// waits is let go with other words where its server is no longer the master.
fn is_gone(error: &RedisError) -> bool {
    let is_deleted = || {
        error
            .detail()
            .is_some_and(|why| why.contains("no longer exists"))
    };
    match error.code() {
        Some("NOGROUP") => true,
        Some("UNBLOCKED") => is_deleted(),
        _ => false,
    }
}

fn unavailable(error: RedisError) -> StreamError {
    StreamError::Unavailable(error.to_string())
}
