//! Who numbers events and signs their lines: one VM's run of the filter.

use prost::Message as _;
use weir_wire::{
    proto::usage::UsageEvent,
    usage::line::{self, LineKey},
};

/// A run, from its configuration to its end.
#[derive(Debug)]
pub struct Producer {
    run: String,
    sequence: u64,
    key: LineKey,
}

impl Producer {
    /// A run with that random name, whose lines the credential signs.
    #[must_use]
    pub fn new(run: [u8; 8], token: &str) -> Self {
        Self {
            run: format!("{:016x}", u64::from_be_bytes(run)),
            sequence: 0,
            key: LineKey::of_token(token),
        }
    }

    /// Gives the event the next number, and its protobuf: the very same bytes go to
    /// all sinks, so that it is booked once.
    pub fn encode(&mut self, mut event: UsageEvent) -> Vec<u8> {
        self.sequence = self.sequence.saturating_add(1);
        event.producer_run.clone_from(&self.run);
        event.sequence = self.sequence;
        event.encode_to_vec()
    }

    /// An event's line in a log.
    #[must_use]
    pub fn line(&self, event: &[u8]) -> String {
        line::write(event, &self.key)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;
    use weir_wire::usage::line::Piece;

    use super::*;

    #[test]
    fn events_are_numbered_from_one_and_signed() {
        let mut producer = Producer::new([0, 0, 0, 0, 0, 0, 1, 0xab], "token");
        for sequence in 1..4 {
            let bytes = producer.encode(UsageEvent::default());
            let event = UsageEvent::decode(bytes.as_slice()).unwrap();
            assert_eq!(event.producer_run, "00000000000001ab");
            assert_eq!(event.sequence, sequence);
            let line = producer.line(&bytes);
            let found = line::pieces(line.as_bytes(), &[LineKey::of_token("token")]);
            let event = Box::new(event);
            assert_eq!(found, [Piece::Event { key: 0, event }]);
        }
    }
}
