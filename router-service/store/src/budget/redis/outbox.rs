//! What is done for all tenants that any router has listed: sweeping, and the outbox.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use redis::{Cmd, RedisError};
use weir_router_core::budget::Mail;
use weir_wire::ids::TenantId;

use super::{Call, Shared, TENANTS_KEY, script, this_month, wall_ms};
use crate::{Unavailable, redis::link::Session};

/// So many tenants are asked at once.
const AT_ONCE: usize = 64;

/// At most so many holds of a tenant are swept by one call.
const SWEPT_AT_ONCE: usize = 64;

/// A tenant with nothing to be swept or told is listed for so long: much longer than
/// routers list it anew.
const LISTED_MIN: Duration = Duration::from_secs(600);

impl Shared {
    pub(super) async fn sweep(&self) -> Result<usize, Unavailable> {
        let listed = self.listed().await?;
        let sweeps = stream::iter(listed).map(|(tenant, at_ms)| self.sweep_one(tenant, at_ms));
        let swept = sweeps.buffer_unordered(AT_ONCE);
        swept
            .try_fold(0_usize, async |sum, n| Ok(sum.saturating_add(n)))
            .await
    }

    async fn sweep_one(&self, tenant: TenantId, listed_ms: u64) -> Result<usize, Unavailable> {
        let call = Call {
            tenant: &tenant,
            month: this_month(),
            is_paid: false,
        };
        let write = |command: &mut Cmd| {
            command.arg(SWEPT_AT_ONCE);
        };
        let decided = self.decide(&call, &self.scripts.sweep, write).await?;
        let (swept, is_idle) = decided.swept();
        let listed_min = u64::try_from(LISTED_MIN.as_millis()).unwrap_or(u64::MAX);
        let over_ms = wall_ms().saturating_sub(listed_min);
        if is_idle && listed_ms <= over_ms {
            self.unlist(&tenant, over_ms).await?;
        }
        Ok(swept)
    }

    async fn unlist(&self, tenant: &TenantId, over_ms: u64) -> Result<(), Unavailable> {
        let unlist = async |session: &Arc<Session>| {
            let write = |command: &mut Cmd| {
                command.arg(tenant.as_str()).arg(over_ms);
            };
            let script = &self.scripts.unlist;
            script.run(&session.connection, TENANTS_KEY, write).await
        };
        self.guard.call(unlist).await.map(drop)
    }

    pub(super) async fn mail(&self, most: usize) -> Result<Vec<Mail>, Unavailable> {
        if most == 0 {
            return Ok(Vec::new());
        }
        let listed = self.listed().await?;
        let all = stream::iter(listed).map(|(tenant, _)| self.mail_of(tenant, most));
        let all: Vec<_> = all.buffer_unordered(AT_ONCE).try_collect().await?;
        let mut all: Vec<_> = all.into_iter().flatten().collect();
        all.sort_unstable_by(|(a_ms, a), (b_ms, b)| {
            (a_ms, &a.id, &a.tenant).cmp(&(b_ms, &b.id, &b.tenant))
        });
        all.truncate(most);
        Ok(all.into_iter().map(|(_, mail)| mail).collect())
    }

    async fn mail_of(
        &self,
        tenant: TenantId,
        most: usize,
    ) -> Result<Vec<(u64, Mail)>, Unavailable> {
        let mail = async |session: &Arc<Session>| {
            // What Lua unpacks at once is limited.
            let write = |command: &mut Cmd| {
                command.arg(most.min(1_000));
            };
            let key = script::key(&tenant);
            let script = &self.scripts.mail;
            let value = script.run(&session.connection, &key, write).await?;
            script::read_mail(&tenant, &value)
        };
        self.guard.call(mail).await
    }

    pub(super) async fn acknowledge(&self, mail: &[Mail]) -> Result<Vec<bool>, Unavailable> {
        let mut by_tenant = BTreeMap::<&TenantId, Vec<(usize, &str)>>::new();
        for (at, mail) in mail.iter().enumerate() {
            let of_tenant = by_tenant.entry(&mail.tenant).or_default();
            of_tenant.push((at, &mail.id));
        }
        let mut was_there = vec![false; mail.len()];
        for (tenant, names) in by_tenant {
            let found = self.acknowledge_of(tenant, &names).await?;
            for ((at, _), found) in names.iter().zip(found) {
                if let Some(was_there) = was_there.get_mut(*at) {
                    *was_there = found == 1;
                }
            }
        }
        Ok(was_there)
    }

    async fn acknowledge_of(
        &self,
        tenant: &TenantId,
        names: &[(usize, &str)],
    ) -> Result<Vec<u8>, Unavailable> {
        let acknowledge = async |session: &Arc<Session>| {
            let write = |command: &mut Cmd| {
                for (_, name) in names {
                    command.arg(*name);
                }
            };
            let key = script::key(tenant);
            let script = &self.scripts.acknowledge;
            let value = script.run(&session.connection, &key, write).await?;
            redis::from_redis_value(value).map_err(RedisError::from)
        };
        self.guard.call(acknowledge).await
    }

    /// The tenants on the list, and when they were put there.
    async fn listed(&self) -> Result<Vec<(TenantId, u64)>, Unavailable> {
        let list = async |session: &Arc<Session>| {
            let mut command = redis::cmd("ZRANGE");
            command.arg(TENANTS_KEY).arg(0).arg(-1).arg("WITHSCORES");
            let value = session.connection.query(&command).await?;
            redis::from_redis_value(value).map_err(RedisError::from)
        };
        let found: Vec<(String, f64)> = self.guard.call(list).await?;
        // Nobody lists what is no name.
        let listed = |(name, at): (String, f64)| Some((TenantId::new(name).ok()?, at as u64));
        Ok(found.into_iter().filter_map(listed).collect())
    }
}
