//! How librdkafka is set up, and where its log goes.

use std::{fmt, path::PathBuf, time::Duration};

use rdkafka::{
    ClientConfig, ClientContext, config::RDKafkaLogLevel, consumer::ConsumerContext,
    error::KafkaError, types::RDKafkaErrorCode,
};

/// Where Kafka is.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaSettings {
    /// Brokers, as `host:port,host:port`.
    pub bootstrap_servers: String,
    /// The topic, whose first 16 partitions are one for each shard of the tenants;
    /// `weir-usage` in most places.
    ///
    /// A user needs Read, Write, Describe and DescribeConfigs on it, Read on the group
    /// `weir`, and Create on the topic where it is to be created.
    pub topic: String,
    /// On how many brokers a topic that is missing is created; where it is not set, it has
    /// to be there.
    pub create_replication: Option<i32>,
    /// TLS; without it nothing is encrypted.
    pub tls: Option<KafkaTls>,
    /// Who we are, by name and password.
    pub sasl: Option<KafkaSasl>,
    /// The id of the ledger that books what is here; empty where that is not checked. A
    /// topic is one ledger's: a second would bill all again.
    pub ledger: String,
    /// How long it may take until an event is durable, and until Kafka answers; some
    /// seconds.
    pub timeout: Duration,
}

/// TLS to Kafka's brokers.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KafkaTls {
    /// Certificates of those who sign the brokers', as a file of PEM; the system's where it
    /// is not set.
    pub ca_file: Option<PathBuf>,
    /// Our certificate, a file of PEM.
    pub certificate_file: Option<PathBuf>,
    /// Its key, a file of PEM.
    pub key_file: Option<PathBuf>,
    /// What the key is encrypted with.
    pub key_password: Option<String>,
}

/// A name and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaSasl {
    /// How they are shown.
    pub mechanism: KafkaMechanism,
    /// The name.
    pub username: String,
    /// The password itself.
    pub password: String,
}

/// How Kafka is shown a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KafkaMechanism {
    /// As it is; with TLS alone that is no secret told to all.
    Plain,
    /// SCRAM with SHA-256.
    ScramSha256,
    /// SCRAM with SHA-512.
    ScramSha512,
}

impl KafkaMechanism {
    /// Its name in Kafka.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl fmt::Debug for KafkaTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaTls")
            .field("ca_file", &self.ca_file)
            .field("certificate_file", &self.certificate_file)
            .field("key_file", &self.key_file)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for KafkaSasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSasl")
            .field("mechanism", &self.mechanism)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSettings")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("topic", &self.topic)
            .field("create_replication", &self.create_replication)
            .field("tls", &self.tls)
            .field("sasl", &self.sasl)
            .field("ledger", &self.ledger)
            .field("timeout", &self.timeout)
            .finish()
    }
}

impl KafkaSettings {
    /// With what is good in most places.
    #[must_use]
    pub fn new(bootstrap_servers: String) -> Self {
        Self {
            bootstrap_servers,
            topic: "weir-usage".to_owned(),
            create_replication: None,
            tls: None,
            sasl: None,
            ledger: String::new(),
            timeout: Duration::from_secs(10),
        }
    }

    /// What all clients have.
    /// <https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md>
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap_servers);
        config.set("client.id", "weir");
        // Nothing is told to brokers of how we fare.
        config.set("enable.metrics.push", "false");
        let protocol = match (&self.tls, &self.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(tls) = &self.tls {
            let files = [
                ("ssl.ca.location", &tls.ca_file),
                ("ssl.certificate.location", &tls.certificate_file),
                ("ssl.key.location", &tls.key_file),
            ];
            for (name, file) in files {
                if let Some(file) = file {
                    config.set(name, file.display().to_string());
                }
            }
            if let Some(password) = &tls.key_password {
                config.set("ssl.key.password", password);
            }
        }
        if let Some(sasl) = &self.sasl {
            config.set("sasl.mechanism", sasl.mechanism.as_str());
            config.set("sasl.username", &sasl.username);
            config.set("sasl.password", &sasl.password);
        }
        config
    }

    /// Appends each event once and in order, as long as this producer lives; what waits
    /// is bounded.
    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        config.set("enable.idempotence", "true");
        config.set("acks", "all");
        config.set("compression.type", "lz4");
        config.set("linger.ms", "5");
        config.set("queue.buffering.max.messages", "100000");
        config.set("queue.buffering.max.kbytes", "49152");
        let timeout_ms = self.timeout.as_millis().max(10).to_string();
        config.set("delivery.timeout.ms", timeout_ms);
        config
    }

    /// Reads what it is told to; keeps no offsets in Kafka.
    pub(super) fn consumer(&self) -> ClientConfig {
        let mut config = self.client();
        // A group of nobody: librdkafka reads no partition without one.
        config.set("group.id", "weir");
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false");
        // What is not there any more is told, and not passed over.
        config.set("auto.offset.reset", "error");
        config.set("allow.auto.create.topics", "false");
        config.set("check.crcs", "true");
        config.set("fetch.wait.max.ms", "100");
        // What is read ahead, for each lane.
        config.set("queued.max.messages.kbytes", "8192");
        config.set("fetch.message.max.bytes", "2097152");
        config.set("fetch.max.bytes", "8388608");
        config
    }

    /// What an error says, without what is secret.
    pub(super) fn said(&self, error: &KafkaError) -> String {
        let said = match error {
            // The value may be a secret.
            KafkaError::ClientConfig(_, why, name, _) => format!("{name}: {why}"),
            error => error.to_string(),
        };
        let password = self.sasl.as_ref().map(|sasl| &sasl.password);
        let key_password = self.tls.as_ref().and_then(|tls| tls.key_password.as_ref());
        let secrets = [key_password, password].into_iter().flatten();
        let secrets = secrets.filter(|secret| !secret.is_empty());
        secrets.fold(said, |said, secret| said.replace(secret.as_str(), "***"))
    }
}

/// Sends librdkafka's log to ours.
pub(super) struct Log;

impl ClientContext for Log {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        use RDKafkaLogLevel::{Alert, Critical, Debug, Emerg, Error, Info, Notice, Warning};
        match level {
            // Those are about a broker that is away, as a rule, which is tried again.
            Emerg | Alert | Critical | Error | Warning => {
                tracing::warn!(target: "librdkafka", facility, "{message}");
            }
            Notice | Info => tracing::info!(target: "librdkafka", facility, "{message}"),
            Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // That a partition has an end is asked for, and is no failure.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
        tracing::warn!(target: "librdkafka", %error, "{reason}");
    }
}

impl ConsumerContext for Log {}

#[cfg(test)]
mod tests {
    use rdkafka::consumer::BaseConsumer;

    use super::*;

    fn settings(mechanism: KafkaMechanism) -> KafkaSettings {
        KafkaSettings {
            tls: Some(KafkaTls {
                key_password: Some("hush-key".to_owned()),
                ..KafkaTls::default()
            }),
            sasl: Some(KafkaSasl {
                mechanism,
                username: "meter".to_owned(),
                password: "hush".to_owned(),
            }),
            ..KafkaSettings::new("localhost:1".to_owned())
        }
    }

    /// librdkafka is built with what the settings offer.
    #[test]
    fn each_mechanism_is_known() {
        use KafkaMechanism::{Plain, ScramSha256, ScramSha512};
        for mechanism in [Plain, ScramSha256, ScramSha512] {
            for (has_tls, protocol) in [(true, "sasl_ssl"), (false, "sasl_plaintext")] {
                let mut settings = settings(mechanism);
                settings.tls = settings.tls.filter(|_| has_tls);
                let config = settings.consumer();
                assert_eq!(config.get("security.protocol"), Some(protocol));
                assert_eq!(config.get("sasl.mechanism"), Some(mechanism.as_str()));
                let consumer = config.create_with_context::<_, BaseConsumer<_>>(Log);
                consumer.unwrap();
            }
        }
    }

    #[test]
    fn no_secret_is_told() {
        let mut settings = settings(KafkaMechanism::Plain);
        let shown = format!("{settings:?}");
        assert!(
            shown.contains("meter") && !shown.contains("hush"),
            "{shown}"
        );
        let check = |settings: &KafkaSettings, error: &KafkaError, expected: &str| {
            let said = settings.said(error);
            assert!(said.contains(expected) && !said.contains("hush"), "{said}");
        };
        let failed = KafkaError::ClientCreation("sent hush with hush-key".to_owned());
        check(&settings, &failed, "sent *** with ***");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key.pem");
        std::fs::write(&file, "none").unwrap();
        if let Some(tls) = &mut settings.tls {
            tls.certificate_file = Some(file.clone());
            tls.key_file = Some(file);
        }
        let made = settings
            .consumer()
            .create_with_context::<_, BaseConsumer<_>>(Log);
        check(&settings, &made.err().unwrap(), "ssl.");
    }
}
