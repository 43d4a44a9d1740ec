//! What strings are made of: runs of bytes that stand for themselves, characters
//! that are cut between chunks, and names with their escapes resolved.

/// How many bytes stand for themselves, until a quote, a backslash, or what may not
/// stand in a string; and whether some of them are not ASCII.
#[inline]
pub(super) fn run(bytes: &[u8]) -> (usize, bool) {
    // Most names and many values end within a few bytes.
    let (mut at, mut seen) = (0_usize, 0_u64);
    let rest = match words(bytes, 2, &mut at, &mut seen) {
        Ok(rest) => rest,
        Err(()) => return (at, seen & HIGH != 0),
    };
    let rest = blocks::<64>(rest, &mut at, &mut seen);
    let rest = blocks::<16>(rest, &mut at, &mut seen);
    if let Ok(rest) = words(rest, usize::MAX, &mut at, &mut seen) {
        for byte in rest {
            if *byte == b'"' || *byte == b'\\' || *byte < 0x20 {
                break;
            }
            seen |= u64::from(*byte);
            at = at.wrapping_add(1);
        }
    }
    (at, seen & HIGH != 0)
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x80 * ONES;

/// Passes by at most so many words of eight bytes in which no run ends; gives what is
/// left, or an error where one ends.
#[inline]
fn words<'a>(bytes: &'a [u8], most: usize, at: &mut usize, seen: &mut u64) -> Result<&'a [u8], ()> {
    let mut rest = bytes;
    let mut left = most;
    while left > 0
        && let Some((word, after)) = rest.split_first_chunk::<8>()
    {
        let word = u64::from_le_bytes(*word);
        let ends = ends(word);
        if ends != 0 {
            let bits = ends.trailing_zeros() & !7;
            *seen |= word & 1_u64.wrapping_shl(bits).wrapping_sub(1);
            *at = at.wrapping_add(usize::try_from(bits / 8).unwrap_or(0));
            return Err(());
        }
        *seen |= word;
        *at = at.wrapping_add(8);
        rest = after;
        left = left.wrapping_sub(1);
    }
    Ok(rest)
}

/// Which bytes of a word end a run, as their highest bits; beyond the first some more
/// may be set ("Bit Twiddling Hacks", S. E. Anderson: a zero byte, a byte less than n).
#[inline]
fn ends(word: u64) -> u64 {
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let quote = zero(word ^ (ONES * 0x22));
    let backslash = zero(word ^ (ONES * 0x5c));
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (quote | backslash | control) & HIGH
}

/// Passes by blocks in which no run ends; gives what is left. Without branches inside
/// of a block, so that the compiler makes vector instructions of it.
#[inline]
fn blocks<'a, const N: usize>(bytes: &'a [u8], at: &mut usize, seen: &mut u64) -> &'a [u8] {
    let mut rest = bytes;
    while let Some((block, after)) = rest.split_first_chunk::<N>() {
        let (mut ends, mut all) = (0_u8, 0_u8);
        for byte in block {
            ends |= u8::from(*byte == b'"') | u8::from(*byte == b'\\') | u8::from(*byte < 0x20);
            all |= *byte;
        }
        if ends != 0 {
            break;
        }
        *seen |= u64::from(all);
        *at = at.wrapping_add(N);
        rest = after;
    }
    rest
}

/// A character of UTF-8 that is cut between chunks.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cut {
    bytes: [u8; 4],
    length: usize,
}

/// What came of a run that has more than ASCII.
pub(super) enum Utf8 {
    /// It is UTF-8 so far.
    Good,
    /// No more from here on.
    Bad(usize),
}

impl Cut {
    pub(super) fn is_open(&self) -> bool {
        self.length > 0
    }

    pub(super) fn forget(&mut self) {
        self.length = 0;
    }

    /// How many bytes of the cut character have come.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Takes the rest of the character from the next chunk; gives how many bytes that
    /// were, or none where it is no character.
    pub(super) fn go_on(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut taken = 0_usize;
        while self.is_open() {
            let Some(byte) = bytes.get(taken) else { break };
            *self.bytes.get_mut(self.length)? = *byte;
            let length = self.length.saturating_add(1);
            match std::str::from_utf8(self.bytes.get(..length)?) {
                Ok(_) => self.length = 0,
                Err(e) if e.error_len().is_some() => return None,
                Err(_) => self.length = length,
            }
            taken = taken.saturating_add(1);
        }
        Some(taken)
    }

    /// Checks a run; keeps its last character where the chunk ends in it.
    pub(super) fn check(&mut self, run: &[u8], ends_chunk: bool) -> Utf8 {
        let Err(error) = std::str::from_utf8(run) else {
            return Utf8::Good;
        };
        let good = error.valid_up_to();
        let tail = run.get(good..).unwrap_or_default();
        match self.bytes.get_mut(..tail.len()) {
            Some(kept) if ends_chunk && error.error_len().is_none() => {
                kept.copy_from_slice(tail);
                self.length = tail.len();
                Utf8::Good
            }
            _ => Utf8::Bad(good),
        }
    }
}

/// A name that does not stand in one piece: cut between chunks, or with escapes.
#[derive(Debug, Clone, Default)]
pub(super) struct Name {
    bytes: Vec<u8>,
    /// Longer names are none that somebody asks for.
    max_bytes: usize,
    is_used: bool,
    is_longer: bool,
}

impl Name {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(max_bytes),
            max_bytes,
            is_used: false,
            is_longer: false,
        }
    }

    pub(super) fn begin(&mut self) {
        self.bytes.clear();
        self.is_used = false;
        self.is_longer = false;
    }

    /// Whether something of the name is in here.
    pub(super) fn is_used(&self) -> bool {
        self.is_used
    }

    /// None where it is longer than any that is asked for.
    pub(super) fn get(&self) -> Option<&[u8]> {
        (!self.is_longer).then_some(&self.bytes)
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.is_used = true;
        if self.bytes.len().saturating_add(bytes.len()) > self.max_bytes {
            self.is_longer = true;
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// An escaped code unit of UTF-16; half of a pair stands as three bytes, which no
    /// name has, until the other half comes.
    pub(super) fn push_unit(&mut self, unit: u16) {
        if let Some(whole) = self.pair(unit) {
            self.bytes.truncate(self.bytes.len().saturating_sub(3));
            self.push(whole.encode_utf8(&mut [0; 4]).as_bytes());
            return;
        }
        match char::from_u32(u32::from(unit)) {
            Some(plain) => self.push(plain.encode_utf8(&mut [0; 4]).as_bytes()),
            None => {
                let [high, low] = unit.to_be_bytes();
                let middle = ((high & 0x0f) << 2) | (low >> 6);
                self.push(&[0xed, 0x80 | middle, 0x80 | (low & 0x3f)]);
            }
        }
    }

    fn pair(&self, low: u16) -> Option<char> {
        let [0xed, middle @ 0xa0..=0xaf, last] = *self.bytes.last_chunk::<3>()? else {
            return None;
        };
        let high = 0xd000 | (u16::from(middle & 0x3f) << 6) | u16::from(last & 0x3f);
        char::decode_utf16([high, low]).next()?.ok()
    }
}

/// What an escape stands for.
pub(super) enum Escape {
    /// This byte.
    Byte(u8),
    /// This code unit of UTF-16.
    Unit(u16),
    /// It does not stand in one piece, or it is none.
    Other,
}

/// Reads an escape after its backslash.
#[inline]
pub(super) fn escape(bytes: &[u8]) -> Escape {
    match bytes {
        [b'u', a, b, c, d, ..] => {
            let digits = [hex(*a), hex(*b), hex(*c), hex(*d)];
            let unit = digits
                .into_iter()
                .try_fold(0_u16, |unit, digit| Some(unit.wrapping_shl(4) | digit?));
            unit.map_or(Escape::Other, Escape::Unit)
        }
        [letter, ..] => escaped(*letter).map_or(Escape::Other, Escape::Byte),
        [] => Escape::Other,
    }
}

/// The value of a hexadecimal digit.
pub(super) fn hex(digit: u8) -> Option<u16> {
    let value = match digit {
        b'0'..=b'9' => digit.wrapping_sub(b'0'),
        b'a'..=b'f' => digit.wrapping_sub(b'a').wrapping_add(10),
        b'A'..=b'F' => digit.wrapping_sub(b'A').wrapping_add(10),
        _ => return None,
    };
    Some(u16::from(value))
}

/// What the letter after a backslash stands for.
pub(super) fn escaped(letter: u8) -> Option<u8> {
    Some(match letter {
        b'"' | b'\\' | b'/' => letter,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        _ => return None,
    })
}
