//! What replicas share: the stream, the ledger, and how long a replica's part is its own.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use weir_meter_core::lease::Terms;
use weir_meter_store::{
    ledger::PostgresSettings,
    stream::{
        kafka::{KafkaMechanism, KafkaSasl, KafkaSettings, KafkaTls},
        redis::{RedisSettings, RedisTls},
    },
};

/// Looks up the secret that a variable holds.
type Secret<'a> = &'a dyn Fn(&str) -> anyhow::Result<String>;

/// The section `stream`. Without it events wait in a file of `data_dir`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamFile {
    redis: Option<RedisFile>,
    kafka: Option<KafkaFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RedisFile {
    url_env: String,
    #[serde(default)]
    cluster: bool,
    tls: Option<RedisTlsFile>,
    #[serde(default = "default_prefix")]
    prefix: String,
    #[serde(default = "default_timeout_ms")]
    timeout_ms: u64,
    /// How many replicas of it must have an event before it is acknowledged.
    #[serde(default)]
    replicas: u32,
    /// Goes on without an append-only file.
    #[serde(default)]
    allow_volatile: bool,
}

/// PEM files; relative ones are beside the configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RedisTlsFile {
    ca_file: Option<PathBuf>,
    certificate_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
}

fn default_prefix() -> String {
    "weir:usage".to_owned()
}

fn default_timeout_ms() -> u64 {
    5_000
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KafkaFile {
    bootstrap_servers: Vec<String>,
    #[serde(default = "default_topic")]
    topic: String,
    create_topic: Option<CreateTopicFile>,
    #[serde(default = "default_timeout_ms")]
    timeout_ms: u64,
    tls: Option<KafkaTlsFile>,
    sasl: Option<KafkaSaslFile>,
}

fn default_topic() -> String {
    "weir-usage".to_owned()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateTopicFile {
    replication: u16,
}

/// PEM files; relative ones are beside the configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KafkaTlsFile {
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    /// With what the key is encrypted.
    key_password_env: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KafkaSaslFile {
    mechanism: String,
    username: String,
    password_env: String,
}

/// The section `ledger`. Without it the ledger is a file of `data_dir`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerFile {
    postgres: Option<PostgresFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostgresFile {
    url_env: String,
    #[serde(default = "default_connections")]
    connections: usize,
    #[serde(default = "default_lease_s")]
    lease_s: u32,
}

fn default_connections() -> usize {
    4
}

fn default_lease_s() -> u32 {
    6
}

/// Where events wait until they are booked.
#[derive(Clone)]
pub enum StreamSettings {
    /// In a file of the data folder.
    Embedded,
    /// In Redis.
    Redis(RedisSettings),
    /// In Kafka.
    Kafka(Box<KafkaSettings>),
}

/// Where the ledger is.
#[derive(Clone)]
pub enum LedgerSettings {
    /// In a file of the data folder.
    Sqlite,
    /// In Postgres, shared by replicas.
    Postgres {
        settings: PostgresSettings,
        /// How many transactions of one replica at a time; two more look.
        connections: usize,
    },
}

impl StreamFile {
    pub fn validate(&self) -> anyhow::Result<()> {
        if self.redis.is_some() && self.kafka.is_some() {
            bail!("stream: must have one of redis and kafka, found both");
        }
        if let Some(redis) = &self.redis {
            check_variable("stream.redis.url_env", &redis.url_env)?;
            check_timeout("stream.redis", redis.timeout_ms)?;
            let is_plain = |c: char| c.is_ascii_alphanumeric() || ":._-".contains(c);
            if redis.prefix.is_empty() || !redis.prefix.chars().all(is_plain) {
                bail!(
                    "stream.redis.prefix: must be letters, digits and :._-, found {:?}",
                    redis.prefix
                );
            }
            if let Some(tls) = &redis.tls
                && tls.certificate_file.is_some() != tls.key_file.is_some()
            {
                bail!("stream.redis.tls: certificate_file and key_file go together");
            }
        }
        if let Some(kafka) = &self.kafka {
            kafka.validate()?;
        }
        Ok(())
    }

    pub fn load(self, base: &Path, secret: Secret<'_>) -> anyhow::Result<StreamSettings> {
        if let Some(redis) = self.redis {
            let url = secret(&redis.url_env).context("stream.redis.url_env")?;
            if redis.tls.is_some() {
                check_tls(&redis.url_env, &url)?;
            }
            return Ok(StreamSettings::Redis(RedisSettings {
                url,
                cluster: redis.cluster,
                tls: redis.tls.map(|tls| RedisTls {
                    ca_file: tls.ca_file.map(|path| base.join(path)),
                    certificate_file: tls.certificate_file.map(|path| base.join(path)),
                    key_file: tls.key_file.map(|path| base.join(path)),
                }),
                prefix: redis.prefix,
                consumer: String::new(),
                timeout: std::time::Duration::from_millis(redis.timeout_ms),
                allow_volatile: redis.allow_volatile,
                replicas: redis.replicas,
                ledger: String::new(),
            }));
        }
        match self.kafka {
            Some(kafka) => Ok(StreamSettings::Kafka(Box::new(kafka.load(base, secret)?))),
            None => Ok(StreamSettings::Embedded),
        }
    }
}

/// Files of TLS are nothing to a URL without.
fn check_tls(variable: &str, url: &str) -> anyhow::Result<()> {
    let has_tls = |url: &str| {
        let url = url.trim();
        url.starts_with("rediss://") || url.starts_with("rediss+sentinel://")
    };
    // The hosts of sentinels are behind one scheme.
    let is_one = url.contains("+sentinel://");
    if (is_one && has_tls(url)) || (!is_one && url.split(',').all(has_tls)) {
        return Ok(());
    }
    bail!("stream.redis.tls: needs a URL of rediss:// or rediss+sentinel:// in {variable}")
}

/// A secret that stands in the place of its variable's name is not shown.
fn check_variable(field: &str, name: &str) -> anyhow::Result<()> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    match !name.is_empty() && name.chars().all(is_plain) {
        true => Ok(()),
        false => bail!("{field}: must be the name of an environment variable"),
    }
}

fn check_timeout(field: &str, timeout_ms: u64) -> anyhow::Result<()> {
    match timeout_ms {
        100..=60_000 => Ok(()),
        found => bail!("{field}.timeout_ms: must be 100 to 60000, found {found}"),
    }
}

impl KafkaFile {
    fn validate(&self) -> anyhow::Result<()> {
        check_timeout("stream.kafka", self.timeout_ms)?;
        if self.bootstrap_servers.is_empty() {
            bail!("stream.kafka.bootstrap_servers: must name at least one, as host:port");
        }
        for (i, server) in self.bootstrap_servers.iter().enumerate() {
            if server.is_empty() || server.contains([',', ' ']) {
                bail!("stream.kafka.bootstrap_servers[{i}]: must be host:port, found {server:?}");
            }
        }
        // Kafka's own rule for names of topics.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if !(1..=249).contains(&self.topic.len()) || !self.topic.chars().all(is_plain) {
            bail!(
                "stream.kafka.topic: must be 1 to 249 letters, digits and ._-, found {:?}",
                self.topic
            );
        }
        if let Some(create) = &self.create_topic
            && create.replication == 0
        {
            bail!("stream.kafka.create_topic.replication: must be 1 or more, found 0");
        }
        if let Some(tls) = &self.tls {
            if tls.cert.is_some() != tls.key.is_some() {
                bail!("stream.kafka.tls: cert and key go together");
            }
            if let Some(name) = &tls.key_password_env {
                check_variable("stream.kafka.tls.key_password_env", name)?;
                if tls.key.is_none() {
                    bail!("stream.kafka.tls.key_password_env: there is no key that it is of");
                }
            }
        }
        match &self.sasl {
            Some(sasl) => {
                check_variable("stream.kafka.sasl.password_env", &sasl.password_env)?;
                mechanism(&sasl.mechanism).map(|_| ())
            }
            None => Ok(()),
        }
    }

    fn load(self, base: &Path, secret: Secret<'_>) -> anyhow::Result<KafkaSettings> {
        let sasl = match self.sasl {
            None => None,
            Some(sasl) => Some(KafkaSasl {
                mechanism: mechanism(&sasl.mechanism)?,
                username: sasl.username,
                password: secret(&sasl.password_env).context("stream.kafka.sasl.password_env")?,
            }),
        };
        let tls = self.tls.map(|tls| tls.load(base, secret)).transpose()?;
        Ok(KafkaSettings {
            bootstrap_servers: self.bootstrap_servers.join(","),
            topic: self.topic,
            create_replication: self.create_topic.map(|create| create.replication.into()),
            timeout: std::time::Duration::from_millis(self.timeout_ms),
            tls,
            sasl,
            ledger: String::new(),
        })
    }
}

impl KafkaTlsFile {
    fn load(self, base: &Path, secret: Secret<'_>) -> anyhow::Result<KafkaTls> {
        let key_password = self.key_password_env.as_deref().map(secret).transpose();
        Ok(KafkaTls {
            ca_file: self.ca.map(|path| base.join(path)),
            certificate_file: self.cert.map(|path| base.join(path)),
            key_file: self.key.map(|path| base.join(path)),
            key_password: key_password.context("stream.kafka.tls.key_password_env")?,
        })
    }
}

/// How a password is shown.
fn mechanism(name: &str) -> anyhow::Result<KafkaMechanism> {
    const ALL: [KafkaMechanism; 3] = [
        KafkaMechanism::Plain,
        KafkaMechanism::ScramSha256,
        KafkaMechanism::ScramSha512,
    ];
    let found = ALL.into_iter().find(|mechanism| mechanism.as_str() == name);
    found.with_context(|| {
        let names = ALL.map(KafkaMechanism::as_str).join(", ");
        format!("stream.kafka.sasl.mechanism: must be one of {names}, found {name:?}")
    })
}

impl LedgerFile {
    pub fn is_shared(&self) -> bool {
        self.postgres.is_some()
    }

    pub fn validate(&self) -> anyhow::Result<()> {
        let Some(postgres) = &self.postgres else {
            return Ok(());
        };
        check_variable("ledger.postgres.url_env", &postgres.url_env)?;
        if !(1..=64).contains(&postgres.connections) {
            bail!(
                "ledger.postgres.connections: must be 1 to 64, found {}",
                postgres.connections
            );
        }
        if !(3..=300).contains(&postgres.lease_s) {
            bail!(
                "ledger.postgres.lease_s: must be 3 to 300, found {}",
                postgres.lease_s
            );
        }
        Ok(())
    }

    /// With how long a replica's part is its own.
    pub fn load(self, secret: Secret<'_>) -> anyhow::Result<(LedgerSettings, Terms)> {
        let Some(postgres) = self.postgres else {
            return Ok((LedgerSettings::Sqlite, Terms::default()));
        };
        let url = secret(&postgres.url_env).context("ledger.postgres.url_env")?;
        let settings = LedgerSettings::Postgres {
            settings: PostgresSettings { url },
            connections: postgres.connections,
        };
        let terms = Terms {
            ttl_ms: i64::from(postgres.lease_s).saturating_mul(1_000),
            ..Terms::default()
        };
        Ok((settings, terms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(text: &str) -> Result<StreamFile, String> {
        let file: StreamFile = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
        file.validate().map_err(|e| e.to_string())?;
        Ok(file)
    }

    #[track_caller]
    fn check_refused(text: &str, names: &str) {
        let error = stream(text).unwrap_err();
        assert!(error.contains(names), "{error} should name {names}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let kafka = "kafka: {bootstrap_servers: [k:9092]";
        check_refused("redis: {url: redis://h}", "url");
        check_refused(
            &format!("redis: {{url_env: U}}\n{kafka}}}"),
            "one of redis and kafka",
        );
        check_refused(
            "redis: {url_env: U, timeout_ms: 1}",
            "stream.redis.timeout_ms",
        );
        let secret = stream("redis: {url_env: 'redis://u:secret@h'}").unwrap_err();
        assert!(
            secret.contains("stream.redis.url_env") && !secret.contains("secret"),
            "{secret}"
        );
        check_refused("redis: {url_env: U, prefix: '{a}'}", "stream.redis.prefix");
        let tls = "redis: {url_env: U, tls: {ca_file: ca.pem,";
        check_refused(&format!("{tls} key_file: k}}}}"), "stream.redis.tls: ");
        check_refused(&format!("{tls} certificate_file: c}}}}"), "key_file go");
        check_refused(&format!("{tls} cert: c}}}}"), "cert");
        check_refused("kafka: {bootstrap_servers: []}", "bootstrap_servers");
        check_refused(
            "kafka: {bootstrap_servers: ['a:1,b:1']}",
            "bootstrap_servers[0]",
        );
        check_refused(&format!("{kafka}, topic: 'a b'}}"), "stream.kafka.topic");
        check_refused(&format!("{kafka}, tls: {{cert: a}}}}"), "cert and key");
        for tls in [
            "cert: a, key: b, key_password_env: hush!",
            "key_password_env: K",
        ] {
            let text = format!("{kafka}, tls: {{{tls}}}}}");
            check_refused(&text, "stream.kafka.tls.key_password_env");
        }
        check_refused(
            &format!("{kafka}, create_topic: {{replication: 0}}}}"),
            "replication: must be 1 or more",
        );
        check_refused(
            &format!("{kafka}, sasl: {{mechanism: GSSAPI, username: u, password_env: P}}}}"),
            "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, found \"GSSAPI\"",
        );
        for (text, name) in [
            ("postgres: {url_env: U, connections: 0}", "connections"),
            ("postgres: {url_env: U, lease_s: 1}", "lease_s"),
        ] {
            let file: LedgerFile = serde_saphyr::from_str(text).unwrap();
            let error = file.validate().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("ledger.postgres.{name}: must be ")),
                "{error}"
            );
        }
    }

    #[test]
    fn secrets_come_from_their_variables() {
        let secret = |name: &str| Ok(format!("secret of {name}"));
        let base = Path::new("/etc/weir");
        let text = "kafka: {bootstrap_servers: [a:1, b:2], \
                    tls: {ca: ca.pem, cert: c.pem, key: k.pem, key_password_env: K}, \
                    sasl: {mechanism: PLAIN, username: u, password_env: P}}";
        let StreamSettings::Kafka(kafka) = stream(text).unwrap().load(base, &secret).unwrap()
        else {
            panic!("not Kafka");
        };
        assert_eq!(kafka.bootstrap_servers, "a:1,b:2");
        let tls = kafka.tls.unwrap();
        assert_eq!(tls.ca_file.unwrap(), Path::new("/etc/weir/ca.pem"));
        assert_eq!(tls.key_password.unwrap(), "secret of K");
        assert_eq!(kafka.sasl.unwrap().password, "secret of P");
        let StreamSettings::Redis(redis) = stream("redis: {url_env: R}")
            .unwrap()
            .load(base, &secret)
            .unwrap()
        else {
            panic!("not Redis");
        };
        assert_eq!(redis.url, "secret of R");
    }

    #[test]
    fn files_of_tls_go_with_a_url_of_tls() {
        let check = |url: &str, is_taken: bool| {
            let secret = |_: &str| Ok(url.to_owned());
            let text = "redis: {url_env: R, tls: {ca_file: ca.pem, certificate_file: /c.pem, \
                        key_file: k.pem}}";
            let loaded = stream(text).unwrap().load(Path::new("/etc/weir"), &secret);
            match loaded {
                Ok(StreamSettings::Redis(redis)) if is_taken => {
                    let expected = ["/etc/weir/ca.pem", "/c.pem", "/etc/weir/k.pem"];
                    let tls = redis.tls.unwrap();
                    let found = [tls.ca_file, tls.certificate_file, tls.key_file];
                    assert_eq!(found, expected.map(|path| Some(PathBuf::from(path))));
                }
                Err(error) if !is_taken => {
                    let error = error.to_string();
                    let names = error.contains("stream.redis.tls") && error.contains(" R");
                    assert!(names && !error.contains("hush"), "{error}");
                }
                _ => panic!("{url}"),
            }
        };
        check("rediss://u:hush@h", true);
        check("rediss://a, rediss://b", true);
        check("rediss+sentinel://a,b/primary", true);
        check("redis://u:hush@h", false);
        check("rediss://a,redis://:hush@b", false);
        check("redis+sentinel://a,b/primary", false);
    }
}
