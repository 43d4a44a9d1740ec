//! What every stream does, on librdkafka's mock of a cluster and on the Kafka that
//! `KAFKA_BOOTSTRAP` names; and what concerns Kafka alone.

#![allow(clippy::arithmetic_side_effects)]

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message as _,
    message::Headers as _,
    mocking::MockCluster,
    producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _},
};

use super::{owner::CONTENT_TYPE, *};
use crate::stream::body::{Place, Reading, event, events, shard, texts};

mod owner;

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(20);
const TOPIC: &str = "weir-usage";

type Cluster = MockCluster<'static, DefaultProducerContext>;
type Work = Box<dyn FnOnce(&Cluster) + Send>;

/// A cluster of three in this process, which one thread has.
struct Mock {
    work: mpsc::Sender<Work>,
    bootstrap_servers: String,
}

impl Mock {
    /// With that many partitions of the topic, or without it.
    fn start(partitions: Option<i32>) -> Self {
        let (work, received) = mpsc::channel::<Work>();
        let (started, bootstrap_servers) = mpsc::channel();
        std::thread::spawn(move || {
            let cluster = MockCluster::new(3).unwrap();
            if let Some(partitions) = partitions {
                cluster.create_topic(TOPIC, partitions, 3).unwrap();
            }
            started.send(cluster.bootstrap_servers()).unwrap();
            received.iter().for_each(|work| work(&cluster));
        });
        Self {
            work,
            bootstrap_servers: bootstrap_servers.recv().unwrap(),
        }
    }

    fn with(&self, work: impl FnOnce(&Cluster) + Send + 'static) {
        let (done, is_done) = mpsc::channel();
        let work = move |cluster: &Cluster| {
            work(cluster);
            done.send(()).unwrap();
        };
        self.work.send(Box::new(work)).unwrap();
        is_done.recv().unwrap();
    }

    fn settings(&self) -> KafkaSettings {
        KafkaSettings::new(self.bootstrap_servers.clone())
    }

    /// A message as a stranger sends it.
    fn send(&self, number: i32, payload: Option<&[u8]>) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap_servers);
        let producer: BaseProducer = config.create().unwrap();
        let mut record = BaseRecord::<(), [u8]>::to(TOPIC).partition(number);
        record.payload = payload;
        producer.send(record).unwrap();
        producer.flush(LONG).unwrap();
    }
}

#[async_trait]
impl Place for Mock {
    async fn transport(&self, _replica: &str) -> Arc<dyn Transport> {
        Arc::new(KafkaStream::open(self.settings()).await.unwrap())
    }
}

crate::stream::body::body_of_tests!(Some(Mock::start(Some(16))));

mod real {
    use super::*;

    /// A topic of its own in a Kafka that is there.
    struct Real(KafkaSettings);

    impl Real {
        fn find() -> Option<Self> {
            let bootstrap_servers = std::env::var("KAFKA_BOOTSTRAP").ok()?;
            let mut settings = KafkaSettings::new(bootstrap_servers);
            settings.topic = format!("weir-test-{:016x}", getrandom::u64().unwrap());
            settings.create_replication = Some(1);
            Some(Self(settings))
        }
    }

    #[async_trait]
    impl Place for Real {
        async fn transport(&self, _replica: &str) -> Arc<dyn Transport> {
            Arc::new(KafkaStream::open(self.0.clone()).await.unwrap())
        }
    }

    crate::stream::body::body_of_tests!(Real::find());
}

#[tokio::test]
async fn a_topic_that_does_not_fit_is_refused() {
    for (partitions, expected) in [(None, "is missing"), (Some(4), "has 4 partitions")] {
        let mock = Mock::start(partitions);
        let error = KafkaStream::open(mock.settings()).await.err().unwrap();
        assert!(matches!(error, OpenError::Unfit(_)), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        let stream = KafkaStream::new(mock.settings()).unwrap();
        assert_eq!(
            stream.append(events(3, "refused", 1)).await,
            Err(AppendError::Failed)
        );
        assert!(stream.reader(stream.lanes()[3], 0).await.is_err());
        // It is looked again, and another time it is there.
        if partitions.is_none() {
            mock.with(|cluster| cluster.create_topic(TOPIC, 16, 3).unwrap());
            stream.append(events(3, "taken", 1)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn settings_that_can_not_be_used_are_refused() {
    let check = |change: fn(&mut KafkaSettings), expected: &str| {
        let mut settings = KafkaSettings::new("localhost:1".to_owned());
        change(&mut settings);
        let error = KafkaStream::new(settings).err().unwrap();
        assert!(matches!(error, OpenError::Settings(_)), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(
        |s| s.bootstrap_servers = " ".to_owned(),
        "bootstrap_servers",
    );
    check(|s| s.topic = String::new(), "topic");
    check(|s| s.topic = "a b".to_owned(), "topic");
    check(|s| s.create_replication = Some(0), "replication");
    let half = |settings: &mut KafkaSettings| {
        settings.tls = Some(KafkaTls {
            key_file: Some("key.pem".into()),
            ..KafkaTls::default()
        });
    };
    check(half, "certificate");
    let missing = |settings: &mut KafkaSettings| {
        settings.tls = Some(KafkaTls {
            ca_file: Some("/nowhere/ca.pem".into()),
            ..KafkaTls::default()
        });
    };
    check(missing, "ssl.ca.location");
}

/// What others who read the topic may go by.
#[tokio::test]
async fn a_message_has_its_tenant_and_says_what_it_is() {
    let mock = Mock::start(Some(16));
    let mut settings = mock.settings();
    settings.ledger = "books-1".to_owned();
    let stream = KafkaStream::open(settings).await.unwrap();
    stream.append(vec![event(9, "{}")]).await.unwrap();
    let mut config = mock.settings().consumer();
    config.set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut assigned = rdkafka::TopicPartitionList::new();
    assigned.add_partition(TOPIC, 9);
    consumer.assign(&assigned).unwrap();
    let message = consumer.poll(LONG).unwrap().unwrap();
    assert_eq!(message.key(), Some(&b"tenant-9"[..]));
    assert_eq!(message.payload(), Some(&b"{}"[..]));
    let headers = message.headers().unwrap();
    let header = |n| (headers.get(n).key, headers.get(n).value.unwrap());
    assert_eq!(header(0), ("content-type", CONTENT_TYPE.as_bytes()));
    assert_eq!(header(1), ("weir-ledger", &b"books-1"[..]));
}

/// The mock keeps 5 MB of a partition.
#[tokio::test]
async fn what_went_before_it_was_booked_is_told_as_lost() {
    let mock = Mock::start(Some(16));
    let stream = mock.transport("a").await;
    // Nothing makes it smaller.
    let noise = |n: u32| {
        let words = (0..60_000_u32).map(|m| (n * 60_000 + m).wrapping_mul(0x9e37_79b9));
        event(
            3,
            words.map(|word| format!("{word:08x}")).collect::<String>(),
        )
    };
    stream.append(vec![noise(0)]).await.unwrap();
    let mut slow = stream.reader(stream.lanes()[3], 0).await.unwrap();
    let first = slow.read(1, LONG).await.unwrap();
    assert_eq!((first.events.len(), first.events[0].0), (1, 1));
    for n in 1..60 {
        stream.append(vec![noise(n)]).await.unwrap();
    }
    // One that is behind finds out, and another says how much it was.
    let error = loop {
        match slow.read(10, LONG).await {
            Ok(chunk) => assert!(chunk.lost.is_empty(), "{:?}", chunk.lost),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("set"), "{error}");
    let found = first_of(&stream, 1).await;
    let missing = found.number - 2;
    assert_eq!(found.lost, [format!("{TOPIC}/3 offsets 1 to {missing}")]);
    assert_eq!(found.entries, usize::try_from(missing).unwrap());
    // Until something is booked each one finds it, and it is told and counted once.
    for _ in 0..2 {
        let found = first_of(&stream, 1).await;
        assert_eq!((found.lost, found.entries), (Vec::new(), 0));
    }
}

/// What a reader finds first.
struct First {
    number: i64,
    lost: Vec<String>,
    entries: usize,
}

async fn first_of(stream: &Arc<dyn Transport>, after: i64) -> First {
    let mut reader = stream.reader(stream.lanes()[3], after).await.unwrap();
    let (mut lost, mut entries) = (Vec::new(), 0);
    loop {
        let chunk = reader.read(100, LONG).await.unwrap();
        lost.extend(chunk.lost);
        entries += chunk.lost_entries;
        if let Some((number, _)) = chunk.events.first() {
            return First {
                number: *number,
                lost,
                entries,
            };
        }
    }
}

#[tokio::test]
async fn what_waits_says_by_when_the_oldest_came() {
    let mock = Mock::start(Some(16));
    let stream = mock.transport("a").await;
    let lane = stream.lanes()[3];
    stream.note_booked(lane, 0);
    let look = async || {
        let waiting = stream.waiting().await.unwrap();
        assert_eq!(waiting.len(), 1);
        (waiting[0].entries, waiting[0].oldest)
    };
    let begun_ms = now_ms();
    assert_eq!(look().await, (0, None));
    let looked_ms = now_ms();
    stream.append(events(3, "first", 2)).await.unwrap();
    let came_ms = now_ms();
    let (entries, oldest) = look().await;
    let oldest = oldest.unwrap();
    assert_eq!(entries, 2);
    let after_ms = oldest.after_ms.unwrap();
    assert!((begun_ms..=looked_ms).contains(&after_ms), "{oldest:?}");
    assert!((came_ms..=now_ms()).contains(&oldest.by_ms), "{oldest:?}");
    stream.append(events(3, "second", 1)).await.unwrap();
    assert_eq!(look().await, (3, Some(oldest)));
    // Another replica booked what came first.
    stream.note_booked(lane, 2);
    let (entries, second) = look().await;
    assert_eq!(entries, 1);
    assert!(second.unwrap().after_ms.unwrap() >= oldest.by_ms);
    let mut reading = Reading::begin(&stream, 3, 2).await;
    assert_eq!(reading.take(1).await, ["second 0"]);
    assert_eq!(look().await.0, 1);
    reading.book().await;
    assert_eq!(look().await, (0, None));
}

#[tokio::test]
async fn a_topic_that_grew_goes_on() {
    let mock = Mock::start(Some(24));
    let stream = mock.transport("a").await;
    assert_eq!(stream.lanes().len(), 16);
    for number in [0, 15] {
        stream.append(events(number, "grown", 3)).await.unwrap();
        let mut reading = Reading::begin(&stream, number, 0).await;
        let found = reading.take(3).await;
        assert_eq!(found, texts(&events(number, "grown", 3)));
    }
}

/// A topic that was made anew begins at 0, where the ledger is far beyond. The mock knows
/// no times: to it nothing came lately.
#[tokio::test]
async fn another_topic_of_that_name_is_read_on() {
    let mock = Mock::start(Some(16));
    let stream = mock.transport("a").await;
    stream.append(events(3, "old", 10)).await.unwrap();
    let mut reading = Reading::begin(&stream, 3, 1_000).await;
    stream.append(events(3, "new", 10)).await.unwrap();
    let chunk = reading.read(1, LONG).await;
    assert_eq!(chunk.events, [(11, "new 0".to_owned())]);
}

#[tokio::test]
async fn what_is_no_text_is_handed_on_and_stops_nothing() {
    let mock = Mock::start(Some(16));
    let stream = mock.transport("a").await;
    mock.send(3, None);
    mock.send(3, Some(&b"\xff"[..]));
    stream.append(events(3, "good", 1)).await.unwrap();
    let mut reading = Reading::begin(&stream, 3, 0).await;
    let mut texts = reading.take(3).await;
    texts.sort_unstable();
    assert_eq!(texts, ["", "good 0", "\u{fffd}"]);
}

#[tokio::test]
async fn brokers_that_are_away_are_waited_for_as_long_as_set() {
    let mock = Mock::start(Some(16));
    let mut settings = mock.settings();
    // More than it takes to hand over what is too much, on a slow machine.
    settings.timeout = Duration::from_secs(5);
    let stream = KafkaStream::open(settings).await.unwrap();
    let stream: Arc<dyn Transport> = Arc::new(stream);
    stream.append(events(3, "before", 10)).await.unwrap();
    let mut reader = stream.reader(stream.lanes()[3], 0).await.unwrap();
    assert!(!reader.read(10, LONG).await.unwrap().events.is_empty());
    mock.with(|cluster| (1..=3).for_each(|broker| cluster.broker_down(broker).unwrap()));
    let begun = Instant::now();
    let refused = stream.append(events(3, "refused", 1)).await;
    assert_eq!(refused, Err(AppendError::Failed));
    assert!(begun.elapsed() < LONG);
    // More than may wait.
    let many = stream.append(events(3, "many", 100_001)).await;
    assert_eq!(many, Err(AppendError::Busy));
    assert!(stream.reader(stream.lanes()[4], 0).await.is_err());
    assert!(stream.waiting().await.is_err());
    mock.with(|cluster| (1..=3).for_each(|broker| cluster.broker_up(broker).unwrap()));
    let begun = Instant::now();
    while let Err(error) = stream.append(events(3, "after", 10)).await {
        assert!(begun.elapsed() < LONG * 3, "{error}");
        tokio::time::sleep(SHORT).await;
    }
    let mut reading = Reading::begin(&stream, 3, 0).await;
    let mut found = Vec::new();
    while !found.ends_with(&texts(&events(3, "after", 10))) {
        found.extend(reading.take(1).await);
    }
}

/// librdkafka gives a producer up that may have sent something twice.
#[tokio::test]
async fn a_producer_that_can_not_go_on_is_replaced() {
    let mock = Mock::start(Some(16));
    let stream = KafkaStream::open(mock.settings()).await.unwrap();
    stream.append(events(3, "before", 1)).await.unwrap();
    let fatal = KafkaError::MessageProduction(RDKafkaErrorCode::Fatal);
    assert_eq!(stream.failed(&fatal), AppendError::Failed);
    assert!(stream.producer.lock().unwrap().is_none());
    stream.append(events(3, "after", 1)).await.unwrap();
    assert_eq!(stream.seen(shard(3)).position.load(Relaxed), UNKNOWN);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn speed() {
    crate::stream::speed::measure("librdkafka's mock", &Mock::start(Some(16))).await;
}
