//! What tenants owe, how they are held for it, and what the router was told and may not
//! have heard yet.
//!
//! A call to the router stands among Stripe's events, as one more thing that is to be dealt
//! with at its time; it goes where it is known what came of it.

use std::collections::{BTreeMap, BTreeSet};

use weir_meter_core::dunning::{Account, Accounts, Action, Hold};

use super::{Change, LedgerError, columns::parsed};
use crate::sql::{self, Connection, OptionalExtension as _, params};

const CALLS: [Action; 2] = [Action::Suspend, Action::Resume];

/// In the place of an event's type.
fn kind_of(action: Action) -> &'static str {
    match action {
        Action::Suspend => "weir.suspend",
        Action::Resume => "weir.resume",
    }
}

/// The call of that type, if it is one's.
pub(super) fn action_of(kind: &str) -> Option<Action> {
    CALLS.into_iter().find(|action| kind_of(*action) == kind)
}

/// None of Stripe's has a blank.
fn id_of(tenant: &str, action: Action) -> String {
    format!("{} {tenant}", kind_of(action))
}

/// The invoices that are due.
pub(super) fn due(connection: &Connection, tenant: &str) -> sql::Result<BTreeSet<String>> {
    connection
        .prepare_cached("SELECT invoice FROM due_invoice WHERE tenant = ?1")?
        .query_map([tenant], |row| row.get(0))?
        .collect()
}

impl Accounts for Change<'_> {
    type Error = LedgerError;

    fn account(&mut self, tenant: &str) -> Result<Account, LedgerError> {
        let hold = self
            .transaction
            .prepare_cached("SELECT hold FROM suspension WHERE tenant = ?1")?
            .query_row([tenant], |row| parsed(row, 0, Hold::parse))
            .optional()?;
        Ok(Account {
            hold: hold.unwrap_or_default(),
            due: due(&self.transaction, tenant)?,
        })
    }

    fn set_due(&mut self, tenant: &str, invoice: &str, is_due: bool) -> Result<(), LedgerError> {
        let statement = match is_due {
            true => {
                "INSERT INTO due_invoice (tenant, invoice) VALUES (?1, ?2)
                 ON CONFLICT DO NOTHING"
            }
            false => "DELETE FROM due_invoice WHERE tenant = ?1 AND invoice = ?2",
        };
        self.transaction
            .prepare_cached(statement)?
            .execute([tenant, invoice])?;
        Ok(())
    }

    fn set_hold(&mut self, tenant: &str, hold: Hold, now_ms: i64) -> Result<(), LedgerError> {
        if hold == Hold::None {
            self.transaction
                .prepare_cached("DELETE FROM suspension WHERE tenant = ?1")?
                .execute([tenant])?;
            return Ok(());
        }
        let problem = (hold == Hold::Unknown).then_some("the router does not know this tenant");
        self.transaction
            .prepare_cached(
                "INSERT INTO suspension (tenant, hold, at_ms, problem) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (tenant) DO UPDATE SET problem = excluded.problem,
                   hold = excluded.hold,
                   at_ms = CASE suspension.hold WHEN excluded.hold THEN suspension.at_ms
                     ELSE excluded.at_ms END",
            )?
            .execute(params![tenant, hold.as_str(), now_ms, problem])?;
        Ok(())
    }

    fn calls(&mut self, tenant: &str) -> Result<BTreeMap<Action, i64>, LedgerError> {
        let mut found = BTreeMap::new();
        let mut query = self
            .transaction
            .prepare_cached("SELECT at_ms FROM webhook WHERE id = ?1")?;
        for action in CALLS {
            let stamp = query.query_row([id_of(tenant, action)], |row| row.get(0));
            if let Some(stamp) = stamp.optional()? {
                found.insert(action, stamp);
            }
        }
        Ok(found)
    }

    fn put_call(
        &mut self,
        tenant: &str,
        action: Action,
        now_ms: i64,
        look_ms: i64,
    ) -> Result<i64, LedgerError> {
        let stamp = self
            .transaction
            .prepare_cached(
                "INSERT INTO webhook (id, type, about, at_ms, not_before_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (id) DO UPDATE SET not_before_ms = excluded.not_before_ms,
                   at_ms = CASE WHEN webhook.at_ms < excluded.at_ms THEN excluded.at_ms
                     ELSE webhook.at_ms + 1 END
                 RETURNING at_ms",
            )?
            .query_row(
                params![
                    id_of(tenant, action),
                    kind_of(action),
                    tenant,
                    now_ms,
                    look_ms
                ],
                |row| row.get(0),
            )?;
        Ok(stamp)
    }

    fn drop_call(&mut self, tenant: &str, action: Action) -> Result<(), LedgerError> {
        self.transaction
            .prepare_cached("DELETE FROM webhook WHERE id = ?1")?
            .execute([id_of(tenant, action)])?;
        Ok(())
    }
}
