//! Which of a log's files are read, and in which order.
//!
//! A log that is rotated by rename leaves its files beside it, under names that
//! begin as its own does.

use sha2::{Digest as _, Sha256};

use super::{lines::LINE_MAX_BYTES, sift::says_nothing};

/// So much older than what was read last may a file be that nobody knows, and still be
/// read: it was written at the same time. What was booked before changes nothing.
const SLACK_NS: i64 = 600_000_000_000;

/// Names of files that can't be tailed end so.
const COMPRESSED: [&str; 6] = [".gz", ".bz2", ".xz", ".zst", ".lz4", ".Z"];

/// A file beside the log, or the log itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name, without its folder.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// When it was last written to, nanoseconds of the Unix epoch.
    pub modified_ns: i64,
    /// How far it was read, if it is known.
    pub offset: Option<u64>,
}

/// Whether a file of that name may be one that the log was rotated to.
#[must_use]
pub fn is_rotated(log: &str, name: &str) -> bool {
    let rest = name.strip_prefix(log).unwrap_or_default();
    rest.starts_with(['.', '-']) && !COMPRESSED.iter().any(|end| name.ends_with(end))
}

/// Which files to read on, by their places in `found`, the oldest first and the log
/// last. `since_ns` is when the newest that is known had been written to when it was
/// last read, or, where none is known, when the log was first looked for.
#[must_use]
pub fn to_read(log: &str, found: &[Found], since_ns: i64) -> Vec<usize> {
    let wanted = |file: &Found| match file.offset {
        _ if file.name == log => true,
        Some(offset) => offset < file.size,
        None => file.size > 0 && file.modified_ns >= since_ns.saturating_sub(SLACK_NS),
    };
    let mut order: Vec<(usize, &Found)> = found
        .iter()
        .enumerate()
        .filter(|(_, file)| wanted(file))
        .collect();
    order.sort_by_key(|(_, file)| (file.name == log, file.modified_ns));
    order.into_iter().map(|(place, _)| place).collect()
}

/// How many bytes of a file's beginning tell it from others: up to the end of its
/// first line that says something. `None` where that has not come yet.
#[must_use]
pub fn fingerprint_length(head: &[u8]) -> Option<usize> {
    if head.len() >= LINE_MAX_BYTES {
        return Some(LINE_MAX_BYTES);
    }
    let mut length = 0_usize;
    for line in head.split_inclusive(|b| *b == b'\n') {
        length = length.saturating_add(line.len());
        if !says_nothing(line) {
            return line.ends_with(b"\n").then_some(length);
        }
    }
    None
}

/// The fingerprint of a file's beginning.
#[must_use]
pub fn fingerprint(head: &[u8]) -> [u8; 32] {
    Sha256::digest(head).into()
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    const SINCE_NS: i64 = 1_795_000_000_000_000_000;

    fn found(name: &str, size: u64, minutes: i64, offset: Option<u64>) -> Found {
        Found {
            name: name.into(),
            size,
            modified_ns: SINCE_NS + minutes * 60_000_000_000,
            offset,
        }
    }

    #[track_caller]
    fn check(files: &[Found], expected: &[&str]) {
        let names: Vec<&str> = to_read("usage.log", files, SINCE_NS)
            .into_iter()
            .map(|place| files[place].name.as_str())
            .collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn what_is_not_read_to_its_end_comes_first() {
        check(&[found("usage.log", 0, 5, None)], &["usage.log"]);
        check(
            &[
                found("usage.log", 9, 3, None),
                found("usage.log.1", 9, 2, None),
                found("usage.log.2", 9, 1, Some(3)),
                found("usage.log.3", 9, 0, Some(9)),
                found("usage.log.4", 9, -99, None),
            ],
            &["usage.log.2", "usage.log.1", "usage.log"],
        );
        // The log is the last, even where its rotated file is written to on.
        check(
            &[
                found("usage.log", 9, 1, Some(9)),
                found("usage.log-20261127", 9, 2, Some(3)),
            ],
            &["usage.log-20261127", "usage.log"],
        );
        check(&[found("usage.log.1", 0, 2, None)], &[]);
        check(&[found("usage.log.1", 1, -9, None)], &["usage.log.1"]);
    }

    #[test]
    fn only_the_logs_own_files_are_its() {
        let check = |name: &str, expected: bool| {
            assert_eq!(is_rotated("usage.log", name), expected, "{name}");
        };
        check("usage.log.1", true);
        check("usage.log-20261127", true);
        for other in ["usage.log", "usage.log2", "usage.log.1.gz", "other.log.1"] {
            check(other, false);
        }
    }

    #[test]
    fn a_file_begins_with_its_first_line_that_says_something() {
        let check = |head: &str, expected: Option<usize>| {
            assert_eq!(fingerprint_length(head.as_bytes()), expected, "{head}");
        };
        check("", None);
        check("W1 ", None);
        check("-\n-\n", None);
        check("W1 x\n", Some(5));
        check("W1 x\nW1 y\n", Some(5));
        check("-\n\nW1 x\nW1 y", Some(8));
        let long = vec![b'x'; LINE_MAX_BYTES + 1];
        assert_eq!(fingerprint_length(&long), Some(LINE_MAX_BYTES));
        assert_ne!(fingerprint(b"a\n"), fingerprint(b"b\n"));
    }
}
