//! Which store holds, by the configuration.

use std::path::Path;

use anyhow::Context as _;
use weir_router_core::budget::{Ask, Ceiling, Held, Mail, Progress, Settle, Settled, Standing};
use weir_router_store::{BudgetStore, RedisBudget, RedisSettings, SqliteBudget, Unavailable};
use weir_wire::ids::{RequestId, TenantId};

/// The store that the configuration names.
pub enum Store {
    Sqlite(SqliteBudget),
    Redis(RedisBudget),
}

/// Opens it, with its files in that folder; a Redis may be away and come later.
pub async fn open(redis: Option<RedisSettings>, data: &Path) -> anyhow::Result<Store> {
    match redis {
        Some(settings) => {
            let redis = RedisBudget::connect(&settings, &data.join("spent.db")).await;
            let redis = redis.context("budgets.redis")?;
            // The first requests are not to be served by what costs nothing alone.
            redis.unfenced().await;
            Ok(Store::Redis(redis))
        }
        None => {
            let path = data.join("budget.db");
            let sqlite = SqliteBudget::open(&path);
            let sqlite = sqlite.with_context(|| path.display().to_string())?;
            Ok(Store::Sqlite(sqlite))
        }
    }
}

macro_rules! either {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match $self {
            Self::Sqlite(store) => store.$method($($argument),*).await,
            Self::Redis(store) => store.$method($($argument),*).await,
        }
    };
}

impl BudgetStore for Store {
    async fn hold(&self, ask: Ask) -> Result<(Held, Standing), Unavailable> {
        either!(self.hold(ask))
    }

    async fn raise(
        &self,
        tenant: &TenantId,
        id: RequestId,
        step: u32,
        by: u64,
        ceiling: Option<Ceiling>,
    ) -> Result<(Held, Standing), Unavailable> {
        either!(self.raise(tenant, id, step, by, ceiling))
    }

    async fn renew(
        &self,
        tenant: &TenantId,
        id: RequestId,
        life_ms: u64,
        progress: Progress,
    ) -> Result<bool, Unavailable> {
        either!(self.renew(tenant, id, life_ms, progress))
    }

    async fn settle(&self, settle: Settle) -> Result<(Settled, Standing), Unavailable> {
        either!(self.settle(settle))
    }

    async fn standing(&self, tenant: &TenantId, time_ms: i64) -> Result<Standing, Unavailable> {
        either!(self.standing(tenant, time_ms))
    }

    async fn sweep(&self) -> Result<usize, Unavailable> {
        either!(self.sweep())
    }

    async fn mail(&self, most: usize) -> Result<Vec<Mail>, Unavailable> {
        either!(self.mail(most))
    }

    async fn acknowledge(&self, mail: &[Mail]) -> Result<Vec<bool>, Unavailable> {
        either!(self.acknowledge(mail))
    }
}
