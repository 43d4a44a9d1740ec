//! The embedded stream as a [`Transport`]: one lane, whose numbers the ledger keeps.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::watch;
use weir_meter_core::ledger::book;

use super::{
    AppendError, Batch, Reader, Stream,
    transport::{Chunk, Event, Lane, LaneReader, StreamError, Transport, Waiting},
};
use crate::sql;

#[async_trait]
impl Transport for Stream {
    fn lanes(&self) -> Vec<Lane> {
        vec![Lane::Whole]
    }

    fn progress(&self, _lane: Lane) -> Option<String> {
        Some(book::STREAM.to_owned())
    }

    async fn append(&self, events: Vec<Event>) -> Result<(), AppendError> {
        let batch = Batch {
            events,
            ..Batch::default()
        };
        Self::append(self, batch).await
    }

    async fn reader(&self, lane: Lane, after: i64) -> Result<Box<dyn LaneReader>, StreamError> {
        if lane != Lane::Whole {
            let why = "the embedded stream has one lane, with every tenant's events";
            return Err(StreamError::Unavailable(why.to_owned()));
        }
        let reader = Self::reader(self).map_err(unavailable)?;
        Ok(Box::new(Whole {
            reader: Arc::new(Mutex::new(reader)),
            tail: self.tail.clone(),
            read: after,
        }))
    }

    async fn waiting(&self) -> Result<Vec<Waiting>, StreamError> {
        Ok(vec![Waiting {
            lane: Lane::Whole,
            entries: self.spooled().events(),
            oldest: None,
        }])
    }
}

/// Reads the one lane.
struct Whole {
    reader: Arc<Mutex<Reader>>,
    tail: watch::Receiver<i64>,
    /// The number of the last event that was read.
    read: i64,
}

impl Whole {
    /// Runs `work`, which asks SQLite, off the async threads.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Reader) -> sql::Result<T> + Send + 'static,
    ) -> Result<T, StreamError> {
        let reader = Arc::clone(&self.reader);
        let work = move || work(&reader.lock().unwrap_or_else(PoisonError::into_inner));
        let result = tokio::task::spawn_blocking(work).await;
        result.map_err(unavailable)?.map_err(unavailable)
    }
}

#[async_trait]
impl LaneReader for Whole {
    async fn read(&mut self, limit: usize, patience: Duration) -> Result<Chunk, StreamError> {
        let read = self.read;
        // Nobody appends any more where the stream is gone, and what is there can be read.
        let there_is_more = self.tail.wait_for(|last| *last > read);
        let _ = tokio::time::timeout(patience, there_is_more).await;
        let events = self.with(move |reader| reader.read(read, limit)).await?;
        self.read = events.last().map_or(read, |(number, _)| *number);
        Ok(Chunk {
            events,
            ..Chunk::default()
        })
    }

    async fn booked(&mut self) -> Result<(), StreamError> {
        let read = self.read;
        self.with(move |reader| reader.trim(read)).await
    }
}

fn unavailable(error: impl std::fmt::Display) -> StreamError {
    StreamError::Unavailable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::{super::body::Place, *};

    /// A file, which one process alone has open.
    struct Folder {
        stream: Arc<Stream>,
        _folder: tempfile::TempDir,
    }

    impl Folder {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self {
                stream: Arc::new(Stream::open(folder.path()).unwrap()),
                _folder: folder,
            }
        }
    }

    #[async_trait]
    impl Place for Folder {
        async fn transport(&self, _replica: &str) -> Arc<dyn Transport> {
            self.stream.clone()
        }
    }

    crate::stream::body::body_of_tests!(Some(Folder::new()));

    #[tokio::test]
    async fn there_is_no_lane_of_a_shard() {
        let place = Folder::new();
        let stream = place.transport("a").await;
        let lane = Lane::Of(crate::stream::body::shard(0));
        assert!(stream.reader(lane, 0).await.is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "a measurement"]
    async fn speed() {
        crate::stream::speed::measure("SQLite", &Folder::new()).await;
    }
}
