//! One replica of the fleet: what it does on the shards that it was told to hold, one call
//! of the store's, the stream's or Stripe's at a time.

use std::collections::BTreeMap;

use super::{
    super::{Mutant, World, process::Process},
    Fleet, Kind,
};
use crate::{
    lease::{self, Lease, Member, Scope, Shard, Terms},
    ledger::{Books as _, Intent, book},
};

/// A lane's reader.
#[derive(Debug, Default)]
struct Reader {
    /// Whether it has what was there before it.
    has_begun: bool,
    /// What was read and is not acknowledged.
    chunk: Vec<(i64, usize)>,
    is_booked: bool,
}

/// What it has of a shard, in memory alone.
#[derive(Debug)]
pub struct Work {
    lease: Lease,
    process: Process,
    reader: Reader,
}

/// A replica.
#[derive(Debug)]
pub struct Replica {
    pub me: Member,
    /// Until when it stands still, in the middle of whatever it does.
    pub frozen_until_ms: i64,
    pub skew_ms: i64,
    pub works: BTreeMap<Shard, Work>,
}

/// What a replica may do with a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Read,
    Book,
    Booked,
    BookWaiting,
    Plan,
    Start,
    Post,
    Finish,
    Ask,
    Answer,
    Expire,
}

impl Step {
    /// The more often, the more there is to be done.
    pub const ALL: [Self; 18] = [
        Self::Read,
        Self::Read,
        Self::Book,
        Self::Book,
        Self::Booked,
        Self::Booked,
        Self::BookWaiting,
        Self::Plan,
        Self::Start,
        Self::Start,
        Self::Post,
        Self::Post,
        Self::Post,
        Self::Finish,
        Self::Finish,
        Self::Ask,
        Self::Answer,
        Self::Expire,
    ];
}

fn progress(shard: Shard) -> String {
    format!("kafka/{shard}")
}

/// What the holder before had under way is tried again at once.
fn hurry(world: &mut World) {
    world.transaction(|books, _| {
        for intent in books.sendable(i64::MAX, usize::MAX)? {
            books.update_intent(&Intent {
                not_before_ms: 0,
                ..intent
            })?;
        }
        Ok(())
    });
}

impl Fleet {
    /// A heartbeat: what it holds no more it works on no more.
    pub fn beat(&mut self, n: usize) {
        let Some(replica) = &mut self.replicas[n] else {
            return;
        };
        let (me, terms) = (replica.me.clone(), Terms::default());
        let held = lease::keep(&mut self.world.table, &me, &terms).expect("no fault");
        self.world.table.tell(&me.id, &held);
        let is_held = |work: &Work| held.contains(&work.lease);
        let (kept, lost) = std::mem::take(&mut replica.works)
            .into_iter()
            .partition(|(_, work)| is_held(work));
        replica.works = kept;
        let new = |lease: &Lease| !replica.works.contains_key(&lease.shard);
        let new: Vec<Lease> = held.into_iter().filter(new).collect();
        for lease in &new {
            let work = Work {
                lease: *lease,
                process: Process::default(),
                reader: Reader::default(),
            };
            replica.works.insert(lease.shard, work);
        }
        self.drop_works(lost);
        for lease in new {
            if self.shards.contains(&lease.shard) && self.world.random.chance(500) {
                self.on(n, lease.shard, hurry);
            }
        }
    }

    /// Calls to Stripe that were begun may still go out.
    fn drop_works(&mut self, works: BTreeMap<Shard, Work>) {
        for work in works.into_values() {
            self.world.process = Some(work.process);
            self.world.die();
        }
    }

    /// Kills a replica.
    pub fn kill(&mut self, n: usize) {
        if let Some(replica) = self.replicas[n].take() {
            self.drop_works(replica.works);
            self.restart_ms[n] = self.world.now_ms + self.world.random.pause_ms(i64::MAX);
        }
    }

    /// Stops one as it should be.
    pub fn stop(&mut self, n: usize) {
        if let Some(replica) = &self.replicas[n] {
            lease::leave(&mut self.world.table, &replica.me).expect("no fault");
            self.kill(n);
        }
    }

    /// Runs something as the holder of a shard, by the replica's own clock.
    fn on<T>(&mut self, n: usize, shard: Shard, act: impl FnOnce(&mut World) -> T) -> Option<T> {
        let replica = self.replicas[n].as_mut()?;
        let work = replica.works.get_mut(&shard)?;
        let (world, skew_ms) = (&mut self.world, replica.skew_ms);
        world.process = Some(std::mem::take(&mut work.process));
        world.actor.scope = Scope::Held(work.lease);
        world.actor.id.clone_from(&replica.me.id);
        world.actor.skew_ms = skew_ms;
        world.actor.is_fenced = false;
        world.now_ms += skew_ms;
        let done = act(world);
        world.now_ms -= skew_ms;
        world.actor.skew_ms = 0;
        world.actor.scope = Scope::Whole;
        match world.process.take() {
            Some(process) => work.process = process,
            // Others have it: what it had of it goes.
            None if world.actor.is_fenced => {
                replica.works.remove(&shard);
            }
            None => self.kill(n),
        }
        Some(done)
    }

    fn reader(&mut self, n: usize, shard: Shard) -> Option<&mut Reader> {
        let work = self.replicas[n].as_mut()?.works.get_mut(&shard)?;
        Some(&mut work.reader)
    }

    pub fn step(&mut self, n: usize, shard: Shard, step: Step) {
        let is_old_sender = self.world.setup.mutant == Mutant::OldSender;
        self.world.actor.is_fenced = false;
        match step {
            Step::Read => self.read(n, shard),
            Step::Book => self.book(n, shard),
            Step::Booked => self.booked(n, shard),
            Step::Finish if is_old_sender => {
                self.world.actor.is_unchecked = true;
                self.on(n, shard, World::finish_one);
                self.world.actor.is_unchecked = false;
            }
            _ => {
                self.on(n, shard, |world| match step {
                    Step::BookWaiting => world.book_waiting(false),
                    Step::Plan => world.plan(false),
                    Step::Start => world.start(),
                    Step::Post => world.post_one(),
                    Step::Finish => world.finish_one(),
                    Step::Ask => world.ask(),
                    Step::Answer => world.answer_one(),
                    _ => world.expire(),
                });
            }
        }
        if self.world.actor.is_fenced {
            *self.fenced.entry(step).or_default() += 1;
        }
    }

    /// Reads on, once what was read before is acknowledged.
    fn read(&mut self, n: usize, shard: Shard) {
        let Some(replica) = &self.replicas[n] else {
            return;
        };
        let id = replica.me.id.clone();
        let Some(Reader {
            has_begun, chunk, ..
        }) = self.reader(n, shard)
        else {
            return;
        };
        if !chunk.is_empty() {
            return;
        }
        let has_begun = std::mem::replace(has_begun, true);
        let (now_ms, mutant) = (self.world.now_ms, self.world.setup.mutant);
        let limit = 1 + self.world.random.below(8);
        let lane = &mut self.lanes[usize::from(shard.number())];
        let mut chunk = Vec::new();
        if self.kind == Kind::Kafka {
            let offset = self.world.memory.disk.progress.get(&progress(shard));
            chunk = lane.after(offset.copied().unwrap_or(0), limit);
        } else {
            lane.make_group(mutant == Mutant::GroupAtEnd);
            if !has_begun && mutant != Mutant::NoClaim {
                chunk = lane.claim(&id, 0, now_ms);
            } else if mutant != Mutant::NoClaim && self.world.random.chance(200) {
                chunk = lane.claim_idle(&id, now_ms);
            }
            if chunk.is_empty() {
                chunk = lane.read(&id, limit, now_ms);
            }
            if mutant == Mutant::AckFirst {
                lane.acknowledge(chunk.iter().map(|(id, _)| *id));
            }
        }
        let is_lost = self.world.random.chance(self.breaks);
        if let Some(reader) = self.reader(n, shard) {
            // An answer that did not come leaves a reader that begins again.
            *reader = Reader {
                has_begun: !is_lost,
                chunk: if is_lost { Vec::new() } else { chunk },
                is_booked: false,
            };
        }
    }

    fn book(&mut self, n: usize, shard: Shard) {
        let Some(reader) = self.reader(n, shard) else {
            return;
        };
        let chunk = reader.chunk.clone();
        let Some((last, _)) = chunk.last().copied().filter(|_| !reader.is_booked) else {
            return;
        };
        let claims: Vec<usize> = chunk.iter().map(|(_, claim)| *claim).collect();
        let traffic = &self.world.traffic;
        let events = claims.iter().map(|claim| traffic.event(*claim).1.clone());
        let events: Vec<_> = events.collect();
        let name = progress(shard);
        let is_kafka = self.kind == Kind::Kafka;
        let is_early = self.world.setup.mutant == Mutant::OffsetFirst && is_kafka;
        let done = self.on(n, shard, |world| {
            if is_early {
                world.transaction(|books, _| books.set_progress(&name, last))?;
            }
            let now_ms = world.now_ms;
            let progress = is_kafka.then_some((name.as_str(), last));
            world.actor.has_committed = false;
            let done = world.transaction(|books, setup| {
                book::book(books, events, progress, &setup.rules(), now_ms)
            });
            if world.actor.has_committed {
                world.traffic.booked.get_or_insert_default().extend(claims);
            }
            done
        });
        if let Some(reader) = self.reader(n, shard) {
            match done.flatten() {
                Some(()) => reader.is_booked = true,
                None => *reader = Reader::default(),
            }
        }
    }

    /// What was booked is acknowledged, or that is lost; and now and then it is trimmed.
    fn booked(&mut self, n: usize, shard: Shard) {
        let Some(reader) = self.reader(n, shard).filter(|r| r.is_booked) else {
            return;
        };
        reader.is_booked = false;
        let chunk = std::mem::take(&mut reader.chunk);
        if self.kind == Kind::Kafka {
            return;
        }
        let is_lost = self.world.random.chance(self.breaks);
        if !is_lost {
            let lane = &mut self.lanes[usize::from(shard.number())];
            lane.acknowledge(chunk.into_iter().map(|(id, _)| id));
        }
        if self.world.random.chance(500) {
            self.trim(shard);
        }
    }

    fn trim(&mut self, shard: Shard) {
        let is_far = self.world.setup.mutant == Mutant::TrimFar;
        self.lanes[usize::from(shard.number())].trim(is_far);
    }

    /// All of what is to be done for its shards, once, without a fault.
    pub fn work(&mut self, n: usize) {
        let held = |replica: &Replica| replica.works.keys().copied().collect::<Vec<_>>();
        let shards = self.replicas[n].as_ref().map(held).unwrap_or_default();
        for shard in shards {
            if !self.shards.contains(&shard) {
                continue;
            }
            loop {
                self.read(n, shard);
                if self.reader(n, shard).is_none_or(|r| r.chunk.is_empty()) {
                    break;
                }
                self.book(n, shard);
                self.booked(n, shard);
            }
            if self.kind == Kind::Redis {
                self.trim(shard);
            }
            self.on(n, shard, World::work_on);
        }
    }
}
