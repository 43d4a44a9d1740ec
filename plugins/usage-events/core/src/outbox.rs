//! Events on their way to the aggregator: kept until they are acknowledged,
//! bounded in bytes.

use std::collections::VecDeque;

/// The most events in one batch.
const BATCH_EVENTS: usize = 512;

/// The longest pause after failures, in milliseconds.
const PAUSE_MAX_MS: u64 = 10_000;

/// The tag of `PublishRequest.events`: field 1, with a length (Protocol Buffers
/// encoding, "Message Structure").
const EVENTS_TAG: u8 = 0x0a;

/// One worker's outbox. One batch is under way at a time.
#[derive(Debug)]
pub struct Outbox {
    /// Each event as its protobuf.
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    max_waiting_bytes: usize,
    batch_bytes: usize,
    /// How many of the first are under way.
    under_way: usize,
    /// How many of the first are in a batch that was refused and not yet taken in
    /// parts, and how many of them are sent at once.
    suspects: usize,
    suspects_at_once: usize,
    failures: u32,
    not_before_ms: u64,
}

/// What came of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// So many events are durable at the aggregator.
    pub acknowledged: usize,
    /// An event that it refused alone, and would refuse again: no longer kept.
    pub refused: Option<Vec<u8>>,
}

impl Outbox {
    /// An empty one that holds up to `max_waiting_bytes` of encoded events, and
    /// gives batches of up to `batch_bytes`.
    #[must_use]
    pub fn new(max_waiting_bytes: usize, batch_bytes: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            max_waiting_bytes,
            batch_bytes,
            under_way: 0,
            suspects: 0,
            suspects_at_once: 0,
            failures: 0,
            not_before_ms: 0,
        }
    }

    /// Takes an event, given as its protobuf.
    ///
    /// # Errors
    /// The event itself where it would pass the bound: the caller says so.
    pub fn push(&mut self, event: Vec<u8>) -> Result<(), Vec<u8>> {
        let bytes = self.waiting_bytes.saturating_add(event.len());
        if bytes > self.max_waiting_bytes {
            return Err(event);
        }
        self.waiting_bytes = bytes;
        self.waiting.push_back(event);
        Ok(())
    }

    /// Whether as much waits as one batch takes, and may leave before the next tick.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.under_way == 0
            && self.not_before_ms == 0
            && (self.waiting_bytes >= self.batch_bytes || self.waiting.len() >= BATCH_EVENTS)
    }

    /// The body of the next batch, where one is due: none is under way, there
    /// are events, and the pause after a failure is over.
    pub fn next_batch(&mut self, now_ms: u64) -> Option<Vec<u8>> {
        if self.under_way > 0 || self.waiting.is_empty() || now_ms < self.not_before_ms {
            return None;
        }
        let most = match self.suspects {
            0 => BATCH_EVENTS,
            _ => self.suspects_at_once.min(self.suspects),
        };
        let mut batch = Vec::new();
        for event in self.waiting.iter().take(most) {
            let bytes = batch.len().saturating_add(event.len());
            if self.under_way > 0 && bytes > self.batch_bytes {
                break;
            }
            batch.push(EVENTS_TAG);
            // A Vec has room for any number.
            let _ = prost::encode_length_delimiter(event.len(), &mut batch);
            batch.extend_from_slice(event);
            self.under_way = self.under_way.saturating_add(1);
        }
        Some(batch)
    }

    /// The batch under way came to `status`, or to none. What is not acknowledged
    /// will be sent again, with the same event ids.
    pub fn settle(&mut self, status: Option<u32>, now_ms: u64) -> Settled {
        let count = std::mem::take(&mut self.under_way);
        match status {
            Some(200..300) => {
                for _ in 0..count {
                    self.pop();
                }
                self.suspects = self.suspects.saturating_sub(count);
                self.clear_pause();
                Settled {
                    acknowledged: count,
                    refused: None,
                }
            }
            // The same again would be answered the same: of many events each half
            // may fare better, and one alone never will.
            Some(400 | 413) => {
                self.clear_pause();
                if count > 1 {
                    self.suspects = count;
                    self.suspects_at_once = count.div_ceil(2);
                    return Settled::default();
                }
                self.suspects = self.suspects.saturating_sub(count);
                Settled {
                    acknowledged: 0,
                    refused: if count == 1 { self.pop() } else { None },
                }
            }
            _ => {
                self.pause(now_ms);
                Settled::default()
            }
        }
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        let event = self.waiting.pop_front()?;
        self.waiting_bytes = self.waiting_bytes.saturating_sub(event.len());
        Some(event)
    }

    fn clear_pause(&mut self) {
        self.failures = 0;
        self.not_before_ms = 0;
    }

    /// Each pause is twice the one before.
    fn pause(&mut self, now_ms: u64) {
        let pause_ms = 100_u64
            .checked_shl(self.failures.min(16))
            .unwrap_or(PAUSE_MAX_MS)
            .min(PAUSE_MAX_MS);
        self.failures = self.failures.saturating_add(1);
        self.not_before_ms = now_ms.saturating_add(pause_ms);
    }

    /// Bytes of events that are not acknowledged.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Whether every event was acknowledged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes out all events that are not under way, in order, for another outbox.
    pub fn take_unsent(&mut self) -> Vec<Vec<u8>> {
        let from = self.under_way.min(self.waiting.len());
        let unsent: Vec<Vec<u8>> = self.waiting.drain(from..).collect();
        let bytes: usize = unsent.iter().map(Vec::len).sum();
        self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes);
        self.suspects = self.suspects.min(from);
        unsent
    }

    /// All that is not acknowledged, in order.
    pub fn waiting(&self) -> impl Iterator<Item = &[u8]> {
        self.waiting.iter().map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests;
