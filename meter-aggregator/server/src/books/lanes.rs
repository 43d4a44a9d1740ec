//! What the stream holds is read lane by lane, and booked: by whoever holds the lane.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Mutex;
use weir_meter_store::stream::{Chunk, Lane, LaneReader, Way};
use weir_process::now_ms;

use super::{BookError, Books};
use crate::{
    fleet::Held,
    sorting::{scope_of, sort},
};

/// The most events in one booking transaction.
pub(super) const BOOK_MAX: usize = 2_000;

/// How far a lane is read here.
pub(super) struct LaneState {
    pub(super) lane: Lane,
    /// Who holds it, books.
    reading: Mutex<Option<Reading>>,
    /// The number of what was booked last.
    pub(super) booked: AtomicI64,
}

impl LaneState {
    /// Of which nothing was read.
    pub(super) fn of(lane: Lane) -> Self {
        Self {
            lane,
            reading: Mutex::default(),
            booked: AtomicI64::new(0),
        }
    }
}

struct Reading {
    /// As what it is read; another holder's reader begins anew.
    held: Held,
    reader: Box<dyn LaneReader>,
}

impl Books {
    /// How many lanes the stream has.
    pub fn lanes(&self) -> usize {
        self.0.lanes.len()
    }

    /// Books what comes next in a lane, and says how many events that were. Where there is
    /// nothing it waits for `patience`; where the lane is another's it does nothing.
    pub async fn step(&self, lane: usize, patience: Duration) -> Result<usize, BookError> {
        let Some(state) = self.0.lanes.get(lane) else {
            return Ok(0);
        };
        let mut reading = state.reading.lock().await;
        let outcome = self.step_on(state, &mut reading, patience).await;
        match &outcome {
            Ok(count) => self.0.metrics.booked(*count),
            Err(_) => self.0.metrics.booking_failed(),
        }
        if outcome.is_err() {
            // What was not booked is read again.
            *reading = None;
        }
        outcome
    }

    async fn step_on(
        &self,
        state: &LaneState,
        slot: &mut Option<Reading>,
        patience: Duration,
    ) -> Result<usize, BookError> {
        let Some(held) = self.grip(state.lane) else {
            *slot = None;
            return Ok(0);
        };
        if slot.as_ref().is_some_and(|reading| reading.held != held) {
            *slot = None;
        }
        let progress = self.0.intake.progress(state.lane);
        let reading = match slot {
            Some(reading) => reading,
            None => {
                let after = match progress.clone() {
                    Some(name) => self.with(move |ledger| ledger.progress(&name)).await?,
                    None => 0,
                };
                state.booked.store(after, Ordering::Release);
                let transport = self.0.intake.transport();
                let reader = transport.reader(state.lane, after).await?;
                slot.insert(Reading {
                    held: held.clone(),
                    reader,
                })
            }
        };
        let chunk = reading.reader.read(BOOK_MAX, patience).await?;
        self.tell_lost(&chunk);
        let (Some((last, _)), count) = (chunk.events.last(), chunk.events.len()) else {
            return Ok(0);
        };
        let last = *last;
        self.0.intake.has_read();
        self.book(state.lane, chunk.events, held, progress).await?;
        reading.reader.booked().await?;
        state.booked.store(last, Ordering::Release);
        Ok(count)
    }

    /// What must be held to book a lane; `None` where it is not.
    pub(super) fn grip(&self, lane: Lane) -> Option<Held> {
        let held = self.0.held.borrow();
        match (lane, &*held) {
            (_, Held::Whole) => Some(Held::Whole),
            (Lane::Whole, all) => all.is_all().then(|| all.clone()),
            (Lane::Of(shard), Held::Shards(shards)) => {
                let epoch = shards.get(&shard)?;
                Some(Held::Shards(BTreeMap::from([(shard, *epoch)])))
            }
        }
    }

    /// Books what was read of a lane.
    async fn book(
        &self,
        lane: Lane,
        texts: Vec<(i64, String)>,
        held: Held,
        progress: Option<String>,
    ) -> Result<(), BookError> {
        let inner = Arc::clone(&self.0);
        let booked = self.with(move |ledger| {
            let last = texts.last().map_or(0, |(position, _)| *position);
            let position = progress.as_deref().map(|name| (name, last));
            let rules = inner.billing.rules();
            let (groups, strange) = sort(lane, texts, &held, inner.keys.as_deref(), now_ms())?;
            if !strange.is_empty() {
                let count = strange.len();
                ledger.set_aside(&strange, None, Way::Stream, now_ms())?;
                tracing::error!(count, "the stream holds what is no event of its partition");
            }
            // Of one group the stream's number is written with it, of several after all.
            let is_one = groups.len() <= 1;
            let mut any = None;
            for (scope, events) in groups {
                let position = position.filter(|_| is_one);
                ledger.book(scope, events, &rules, now_ms(), position)?;
                any = Some(scope);
            }
            match (position, any.or_else(|| scope_of(lane, &held))) {
                (Some((name, last)), Some(scope)) if !is_one || any.is_none() => ledger
                    .transaction(scope, |change| {
                        weir_meter_core::ledger::Books::set_progress(change, name, last)
                    }),
                _ => Ok(()),
            }
        });
        Ok(booked.await?)
    }

    fn tell_lost(&self, chunk: &Chunk) {
        if chunk.lost.is_empty() {
            return;
        }
        self.0.metrics.lost(chunk.lost_entries);
        tracing::error!(
            count = chunk.lost_entries,
            first = chunk.lost.first(),
            "somebody else trimmed the stream: entries were never booked, and are gone"
        );
    }
}
