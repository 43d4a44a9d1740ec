//! Redis: counts that routers share, and that outlive each of them.
//!
//! What is granted is decided by one script, atomically and by the server's own
//! clock. It is the rule of [`weir_router_core::quota::Memory`]; the tests run both
//! side by side. Data that is lost, or a clock that leaps, fences the tenants that
//! it touches:
//!
//! - a tenant without a marker whose gateway was granted something lately;
//! - a marker that another run of the server, or another line of its replication,
//!   has written, which is older data;
//! - an epoch that is not the marker's: what the gateway holds is not counted here;
//! - TIME beside where it must be by this process's monotonic clock.
//!
//! A cluster's fail-over is seen by the first and the third alone: what a replica
//! had not received yet of a tenant that it knows stays uncounted.

mod breaker;
mod clock;
pub(crate) mod guard;
mod lately;
pub(crate) mod link;
pub(crate) mod script;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::Cmd;
use thiserror::Error;
use weir_router_core::quota::{Answer, Ask, Closing, Granted};

use self::{
    guard::Guard,
    lately::Lately,
    link::{Link, Session},
    script::{Acquire, Reply, Scripts},
};
use crate::{QuotaStore, Unavailable};

/// At most so many leases are taken back in one call of the script.
const CLOSINGS_MAX: usize = 256;

/// An epoch that is none: a tenant without a marker has lost it.
const LOST: &str = "!";

/// So often a call is made that finds things otherwise than expected.
const TRIES_MAX: usize = 3;

/// Where Redis is.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisSettings {
    /// `redis://user:password@host:port/db`, or `rediss://…` for TLS with the
    /// system's roots (or those of `SSL_CERT_FILE`). What is special in a user or a
    /// password is percent-encoded. Several, separated by commas, for a cluster.
    ///
    /// An ACL user needs `~weir:* +eval +evalsha +get +set +del +hget +hmget +hset
    /// +hdel +pexpire +time +info`; with a `db` `+select`, in a cluster
    /// `+cluster|slots`. Redis 5 or later, with the policy `noeviction`: a count that
    /// is evicted is admitted again.
    pub url: String,
    /// Whether it is a cluster.
    pub cluster: bool,
    /// How long a call may take, connecting included; 250 ms is a good one.
    pub timeout: Duration,
}

/// Shows no URL, for that may hold a password.
impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings")
            .field("cluster", &self.cluster)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// The settings can't be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the URL of Redis cannot be used: {why}")]
pub struct SettingsError {
    /// For the log; names no part of the URL.
    pub why: String,
}

/// Counts in Redis. Clones share the connection.
#[derive(Clone)]
pub struct RedisQuota(Arc<Shared>);

struct Shared {
    guard: Guard,
    /// Whom this process granted something lately.
    granted: Lately,
    /// Epochs are of this process, and numbered.
    process: u64,
    epochs: AtomicU64,
}

impl fmt::Debug for RedisQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisQuota").finish_non_exhaustive()
    }
}

impl RedisQuota {
    /// Connects, and waits for that for `timeout` at the most: where Redis is away,
    /// calls are refused until it is back.
    ///
    /// # Errors
    /// Where the URL can't be read, or the system has no randomness. The
    /// process's `rustls` provider must be installed before where it is `rediss:`.
    pub async fn connect(settings: &RedisSettings) -> Result<Self, SettingsError> {
        let quota = Self::with_scripts(settings, Scripts::new())?;
        quota.0.guard.connect().await;
        Ok(quota)
    }

    fn with_scripts(settings: &RedisSettings, scripts: Scripts) -> Result<Self, SettingsError> {
        let process = getrandom::u64().map_err(|e| SettingsError { why: e.to_string() })?;
        Ok(Self(Arc::new(Shared {
            guard: Guard::new(settings, scripts)?,
            granted: Lately::default(),
            process,
            epochs: AtomicU64::new(0),
        })))
    }
}

impl QuotaStore for RedisQuota {
    async fn acquire(&self, ask: Ask) -> Result<Answer, Unavailable> {
        let shared = &self.0;
        shared
            .guard
            .call(async |session| shared.acquire(session, &ask).await)
            .await
    }

    async fn close(&self, closing: Vec<(String, Closing)>) -> Result<(), Unavailable> {
        if closing.is_empty() {
            return Ok(());
        }
        let shared = &self.0;
        shared
            .guard
            .call(async |session| shared.close(session, &closing).await)
            .await
    }
}

impl Shared {
    fn link(&self) -> &Arc<Link> {
        &self.guard.link
    }

    async fn acquire(&self, session: &Session, ask: &Ask) -> Result<Answer, redis::RedisError> {
        let key = script::marker_key(&ask.tenant);
        let slot = match self.link().is_cluster() {
            true => clock::slot(&ask.tenant),
            false => 0,
        };
        let link = self.link();
        for _ in 0..TRIES_MAX {
            let mut ask = ask;
            let warned;
            if ask.epoch.is_empty() && (link.lost_lately() || self.granted.lately(&ask.tenant)) {
                warned = Ask {
                    epoch: LOST.to_owned(),
                    ..ask.clone()
                };
                ask = &warned;
            }
            let identity = session.identity();
            let sent = link.clock.send();
            let acquire = Acquire {
                ask,
                identity: &identity,
                epoch: &self.next_epoch(),
                bounds: link.clock.bounds(slot, sent, self.guard.timeout),
            };
            let run = link
                .scripts
                .acquire
                .run(&session.connection, &key, |c| acquire.write(c));
            match Reply::read(&run.await?)? {
                Reply::Decided(answer, time_ms) if link.clock.learn(slot, sent, time_ms) => {
                    if matches!(answer.granted, Granted::Lease { .. }) {
                        self.granted.note(&ask.tenant);
                    }
                    return Ok(answer);
                }
                // Granted by a clock that leapt by less than a call may take: that
                // lease is not given out, and counts as it is.
                Reply::Decided(..) => {
                    let given_up = Closing {
                        id: ask.id,
                        spent: u32::MAX,
                        age_ms: u64::MAX,
                    };
                    self.close_in(session, &ask.tenant, &[given_up]).await?;
                }
                Reply::Leapt => {}
                Reply::Stale(leaps) => {
                    link.catch_up(session, leaps).await?;
                    continue;
                }
            }
            let sent = link.clock.send();
            let time_ms = link.scripts.time(&session.connection, &key).await?;
            // Where it is what it must be, the call was only slow.
            if !link.clock.learn(slot, sent, time_ms) {
                link.leapt(session, &identity).await?;
            }
        }
        Err(script::unexpected("the clock"))
    }

    /// Concurrent calls over one connection go out as one pipeline.
    async fn close(
        &self,
        session: &Session,
        closing: &[(String, Closing)],
    ) -> Result<(), redis::RedisError> {
        let mut by_tenant = BTreeMap::<&str, Vec<Closing>>::new();
        for (tenant, closing) in closing {
            by_tenant.entry(tenant).or_default().push(*closing);
        }
        let calls = by_tenant.iter().flat_map(|(tenant, closing)| {
            let parts = closing.chunks(CLOSINGS_MAX);
            parts.map(|part| self.close_in(session, tenant, part))
        });
        futures_util::future::try_join_all(calls).await?;
        Ok(())
    }

    async fn close_in(
        &self,
        session: &Session,
        tenant: &str,
        closing: &[Closing],
    ) -> Result<(), redis::RedisError> {
        let key = script::marker_key(tenant);
        let write = |command: &mut Cmd| script::write_close(command, closing);
        let scripts = &self.link().scripts;
        scripts.close.run(&session.connection, &key, write).await?;
        Ok(())
    }

    /// A name that no other incarnation of a tenant's counts has.
    fn next_epoch(&self) -> String {
        let n = self.epochs.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}-{n:x}", self.process)
    }
}
