//! Kafka: a topic with a partition for each shard of the tenants, by the shard's number.
//!
//! A message is one event, as a CloudEvent in JSON; its key is the tenant. How far a
//! partition is booked is told by the ledger, which keeps the offset in the transaction
//! that books; Kafka keeps nothing of that. What is booked goes when the topic's retention
//! says so, and what is not booked by then is lost and told.
//!
//! A topic is one ledger's: each message says whose it is, and what is another's is booked
//! by nobody else.

mod client;
mod owner;
mod reader;
mod seen;
mod topic;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
};

use async_trait::async_trait;
use futures_util::{FutureExt as _, future::join_all};
use rdkafka::{
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    message::OwnedHeaders,
    producer::{FutureProducer, FutureRecord, future_producer::DeliveryFuture},
    types::RDKafkaErrorCode,
};
use tokio::sync::OnceCell;
use weir_meter_core::lease::Shard;
use weir_process::now_ms;

pub use self::client::{KafkaMechanism, KafkaSasl, KafkaSettings, KafkaTls};
use self::{
    client::Log,
    reader::Reader,
    seen::{Seen, UNKNOWN},
};
use super::{
    AppendError,
    seldom::Seldom,
    transport::{Event, Lane, LaneReader, OpenError, StreamError, Transport, Waiting},
};

/// The topic in Kafka.
pub struct KafkaStream {
    settings: Arc<KafkaSettings>,
    /// `None` where the last one can't go on.
    producer: Mutex<Option<FutureProducer<Log>>>,
    /// Asks what is there.
    looker: Arc<BaseConsumer<Log>>,
    lanes: Vec<Arc<Seen>>,
    /// The topic was looked at, and is fit.
    is_fit: OnceCell<()>,
    /// About what fails.
    said: Seldom,
}

impl fmt::Debug for KafkaStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KafkaStream").field(&self.settings).finish()
    }
}

impl KafkaStream {
    /// With those settings, without asking Kafka yet.
    ///
    /// # Errors
    /// [`OpenError::Settings`], which tells no secret.
    pub fn new(settings: KafkaSettings) -> Result<Self, OpenError> {
        check(&settings)?;
        let settings = Arc::new(settings);
        let wrong = |error: KafkaError| OpenError::Settings(settings.said(&error));
        let looker = settings
            .consumer()
            .create_with_context(Log)
            .map_err(wrong)?;
        let producer = settings
            .producer()
            .create_with_context(Log)
            .map_err(wrong)?;
        Ok(Self {
            producer: Mutex::new(Some(producer)),
            looker: Arc::new(looker),
            lanes: Shard::all().map(|_| Arc::default()).collect(),
            is_fit: OnceCell::new(),
            said: Seldom::default(),
            settings,
        })
    }

    /// The same, and looks whether Kafka is there and the topic is fit; creates the topic
    /// where that is set.
    ///
    /// # Errors
    /// [`OpenError`], which says how the topic has to be.
    pub async fn open(settings: KafkaSettings) -> Result<Self, OpenError> {
        let stream = Self::new(settings)?;
        stream.fit().await?;
        Ok(stream)
    }

    /// The topic is fit. Many may ask, and one at a time looks: each waits for no longer
    /// than it would for an event.
    async fn fit(&self) -> Result<(), OpenError> {
        let most = self.settings.timeout.saturating_mul(2);
        let fit = tokio::time::timeout(most, self.look()).await;
        let late = || OpenError::Unavailable("no answer in time".to_owned());
        fit.unwrap_or_else(|_| Err(late()))
    }

    async fn look(&self) -> Result<(), OpenError> {
        let dead = |error: tokio::task::JoinError| OpenError::Unavailable(error.to_string());
        let looks = || {
            let (looker, settings) = (Arc::clone(&self.looker), Arc::clone(&self.settings));
            let look = move || {
                topic::look(&looker, &settings.topic, settings.timeout)
                    .map_err(|error| OpenError::Unavailable(settings.said(&error)))
            };
            let looked = tokio::task::spawn_blocking(look);
            async move { looked.await.map_err(dead)? }.boxed()
        };
        let check = || async {
            topic::check(&self.settings, looks).await?;
            let settings = Arc::clone(&self.settings);
            let looked = tokio::task::spawn_blocking(move || owner::look(&settings)).await;
            looked.map_err(dead)?
        };
        self.is_fit.get_or_try_init(check).await.copied()
    }

    fn seen(&self, shard: Shard) -> Arc<Seen> {
        let seen = self.lanes.get(usize::from(shard.number()));
        seen.cloned().unwrap_or_default()
    }

    /// The producer; a new one where the last can't go on.
    fn producer(&self) -> Result<FutureProducer<Log>, KafkaError> {
        let mut producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        match &*producer {
            Some(producer) => Ok(producer.clone()),
            None => {
                let new = self.settings.producer().create_with_context(Log)?;
                Ok(producer.insert(new).clone())
            }
        }
    }

    /// Hands events to the producer; gives what to wait for.
    fn enqueue(&self, events: &[Event]) -> Result<Vec<DeliveryFuture>, KafkaError> {
        let producer = self.producer()?;
        let headers = owner::headers(&self.settings);
        let record = |event| record(&self.settings.topic, event, headers.clone());
        let sent = events.iter().map(record).map(|record| {
            let sent = producer.send_result(record);
            sent.map_err(|(error, _)| error)
        });
        sent.collect()
    }

    async fn add(&self, events: Vec<Event>) -> Result<(), KafkaError> {
        let sent = self.enqueue(&events)?;
        drop(events);
        for delivered in join_all(sent).await {
            match delivered {
                Ok(Ok(_)) => {}
                Ok(Err((error, _))) => return Err(error),
                Err(_) => return Err(KafkaError::Canceled),
            }
        }
        Ok(())
    }

    fn failed(&self, error: &KafkaError) -> AppendError {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => return AppendError::Busy,
            // It can't say any more whether it sent something twice; the ledger can.
            Some(RDKafkaErrorCode::Fatal) => {
                *self.producer.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
            _ => {}
        }
        let error = self.settings.said(error);
        tracing::warn!(
            error,
            "events can't be appended to Kafka; producers keep them"
        );
        AppendError::Failed
    }
}

fn record<'a>(
    topic: &'a str,
    event: &'a Event,
    headers: OwnedHeaders,
) -> FutureRecord<'a, str, str> {
    FutureRecord::to(topic)
        .partition(i32::from(event.shard.number()))
        .key(event.tenant.as_str())
        .payload(event.text.as_str())
        .headers(headers)
}

fn check(settings: &KafkaSettings) -> Result<(), OpenError> {
    let wrong = |why: &str| Err(OpenError::Settings(why.to_owned()));
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if settings.bootstrap_servers.trim().is_empty() {
        return wrong("bootstrap_servers is empty; host:port of a broker has to be there");
    }
    if !(1..=249).contains(&settings.topic.len()) || !settings.topic.chars().all(is_name) {
        return wrong("topic must be 1 to 249 letters, digits, dots, _ and -");
    }
    if settings
        .create_replication
        .is_some_and(|n| !(1..=99).contains(&n))
    {
        return wrong("create_topic.replication must be 1 to 99");
    }
    let is_whole = |tls: &KafkaTls| tls.certificate_file.is_some() == tls.key_file.is_some();
    if !settings.tls.as_ref().is_none_or(is_whole) {
        return wrong("tls has a certificate without a key, or a key without a certificate");
    }
    Ok(())
}

#[async_trait]
impl Transport for KafkaStream {
    fn lanes(&self) -> Vec<Lane> {
        Shard::all().map(Lane::Of).collect()
    }

    async fn append(&self, events: Vec<Event>) -> Result<(), AppendError> {
        if let Err(error) = self.fit().await {
            if self.said.is_due() {
                tracing::warn!(%error, "events can't be appended to Kafka; producers keep them");
            }
            return Err(AppendError::Failed);
        }
        // Each has its time-out; this is for where none comes.
        let most = self.settings.timeout.saturating_mul(2);
        match tokio::time::timeout(most, self.add(events)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.failed(&error)),
            Err(_) => Err(AppendError::Failed),
        }
    }

    async fn reader(&self, lane: Lane, after: i64) -> Result<Box<dyn LaneReader>, StreamError> {
        let Lane::Of(shard) = lane else {
            let why = "Kafka has a lane for each shard, and none with all events";
            return Err(StreamError::Unavailable(why.to_owned()));
        };
        let fit = self.fit().await;
        fit.map_err(|error| StreamError::Unavailable(error.to_string()))?;
        let settings = Arc::clone(&self.settings);
        let reader = Reader::begin(settings, shard, after, self.seen(shard)).await?;
        Ok(Box::new(reader))
    }

    fn progress(&self, lane: Lane) -> Option<String> {
        Some(format!("kafka/{}/{lane}", self.settings.topic))
    }

    fn note_booked(&self, lane: Lane, number: i64) {
        if let Lane::Of(shard) = lane {
            self.seen(shard).position.store(number, Relaxed);
        }
    }

    async fn waiting(&self) -> Result<Vec<Waiting>, StreamError> {
        let known: Vec<_> = Shard::all()
            .map(|shard| (shard, self.seen(shard)))
            .filter(|(_, seen)| seen.position.load(Relaxed) != UNKNOWN)
            .collect();
        let (looker, settings) = (Arc::clone(&self.looker), Arc::clone(&self.settings));
        let ask = move || {
            let waits = known.into_iter().map(|(shard, seen)| {
                let partition = i32::from(shard.number());
                // Before it is asked what there is: later it is booked further at the most.
                let (now_ms, position) = (now_ms(), seen.position.load(Relaxed));
                let marks = looker.fetch_watermarks(&settings.topic, partition, settings.timeout);
                let (low, high) = marks.map_err(|error| settings.said(&error))?;
                let booked = position.max(low);
                Ok(Waiting {
                    lane: Lane::Of(shard),
                    entries: u64::try_from(high.saturating_sub(booked)).unwrap_or(0),
                    oldest: seen.oldest(now_ms, booked, high),
                })
            });
            waits.collect::<Result<Vec<_>, String>>()
        };
        let asked = tokio::task::spawn_blocking(ask).await;
        let asked = asked.unwrap_or_else(|error| Err(error.to_string()));
        asked.map_err(StreamError::Unavailable)
    }
}

#[cfg(test)]
mod tests;
