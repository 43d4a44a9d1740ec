//! The embedded default: a book in memory, and a file that holds what was answered.
//!
//! One thread takes the calls that wait, applies them to the book, writes the rows
//! that changed in one transaction, and answers when that is committed. The file is
//! in WAL mode with `synchronous = NORMAL`: a process that is killed loses nothing
//! that was answered, for a commit is with the system then; a machine that loses
//! power may lose the last ones, though never a part of one.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};
use weir_router_core::budget::{
    Ask, Book, Ceiling, Held, Mail, Progress, Row, Settle, Settled, Standing,
};
use weir_wire::ids::{RequestId, TenantId};

use super::{BudgetStore, OpenError, rows};
use crate::Unavailable;

/// So many calls may wait; more wait to be let in.
const QUEUE: usize = 4_096;

/// At most so many calls are in one transaction.
const BATCH_MAX: usize = 512;

/// At most so many holds are swept by one call.
const SWEPT_AT_ONCE: usize = 512;

/// How often what is old leaves the file.
const FORGET: Duration = Duration::from_secs(1);

/// What the tables look like.
const LAYOUT: i64 = 1;

/// A call that was applied: told whether it is durable, it answers.
type Answer = Box<dyn FnOnce(Result<(), Unavailable>) + Send>;

/// A call: applied to the book at a time, it gives its answer.
type Call = Box<dyn FnOnce(&mut Book, u64) -> Answer + Send>;

/// Keeps its books in a file of this process's alone. Clones share it; where the last
/// is dropped, it waits until what was asked is written.
#[derive(Debug, Clone)]
pub struct SqliteBudget(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    calls: Option<mpsc::Sender<Call>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl SqliteBudget {
    /// Opens or creates the file, and reads what it holds.
    ///
    /// # Errors
    /// Where another process has it open, where it can't be read, or is of a later
    /// version.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let connection = open(path)?;
        let failed = |source| OpenError::File {
            path: path.to_owned(),
            source,
        };
        let mut book = Book::default();
        rows::load(&connection, &mut book).map_err(failed)?;
        let clock = Clock::start(rows::seen_ms(&connection).map_err(failed)?);
        let (sender, calls) = mpsc::channel(QUEUE);
        let worker = Worker {
            connection,
            book,
            clock,
            unsaved: Vec::new(),
            forgot_at: Instant::now(),
        };
        let thread = std::thread::Builder::new()
            .name("weir-budget".to_owned())
            .spawn(move || worker.run(calls))
            .map_err(|e| OpenError::System { why: e.to_string() })?;
        Ok(Self(Arc::new(Handle {
            calls: Some(sender),
            thread: Mutex::new(Some(thread)),
        })))
    }

    async fn call<T: Send + 'static>(
        &self,
        apply: impl FnOnce(&mut Book, u64) -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (sender, answer) = oneshot::channel();
        let call: Call = Box::new(move |book, now_ms| {
            let result = apply(book, now_ms);
            // Who does not wait any more may ask again.
            Box::new(move |durable| drop(sender.send(durable.map(|()| result))))
        });
        let ended = || Unavailable {
            why: "its thread has ended".to_owned(),
        };
        let calls = self.0.calls.as_ref().ok_or_else(ended)?;
        calls.send(call).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.calls = None;
        let thread = self
            .thread
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        // It writes what waits, and gives the file up.
        if let Some(thread) = thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the budget store's thread has panicked");
        }
    }
}

impl BudgetStore for SqliteBudget {
    async fn hold(&self, ask: Ask) -> Result<(Held, Standing), Unavailable> {
        self.call(move |book, now_ms| book.hold(&ask, now_ms)).await
    }

    async fn raise(
        &self,
        tenant: &TenantId,
        id: RequestId,
        step: u32,
        by: u64,
        ceiling: Option<Ceiling>,
    ) -> Result<(Held, Standing), Unavailable> {
        let tenant = tenant.clone();
        let raise =
            move |book: &mut Book, now_ms| book.raise(&tenant, id, step, by, ceiling, now_ms);
        self.call(raise).await
    }

    async fn renew(
        &self,
        tenant: &TenantId,
        id: RequestId,
        life_ms: u64,
        progress: Progress,
    ) -> Result<bool, Unavailable> {
        let tenant = tenant.clone();
        let renew =
            move |book: &mut Book, now_ms| book.renew(&tenant, id, life_ms, progress, now_ms);
        self.call(renew).await
    }

    async fn settle(&self, settle: Settle) -> Result<(Settled, Standing), Unavailable> {
        let settle = move |book: &mut Book, now_ms| book.settle(&settle, now_ms);
        self.call(settle).await
    }

    async fn standing(&self, tenant: &TenantId, time_ms: i64) -> Result<Standing, Unavailable> {
        let tenant = tenant.clone();
        let standing = move |book: &mut Book, now_ms| book.standing(&tenant, time_ms, now_ms);
        self.call(standing).await
    }

    async fn sweep(&self) -> Result<usize, Unavailable> {
        self.call(|book, now_ms| book.sweep(SWEPT_AT_ONCE, now_ms))
            .await
    }

    async fn mail(&self, most: usize) -> Result<Vec<Mail>, Unavailable> {
        self.call(move |book, _| book.mail(most)).await
    }

    async fn acknowledge(&self, mail: &[Mail]) -> Result<Vec<bool>, Unavailable> {
        let mail = mail.to_vec();
        self.call(move |book, _| book.acknowledge(&mail)).await
    }
}

/// The thread and what it alone touches.
struct Worker {
    connection: Connection,
    book: Book,
    clock: Clock,
    /// Rows that could not be written; the book is ahead of the file by them.
    unsaved: Vec<Row>,
    forgot_at: Instant,
}

impl Worker {
    fn run(mut self, mut calls: mpsc::Receiver<Call>) {
        let mut answers = Vec::new();
        while let Some(call) = calls.blocking_recv() {
            let now_ms = self.clock.now_ms();
            answers.push(call(&mut self.book, now_ms));
            while answers.len() < BATCH_MAX
                && let Ok(call) = calls.try_recv()
            {
                answers.push(call(&mut self.book, now_ms));
            }
            self.unsaved.append(&mut self.book.take_changes());
            let durable = self.save(now_ms).map_err(|e| Unavailable {
                why: format!("the file of the budgets cannot be written: {e}"),
            });
            if let Err(error) = &durable {
                tracing::error!(%error, "what was asked will be written with the next calls");
            }
            for answer in answers.drain(..) {
                answer(durable.clone());
            }
        }
    }

    fn save(&mut self, now_ms: u64) -> rusqlite::Result<()> {
        let forgets = self.forgot_at.elapsed() >= FORGET;
        if self.unsaved.is_empty() && !forgets {
            return Ok(());
        }
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        for row in &self.unsaved {
            rows::write(&transaction, row)?;
        }
        rows::write_clock(&transaction, now_ms)?;
        if forgets {
            rows::forget(&transaction, now_ms)?;
        }
        transaction.commit()?;
        self.unsaved.clear();
        if forgets {
            self.forgot_at = Instant::now();
        }
        Ok(())
    }
}

/// Wall time at the start, and from then on a clock that never leaps.
struct Clock {
    start_ms: u64,
    start: Instant,
}

impl Clock {
    /// It does not go back behind what the store has seen.
    fn start(seen_ms: u64) -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        let wall_ms = wall.map_or(0, ms);
        Self {
            start_ms: wall_ms.max(seen_ms),
            start: Instant::now(),
        }
    }

    fn now_ms(&self) -> u64 {
        self.start_ms.saturating_add(ms(self.start.elapsed()))
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Opens a file for this process alone, with the tables in it.
fn open(path: &Path) -> Result<Connection, OpenError> {
    open_with(path, rows::TABLES, LAYOUT)
}

/// Opens or creates a file that no other process may open meanwhile.
pub(super) fn open_with(path: &Path, tables: &str, layout: i64) -> Result<Connection, OpenError> {
    let found = prepare(path, tables, layout).map_err(|source| {
        let path = PathBuf::from(path);
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::InUse { path },
            _ => OpenError::File { path, source },
        }
    })?;
    found.map_err(|found| OpenError::Layout {
        path: path.to_owned(),
        found,
        known: layout,
    })
}

/// The layout that was found, where it is none of ours.
fn prepare(path: &Path, tables: &str, layout: i64) -> rusqlite::Result<Result<Connection, i64>> {
    let mut connection = Connection::open(path)?;
    // Who was killed has left its lock already; who runs keeps it.
    connection.busy_timeout(Duration::from_millis(200))?;
    connection.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;",
    )?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > layout {
        return Ok(Err(found));
    }
    transaction.execute_batch(tables)?;
    transaction.pragma_update(None, "user_version", layout)?;
    transaction.commit()?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(Ok(connection))
}
