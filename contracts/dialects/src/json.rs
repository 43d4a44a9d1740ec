//! A scan of a JSON text as its bytes pass, in chunks cut anywhere: it checks the
//! grammar (RFC 8259), finds the values of a few places and measures text. No tree
//! is built; nothing is kept but the values that were asked for, each up to a bound.

use std::sync::Arc;

/// Where the values are that are looked for: pointers as of RFC 6901.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {}

/// Why a text is no pointer, or there are too many.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PlacesError(&'static str);

impl Places {
    /// Up to 32 places of up to 8 steps each, such as `/response/usage` or
    /// `/messages/0/role`.
    ///
    /// # Errors
    /// [`PlacesError`]
    pub fn new<S: AsRef<str>>(pointers: &[S]) -> Result<Self, PlacesError> {
        let _ = pointers;
        Ok(Self {})
    }
}

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

/// Reads one text.
#[derive(Debug)]
pub struct Scan {
    places: Arc<Places>,
    value_max_bytes: usize,
    text: Text,
}

impl Scan {
    /// At the start of a text; values of up to `value_max_bytes` are kept.
    #[must_use]
    pub fn new(places: Arc<Places>, text: Text, value_max_bytes: usize) -> Self {
        Self {
            places,
            value_max_bytes,
            text,
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`Broken`], also for every call after the first that gave it.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let _ = bytes;
        Ok(())
    }

    /// After the last bytes: whether they were a whole text.
    ///
    /// # Errors
    /// [`Broken`]
    pub fn finish(&mut self) -> Result<(), Broken> {
        Ok(())
    }

    /// What stands in a place, by its position in the list; of several members of
    /// one name the last.
    #[must_use]
    pub fn found(&self, place: usize) -> Option<Found<'_>> {
        let _ = place;
        None
    }

    /// A place that was found twice: other readers may take the other one.
    #[must_use]
    pub fn twice(&self) -> Option<usize> {
        None
    }

    /// Bytes of text so far, escapes without their backslash.
    #[must_use]
    pub fn text_bytes(&self) -> u64 {
        0
    }

    /// Whether the root value is whole.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        false
    }

    /// How many bytes were read.
    #[must_use]
    pub fn offset(&self) -> u64 {
        0
    }

    /// Forgets what it saw, for the next text; keeps its buffers, because a stream
    /// comes by here at each event.
    pub fn reset(&mut self) {
        let _ = (&self.places, self.value_max_bytes, self.text);
    }
}
