//! Real files, the real stream and the real ledger.

#![allow(clippy::arithmetic_side_effects)]

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::PathBuf,
    sync::{OnceLock, atomic::Ordering},
    time::{Duration, UNIX_EPOCH},
};

use prost::Message as _;
use tempfile::TempDir;
use weir_meter_core::{ledger::book, tariff::Tariff};
use weir_meter_store::{
    ledger::{Ledger, Wanted},
    stream::Stream,
};
use weir_wire::{
    context,
    ids::RequestId,
    proto::{
        context::TenantContext,
        usage::{Kind, Outcome, UsageEvent, Witness},
    },
    usage::line,
};

use super::*;
use crate::config::Billing;

const TOKEN: &str = "the gateways' token";

pub(super) fn keyring() -> Keyring {
    Keyring::parse("k:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap()
}

/// Event number `n` of a run.
pub(super) fn event(n: u64) -> UsageEvent {
    // The same in the whole run: an hour may end meanwhile.
    static HOUR_MS: OnceLock<u64> = OnceLock::new();
    let mut random = [0; 10];
    random[..8].copy_from_slice(&n.to_be_bytes());
    let hour_ms = HOUR_MS.get_or_init(|| now_ms() as u64 / 3_600_000 * 3_600_000);
    let request_id = RequestId::mint(*hour_ms, random);
    let signed = TenantContext {
        tenant: "acme".into(),
        plan: "starter".into(),
        request_id: request_id.to_string(),
        issued_at_ms: 0,
    };
    UsageEvent {
        kind: Kind::Request.into(),
        event_id: format!("e{n}"),
        request_id: request_id.to_string(),
        witness: Witness::Gateway.into(),
        tenant: "acme".into(),
        request_class: "chat".into(),
        outcome: Outcome::Completed.into(),
        tenant_context: context::sign(&signed, &keyring()),
        producer_run: "run".into(),
        sequence: n,
        ..UsageEvent::default()
    }
}

/// Its line, without an end.
pub(super) fn text(n: u64) -> String {
    line::write(&event(n).encode_to_vec(), &LineKey::of_token(TOKEN))
}

/// A log, and an aggregator that reads it.
pub(super) struct Fixture {
    pub(super) tail: Tail,
    follower: Option<Follower>,
    pub(super) now_ms: i64,
    pub(super) folder: TempDir,
}

impl Fixture {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            tail: tail(&folder),
            follower: None,
            now_ms: now_ms(),
            folder,
        }
    }

    pub(super) fn log(&self) -> PathBuf {
        self.folder.path().join("usage.log")
    }

    fn named(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn append(&self, name: &str, text: &str) {
        let options = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.named(name));
        options.unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// As logrotate does: `.1` becomes `.2`, and the log `.1`.
    pub(super) fn rotate(&self) {
        for n in (1..20).rev() {
            let _ = fs::rename(
                self.named(&format!("usage.log.{n}")),
                self.named(&format!("usage.log.{}", n + 1)),
            );
        }
        let _ = fs::rename(self.log(), self.named("usage.log.1"));
    }

    /// Everything is closed and opened again, as after a kill.
    pub(super) fn restart(&mut self) {
        self.follower = None;
        self.tail = tail(&self.folder);
    }

    /// Steps until nothing more comes, twice: a truncation is seen by a step that
    /// brings nothing.
    pub(super) async fn read(&mut self) -> anyhow::Result<()> {
        for _ in 0..2 {
            while self.tail.step(&mut self.follower, self.now_ms).await? {}
        }
        Ok(())
    }

    /// Time passes, until a rotated file counts as whole.
    pub(super) async fn settle(&mut self) {
        for _ in 0..3 {
            self.now_ms += 6_000;
            self.read().await.unwrap();
        }
    }

    /// The numbers of booked events, in order.
    pub(super) async fn booked(&self) -> Vec<u64> {
        self.tail.books.book_all().await.unwrap();
        let wanted = Wanted {
            limit: 10_000,
            ..Wanted::default()
        };
        let requests = self
            .tail
            .books
            .look(move |l| l.requests(&wanted, &Tariff::default()))
            .await;
        let mut numbers: Vec<u64> = requests
            .unwrap()
            .iter()
            .map(|r| {
                let id = u128::from_str_radix(&r.request_id.replace('-', ""), 16).unwrap();
                (1..1_000)
                    .find(|n| event(*n).request_id == r.request_id)
                    .unwrap_or(id as u64)
            })
            .collect();
        numbers.sort_unstable();
        numbers
    }

    pub(super) async fn quarantined(&self) -> i64 {
        let books = &self.tail.books;
        books.intake().quarantined().await.unwrap()
    }

    async fn missing(&self) -> u64 {
        self.tail.books.book_all().await.unwrap();
        let later_ms = now_ms() + 60_000;
        let missing = self.tail.books.with(move |l| l.missing(later_ms));
        missing.await.unwrap()
    }

    #[track_caller]
    fn check(&mut self, runtime: &tokio::runtime::Runtime, booked: &[u64], quarantined: i64) {
        runtime.block_on(async {
            self.read().await.unwrap();
            assert_eq!(self.booked().await, booked);
            assert_eq!(self.quarantined().await, quarantined);
        });
    }
}

fn tail(folder: &TempDir) -> Tail {
    let data = folder.path().join("data");
    fs::create_dir_all(&data).unwrap();
    let stream = Stream::open(&data).unwrap();
    let ledger = Ledger::open(&data).unwrap();
    let books = Books::alone(ledger, stream, Billing::default()).unwrap();
    let log = AccessLog {
        path: folder.path().join("usage.log"),
        producer: Producer {
            name: "gateway".into(),
            witness: Witness::Gateway,
            token: TOKEN.into(),
        },
    };
    let state = Arc::new(LogState::new(log.path.clone()));
    let tails = Tail::all(&books, &Arc::new(keyring()), vec![(log, state)]);
    tails.unwrap().pop().unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn lines(numbers: &[u64]) -> String {
    numbers.iter().map(|n| format!("{}\n", text(*n))).collect()
}

#[test]
fn whole_lines_are_taken_and_the_last_part_waits() {
    let (runtime, mut f) = (runtime(), Fixture::new());
    f.check(&runtime, &[], 0);
    assert!(f.tail.state.status().is_waiting);
    let one = text(1);
    let (begin, end) = one.split_at(40);
    f.append("usage.log", begin);
    f.check(&runtime, &[], 0);
    f.append("usage.log", end);
    f.check(&runtime, &[], 0);
    f.append("usage.log", &format!("\n-\n\n{}", lines(&[2])));
    f.check(&runtime, &[1, 2], 0);
    f.restart();
    f.append("usage.log", &lines(&[3]));
    f.check(&runtime, &[1, 2, 3], 0);
    let status = f.tail.state.status();
    assert_eq!((status.events, status.behind_bytes), (1, 0));
    assert!(!status.is_waiting);
}

#[test]
fn what_is_no_event_is_set_aside_with_its_place() {
    let (runtime, mut f) = (runtime(), Fixture::new());
    let torn = &text(9)[..50];
    f.append("usage.log", &format!("{torn}{}", lines(&[1])));
    f.append("usage.log", &format!("GET /\n{}", lines(&[2])));
    let mut old = event(3);
    old.tenant_context.push('x');
    let old = line::write(&old.encode_to_vec(), &LineKey::of_token(TOKEN));
    let strange = line::write(&event(4).encode_to_vec(), &LineKey::of_token("other"));
    f.append("usage.log", &format!("{old}\n{strange}\n"));
    f.append("usage.log", &format!("{}\n", "x".repeat(3 << 20)));
    f.append("usage.log", &lines(&[5]));
    f.check(&runtime, &[1, 2, 5], 5);
    // Of what was set aside nothing is missing where a producer had signed it.
    assert_eq!(runtime.block_on(f.missing()), 1);
    let data = f.folder.path().join("data/stream.db");
    let reasons: Vec<String> = rusqlite::Connection::open(data)
        .unwrap()
        .prepare("SELECT reason FROM quarantine")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let log = f.log().display().to_string();
    for reason in [
        "the line at byte 0: ",
        "it is no event",
        "no producer",
        "1 MiB",
    ] {
        let found = reasons.iter().find(|r| r.contains(reason));
        assert!(found.unwrap().starts_with(&log), "{reasons:?}");
    }
}

#[test]
fn a_rotated_file_is_read_to_its_end() {
    let (runtime, mut f) = (runtime(), Fixture::new());
    f.append("usage.log", &lines(&[1]));
    f.check(&runtime, &[1], 0);
    f.append("usage.log", &lines(&[2]));
    f.rotate();
    f.check(&runtime, &[1, 2], 0);
    // The gateway has not opened the new one yet.
    f.append("usage.log.1", &lines(&[3]));
    f.check(&runtime, &[1, 2, 3], 0);
    f.append("usage.log", &lines(&[4]));
    f.append("usage.log.1", &lines(&[5]));
    f.append("usage.log.1", &text(6));
    f.check(&runtime, &[1, 2, 3, 4, 5], 0);
    // Its last line was never ended, and is whole.
    runtime.block_on(f.settle());
    f.check(&runtime, &[1, 2, 3, 4, 5, 6], 0);
    assert!(f.follower.is_some());
    f.append("usage.log", &lines(&[7]));
    f.check(&runtime, &[1, 2, 3, 4, 5, 6, 7], 0);
    assert_eq!(runtime.block_on(f.missing()), 0);
}

#[test]
fn several_rotations_while_nobody_reads() {
    let (runtime, mut f) = (runtime(), Fixture::new());
    // Older than anything that was looked for.
    f.append("usage.log.9", &lines(&[90]));
    let long_ago = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let file = File::options().append(true).open(f.named("usage.log.9"));
    file.unwrap().set_modified(long_ago).unwrap();
    f.append("usage.log", &lines(&[1]));
    f.check(&runtime, &[1], 0);
    f.append("usage.log", &lines(&[2]));
    f.rotate();
    f.append("usage.log", &lines(&[3]));
    f.rotate();
    f.append("usage.log", &format!("{}{}", lines(&[4]), &text(5)[..30]));
    f.rotate();
    f.append("usage.log", &lines(&[6]));
    f.append("usage.log.7.gz", &lines(&[70]));
    f.append("usage.logs", &lines(&[71]));
    f.restart();
    f.check(&runtime, &[1, 2, 3, 4, 6], 0);
    runtime.block_on(f.settle());
    f.check(&runtime, &[1, 2, 3, 4, 6], 1);
    assert_eq!(runtime.block_on(f.missing()), 1);
    // It comes by another way.
    f.append("usage.log", &lines(&[5]));
    f.check(&runtime, &[1, 2, 3, 4, 5, 6], 1);
    assert_eq!(runtime.block_on(f.missing()), 0);
}

#[test]
fn a_truncated_log_is_told_and_read_on() {
    let (runtime, mut f) = (runtime(), Fixture::new());
    f.append("usage.log", &lines(&[1, 2]));
    f.check(&runtime, &[1, 2], 0);
    // Shorter, and with another beginning.
    File::create(f.log()).unwrap();
    f.append("usage.log", &lines(&[3]));
    f.check(&runtime, &[1, 2, 3], 0);
    let told = f.tail.state.status().truncated.unwrap();
    assert!(told.contains("usage.log was truncated"), "{told}");
    // Longer than before at once: only its beginning says so.
    File::create(f.log()).unwrap();
    f.append("usage.log", &lines(&[4, 5, 6]));
    f.check(&runtime, &[1, 2, 3, 4, 5, 6], 0);
    // The same beginning, and shorter.
    let file = File::options().write(true).open(f.log()).unwrap();
    file.set_len(text(4).len() as u64 + 1).unwrap();
    f.append("usage.log", &lines(&[7]));
    f.check(&runtime, &[1, 2, 3, 4, 5, 6, 7], 0);
    // While nobody read.
    file.set_len(text(4).len() as u64 + 1).unwrap();
    f.restart();
    f.check(&runtime, &[1, 2, 3, 4, 5, 6, 7], 0);
    assert!(f.tail.state.status().truncated.is_some());
}

#[test]
fn killed_between_stream_and_ledger_each_is_booked_once() {
    let (runtime, mut f) = (runtime(), Fixture::new());
    f.append("usage.log", &format!("rubbish\n{}", lines(&[1, 2])));
    f.tail.dies.store(true, Ordering::Relaxed);
    runtime.block_on(f.read()).unwrap_err();
    f.restart();
    f.append("usage.log", &lines(&[3]));
    f.check(&runtime, &[1, 2, 3], 1);
    // An error that is no death goes back to what the ledger has, too.
    f.append("usage.log", &lines(&[4]));
    f.tail.dies.store(true, Ordering::Relaxed);
    runtime.block_on(f.read()).unwrap_err();
    if let Some(follower) = &mut f.follower {
        follower.rewind();
    }
    f.check(&runtime, &[1, 2, 3, 4], 1);
}

#[test]
fn a_stop_is_heeded_at_once() {
    let f = Fixture::new();
    f.append("usage.log", &lines(&[1]));
    runtime().block_on(async {
        let (stop, stopped) = watch::channel(false);
        let books = f.tail.books.clone();
        let reading = tokio::spawn(f.tail.run(stopped));
        let mut tail = books.intake().tail();
        tail.wait_for(|last| *last == 1).await.unwrap();
        stop.send_replace(true);
        reading.await.unwrap();
        books.book_all().await.unwrap();
        let booked = books.with(|l| l.progress(book::STREAM));
        assert_eq!(booked.await.unwrap(), 1);
    });
}
