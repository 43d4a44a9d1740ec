//! Whether Redis still holds what it held, and what is done where it does not.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use redis::{RedisResult, Value};
use tokio::{sync::Notify, time::Instant};
use weir_router_core::budget::{MONTHS_KEPT, Month};
use weir_wire::ids::TenantId;

use super::{
    LISTED_FOR, Shared,
    script::{self, Head, Total},
    this_month, unavailable,
};
use crate::{Unavailable, redis::link::Session};

/// Set by the first router; gone with the data.
const MARKER_KEY: &str = "weir:b:marker";

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);

/// Looks that were wished for follow each other by so much at least.
const LOOK_GAP: Duration = Duration::from_millis(50);

/// So long nothing is held for money after a loss; `FENCE_MS` of the scripts.
const FENCE: Duration = Duration::from_secs(2);

/// Holds that ended longer ago were swept, by this router or another.
const ENDED_FOR: Duration = Duration::from_secs(60);

/// So many tenants are pushed at once, within one time-out.
const PUSHED_AT_ONCE: usize = 64;

#[derive(Debug, Default)]
struct State {
    /// The server's run and the marker that were last seen.
    known: Option<(String, String)>,
    /// The run to which all was told that this router knows.
    trusted_run: Option<String>,
    fenced_until: Option<Instant>,
}

/// What is known of the server.
#[derive(Debug)]
pub(super) struct Watch {
    state: Mutex<State>,
    wish: Arc<Notify>,
}

impl Watch {
    /// `known` is what was known when this router ran before.
    pub(super) fn new(known: Option<(String, String)>) -> Self {
        let state = State {
            known,
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            wish: Arc::default(),
        }
    }

    /// Whether calls may go over that session.
    pub(super) fn admits(&self, session: &Session, is_paid: bool) -> Result<(), &'static str> {
        let state = self.state();
        let is_trusted = state
            .trusted_run
            .as_ref()
            .is_some_and(|run| session.is_of(run));
        if !is_trusted {
            drop(state);
            self.look_soon();
            return Err("what this router has booked is being told to a new run of Redis");
        }
        if is_paid && is_future(state.fenced_until) {
            return Err("the routers' books are being brought together after a loss of data");
        }
        Ok(())
    }

    /// Whether data was lost lately.
    pub(super) fn is_fenced(&self) -> bool {
        is_future(self.state().fenced_until)
    }

    /// Until when nothing is held for money.
    pub(super) fn fenced_until(&self) -> Option<Instant> {
        self.state().fenced_until
    }

    /// Has it looked at once.
    pub(super) fn look_soon(&self) {
        self.wish.notify_one();
    }

    pub(super) fn wish(&self) -> Arc<Notify> {
        Arc::clone(&self.wish)
    }

    // Nothing is left half changed under the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_future(at: Option<Instant>) -> bool {
    at.is_some_and(|at| at > Instant::now())
}

/// Looks once a second, and where a call wishes it, as long as there is a store.
pub(super) async fn keep_looking(store: Weak<Shared>, wish: Arc<Notify>) {
    loop {
        tokio::time::sleep(LOOK_GAP).await;
        // A wish is as good as the second that it replaces.
        drop(tokio::time::timeout(LOOK, wish.notified()).await);
        let Some(store) = store.upgrade() else {
            return;
        };
        // Why it failed is logged where that is news.
        drop(store.look().await);
    }
}

/// What a look finds.
struct Seen {
    run: String,
    marker: String,
    is_lost: bool,
    /// Whether all must be told.
    is_new: bool,
}

impl Shared {
    /// Looks whether data was lost, and tells what this router knows where it was.
    pub(super) async fn look(&self) -> Result<(), Unavailable> {
        let seen = self
            .guard
            .call(async |session| self.see(session).await)
            .await?;
        if seen.is_lost {
            tracing::warn!(
                run = seen.run,
                "Redis may have lost data: nothing is held for money until the routers have told what they have booked"
            );
            let mut state = self.watch.state();
            state.fenced_until = Instant::now().checked_add(FENCE);
            state.known = Some((seen.run.clone(), seen.marker.clone()));
        }
        let tenants = match seen.is_new {
            true => self.local.tenants(seen.is_lost),
            false => self.local.take_behind(),
        };
        for some in tenants.chunks(PUSHED_AT_ONCE) {
            let push =
                async |session: &Arc<Session>| self.push_some(session, &seen.run, some).await;
            self.guard.call(push).await??;
        }
        if seen.is_new {
            self.local.trust(&seen.run, &seen.marker);
            let mut state = self.watch.state();
            state.known = Some((seen.run.clone(), seen.marker));
            state.trusted_run = Some(seen.run);
        }
        let first_month = Month(this_month().0.saturating_sub(MONTHS_KEPT));
        self.local.forget(ENDED_FOR, first_month);
        Ok(())
    }

    async fn see(&self, session: &Session) -> RedisResult<Seen> {
        let run = session.identity().server;
        let mut get = redis::cmd("GET");
        get.arg(MARKER_KEY);
        let found = session.connection.query(&get).await?;
        let is_empty = found == Value::Nil;
        let found = if is_empty {
            let mut set = redis::cmd("SET");
            set.arg(MARKER_KEY).arg(self.fresh_line()).arg("NX");
            session.connection.query(&set).await?;
            session.connection.query(&get).await?
        } else {
            found
        };
        let marker: String = redis::from_redis_value(found)?;
        let mut state = self.watch.state();
        let is_other = state
            .known
            .as_ref()
            .is_some_and(|known| *known != (run.clone(), marker.clone()));
        let is_lost = is_empty || is_other;
        if is_lost {
            // Until all was told.
            state.trusted_run = None;
        }
        let is_new = state.trusted_run.as_ref() != Some(&run);
        Ok(Seen {
            run,
            marker,
            is_lost,
            is_new,
        })
    }

    async fn push_some(
        &self,
        session: &Session,
        run: &str,
        tenants: &[TenantId],
    ) -> RedisResult<Result<(), Unavailable>> {
        if !session.is_of(run) {
            return Ok(Err(unavailable("Redis was started anew meanwhile")));
        }
        let pushes = tenants.iter().map(|tenant| self.push(session, tenant));
        futures_util::future::try_join_all(pushes).await?;
        Ok(Ok(()))
    }

    /// Tells what this router has booked for a tenant in this month and the last, and
    /// what it holds.
    pub(super) async fn push(&self, session: &Session, tenant: &TenantId) -> RedisResult<()> {
        let month = this_month();
        let (line, push) = self.local.push(tenant, month.before());
        if line.is_empty() && push.is_empty() {
            return Ok(());
        }
        let head = Head {
            router: &self.local.router,
            line: &line,
            fresh_line: &self.fresh_line(),
            is_lost: self.watch.is_fenced(),
            month,
            total: Total::default(),
        };
        let key = script::key(tenant);
        let run = self.scripts.push.run(&session.connection, &key, |command| {
            head.write(command);
            push.write(command);
        });
        let (_, _, must_list) = self.local.head(tenant, month, LISTED_FOR);
        let value = if must_list && push.has_holds() {
            tokio::try_join!(self.list(session, tenant), run)?.1
        } else {
            run.await?
        };
        let pushed = push.read(&value)?;
        self.local.pushed(tenant, &pushed);
        Ok(())
    }
}
