//! The command `backfill`: files of CloudEvents, line by line.

use std::{
    io::{self, Read as _},
    process::ExitCode,
};

use anyhow::Context as _;
use indicatif::ProgressBar;
use serde::Serialize;
use weir_meter_core::log::lines::{Line, Lines};

use super::{progress, table};
use crate::{
    operations::{Backfill, Backfilled, LINES_MAX, Operation},
    reach::Reach,
    replay::{BLOCK_BYTES, open, size},
};

/// The most bytes of lines in one call; a line has a mebibyte at the most.
const BATCH_MAX_BYTES: usize = 2 << 20;

/// The most places that are named.
const NAMED_MAX: u64 = 20;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    admin: super::Admin,
    /// The producer whose events these all are; the operator's own word else.
    #[arg(long = "as", value_name = "PRODUCER")]
    producer: Option<String>,
    /// Only say what would come of it.
    #[arg(long)]
    dry_run: bool,
    /// CloudEvents, one JSON in a line, as they stand on the stream; `-` is the standard
    /// input.
    #[arg(required = true)]
    files: Vec<String>,
}

/// What it came to.
#[derive(Debug, Default, Serialize)]
struct Sum {
    lines: u64,
    events: u64,
    accepted: u64,
    quarantined: u64,
    invalid: u64,
    dry_run: bool,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut work = Work {
        reach: Reach::open(&arguments.admin.config).await?,
        bar: progress::bytes(size(&arguments.files)),
        producer: arguments.producer,
        lines: Vec::new(),
        places: Vec::new(),
        bytes: 0,
        named: 0,
        sum: Sum {
            dry_run: arguments.dry_run,
            ..Sum::default()
        },
    };
    for file in &arguments.files {
        work.read(file).await?;
    }
    work.send().await?;
    work.bar.finish_and_clear();
    if let Reach::Offline { parts, .. } = &work.reach {
        parts.books.book_all().await?;
    }
    let sum = &work.sum;
    let is_whole = sum.quarantined == 0 && sum.invalid == 0;
    table::show(
        &serde_json::to_value(sum)?,
        arguments.admin.json,
        |_| match sum.dry_run {
            true => format!("nothing was brought in; it would be: {}\n", sum.text()),
            false => format!("{}\n", sum.text()),
        },
    )?;
    Ok(if is_whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Sum {
    fn text(&self) -> String {
        format!(
            "lines: {}, events: {}, accepted: {}, quarantined: {}, invalid: {}",
            self.lines, self.events, self.accepted, self.quarantined, self.invalid
        )
    }
}

struct Work {
    reach: Reach,
    bar: ProgressBar,
    producer: Option<String>,
    /// What is sent next, and where each line stood.
    lines: Vec<String>,
    places: Vec<String>,
    bytes: usize,
    /// Places that were named.
    named: u64,
    sum: Sum,
}

impl Work {
    async fn read(&mut self, file: &str) -> anyhow::Result<()> {
        let mut from: Box<dyn io::Read> = match file {
            "-" => Box::new(io::stdin()),
            path => Box::new(open(path).with_context(|| path.to_owned())?),
        };
        let mut lines = Lines::default();
        let mut block = vec![0; BLOCK_BYTES];
        let mut number = 0_u64;
        loop {
            let length = match from.read(&mut block) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).with_context(|| file.to_owned()),
            };
            let mut take = |line: Line<'_>| {
                number = number.saturating_add(1);
                self.take(format!("{file}:{number}"), &line);
            };
            if length == 0 {
                lines.finish(&mut take);
                return Ok(());
            }
            lines.feed(block.get(..length).unwrap_or_default(), &mut take);
            self.bar.inc(u64::try_from(length).unwrap_or(0));
            // A block has no more than a few thousand short lines.
            if self.bytes >= BATCH_MAX_BYTES / 2 || self.lines.len() >= LINES_MAX {
                self.send().await?;
            }
        }
    }

    fn take(&mut self, place: String, line: &Line<'_>) {
        if line.bytes.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        self.sum.lines = self.sum.lines.saturating_add(1);
        match str::from_utf8(line.bytes) {
            Ok(text) if !line.is_cut() => {
                self.bytes = self.bytes.saturating_add(text.len());
                self.lines.push(text.trim().to_owned());
                self.places.push(place);
            }
            _ => {
                self.sum.invalid = self.sum.invalid.saturating_add(1);
                self.name(&place, "too long, or not UTF-8");
            }
        }
    }

    /// Says what is wrong, for the first few.
    fn name(&mut self, place: &str, reason: &str) {
        self.named = self.named.saturating_add(1);
        if self.named <= NAMED_MAX {
            self.bar.suspend(|| eprintln!("{place}: {reason}"));
        }
    }

    async fn send(&mut self) -> anyhow::Result<()> {
        let (lines, places) = (
            std::mem::take(&mut self.lines),
            std::mem::take(&mut self.places),
        );
        self.bytes = 0;
        for (lines, places) in lines.chunks(LINES_MAX).zip(places.chunks(LINES_MAX)) {
            let backfill = Backfill {
                lines: lines.to_vec(),
                producer: self.producer.clone(),
                dry_run: self.sum.dry_run,
            };
            let answer = self.reach.insist(Operation::Backfill(backfill)).await?;
            let answer: Backfilled = serde_json::from_value(answer)?;
            let sum = &mut self.sum;
            for (to, n) in [
                (&mut sum.events, answer.events),
                (&mut sum.accepted, answer.accepted),
                (&mut sum.quarantined, answer.quarantined),
                (
                    &mut sum.invalid,
                    u64::try_from(answer.invalid.len()).unwrap_or(u64::MAX),
                ),
            ] {
                *to = to.saturating_add(n);
            }
            for named in answer.invalid.iter().chain(&answer.reasons) {
                let place = places.get(named.line).map_or("", String::as_str);
                self.name(place, &named.reason);
            }
        }
        Ok(())
    }
}
