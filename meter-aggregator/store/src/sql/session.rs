//! One connection to Postgres, for callers that wait for it.
//!
//! A connection that broke is opened anew by the next transaction, or the next statement
//! outside of one; what was under way fails.

use std::{
    future::Future,
    str::FromStr as _,
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, TryFutureExt as _, future::BoxFuture};
use sqlx::{
    ConnectOptions as _, Connection as _, Executor as _, PgConnection,
    postgres::{PgArguments, PgConnectOptions, PgRow},
};
use tokio::runtime::{Handle, Runtime, RuntimeFlavor};

use super::{Error, Result, error::is_broken};

/// How long is waited for a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// How long is waited for an answer: a little longer than Postgres works on it, so that it
/// says itself what was too long.
const ANSWER: Duration = Duration::from_secs(35);

/// How long is waited for an answer of those who read at length.
const ANSWER_AT_LENGTH: Duration = Duration::from_secs(900);

/// How long is waited for what was undone: locks go with the connection, too.
const UNDO: Duration = Duration::from_secs(5);

/// Statements that a connection keeps: each day of requests has its own.
const STATEMENTS_MAX: usize = 256;

/// What each connection is set to. A process that stops in the middle of a transaction
/// loses it with its locks; a host that is gone is noticed. Plans are made for the sizes
/// that there are: tables grow faster than Postgres counts them.
const SETTINGS: &str = "SET idle_in_transaction_session_timeout = '10s';
    SET statement_timeout = '30s';
    SET lock_timeout = '10s';
    SET synchronous_commit = on;
    SET plan_cache_mode = force_custom_plan;
    SET tcp_keepalives_idle = 30;
    SET tcp_keepalives_interval = 10;
    SET tcp_keepalives_count = 3;
    SET tcp_user_timeout = '30s';
    SET client_min_messages = warning;";

/// A connection, and what drives it.
pub struct Session {
    /// Runs on the caller's thread, while that waits.
    runtime: Option<Runtime>,
    options: PgConnectOptions,
    connection: Option<PgConnection>,
    transaction: State,
    answer: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// There is none.
    None,
    /// It goes well.
    Open,
    /// A part of it failed: Postgres would take a commit, and undo all of it.
    Failed,
}

/// What Postgres is asked.
enum Call<'q> {
    /// A statement's rows.
    Rows(&'q str, PgArguments),
    /// A statement that changes rows.
    Change(&'q str, PgArguments),
    /// Statements without parameters.
    Batch(&'q str),
}

/// What it says.
#[derive(Default)]
struct Answer {
    rows: Vec<PgRow>,
    changed: u64,
}

impl<'q> Call<'q> {
    fn make(self, connection: &'q mut PgConnection) -> BoxFuture<'q, sqlx::Result<Answer>> {
        let rows = |rows: sqlx::Result<Vec<PgRow>>| rows.map(|rows| Answer { rows, changed: 0 });
        match self {
            Self::Rows(sql, arguments) => {
                let query = sqlx::query_with(sql, arguments);
                Box::pin(connection.fetch_all(query).map(rows))
            }
            Self::Batch(sql) => Box::pin(connection.fetch_all(sqlx::raw_sql(sql)).map(rows)),
            Self::Change(sql, arguments) => {
                let query = sqlx::query_with(sql, arguments);
                let done = connection.execute(query);
                Box::pin(done.map_ok(|done| Answer {
                    rows: Vec::new(),
                    changed: done.rows_affected(),
                }))
            }
        }
    }
}

impl Session {
    /// Of a URL (`postgres://...`), not yet connected.
    ///
    /// # Errors
    /// What is wrong with the URL, without it.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|error| anyhow::anyhow!("the URL of postgres is none: {error}"))?;
        Ok(Self {
            runtime: Some(
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?,
            ),
            options: options
                .application_name("weir-meter-aggregator")
                .statement_cache_capacity(STATEMENTS_MAX)
                .disable_statement_logging(),
            connection: None,
            transaction: State::None,
            answer: ANSWER,
        })
    }

    /// Says whether it reads at length from now on: then nothing is too long. It must be
    /// in no transaction.
    pub fn take_time(&mut self, at_length: bool) {
        let answer = match at_length {
            true => ANSWER_AT_LENGTH,
            false => ANSWER,
        };
        if std::mem::replace(&mut self.answer, answer) != answer {
            // The next one is set to it.
            self.connection = None;
        }
    }

    /// Every row that a statement gives.
    pub fn query(&mut self, sql: &str, arguments: PgArguments) -> Result<Vec<PgRow>> {
        Ok(self.call(Call::Rows(sql, arguments), self.answer)?.rows)
    }

    /// Runs a statement; says how many rows it changed.
    pub fn execute(&mut self, sql: &str, arguments: PgArguments) -> Result<u64> {
        Ok(self
            .call(Call::Change(sql, arguments), self.answer)?
            .changed)
    }

    /// Runs statements without parameters.
    pub fn batch(&mut self, sql: &str) -> Result<()> {
        self.call(Call::Batch(sql), self.answer).map(|_| ())
    }

    /// Begins a transaction by these statements, of which the first is `BEGIN`; gives their
    /// rows, with texts in the columns.
    pub fn begin(&mut self, sql: &str) -> Result<Vec<PgRow>> {
        if self.transaction != State::None {
            self.roll_back();
        }
        match self.call(Call::Batch(sql), self.answer) {
            Ok(answer) => {
                self.transaction = State::Open;
                Ok(answer.rows)
            }
            Err(error) => {
                self.transaction = State::Failed;
                self.roll_back();
                Err(error)
            }
        }
    }

    /// Commits. Where that fails, nobody knows whether it did.
    pub fn commit(&mut self) -> Result<()> {
        match self.transaction {
            State::Open => self.batch("COMMIT")?,
            State::Failed => return Err(Error::Failed),
            State::None => return Err(Error::Misused("there is no transaction to commit")),
        }
        self.transaction = State::None;
        Ok(())
    }

    /// Undoes a transaction.
    pub fn roll_back(&mut self) {
        let was = std::mem::replace(&mut self.transaction, State::None);
        if was == State::None || self.connection.is_none() {
            return;
        }
        let undone = self.call(Call::Batch("ROLLBACK"), UNDO);
        if undone.is_err() {
            self.connection = None;
        }
    }

    /// Makes one call, within so long.
    fn call(&mut self, call: Call<'_>, limit: Duration) -> Result<Answer> {
        if self.connection.is_none() {
            if self.transaction != State::None {
                return Err(Error::Lost);
            }
            self.connect()?;
        }
        let (Some(runtime), Some(mut connection)) = (&self.runtime, self.connection.take()) else {
            return Err(Error::Lost);
        };
        // Where the time is up it is in the middle of an answer, and goes.
        let made = call.make(&mut connection);
        let answer = wait(runtime, async { tokio::time::timeout(limit, made).await });
        let failure = match answer {
            Ok(Ok(done)) => {
                self.connection = Some(connection);
                return Ok(done);
            }
            Ok(Err(error)) => {
                if !is_broken(&error) {
                    self.connection = Some(connection);
                } else {
                    tracing::warn!(%error, "the connection to postgres broke");
                    wait(runtime, async move { drop(connection) });
                }
                Error::Postgres(error)
            }
            Err(_) => {
                wait(runtime, async move { drop(connection) });
                Error::TimedOut(limit.as_secs())
            }
        };
        if self.transaction == State::Open {
            self.transaction = State::Failed;
        }
        Err(failure)
    }

    fn connect(&mut self) -> Result<()> {
        let Some(runtime) = &self.runtime else {
            return Err(Error::Lost);
        };
        let (options, begun) = (&self.options, Instant::now());
        let at_length = match self.answer == ANSWER_AT_LENGTH {
            true => "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = '5min'",
            false => "",
        };
        let connected = wait(runtime, async {
            tokio::time::timeout(CONNECT, async {
                let mut connection = PgConnection::connect_with(options).await?;
                connection.execute(sqlx::raw_sql(SETTINGS)).await?;
                connection.execute(sqlx::raw_sql(at_length)).await?;
                Ok::<_, sqlx::Error>(connection)
            })
            .await
        });
        let connection = connected.map_err(|_| Error::TimedOut(CONNECT.as_secs()))??;
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(took_ms, "connected to postgres");
        self.connection = Some(connection);
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let connection = self.connection.take();
        if let Some(runtime) = self.runtime.take() {
            wait(&runtime, async move {
                if let Some(connection) = connection {
                    let _ = tokio::time::timeout(Duration::from_secs(1), connection.close()).await;
                }
            });
            // To wait for its threads is not allowed everywhere.
            runtime.shutdown_background();
        }
    }
}

/// Waits for a future on this thread, wherever the caller runs: on a thread of its own, on
/// a worker of a runtime, which then lets others take its place, or within a runtime of one
/// thread, which stands still meanwhile.
fn wait<T: Send>(runtime: &Runtime, future: impl Future<Output = T> + Send) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Err(_) => runtime.block_on(future),
        Ok(RuntimeFlavor::CurrentThread) => {
            std::thread::scope(
                |scope| match scope.spawn(|| runtime.block_on(future)).join() {
                    Ok(done) => done,
                    Err(panic) => std::panic::resume_unwind(panic),
                },
            )
        }
        Ok(_) => tokio::task::block_in_place(|| runtime.block_on(future)),
    }
}
