//! Redis Streams: a stream for each shard of the tenants, read by one group.
//!
//! An entry has the events that one call brought for a shard. What is booked is
//! acknowledged and then trimmed, up to what no group needs any more, by whoever reads;
//! producers never trim. An acknowledgement or a trim that is lost has entries read again,
//! and no event is booked twice.
//!
//! Acknowledged events are as durable as Redis is set up to be: `appendonly yes` has to be
//! there, and `appendfsync always` loses nothing. A replica that takes over may miss what
//! it was not sent yet; [`RedisSettings::replicas`] waits until it was.

mod append;
mod durable;
mod endpoint;
mod entry;
mod link;
mod reader;
mod tls;
mod wait;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::future::{join_all, try_join_all};
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::Semaphore;
use weir_meter_core::{lag::Oldest, lease::Shard};

pub use self::tls::RedisTls;
use self::{
    entry::Id,
    link::{Link, Used},
    reader::Reader,
    wait::within,
};
use super::{
    AppendError,
    transport::{Event, Lane, LaneReader, OpenError, StreamError, Transport, Waiting},
};

/// The group in which all replicas read.
const GROUP: &str = "weir";

/// The most KiB of events that are on their way to Redis.
const QUEUED_MAX_KIB: u32 = 48 << 10;

const CLAIM_SCRIPT: &str = include_str!("claim.lua");
const WAITING_SCRIPT: &str = include_str!("waiting.lua");

/// Where Redis is.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisSettings {
    /// `redis://user:password@host:port/db`, or `rediss://…` for TLS with the
    /// system's roots (or those of `SSL_CERT_FILE`, or of [`Self::tls`]). What is special in
    /// a user or a password is percent-encoded. Several, separated by commas, for a cluster. Behind
    /// sentinels `redis+sentinel://user:password@host:port,host:port/master/db`, where the
    /// hosts are those of sentinels, with `rediss+sentinel` for TLS; a password of theirs
    /// comes behind it as `?sentinel=user:password`.
    ///
    /// An ACL user needs `~weir:usage:* ~{weir:usage:*` (or the prefix that is set) and
    /// `+xadd +xgroup +xreadgroup +xautoclaim +xack +xtrim +xinfo +xpending +xrange +xlen
    /// +exists +eval +get +set +info +config|get`; with a `db` `+select`, in a cluster
    /// `+cluster|slots`, behind sentinels `+role`. Redis 7.0 or later, or Valkey.
    pub url: String,
    /// Whether it is a cluster.
    pub cluster: bool,
    /// Files for the TLS of such a URL: of servers and sentinels.
    pub tls: Option<RedisTls>,
    /// What the names of the streams begin with; `weir:usage` in most places.
    pub prefix: String,
    /// Who reads, among replicas: its id, which no other has.
    pub consumer: String,
    /// How long a call may take, and connecting; some seconds.
    pub timeout: Duration,
    /// Takes a Redis that loses acknowledged events when it stops.
    pub allow_volatile: bool,
    /// The id of the ledger that books what is here; empty where that is not checked. The
    /// streams of one prefix are one ledger's: a second would bill all again.
    pub ledger: String,
    /// How many replicas have to have an event before it is acknowledged; 0 for none. More
    /// than there are acknowledges nothing. An ACL user needs `+wait`.
    pub replicas: u32,
}

impl RedisSettings {
    /// With what is good in most places.
    #[must_use]
    pub fn new(url: String, consumer: String) -> Self {
        Self {
            url,
            cluster: false,
            tls: None,
            prefix: "weir:usage".to_owned(),
            consumer,
            timeout: Duration::from_secs(5),
            allow_volatile: false,
            replicas: 0,
            ledger: String::new(),
        }
    }

    /// Where it stands whose a shard's stream is.
    fn ledger_key(&self, shard: Shard) -> String {
        format!("{{{}:{}}}:ledger", self.prefix, shard.number())
    }

    /// The stream of a shard. In a cluster it is as a whole the shard's slot that decides
    /// who has it.
    fn key(&self, shard: Shard) -> String {
        format!("{{{}:{}}}:events", self.prefix, shard.number())
    }
}

/// Shows no URL, for that may hold a password.
impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings")
            .field("cluster", &self.cluster)
            .field("tls", &self.tls)
            .field("prefix", &self.prefix)
            .field("consumer", &self.consumer)
            .field("timeout", &self.timeout)
            .field("allow_volatile", &self.allow_volatile)
            .field("replicas", &self.replicas)
            .finish_non_exhaustive()
    }
}

/// The streams in Redis.
pub struct RedisStream {
    settings: RedisSettings,
    link: Arc<Link>,
    /// KiB that may still go on their way.
    room: Semaphore,
}

impl fmt::Debug for RedisStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisStream").field(&self.settings).finish()
    }
}

impl RedisStream {
    /// With those settings, without asking Redis yet. The process's `rustls` provider must
    /// be installed before where the URL is one of TLS.
    ///
    /// # Errors
    /// [`OpenError::Settings`], which names no part of the URL.
    pub fn new(settings: RedisSettings) -> Result<Self, OpenError> {
        let wrong = |field: &str, text: &str| {
            let why = format!("{field} must be 1 to 100 characters without {{, }} and blanks");
            let is_right = (1..=100).contains(&text.len())
                && !text.contains(|c: char| c.is_whitespace() || c == '{' || c == '}');
            if is_right {
                Ok(())
            } else {
                Err(OpenError::Settings(why))
            }
        };
        wrong("prefix", &settings.prefix)?;
        wrong("consumer", &settings.consumer)?;
        Ok(Self {
            link: Link::new(&settings)?,
            settings,
            room: Semaphore::new(usize::try_from(QUEUED_MAX_KIB).unwrap_or(0)),
        })
    }

    /// The same, and looks whether Redis is there and keeps what it acknowledges.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(settings: RedisSettings) -> Result<Self, OpenError> {
        let stream = Self::new(settings)?;
        stream.link.session().await?;
        if let Some(first) = Shard::all().next() {
            stream.belongs_here(first).await?;
        }
        Ok(stream)
    }

    /// Whether a shard's stream is this ledger's, or nobody's yet; then it is from now on.
    /// What Redis lost is taken anew.
    async fn belongs_here(&self, shard: Shard) -> Result<(), OpenError> {
        let ours = &self.settings.ledger;
        if ours.is_empty() {
            return Ok(());
        }
        let used = self.link.session().await?;
        let key = self.settings.ledger_key(shard);
        match within(self.settings.timeout, self.owner(&used, shard, &key)).await {
            Ok(found) if found == *ours => Ok(()),
            Ok(found) => Err(OpenError::Unfit(format!(
                "{key} says that another ledger books what is here ({found}); give each ledger \
                 a prefix"
            ))),
            // What it says now it may not say later.
            Err(error) => {
                self.link.failed(&used, &error).await;
                Err(OpenError::Unavailable(error.to_string()))
            }
        }
    }

    /// The ledger whose a shard's stream is: ours where it was nobody's. Looks before it
    /// writes, which a Redis may refuse for now.
    async fn owner(&self, used: &Used, shard: Shard, key: &str) -> RedisResult<String> {
        let connection = used.of(shard)?;
        let found = connection.query(redis::cmd("GET").arg(key)).await?;
        let found: Option<String> = redis::from_redis_value(found)?;
        if let Some(found) = found {
            return Ok(found);
        }
        let mut claim = redis::cmd("EVAL");
        claim.arg(CLAIM_SCRIPT).arg(1).arg(key);
        let claimed = connection.query(claim.arg(&self.settings.ledger)).await?;
        Ok(redis::from_redis_value(claimed)?)
    }

    async fn add(&self, used: &Used, events: Vec<Event>) -> RedisResult<()> {
        let shards = append::entries(events).into_iter();
        let replicas = self.settings.replicas;
        let added = shards.map(|(shard, entries)| {
            let mut commands = append::commands(&self.settings.key(shard), &entries);
            if replicas > 0 {
                // Others wait behind it, and it never waits for ever.
                let most_ms = self.settings.timeout.as_millis() / 2;
                let most_ms = u64::try_from(most_ms).unwrap_or(1).max(1);
                commands.cmd("WAIT").arg(replicas).arg(most_ms);
            }
            async move {
                let answers = used.of(shard)?.query_all(&commands).await?;
                match answers.last() {
                    Some(Value::Int(have)) if replicas > 0 && *have < i64::from(replicas) => {
                        Err((ErrorKind::Client, "too few replicas have the events").into())
                    }
                    _ => Ok(()),
                }
            }
        });
        // All of them, so that what failed is known.
        let added = within(self.settings.timeout, async { Ok(join_all(added).await) }).await?;
        added.into_iter().collect()
    }

    async fn waits(&self, used: &Used, shard: Shard) -> RedisResult<Waiting> {
        let mut command = redis::cmd("EVAL");
        command.arg(WAITING_SCRIPT).arg(1);
        command.arg(self.settings.key(shard)).arg(GROUP);
        let answer = used.of(shard)?.query(&command).await?;
        let (entries, oldest): (u64, String) = redis::from_redis_value(answer)?;
        let oldest = Id::parse(&oldest).and_then(|id| i64::try_from(id.ms).ok());
        Ok(Waiting {
            lane: Lane::Of(shard),
            entries,
            oldest: oldest.map(Oldest::at),
        })
    }
}

#[async_trait]
impl Transport for RedisStream {
    fn lanes(&self) -> Vec<Lane> {
        Shard::all().map(Lane::Of).collect()
    }

    async fn append(&self, events: Vec<Event>) -> Result<(), AppendError> {
        if events.is_empty() {
            return Ok(());
        }
        let sizes = events.iter().map(|event| event.text.len());
        let kib = sizes.fold(0, usize::saturating_add) >> 10;
        let kib = u32::try_from(kib).unwrap_or(QUEUED_MAX_KIB);
        // One call may be larger than all that may wait.
        let kib = kib.saturating_add(1).min(QUEUED_MAX_KIB);
        let Ok(_room) = self.room.try_acquire_many(kib) else {
            return Err(AppendError::Busy);
        };
        let used = self.link.session().await;
        let used = used.map_err(|_| AppendError::Failed)?;
        match self.add(&used, events).await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.link.failed(&used, &error).await;
                Err(refused(&error))
            }
        }
    }

    async fn reader(&self, lane: Lane, _after: i64) -> Result<Box<dyn LaneReader>, StreamError> {
        let Lane::Of(shard) = lane else {
            let why = "Redis has a lane for each shard, and none with all events";
            return Err(StreamError::Unavailable(why.to_owned()));
        };
        let key = self.settings.key(shard);
        let belongs = self.belongs_here(shard).await;
        belongs.map_err(|error| StreamError::Unavailable(error.to_string()))?;
        let reader = Reader::begin(&self.link.endpoint, &self.settings, key).await?;
        Ok(Box::new(reader))
    }

    async fn waiting(&self) -> Result<Vec<Waiting>, StreamError> {
        let used = self.link.session().await;
        let used = used.map_err(|error| StreamError::Unavailable(error.to_string()))?;
        let all = try_join_all(Shard::all().map(|shard| self.waits(&used, shard)));
        match within(self.settings.timeout, all).await {
            Ok(all) => Ok(all),
            Err(error) => {
                self.link.failed(&used, &error).await;
                Err(StreamError::Unavailable(error.to_string()))
            }
        }
    }
}

/// Whether it is worth to come back soon: Redis is there, and has no room or is starting.
fn refused(error: &RedisError) -> AppendError {
    let is_busy = error.code() == Some("OOM")
        || matches!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::BusyLoading | ServerErrorKind::TryAgain)
        );
    if is_busy {
        AppendError::Busy
    } else {
        AppendError::Failed
    }
}

#[cfg(test)]
mod tests;
