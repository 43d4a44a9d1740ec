//! Brings events in from files in which they stand behind a log's prefix: what a
//! gateway could not keep, access logs, and any of these one after the other.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use indicatif::ProgressBar;
use prost::Message as _;
use serde::Serialize;
use weir_meter_core::log::{
    lines::{Line, Lines},
    sift::{says_nothing, sift},
};
use weir_meter_store::stream::Way;
use weir_wire::{
    proto::usage::{PublishRequest, PublishResponse, UsageEvent},
    usage::{PROTO_CONTENT_TYPE, PUBLISH_PATH, line::LineKey},
};

use crate::{
    config::Producer,
    reach::{Reach, Running},
};

/// How much of a file is read at a time, in bytes.
pub const BLOCK_BYTES: usize = 256 << 10;

/// Events in one call.
const BATCH_MAX: usize = 500;

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// How long it is tried to send one batch.
const PATIENCE: Duration = Duration::from_secs(120);

/// The most torn places that are named.
const NAMED_MAX: u64 = 20;

/// What a replay came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// Lines that were read, empty ones not counted.
    pub lines: u64,
    /// Events that stood there.
    pub events: u64,
    /// Events that were taken, whether they were known or not.
    pub accepted: u64,
    /// Events that were set aside.
    pub quarantined: u64,
    /// What begins as an event and is none.
    pub torn: u64,
}

/// Reads all files (`-` is the standard input), one after the other, and moves the bar
/// by their bytes.
pub async fn run(
    reach: &Reach,
    producers: Vec<Producer>,
    files: &[String],
    bar: &ProgressBar,
) -> anyhow::Result<Replayed> {
    let mut replay = Replay {
        reach,
        keys: producers
            .iter()
            .map(|producer| LineKey::of_token(&producer.token))
            .collect(),
        producers,
        bar,
        waiting: BTreeMap::new(),
        replayed: Replayed::default(),
    };
    for file in files {
        let from: Box<dyn Read> = match file.as_str() {
            "-" => Box::new(io::stdin()),
            path => Box::new(open(path).with_context(|| path.to_owned())?),
        };
        replay.read(file, from).await?;
    }
    replay.send_all().await?;
    Ok(replay.replayed)
}

/// Bytes of all files, where that can be known.
pub fn size(files: &[String]) -> Option<u64> {
    files.iter().try_fold(0_u64, |sum, file| {
        let metadata = std::fs::metadata(file).ok().filter(|m| m.is_file())?;
        Some(sum.saturating_add(metadata.len()))
    })
}

/// How compressed files begin: gzip, Zstandard, xz, bzip2.
const COMPRESSED: [&[u8]; 4] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh"];

/// Opens a log. In a compressed one no line would be found, which must not look as
/// if all were well.
pub fn open(path: &str) -> anyhow::Result<File> {
    let mut file = File::open(path)?;
    let mut begin = Vec::new();
    file.by_ref().take(8).read_to_end(&mut begin)?;
    if COMPRESSED.iter().any(|magic| begin.starts_with(magic)) {
        bail!("is compressed: zcat {path} | meter-aggregator ... -");
    }
    file.rewind()?;
    Ok(file)
}

/// Returns once the events are durable; how many were taken, and set aside.
async fn send(
    reach: &Reach,
    events: Vec<UsageEvent>,
    producer: &Producer,
) -> anyhow::Result<PublishResponse> {
    match reach {
        Reach::Running(running) => publish(running, events, producer).await,
        Reach::Offline { parts, .. } => Ok(parts.take(events, producer, Way::Replay).await?),
    }
}

/// Sends a batch until it is taken.
async fn publish(
    running: &Running,
    events: Vec<UsageEvent>,
    producer: &Producer,
) -> anyhow::Result<PublishResponse> {
    let body = PublishRequest { events }.encode_to_vec();
    let begun = Instant::now();
    loop {
        let answer = running
            .http()
            .post(running.url(PUBLISH_PATH)?)
            .timeout(ANSWER_MAX)
            .bearer_auth(&producer.token)
            .header(reqwest::header::CONTENT_TYPE, PROTO_CONTENT_TYPE)
            .body(body.clone())
            .send()
            .await;
        let problem = match answer {
            Ok(answer) if answer.status().is_success() => {
                return Ok(PublishResponse::decode(answer.bytes().await?)?);
            }
            Ok(answer) => {
                let status = answer.status();
                let text = answer.text().await.unwrap_or_default();
                let problem = format!("the aggregator answered {status}: {}", text.trim());
                if !(status.as_u16() == 429 || status.is_server_error()) {
                    bail!(problem);
                }
                problem
            }
            Err(error) => format!("{:#}", anyhow::Error::new(error)),
        };
        if begun.elapsed() > PATIENCE {
            bail!(problem);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

struct Replay<'a> {
    reach: &'a Reach,
    producers: Vec<Producer>,
    /// The producers', in their order.
    keys: Vec<LineKey>,
    bar: &'a ProgressBar,
    /// By producer.
    waiting: BTreeMap<usize, Vec<UsageEvent>>,
    replayed: Replayed,
}

impl Replay<'_> {
    async fn read(&mut self, name: &str, mut from: Box<dyn Read>) -> anyhow::Result<()> {
        let mut lines = Lines::default();
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let length = match from.read(&mut block) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).with_context(|| name.to_owned()),
            };
            if length == 0 {
                lines.finish(|line| self.take(name, &line));
                return Ok(());
            }
            let read = block.get(..length).unwrap_or_default();
            lines.feed(read, |line| self.take(name, &line));
            self.bar.inc(u64::try_from(length).unwrap_or(0));
            if self
                .waiting
                .values()
                .any(|events| events.len() >= BATCH_MAX)
            {
                self.send_all().await?;
            }
        }
    }

    /// Text that is no event is what a log writes before one.
    fn take(&mut self, name: &str, line: &Line<'_>) {
        if says_nothing(line.bytes) {
            return;
        }
        let add = |to: &mut u64, n: usize| *to = to.saturating_add(n as u64);
        let sifted = sift(line, &self.keys);
        add(&mut self.replayed.lines, 1);
        add(&mut self.replayed.events, sifted.events.len());
        for (key, event) in sifted.events {
            self.waiting.entry(key).or_default().push(*event);
        }
        for torn in sifted.aside.iter().filter(|aside| aside.is_torn) {
            add(&mut self.replayed.torn, 1);
            if self.replayed.torn <= NAMED_MAX {
                let at = line.at;
                self.bar
                    .suspend(|| eprintln!("{name}, the line at byte {at}: {}", torn.why));
            }
        }
    }

    async fn send_all(&mut self) -> anyhow::Result<()> {
        for (key, mut events) in std::mem::take(&mut self.waiting) {
            let Some(producer) = self.producers.get(key) else {
                continue;
            };
            while !events.is_empty() {
                let rest = events.split_off(events.len().min(BATCH_MAX));
                let answer = send(self.reach, events, producer).await?;
                let replayed = &mut self.replayed;
                replayed.accepted = replayed.accepted.saturating_add(answer.accepted.into());
                replayed.quarantined = replayed
                    .quarantined
                    .saturating_add(answer.quarantined.into());
                events = rest;
            }
        }
        if let Reach::Offline { parts, .. } = self.reach {
            parts.books.book_all().await?;
        }
        Ok(())
    }
}
