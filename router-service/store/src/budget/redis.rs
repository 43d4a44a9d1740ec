//! Redis: books that routers share, and that outlive each of them.
//!
//! What is held is decided by one script for a call, atomically and by the server's
//! own clock. It is the rule of [`weir_router_core::budget::Book`]; the tests run both
//! side by side.
//!
//! Spend survives the loss of Redis' data, for each router keeps what it has booked
//! itself, in a file of its own, as numbers that only grow, and spend is their sum. A
//! loss is seen
//!
//! - by a call of a tenant whose data is gone, or new since ([`local`] says what a
//!   line is): nothing is done before this router's part is there again;
//! - by another run of the server, over which nothing is asked before all of this
//!   router's parts are there;
//! - once a second, by a marker that is gone.
//!
//! For two seconds after that nothing is held for money, so that the other routers
//! tell their parts, too. What stays uncounted until it is back is the part of a
//! router that is away for longer, and for up to a second after a flush or a cluster's
//! fail-over the parts of others for tenants that this router never served. Requests
//! that were settled before a loss may be settled once more after it: that adds their
//! cost again.

mod local;
mod outbox;
mod script;
#[cfg(test)]
mod tests;
mod watch;

use std::{
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use redis::Cmd;
use weir_router_core::budget::{
    Ask, Ceiling, Held, Mail, Month, Progress, Settle, Settled, Standing,
};
use weir_wire::ids::{RequestId, TenantId};

use self::{
    local::Local,
    script::{Decided, Head, Reply, Scripts},
    watch::Watch,
};
use super::{BudgetStore, OpenError};
use crate::{
    RedisSettings, Unavailable,
    redis::{
        guard::Guard,
        link::Session,
        script::{Script, unexpected},
    },
};

/// So often a call is made that finds another line than expected.
const TRIES_MAX: usize = 3;

/// Tenants with holds or mail, by when a router has last listed them.
const TENANTS_KEY: &str = "weir:b:tenants";

/// A tenant that is called for is listed that often.
const LISTED_FOR: Duration = Duration::from_secs(60);

/// Keeps its books in Redis. Clones share the connection.
///
/// An ACL user needs, beside what [`RedisSettings`] names, `+hgetall +exists +zadd
/// +zrem +zrange +zrangebyscore +zcount +zscore`. The data should be kept in an
/// append-only file; the policy must be `noeviction`.
#[derive(Clone)]
pub struct RedisBudget(Arc<Shared>);

pub(super) struct Shared {
    guard: Guard,
    scripts: Scripts,
    local: Local,
    watch: Watch,
    /// Lines are named after this process, and numbered.
    process: u64,
    lines: AtomicU64,
}

impl fmt::Debug for RedisBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBudget").finish_non_exhaustive()
    }
}

/// What a call comes to where Redis has answered.
type Outcome<T> = Result<T, Unavailable>;

impl RedisBudget {
    /// Opens `local`, the file of this router's own totals, which no other router may
    /// use, and connects to Redis, for which it waits for the time-out at the most:
    /// where Redis is away, calls are refused until it is back.
    ///
    /// # Errors
    /// Where the file can't be used, the URL can't be read, or the system has no
    /// randomness. The process's `rustls` provider must be installed before where the
    /// URL is `rediss:`.
    pub async fn connect(settings: &RedisSettings, local: &Path) -> Result<Self, OpenError> {
        Self::with_scripts(settings, local, Scripts::new()).await
    }

    async fn with_scripts(
        settings: &RedisSettings,
        local: &Path,
        scripts: Scripts,
    ) -> Result<Self, OpenError> {
        let process = getrandom::u64().map_err(|e| OpenError::System { why: e.to_string() })?;
        let local = Local::open(local)?;
        let shared = Arc::new(Shared {
            guard: Guard::new(settings, crate::redis::script::Scripts::new())?,
            scripts,
            watch: Watch::new(local.trusted.clone()),
            local,
            process,
            lines: AtomicU64::new(0),
        });
        shared.guard.connect().await;
        // Why it failed is logged; it is tried again once a second.
        drop(shared.look().await);
        tokio::spawn(watch::keep_looking(
            Arc::downgrade(&shared),
            shared.watch.wish(),
        ));
        Ok(Self(shared))
    }
}

impl RedisBudget {
    /// Waits until holds for money are taken, as far as is known now: up to two seconds
    /// after a first start on an empty Redis, or a loss of its data.
    pub async fn unfenced(&self) {
        if let Some(at) = self.0.watch.fenced_until() {
            tokio::time::sleep_until(at).await;
        }
    }
}

impl BudgetStore for RedisBudget {
    async fn hold(&self, ask: Ask) -> Result<(Held, Standing), Unavailable> {
        let shared = &self.0;
        let call = Call::of(&ask.tenant, ask.id, ask.amount > 0);
        let write = |command: &mut Cmd| script::write_hold(command, &ask);
        let decided = shared.decide(&call, &shared.scripts.hold, write).await?;
        let held = decided.held().map_err(|e| unavailable(e.to_string()))?;
        if held == Held::Held {
            shared.local.held(&ask);
        }
        Ok((held, decided.standing))
    }

    async fn raise(
        &self,
        tenant: &TenantId,
        id: RequestId,
        step: u32,
        by: u64,
        ceiling: Option<Ceiling>,
    ) -> Result<(Held, Standing), Unavailable> {
        let shared = &self.0;
        let call = Call::of(tenant, id, by > 0);
        let write = |command: &mut Cmd| script::write_raise(command, id, step, by, ceiling);
        let decided = shared.decide(&call, &shared.scripts.raise, write).await?;
        let held = decided.held().map_err(|e| unavailable(e.to_string()))?;
        if held == Held::Held {
            shared.local.raised(tenant, id, step, by);
        }
        Ok((held, decided.standing))
    }

    async fn renew(
        &self,
        tenant: &TenantId,
        id: RequestId,
        life_ms: u64,
        progress: Progress,
    ) -> Result<bool, Unavailable> {
        let shared = &self.0;
        let call = Call::of(tenant, id, false);
        let write = |command: &mut Cmd| script::write_renew(command, id, life_ms, &progress);
        let decided = shared.decide(&call, &shared.scripts.renew, write).await?;
        if decided.renewed() {
            shared.local.renewed(tenant, id, life_ms, progress);
        } else {
            shared.local.gone(tenant, id);
        }
        Ok(decided.renewed())
    }

    async fn settle(&self, settle: Settle) -> Result<(Settled, Standing), Unavailable> {
        let shared = &self.0;
        let call = Call::of(&settle.tenant, settle.id, false);
        let write = |command: &mut Cmd| script::write_settle(command, &settle);
        let decided = shared.decide(&call, &shared.scripts.settle, write).await?;
        shared.local.gone(&settle.tenant, settle.id);
        let settled = decided.settled().map_err(|e| unavailable(e.to_string()))?;
        Ok((settled, decided.standing))
    }

    async fn standing(&self, tenant: &TenantId, time_ms: i64) -> Result<Standing, Unavailable> {
        let shared = &self.0;
        let call = Call {
            tenant,
            month: Month::of_ms(time_ms),
            is_paid: false,
        };
        let decided = shared.decide(&call, &shared.scripts.standing, |_| ());
        Ok(decided.await?.standing)
    }

    async fn sweep(&self) -> Result<usize, Unavailable> {
        self.0.sweep().await
    }

    async fn mail(&self, most: usize) -> Result<Vec<Mail>, Unavailable> {
        self.0.mail(most).await
    }

    async fn acknowledge(&self, mail: &[Mail]) -> Result<Vec<bool>, Unavailable> {
        self.0.acknowledge(mail).await
    }
}

/// For whom a script is run.
struct Call<'a> {
    tenant: &'a TenantId,
    month: Month,
    /// Whether it holds money.
    is_paid: bool,
}

impl<'a> Call<'a> {
    fn of(tenant: &'a TenantId, id: RequestId, is_paid: bool) -> Self {
        Self {
            tenant,
            month: Month::of_ms(id.time_ms()),
            is_paid,
        }
    }
}

impl Shared {
    /// Runs a tenant's script.
    async fn decide(
        &self,
        call: &Call<'_>,
        script: &Script,
        write: impl Fn(&mut Cmd) + Send + Sync,
    ) -> Result<Decided, Unavailable> {
        let decide = async |session: &Arc<Session>| self.run(session, call, script, &write).await;
        self.guard.call(decide).await?
    }

    async fn run(
        &self,
        session: &Session,
        call: &Call<'_>,
        script: &Script,
        write: &(impl Fn(&mut Cmd) + Send + Sync),
    ) -> redis::RedisResult<Outcome<Decided>> {
        let tenant = call.tenant;
        if let Err(why) = self.watch.admits(session, call.is_paid) {
            return Ok(Err(unavailable(why)));
        }
        let key = script::key(tenant);
        for _ in 0..TRIES_MAX {
            let (line, total, must_list) = self.local.head(tenant, call.month, LISTED_FOR);
            let fresh_line = self.fresh_line();
            let head = Head {
                router: &self.local.router,
                line: &line,
                fresh_line: &fresh_line,
                is_lost: self.watch.is_fenced(),
                month: call.month,
                total,
            };
            let run = script.run(&session.connection, &key, |command| {
                head.write(command);
                write(command);
            });
            let value = if must_list {
                // First: what is held must be found by others, whatever happens here.
                tokio::try_join!(self.list(session, tenant), run)?.1
            } else {
                run.await?
            };
            match Reply::read(&value)? {
                Reply::Decided(decided) => {
                    self.local.learn(tenant, &decided.line, &decided.totals);
                    return Ok(Ok(decided));
                }
                Reply::Stale => {
                    self.watch.look_soon();
                    self.push(session, tenant).await?;
                }
                Reply::Fenced(left_ms) => {
                    let why = format!("the tenant's books are brought together for {left_ms} ms");
                    return Ok(Err(unavailable(why)));
                }
            }
        }
        Err(unexpected("the tenant's line"))
    }

    async fn list(&self, session: &Session, tenant: &TenantId) -> redis::RedisResult<()> {
        let mut command = redis::cmd("ZADD");
        command.arg(TENANTS_KEY).arg(wall_ms()).arg(tenant.as_str());
        session.connection.query(&command).await?;
        self.local.listed(tenant);
        Ok(())
    }

    /// A name that no other line of any tenant's has.
    fn fresh_line(&self) -> String {
        let n = self.lines.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}-{n:x}", self.process)
    }
}

fn this_month() -> Month {
    Month::of_ms(i64::try_from(wall_ms()).unwrap_or(i64::MAX))
}

fn wall_ms() -> u64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = wall.map_or(0, |passed| passed.as_millis());
    u64::try_from(ms).unwrap_or(u64::MAX)
}

fn unavailable(why: impl Into<String>) -> Unavailable {
    Unavailable { why: why.into() }
}
