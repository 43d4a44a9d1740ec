//! The heartbeat: how replicas divide the shards among themselves, with a table of leases
//! and a table of replicas as all they know of each other.
//!
//! A lease lasts as long as its holder's row among the replicas does, by the store's
//! clock, so a beat writes one row however many shards are held. Whoever finds a shard
//! whose holder is gone takes it by raising its epoch. Whoever holds more than its share
//! gives back, and whoever holds less takes: all come to the same numbers, since all count
//! alike, and where two of them look at the same time the epoch lets one of them win.

use std::collections::{BTreeMap, BTreeSet};

use super::{Lease, SHARDS, Shard};

/// A shard's row in the table of leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// Which.
    pub shard: Shard,
    /// How often it changed hands; 0 at first.
    pub epoch: i64,
    /// The replica that has it. It holds the shard also when its own row is too old, until
    /// somebody else takes it.
    pub holder: Option<String>,
}

/// A replica's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Its id, which no other process has, nor had: made anew at each start.
    pub id: String,
    /// Its program's version of what the store holds.
    pub version: u32,
    /// Until when it counts as alive, by the store's clock, milliseconds of the Unix epoch.
    pub until_ms: i64,
}

/// The tables, in one transaction of the store.
pub trait Leases {
    /// Why the store can't be read or written; the transaction is then undone.
    type Error;

    /// The store's clock, milliseconds of the Unix epoch. No replica's own is ever asked.
    fn now_ms(&mut self) -> Result<i64, Self::Error>;

    /// All 16 shards, in their order.
    fn rows(&mut self) -> Result<Vec<LeaseRow>, Self::Error>;

    /// Sets a shard's holder and raises its epoch by one, where its epoch is the one that
    /// is given. Says whether it did: not where the epoch is another by now, or where a
    /// transaction works on the shard just now (its row is locked), for which it does not
    /// wait.
    fn claim(
        &mut self,
        shard: Shard,
        epoch: i64,
        holder: Option<&str>,
    ) -> Result<bool, Self::Error>;

    /// All replicas that are known, also those that are gone.
    fn replicas(&mut self) -> Result<Vec<Replica>, Self::Error>;

    /// Writes a replica's row in the place of the one of its id.
    fn put_replica(&mut self, replica: &Replica) -> Result<(), Self::Error>;

    /// Takes a replica's row away, where there is one.
    fn drop_replica(&mut self, id: &str) -> Result<(), Self::Error>;
}

/// Who beats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// [`Replica::id`].
    pub id: String,
    /// [`Replica::version`].
    pub version: u32,
    /// Whether it works on all shards or on none: its stream has one lane.
    pub wants_all: bool,
}

/// What replicas agree on. They may differ in it while it is being changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How long after its last beat a replica counts as alive, milliseconds. It beats some
    /// three times as often.
    pub ttl_ms: i64,
    /// How long a replica is gone before it is forgotten, milliseconds.
    pub forget_ms: i64,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            ttl_ms: 6_000,
            forget_ms: 3_600_000,
        }
    }
}

/// How far ahead a replica's row may be, in lives: what is farther was written before the
/// store's clock was set back.
const AHEAD: i64 = 10;

/// One beat: writes the replica's row, takes shards that nobody has or whose holder is
/// gone, gives back what is above its share, and says what it holds then, in the order of
/// shards; that is true once the transaction is committed. What can't be taken or given
/// back just now is tried with the next beat.
///
/// One that wants all takes shards only where nobody else who is alive has any, gives none
/// back, and holds nothing until it holds all.
///
/// # Errors
/// Where the store fails: what is held is not known then, and what was held goes on until
/// a transaction on it is [`Fenced`](super::Fenced).
pub fn keep<L: Leases>(leases: &mut L, me: &Member, terms: &Terms) -> Result<Vec<Lease>, L::Error> {
    let now_ms = leases.now_ms()?;
    let live = look(leases, me, terms, now_ms)?;
    let mut table = Table {
        rows: leases.rows()?,
        me,
        live,
    };
    // One that waits for all is seen, and takes no part in the others' shares.
    let is_waiting = me.wants_all && !table.rows.iter().all(|row| table.is_open(row));
    leases.put_replica(&Replica {
        id: me.id.clone(),
        version: me.version,
        until_ms: match is_waiting {
            true => now_ms,
            false => now_ms.saturating_add(terms.ttl_ms),
        },
    })?;
    if me.wants_all {
        if !is_waiting {
            table.take_all(leases)?;
        }
        let held = table.held();
        return Ok(match held.len() == usize::from(SHARDS) {
            true => held,
            false => Vec::new(),
        });
    }
    table.balance(leases)?;
    Ok(table.held())
}

/// Gives back all that a replica holds, because it stops, so that others need not wait
/// until it is gone. It must not beat any more.
///
/// # Errors
/// Where the store fails: the others then wait.
pub fn leave<L: Leases>(leases: &mut L, me: &Member) -> Result<(), L::Error> {
    for row in leases.rows()? {
        if row.holder.as_deref() == Some(&me.id) {
            // What can't be given back has a holder that is gone.
            leases.claim(row.shard, row.epoch, None)?;
        }
    }
    leases.drop_replica(&me.id)
}

/// Who is alive, the caller with them. Forgets who is gone for long.
fn look<L: Leases>(
    leases: &mut L,
    me: &Member,
    terms: &Terms,
    now_ms: i64,
) -> Result<BTreeSet<String>, L::Error> {
    let mut live = BTreeSet::from([me.id.clone()]);
    let farthest_ms = now_ms.saturating_add(terms.ttl_ms.saturating_mul(AHEAD));
    for mut other in leases.replicas()? {
        if other.id == me.id {
            continue;
        }
        if other.until_ms > farthest_ms {
            // Whoever is alive writes it anew; whoever died would else live for as long as
            // the clock was set back.
            other.until_ms = now_ms.saturating_add(terms.ttl_ms);
            leases.put_replica(&other)?;
        }
        if other.until_ms > now_ms {
            live.insert(other.id);
        } else if other.until_ms < now_ms.saturating_sub(terms.forget_ms) {
            leases.drop_replica(&other.id)?;
        }
    }
    Ok(live)
}

/// The leases as one beat sees and changes them.
struct Table<'a> {
    rows: Vec<LeaseRow>,
    me: &'a Member,
    live: BTreeSet<String>,
}

impl Table<'_> {
    fn is_mine(&self, row: &LeaseRow) -> bool {
        row.holder.as_deref() == Some(&self.me.id)
    }

    /// Whether nobody who is alive has it but the caller.
    fn is_open(&self, row: &LeaseRow) -> bool {
        let of_other = |holder: &String| *holder != self.me.id && self.live.contains(holder);
        !row.holder.as_ref().is_some_and(of_other)
    }

    fn held(&self) -> Vec<Lease> {
        let mine = self.rows.iter().filter(|row| self.is_mine(row));
        mine.map(|row| Lease {
            shard: row.shard,
            epoch: row.epoch,
        })
        .collect()
    }

    /// Takes all shards in their order up to the first that it doesn't get: so, of two that
    /// want all, one gets the first shard, and the other waits.
    fn take_all<L: Leases>(&mut self, leases: &mut L) -> Result<(), L::Error> {
        for n in 0..self.rows.len() {
            let is_mine = self.rows.get(n).is_some_and(|row| self.is_mine(row));
            if !is_mine && !self.claim(leases, n, true)? {
                break;
            }
        }
        Ok(())
    }

    /// Takes what is open, the first shards first, or gives back what is too much, the last
    /// ones first, until it holds its share: who has the first shard does what is no shard's
    /// own, and keeps it as long as it has any.
    fn balance<L: Leases>(&mut self, leases: &mut L) -> Result<(), L::Error> {
        let share = self.share();
        let mut held = self.held().len();
        let first = usize::from(share > 0);
        for n in (first..self.rows.len()).rev() {
            let is_mine = self.rows.get(n).is_some_and(|row| self.is_mine(row));
            if held > share && is_mine && self.claim(leases, n, false)? {
                held = held.saturating_sub(1);
            }
        }
        for n in 0..self.rows.len() {
            let is_free = |row| !self.is_mine(row) && self.is_open(row);
            let is_free = self.rows.get(n).is_some_and(is_free);
            if held < share && is_free && self.claim(leases, n, true)? {
                held = held.saturating_add(1);
            }
        }
        Ok(())
    }

    fn claim<L: Leases>(&mut self, leases: &mut L, n: usize, take: bool) -> Result<bool, L::Error> {
        let Some(row) = self.rows.get_mut(n) else {
            return Ok(false);
        };
        let holder = take.then_some(self.me.id.as_str());
        if !leases.claim(row.shard, row.epoch, holder)? {
            return Ok(false);
        }
        row.epoch = row.epoch.saturating_add(1);
        row.holder = holder.map(str::to_owned);
        Ok(true)
    }

    /// How many shards the caller is to have. Where they can't be divided evenly, those
    /// that have one more keep it, the first of them by their ids where they are too many:
    /// so nothing moves that need not.
    fn share(&self) -> usize {
        let (shards, count) = (usize::from(SHARDS), self.live.len());
        let least = shards.checked_div(count).unwrap_or(0);
        let more = shards.checked_rem(count).unwrap_or(0);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for holder in self.rows.iter().filter_map(|row| row.holder.as_deref()) {
            if self.live.contains(holder) {
                let held = counts.entry(holder).or_default();
                *held = held.saturating_add(1);
            }
        }
        counts.retain(|_, held| *held > least);
        // Its place among those that have more, or behind them.
        let place = counts.keys().position(|id| *id == self.me.id);
        match place.unwrap_or(counts.len()) < more {
            true => least.saturating_add(1),
            false => least,
        }
    }
}
