//! The audit log on disk: lines are added at its end, and are on disk before it is
//! gone on.

use std::{
    fs,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use weir_router_core::directory::audit::{self, Entry, FileIs, State, TAIL_BYTES};
use weir_wire::timestamp::Timestamp;

use super::{DirectoryError, place};

/// A log that is open for its one writer.
pub struct Log {
    path: PathBuf,
    file: fs::File,
}

impl Log {
    /// Opens it, or begins it beside the directory's file.
    pub fn open(path: &Path, directory: &Path) -> Result<Self, DirectoryError> {
        let file = place::open_beside(path, directory, |options| {
            options.read(true).append(true);
        });
        let file = file.map_err(|e| DirectoryError::io(path, "opened", e))?;
        let path = path.to_owned();
        Ok(Self { path, file })
    }

    /// Says what became of a change that a killed writer left open, where the file
    /// is this one now, and what is about to be done.
    pub fn intend(
        &mut self,
        now_is: &FileIs,
        entries: &[Entry],
        now: Timestamp,
    ) -> Result<(), DirectoryError> {
        let intended = self.tail().and_then(|tail| {
            let mut all: Vec<Entry> = audit::open(&tail)
                .iter()
                .map(|open| open.turned(open.outcome(now_is), now))
                .collect();
            all.extend_from_slice(entries);
            self.append(&tail, &all)
        });
        intended.map_err(|e| DirectoryError::io(&self.path, "written", e))
    }

    /// Says what became of a change of this writer's.
    pub fn turned(&mut self, entries: &[Entry], state: State, now: Timestamp) -> io::Result<()> {
        let turned: Vec<Entry> = entries.iter().map(|e| e.turned(state, now)).collect();
        self.append(b"", &turned)
    }

    fn tail(&mut self) -> io::Result<Vec<u8>> {
        let length = self.file.metadata()?.len();
        self.file
            .seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut tail = Vec::new();
        (&self.file).take(TAIL_BYTES).read_to_end(&mut tail)?;
        Ok(tail)
    }

    fn append(&mut self, tail: &[u8], entries: &[Entry]) -> io::Result<()> {
        self.file.write_all(&audit::lines(tail, entries)?)?;
        self.file.sync_all()
    }
}
