//! The connection: one at a time, made by one call at a time, and known for which
//! server it leads to before anything is granted over it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value,
    aio::{ConnectionLike as _, MultiplexedConnection},
    cluster::{ClusterClient, ClusterClientBuilder},
    cluster_async::ClusterConnection,
};
use tokio::{sync::oneshot, time::Instant};
use tracing::{info, warn};
use weir_wire::quota::EPOCH_TOLD_MS;

use super::{
    RedisSettings, SettingsError,
    clock::Clock,
    script::{Scripts, unexpected},
};

/// How many leaps of TIME there were; of all tenants.
const LEAP_KEY: &str = "weir:quota:leap";

/// How often it is looked whether the server is still what it was.
const LOOK: Duration = Duration::from_secs(1);

/// The shortest time that is given to connecting, which takes several round trips.
const CONNECT_MIN: Duration = Duration::from_secs(1);

/// Whose data it is. Where it changes, what was counted may be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The server's run and its line of replication; all nodes of a cluster are one.
    pub(crate) server: String,
    /// How often its TIME has leapt.
    pub(crate) leap: u64,
}

/// Either kind of connection. Clones share it, and concurrent calls of theirs go
/// over it in one pipeline.
#[derive(Clone)]
pub(crate) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    pub(crate) async fn query(&self, command: &Cmd) -> RedisResult<Value> {
        let value = match self.clone() {
            Self::Single(mut connection) => connection.req_packed_command(command).await,
            Self::Cluster(mut connection) => connection.req_packed_command(command).await,
        };
        value?.extract_error()
    }
}

/// A connection, and to whom.
pub(crate) struct Session {
    pub(crate) connection: Connection,
    identity: Mutex<Identity>,
}

impl Session {
    pub(crate) fn identity(&self) -> Identity {
        lock(&self.identity).clone()
    }

    /// Whether it leads to that server; see [`Identity::server`].
    pub(crate) fn is_of(&self, server: &str) -> bool {
        lock(&self.identity).server == server
    }
}

enum Endpoint {
    Single(Box<Client>),
    Cluster(Box<ClusterClient>),
}

#[derive(Default)]
struct State {
    session: Option<Arc<Session>>,
    is_connecting: bool,
    /// Of the last session.
    identity: Option<Identity>,
    /// When data was last seen to be lost, or may have been.
    lost_at: Option<Instant>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Another call is connecting.
    Connecting,
    /// Redis, or the way to it.
    Redis(RedisError),
}

impl From<RedisError> for Fault {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

/// Holds the session, and makes a new one where it breaks.
pub(crate) struct Link {
    endpoint: Endpoint,
    timeout: Duration,
    pub(crate) clock: Clock,
    pub(crate) scripts: Scripts,
    state: Mutex<State>,
}

impl Link {
    pub(crate) fn new(settings: &RedisSettings, scripts: Scripts) -> Result<Self, SettingsError> {
        Ok(Self {
            endpoint: endpoint(settings)?,
            timeout: settings.timeout,
            clock: Clock::new(),
            scripts,
            state: Mutex::default(),
        })
    }

    /// Whether each hash slot may have a clock of its own.
    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.endpoint, Endpoint::Cluster(_))
    }

    /// The session; a new one where there is none and nobody else is connecting.
    pub(crate) async fn session(self: &Arc<Self>) -> Result<Arc<Session>, Fault> {
        let connected = {
            let mut state = lock(&self.state);
            if let Some(session) = &state.session {
                return Ok(Arc::clone(session));
            }
            if std::mem::replace(&mut state.is_connecting, true) {
                return Err(Fault::Connecting);
            }
            let (sender, connected) = oneshot::channel();
            // A call that is given up must not take the connection with it.
            tokio::spawn(keep(Connecting(Arc::clone(self)), sender));
            connected
        };
        connected
            .await
            .unwrap_or_else(|_| Err(dropped()))
            .map_err(Fault::Redis)
    }

    /// Whether so little time has passed since data was lost that somebody may have
    /// been granted something that no marker tells of any more.
    pub(crate) fn lost_lately(&self) -> bool {
        let lost_at = lock(&self.state).lost_at;
        lost_at.is_some_and(|at| at.elapsed() < Duration::from_millis(EPOCH_TOLD_MS))
    }

    /// Gives a session up, unless another one has taken its place.
    pub(crate) fn give_up(&self, session: &Arc<Session>) {
        let mut state = lock(&self.state);
        if state
            .session
            .as_ref()
            .is_some_and(|s| Arc::ptr_eq(s, session))
        {
            state.session = None;
        }
    }

    /// Gives the session up where that error says that it is of no more use.
    pub(crate) fn failed(&self, session: &Arc<Session>, error: &RedisError) {
        // A cluster's connection mends itself, node by node.
        let is_about_the_call = matches!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::ResponseError | ServerErrorKind::NoPerm)
        );
        if !self.is_cluster() && !is_about_the_call {
            self.give_up(session);
        }
    }

    /// TIME has leapt since `known` was known: every tenant's fence begins, once
    /// for all routers that see the leap.
    pub(crate) async fn leapt(&self, session: &Session, known: &Identity) -> RedisResult<()> {
        let least = known.leap.saturating_add(1);
        let leap = self.count_leap(&session.connection, least).await?;
        warn!(leap, "the TIME of Redis has leapt; all tenants are fenced");
        self.adopt(session, leap);
        Ok(())
    }

    /// Another router knows of that many leaps.
    pub(crate) async fn catch_up(&self, session: &Session, least: u64) -> RedisResult<()> {
        let leap = self.count_leap(&session.connection, least).await?;
        self.adopt(session, leap);
        Ok(())
    }

    fn looked(&self, session: &Session, last: &Identity, looked: Identity) {
        if looked == *last {
            return;
        }
        info!(identity = ?looked, "Redis is another than it was");
        let mut identity = lock(&session.identity);
        // A call may have learnt of a leap meanwhile.
        let leap = match looked.server == identity.server {
            true => looked.leap.max(identity.leap),
            false => looked.leap,
        };
        *identity = Identity { leap, ..looked };
        let mut state = lock(&self.state);
        state.identity = Some(identity.clone());
        state.lost_at = Some(Instant::now());
    }

    /// First the number and then the clock: who sees the old number with the new
    /// clock finds nothing to count.
    fn adopt(&self, session: &Session, leap: u64) {
        let mut identity = lock(&session.identity);
        if identity.leap != leap {
            identity.leap = leap;
            let mut state = lock(&self.state);
            state.identity = Some(identity.clone());
            state.lost_at = Some(Instant::now());
            self.clock.forget();
        }
    }

    async fn leap(&self, on: &Connection) -> RedisResult<u64> {
        let leap = on.query(redis::cmd("GET").arg(LEAP_KEY)).await?;
        let leap: Option<u64> = redis::from_redis_value(leap)?;
        Ok(leap.unwrap_or(0))
    }

    async fn count_leap(&self, on: &Connection, least: u64) -> RedisResult<u64> {
        let write = |command: &mut Cmd| {
            command.arg(least);
        };
        let value = self.scripts.leap.run(on, LEAP_KEY, write).await?;
        redis::from_redis_value(value).map_err(RedisError::from)
    }

    async fn connect(&self) -> RedisResult<Session> {
        let connection = match &self.endpoint {
            Endpoint::Single(client) => {
                // Whole calls are limited, by us.
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(None)
                    .set_response_timeout(None);
                let connection = client.get_multiplexed_async_connection_with_config(&config);
                Connection::Single(connection.await?)
            }
            Endpoint::Cluster(client) => Connection::Cluster(client.get_async_connection().await?),
        };
        let last = lock(&self.state).identity.clone();
        let identity = self.look(&connection, last.as_ref()).await?;
        Ok(Session {
            connection,
            identity: Mutex::new(identity),
        })
    }

    /// Who answers, and whether its TIME is where it was when that was `last`.
    async fn look(&self, on: &Connection, last: Option<&Identity>) -> RedisResult<Identity> {
        let (server, leap) = tokio::try_join!(self.server(on), self.leap(on))?;
        let mut identity = Identity { server, leap };
        // A primary gets another line of replication where its first replica comes,
        // and where the last has long gone: nothing is lost by that.
        if let Some(last) = last.filter(|last| run(&last.server) == run(&identity.server)) {
            identity.server.clone_from(&last.server);
        }
        if let Some(last) = last.filter(|last| last.server == identity.server) {
            // The number may be lost with the node of a cluster that held it.
            identity.leap = identity.leap.max(last.leap);
        }
        if last != Some(&identity) {
            self.clock.forget();
        }
        if !self.is_cluster() {
            let sent = self.clock.send();
            let time_ms = self.scripts.time(on, LEAP_KEY).await?;
            if !self.clock.learn(0, sent, time_ms) {
                warn!("the TIME of Redis has leapt; all tenants are fenced");
                let least = identity.leap.saturating_add(1);
                identity.leap = self.count_leap(on, least).await?;
                self.clock.forget();
            }
        }
        Ok(identity)
    }

    /// The identity of a server: its run changes where it starts, its line of
    /// replication where it is promoted; either may have cost data.
    async fn server(&self, on: &Connection) -> RedisResult<String> {
        if self.is_cluster() {
            return Ok("cluster".to_owned());
        }
        let (mut server, mut replication) = (redis::cmd("INFO"), redis::cmd("INFO"));
        let (server, replication) = tokio::try_join!(
            on.query(server.arg("server")),
            on.query(replication.arg("replication")),
        )?;
        let server: String = redis::from_redis_value(server)?;
        let replication: String = redis::from_redis_value(replication)?;
        if field(&replication, "role") == Some("slave") {
            return Err((ErrorKind::Client, "the server is a replica").into());
        }
        let run = field(&server, "run_id").ok_or_else(|| unexpected("INFO server"))?;
        let line =
            field(&replication, "master_replid").ok_or_else(|| unexpected("INFO replication"))?;
        Ok(format!("{run}:{line}"))
    }

    /// Looks once more. Says whether the session is still of use.
    async fn look_again(&self, session: &Arc<Session>) -> bool {
        let last = session.identity();
        let looked = self.look(&session.connection, Some(&last));
        let most = self.timeout.max(LOOK);
        let why = match tokio::time::timeout(most, looked).await {
            Ok(Ok(identity)) => {
                self.looked(session, &last, identity);
                return true;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        warn!(why, "the connection to Redis is given up");
        self.give_up(session);
        false
    }
}

/// A link whose connection is being made; dropped, another call may make it.
struct Connecting(Arc<Link>);

impl Drop for Connecting {
    fn drop(&mut self) {
        lock(&self.0.state).is_connecting = false;
    }
}

/// Connects, says so, and looks after the connection while it and its link last.
async fn keep(connecting: Connecting, connected: oneshot::Sender<RedisResult<Arc<Session>>>) {
    let link = &connecting.0;
    let most = link.timeout.saturating_mul(4).max(CONNECT_MIN);
    let result = match tokio::time::timeout(most, link.connect()).await {
        Ok(result) => result.map(Arc::new),
        Err(_) => Err((ErrorKind::Io, "connecting takes too long").into()),
    };
    let kept = result.as_ref().ok().map(Arc::downgrade);
    match &result {
        Ok(session) => {
            info!("connected to Redis");
            let mut state = lock(&link.state);
            let identity = session.identity();
            if state
                .identity
                .as_ref()
                .is_some_and(|known| *known != identity)
            {
                state.lost_at = Some(Instant::now());
            }
            state.identity = Some(identity);
            state.session = Some(Arc::clone(session));
        }
        Err(error) => warn!(%error, "cannot connect to Redis"),
    }
    let link = Arc::downgrade(link);
    drop(connecting);
    drop(connected.send(result));
    if let Some(session) = kept {
        look_after(&link, &session).await;
    }
}

async fn look_after(link: &Weak<Link>, session: &Weak<Session>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let (Some(link), Some(session)) = (link.upgrade(), session.upgrade()) else {
            return;
        };
        if !link.look_again(&session).await {
            return;
        }
    }
}

fn endpoint(settings: &RedisSettings) -> Result<Endpoint, SettingsError> {
    // Of redis' messages the one part that never holds a piece of the URL.
    let wrong = |error: RedisError| SettingsError {
        why: error.category().to_owned(),
    };
    if !settings.cluster {
        let client = Client::open(settings.url.trim()).map_err(wrong)?;
        return Ok(Endpoint::Single(Box::new(client)));
    }
    let nodes = settings.url.split(',').map(str::trim);
    ClusterClientBuilder::new(nodes)
        .connection_timeout(settings.timeout.max(CONNECT_MIN))
        .response_timeout(settings.timeout)
        .retries(2)
        .build()
        .map(|client| Endpoint::Cluster(Box::new(client)))
        .map_err(wrong)
}

/// The run in the identity of a server.
fn run(server: &str) -> &str {
    server.split_once(':').map_or(server, |(run, _)| run)
}

/// The value of a line of INFO.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    info.lines().find_map(value).map(str::trim)
}

fn dropped() -> RedisError {
    (ErrorKind::Io, "connecting was given up").into()
}

// Nothing is left half changed under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
