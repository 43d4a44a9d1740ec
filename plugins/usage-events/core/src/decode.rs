//! An answer's bytes without their content coding, read as they pass.

use std::io::{self, Write};

use flate2::write::{DeflateDecoder, GzDecoder, ZlibDecoder};

/// The most decoded bytes of one answer that are read. Nothing that a model
/// answers is as long, and a bomb costs no more than that.
const DECODED_MAX_BYTES: u64 = 64 << 20;

/// What a member of a gzip file costs of [`DECODED_MAX_BYTES`] before its first
/// byte: its decoder's memory.
const MEMBER_BYTES: u64 = 64 << 10;

/// Takes the content coding off one answer. It holds up to some 150 KiB, where
/// there is a coding; the bytes that pass are never changed.
#[derive(Debug)]
pub struct Decoder {
    form: Form,
    /// How many decoded bytes may come yet.
    room: u64,
}

#[derive(Debug)]
enum Form {
    Plain,
    Gzip(Box<GzDecoder<Vec<u8>>>),
    /// `deflate` before its first byte.
    Deflate,
    Zlib(Box<ZlibDecoder<Vec<u8>>>),
    Raw(Box<DeflateDecoder<Vec<u8>>>),
    /// After the last byte of a coding that has an end.
    Ended,
    Unreadable,
}

impl Decoder {
    /// For an answer of that `content-encoding`, empty where it has none. `gzip`,
    /// `x-gzip` and `deflate` (RFC 9110, section 8.4.1) are read, and `identity`
    /// is none; of any other, or of several, nothing can be seen.
    #[must_use]
    pub fn new(content_encoding: &[u8]) -> Self {
        let mut codings = content_encoding
            .split(|b| *b == b',')
            .map(<[u8]>::trim_ascii)
            .filter(|c| !c.is_empty() && !c.eq_ignore_ascii_case(b"identity"));
        let form = match (codings.next(), codings.next()) {
            (None, _) => Form::Plain,
            (Some(coding), None) => Form::of(coding),
            _ => Form::Unreadable,
        };
        Self {
            form,
            room: DECODED_MAX_BYTES,
        }
    }

    /// Whether everything was seen that passed so far. It turns false, for good,
    /// where the coding is broken or too much comes.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        !matches!(self.form, Form::Unreadable)
    }

    /// Takes the next bytes, and gives `sink` what they decode to, in order.
    pub fn feed(&mut self, bytes: &[u8], mut sink: impl FnMut(&[u8])) {
        if let Form::Plain = self.form {
            if !bytes.is_empty() {
                sink(bytes);
            }
            return;
        }
        let mut rest = bytes;
        while let Some(first) = rest.first() {
            let room = &mut self.room;
            let step = match &mut self.form {
                Form::Plain | Form::Ended | Form::Unreadable => return,
                Form::Deflate => {
                    self.form = Form::of_deflate(*first);
                    continue;
                }
                Form::Gzip(decoder) => {
                    pump(&mut **decoder, GzDecoder::get_mut, rest, room, &mut sink)
                }
                Form::Zlib(decoder) => {
                    pump(&mut **decoder, ZlibDecoder::get_mut, rest, room, &mut sink)
                }
                Form::Raw(decoder) => pump(
                    &mut **decoder,
                    DeflateDecoder::get_mut,
                    rest,
                    room,
                    &mut sink,
                ),
            };
            match step {
                Ok([]) => return,
                Ok(after) => {
                    rest = after;
                    self.after_end();
                }
                Err(_) => self.form = Form::Unreadable,
            }
        }
    }

    /// A decoder takes no more: a gzip file may have a further member, the other
    /// codings end.
    fn after_end(&mut self) {
        let Form::Gzip(decoder) = &mut self.form else {
            self.form = Form::Ended;
            return;
        };
        let is_whole = decoder.try_finish().is_ok();
        self.form = match self.room.checked_sub(MEMBER_BYTES) {
            Some(room) if is_whole => {
                self.room = room;
                Form::gzip()
            }
            _ => Form::Unreadable,
        };
    }
}

impl Form {
    fn of(coding: &[u8]) -> Self {
        if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") {
            Self::gzip()
        } else if coding.eq_ignore_ascii_case(b"deflate") {
            Self::Deflate
        } else {
            Self::Unreadable
        }
    }

    fn gzip() -> Self {
        Self::Gzip(Box::new(GzDecoder::new(Vec::new())))
    }

    /// `deflate` is zlib's format (RFC 1950), but some servers send the bare one
    /// (RFC 1951). The method in a zlib header's first byte is 8, which no block
    /// of the bare format begins with.
    fn of_deflate(first: u8) -> Self {
        if first & 0x0f == 8 {
            Self::Zlib(Box::new(ZlibDecoder::new(Vec::new())))
        } else {
            Self::Raw(Box::new(DeflateDecoder::new(Vec::new())))
        }
    }
}

/// Gives `bytes` to a decoder and what comes of them to `sink`, a few dozen KiB at
/// a time. Returns what the decoder left, because its format ended before.
fn pump<'a, D: Write>(
    decoder: &mut D,
    out: fn(&mut D) -> &mut Vec<u8>,
    mut bytes: &'a [u8],
    room: &mut u64,
    sink: &mut impl FnMut(&[u8]),
) -> io::Result<&'a [u8]> {
    loop {
        let taken = if bytes.is_empty() {
            // What the decoder still holds belongs to bytes that have passed.
            decoder.flush()?;
            0
        } else {
            decoder.write(bytes)?
        };
        let decoded = out(decoder);
        let length = u64::try_from(decoded.len()).unwrap_or(u64::MAX);
        *room = room
            .checked_sub(length)
            .ok_or_else(|| io::Error::other("too much"))?;
        if !decoded.is_empty() {
            sink(decoded);
            decoded.clear();
        }
        if taken == 0 {
            return Ok(bytes);
        }
        bytes = bytes.get(taken..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use flate2::{
        Compression,
        write::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    const TEXT: &[u8] = include_bytes!("../../../../contracts/fixtures/openai-chat-stream.txt");

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn raw(text: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn decode(coding: &str, chunks: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut decoder = Decoder::new(coding.as_bytes());
        let mut found = Vec::new();
        for chunk in chunks {
            decoder.feed(chunk, |bytes| found.extend_from_slice(bytes));
        }
        (found, decoder.is_readable())
    }

    #[track_caller]
    fn check(coding: &str, coded: &[u8], expected: &[u8]) {
        for cut in 0..=coded.len() {
            let (a, b) = coded.split_at(cut);
            let found = decode(coding, &[a, b]);
            assert_eq!(found, (expected.to_vec(), true), "{coding} cut at {cut}");
        }
        let bytes: Vec<&[u8]> = coded.chunks(1).collect();
        assert_eq!(
            decode(coding, &bytes),
            (expected.to_vec(), true),
            "{coding}"
        );
    }

    #[test]
    fn each_coding_is_read_cut_anywhere() {
        check("", TEXT, TEXT);
        check("Identity", TEXT, TEXT);
        check("gzip", &gzip(TEXT), TEXT);
        check("X-GZIP, identity", &gzip(TEXT), TEXT);
        check("deflate", &zlib(TEXT), TEXT);
        check("deflate", &raw(TEXT), TEXT);
        check("gzip", &gzip(b""), b"");
    }

    #[test]
    fn a_gzip_file_may_have_members() {
        let coded = [gzip(b"one "), gzip(b"two"), gzip(b"")].concat();
        check("gzip", &coded, b"one two");
        check(
            "deflate",
            &[zlib(b"one"), b"rest".to_vec()].concat(),
            b"one",
        );
    }

    #[test]
    fn what_was_flushed_is_read_at_once() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        let mut decoder = Decoder::new(b"gzip");
        for event in ["data: one\n\n", "data: two\n\n", "data: three\n\n"] {
            encoder.write_all(event.as_bytes()).unwrap();
            encoder.flush().unwrap();
            let mut found = Vec::new();
            let coded = std::mem::take(encoder.get_mut());
            decoder.feed(&coded, |bytes| found.extend_from_slice(bytes));
            assert_eq!(found, event.as_bytes());
        }
    }

    #[test]
    fn other_codings_are_unreadable() {
        for coding in ["br", "zstd", "gzip, br", "gzip, gzip", "compress", "\u{ff}"] {
            assert_eq!(decode(coding, &[b"x"]), (Vec::new(), false), "{coding}");
        }
    }

    #[test]
    fn what_is_broken_is_unreadable_from_there() {
        let mut coded = gzip(TEXT);
        let last = coded.len() - 1;
        coded[last] ^= 1;
        // The check sum is told of when something comes after it.
        coded.push(0);
        assert_eq!(decode("gzip", &[&coded]), (TEXT.to_vec(), false));
        for (coding, coded) in [
            ("gzip", b"data: plain".as_slice()),
            ("deflate", b"data: plain"),
            ("deflate", b"\x78\x00"),
        ] {
            assert_eq!(decode(coding, &[coded]), (Vec::new(), false), "{coding}");
        }
    }

    #[test]
    fn a_bomb_is_read_up_to_the_bound() {
        let part = vec![0; 1 << 20];
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        for _ in 0..80 {
            encoder.write_all(&part).unwrap();
        }
        let coded = encoder.finish().unwrap();
        let mut decoder = Decoder::new(b"gzip");
        let (mut found, mut most) = (0u64, 0);
        decoder.feed(&coded, |bytes| {
            found += u64::try_from(bytes.len()).unwrap();
            most = most.max(bytes.len());
        });
        assert!(!decoder.is_readable());
        assert!(found <= DECODED_MAX_BYTES && found > DECODED_MAX_BYTES - (1 << 20));
        assert!(most <= 128 << 10, "{most} bytes at a time");

        let members = gzip(b"").repeat(2_000);
        assert_eq!(decode("gzip", &[&members]), (Vec::new(), false));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_do_no_harm(
            coding in prop_oneof![Just("gzip"), Just("deflate")],
            mut bytes in prop::collection::vec(any::<u8>(), 0..200),
            header in any::<bool>(),
            cut in 0usize..200,
        ) {
            if header {
                let start = gzip(TEXT);
                bytes.splice(0..0, start[..40].iter().copied());
            }
            let (a, b) = bytes.split_at(cut.min(bytes.len()));
            let (whole, split) = (decode(coding, &[&bytes]), decode(coding, &[a, b]));
            // Of what is broken, a later cut may show more.
            if whole.1 {
                prop_assert_eq!(whole, split);
            }
        }
    }
}
