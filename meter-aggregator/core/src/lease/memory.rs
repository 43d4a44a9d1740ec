//! The tables of leases in memory, for tests.

use std::collections::{BTreeMap, BTreeSet};

use super::{Lease, LeaseRow, Leases, Replica, Shard};

/// The tables, and what replicas were told.
#[derive(Debug)]
pub struct Table {
    pub now_ms: i64,
    pub rows: Vec<LeaseRow>,
    pub replicas: BTreeMap<String, Replica>,
    /// Shards with a transaction under way.
    pub locked: BTreeSet<Shard>,
    /// Whether a takeover leaves the epoch as it is: a mutant.
    pub keeps_epoch: bool,
    /// Who was told to hold what, ever.
    pub told: BTreeMap<(Shard, i64), String>,
    /// How often a shard changed hands.
    pub moves: usize,
}

impl Table {
    pub fn new() -> Self {
        let row = |shard| LeaseRow {
            shard,
            epoch: 0,
            holder: None,
        };
        Self {
            now_ms: 1_800_000_000_000,
            rows: Shard::all().map(row).collect(),
            replicas: BTreeMap::new(),
            locked: BTreeSet::new(),
            keeps_epoch: false,
            told: BTreeMap::new(),
            moves: 0,
        }
    }

    /// That a replica was told to hold these: no other ever was, under the same epochs.
    pub fn tell(&mut self, id: &str, held: &[Lease]) {
        for lease in held {
            let holder = self
                .told
                .entry((lease.shard, lease.epoch))
                .or_insert_with(|| id.to_owned());
            assert_eq!(holder, id, "two hold {lease:?}");
        }
    }

    /// A shard's row.
    pub fn row(&self, shard: Shard) -> &LeaseRow {
        &self.rows[usize::from(shard.number())]
    }

    pub fn holders(&self) -> BTreeMap<Option<String>, usize> {
        let mut counts = BTreeMap::new();
        for row in &self.rows {
            *counts.entry(row.holder.clone()).or_default() += 1;
        }
        counts
    }
}

impl Leases for Table {
    type Error = std::convert::Infallible;

    fn now_ms(&mut self) -> Result<i64, Self::Error> {
        Ok(self.now_ms)
    }

    fn rows(&mut self) -> Result<Vec<LeaseRow>, Self::Error> {
        Ok(self.rows.clone())
    }

    fn claim(
        &mut self,
        shard: Shard,
        epoch: i64,
        holder: Option<&str>,
    ) -> Result<bool, Self::Error> {
        let row = &mut self.rows[usize::from(shard.number())];
        if row.epoch != epoch || self.locked.contains(&shard) {
            return Ok(false);
        }
        row.epoch += i64::from(!self.keeps_epoch);
        row.holder = holder.map(str::to_owned);
        self.moves += 1;
        Ok(true)
    }

    fn replicas(&mut self) -> Result<Vec<Replica>, Self::Error> {
        Ok(self.replicas.values().cloned().collect())
    }

    fn put_replica(&mut self, replica: &Replica) -> Result<(), Self::Error> {
        self.replicas.insert(replica.id.clone(), replica.clone());
        Ok(())
    }

    fn drop_replica(&mut self, id: &str) -> Result<(), Self::Error> {
        self.replicas.remove(id);
        Ok(())
    }
}
