//! How a tenant's account and the router come to agree, though who works on it may stand
//! still between any two steps while another does all of it, or die.
//!
//! The steps are transactions, in which the store lets nobody write who lost the lease
//! since it began: what is read of an account ([`look`]), then, once the router was asked
//! how the tenant stands, what follows ([`decide`]), and, once the router was told, that it
//! was ([`done`]). Only the call to the router itself can come when its caller's time is
//! over. So that it is coming is written down with what was decided, and goes where it is
//! known to have come; until then what the router says may be that call's doing
//! ([`Account::presume`]). A while later the tenant is looked at again. Whoever finds,
//! after its call, that it had lost the lease, says so ([`doubt`]), and the tenant is
//! looked at at once.

use std::collections::BTreeMap;

use super::{Account, Action, Hold, Policy, Seen};
use crate::stripe::Invoice;

/// How long after it was decided a call to the router may still come, milliseconds; the
/// tenant is looked at again then. Whoever calls gives up well before.
pub const DOUBT_MS: i64 = 60_000;

/// What is kept of tenants, in one transaction of the store.
pub trait Accounts {
    /// Why the store can't be read or written; the transaction is then undone.
    type Error;

    /// What is known of a tenant's debts.
    fn account(&mut self, tenant: &str) -> Result<Account, Self::Error>;

    /// Whether an invoice is due; of the others nothing changes.
    fn set_due(&mut self, tenant: &str, invoice: &str, is_due: bool) -> Result<(), Self::Error>;

    /// How a tenant is held, from `now_ms` on where that is new.
    fn set_hold(&mut self, tenant: &str, hold: Hold, now_ms: i64) -> Result<(), Self::Error>;

    /// What the router may be told yet, each with its stamp.
    fn calls(&mut self, tenant: &str) -> Result<BTreeMap<Action, i64>, Self::Error>;

    /// Writes down that the router is told so, in the place of what was written of the same
    /// before; the tenant is looked at at `look_ms`. Gives the stamp: `now_ms`, or more
    /// where the one before was not less.
    fn put_call(
        &mut self,
        tenant: &str,
        action: Action,
        now_ms: i64,
        look_ms: i64,
    ) -> Result<i64, Self::Error>;

    /// That call will not come any more.
    fn drop_call(&mut self, tenant: &str, action: Action) -> Result<(), Self::Error>;
}

/// A tenant as the store had it at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// What is known of its debts.
    pub account: Account,
    /// [`Accounts::calls`].
    pub calls: BTreeMap<Action, i64>,
}

/// Why a tenant is looked at.
#[derive(Debug, Clone, Copy)]
pub enum Why<'a> {
    /// Something became of an invoice.
    Invoice(&'a Policy, &'a Invoice),
    /// A call to the router may have come unseen.
    Doubt(Action),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The account is not as it was when the router was asked: all is to be done anew.
    Changed,
    /// Nothing any more; this is the account.
    Agreed(Account),
    /// The router is to be told, soon.
    Tell(Call),
}

/// What the router is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What.
    pub action: Action,
    /// The account, as it was written down before.
    pub account: Account,
    /// Whether no other call of the kind may come.
    is_alone: bool,
    stamp: i64,
}

/// The tenant as it is now.
///
/// # Errors
/// Where the store fails.
pub fn look<A: Accounts>(accounts: &mut A, tenant: &str) -> Result<View, A::Error> {
    Ok(View {
        account: accounts.account(tenant)?,
        calls: accounts.calls(tenant)?,
    })
}

impl View {
    /// Whether the router has to be asked how the tenant stands: not for one that is not
    /// held, owes nothing, and of which the router was told nothing.
    #[must_use]
    pub fn concerns_router(&self, why: Why<'_>) -> bool {
        let is_due = match why {
            Why::Invoice(policy, invoice) => policy.is_due(invoice),
            Why::Doubt(_) => true,
        };
        is_due || self.account.concerns_router() || !self.calls.is_empty()
    }
}

/// Decides, once the router was asked, and writes that down.
///
/// # Errors
/// Where the store fails, or the lease is another's.
pub fn decide<A: Accounts>(
    accounts: &mut A,
    tenant: &str,
    view: &View,
    why: Why<'_>,
    seen: Seen,
    now_ms: i64,
) -> Result<Decision, A::Error> {
    if look(accounts, tenant)? != *view {
        return Ok(Decision::Changed);
    }
    let mut calls = view.calls.clone();
    let mut account = view.account.clone().presume(seen, &calls);
    let (mut newly_due, look_ms) = (false, now_ms.saturating_add(DOUBT_MS));
    match why {
        Why::Invoice(policy, invoice) => {
            (account, newly_due) = account.with(policy, invoice);
            accounts.set_due(tenant, &invoice.id, account.due.contains(&invoice.id))?;
        }
        // Another of the kind may have been begun since.
        Why::Doubt(action) => match calls.get(&action) {
            Some(stamp) if now_ms < stamp.saturating_add(DOUBT_MS) => {
                accounts.put_call(tenant, action, now_ms, look_ms)?;
            }
            _ => {
                calls.remove(&action);
                accounts.drop_call(tenant, action)?;
            }
        },
    }
    let (account, action) = account.decide(newly_due, seen);
    accounts.set_hold(tenant, account.hold, now_ms)?;
    let Some(action) = action else {
        return Ok(Decision::Agreed(account));
    };
    Ok(Decision::Tell(Call {
        action,
        account,
        is_alone: !calls.contains_key(&action),
        stamp: accounts.put_call(tenant, action, now_ms, look_ms)?,
    }))
}

/// Writes down that the router did it, and how it says that the tenant stands then. Where
/// the account is another by now, the tenant is to be looked at again.
///
/// # Errors
/// Where the store fails, or the lease is another's: then there is [`doubt`].
pub fn done<A: Accounts>(
    accounts: &mut A,
    tenant: &str,
    call: &Call,
    seen: Seen,
    now_ms: i64,
) -> Result<Account, A::Error> {
    let found = look(accounts, tenant)?;
    if found.account != call.account {
        doubt(accounts, tenant, call.action, now_ms, now_ms)?;
        return Ok(found.account);
    }
    let account = match seen {
        Seen::Unknown => found.account.decide(false, seen).0,
        Seen::Active | Seen::Suspended => found.account.done(call.action),
    };
    accounts.set_hold(tenant, account.hold, now_ms)?;
    let is_ours = found.calls.get(&call.action) == Some(&call.stamp);
    if call.is_alone && is_ours {
        accounts.drop_call(tenant, call.action)?;
    }
    Ok(account)
}

/// Says that the router was told something, or may be yet, and that nobody knows what came
/// of it: the tenant is looked at at `look_ms`. This is for whoever lost the lease, too.
///
/// # Errors
/// Where the store fails.
pub fn doubt<A: Accounts>(
    accounts: &mut A,
    tenant: &str,
    action: Action,
    now_ms: i64,
    look_ms: i64,
) -> Result<(), A::Error> {
    accounts.put_call(tenant, action, now_ms, look_ms)?;
    Ok(())
}

#[cfg(test)]
mod tests;
