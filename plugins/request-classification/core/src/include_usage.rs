//! Makes a stream report its usage: the change of a body that asks for it.

use weir_dialects::json::{Found, Kind};

/// Bytes of a body that give way to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The offset of the first byte that goes.
    pub start: usize,
    /// The offset of the first that stays.
    pub end: usize,
    /// What comes in their place.
    pub text: &'static str,
}

impl Edit {
    /// The `content-length` after it.
    #[must_use]
    pub fn length(&self, before: u64) -> u64 {
        let bytes = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        before
            .saturating_add(bytes(self.text.len()))
            .saturating_sub(bytes(self.end.saturating_sub(self.start)))
    }
}

/// What makes a body ask for usage: by the offset of its `{`, and what stands in
/// `stream_options` and its `include_usage`. None where it asks already, or where
/// the options are of a kind that the upstream will refuse.
pub(crate) fn edit(
    root: u64,
    options: Option<Found<'_>>,
    include_usage: Option<Found<'_>>,
) -> Option<Edit> {
    let replace = |found: Found<'_>, text| {
        Some(Edit {
            start: usize::try_from(found.start).ok()?,
            end: usize::try_from(found.end?).ok()?,
            text,
        })
    };
    let insert = |after: u64, text| {
        let start = usize::try_from(after).ok()?.checked_add(1)?;
        let end = start;
        Some(Edit { start, end, text })
    };
    let Some(options) = options else {
        return insert(root, r#""stream_options":{"include_usage":true},"#);
    };
    match (options.kind, include_usage) {
        (Kind::Null, _) => replace(options, r#"{"include_usage":true}"#),
        (Kind::Object, Some(found)) => match (found.kind, found.raw) {
            (Kind::Bool, Some(b"true")) => None,
            (Kind::Bool | Kind::Null, _) => replace(found, "true"),
            _ => None,
        },
        (Kind::Object, None) => {
            let inner = options.raw.and_then(|raw| raw.get(1..));
            if inner?.trim_ascii() == b"}" {
                replace(options, r#"{"include_usage":true}"#)
            } else {
                insert(options.start, r#""include_usage":true,"#)
            }
        }
        _ => None,
    }
}
