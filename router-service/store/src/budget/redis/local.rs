//! What this router knows by itself: how much it has booked, for each tenant, month
//! and line, and what it holds. The first of it is kept in a file, too.
//!
//! A line is a stretch of a tenant's data in Redis that no loss has interrupted. What
//! a router has booked on one only grows, so the larger of two numbers is always the
//! newer one, and spend is the sum over all lines and routers.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::time::Instant;
use weir_router_core::budget::{Ask, MONTHS_KEPT, Month, Progress};
use weir_wire::ids::{RequestId, TenantId};

use super::{
    script::{KnownHold, Push, Pushed, Total},
    this_month,
};
use crate::budget::{OpenError, sqlite::open_with};

/// What was learnt is written so soon after: a router that is killed within it, with
/// its Redis losing its data before the router is back, has lost this much.
const WRITE_AFTER: Duration = Duration::from_millis(25);

/// What the tables look like.
const LAYOUT: i64 = 1;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS totals (
  tenant TEXT NOT NULL, month INTEGER NOT NULL, line TEXT NOT NULL,
  plus INTEGER NOT NULL, minus INTEGER NOT NULL, told INTEGER NOT NULL,
  PRIMARY KEY (tenant, month, line)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lines (tenant TEXT PRIMARY KEY, line TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS router (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
";

/// A tenant's part.
#[derive(Debug, Default)]
struct Known {
    /// Empty where none is known.
    line: Arc<str>,
    totals: BTreeMap<(Month, Arc<str>), Total>,
    holds: HashMap<RequestId, (KnownHold, Instant)>,
    /// When it was put on the list of those that are swept.
    listed_at: Option<Instant>,
    /// Something was learnt of a line that is over.
    is_behind: bool,
}

/// What is to be written.
#[derive(Debug, Default)]
struct Unwritten {
    totals: HashMap<(TenantId, Month, Arc<str>), Total>,
    lines: HashMap<TenantId, Arc<str>>,
    names: BTreeMap<&'static str, String>,
    is_closed: bool,
}

impl Unwritten {
    fn is_empty(&self) -> bool {
        self.totals.is_empty() && self.lines.is_empty() && self.names.is_empty()
    }
}

#[derive(Debug, Default)]
struct Queue {
    unwritten: Mutex<Unwritten>,
    changed: Condvar,
}

/// All that this router knows.
#[derive(Debug)]
pub(super) struct Local {
    /// Random, and kept in the file.
    pub(super) router: String,
    /// The server's run and the marker that the file tells of.
    pub(super) trusted: Option<(String, String)>,
    known: Mutex<HashMap<TenantId, Known>>,
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl Local {
    /// Opens or creates the file; an id is made for a router that has none.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let connection = open_with(path, TABLES, LAYOUT)?;
        let failed = |source| OpenError::File {
            path: path.to_owned(),
            source,
        };
        let named = |name| read_name(&connection, name).map_err(failed);
        let trusted = named("run")?.zip(named("marker")?);
        let router = match named("router")? {
            Some(router) => router,
            None => {
                let random =
                    getrandom::u64().map_err(|e| OpenError::System { why: e.to_string() })?;
                let router = format!("{random:016x}");
                // It must be there before anything is booked under it.
                write_name(&connection, "router", &router).map_err(failed)?;
                router
            }
        };
        forget(&connection).map_err(failed)?;
        let known = read_known(&connection).map_err(failed)?;
        let queue = Arc::new(Queue::default());
        let of_thread = Arc::clone(&queue);
        let thread = std::thread::Builder::new()
            .name("weir-budget-own".to_owned())
            .spawn(move || keep(connection, &of_thread))
            .map_err(|e| OpenError::System { why: e.to_string() })?;
        Ok(Self {
            router,
            trusted,
            known: Mutex::new(known),
            queue,
            thread: Some(thread),
        })
    }

    /// The tenant's line, and what was booked on it in a month; and whether the tenant
    /// must be listed, where it was not since `listed_for`.
    pub(super) fn head(
        &self,
        tenant: &TenantId,
        month: Month,
        listed_for: Duration,
    ) -> (Arc<str>, Total, bool) {
        let known = lock(&self.known);
        let Some(known) = known.get(tenant) else {
            return (Arc::default(), Total::default(), true);
        };
        let line = Arc::clone(&known.line);
        let total = known.totals.get(&(month, line)).copied();
        let must_list = known.listed_at.is_none_or(|at| at.elapsed() >= listed_for);
        (
            Arc::clone(&known.line),
            total.unwrap_or_default(),
            must_list,
        )
    }

    pub(super) fn listed(&self, tenant: &TenantId) {
        let mut all = lock(&self.known);
        all.entry(tenant.clone()).or_default().listed_at = Some(Instant::now());
    }

    /// Takes what an answer tells.
    pub(super) fn learn(&self, tenant: &TenantId, line: &str, totals: &[(Month, Total)]) {
        let mut all = lock(&self.known);
        if !all.contains_key(tenant) {
            all.insert(tenant.clone(), Known::default());
        }
        let Some(known) = all.get_mut(tenant) else {
            return;
        };
        if known.line.is_empty() {
            self.set_line(known, tenant, line);
        }
        let is_current = *known.line == *line;
        let line = match is_current {
            true => Arc::clone(&known.line),
            false => Arc::from(line),
        };
        for (month, told) in totals {
            known.is_behind |= !is_current;
            self.raise(known, tenant, *month, &line, *told);
        }
    }

    /// Takes what a push was answered: from now on, calls are of that line.
    pub(super) fn pushed(&self, tenant: &TenantId, pushed: &Pushed) {
        let mut all = lock(&self.known);
        let known = all.entry(tenant.clone()).or_default();
        if *known.line != *pushed.line {
            self.set_line(known, tenant, &pushed.line);
        }
        for (month, line, total) in &pushed.totals {
            self.raise(known, tenant, *month, &Arc::from(line.as_str()), *total);
        }
    }

    fn set_line(&self, known: &mut Known, tenant: &TenantId, line: &str) {
        known.line = Arc::from(line);
        let mut unwritten = lock(&self.queue.unwritten);
        unwritten
            .lines
            .insert(tenant.clone(), Arc::clone(&known.line));
        self.queue.changed.notify_one();
    }

    fn raise(
        &self,
        known: &mut Known,
        tenant: &TenantId,
        month: Month,
        line: &Arc<str>,
        found: Total,
    ) {
        let total = known.totals.entry((month, Arc::clone(line))).or_default();
        let raised = Total {
            plus: total.plus.max(found.plus),
            minus: total.minus.max(found.minus),
            told: total.told | found.told,
        };
        if *total == raised {
            return;
        }
        *total = raised;
        let mut unwritten = lock(&self.queue.unwritten);
        let was_empty = unwritten.is_empty();
        let key = (tenant.clone(), month, Arc::clone(line));
        unwritten.totals.insert(key, raised);
        if was_empty {
            self.queue.changed.notify_one();
        }
    }

    pub(super) fn held(&self, ask: &Ask) {
        let hold = KnownHold {
            amount: ask.amount,
            tokens: ask.tokens,
            step: 0,
            progress: ask.progress.clone(),
        };
        let mut all = lock(&self.known);
        if let Some(known) = all.get_mut(&ask.tenant) {
            known.holds.insert(ask.id, (hold, after(ask.life_ms)));
        }
    }

    pub(super) fn raised(&self, tenant: &TenantId, id: RequestId, step: u32, by: u64) {
        let mut all = lock(&self.known);
        let hold = all
            .get_mut(tenant)
            .and_then(|known| known.holds.get_mut(&id));
        if let Some((hold, _)) = hold.filter(|(hold, _)| hold.step < step) {
            hold.amount = hold.amount.saturating_add(by);
            hold.step = step;
        }
    }

    pub(super) fn renewed(
        &self,
        tenant: &TenantId,
        id: RequestId,
        life_ms: u64,
        progress: Progress,
    ) {
        let mut all = lock(&self.known);
        let hold = all
            .get_mut(tenant)
            .and_then(|known| known.holds.get_mut(&id));
        if let Some((hold, until)) = hold {
            hold.progress = progress;
            *until = after(life_ms);
        }
    }

    /// There is no such hold any more.
    pub(super) fn gone(&self, tenant: &TenantId, id: RequestId) {
        if let Some(known) = lock(&self.known).get_mut(tenant) {
            known.holds.remove(&id);
        }
    }

    /// What Redis must be told of a tenant after a loss: totals from that month on, and
    /// what is held. With it the line that the router knows.
    pub(super) fn push(&self, tenant: &TenantId, from: Month) -> (Arc<str>, Push) {
        let mut push = Push::default();
        let all = lock(&self.known);
        let Some(known) = all.get(tenant) else {
            return (Arc::default(), push);
        };
        for ((month, line), total) in known.totals.iter().filter(|((month, _), _)| *month >= from) {
            push.total(*month, line, *total);
        }
        let now = Instant::now();
        for (id, (hold, until)) in &known.holds {
            let left = until.saturating_duration_since(now);
            push.hold(
                *id,
                u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
                hold,
            );
        }
        (Arc::clone(&known.line), push)
    }

    /// All tenants that anything is known of. After a loss none of them is listed.
    pub(super) fn tenants(&self, is_lost: bool) -> Vec<TenantId> {
        let mut all = lock(&self.known);
        if is_lost {
            all.values_mut().for_each(|known| known.listed_at = None);
        }
        all.keys().cloned().collect()
    }

    /// The tenants of whom something was learnt too late to be told again.
    pub(super) fn take_behind(&self) -> Vec<TenantId> {
        let mut all = lock(&self.known);
        let behind = all.iter_mut().filter(|(_, known)| known.is_behind);
        behind
            .map(|(tenant, known)| {
                known.is_behind = false;
                tenant.clone()
            })
            .collect()
    }

    /// Forgets holds that ended so long ago that they were swept by now, and months
    /// before that one.
    pub(super) fn forget(&self, ended_for: Duration, before: Month) {
        let now = Instant::now();
        for known in lock(&self.known).values_mut() {
            known
                .holds
                .retain(|_, (_, until)| now.saturating_duration_since(*until) < ended_for);
            known.totals.retain(|(month, _), _| *month >= before);
        }
    }

    /// Keeps what the server's run and the marker are.
    pub(super) fn trust(&self, run: &str, marker: &str) {
        let mut unwritten = lock(&self.queue.unwritten);
        unwritten.names.insert("run", run.to_owned());
        unwritten.names.insert("marker", marker.to_owned());
        self.queue.changed.notify_one();
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        lock(&self.queue.unwritten).is_closed = true;
        self.queue.changed.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the router's own totals has panicked");
        }
    }
}

/// Writes what is to be written, some of it at once.
fn keep(mut connection: Connection, queue: &Queue) {
    loop {
        let mut unwritten = lock(&queue.unwritten);
        while unwritten.is_empty() && !unwritten.is_closed {
            unwritten = queue
                .changed
                .wait(unwritten)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let is_closed = unwritten.is_closed;
        if !is_closed {
            drop(unwritten);
            std::thread::sleep(WRITE_AFTER);
            unwritten = lock(&queue.unwritten);
        }
        let now = std::mem::take(&mut *unwritten);
        unwritten.is_closed = is_closed || now.is_closed;
        drop(unwritten);
        if let Err(error) = write(&mut connection, &now) {
            tracing::error!(%error, "what this router has booked can't be written; it is tried again");
            put_back(queue, now);
            std::thread::sleep(WRITE_AFTER.saturating_mul(10));
        }
        if is_closed {
            return;
        }
    }
}

/// What was learnt meanwhile is newer.
fn put_back(queue: &Queue, unwritten: Unwritten) {
    let mut newer = lock(&queue.unwritten);
    for (key, total) in unwritten.totals {
        newer.totals.entry(key).or_insert(total);
    }
    for (key, line) in unwritten.lines {
        newer.lines.entry(key).or_insert(line);
    }
    for (name, value) in unwritten.names {
        newer.names.entry(name).or_insert(value);
    }
}

fn write(connection: &mut Connection, unwritten: &Unwritten) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for ((tenant, month, line), total) in &unwritten.totals {
        let int = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        transaction
            .prepare_cached("INSERT OR REPLACE INTO totals VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute(params![
                tenant.as_str(),
                month.0,
                line,
                int(total.plus),
                int(total.minus),
                total.told,
            ])?;
    }
    for (tenant, line) in &unwritten.lines {
        transaction
            .prepare_cached("INSERT OR REPLACE INTO lines VALUES (?1, ?2)")?
            .execute(params![tenant.as_str(), line])?;
    }
    for (name, value) in &unwritten.names {
        write_name(&transaction, name, value)?;
    }
    transaction.commit()
}

fn write_name(to: &Connection, name: &str, value: &str) -> rusqlite::Result<()> {
    to.execute(
        "INSERT OR REPLACE INTO router VALUES (?1, ?2)",
        params![name, value],
    )
    .map(drop)
}

fn read_name(from: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT value FROM router WHERE name = ?1";
    from.query_row(sql, [name], |row| row.get(0)).optional()
}

/// Takes away the months that Redis has forgotten.
fn forget(from: &Connection) -> rusqlite::Result<()> {
    let first = this_month().0.saturating_sub(MONTHS_KEPT);
    from.execute("DELETE FROM totals WHERE month < ?1", [first])
        .map(drop)
}

fn read_known(from: &Connection) -> rusqlite::Result<HashMap<TenantId, Known>> {
    let mut all = HashMap::<TenantId, Known>::new();
    let tenant = |row: &rusqlite::Row<'_>| {
        let wrong = |e| {
            let kind = rusqlite::types::Type::Text;
            rusqlite::Error::FromSqlConversionFailure(0, kind, Box::new(e))
        };
        TenantId::new(row.get::<_, String>(0)?).map_err(wrong)
    };
    let mut statement = from.prepare("SELECT tenant, line FROM lines")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        all.entry(tenant(row)?).or_default().line = Arc::from(row.get::<_, String>(1)?);
    }
    let sql = "SELECT tenant, month, line, plus, minus, told FROM totals";
    let mut statement = from.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let number = |at| {
            let n: i64 = row.get(at)?;
            u64::try_from(n).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(at, n))
        };
        let total = Total {
            plus: number(3)?,
            minus: number(4)?,
            told: row.get(5)?,
        };
        let key = (Month(row.get(1)?), Arc::from(row.get::<_, String>(2)?));
        all.entry(tenant(row)?)
            .or_default()
            .totals
            .insert(key, total);
    }
    Ok(all)
}

fn after(ms: u64) -> Instant {
    let now = Instant::now();
    now.checked_add(Duration::from_millis(ms)).unwrap_or(now)
}

// Nothing is left half changed under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
