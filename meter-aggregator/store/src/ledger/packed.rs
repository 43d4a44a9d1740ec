//! Quantities in few bytes: of each request there are some in its row and in the journal,
//! and the journal is kept for good.
//!
//! For each meter a byte, its dimension's place in [`Dimension::ALL`] with 128 where a
//! tier follows as a byte of length and its name; then the number, in zigzag as protobuf's
//! `sint64`.

use prost::encoding::{decode_varint, encode_varint};
use weir_meter_core::{
    fold::Quantities,
    meter::{Dimension, Meter, Tier},
};

const HAS_TIER: u8 = 0x80;

/// Writes quantities, the same ones as the same bytes.
pub(super) fn pack(quantities: &Quantities) -> Vec<u8> {
    let mut out = Vec::with_capacity(quantities.len().saturating_mul(4));
    for (meter, number) in quantities {
        let place = Dimension::ALL.iter().position(|d| *d == meter.dimension);
        let code = place.and_then(|n| u8::try_from(n).ok()).unwrap_or(u8::MAX);
        match &meter.tier {
            None => out.push(code),
            Some(tier) => {
                let name = tier.as_str().as_bytes();
                out.push(code | HAS_TIER);
                // A tier's name is bounded to 32 bytes.
                out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
                out.extend_from_slice(name);
            }
        }
        encode_varint(((number << 1) ^ (number >> 63)).cast_unsigned(), &mut out);
    }
    out
}

/// Reads what [`pack`] wrote; `None` for anything else.
pub(super) fn unpack(mut bytes: &[u8]) -> Option<Quantities> {
    let mut quantities = Quantities::new();
    while let Some((code, rest)) = bytes.split_first() {
        bytes = rest;
        let dimension = *Dimension::ALL.get(usize::from(code & !HAS_TIER))?;
        let mut tier = None;
        if code & HAS_TIER != 0 {
            let (length, rest) = bytes.split_first()?;
            let (name, rest) = rest.split_at_checked(usize::from(*length))?;
            bytes = rest;
            tier = Some(Tier::new(std::str::from_utf8(name).ok()?).ok()?);
        }
        let number = decode_varint(&mut bytes).ok()?;
        let number = (number >> 1).cast_signed() ^ (number & 1).cast_signed().wrapping_neg();
        quantities.insert(Meter { dimension, tier }, number);
    }
    Some(quantities)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Ledgers are read by later versions.
    #[test]
    fn the_form_is_golden() {
        let quantities = Quantities::from([
            (Meter::parse("api_calls").unwrap(), 1),
            (Meter::parse("output_tokens.big").unwrap(), -300),
        ]);
        let golden = [0, 2, 0x83, 3, b'b', b'i', b'g', 0xd7, 4];
        assert_eq!(pack(&quantities), golden);
        assert_eq!(unpack(&golden), Some(quantities));
        for wrong in [&[5][..], &[0], &[0x80, 9, 1], &[0x80, 1, b'A', 2]] {
            assert_eq!(unpack(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_was_packed_is_unpacked(numbers in prop::collection::btree_map(
            (0..5_usize, prop::option::of("[a-z0-9_-]{1,32}")), any::<i64>(), 0..10)) {
            let quantities: Quantities = numbers
                .into_iter()
                .map(|((place, tier), number)| {
                    let tier = tier.map(|name| Tier::new(&name).unwrap());
                    (Meter { dimension: Dimension::ALL[place], tier }, number)
                })
                .collect();
            prop_assert_eq!(unpack(&pack(&quantities)), Some(quantities));
        }

        #[test]
        fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = unpack(&bytes);
        }
    }
}
