//! A shard's part of the stream, as Redis Streams with a consumer group have it, and as
//! Kafka.

use std::collections::BTreeMap;

/// How long an entry must lie with a consumer before another one may take it, milliseconds.
const IDLE_MS: i64 = 5_000;

/// What a consumer group knows.
#[derive(Debug, Clone, Default)]
pub struct Group {
    /// The last entry that anybody was given.
    delivered: i64,
    /// What was given and not acknowledged: to whom, and when.
    pending: BTreeMap<i64, (String, i64)>,
}

/// A lane.
#[derive(Debug, Clone, Default)]
pub struct Lane {
    /// Which claim each entry is.
    entries: BTreeMap<i64, usize>,
    last: i64,
    pub group: Option<Group>,
    /// As a server has it that is some time behind, all entries but for what was trimmed.
    behind: Option<Box<Self>>,
}

impl Lane {
    pub fn append(&mut self, claim: usize) {
        self.last += 1;
        self.entries.insert(self.last, claim);
    }

    /// Whether everything was acknowledged and trimmed.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Kafka: entries after an offset.
    pub fn after(&self, offset: i64, limit: usize) -> Vec<(i64, usize)> {
        let entries = self.entries.range(offset + 1..).take(limit);
        entries.map(|(id, claim)| (*id, *claim)).collect()
    }

    /// Redis: makes the group where there is none. It begins before all entries.
    pub fn make_group(&mut self, is_at_end: bool) {
        let delivered = if is_at_end { self.last } else { 0 };
        self.group.get_or_insert_with(|| Group {
            delivered,
            pending: BTreeMap::new(),
        });
    }

    /// Takes over what anybody was given at least `idle_ms` ago and did not acknowledge.
    pub fn claim(&mut self, consumer: &str, idle_ms: i64, now_ms: i64) -> Vec<(i64, usize)> {
        let Some(group) = &mut self.group else {
            return Vec::new();
        };
        let mut claimed = Vec::new();
        for (id, (owner, at_ms)) in &mut group.pending {
            if now_ms - *at_ms >= idle_ms {
                (*owner, *at_ms) = (consumer.to_owned(), now_ms);
                let claim = self.entries.get(id);
                claimed.push((*id, *claim.expect("an entry was trimmed before its time")));
            }
        }
        claimed
    }

    /// As [`claim`](Self::claim), of what a consumer that is alive would have booked by now.
    pub fn claim_idle(&mut self, consumer: &str, now_ms: i64) -> Vec<(i64, usize)> {
        self.claim(consumer, IDLE_MS, now_ms)
    }

    /// Entries that nobody was given yet.
    pub fn read(&mut self, consumer: &str, limit: usize, now_ms: i64) -> Vec<(i64, usize)> {
        let Some(group) = &mut self.group else {
            return Vec::new();
        };
        let new = self.entries.range(group.delivered + 1..).take(limit);
        let new: Vec<(i64, usize)> = new.map(|(id, claim)| (*id, *claim)).collect();
        for (id, _) in &new {
            group.delivered = *id;
            group.pending.insert(*id, (consumer.to_owned(), now_ms));
        }
        new
    }

    pub fn acknowledge(&mut self, ids: impl Iterator<Item = i64>) {
        if let Some(group) = &mut self.group {
            ids.for_each(|id| {
                group.pending.remove(&id);
            });
        }
    }

    /// Lets go of what is before all that may be needed, or, where it is a mutant, of all
    /// that was given to anybody.
    pub fn trim(&mut self, is_far: bool) {
        let Some(group) = &self.group else { return };
        let first = group.pending.keys().next().filter(|_| !is_far);
        let safe = first.copied().unwrap_or(group.delivered + 1);
        self.entries = self.entries.split_off(&safe);
    }

    /// Remembers what a server has that is about to fall behind.
    pub fn fork(&mut self) {
        let mut copy = self.clone();
        copy.behind = None;
        self.behind = Some(Box::new(copy));
    }

    /// The server that is behind takes over. Appends reached both.
    pub fn fail_over(&mut self) {
        if let Some(behind) = self.behind.take() {
            let mut entries = behind.entries;
            entries.append(&mut self.entries);
            self.entries = entries;
            self.group = behind.group;
        }
    }
}
