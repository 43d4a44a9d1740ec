//! Which Redis, and how a connection to it is made.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, IntoConnectionInfo as _,
    Pipeline, RedisConnectionInfo, RedisError, RedisResult, TlsCertificates, TlsMode, Value,
    aio::{ConnectionLike as _, MultiplexedConnection},
    cluster::{ClusterClient, ClusterClientBuilder},
    cluster_async::ClusterConnection,
    cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo},
    sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType},
};
use tokio::sync::Mutex;

use super::{RedisSettings, tls, wait::BLOCK_MAX};
use crate::stream::transport::OpenError;

/// Any kind of connection. Clones share it, and concurrent calls of theirs go over it in
/// one pipeline.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    pub(super) async fn query(&self, command: &Cmd) -> RedisResult<Value> {
        let value = match self.clone() {
            Self::Single(mut connection) => connection.req_packed_command(command).await,
            Self::Cluster(mut connection) => connection.req_packed_command(command).await,
        };
        value?.extract_error()
    }

    /// Sends commands on one key, in this order.
    pub(super) async fn query_all(&self, commands: &Pipeline) -> RedisResult<Vec<Value>> {
        let count = commands.cmd_iter().count();
        let values = match self.clone() {
            Self::Single(mut connection) => {
                connection.req_packed_commands(commands, 0, count).await
            }
            Self::Cluster(mut connection) => {
                connection.req_packed_commands(commands, 0, count).await
            }
        };
        values?.into_iter().map(Value::extract_error).collect()
    }

    /// What each server that takes writes answers.
    pub(super) async fn query_each(&self, command: &Cmd) -> RedisResult<Vec<Value>> {
        let Self::Cluster(connection) = self else {
            return Ok(vec![self.query(command).await?]);
        };
        let all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
        let answers = connection
            .clone()
            .route_command(command.clone(), all)
            .await?;
        let Value::Map(answers) = answers.extract_error()? else {
            return Err((ErrorKind::Client, "an answer of a cluster without nodes").into());
        };
        let answers = answers.into_iter();
        answers.map(|(_, answer)| answer.extract_error()).collect()
    }
}

/// A Redis, or several.
pub(super) enum Endpoint {
    Single(Box<Client>),
    Cluster {
        calls: Box<ClusterClient>,
        /// Answers may take longer by [`BLOCK_MAX`].
        blocking: Box<ClusterClient>,
    },
    /// Asks which server is the master; remembers who answered.
    Sentinel(Box<Mutex<SentinelClient>>),
}

impl Endpoint {
    pub(super) fn of(settings: &RedisSettings) -> Result<Self, OpenError> {
        let url = settings.url.trim();
        let sentinels = ["redis+sentinel://", "rediss+sentinel://"];
        let sentinels = sentinels.iter().find_map(|scheme| url.strip_prefix(scheme));
        let files = settings.tls.as_ref().map(tls::certificates).transpose()?;
        match (sentinels, settings.cluster) {
            (Some(_), true) => Err(wrong("sentinels are none of a cluster")),
            (Some(rest), false) => sentinel(rest, url.starts_with("rediss"), files),
            (None, true) => cluster(url, settings.timeout, files.as_ref()),
            (None, false) => single(url, files),
        }
    }

    /// Whether another server may take the place of the one that has a shard.
    pub(super) const fn fails_over(&self) -> bool {
        !matches!(self, Self::Single(_))
    }

    /// For calls that are answered at once.
    pub(super) async fn connect(&self) -> RedisResult<Connection> {
        match self {
            Self::Cluster { calls, .. } => {
                Ok(Connection::Cluster(calls.get_async_connection().await?))
            }
            _ => self.connect_blocking().await,
        }
    }

    /// For calls that wait at the server: nobody else's go over it.
    pub(super) async fn connect_blocking(&self) -> RedisResult<Connection> {
        // Whole calls are limited, by us.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        match self {
            Self::Single(client) => {
                let connection = client.get_multiplexed_async_connection_with_config(&config);
                Ok(Connection::Single(connection.await?))
            }
            Self::Sentinel(client) => {
                // Connecting is not waited for under the lock.
                let master = client.lock().await.async_get_client().await?;
                let connection = master.get_multiplexed_async_connection_with_config(&config);
                Ok(Connection::Single(connection.await?))
            }
            Self::Cluster { blocking, .. } => {
                Ok(Connection::Cluster(blocking.get_async_connection().await?))
            }
        }
    }
}

/// A URL, which is one of TLS where files for that are there.
fn parsed(url: &str, files: Option<&TlsCertificates>) -> Result<ConnectionInfo, OpenError> {
    let info = url.into_connection_info();
    let info = info.map_err(|error| wrong_url(&error))?;
    if files.is_some() {
        tls::check_url(&info)?;
    }
    Ok(info)
}

fn single(url: &str, files: Option<TlsCertificates>) -> Result<Endpoint, OpenError> {
    let info = parsed(url, files.as_ref())?;
    let client = match files {
        Some(files) => Client::build_with_tls(info, files),
        None => Client::open(info),
    };
    let client = client.map_err(|error| wrong_url(&error))?;
    Ok(Endpoint::Single(Box::new(client)))
}

fn cluster(
    urls: &str,
    timeout: Duration,
    files: Option<&TlsCertificates>,
) -> Result<Endpoint, OpenError> {
    let nodes = urls.split(',').map(|url| parsed(url.trim(), files));
    let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
    let client = |longer: Duration| {
        let mut client = ClusterClientBuilder::new(nodes.clone());
        if let Some(files) = files {
            client = client.certs(files.clone());
        }
        client
            .connection_timeout(timeout)
            .response_timeout(timeout.saturating_add(longer))
            .overall_response_timeout(None)
            .retries(2)
            .build()
            .map(Box::new)
            .map_err(|error| wrong_url(&error))
    };
    Ok(Endpoint::Cluster {
        calls: client(Duration::ZERO)?,
        blocking: client(BLOCK_MAX)?,
    })
}

/// `[user:password@]host:port,host:port/master[/db][?sentinel=user:password]`; who is told
/// behind the question mark is the user of the sentinels.
fn sentinel(
    rest: &str,
    has_tls: bool,
    files: Option<TlsCertificates>,
) -> Result<Endpoint, OpenError> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let user_of_sentinels = match query.split_once('=') {
        Some(("sentinel", user)) => format!("{user}@"),
        _ if query.is_empty() => String::new(),
        _ => {
            return Err(wrong(
                "the one parameter that sentinels take is sentinel=user:password",
            ));
        }
    };
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (format!("{user}@"), rest),
        None => (String::new(), rest),
    };
    let Some((hosts, path)) = rest.split_once('/') else {
        return Err(wrong("behind the sentinels the master's name is missing"));
    };
    let (master, db) = path.split_once('/').unwrap_or((path, ""));
    if master.is_empty() {
        return Err(wrong("behind the sentinels the master's name is missing"));
    }
    let scheme = if has_tls { "rediss" } else { "redis" };
    let url = |user: &str, host: &str, db: &str| {
        let host = match host.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_ok() => host.to_owned(),
            _ => format!("{host}:26379"),
        };
        parsed(&format!("{scheme}://{user}{host}/{db}"), files.as_ref())
    };
    let sentinels = hosts
        .split(',')
        .map(|host| url(&user_of_sentinels, host.trim(), ""))
        .collect::<Result<Vec<_>, _>>()?;
    // Read as a URL for its user and database; the sentinels say where it is.
    let of_master = url(&user, "master", db)?;
    let of_master = of_master.redis_settings();
    let of_sentinels = sentinels.first().map(ConnectionInfo::redis_settings);
    let addresses = sentinels.iter().map(|info| info.addr().clone());
    let build = || {
        let kind = SentinelServerType::Master;
        let mut client = SentinelClientBuilder::new(addresses, master, kind)?
            .set_client_to_redis_db(of_master.db());
        if let Some(user) = of_master.username() {
            client = client.set_client_to_redis_username(user);
        }
        if let Some(password) = of_master.password() {
            client = client.set_client_to_redis_password(password);
        }
        if let Some(user) = of_sentinels.and_then(RedisConnectionInfo::username) {
            client = client.set_client_to_sentinel_username(user);
        }
        if let Some(password) = of_sentinels.and_then(RedisConnectionInfo::password) {
            client = client.set_client_to_sentinel_password(password);
        }
        if has_tls {
            client = client.set_client_to_redis_tls_mode(TlsMode::Secure);
        }
        if let Some(files) = &files {
            client = client
                .set_client_to_redis_certificates(files.clone())
                .set_client_to_sentinel_certificates(files.clone());
        }
        client.build()
    };
    build()
        .map(|client| Endpoint::Sentinel(Box::new(Mutex::new(client))))
        .map_err(|error| wrong_url(&error))
}

fn wrong(why: &str) -> OpenError {
    OpenError::Settings(format!("the URL of Redis: {why}"))
}

/// Of redis' messages the one part that never holds a piece of the URL.
fn wrong_url(error: &RedisError) -> OpenError {
    wrong(error.category())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_can_not_be_used_say_why_without_their_password() {
        let check = |url: &str, cluster: bool, expected: Option<&str>| {
            let settings = RedisSettings {
                cluster,
                ..RedisSettings::new(url.to_owned(), "replica".to_owned())
            };
            let error = Endpoint::of(&settings).err().map(|e| e.to_string());
            match (expected, &error) {
                (None, None) => {}
                (Some(part), Some(error)) => {
                    assert!(error.contains(part), "{url}: {error}");
                    assert!(!error.contains("hush"), "{error}");
                }
                _ => panic!("{url}: {error:?}"),
            }
        };
        check("redis://:hush@localhost:6379/1", false, None);
        check("rediss://user:hush@localhost", false, None);
        check("redis://a:1,redis://b:2", true, None);
        check("redis+sentinel://a:1,b/primary", false, None);
        check("rediss+sentinel://u:hush@a:1,b:2/primary/3", false, None);
        check("redis+sentinel://a/primary?sentinel=:hush", false, None);
        check("http://:hush@a", false, Some("invalid client config"));
        check("redis+sentinel://:hush@a:1", false, Some("master's name"));
        check("redis+sentinel://:hush@a:1/", false, Some("master's name"));
        check("redis+sentinel://a/m?x=hush", false, Some("parameter"));
        check("redis+sentinel://a/m", true, Some("cluster"));
        check("redis+sentinel://:hush@a/m/x", false, Some("invalid"));
    }

    #[test]
    fn files_of_tls_need_a_url_of_tls() {
        let check = |url: &str, cluster: bool, is_taken: bool| {
            let settings = RedisSettings {
                cluster,
                tls: Some(tls::RedisTls::default()),
                ..RedisSettings::new(url.to_owned(), "replica".to_owned())
            };
            let error = Endpoint::of(&settings).err().map(|e| e.to_string());
            assert_eq!(error.is_none(), is_taken, "{url}: {error:?}");
            let names = |error: &String| error.contains("tls: needs a URL of rediss://");
            assert!(error.iter().all(names), "{error:?}");
        };
        check("rediss://a", false, true);
        check("redis://a", false, false);
        check("rediss://a,rediss://b", true, true);
        check("rediss://a,redis://b", true, false);
        check("rediss+sentinel://a/m", false, true);
        check("redis+sentinel://a/m", false, false);
    }
}
