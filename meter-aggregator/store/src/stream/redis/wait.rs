//! How long an answer may take.

use std::{future::Future, time::Duration};

use redis::{ErrorKind, RedisResult};

/// The longest that a call waits at the server.
pub(super) const BLOCK_MAX: Duration = Duration::from_secs(5);

/// An answer within that time, or an error that says that there was none.
pub(super) async fn within<T>(
    most: Duration,
    answer: impl Future<Output = RedisResult<T>>,
) -> RedisResult<T> {
    tokio::time::timeout(most, answer)
        .await
        .unwrap_or_else(|_| Err((ErrorKind::Io, "no answer in time").into()))
}
