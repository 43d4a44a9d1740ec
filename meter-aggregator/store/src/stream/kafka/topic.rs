//! Whether the topic is there, with a partition for each shard, and keeps its events.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    types::RDKafkaErrorCode,
};
use weir_meter_core::lease::SHARDS;

use super::client::{KafkaSettings, Log};
use crate::stream::transport::OpenError;

/// After a topic was created, how often it is looked whether all know.
const LOOK: Duration = Duration::from_millis(100);

/// How long its configuration is waited for: it is good to know, no more.
const DESCRIBE: Duration = Duration::from_millis(if cfg!(test) { 300 } else { 5_000 });

/// From that retention on nothing is said of it.
const DAY_MS: i64 = 86_400_000;

/// What the brokers say of a topic.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Topic {
    pub(super) partitions: usize,
    /// On how many brokers the partition is that is on the fewest.
    pub(super) replication: usize,
}

/// The topic, if it is there. Blocks.
pub(super) fn look(
    on: &BaseConsumer<Log>,
    name: &str,
    timeout: Duration,
) -> Result<Option<Topic>, KafkaError> {
    let metadata = on.fetch_metadata(Some(name), timeout)?;
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
        return Ok(None);
    };
    match topic.error().map(RDKafkaErrorCode::from) {
        None => {}
        Some(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition) => {
            return Ok(None);
        }
        Some(code) => return Err(KafkaError::MetadataFetch(code)),
    }
    let partitions = topic.partitions();
    let replicas = partitions
        .iter()
        .map(|partition| partition.replicas().len());
    Ok(Some(Topic {
        partitions: partitions.len(),
        replication: replicas.min().unwrap_or(0),
    }))
}

/// Says what is wrong with a topic, and how it is to be. One that somebody made larger goes
/// on, for Kafka makes none smaller: it gives what there is to say of it.
pub(super) fn judge(name: &str, found: Option<&Topic>) -> Result<Option<String>, OpenError> {
    let shards = usize::from(SHARDS);
    let found = match found {
        Some(topic) if topic.partitions == shards => return Ok(None),
        Some(topic) if topic.partitions > shards => {
            return Ok(Some(format!(
                "the topic {name} has {} partitions, and {SHARDS} are used, one for each shard \
                 of the tenants: what others than aggregators write to the rest is not read, \
                 and what they write to the first {SHARDS} by a count of {} goes to quarantine",
                topic.partitions, topic.partitions
            )));
        }
        Some(topic) => format!("has {} partitions", topic.partitions),
        None => "is missing".to_owned(),
    };
    Err(OpenError::Unfit(format!(
        "the topic {name} {found}; it needs {SHARDS}, as made by kafka-topics.sh --create \
         --topic {name} --partitions {SHARDS} --replication-factor 3 --config \
         cleanup.policy=delete --config min.insync.replicas=2"
    )))
}

/// Says what a topic's configuration means for its events: an error where they would be
/// lost, and what may be lost.
pub(super) fn judge_config(
    name: &str,
    replication: usize,
    config: &BTreeMap<String, String>,
) -> Result<Vec<String>, OpenError> {
    let policy = config.get("cleanup.policy").map_or("", String::as_str);
    if policy.split(',').any(|policy| policy.trim() == "compact") {
        return Err(OpenError::Unfit(format!(
            "the topic {name} has cleanup.policy={policy}, which keeps one event of each \
             tenant alone; set cleanup.policy=delete"
        )));
    }
    let in_sync = config
        .get("min.insync.replicas")
        .and_then(|n| n.parse().ok());
    let mut doubts = Vec::new();
    let retention_ms = config.get("retention.ms").and_then(|ms| ms.parse().ok());
    // -1 is for ever.
    if let Some(ms @ 0..DAY_MS) = retention_ms {
        doubts.push(format!(
            "the topic {name} has retention.ms={ms}: events that wait for longer are lost, and \
             that is less than a day"
        ));
    }
    if config
        .get("unclean.leader.election.enable")
        .map(String::as_str)
        == Some("true")
    {
        doubts.push(format!(
            "the topic {name} has unclean.leader.election.enable=true: a broker that missed \
             what is acknowledged may lead, and that is lost then"
        ));
    }
    if replication < 2 {
        doubts.push(format!(
            "the topic {name} is on one broker alone: what is acknowledged is lost with it"
        ));
    } else if in_sync.is_some_and(|n: usize| n < 2) {
        doubts.push(format!(
            "the topic {name} has min.insync.replicas=1: where the other brokers are away, \
             what is acknowledged is on one alone"
        ));
    }
    Ok(doubts)
}

/// Looks whether the topic is as it has to be, and creates it where that is set.
pub(super) async fn check(
    settings: &KafkaSettings,
    looks: impl Fn() -> Looking,
) -> Result<(), OpenError> {
    let name = &settings.topic;
    let mut found = looks().await?;
    if let (None, Some(replication)) = (&found, settings.create_replication) {
        create(settings, replication).await?;
        let begun = Instant::now();
        while found.is_none() && begun.elapsed() < settings.timeout {
            tokio::time::sleep(LOOK).await;
            found = looks().await?;
        }
    }
    if let Some(doubt) = judge(name, found.as_ref())? {
        tracing::warn!("{doubt}");
    }
    let replication = found.map_or(0, |topic| topic.replication);
    let config = describe(settings).await.unwrap_or_else(|error| {
        tracing::warn!(
            error = settings.said(&error),
            "Kafka does not tell the topic's settings"
        );
        BTreeMap::new()
    });
    for doubt in judge_config(name, replication, &config)? {
        tracing::warn!("{doubt}");
    }
    Ok(())
}

/// A look at the topic that is under way.
pub(super) type Looking =
    futures_util::future::BoxFuture<'static, Result<Option<Topic>, OpenError>>;

fn admin(
    settings: &KafkaSettings,
    timeout: Duration,
) -> Result<(AdminClient<Log>, AdminOptions), KafkaError> {
    let client = settings.client().create_with_context(Log)?;
    Ok((client, AdminOptions::new().request_timeout(Some(timeout))))
}

async fn create(settings: &KafkaSettings, replication: i32) -> Result<(), OpenError> {
    let name = &settings.topic;
    let in_sync = if replication > 2 { "2" } else { "1" };
    let topic = NewTopic::new(
        name,
        i32::from(SHARDS),
        TopicReplication::Fixed(replication),
    )
    .set("cleanup.policy", "delete")
    .set("min.insync.replicas", in_sync);
    let created = async {
        let (admin, options) = admin(settings, settings.timeout)?;
        admin.create_topics([&topic], &options).await
    };
    let failed = |why: String| OpenError::Unavailable(format!("the topic {name}: {why}"));
    let created = created
        .await
        .map_err(|error| failed(settings.said(&error)))?;
    for created in created {
        match created {
            Ok(_) => tracing::info!(topic = name, replication, "created the stream's topic"),
            // Another replica was faster.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(failed(code.to_string())),
        }
    }
    Ok(())
}

async fn describe(settings: &KafkaSettings) -> Result<BTreeMap<String, String>, KafkaError> {
    let (admin, options) = admin(settings, settings.timeout.min(DESCRIBE))?;
    let topic = ResourceSpecifier::Topic(&settings.topic);
    let mut config = BTreeMap::new();
    for resource in admin.describe_configs([&topic], &options).await? {
        let entries = resource.map_err(KafkaError::AdminOp)?.entries;
        let known = entries.into_iter().filter_map(|e| Some((e.name, e.value?)));
        config.extend(known);
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_of_another_form_is_refused_and_says_how_to_make_it() {
        let check = |partitions: Option<usize>, expected: Option<&str>| {
            let replication = 3;
            let topic = partitions.map(|partitions| Topic {
                partitions,
                replication,
            });
            let judged = judge("usage", topic.as_ref());
            let error = judged.as_ref().err().map(ToString::to_string);
            match (expected, error) {
                (None, None) => assert_eq!(judged, Ok(None)),
                (Some(part), Some(error)) => {
                    assert!(error.contains(part), "{error}");
                    assert!(error.contains("--topic usage --partitions 16"), "{error}");
                }
                (_, error) => panic!("{partitions:?} {error:?}"),
            }
        };
        check(Some(16), None);
        check(Some(1), Some("usage has 1 partitions"));
        check(Some(15), Some("has 15 partitions"));
        check(None, Some("usage is missing"));
    }

    #[test]
    fn a_topic_that_grew_is_taken_and_said() {
        let topic = Topic {
            partitions: 24,
            replication: 3,
        };
        let doubt = judge("usage", Some(&topic)).unwrap().unwrap();
        assert!(doubt.contains("usage has 24 partitions"), "{doubt}");
    }

    #[test]
    fn what_a_topic_is_set_to_says_what_it_loses() {
        let check =
            |replication, policy: &str, in_sync: &str, expected: Result<Option<&str>, ()>| {
                let config = [("cleanup.policy", policy), ("min.insync.replicas", in_sync)];
                let config = config.map(|(name, value)| (name.to_owned(), value.to_owned()));
                match (judge_config("usage", replication, &config.into()), expected) {
                    (Ok(doubts), Ok(None)) => assert!(doubts.is_empty(), "{doubts:?}"),
                    (Ok(doubts), Ok(Some(part))) => {
                        assert!(doubts.len() == 1 && doubts[0].contains(part), "{doubts:?}");
                    }
                    (Err(OpenError::Unfit(why)), Err(())) => {
                        assert!(why.contains("cleanup.policy=delete"), "{why}");
                    }
                    (found, _) => panic!("{policy} {in_sync} {found:?}"),
                }
            };
        check(3, "delete", "2", Ok(None));
        check(3, "delete", "1", Ok(Some("min.insync.replicas=1")));
        check(1, "delete", "1", Ok(Some("one broker")));
        check(3, "compact", "2", Err(()));
        check(3, "delete, compact", "2", Err(()));
        assert_eq!(judge_config("usage", 3, &BTreeMap::new()), Ok(Vec::new()));
    }

    #[test]
    fn what_may_be_lost_of_a_topic_is_said() {
        let check = |name: &str, value: &str, expected: Option<&str>| {
            let config = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            let doubts = judge_config("usage", 3, &config).unwrap();
            assert_eq!(doubts.len(), usize::from(expected.is_some()), "{doubts:?}");
            let said = doubts.concat();
            assert!(said.contains(expected.unwrap_or_default()), "{said}");
        };
        check("retention.ms", "604800000", None);
        check("retention.ms", "86400000", None);
        check("retention.ms", "-1", None);
        check("retention.ms", "86399999", Some("retention.ms=86399999"));
        let unclean = "unclean.leader.election.enable";
        check(unclean, "false", None);
        check(unclean, "true", Some("unclean.leader.election.enable=true"));
    }
}
