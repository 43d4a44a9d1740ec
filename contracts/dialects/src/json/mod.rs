//! A scan of a JSON text as its bytes pass, in chunks cut anywhere: it checks the
//! grammar (RFC 8259), finds the values of a few places and measures text. No tree
//! is built; nothing is kept but the values that were asked for, each up to a bound.

use std::sync::Arc;

use number::Number;
use string::{Cut, Name};
use taken::Taken;

mod number;
mod places;
mod read;
mod string;
mod taken;
#[cfg(test)]
mod tests;

pub use places::Places;

/// How deep arrays and objects may stand in each other.
pub const DEPTH_MAX: usize = 128;

/// Why a text is no pointer, or there are too many.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PlacesError(&'static str);

/// Which strings are measured as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// None.
    None,
    /// Values, or items of lists that are values, of members of these names, at any depth.
    Of(&'static [&'static str]),
    /// All, but those.
    AllBut(&'static [&'static str]),
}

/// What kind of value stands in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `{`
    Object,
    /// `[`
    Array,
    /// `"`
    String,
    /// A number.
    Number,
    /// `true` or `false`.
    Bool,
    /// `null`
    Null,
}

/// A value that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'a> {
    /// What it is.
    pub kind: Kind,
    /// The offset of its first byte in the text.
    pub start: u64,
    /// The offset after its last byte; none while it goes on.
    pub end: Option<u64>,
    /// Its bytes as they stand, once it is whole and where it is not longer than
    /// the bound.
    pub raw: Option<&'a [u8]>,
}

/// A text is no JSON, from this byte on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct Broken {
    /// The offset in the text.
    pub at: u64,
    /// What is wrong there, such as `expected a comma or }`.
    pub what: &'static str,
}

/// Where in the text the scan stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// A value is due.
    Value,
    /// After `[`: an item or the end.
    FirstItem,
    /// After `{`: a name or the end.
    FirstName,
    /// After a comma in an object.
    Name,
    /// After a name.
    Colon,
    /// After a value in a container.
    After,
    /// After the root value.
    End,
    /// In a string, which is a value.
    Text,
    /// In a string, which is a name.
    NameText,
    /// After a backslash in a string.
    Escape { name: bool },
    /// In the digits after `\u`.
    Hex { name: bool, left: u8, unit: u16 },
    /// In a number.
    Number(Number),
    /// In a word of which this is due.
    Word(&'static [u8]),
}

/// Reads one text.
#[derive(Debug)]
pub struct Scan {
    measure: Measure,
    taken: Taken,
    at: At,
    /// Of the text, the bytes before the present chunk.
    offset: u64,
    /// What the text is no JSON for.
    broken: Option<Broken>,
    root: Option<(Kind, u64)>,
    /// What the open containers are: bits of [`OBJECT`] and [`COUNTS`].
    containers: [u8; DEPTH_MAX],
    /// How many there are.
    depth: usize,
    /// Whether strings in the value at hand are text.
    counts: bool,
    text_bytes: u64,
    name: Name,
    cut: Cut,
    is_lenient: bool,
}

/// A container is an object, else an array.
const OBJECT: u8 = 1;
/// Strings that are an array's items are text.
const COUNTS: u8 = 2;

/// Which members' strings are text.
#[derive(Debug)]
struct Measure {
    text: Text,
    lengths: places::Lengths,
}

impl Measure {
    fn new(text: Text) -> Self {
        let mut lengths = places::Lengths::default();
        for name in text.names() {
            lengths.add(name.len());
        }
        Self { text, lengths }
    }

    /// Whether strings outside of any object are text.
    fn at_root(&self) -> bool {
        matches!(self.text, Text::AllBut(_))
    }

    /// Whether the strings of a member of that name are text; none is a name longer
    /// than all of them.
    fn of(&self, name: Option<&[u8]>) -> bool {
        let listed = name.is_some_and(|name| {
            self.lengths.may_have(name.len())
                && self.text.names().iter().any(|n| n.as_bytes() == name)
        });
        match self.text {
            Text::None => false,
            Text::Of(_) => listed,
            Text::AllBut(_) => !listed,
        }
    }
}

impl Text {
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            Self::Of(names) | Self::AllBut(names) => names,
        }
    }
}

impl Scan {
    /// At the start of a text; values of up to `value_max_bytes` are kept.
    #[must_use]
    pub fn new(places: Arc<Places>, text: Text, value_max_bytes: usize) -> Self {
        let longest = text.names().iter().map(|n| n.len()).max().unwrap_or(0);
        let name_max_bytes = longest.max(places.name_max_bytes());
        let measure = Measure::new(text);
        Self {
            counts: measure.at_root(),
            measure,
            taken: Taken::new(places, value_max_bytes),
            at: At::Value,
            offset: 0,
            broken: None,
            root: None,
            containers: [0; DEPTH_MAX],
            depth: 0,
            text_bytes: 0,
            name: Name::new(name_max_bytes),
            cut: Cut::default(),
            is_lenient: false,
        }
    }

    /// The same of what servers send that are not strict: `NaN` and `Infinity` as
    /// numbers (Python's `json` writes them by default), control characters and bytes
    /// that are no UTF-8 in strings.
    #[must_use]
    pub fn lenient(mut self) -> Self {
        self.is_lenient = true;
        self
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`Broken`], also for every call after the first that gave it.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        match self.read(bytes) {
            Ok(()) => {
                self.taken.keep(bytes, self.offset);
                self.offset = self.offset.saturating_add(length(bytes.len()));
                Ok(())
            }
            Err(broken) => {
                self.offset = broken.at;
                self.broken = Some(broken);
                Err(broken)
            }
        }
    }

    /// After the last bytes: whether they were a whole text.
    ///
    /// # Errors
    /// [`Broken`]
    pub fn finish(&mut self) -> Result<(), Broken> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        if let At::Number(number) = self.at
            && self.depth == 0
            && number.is_whole()
        {
            self.end_value(0, &[]);
        }
        if self.at == At::End {
            return Ok(());
        }
        let broken = self.broken(0, "unexpected end");
        self.broken = Some(broken);
        Err(broken)
    }

    /// What stands in a place, by its position in the list; of several members of
    /// one name the last.
    #[must_use]
    pub fn found(&self, place: usize) -> Option<Found<'_>> {
        self.taken.found(place)
    }

    /// A place that was found twice: other readers may take the other one. So is a
    /// place to which the way is there twice.
    #[must_use]
    pub fn twice(&self) -> Option<usize> {
        self.taken.twice()
    }

    /// What the root value is, and the offset of its first byte.
    #[must_use]
    pub fn root(&self) -> Option<(Kind, u64)> {
        self.root
    }

    /// Bytes of text so far, escapes without their backslash.
    #[must_use]
    pub fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// Whether the root value is whole. A number is after [`Self::finish`] alone, or
    /// where something stands after it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.at == At::End && self.broken.is_none()
    }

    /// How many bytes were read; of a text that is no JSON, those before the fault.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Forgets what it saw, for the next text; keeps its buffers, because a stream
    /// comes by here at each event.
    pub fn reset(&mut self) {
        self.taken.forget();
        self.at = At::Value;
        self.offset = 0;
        self.broken = None;
        self.root = None;
        self.depth = 0;
        self.counts = self.measure.at_root();
        self.text_bytes = 0;
        self.name.begin();
        self.cut.forget();
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
