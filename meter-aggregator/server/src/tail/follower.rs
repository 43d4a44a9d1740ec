//! One log through all of its rotations, a step at a time.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use weir_meter_core::log::{
    lines::{Line, Lines},
    rotation::{Found, is_rotated, to_read},
    sift::sift,
};
use weir_meter_store::{
    ledger::{FileId, Mark},
    stream::Aside,
};
use weir_wire::{proto::usage::UsageEvent, usage::line::LineKey};

use super::{
    file::{Came, Open, identify, modified_ns},
    state::LogState,
};

/// How long a rotated file must not have grown before it counts as whole.
const QUIET_MS: i64 = 5_000;

/// How often the folder is looked through, beside when the log is another file.
const SCAN_EVERY_MS: i64 = 5_000;

/// The most files that are open at a time.
const OPEN_MAX: usize = 16;

/// The most files that are remembered for not having to be read.
const DONE_MAX: usize = 1_000;

/// The most blocks of one file that are looked through for the end of a line in a step.
const BLOCKS_MAX: usize = 8;

/// What a step came to.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing new.
    Idle,
    /// These files are to be read, and to be known for that before they are.
    Begun(Vec<(FileId, Mark)>),
    /// Whole lines of a file.
    Read(Block),
}

/// Whole lines, and how far they go.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) id: FileId,
    /// How far the file is read with it.
    pub(super) mark: Mark,
    /// Events that the producer signed, each with its place.
    pub(super) events: Vec<(UsageEvent, String)>,
    /// What is no event.
    pub(super) aside: Vec<Aside>,
    /// Bytes of the lines, ends included.
    pub(super) bytes: u64,
}

/// The reader of a log.
pub(super) struct Follower {
    path: PathBuf,
    /// Logs that are followed, too: no files of this one.
    others: Vec<PathBuf>,
    keys: [LineKey; 1],
    /// As the ledger has it.
    known: BTreeMap<FileId, Mark>,
    first_looked_ns: i64,
    /// Oldest first, the log itself last.
    open: Vec<Open>,
    /// Device and inode of what had the log's name when the folder was looked through.
    log: Option<(u64, u64)>,
    /// Files that need not be read, as they were: size and time.
    done: BTreeMap<(u64, u64), (u64, i64)>,
    scan_ms: i64,
    buffer: Vec<u8>,
}

impl Follower {
    pub(super) fn new(
        path: &Path,
        others: impl Iterator<Item = PathBuf>,
        key: LineKey,
        known: Vec<(FileId, Mark)>,
        first_looked_ns: i64,
    ) -> Self {
        Self {
            path: path.to_owned(),
            others: others.filter(|other| other != path).collect(),
            keys: [key],
            known: known.into_iter().collect(),
            first_looked_ns,
            open: Vec::new(),
            log: None,
            done: BTreeMap::new(),
            scan_ms: i64::MIN,
            buffer: Vec::new(),
        }
    }

    /// Looks for what is next.
    pub(super) fn step(&mut self, now_ms: i64, state: &LogState) -> anyhow::Result<Step> {
        let log = self.log_metadata()?;
        let is_another = self.log != log.as_ref().map(|m| (m.dev(), m.ino()));
        let has_begun = self.open.iter().any(|open| open.is_log);
        let may_begin = !has_begun && log.as_ref().is_some_and(|m| m.len() > 0);
        let is_due = now_ms.saturating_sub(self.scan_ms) >= SCAN_EVERY_MS;
        if is_another || may_begin || is_due {
            let begun = self.scan(log.as_ref(), now_ms, state)?;
            if !begun.is_empty() {
                return Ok(Step::Begun(begun));
            }
        }
        let log_bytes = log.map_or(0, |m| m.len());
        for place in 0..self.open.len() {
            if let Some(block) = self.read(place, log_bytes > 0, now_ms, state)? {
                return Ok(Step::Read(block));
            }
        }
        let (path, open) = (&self.path, &mut self.open);
        let done = &mut self.done;
        let before = open.len();
        open.retain(|open| {
            let is_read = is_whole(open, log_bytes > 0, now_ms) && open.behind() == 0;
            if is_read {
                tracing::info!(log = %path.display(), file = open.name, "a rotated file was read to its end");
                let stamp = (open.lines.read_to(), open.modified_ns);
                done.insert((open.id.device, open.id.inode), stamp);
            }
            !is_read
        });
        if self.open.len() < before {
            // There may be others that wait for their turn.
            self.scan_ms = i64::MIN;
        }
        let behind = self
            .open
            .iter()
            .map(Open::behind)
            .fold(0, u64::saturating_add);
        state.behind(behind, self.log.is_none() && self.open.is_empty());
        Ok(Step::Idle)
    }

    /// The ledger has that mark.
    pub(super) fn marked(&mut self, id: FileId, mark: Mark) {
        self.known.insert(id, mark);
    }

    /// Goes back to what the ledger has: what was read since then was not taken.
    pub(super) fn rewind(&mut self) {
        for open in &mut self.open {
            let offset = self.known.get(&open.id).map_or(0, |mark| mark.offset);
            open.lines = Lines::at(offset);
        }
    }

    /// What has the log's name.
    fn log_metadata(&self) -> anyhow::Result<Option<Metadata>> {
        match fs::metadata(&self.path) {
            Ok(metadata) if metadata.is_file() => Ok(Some(metadata)),
            Ok(_) => bail!("{} is no file", self.path.display()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| self.path.display().to_string()),
        }
    }

    /// Looks the folder through. Gives the files that are read from now on and were
    /// not known.
    fn scan(
        &mut self,
        log: Option<&Metadata>,
        now_ms: i64,
        state: &LogState,
    ) -> anyhow::Result<Vec<(FileId, Mark)>> {
        let log_name = file_name(&self.path);
        self.log = log.map(|m| (m.dev(), m.ino()));
        if self.done.len() > DONE_MAX {
            self.done.clear();
        }
        for open in &mut self.open {
            let is_log = self.log == Some((open.id.device, open.id.inode));
            if open.is_log && !is_log {
                open.grown_ms = now_ms;
            }
            open.is_log = is_log;
        }
        let mut candidates = Vec::new();
        for name in self.names(&log_name)? {
            if let Some(candidate) = self.candidate(name, &log_name, state)? {
                candidates.push(candidate);
            }
        }
        let newest_ns = self.known.values().map(|mark| mark.modified_ns).max();
        let found: Vec<Found> = candidates.iter().map(|c| c.found.clone()).collect();
        let order = to_read(&log_name, &found, newest_ns.unwrap_or(self.first_looked_ns));
        let mut begun = Vec::new();
        let mut candidates: Vec<Option<Candidate>> = candidates.into_iter().map(Some).collect();
        for place in order {
            let Some(candidate) = candidates.get_mut(place).and_then(Option::take) else {
                continue;
            };
            let mark = self.known.get(&candidate.id).copied().unwrap_or(Mark {
                offset: 0,
                modified_ns: candidate.found.modified_ns,
            });
            if !self.known.contains_key(&candidate.id) {
                begun.push((candidate.id, mark));
            }
            if self.open.len() < OPEN_MAX {
                let mut open = Open::new(candidate.id, &candidate.found.name, candidate.file, mark);
                open.is_log = candidate.found.name == log_name;
                open.grown_ms = now_ms;
                self.open.push(open);
            }
        }
        for candidate in candidates.into_iter().flatten() {
            let (id, found) = (candidate.id, candidate.found);
            let stamp = (found.size, found.modified_ns);
            self.done.insert((id.device, id.inode), stamp);
        }
        self.open
            .sort_by_key(|open| (open.is_log, open.modified_ns));
        self.scan_ms = now_ms;
        Ok(begun)
    }

    /// Names of the log's files.
    fn names(&self, log_name: &str) -> anyhow::Result<Vec<String>> {
        let folder = match self.path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| folder.display().to_string()),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let is_others = self.others.contains(&folder.join(&name));
            if name == log_name || (is_rotated(log_name, &name) && !is_others) {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// A file that is not read yet and may have to be.
    fn candidate(
        &mut self,
        name: String,
        log_name: &str,
        state: &LogState,
    ) -> anyhow::Result<Option<Candidate>> {
        let path = self.path.with_file_name(&name);
        let is_log = name == log_name;
        let metadata = if is_log {
            fs::metadata(&path)
        } else {
            fs::symlink_metadata(&path)
        };
        // It may have gone since the folder was listed.
        let Some(metadata) = metadata.ok().filter(Metadata::is_file) else {
            return Ok(None);
        };
        let key = (metadata.dev(), metadata.ino());
        if let Some(open) = self
            .open
            .iter_mut()
            .find(|o| (o.id.device, o.id.inode) == key)
        {
            open.name = name;
            return Ok(None);
        }
        let stamp = (metadata.len(), modified_ns(&metadata));
        if !is_log && self.done.get(&key) == Some(&stamp) {
            return Ok(None);
        }
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        // What was opened may be another than what was looked at.
        let metadata = file.metadata()?;
        let Some(id) = identify(&file, &metadata, self.known.keys(), !is_log)? else {
            return Ok(None);
        };
        let mut offset = self.known.get(&id).map(|mark| mark.offset);
        if offset.is_some_and(|offset| offset > metadata.len()) {
            state.truncated(&format!("{} is shorter than before", path.display()));
            self.known.remove(&id);
            offset = None;
        }
        let found = Found {
            name,
            size: metadata.len(),
            modified_ns: modified_ns(&metadata),
            offset,
        };
        Ok(Some(Candidate { found, id, file }))
    }

    /// Reads on in one file, until a line ends or nothing more has come.
    fn read(
        &mut self,
        place: usize,
        has_new: bool,
        now_ms: i64,
        state: &LogState,
    ) -> anyhow::Result<Option<Block>> {
        let Some(open) = self.open.get_mut(place) else {
            return Ok(None);
        };
        let path = self.path.with_file_name(&open.name);
        let begin = open.lines.ended_at();
        let mut sifting = Sifting::new(&path, open.id, &self.keys);
        for _ in 0..BLOCKS_MAX {
            match open.read(&mut self.buffer)? {
                Came::Truncated => {
                    state.truncated(&format!("{} was truncated", path.display()));
                    // What stands there now is read from its beginning.
                    let gone = self.open.remove(place);
                    self.known.remove(&gone.id);
                    self.log = None;
                    return Ok(None);
                }
                Came::Bytes(0) => {
                    if is_whole(open, has_new, now_ms) {
                        open.lines.finish(|line| sifting.take(&line));
                    }
                    break;
                }
                Came::Bytes(_) => {
                    open.grown_ms = now_ms;
                    open.lines.feed(&self.buffer, |line| sifting.take(&line));
                    if open.lines.ended_at() > begin {
                        break;
                    }
                }
            }
        }
        let offset = open.lines.ended_at();
        Ok((offset > begin).then(|| Block {
            id: open.id,
            mark: Mark {
                offset,
                modified_ns: open.modified_ns,
            },
            events: sifting.events,
            aside: sifting.aside,
            bytes: offset.saturating_sub(begin),
        }))
    }
}

/// Whether nothing will be added to a file any more.
fn is_whole(open: &Open, has_new: bool, now_ms: i64) -> bool {
    !open.is_log && has_new && now_ms.saturating_sub(open.grown_ms) >= QUIET_MS
}

struct Candidate {
    found: Found,
    id: FileId,
    file: File,
}

/// What lines come to, with their places.
struct Sifting<'a> {
    path: &'a Path,
    /// What tells the file from others, in a place's words.
    file: String,
    keys: &'a [LineKey],
    events: Vec<(UsageEvent, String)>,
    aside: Vec<Aside>,
}

impl<'a> Sifting<'a> {
    fn new(path: &'a Path, id: FileId, keys: &'a [LineKey]) -> Self {
        let mut file = format!("{:x}.{:x}.", id.device, id.inode);
        for byte in id.fingerprint.iter().take(8) {
            file.push_str(&format!("{byte:02x}"));
        }
        Self {
            path,
            file,
            keys,
            events: Vec::new(),
            aside: Vec::new(),
        }
    }

    fn take(&mut self, line: &Line<'_>) {
        let sifted = sift(line, self.keys);
        let place = |kind: char, n: usize| format!("{}@{}{kind}{n}", self.file, line.at);
        for (n, (_, event)) in sifted.events.into_iter().enumerate() {
            self.events.push((*event, place('e', n)));
        }
        for (n, aside) in sifted.aside.into_iter().enumerate() {
            self.aside.push(Aside {
                bytes: aside.bytes,
                reason: format!(
                    "{}, the line at byte {}: {}",
                    self.path.display(),
                    line.at,
                    aside.why
                ),
                place: Some(place('p', n)),
                number: None,
            });
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}
