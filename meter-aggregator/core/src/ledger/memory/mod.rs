//! A store in memory, for tests: it holds procedures to the rules of [`Books`], and
//! dies where it is told to.

mod rules;

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use weir_wire::{
    ids::TenantId,
    proto::usage::{UsageEvent, Witness},
};

use self::rules::may_become;
use super::{
    Adjustment, AdjustmentState, Books, Bucket, BucketKey, Discrepancy, DiscrepancyKind, Intent,
    RequestKey, RequestRow,
};
use crate::{
    hour::Hour,
    intent::State,
    journal::{self, Line},
    lease::Shard,
    meter::Meter,
};

/// The process died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crash;

/// Where a transaction's process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nowhere.
    None,
    /// Instead of the call of that number, from 0; at the commit where there are fewer.
    At(usize),
    /// When the commit was made, before anybody knew.
    Committed,
}

/// What identifies a discrepancy.
pub type NoteKey = (
    DiscrepancyKind,
    TenantId,
    Option<RequestKey>,
    Option<BucketKey>,
);

/// A discrepancy that was listed.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    pub detail: String,
    pub event: Option<UsageEvent>,
    pub is_open: bool,
}

/// What is on disk.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Disk {
    pub progress: BTreeMap<String, i64>,
    pub requests: BTreeMap<RequestKey, Rc<RequestRow>>,
    pub journal: Vec<Rc<(Line, [u8; 32])>>,
    pub buckets: BTreeMap<BucketKey, Bucket>,
    pub intents: Vec<Intent>,
    pub adjustments: Vec<Adjustment>,
    pub notes: BTreeMap<NoteKey, Note>,
    /// How often intents went from where to where.
    pub ways: BTreeMap<(State, State), usize>,
    /// Every identifier that ever was, and the intent that had it.
    identifiers: BTreeMap<String, i64>,
}

impl Disk {
    /// Whether the same stands there, however it came to be.
    pub fn is_same(&self, other: &Self) -> bool {
        let without_ways = |disk: &Self| Self {
            ways: BTreeMap::new(),
            ..disk.clone()
        };
        without_ways(self) == without_ways(other)
    }
}

/// The store.
#[derive(Debug, Default)]
pub struct Memory {
    pub disk: Disk,
    /// How many calls the last transaction made.
    pub calls: usize,
    /// Whether it is none: what was written before a crash stays.
    pub is_torn: bool,
    /// Whether each shard has a journal of its own.
    pub is_sharded: bool,
    /// The shard that the next transactions are about.
    pub shard: Option<Shard>,
}

/// One transaction.
#[derive(Debug)]
pub struct Transaction<'a> {
    disk: &'a mut Disk,
    calls: usize,
    writes: usize,
    fault: Fault,
    shard: Option<Shard>,
}

impl Memory {
    /// Runs a procedure: what it changed stays where it succeeds.
    ///
    /// # Errors
    /// The procedure's own, and [`Crash`] where `fault` says so.
    pub fn transaction<T, E: From<Crash>>(
        &mut self,
        fault: Fault,
        procedure: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let before = matches!(fault, Fault::At(_)).then(|| self.disk.clone());
        let mut transaction = Transaction {
            disk: &mut self.disk,
            calls: 0,
            writes: 0,
            fault,
            shard: self.shard,
        };
        let mut result = procedure(&mut transaction);
        self.calls = transaction.calls;
        let writes = transaction.writes;
        if matches!(fault, Fault::At(_)) && result.is_ok() {
            result = Err(Crash.into());
        }
        match (&result, before) {
            (Err(_), Some(before)) if !self.is_torn => self.disk = before,
            (Err(_), Some(_)) => {}
            // What refuses must have changed nothing, so that nothing is to be undone.
            (Err(_), None) => assert_eq!(writes, 0, "refused after a change"),
            (Ok(_), _) => {}
        }
        match fault {
            Fault::Committed => result.and(Err(Crash.into())),
            _ => result,
        }
    }

    /// A procedure in a process that does not die.
    pub fn run<T>(
        &mut self,
        procedure: impl FnOnce(&mut Transaction<'_>) -> Result<T, Crash>,
    ) -> T {
        self.transaction(Fault::None, procedure)
            .expect("no fault was asked for")
    }
}

/// The bucket that a request's use of a meter belongs to.
pub fn bucket_of(key: &RequestKey, meter: &Meter) -> BucketKey {
    BucketKey {
        hour: key.hour(),
        tenant: key.tenant.clone(),
        meter: meter.clone(),
    }
}

impl Transaction<'_> {
    /// Counts a call, and dies at the one that is to fail.
    fn call(&mut self) -> Result<(), Crash> {
        if self.fault == Fault::At(self.calls) {
            return Err(Crash);
        }
        self.calls += 1;
        Ok(())
    }

    fn write(&mut self) -> Result<(), Crash> {
        self.call()?;
        self.writes += 1;
        Ok(())
    }

    /// Whether a tenant is in the transaction's scope.
    fn has(&self, tenant: &TenantId) -> bool {
        self.shard.is_none_or(|shard| Shard::of(tenant) == shard)
    }

    #[track_caller]
    fn must_have(&self, tenant: &TenantId) {
        assert!(self.has(tenant), "a transaction of another shard: {tenant}");
    }

    fn chosen(&self, limit: usize, is: impl Fn(&Intent) -> bool) -> Vec<Intent> {
        let of_scope = |i: &&Intent| self.has(&i.bucket.tenant);
        let chosen = self.disk.intents.iter().filter(of_scope);
        let chosen = chosen.filter(|i| is(i));
        chosen.take(limit).cloned().collect()
    }

    fn take_identifier(&mut self, intent: &Intent) {
        let owner = *self
            .disk
            .identifiers
            .entry(intent.identifier.clone())
            .or_insert(intent.id);
        assert_eq!(owner, intent.id, "two intents have one identifier");
    }

    fn check_open(&self, key: &BucketKey) {
        let open = self.disk.intents.iter().filter(|i| &i.bucket == key);
        let open = open.filter(|i| i.state.is_open()).count();
        assert!(open <= 1, "a second intent is open: {key:?}");
    }

    fn check_proposal(&self, key: &BucketKey) {
        let proposed = |a: &&Adjustment| a.state == AdjustmentState::Proposed && &a.bucket == key;
        let proposed = self.disk.adjustments.iter().filter(proposed).count();
        assert!(proposed <= 1, "a second adjustment is proposed: {key:?}");
    }
}

fn index(id: i64) -> usize {
    usize::try_from(id - 1).expect("ids begin at 1")
}

impl Books for Transaction<'_> {
    type Error = Crash;

    fn identity(&mut self) -> Result<String, Crash> {
        self.call()?;
        Ok("0123456789abcdef".to_owned())
    }

    fn progress(&mut self, name: &str) -> Result<i64, Crash> {
        self.call()?;
        Ok(self.disk.progress.get(name).copied().unwrap_or(0))
    }

    fn set_progress(&mut self, name: &str, number: i64) -> Result<(), Crash> {
        self.write()?;
        self.disk.progress.insert(name.to_owned(), number);
        Ok(())
    }

    fn requests(&mut self, keys: &[RequestKey]) -> Result<Vec<Option<RequestRow>>, Crash> {
        self.call()?;
        keys.iter().for_each(|key| self.must_have(&key.tenant));
        let row = |key| self.disk.requests.get(key).map(|row| (**row).clone());
        Ok(keys.iter().map(row).collect())
    }

    fn put_requests(&mut self, rows: &[(RequestKey, RequestRow)]) -> Result<(), Crash> {
        self.write()?;
        for (key, row) in rows {
            let witnesses: BTreeSet<Witness> = row.events.iter().map(|e| e.witness()).collect();
            assert_eq!(witnesses.len(), row.events.len(), "one event of a witness");
            assert!(row.events.iter().all(|e| e.tenant_context.is_empty()));
            self.disk.requests.insert(key.clone(), Rc::new(row.clone()));
        }
        Ok(())
    }

    fn due_requests(&mut self, now_ms: i64, limit: usize) -> Result<Vec<RequestKey>, Crash> {
        self.call()?;
        let due = |(key, row): (&RequestKey, &Rc<RequestRow>)| Some((row.due_ms?, key.clone()));
        let mut due: Vec<_> = self.disk.requests.iter().filter_map(due).collect();
        due.retain(|(at, key)| *at <= now_ms && self.has(&key.tenant));
        due.sort();
        Ok(due.into_iter().take(limit).map(|(_, key)| key).collect())
    }

    fn journal_end(&mut self) -> Result<[u8; 32], Crash> {
        self.call()?;
        let mut entries = self.disk.journal.iter().rev();
        let last = entries.find(|entry| self.has(&entry.0.tenant));
        Ok(last.map_or(journal::GENESIS, |entry| entry.1))
    }

    fn append_journal(&mut self, lines: &[(Line, [u8; 32])]) -> Result<(), Crash> {
        self.write()?;
        lines
            .iter()
            .for_each(|(line, _)| self.must_have(&line.tenant));
        let lines = lines.iter().cloned().map(Rc::new);
        self.disk.journal.extend(lines);
        Ok(())
    }

    fn add_to_buckets(&mut self, changes: &[(BucketKey, i64)]) -> Result<(), Crash> {
        self.write()?;
        for (key, change) in changes {
            self.must_have(&key.tenant);
            self.disk.buckets.entry(key.clone()).or_default().total += change;
        }
        Ok(())
    }

    fn bucket(&mut self, key: &BucketKey) -> Result<Bucket, Crash> {
        self.call()?;
        Ok(self.disk.buckets.get(key).copied().unwrap_or_default())
    }

    fn set_planned(&mut self, key: &BucketKey, planned: i64, revision: i64) -> Result<(), Crash> {
        self.write()?;
        let bucket = self.disk.buckets.get_mut(key).expect("the bucket is there");
        bucket.planned = planned;
        bucket.revision = revision;
        Ok(())
    }

    fn unplanned(&mut self, upto: Hour) -> Result<Vec<(BucketKey, Bucket)>, Crash> {
        self.call()?;
        let mut changed: Vec<(BucketKey, Bucket)> = self
            .disk
            .buckets
            .iter()
            .filter(|(key, bucket)| key.hour <= upto && bucket.total != bucket.planned)
            .filter(|(key, _)| self.has(&key.tenant))
            .map(|(key, bucket)| (key.clone(), *bucket))
            .collect();
        changed.retain(|(key, _)| {
            let mut intents = self.disk.intents.iter();
            !intents.any(|i| &i.bucket == key && i.state.is_open())
        });
        Ok(changed)
    }

    fn insert_intent(&mut self, intent: &Intent) -> Result<i64, Crash> {
        self.write()?;
        self.must_have(&intent.bucket.tenant);
        let mut intent = intent.clone();
        intent.id = i64::try_from(self.disk.intents.len()).unwrap() + 1;
        let is_new = !self.disk.identifiers.contains_key(&intent.identifier);
        assert!(is_new, "the identifier of another intent");
        self.take_identifier(&intent);
        let (id, key) = (intent.id, intent.bucket.clone());
        self.disk.intents.push(intent);
        self.check_open(&key);
        Ok(id)
    }

    fn update_intent(&mut self, intent: &Intent) -> Result<(), Crash> {
        self.write()?;
        self.must_have(&intent.bucket.tenant);
        self.take_identifier(intent);
        let row = &mut self.disk.intents[index(intent.id)];
        assert_eq!(
            (&row.bucket, row.revision, row.delta),
            (&intent.bucket, intent.revision, intent.delta)
        );
        let is_renamed = row.identifier != intent.identifier;
        assert_eq!(is_renamed, row.generation != intent.generation);
        assert!(may_become(row, intent), "{row:?} became {intent:?}");
        let way = (row.state, intent.state);
        *row = intent.clone();
        *self.disk.ways.entry(way).or_default() += 1;
        self.check_open(&intent.bucket);
        Ok(())
    }

    fn intent(&mut self, id: i64) -> Result<Option<Intent>, Crash> {
        self.call()?;
        Ok(self.chosen(1, |i| i.id == id).pop())
    }

    fn open_intent(&mut self, key: &BucketKey) -> Result<Option<Intent>, Crash> {
        self.call()?;
        let open = |i: &Intent| &i.bucket == key && i.state.is_open();
        Ok(self.chosen(1, open).pop())
    }

    fn sendable(&mut self, now_ms: i64, limit: usize) -> Result<Vec<Intent>, Crash> {
        self.call()?;
        Ok(self.chosen(limit, |i| {
            matches!(i.state, State::Planned | State::Sending) && i.not_before_ms <= now_ms
        }))
    }

    fn unsettled(
        &mut self,
        tried_ms: i64,
        now_ms: i64,
        limit: usize,
    ) -> Result<Vec<Intent>, Crash> {
        self.call()?;
        Ok(self.chosen(limit, |i| {
            matches!(i.state, State::Accepted | State::Reconcile)
                && i.last_attempt_ms.is_some_and(|at| at <= tried_ms)
                && i.not_before_ms <= now_ms
        }))
    }

    fn intents_at(
        &mut self,
        tenant: &TenantId,
        meter: &Meter,
        hour: Hour,
    ) -> Result<Vec<Intent>, Crash> {
        self.call()?;
        Ok(self.chosen(usize::MAX, |i| {
            let key = &i.bucket;
            (&key.tenant, &key.meter, i.stamp_hour()) == (tenant, meter, hour)
        }))
    }

    fn aged(&mut self, before_s: i64, limit: usize) -> Result<Vec<Intent>, Crash> {
        self.call()?;
        Ok(self.chosen(limit, |i| {
            matches!(i.state, State::Planned | State::Sending | State::Held)
                && i.timestamp_s < before_s
        }))
    }

    fn confirmed(&mut self, meter: &Meter, from_s: i64, to_s: i64) -> Result<Vec<Intent>, Crash> {
        self.call()?;
        Ok(self.chosen(usize::MAX, |i| {
            i.state == State::Confirmed
                && &i.bucket.meter == meter
                && (from_s..to_s).contains(&i.timestamp_s)
        }))
    }

    fn note(&mut self, found: &[Discrepancy], _now_ms: i64) -> Result<(), Crash> {
        self.write()?;
        for d in found.iter().cloned() {
            let key = (d.kind, d.tenant, d.request, d.bucket);
            let note = self.disk.notes.entry(key).or_insert(Note {
                detail: d.detail,
                event: d.event,
                is_open: true,
            });
            note.is_open = true;
        }
        Ok(())
    }

    fn resolve(
        &mut self,
        kind: DiscrepancyKind,
        tenant: &TenantId,
        request: Option<&RequestKey>,
        bucket: Option<&BucketKey>,
        _now_ms: i64,
    ) -> Result<(), Crash> {
        self.write()?;
        let key = (kind, tenant.clone(), request.cloned(), bucket.cloned());
        if let Some(note) = self.disk.notes.get_mut(&key) {
            note.is_open = false;
        }
        Ok(())
    }

    fn adjustment(&mut self, id: i64) -> Result<Option<Adjustment>, Crash> {
        self.call()?;
        let is = |a: &&Adjustment| a.id == id && self.has(&a.bucket.tenant);
        Ok(self.disk.adjustments.iter().find(is).cloned())
    }

    fn proposal(&mut self, key: &BucketKey) -> Result<Option<Adjustment>, Crash> {
        self.call()?;
        let is = |a: &&Adjustment| &a.bucket == key && a.state == AdjustmentState::Proposed;
        Ok(self.disk.adjustments.iter().find(is).cloned())
    }

    fn proposals(&mut self) -> Result<Vec<Adjustment>, Crash> {
        self.call()?;
        let is =
            |a: &&Adjustment| a.state == AdjustmentState::Proposed && self.has(&a.bucket.tenant);
        Ok(self.disk.adjustments.iter().filter(is).cloned().collect())
    }

    fn insert_adjustment(&mut self, adjustment: &Adjustment) -> Result<i64, Crash> {
        self.write()?;
        self.must_have(&adjustment.bucket.tenant);
        let id = i64::try_from(self.disk.adjustments.len()).unwrap() + 1;
        let adjustment = Adjustment {
            id,
            ..adjustment.clone()
        };
        self.disk.adjustments.push(adjustment.clone());
        self.check_proposal(&adjustment.bucket);
        Ok(id)
    }

    fn update_adjustment(&mut self, adjustment: &Adjustment) -> Result<(), Crash> {
        self.write()?;
        let row = &mut self.disk.adjustments[index(adjustment.id)];
        assert_eq!(row.bucket, adjustment.bucket);
        assert_eq!(row.state, AdjustmentState::Proposed, "decided twice");
        *row = adjustment.clone();
        self.check_proposal(&adjustment.bucket);
        Ok(())
    }
}
