//! What becomes of a tenant that does not pay, and of one that did.
//!
//! Events come twice, late and in any order: each only says which invoice to look
//! at, and what is decided follows from the invoice as Stripe has it now, from what
//! the router says of the tenant now, and from what was done before ([`Account`]).

mod calls;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    num::NonZeroU32,
};

use serde::{Deserialize, Serialize};

pub use self::calls::{Accounts, Call, DOUBT_MS, Decision, View, Why, decide, done, doubt, look};
use crate::stripe::{Invoice, InvoiceStatus};

/// What follows when a payment failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnPaymentFailed {
    /// The tenant is suspended until its invoices are paid.
    #[default]
    Suspend,
    /// Nothing.
    Ignore,
}

/// What follows when an invoice is marked as uncollectible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUncollectible {
    /// It counts as unpaid.
    #[default]
    Keep,
    /// It counts as settled.
    Resume,
}

/// The operator's policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// When a payment failed.
    pub on_payment_failed: OnPaymentFailed,
    /// After so many attempts to have it paid.
    pub after_attempts: NonZeroU32,
    /// When an invoice is given up.
    pub on_uncollectible: OnUncollectible,
}

impl Policy {
    /// Whether this invoice, as it is now, keeps its tenant from being served.
    #[must_use]
    pub fn is_due(&self, invoice: &Invoice) -> bool {
        if self.on_payment_failed == OnPaymentFailed::Ignore
            || invoice.attempt_count < self.after_attempts.get()
        {
            return false;
        }
        match invoice.status {
            Some(InvoiceStatus::Open) => true,
            Some(InvoiceStatus::Uncollectible) => self.on_uncollectible == OnUncollectible::Keep,
            _ => false,
        }
    }
}

/// How a tenant is held, as far as this aggregator did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// It is not.
    #[default]
    None,
    /// It is being suspended; the router may have done it.
    Suspending,
    /// We suspended it, and will resume it.
    Ours,
    /// We are resuming it; the router may have done it.
    Resuming,
    /// An operator suspended it, who alone resumes it.
    Operators,
    /// An operator let it go on although an invoice is due: what was due then does
    /// not suspend it again.
    Lifted,
    /// The router does not know it.
    Unknown,
}

impl Hold {
    const ALL: [Self; 7] = [
        Self::None,
        Self::Suspending,
        Self::Ours,
        Self::Resuming,
        Self::Operators,
        Self::Lifted,
        Self::Unknown,
    ];

    /// Its name in the ledger.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Suspending => "suspending",
            Self::Ours => "ours",
            Self::Resuming => "resuming",
            Self::Operators => "operators",
            Self::Lifted => "lifted",
            Self::Unknown => "unknown",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hold| hold.as_str() == name)
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is known of a tenant's debts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// How it is held.
    pub hold: Hold,
    /// The invoices that are due.
    pub due: BTreeSet<String>,
}

/// What the router says of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Its keys are served.
    Active,
    /// Its keys are refused.
    Suspended,
    /// There is no such tenant.
    Unknown,
}

/// What to ask of the router. Asking twice does no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Refuse the tenant's keys.
    Suspend,
    /// Serve them again.
    Resume,
}

impl Account {
    /// What the account becomes by an invoice as it is now, before the router is
    /// asked; and whether the invoice is due and was not before.
    #[must_use]
    pub fn with(mut self, policy: &Policy, invoice: &Invoice) -> (Self, bool) {
        let newly_due = if policy.is_due(invoice) {
            self.due.insert(invoice.id.clone())
        } else {
            self.due.remove(&invoice.id);
            false
        };
        (self, newly_due)
    }

    /// Whether the router has to be looked at: not for a tenant that is not held and
    /// owes nothing.
    #[must_use]
    pub fn concerns_router(&self) -> bool {
        self.hold != Hold::None || !self.due.is_empty()
    }

    /// What the account is, where one of these calls to the router may have come unseen and
    /// explains what the router says: that was us, and no operator.
    #[must_use]
    pub fn presume(mut self, seen: Seen, calls: &BTreeMap<Action, i64>) -> Self {
        self.hold = match (self.hold, seen) {
            (Hold::None | Hold::Lifted | Hold::Unknown, Seen::Suspended)
                if calls.contains_key(&Action::Suspend) =>
            {
                Hold::Suspending
            }
            (Hold::Ours | Hold::Operators, Seen::Active) if calls.contains_key(&Action::Resume) => {
                Hold::Resuming
            }
            (hold, _) => hold,
        };
        self
    }

    /// Decides, once the router was looked at. The account that comes back is to be
    /// written down before the action is taken, and [`Account::done`] after it; who
    /// dies between decides again, with what the router says then.
    #[must_use]
    pub fn decide(mut self, newly_due: bool, seen: Seen) -> (Self, Option<Action>) {
        use Hold::{Lifted, None, Operators, Ours, Resuming, Suspending, Unknown};
        use Seen::{Active, Suspended};

        let (hold, action) = if self.due.is_empty() {
            match (self.hold, seen) {
                (Suspending | Ours | Resuming, Suspended) => (Resuming, Some(Action::Resume)),
                _ => (None, Option::None),
            }
        } else {
            match (self.hold, seen) {
                (_, Seen::Unknown) => (Unknown, Option::None),
                // What began goes on; done twice it is done once.
                (Suspending, _) => (Suspending, Some(Action::Suspend)),
                (Ours | Resuming, Suspended) => (Ours, Option::None),
                (_, Suspended) => (Operators, Option::None),
                (None | Unknown | Resuming, Active) => (Suspending, Some(Action::Suspend)),
                (Ours | Operators | Lifted, Active) if newly_due => {
                    (Suspending, Some(Action::Suspend))
                }
                (Ours | Operators | Lifted, Active) => (Lifted, Option::None),
            }
        };
        self.hold = hold;
        (self, action)
    }

    /// The account once the router did it.
    #[must_use]
    pub fn done(mut self, action: Action) -> Self {
        self.hold = match action {
            Action::Suspend => Hold::Ours,
            Action::Resume => Hold::None,
        };
        self
    }
}

#[cfg(test)]
mod tests;
