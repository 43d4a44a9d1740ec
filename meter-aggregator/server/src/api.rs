//! What the paths of the aggregator share: its parts, and plain answers.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use tokio::sync::{Notify, watch};
use weir_meter_core::{lag::Bounds, lease::Member, ledger::book::STREAM};
use weir_meter_store::{
    DatabaseError,
    ledger::{Ledger, Place, VERSION},
    stream::{
        AppendError, Mark, OpenError, Stream, Way,
        kafka::{KafkaSettings, KafkaStream},
        redis::RedisStream,
    },
};
use weir_wire::{
    keys::Keyring,
    proto::usage::{PublishResponse, UsageEvent},
};

use crate::{
    books::{Books, Ledgers},
    config::{For, LedgerSettings, Producer, Settings, StreamSettings},
    fleet::{Fleet, Held},
    ingest::{Source, response, sort},
    intake::Intake,
    metrics::Metrics,
    pool::Pool,
    sender::Sender,
    stripe::Stripe,
    tail::LogState,
};

/// A batch of more events is checked beside the async threads, which others need.
const INLINE_MAX: usize = 256;

/// Between two looks whether Postgres is there.
const AWAY_PAUSE: Duration = Duration::from_secs(1);

/// What every request shares.
pub struct Parts {
    pub books: Books,
    pub sender: Arc<Sender>,
    pub producers: Vec<Producer>,
    /// The access logs that are followed.
    pub logs: Vec<Arc<LogState>>,
    pub admin_token: String,
    pub keys: Arc<Keyring>,
    /// From where on billing is behind.
    pub bounds: Bounds,
}

/// The parts, and what keeps this process among the others, where replicas share a ledger.
pub struct Opened {
    pub parts: Parts,
    pub fleet: Option<Fleet>,
}

impl Parts {
    /// Opens the data folder, whose lock the caller holds, or what replicas share. A service
    /// waits for Postgres, a command does not.
    pub async fn open(settings: Settings, whom: For) -> anyhow::Result<Opened> {
        let ledgers = open_ledgers(settings.ledger, &settings.data_dir, whom).await?;
        let first = ledgers.first();
        let is_shared = first.is_some_and(Ledger::is_shared);
        let looking = first.map(Ledger::another).transpose()?;
        // Leases are kept while all others work.
        let keeping = first
            .filter(|_| is_shared)
            .map(Ledger::another)
            .transpose()?;
        let pool = Pool::new(ledgers);
        let id = replica_id()?;
        let (held, seen) = watch::channel(match is_shared {
            true => Held::nothing(),
            false => Held::Whole,
        });
        let intake = open_stream(
            &settings.stream,
            &pool,
            (&settings.data_dir, settings.mark),
            (is_shared.then(|| seen.clone()), &id),
        )
        .await?;
        let is_embedded = matches!(intake, Intake::Embedded { .. });
        let keys = Arc::new(settings.keys);
        let fenced = Arc::new(Notify::new());
        let looking = Pool::new(looking.into_iter().collect());
        let books = Books::new(
            Ledgers {
                writing: pool,
                looking,
                is_shared,
            },
            intake,
            seen,
            fenced.clone(),
            Metrics::new()?,
            (settings.billing, Some(keys.clone())),
        );
        let member = Member {
            id,
            version: VERSION,
            wants_all: is_embedded,
        };
        let fleet = keeping.map(|ledger| {
            let ledger = Pool::new(vec![ledger]);
            Fleet::new(ledger, member, settings.lease, held, fenced)
        });
        let parts = Self {
            sender: Arc::new(Sender::new(Stripe::new(settings.stripe)?, books.clone())),
            books,
            producers: settings.producers,
            logs: Vec::new(),
            admin_token: settings.admin_token,
            keys,
            bounds: settings.bounds,
        };
        Ok(Opened { parts, fleet })
    }

    /// Refuses a ledger that was copied: the copy goes on.
    pub async fn refuse_moved(&self) -> anyhow::Result<()> {
        if self.books.look(|ledger| ledger.is_moved()).await? {
            bail!(
                "ledger: that in data_dir was copied to Postgres, which goes on; set \
                 ledger.postgres"
            );
        }
        Ok(())
    }

    /// Takes a producer's events; returns once they are durable.
    ///
    /// # Errors
    /// [`AppendError`], where none was taken.
    pub async fn take(
        &self,
        events: Vec<UsageEvent>,
        producer: &Producer,
        way: Way,
    ) -> Result<PublishResponse, AppendError> {
        // Not worth the checking.
        self.books.intake().has_room()?;
        let batch = if events.len() <= INLINE_MAX {
            let source = Source {
                producer: Some(producer),
                way,
            };
            sort(events, source, &self.keys, |_| None)
        } else {
            let (producer, keys) = (producer.clone(), Arc::clone(&self.keys));
            let sorting = tokio::task::spawn_blocking(move || {
                let source = Source {
                    producer: Some(&producer),
                    way,
                };
                sort(events, source, &keys, |_| None)
            });
            sorting.await.map_err(|_| AppendError::Failed)?
        };
        let response = response(&batch);
        self.books.intake().append(batch).await?;
        let counted = self.books.metrics();
        counted.taken(response.accepted, response.quarantined);
        Ok(response)
    }
}

/// An answer for an operator or a producer: one line of text.
pub fn plain(status: StatusCode, message: &str) -> Response {
    (status, format!("{message}\n")).into_response()
}

/// As many connections as are configured, one on SQLite.
async fn open_ledgers(
    ledger: LedgerSettings,
    data_dir: &Path,
    whom: For,
) -> anyhow::Result<Vec<Ledger>> {
    let (place, count) = match ledger {
        LedgerSettings::Sqlite => (Place::Sqlite(data_dir.to_owned()), 1),
        LedgerSettings::Postgres {
            settings,
            connections,
        } => (Place::Postgres(settings), connections),
    };
    let waits = whom == For::Service && matches!(place, Place::Postgres(_));
    loop {
        let place = place.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let first = Ledger::open_at(&place)?;
            let mut ledgers = Vec::new();
            for _ in 1..count {
                ledgers.push(first.another()?);
            }
            ledgers.push(first);
            anyhow::Ok(ledgers)
        });
        match opened.await? {
            Err(error) if waits && is_away(&error) => {
                let error = format!("{error:#}");
                tracing::warn!(
                    error,
                    "the ledger is away; nothing begins before it is there"
                );
                tokio::time::sleep(AWAY_PAUSE).await;
            }
            opened => return opened,
        }
    }
}

/// Whether the database may be there a while later.
fn is_away(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|e| e.downcast_ref());
    causes.any(DatabaseError::is_passing)
}

async fn open_stream(
    stream: &StreamSettings,
    pool: &Arc<Pool>,
    (data_dir, mark): (&Path, Mark),
    (held, id): (Option<watch::Receiver<Held>>, &str),
) -> anyhow::Result<Intake> {
    match stream {
        StreamSettings::Embedded => {
            // Among replicas each has one of its own.
            let name = match held.is_some() {
                true => format!("{STREAM} {}", Stream::open(data_dir)?.reader()?.identity()?),
                false => STREAM.to_owned(),
            };
            let of = name.clone();
            let booked = pool
                .with(move |ledger| Ok((ledger.progress(&of)?, ledger.noted_upto(&of)?)))
                .await?;
            let stream = Stream::open_marked(data_dir, mark, booked)?;
            // What was booked when the process died counts for the mark no longer.
            stream.reader()?.trim(booked.0)?;
            Intake::embedded(stream, name, held)
        }
        StreamSettings::Redis(redis) => {
            let mut redis = redis.clone();
            redis.consumer = id.to_owned();
            redis.ledger = pool.with(|ledger| ledger.identity()).await?;
            nothing_is_left(data_dir, pool).await?;
            let opened = RedisStream::open(redis.clone()).await;
            let stream = or_later(opened, || RedisStream::new(redis)).context("stream.redis")?;
            Ok(Intake::shared(Arc::new(stream), Arc::clone(pool), mark))
        }
        StreamSettings::Kafka(kafka) => {
            let mut settings = KafkaSettings::clone(kafka);
            settings.ledger = pool.with(|ledger| ledger.identity()).await?;
            nothing_is_left(data_dir, pool).await?;
            let opened = KafkaStream::open(settings.clone()).await;
            let stream = or_later(opened, || KafkaStream::new(settings)).context("stream.kafka")?;
            Ok(Intake::shared(Arc::new(stream), Arc::clone(pool), mark))
        }
    }
}

/// What the embedded stream of the folder took before would be left behind where another
/// takes its place.
async fn nothing_is_left(data_dir: &Path, pool: &Arc<Pool>) -> anyhow::Result<()> {
    if !data_dir.join("stream.db").exists() {
        return Ok(());
    }
    let stream = Stream::open(data_dir)?;
    let reader = stream.reader()?;
    let (last, name) = (reader.last()?, format!("{STREAM} {}", reader.identity()?));
    let booked = pool
        .with(move |ledger| Ok(ledger.progress(STREAM)?.max(ledger.progress(&name)?)))
        .await?;
    if last > booked {
        bail!(
            "stream: stream.db in data_dir holds events that are not booked, up to {}; run once \
             without the section stream until they are",
            last.saturating_sub(booked)
        );
    }
    let quarantined = reader.quarantined()?;
    if quarantined > 0 {
        tracing::warn!(
            quarantined,
            "events in quarantine are left in stream.db in data_dir: replay them there"
        );
    }
    Ok(())
}

/// A stream that is away may come later; meanwhile nothing is taken.
fn or_later<T>(
    opened: Result<T, OpenError>,
    unopened: impl FnOnce() -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    match opened {
        Err(OpenError::Unavailable(why)) => {
            tracing::warn!(why, "the stream is away; usage is taken once it is there");
            unopened()
        }
        opened => opened,
    }
}

/// This host's name.
pub fn hostname() -> anyhow::Result<String> {
    Ok(nix::unistd::gethostname()?.to_string_lossy().into_owned())
}

/// The name of this process among the replicas, which none had before: what the last one
/// on this host held is not ours.
fn replica_id() -> anyhow::Result<String> {
    let mut random = [0_u8; 6];
    getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    let random = random
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    Ok(format!("{}-{}-{random}", hostname()?, std::process::id()))
}
