//! Where spend, tokens and requests under way are held: in a file of this process's,
//! or in Redis behind the same trait.

mod redis;
mod rows;
mod sqlite;

pub use self::{redis::RedisBudget, sqlite::SqliteBudget};

use std::{future::Future, path::PathBuf};

use thiserror::Error;
use weir_router_core::budget::{Ask, Ceiling, Held, Mail, Progress, Settle, Settled, Standing};
use weir_wire::ids::{RequestId, TenantId};

use crate::{SettingsError, Unavailable};

/// The store can't be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Two processes would each admit what the other holds.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file can't be read or written, or is none of ours.
    #[error("cannot open {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The file is of a later version of Weir.
    #[error("{} has the layout {found}, at most {known} is known", path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The system can't start a thread, or has no randomness.
    #[error("the system does not give what the store needs: {why}")]
    System {
        /// For the log.
        why: String,
    },
    /// Redis can't be asked with these settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// Where spend is held and settled; see [`weir_router_core::budget`] for the states.
///
/// Every call is idempotent by its request's id: one whose answer was lost may be
/// made again.
pub trait BudgetStore: Send + Sync + 'static {
    /// Holds what a request may come to.
    fn hold(&self, ask: Ask) -> impl Future<Output = Result<(Held, Standing), Unavailable>> + Send;

    /// Holds `by` micro-dollars more, before a further attempt. Within the call's
    /// `step`, which counts from 1 and names it, it is held once.
    fn raise(
        &self,
        tenant: &TenantId,
        id: RequestId,
        step: u32,
        by: u64,
        ceiling: Option<Ceiling>,
    ) -> impl Future<Output = Result<(Held, Standing), Unavailable>> + Send;

    /// Extends a hold to `life_ms` from now and notes how far it has come. `false`
    /// where there is none any more.
    fn renew(
        &self,
        tenant: &TenantId,
        id: RequestId,
        life_ms: u64,
        progress: Progress,
    ) -> impl Future<Output = Result<bool, Unavailable>> + Send;

    /// Settles a request, whatever is known of it.
    fn settle(
        &self,
        settle: Settle,
    ) -> impl Future<Output = Result<(Settled, Standing), Unavailable>> + Send;

    /// Where a tenant stands in the month of that time, milliseconds of the Unix
    /// epoch.
    fn standing(
        &self,
        tenant: &TenantId,
        time_ms: i64,
    ) -> impl Future<Output = Result<Standing, Unavailable>> + Send;

    /// Sweeps holds whose life is over, some hundreds at the most; gives how many.
    fn sweep(&self) -> impl Future<Output = Result<usize, Unavailable>> + Send;

    /// Up to `most` entries of the outbox that are not acknowledged, the oldest
    /// first.
    fn mail(&self, most: usize) -> impl Future<Output = Result<Vec<Mail>, Unavailable>> + Send;

    /// Takes entries out of the outbox; gives of each whether it was there: of two
    /// routers that do so one is told so.
    fn acknowledge(
        &self,
        mail: &[Mail],
    ) -> impl Future<Output = Result<Vec<bool>, Unavailable>> + Send;
}
