//! From events to entries: those of a shard together, within bounds.

use std::{collections::BTreeMap, mem};

use redis::Pipeline;
use weir_meter_core::lease::Shard;

use super::entry::FIELD;
use crate::stream::transport::Event;

/// The most events of an entry.
pub(super) const ENTRY_EVENTS_MAX: usize = 500;

/// The most bytes of an entry's events; one event may be larger, and is alone then.
pub(super) const ENTRY_BYTES_MAX: usize = 1 << 20;

/// The entries of each shard, in the events' order.
pub(super) fn entries(events: Vec<Event>) -> BTreeMap<Shard, Vec<Vec<String>>> {
    let mut shards: BTreeMap<Shard, Growing> = BTreeMap::new();
    for event in events {
        shards.entry(event.shard).or_default().push(event.text);
    }
    let done = shards.into_iter();
    done.map(|(shard, growing)| (shard, growing.done()))
        .collect()
}

#[derive(Default)]
struct Growing {
    full: Vec<Vec<String>>,
    last: Vec<String>,
    bytes: usize,
}

impl Growing {
    fn push(&mut self, text: String) {
        let bytes = self.bytes.saturating_add(text.len());
        let is_full = self.last.len() >= ENTRY_EVENTS_MAX || bytes > ENTRY_BYTES_MAX;
        if is_full && !self.last.is_empty() {
            self.full.push(mem::take(&mut self.last));
            self.bytes = 0;
        }
        self.bytes = self.bytes.saturating_add(text.len());
        self.last.push(text);
    }

    fn done(mut self) -> Vec<Vec<String>> {
        if !self.last.is_empty() {
            self.full.push(self.last);
        }
        self.full
    }
}

/// Adds each entry to that key.
pub(super) fn commands(key: &str, entries: &[Vec<String>]) -> Pipeline {
    let mut commands = redis::pipe();
    for events in entries {
        let command = commands.cmd("XADD").arg(key).arg("*");
        for event in events {
            command.arg(FIELD).arg(event);
        }
        command.ignore();
    }
    commands
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(shard: u16, text: String) -> Event {
        Event {
            shard: Shard::new(shard).unwrap(),
            tenant: "acme".to_owned(),
            text,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn each_event_is_in_one_entry_of_its_shard_in_order(
            sizes in prop::collection::vec((0..16_u16, 0..400_000_usize), 0..60),
            small in 0..2_000_usize,
        ) {
            let mut events: Vec<_> = sizes
                .into_iter()
                .map(|(shard, size)| event(shard, "x".repeat(size)))
                .collect();
            events.extend((0..small).map(|n| event(u16::try_from(n % 3).unwrap(), n.to_string())));
            let grouped = entries(events.clone());
            for shard in Shard::all() {
                let of_shard = events.iter().filter(|e| e.shard == shard).map(|e| &e.text);
                let entries = grouped.get(&shard).cloned().unwrap_or_default();
                prop_assert!(of_shard.eq(entries.iter().flatten()));
                for entry in entries {
                    let bytes: usize = entry.iter().map(String::len).sum();
                    prop_assert!(!entry.is_empty() && entry.len() <= ENTRY_EVENTS_MAX);
                    prop_assert!(bytes <= ENTRY_BYTES_MAX || entry.len() == 1);
                }
            }
        }
    }

    #[test]
    fn entries_are_full_before_there_is_another() {
        let check = |sizes: &[usize], expected: &[usize]| {
            let events = sizes.iter().map(|size| event(0, "x".repeat(*size)));
            let grouped = entries(events.collect());
            let found: Vec<_> = grouped.values().flatten().map(Vec::len).collect();
            assert_eq!(found, expected, "{sizes:?}");
        };
        check(&[], &[]);
        check(&[0], &[1]);
        check(&[1; 500], &[500]);
        check(&[1; 501], &[500, 1]);
        check(&[1 << 19, 1 << 19, 1], &[2, 1]);
        check(&[1, 2 << 20, 1], &[1, 1, 1]);
    }
}
