//! The state machine, in memory: one store's tenants, under a clock of the caller's.

use std::collections::HashMap;

use weir_wire::ids::{RequestId, TenantId};

use super::{
    Ask, Ceiling, Held, Mail, Month, Progress, Row, Settle, Settled, Standing, tenant::Tenant,
};

/// All that a store of budgets does. Times are milliseconds of the Unix epoch, and
/// must not go back.
///
/// Memory: about 40 bytes for each request of the last week, and what is held, in
/// the outbox, and in the last 13 months.
#[derive(Debug, Default)]
pub struct Book {
    tenants: HashMap<TenantId, Tenant>,
    changed: Vec<TenantId>,
}

impl Book {
    /// Holds what a request may come to.
    pub fn hold(&mut self, ask: &Ask, now_ms: u64) -> (Held, Standing) {
        self.change(&ask.tenant, |tenant| {
            let held = tenant.hold(ask, now_ms);
            (held, tenant.standing(ask.id.time_ms(), now_ms))
        })
    }

    /// Holds `by` micro-dollars more, once for each `step` from 1 on.
    pub fn raise(
        &mut self,
        tenant: &TenantId,
        id: RequestId,
        step: u32,
        by: u64,
        ceiling: Option<Ceiling>,
        now_ms: u64,
    ) -> (Held, Standing) {
        self.change(tenant, |tenant| {
            let held = tenant.raise(id, step, by, ceiling);
            (held, tenant.standing(id.time_ms(), now_ms))
        })
    }

    /// Extends a hold to `life_ms` from now and notes how far it has come. `false`
    /// where there is none any more.
    pub fn renew(
        &mut self,
        tenant: &TenantId,
        id: RequestId,
        life_ms: u64,
        progress: Progress,
        now_ms: u64,
    ) -> bool {
        self.change(tenant, |tenant| tenant.renew(id, life_ms, progress, now_ms))
    }

    /// Settles a request, whatever is known of it.
    pub fn settle(&mut self, settle: &Settle, now_ms: u64) -> (Settled, Standing) {
        self.change(&settle.tenant, |tenant| {
            let settled = tenant.settle(settle, now_ms);
            (settled, tenant.standing(settle.id.time_ms(), now_ms))
        })
    }

    /// Where a tenant stands in the month of `time_ms`.
    pub fn standing(&mut self, tenant: &TenantId, time_ms: i64, now_ms: u64) -> Standing {
        if !self.tenants.contains_key(tenant) {
            return Standing::default();
        }
        self.change(tenant, |tenant| tenant.standing(time_ms, now_ms))
    }

    /// Sweeps up to `most` holds whose life is over; gives how many. Forgets what is
    /// old, too.
    pub fn sweep(&mut self, most: usize, now_ms: u64) -> usize {
        let mut swept = 0_usize;
        for (id, tenant) in &mut self.tenants {
            let left = most.saturating_sub(swept);
            swept = swept.saturating_add(tenant.sweep(left, now_ms));
            tenant.forget(now_ms);
            if tenant.must_be_listed() {
                self.changed.push(id.clone());
            }
        }
        swept
    }

    /// Up to `most` entries of the outbox that are not acknowledged, the oldest
    /// first.
    #[must_use]
    pub fn mail(&self, most: usize) -> Vec<Mail> {
        let mut all: Vec<_> = self
            .tenants
            .iter()
            .flat_map(|(id, tenant)| {
                tenant
                    .letters()
                    .map(move |(name, letter)| (letter.at_ms, name, id, letter))
            })
            .collect();
        all.sort_unstable_by_key(|(at_ms, name, id, _)| (*at_ms, *name, *id));
        all.truncate(most);
        let mail = |(_, name, tenant, letter): (u64, &String, &TenantId, &super::Letter)| Mail {
            id: name.clone(),
            tenant: tenant.clone(),
            what: letter.what.clone(),
        };
        all.into_iter().map(mail).collect()
    }

    /// Takes entries out of the outbox; gives of each whether it was there.
    pub fn acknowledge(&mut self, mail: &[Mail]) -> Vec<bool> {
        mail.iter()
            .map(|mail| {
                self.tenants.contains_key(&mail.tenant)
                    && self.change(&mail.tenant, |tenant| tenant.acknowledge(&mail.id))
            })
            .collect()
    }

    /// The rows that changed since it was last asked, each once.
    pub fn take_changes(&mut self) -> Vec<Row> {
        let mut rows = Vec::new();
        for id in self.changed.drain(..) {
            if let Some(tenant) = self.tenants.get_mut(&id) {
                tenant.take_changes(&id, &mut rows);
            }
        }
        rows
    }

    /// Takes a row as a store kept it; that is no change.
    pub fn load(&mut self, row: Row) {
        let (Row::Account(tenant, ..)
        | Row::Request(tenant, ..)
        | Row::Slot(tenant, ..)
        | Row::Letter(tenant, ..)) = &row;
        let tenant = self.tenants.entry(tenant.clone()).or_default();
        tenant.load(row);
    }

    /// The month before which accounts are forgotten.
    #[must_use]
    pub fn first_month(now_ms: u64) -> Month {
        let now = Month::of_ms(i64::try_from(now_ms).unwrap_or(i64::MAX));
        Month(now.0.saturating_sub(super::MONTHS_KEPT))
    }

    fn change<T>(&mut self, id: &TenantId, change: impl FnOnce(&mut Tenant) -> T) -> T {
        let tenant = self.tenants.entry(id.clone()).or_default();
        let result = change(tenant);
        if tenant.must_be_listed() {
            self.changed.push(id.clone());
        }
        result
    }
}
