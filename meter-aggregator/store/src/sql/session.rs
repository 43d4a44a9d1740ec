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

/// How a transaction begins that writes, whatever the role or the database has as its
/// default: each statement sees what was committed before it. One that waited for its
/// shard's row must not go on with what it saw before it waited.
pub const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// What the URL may say beside where the server is, as `sqlx` has it; any setting of the
/// server's is said by `options[name]`, too.
const PARAMETERS: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

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
        check_parameters(url)?;
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

/// Refuses what `sqlx` does not know: it would say so in the log with the value, which may
/// be a password under a name that is misspelt.
fn check_parameters(url: &str) -> anyhow::Result<()> {
    let schemes = ["postgres://", "postgresql://"];
    anyhow::ensure!(
        schemes.iter().any(|scheme| url.starts_with(scheme)),
        "the URL of postgres must begin with postgres:// or postgresql://"
    );
    let url = url.split_once('#').map_or(url, |(before, _)| before);
    let Some((_, query)) = url.split_once('?') else {
        return Ok(());
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        let name = name.replace("%5B", "[").replace("%5D", "]");
        let option = name.strip_prefix("options[");
        if PARAMETERS.contains(&&*name) || option.is_some_and(|o| o.ends_with(']')) {
            continue;
        }
        // Behind a password with a question mark it is none: what is behind is not shown.
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let is_shown = !name.is_empty() && name.chars().all(is_name) && !query.contains('@');
        match is_shown {
            true => anyhow::bail!(
                "the URL of postgres has a parameter that is not known: {name}; known are {} \
                 and options[...]",
                PARAMETERS.join(", ")
            ),
            false => anyhow::bail!(
                "the URL of postgres has a parameter that is not known; a question mark in a \
                 user or password is written %3F"
            ),
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_that_are_not_known_are_refused_without_their_values() {
        let check = |query: &str, shown: Option<&str>| {
            let error = Session::new(&format!("postgres://weir@db/x{query}"));
            let said = format!("{:#}", error.err().expect(query));
            assert!(!said.contains("sesame"), "{said}");
            assert!(said.contains("parameter that is not known"), "{said}");
            let name = shown.map(|name| said.contains(&format!("known: {name};")));
            assert!(name.unwrap_or(said.contains("%3F")), "{said}");
        };
        check("?passwrd=sesame", Some("passwrd"));
        check("?sslmode=require&passwrd=sesame#x", Some("passwrd"));
        check("?channel_binding=require", Some("channel_binding"));
        check("?=sesame", None);
        check("?ssl%6Dode=sesame", None);
        check("?options[sesame=x", None);
        // A password with a question mark.
        check("?sesame@db/x", None);
        check("?sesame=x@db/x", None);
    }

    #[test]
    fn all_parameters_that_are_known_are_taken() {
        for name in PARAMETERS {
            let value = match name {
                "port" | "statement-cache-capacity" => "7",
                "sslmode" | "ssl-mode" => "require",
                "hostaddr" => "127.0.0.1",
                _ => "x",
            };
            let url = format!("postgres://weir@db/x?&{name}={value}#x?y=z");
            assert!(Session::new(&url).is_ok(), "{name}");
        }
        for url in ["mysql://weir:hush@db/x", "weir:hush", "postgres:/hush"] {
            let error = Session::new(url).err().unwrap().to_string();
            assert!(
                error.contains("postgres://") && !error.contains("hush"),
                "{error}"
            );
        }
        for query in ["", "?", "?options[a]=b&options%5Bc%5D=d"] {
            let url = format!("postgres://weir:a@db/x{query}");
            assert!(Session::new(&url).is_ok(), "{query}");
        }
    }
}
