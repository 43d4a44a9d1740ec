//! Brings events in from files in which they stand behind a log's prefix: what a
//! gateway could not keep, access logs, and any of these one after the other.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek as _},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use prost::Message as _;
use serde::Serialize;
use weir_meter_core::log::{
    lines::{Line, Lines},
    sift::{says_nothing, sift},
};
use weir_wire::{
    proto::usage::{PublishRequest, PublishResponse, UsageEvent},
    usage::{PROTO_CONTENT_TYPE, PUBLISH_PATH, line::LineKey},
};

use crate::{
    books::Books,
    config::{Producer, ReplaySettings},
    ingest::{response, sort},
    ledger::Ledger,
    service::{ADDRESS_FILE, lock},
    stream::Stream,
};

/// How much of a file is read at a time, in bytes.
const BLOCK_BYTES: usize = 256 << 10;

/// Events in one call.
const BATCH_MAX: usize = 500;

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

/// Reads all files (`-` is the standard input), one after the other.
pub async fn run(settings: ReplaySettings, files: &[String]) -> anyhow::Result<Replayed> {
    let mut replay = Replay {
        keys: settings
            .producers
            .iter()
            .map(|producer| LineKey::of_token(&producer.token))
            .collect(),
        way: Way::open(&settings)?,
        settings,
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

/// How compressed files begin: gzip, Zstandard, xz, bzip2.
const COMPRESSED: [&[u8]; 4] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh"];

/// Opens a log. In a compressed one no line would be found, which must not look as
/// if all were well.
fn open(path: &str) -> anyhow::Result<File> {
    let mut file = File::open(path)?;
    let mut begin = Vec::new();
    file.by_ref().take(8).read_to_end(&mut begin)?;
    if COMPRESSED.iter().any(|magic| begin.starts_with(magic)) {
        bail!("is compressed: zcat {path} | meter-aggregator replay --config ... -");
    }
    file.rewind()?;
    Ok(file)
}

/// Where events go.
enum Way {
    /// To the aggregator that runs.
    Running { http: reqwest::Client, url: String },
    /// Into the data folder, which nobody else has.
    Offline {
        stream: Stream,
        books: Books,
        _lock: File,
    },
}

impl Way {
    fn open(settings: &ReplaySettings) -> anyhow::Result<Self> {
        let folder = &settings.data_dir;
        if !folder.is_dir() {
            bail!("data_dir: no aggregator has run on {}", folder.display());
        }
        if let Ok(lock) = lock(folder) {
            let stream = Stream::open(folder)?;
            let books = Books::new(Ledger::open(folder)?, stream.reader()?);
            return Ok(Self::Offline {
                stream,
                books,
                _lock: lock,
            });
        }
        let path = folder.join(ADDRESS_FILE);
        let address = std::fs::read_to_string(&path)
            .with_context(|| format!("data_dir: {} can't be read", path.display()))?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(30))
            .build()?;
        Ok(Self::Running {
            http,
            url: format!("http://{address}{PUBLISH_PATH}"),
        })
    }

    /// Returns once the events are durable; how many were taken, and set aside.
    async fn send(
        &self,
        events: Vec<UsageEvent>,
        producer: &Producer,
        settings: &ReplaySettings,
    ) -> anyhow::Result<PublishResponse> {
        match self {
            Self::Running { http, url } => publish(http, url, events, producer).await,
            Self::Offline { stream, .. } => {
                let batch = sort(events, producer, &settings.keys, |_| None);
                let answer = response(&batch);
                stream.append(batch).await?;
                Ok(answer)
            }
        }
    }
}

/// Sends a batch until it is taken.
async fn publish(
    http: &reqwest::Client,
    url: &str,
    events: Vec<UsageEvent>,
    producer: &Producer,
) -> anyhow::Result<PublishResponse> {
    let body = PublishRequest { events }.encode_to_vec();
    let begun = Instant::now();
    loop {
        let answer = http
            .post(url)
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

struct Replay {
    settings: ReplaySettings,
    /// The producers', in their order.
    keys: Vec<LineKey>,
    way: Way,
    /// By producer.
    waiting: BTreeMap<usize, Vec<UsageEvent>>,
    replayed: Replayed,
}

impl Replay {
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
                eprintln!(
                    "{}, the line at byte {at}: {}",
                    Path::new(name).display(),
                    torn.why
                );
            }
        }
    }

    async fn send_all(&mut self) -> anyhow::Result<()> {
        for (key, mut events) in std::mem::take(&mut self.waiting) {
            let Some(producer) = self.settings.producers.get(key) else {
                continue;
            };
            while !events.is_empty() {
                let rest = events.split_off(events.len().min(BATCH_MAX));
                let answer = self.way.send(events, producer, &self.settings).await?;
                let replayed = &mut self.replayed;
                replayed.accepted = replayed.accepted.saturating_add(answer.accepted.into());
                replayed.quarantined = replayed
                    .quarantined
                    .saturating_add(answer.quarantined.into());
                events = rest;
            }
        }
        if let Way::Offline { books, .. } = &self.way {
            books.book_all().await?;
        }
        Ok(())
    }
}
