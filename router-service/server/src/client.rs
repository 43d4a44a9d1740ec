//! The client's end of a stream: chunks for it, and when to read no further.

use std::time::Duration;

use bytes::Bytes;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::provider::SILENCE_MAX;

/// How long after its error event a broken stream is reset.
const ABORT_AFTER: Duration = Duration::from_millis(100);

/// How long a client that reads no more is waited for.
const ABORT_TIME: Duration = Duration::from_secs(10);

/// What goes to a client, piece by piece.
pub type Chunks = mpsc::Sender<Result<Bytes, std::io::Error>>;

/// What comes next from the provider.
pub enum Next {
    Chunk(Bytes),
    /// Its answer is whole.
    End,
    /// Its answer broke off, or it fell silent.
    Broken,
    /// The client is gone, and the time to read on is over.
    Drained,
    /// The time that the plan has for it is over.
    Late,
    /// The router stops.
    Stopping,
}

/// How long a stream is read.
#[derive(Debug, Clone)]
pub struct Patience {
    /// The time of the plan ends.
    pub deadline: Instant,
    /// After its client is gone it is read on for so long.
    pub drain: Duration,
    /// It is never read after that.
    pub stopping: CancellationToken,
}

/// The client's end of a stream. After it is gone the provider is read on for
/// a while, to learn what the request used.
pub struct Client {
    chunks: Chunks,
    gone: bool,
    drain_until: Option<Instant>,
    patience: Patience,
}

impl Client {
    /// A client that takes `chunks`, or is gone already.
    pub fn new(chunks: Chunks, gone: bool, patience: Patience) -> Self {
        Self {
            chunks,
            gone,
            drain_until: None,
            patience,
        }
    }

    /// Whether it went away.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// The provider's next bytes.
    pub async fn next(&mut self, response: &mut reqwest::Response) -> Next {
        let silent_at = in_future(SILENCE_MAX);
        loop {
            if self.gone && self.drain_until.is_none() {
                self.drain_until = Some(in_future(self.patience.drain));
            }
            let until = self
                .drain_until
                .unwrap_or(silent_at)
                .min(self.patience.deadline);
            tokio::select! {
                biased;
                () = self.patience.stopping.cancelled() => return Next::Stopping,
                chunk = response.chunk() => return match chunk {
                    Ok(Some(bytes)) => Next::Chunk(bytes),
                    Ok(None) => Next::End,
                    Err(_) => Next::Broken,
                },
                () = self.chunks.closed(), if !self.gone => self.gone = true,
                () = tokio::time::sleep_until(until) => return match self.gone {
                    true => Next::Drained,
                    false if until == self.patience.deadline => Next::Late,
                    false => Next::Broken,
                },
            }
        }
    }

    /// Hands on bytes; waits for a client that is slow, but not past the stop or
    /// the plan's time.
    pub async fn pass(&mut self, bytes: Vec<u8>) {
        if self.gone || bytes.is_empty() {
            return;
        }
        tokio::select! {
            biased;
            sent = self.chunks.send(Ok(bytes.into())) => self.gone = sent.is_err(),
            () = self.patience.stopping.cancelled() => {}
            () = tokio::time::sleep_until(self.patience.deadline) => {}
        }
    }

    /// Ends the stream as one that failed, never as one that is complete. A client that
    /// reads no more is waited for for a while; its connection is reset then.
    pub async fn abort(self, event: Vec<u8>) {
        // What the request used is settled after that, so it ends.
        let _ = tokio::time::timeout(ABORT_TIME, self.tell_and_reset(event)).await;
    }

    async fn tell_and_reset(mut self, event: Vec<u8>) {
        if !self.gone && !event.is_empty() {
            // Also past the deadline, which may be the reason.
            tokio::select! {
                biased;
                sent = self.chunks.send(Ok(event.into())) => self.gone = sent.is_err(),
                () = self.patience.stopping.cancelled() => {}
            }
        }
        if !self.gone {
            // The reset discards what is still queued on the way: the error
            // event gets a moment to leave.
            tokio::time::sleep(ABORT_AFTER).await;
            let error = std::io::Error::other("the answer broke off");
            let _ = self.chunks.send(Err(error)).await;
        }
    }
}

/// So far from now.
pub fn in_future(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time).unwrap_or(now)
}
