//! One file of a log: told from all others, and read from where it was left.

use std::{
    fs::{File, Metadata},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
};

use weir_meter_core::log::{
    lines::{LINE_MAX_BYTES, Lines},
    rotation::{fingerprint, fingerprint_length},
};

use weir_meter_store::ledger::{FileId, Mark};

/// How much is read at a time, in bytes.
pub(super) const BLOCK_BYTES: usize = 1 << 20;

/// A file that is being read.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) id: FileId,
    /// Its name when it was last looked up.
    pub(super) name: String,
    /// Whether it is the log itself, and not one that it was rotated to.
    pub(super) is_log: bool,
    pub(super) lines: Lines,
    /// When it had been written to, nanoseconds of the Unix epoch.
    pub(super) modified_ns: i64,
    /// When it was last seen to grow, milliseconds of the Unix epoch.
    pub(super) grown_ms: i64,
    pub(super) file: File,
}

/// What a read came to.
pub(super) enum Came {
    /// So many bytes.
    Bytes(usize),
    /// It is not the file that it was: shorter, or with another beginning.
    Truncated,
}

impl Open {
    pub(super) fn new(id: FileId, name: &str, file: File, mark: Mark) -> Self {
        Self {
            id,
            name: name.to_owned(),
            is_log: false,
            lines: Lines::at(mark.offset),
            modified_ns: mark.modified_ns,
            grown_ms: 0,
            file,
        }
    }

    /// Reads the next block.
    pub(super) fn read(&mut self, block: &mut Vec<u8>) -> io::Result<Came> {
        let from = self.lines.read_to();
        let metadata = self.file.metadata()?;
        let size = metadata.len();
        if size <= from {
            let is_cut = size < from;
            return Ok(if is_cut {
                Came::Truncated
            } else {
                Came::Bytes(0)
            });
        }
        block.resize(BLOCK_BYTES, 0);
        let length = read_at(&self.file, block, from)?;
        block.truncate(length);
        // Looked at after the bytes were read: they are the file's that it still is.
        let end = from.saturating_add(length as u64);
        if !is_still(&self.file, &self.id)? || self.file.metadata()?.len() < end {
            return Ok(Came::Truncated);
        }
        self.modified_ns = modified_ns(&metadata);
        Ok(Came::Bytes(length))
    }

    /// How much of it is not read.
    pub(super) fn behind(&self) -> u64 {
        let size = self.file.metadata().map_or(0, |m| m.len());
        size.saturating_sub(self.lines.read_to())
    }
}

/// Finds out which file it is: one of the known ones, or a new one. `None` where its
/// first line has not come wholly; one that was rotated (`is_whole`) gets no more of it.
pub(super) fn identify<'a>(
    file: &File,
    metadata: &Metadata,
    known: impl Iterator<Item = &'a FileId>,
    is_whole: bool,
) -> io::Result<Option<FileId>> {
    let (device, inode) = (metadata.dev(), metadata.ino());
    for id in known.filter(|id| (id.device, id.inode) == (device, inode)) {
        if is_still(file, id)? {
            return Ok(Some(*id));
        }
    }
    let mut head = vec![0; LINE_MAX_BYTES];
    let length = read_at(file, &mut head, 0)?;
    head.truncate(length);
    let whole = (is_whole && length > 0).then_some(length);
    let Some(length) = fingerprint_length(&head).or(whole) else {
        return Ok(None);
    };
    head.truncate(length);
    Ok(Some(FileId {
        device,
        inode,
        head_bytes: length as u64,
        fingerprint: fingerprint(&head),
    }))
}

fn is_still(file: &File, id: &FileId) -> io::Result<bool> {
    let mut head = vec![0; usize::try_from(id.head_bytes).unwrap_or(LINE_MAX_BYTES)];
    let length = read_at(file, &mut head, 0)?;
    Ok(length == head.len() && fingerprint(&head) == id.fingerprint)
}

/// When a file was last written to, nanoseconds of the Unix epoch.
pub(super) fn modified_ns(metadata: &Metadata) -> i64 {
    metadata
        .mtime()
        .saturating_mul(1_000_000_000)
        .saturating_add(metadata.mtime_nsec())
}

/// Reads until the buffer is full or the file ends.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0_usize;
    while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset.saturating_add(read as u64)) {
            Ok(0) => break,
            Ok(n) => read = read.saturating_add(n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
