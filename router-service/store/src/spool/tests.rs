//! Tests of the spool: order, bounds, restarts, and a process that is killed.

use std::path::PathBuf;

use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("spool.db")
    }

    fn open(&self) -> Spool {
        Spool::open(&self.path(), 1 << 20).unwrap()
    }
}

async fn texts(spool: &Spool) -> Vec<String> {
    let records = spool.read(0, 1_000, 1 << 20).await.unwrap();
    records
        .into_iter()
        .map(|r| String::from_utf8(r.bytes).unwrap())
        .collect()
}

#[tokio::test]
async fn what_was_appended_is_there_in_order_until_it_is_removed() {
    let folder = Folder::new();
    let spool = folder.open();
    let mut tail = spool.tail();
    for n in 0..10 {
        spool.append(format!("{n}").into_bytes()).unwrap();
    }
    spool.flush().await.unwrap();
    assert_eq!(*tail.borrow_and_update(), 10);
    let first = spool.read(0, 3, 1 << 20).await.unwrap();
    assert_eq!(first.len(), 3);
    assert_eq!(spool.read(0, 10, 2).await.unwrap().len(), 2, "by bytes");
    assert_eq!(spool.read(0, 10, 0).await.unwrap().len(), 1, "never none");
    let after = spool.read(8, 10, 1 << 20).await.unwrap();
    assert_eq!(after.iter().map(|r| r.number).collect::<Vec<_>>(), [9, 10]);
    spool.remove(&first).await.unwrap();
    assert_eq!(spool.len(), 7);
    drop(spool);

    let spool = folder.open();
    assert_eq!(spool.len(), 7);
    assert_eq!(texts(&spool).await, ["3", "4", "5", "6", "7", "8", "9"]);
    let all = spool.read(0, 10, 1 << 20).await.unwrap();
    spool.remove(&all).await.unwrap();
    assert!(spool.is_empty());
    // A number that was removed names no other record.
    spool.append(b"x".to_vec()).unwrap();
    spool.flush().await.unwrap();
    assert_eq!(spool.read(0, 1, 1).await.unwrap()[0].number, 11);
    assert_eq!(*spool.tail().borrow(), 11);
}

#[tokio::test]
async fn what_is_dropped_is_written_first() {
    let folder = Folder::new();
    let spool = folder.open();
    for n in 0..3_000 {
        spool.append(format!("{n}").into_bytes()).unwrap();
    }
    drop(spool);
    assert_eq!(folder.open().len(), 3_000);
}

#[tokio::test]
async fn the_oldest_stay_where_it_is_full() {
    let folder = Folder::new();
    let spool = Spool::open(&folder.path(), 10).unwrap();
    spool.append(vec![1; 6]).unwrap();
    assert_eq!(spool.append(vec![2; 5]).unwrap_err(), Refused::Full);
    spool.append(vec![3; 4]).unwrap();
    assert_eq!((spool.len(), spool.refused()), (2, 1));
    spool.flush().await.unwrap();
    let first = spool.read(0, 1, 1 << 20).await.unwrap();
    assert_eq!(first[0].bytes, [1; 6]);
    spool.remove(&first).await.unwrap();
    spool.append(vec![4; 6]).unwrap();
    drop(spool);
    // What was written counts after a restart, too.
    let spool = Spool::open(&folder.path(), 10).unwrap();
    assert_eq!(spool.append(vec![5]).unwrap_err(), Refused::Full);
}

#[test]
fn one_process_alone_has_it() {
    let folder = Folder::new();
    let spool = folder.open();
    let error = Spool::open(&folder.path(), 1).unwrap_err();
    assert!(matches!(error, SpoolError::InUse(_)), "{error}");
    let shown = error.to_string();
    assert!(shown.contains("spool.db is in use"), "{shown}");
    drop(spool);
    folder.open();
    std::fs::write(
        folder.path(),
        "no database at all, but long enough to be read",
    )
    .unwrap();
    for beside in ["spool.db-wal", "spool.db-shm"] {
        let _ = std::fs::remove_file(folder.0.path().join(beside));
    }
    assert!(Spool::open(&folder.path(), 1).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_append_while_one_takes_them_out() {
    let folder = Folder::new();
    let spool = Spool::open(&folder.path(), 1 << 24).unwrap();
    let appending = (0..4).map(|task| {
        let spool = spool.clone();
        tokio::spawn(async move {
            for n in 0..500 {
                spool.append(format!("{task} {n}").into_bytes()).unwrap();
                if n % 50 == 0 {
                    spool.flush().await.unwrap();
                }
            }
        })
    });
    let appending: Vec<_> = appending.collect();
    let mut tail = spool.tail();
    let mut found = Vec::new();
    while found.len() < 2_000 {
        let records = spool.read(0, 64, 1 << 20).await.unwrap();
        if records.is_empty() {
            tail.changed().await.unwrap();
            continue;
        }
        spool.remove(&records).await.unwrap();
        found.extend(records.into_iter().map(|r| r.bytes));
    }
    for task in appending {
        task.await.unwrap();
    }
    assert!(spool.is_empty());
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 2_000);
}

/// The folder of the process that is killed.
const KILLED: &str = "WEIR_SPOOL_TEST_KILLED";

/// Not a test by itself: appends until it is killed, and says what is durable.
#[tokio::test]
async fn appends_until_it_is_killed() {
    use std::io::Write as _;

    let Ok(folder) = std::env::var(KILLED) else {
        return;
    };
    let spool = Spool::open(&PathBuf::from(folder).join("spool.db"), 1 << 24).unwrap();
    for n in 0_u64.. {
        let appended = spool.append(n.to_le_bytes().to_vec()).unwrap();
        if n % 7 == 0 {
            assert!(appended.durable().await);
            let mut out = std::io::stderr();
            writeln!(out, "durable {n}").unwrap();
        }
    }
}

#[tokio::test]
async fn a_process_that_is_killed_loses_nothing_that_was_durable() {
    use std::io::{BufRead as _, BufReader};

    for kill_after in [1, 20, 200] {
        let folder = Folder::new();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "spool::tests::appends_until_it_is_killed",
                "--exact",
                "--nocapture",
            ])
            .env(KILLED, folder.0.path())
            .stderr(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = lines.filter_map(|line| line.unwrap().strip_prefix("durable ")?.parse().ok());
        let durable: u64 = said.take(kill_after).last().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();

        let spool = Spool::open(&folder.path(), 1 << 24).unwrap();
        let records = spool.read(0, 100_000, 1 << 24).await.unwrap();
        let numbers: Vec<u64> = records
            .iter()
            .map(|r| u64::from_le_bytes(r.bytes.as_slice().try_into().unwrap()))
            .collect();
        assert!(
            numbers.len() as u64 > durable,
            "{} {durable}",
            numbers.len()
        );
        assert!(numbers.iter().copied().eq(0..numbers.len() as u64));
    }
}
