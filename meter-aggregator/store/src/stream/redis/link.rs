//! The connections that calls share: made by one of them at a time, and to a Redis alone
//! that keeps what it acknowledges.

use std::{sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};
use tokio::{sync::Mutex, time::Instant};
use weir_meter_core::lease::Shard;

use super::{
    RedisSettings, durable,
    endpoint::{Connection, Endpoint},
};
use crate::stream::{seldom::Seldom, transport::OpenError};

/// How often it is looked whether the servers are still what they were. A connection that
/// breaks has it looked at once; within a cluster others may take over without that.
const LOOK: Duration = Duration::from_secs(60);

/// After a connection could not be made, nobody tries for so long.
const PAUSE: Duration = Duration::from_millis(100);

/// Over how many connections events go. Between two syncs of its file Redis takes 16 KiB
/// of each connection (`PROTO_IOBUF_LEN`), which is the limit with `appendfsync always`.
const CONNECTIONS: usize = 8;

/// Connections, and when their servers were looked at.
struct Session {
    connections: Arc<[Connection]>,
    number: u64,
    looked: Instant,
}

#[derive(Default)]
struct State {
    session: Option<Session>,
    /// Sessions are numbered, so that an old one's error takes no new one away.
    sessions: u64,
    /// The runs of the servers that were found fit.
    fit: Option<Vec<String>>,
    failed: Option<(Instant, OpenError)>,
    /// What a fail-over may lose was said.
    is_warned: bool,
}

/// Holds the session, and makes a new one where it breaks.
pub(super) struct Link {
    pub(super) endpoint: Endpoint,
    allow_volatile: bool,
    replicas: u32,
    timeout: Duration,
    state: Mutex<State>,
    /// About what fails.
    said: Seldom,
}

/// A session as a call uses it.
pub(super) struct Used {
    connections: Arc<[Connection]>,
    number: u64,
}

impl Used {
    /// The connection for a shard: always the same, so that its calls stay in order.
    pub(super) fn of(&self, shard: Shard) -> RedisResult<&Connection> {
        let number = usize::from(shard.number()).checked_rem(self.connections.len());
        let connection = number.and_then(|number| self.connections.get(number));
        connection.ok_or_else(|| (ErrorKind::Client, "no connection").into())
    }
}

impl Link {
    pub(super) fn new(settings: &RedisSettings) -> Result<Arc<Self>, OpenError> {
        Ok(Arc::new(Self {
            endpoint: Endpoint::of(settings)?,
            allow_volatile: settings.allow_volatile,
            replicas: settings.replicas,
            timeout: settings.timeout,
            state: Mutex::default(),
            said: Seldom::default(),
        }))
    }

    /// The session; a new one where there is none. Takes no longer than the time-out.
    pub(super) async fn session(&self) -> Result<Used, OpenError> {
        let found = tokio::time::timeout(self.timeout, self.made()).await;
        let late = || OpenError::Unavailable("connecting takes too long".to_owned());
        found.unwrap_or_else(|_| Err(late()))
    }

    async fn made(&self) -> Result<Used, OpenError> {
        let mut state = self.state.lock().await;
        let due = |session: &Session| session.looked.elapsed() >= LOOK;
        if state.session.as_ref().is_none_or(due) {
            if let Some((at, error)) = &state.failed
                && at.elapsed() < PAUSE
            {
                return Err(error.clone());
            }
            // A call that is given up here leaves no session that was not looked at.
            let session = state.session.take();
            match self.looked(session, &mut state).await {
                Ok(session) => state.session = Some(session),
                Err(error) => {
                    if self.said.is_due() {
                        tracing::warn!(%error, "no connection to the stream's Redis");
                    }
                    state.failed = Some((Instant::now(), error.clone()));
                    return Err(error);
                }
            }
        }
        match &state.session {
            Some(session) => Ok(Used {
                connections: Arc::clone(&session.connections),
                number: session.number,
            }),
            None => Err(OpenError::Unavailable("no connection".to_owned())),
        }
    }

    /// A session whose servers were looked at now.
    async fn looked(
        &self,
        session: Option<Session>,
        state: &mut State,
    ) -> Result<Session, OpenError> {
        let away = |error: RedisError| match error.kind() {
            // Such as a key that is not its certificate's.
            ErrorKind::InvalidClientConfig => OpenError::Settings(error.to_string()),
            _ => OpenError::Unavailable(error.to_string()),
        };
        let connections = match session {
            Some(session) => session.connections,
            None => {
                state.sessions = state.sessions.saturating_add(1);
                let all = (0..CONNECTIONS).map(|_| self.endpoint.connect());
                try_join_all(all).await.map_err(away)?.into()
            }
        };
        let first = connections.first();
        let first = first.ok_or_else(|| OpenError::Unavailable("no connection".to_owned()))?;
        let runs = durable::runs(first).await?;
        // The same servers are believed to be set to the same.
        if state.fit.as_ref() != Some(&runs) {
            state.fit = None;
            durable::check(first, self.allow_volatile).await?;
            if let Some(what) = self.warning(state) {
                tracing::warn!("{what}");
            }
            tracing::info!("connected to the stream's Redis");
            state.fit = Some(runs);
        }
        Ok(Session {
            connections,
            number: state.sessions,
            looked: Instant::now(),
        })
    }

    /// What a fail-over may lose: said once, whatever server comes later.
    fn warning(&self, state: &mut State) -> Option<&'static str> {
        let is_warned = std::mem::replace(&mut state.is_warned, true);
        let what = durable::missed(self.endpoint.fails_over(), self.replicas);
        what.filter(|_| !is_warned)
    }

    /// Says now and then why a call failed, and gives its session up where that is of no
    /// more use: another server may answer a new one.
    pub(super) async fn failed(&self, used: &Used, error: &RedisError) {
        if self.said.is_due() {
            tracing::warn!(%error, "a call to the stream's Redis failed");
        }
        let is_about_the_call = matches!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::ResponseError | ServerErrorKind::NoPerm)
                | ErrorKind::Extension
                | ErrorKind::Client
        );
        if is_about_the_call {
            return;
        }
        let mut state = self.state.lock().await;
        if state
            .session
            .as_ref()
            .is_some_and(|s| s.number == used.number)
        {
            state.session = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_fail_over_loses_is_said_once() {
        let check = |url: &str, cluster: bool, replicas: u32, expected: bool| {
            let settings = RedisSettings {
                cluster,
                replicas,
                ..RedisSettings::new(url.to_owned(), "a".to_owned())
            };
            let link = Link::new(&settings).unwrap();
            let mut state = State::default();
            let warning = link.warning(&mut state);
            assert_eq!(warning.is_some(), expected, "{url} {replicas}");
            assert!(warning.is_none_or(|what| what.contains("stream.redis.replicas")));
            assert_eq!(link.warning(&mut state), None);
        };
        check("redis+sentinel://a/primary", false, 0, true);
        check("redis+sentinel://a/primary", false, 1, false);
        check("redis://a,redis://b", true, 0, true);
        check("redis://a,redis://b", true, 2, false);
        check("redis://a", false, 0, false);
    }
}
