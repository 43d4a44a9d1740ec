//! A database and a Redis that are there before a run and after it: in both the run has a
//! place of its own.

use std::path::Path;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use redis::AsyncCommands as _;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use url::Url;

use crate::secrets;

/// Where an aggregator's configuration reads the address of its database.
pub const DATABASE_VARIABLE: &str = "DATABASE_URL";

/// Where it reads that of the Redis with its stream.
pub const REDIS_VARIABLE: &str = "REDIS_URL";

/// What aggregators share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The database, `postgres://…`, with the schema as its search path.
    pub database: String,
    /// The stream; each aggregator has its own in its folder where absent.
    pub stream: Option<SharedStream>,
}

/// A stream in Redis.
#[derive(Debug, Clone)]
pub struct SharedStream {
    /// `redis://…`
    pub url: String,
    /// What the names of its keys begin with.
    pub prefix: String,
}

/// To whom a place belongs.
#[derive(Debug, Clone, Copy)]
pub enum Owner<'a> {
    /// The runs of a folder, each of which begins with an empty place, as with an empty
    /// folder: the fake Stripe of the one before is gone, and with it what it was told.
    Folder(&'a Path),
    /// A real account of Stripe's, by a name; what is there is kept.
    Account(&'a str),
}

impl Shared {
    /// Makes the owner's place in that database and, where it is given, that Redis.
    ///
    /// # Errors
    /// Where one can't be reached, or refuses.
    pub fn prepare(database: &str, redis: Option<&str>, owner: Owner<'_>) -> anyhow::Result<Self> {
        let name = match owner {
            Owner::Folder(folder) => {
                let path = std::path::absolute(folder)?;
                let hash = secrets::sha256_hex(&path.to_string_lossy());
                format!("weir_run_{}", hash.get(..12).unwrap_or_default())
            }
            Owner::Account(account) => format!("weir_stripe_{account}"),
        };
        let is_new = matches!(owner, Owner::Folder(_));
        // For addresses with TLS; whoever comes second finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let schema = make_schema(database, &name, is_new);
        runtime.block_on(schema).context(DATABASE_VARIABLE)?;
        let stream = redis.map(|url| SharedStream {
            url: url.to_owned(),
            prefix: name.replace('_', ":"),
        });
        if let (Some(stream), true) = (&stream, is_new) {
            runtime.block_on(remove(stream)).context(REDIS_VARIABLE)?;
        }
        Ok(Self {
            database: within(database, &name)?,
            stream,
        })
    }

    /// What an aggregator's configuration says of it.
    #[must_use]
    pub fn members(&self) -> Value {
        let mut members = json!({"ledger": {"postgres": {"url_env": DATABASE_VARIABLE}}});
        if let Some(stream) = &self.stream {
            members["stream"] = json!({
                "redis": {"url_env": REDIS_VARIABLE, "prefix": stream.prefix},
            });
        }
        members
    }

    /// The variables that those name.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, &str)> {
        let mut variables = vec![(DATABASE_VARIABLE, self.database.as_str())];
        variables.extend(
            self.stream
                .as_ref()
                .map(|s| (REDIS_VARIABLE, s.url.as_str())),
        );
        variables
    }
}

/// The database's address, with that schema as what names without one mean.
fn within(database: &str, schema: &str) -> anyhow::Result<String> {
    let mut url = Url::parse(database).context(DATABASE_VARIABLE)?;
    // Not by query_pairs_mut, whose + is no blank to libpq.
    let option = format!("options=-c%20search_path%3D{schema}");
    let query = match url.query() {
        Some(query) if !query.is_empty() => format!("{query}&{option}"),
        _ => option,
    };
    url.set_query(Some(&query));
    Ok(url.into())
}

async fn make_schema(database: &str, name: &str, is_new: bool) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(database).await?;
    if is_new {
        let sql = format!("DROP SCHEMA IF EXISTS {name} CASCADE");
        sqlx::raw_sql(&sql).execute(&mut connection).await?;
    }
    let sql = format!("CREATE SCHEMA IF NOT EXISTS {name}");
    sqlx::raw_sql(&sql).execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

/// Removes the keys of a stream.
async fn remove(stream: &SharedStream) -> anyhow::Result<()> {
    let client = redis::Client::open(stream.url.as_str())?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    // The names are in braces, so that a cluster keeps those of a shard together.
    let pattern = format!("{{{}:*", stream.prefix);
    let keys: Vec<String> = {
        let mut looking = connection.clone();
        let found = looking.scan_match(pattern).await?;
        found.filter_map(async |key| key.ok()).collect().await
    };
    for key in keys {
        let _: () = connection.unlink(key).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{postgres::Postgres, redis::Redis};

    async fn set(url: &str, keys: [&str; 2]) {
        let client = redis::Client::open(url).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        for key in keys {
            let _: () = connection.set(key, 1).await.unwrap();
        }
    }

    async fn keys(url: &str) -> Vec<String> {
        let client = redis::Client::open(url).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        connection.keys("*").await.unwrap()
    }

    #[test]
    fn a_folders_runs_begin_with_nothing_and_an_accounts_go_on() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let postgres = Postgres::start(folder.path()).unwrap();
        let redis = Redis::start(folder.path()).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        for (owner, left) in [
            (Owner::Folder(folder.path()), 0),
            (Owner::Account("0123456789ab"), 1),
        ] {
            let prepare = || Shared::prepare(&postgres.url(), Some(&redis.url()), owner).unwrap();
            let shared = prepare();
            let table = async |sql: &str| {
                let mut connection = PgConnection::connect(&shared.database).await.unwrap();
                sqlx::raw_sql(sql).execute(&mut connection).await.map(drop)
            };
            runtime
                .block_on(table("CREATE TABLE t (n BIGINT)"))
                .unwrap();
            let prefix = &shared.stream.as_ref().unwrap().prefix;
            let key = format!("{{{prefix}:3}}:events");
            runtime.block_on(set(&redis.url(), [&key, "another"]));
            prepare();
            let found = runtime.block_on(table("SELECT * FROM t"));
            assert_eq!(usize::from(found.is_ok()), left, "{owner:?}");
            let found = runtime.block_on(keys(&redis.url()));
            assert_eq!(found.iter().filter(|k| **k == key).count(), left);
            assert!(found.iter().any(|k| k == "another"));
        }
    }

    #[test]
    fn a_schema_goes_beside_what_the_address_says() {
        for (database, expected) in [
            (
                "postgres://u:p@h:1/d",
                "postgres://u:p@h:1/d?options=-c%20search_path%3Dx",
            ),
            (
                "postgres://h/d?sslmode=require",
                "postgres://h/d?sslmode=require&options=-c%20search_path%3Dx",
            ),
        ] {
            assert_eq!(within(database, "x").unwrap(), expected);
        }
        assert!(within("nowhere", "x").is_err());
    }
}
