//! Events on their way to the aggregator: kept until they are acknowledged,
//! bounded in bytes.

use std::collections::VecDeque;

use prost::Message as _;
use weir_wire::proto::usage::{PublishRequest, UsageEvent};

/// The most events in one batch.
const BATCH_EVENTS: usize = 512;

/// The longest pause after failures, in milliseconds.
const PAUSE_MAX_MS: u64 = 10_000;

/// One worker's outbox. One batch is under way at a time.
#[derive(Debug)]
pub struct Outbox {
    /// Each event as it stands in a batch, so that it is encoded once.
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    max_waiting_bytes: usize,
    /// How many of the first are under way.
    under_way: usize,
    failures: u32,
    not_before_ms: u64,
}

impl Outbox {
    /// An empty one that holds up to `max_waiting_bytes` of encoded events.
    #[must_use]
    pub fn new(max_waiting_bytes: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            max_waiting_bytes,
            under_way: 0,
            failures: 0,
            not_before_ms: 0,
        }
    }

    /// Takes an event.
    ///
    /// # Errors
    /// The event itself where it would pass the bound: the caller says so.
    pub fn push(&mut self, event: UsageEvent) -> Result<(), Box<UsageEvent>> {
        // A batch is a repeated field: batches of one, one after the other, are
        // a batch of all (Protocol Buffers encoding, "Last One Wins").
        let mut batch = PublishRequest {
            events: vec![event],
        };
        let encoded = batch.encode_to_vec();
        let bytes = self.waiting_bytes.saturating_add(encoded.len());
        if bytes > self.max_waiting_bytes {
            return Err(Box::new(batch.events.pop().unwrap_or_default()));
        }
        self.waiting_bytes = bytes;
        self.waiting.push_back(encoded);
        Ok(())
    }

    /// The body of the next batch, where one is due: none is under way, there
    /// are events, and the pause after a failure is over.
    pub fn next_batch(&mut self, now_ms: u64) -> Option<Vec<u8>> {
        if self.under_way > 0 || self.waiting.is_empty() || now_ms < self.not_before_ms {
            return None;
        }
        self.under_way = self.waiting.len().min(BATCH_EVENTS);
        let mut batch = Vec::new();
        for event in self.waiting.iter().take(self.under_way) {
            batch.extend_from_slice(event);
        }
        Some(batch)
    }

    /// The batch under way is durable at the aggregator. Says how many events.
    pub fn acknowledge(&mut self) -> usize {
        let count = std::mem::take(&mut self.under_way);
        for event in self.waiting.drain(..count.min(self.waiting.len())) {
            self.waiting_bytes = self.waiting_bytes.saturating_sub(event.len());
        }
        self.failures = 0;
        self.not_before_ms = 0;
        count
    }

    /// The batch under way failed: it will be sent again, with the same event
    /// ids, after a pause that doubles.
    pub fn fail(&mut self, now_ms: u64) {
        self.under_way = 0;
        let pause_ms = 100_u64
            .checked_shl(self.failures.min(16))
            .unwrap_or(PAUSE_MAX_MS)
            .min(PAUSE_MAX_MS);
        self.failures = self.failures.saturating_add(1);
        self.not_before_ms = now_ms.saturating_add(pause_ms);
    }

    /// Whether every event was acknowledged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn event(n: usize) -> UsageEvent {
        UsageEvent {
            event_id: format!("{n}"),
            ..UsageEvent::default()
        }
    }

    fn ids(body: &[u8]) -> Vec<String> {
        let request = PublishRequest::decode(body).unwrap();
        request.events.into_iter().map(|e| e.event_id).collect()
    }

    #[test]
    fn a_batch_is_sent_until_it_is_acknowledged() {
        let mut outbox = Outbox::new(1_000);
        outbox.push(event(1)).unwrap();
        assert_eq!(ids(&outbox.next_batch(0).unwrap()), ["1"]);
        outbox.push(event(2)).unwrap();
        assert_eq!(outbox.next_batch(0), None, "one is under way");
        outbox.fail(0);
        assert_eq!(outbox.next_batch(99), None, "the pause is not over");
        assert_eq!(ids(&outbox.next_batch(100).unwrap()), ["1", "2"]);
        assert_eq!(outbox.acknowledge(), 2);
        assert!(outbox.is_empty());
        assert_eq!(outbox.next_batch(200), None);
    }

    #[test]
    fn the_pause_doubles_up_to_its_bound() {
        let mut outbox = Outbox::new(1_000);
        outbox.push(event(1)).unwrap();
        let mut now = 0;
        for pause in [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000] {
            outbox.next_batch(now).unwrap();
            outbox.fail(now);
            assert_eq!(outbox.next_batch(now + pause - 1), None, "{pause}");
            now += pause;
        }
    }

    #[test]
    fn the_bound_is_on_bytes_and_gives_the_event_back() {
        // Two bytes more each: the field's tag and the event's length.
        let mut outbox = Outbox::new((event(1).encoded_len() + 2) * 2);
        outbox.push(event(1)).unwrap();
        outbox.push(event(2)).unwrap();
        assert_eq!(outbox.push(event(3)).unwrap_err().event_id, "3");
        outbox.next_batch(0).unwrap();
        outbox.acknowledge();
        outbox.push(event(3)).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_event_is_acknowledged_once_and_in_order(
            steps in prop::collection::vec(0u8..4, 1..200),
        ) {
            let mut outbox = Outbox::new(1_000_000);
            let (mut pushed, mut acknowledged, mut now) = (0usize, Vec::new(), 0u64);
            let mut sent: Option<Vec<String>> = None;
            for step in steps {
                match step {
                    0 | 1 => { outbox.push(event(pushed)).unwrap(); pushed += 1; }
                    2 => if let Some(ids) = sent.take() { outbox.acknowledge(); acknowledged.extend(ids); },
                    _ => if sent.take().is_some() { outbox.fail(now); },
                }
                now += 20_000;
                if sent.is_none() {
                    sent = outbox.next_batch(now).map(|b| ids(&b));
                }
            }
            while let Some(ids) = sent.take() {
                outbox.acknowledge();
                acknowledged.extend(ids);
                sent = outbox.next_batch(now).map(|b| self::ids(&b));
            }
            let expected: Vec<String> = (0..pushed).map(|n| n.to_string()).collect();
            prop_assert_eq!(acknowledged, expected);
        }
    }
}
