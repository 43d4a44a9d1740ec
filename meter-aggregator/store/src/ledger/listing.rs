//! What has a state and is somebody's, as an operator lists it: intents and adjustments.

use weir_wire::ids::TenantId;

use super::{LedgerError, columns};
use crate::sql::{self, Connection, OptionalExtension as _, Row, params};

/// Which of them are listed; all, as long as nothing is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter<S> {
    /// In that state alone.
    pub state: Option<S>,
    /// Of that tenant alone.
    pub tenant: Option<TenantId>,
    /// Older than the one of that id.
    pub before: Option<i64>,
    /// How many at the most.
    pub limit: u32,
}

impl<S> Default for Filter<S> {
    fn default() -> Self {
        Self {
            state: None,
            tenant: None,
            before: None,
            limit: 0,
        }
    }
}

/// The newest that are wanted, the newest first. `select` is the query without its
/// conditions; it names the table's columns `id`, `state` and `tenant` as they are.
pub(super) fn newest<S, T>(
    connection: &Connection,
    select: &str,
    filter: &Filter<S>,
    name: impl Fn(&S) -> &'static str,
    read: impl FnMut(&Row<'_>) -> sql::Result<T>,
) -> Result<Vec<T>, LedgerError> {
    let rows = connection
        .prepare_cached(&format!(
            "{select} WHERE id < ?1 AND (?2 IS NULL OR state = ?2)
               AND (?3 IS NULL OR tenant = ?3)
             ORDER BY id DESC LIMIT ?4"
        ))?
        .query_map(
            params![
                filter.before.unwrap_or(i64::MAX),
                filter.state.as_ref().map(name),
                filter.tenant.as_ref().map(TenantId::as_str),
                filter.limit
            ],
            read,
        )?
        .collect::<sql::Result<_>>()?;
    Ok(rows)
}

/// Whose a row of that table is.
pub(super) fn tenant_of(
    connection: &Connection,
    table: &str,
    id: i64,
) -> Result<Option<TenantId>, LedgerError> {
    let query = format!("SELECT tenant FROM {table} WHERE id = ?1");
    let found = connection.query_row(&query, [id], |row| columns::tenant(row, 0));
    Ok(found.optional()?)
}
