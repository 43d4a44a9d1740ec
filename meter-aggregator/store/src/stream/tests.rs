//! What was acknowledged is there, what was booked goes, and above the mark nothing
//! is taken.

use std::time::{Duration, Instant};

use rusqlite::Connection;

use weir_wire::ids::TenantId;

use super::*;
use crate::quarantine::Wanted;

fn aside(place: Option<&str>) -> Aside {
    Aside {
        bytes: vec![0xff],
        reason: "reason".into(),
        place: place.map(str::to_owned),
        number: Some((Witness::Gateway, "run".into(), u64::MAX)),
    }
}

#[tokio::test]
async fn what_stands_in_one_place_is_set_aside_once() {
    let folder = tempfile::tempdir().unwrap();
    // A stream of a version before this one.
    Connection::open(folder.path().join("stream.db"))
        .unwrap()
        .execute_batch(
            "CREATE TABLE quarantine (id INTEGER PRIMARY KEY AUTOINCREMENT,
               at_ms INTEGER NOT NULL, reason TEXT NOT NULL, event BLOB NOT NULL);
             INSERT INTO quarantine (at_ms, reason, event) VALUES (1, 'old', x'00')",
        )
        .unwrap();
    for _ in 0..2 {
        let stream = Stream::open(folder.path()).unwrap();
        let batch = Batch {
            events: vec![],
            aside: vec![aside(Some("a")), aside(Some("b")), aside(Some("a"))],
            ..Batch::default()
        };
        stream.append(batch).await.unwrap();
        let reader = stream.reader().unwrap();
        assert_eq!(reader.quarantined().unwrap(), 3);
        let noted = reader.noted(0, 100).unwrap();
        assert!(noted.iter().all(|n| n.number == u64::MAX && n.run == "run"));
        reader.trim_noted(noted[1].id).unwrap();
        wait(|| reader.noted(0, 100).unwrap().len() == noted.len() - 2);
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let stream = Stream::open(folder.path()).unwrap();
    let batch = |n: usize| Batch {
        events: vec![event(format!("e{n}")), event(format!("f{n}"))],
        aside: vec![aside(None)],
        ..Batch::default()
    };
    let (a, b) = tokio::join!(stream.append(batch(1)), stream.append(batch(2)));
    a.unwrap();
    b.unwrap();
    drop(stream);

    let stream = Stream::open(folder.path()).unwrap();
    assert_eq!(*stream.tail.borrow(), 4);
    let reader = stream.reader().unwrap();
    let events = reader.read(0, 10).unwrap();
    assert_eq!(events.len(), 4);
    assert_eq!(events[0], (1, "e1".to_owned()));
    assert_eq!(reader.quarantined().unwrap(), 2);

    assert_eq!(stream.spooled().events(), 4);
    reader.trim(4).unwrap();
    assert_eq!(stream.spooled().events(), 0);
    wait(|| reader.read(0, 10).unwrap().is_empty());
    stream.append(batch(3)).await.unwrap();
    // Numbers are never used again, or an offset would skip events.
    assert_eq!(reader.read(4, 1).unwrap()[0].0, 5);
}

/// The writer does what it is told a little later.
#[track_caller]
fn wait(mut until: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !until() {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "it does not come"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn event(text: String) -> Event {
    Event::of(&TenantId::new("acme").unwrap(), text)
}

fn events(n: usize) -> Batch {
    Batch {
        events: (0..n).map(|i| event(format!("event {i}"))).collect(),
        ..Batch::default()
    }
}

#[tokio::test]
async fn above_the_mark_nothing_is_taken_until_it_is_booked() {
    let folder = tempfile::tempdir().unwrap();
    let mark = Mark {
        events_max: 100,
        bytes_max: u64::MAX,
    };
    let stream = Stream::open_marked(folder.path(), mark, (0, 0)).unwrap();
    let reader = stream.reader().unwrap();
    stream.append(events(99)).await.unwrap();
    // Below it a batch is taken whole.
    stream.append(events(31)).await.unwrap();
    let refused = stream.append(events(1)).await;
    assert_eq!(refused, Err(AppendError::Full { retry_after_s: 30 }));
    drop(stream);

    // Nothing is forgotten over a restart.
    let stream = Stream::open_marked(folder.path(), mark, (0, 0)).unwrap();
    assert_eq!(stream.spooled().events(), 130);
    assert!(stream.append(events(1)).await.is_err());
    assert_eq!(reader.read(0, 1_000).unwrap().len(), 130);
    stream.reader().unwrap().trim(31).unwrap();
    stream.append(events(1)).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_too_large_takes_nothing_and_does_not_grow_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let mark = Mark {
        events_max: u64::MAX,
        bytes_max: 200 << 10,
    };
    let stream = Stream::open_marked(folder.path(), mark, (0, 0)).unwrap();
    let reader = stream.reader().unwrap();
    let size = || std::fs::metadata(folder.path().join("stream.db")).map_or(0, |m| m.len());
    for _ in 0..40 {
        while stream.append(events(1_000)).await.is_ok() {}
        assert!(stream.spooled().bytes() >= mark.bytes_max);
        reader.trim(*stream.tail.borrow()).unwrap();
        wait(|| stream.has_room().is_ok());
    }
    // What is free is used again; a batch may come beside the mark.
    assert!(size() < 2 * mark.bytes_max, "{}", size());
}

#[tokio::test]
async fn a_full_disk_takes_nothing_and_is_well_again_with_room() {
    let folder = tempfile::tempdir().unwrap();
    let stream = Stream::open_limited(folder.path(), 30).unwrap();
    let mut taken = 0;
    let refused = loop {
        match stream.append(events(500)).await {
            Ok(()) => taken += 500,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, AppendError::Failed);
    let reader = stream.reader().unwrap();
    assert_eq!(reader.read(0, 100_000).unwrap().len(), taken);
    reader.trim(*stream.tail.borrow()).unwrap();
    wait(|| reader.read(0, 1).unwrap().is_empty());
    stream.append(events(500)).await.unwrap();
    assert_eq!(reader.read(0, 100_000).unwrap().len(), 500);
}

#[tokio::test]
async fn what_leaves_quarantine_goes_to_the_stream_once() {
    let folder = tempfile::tempdir().unwrap();
    let stream = Stream::open(folder.path()).unwrap();
    let batch = Batch {
        aside: vec![aside(None), aside(None), aside(Some("x"))],
        producer: Some("gateway".into()),
        way: Way::Grpc,
        ..Batch::default()
    };
    stream.append(batch).await.unwrap();
    let reader = stream.reader().unwrap();
    let all = Wanted {
        limit: 10,
        ..Wanted::default()
    };
    let listed = reader.quarantine(&all).unwrap();
    assert_eq!(listed.len(), 3);
    assert_eq!(listed[0].producer.as_deref(), Some("gateway"));
    assert_eq!(listed[0].way.as_deref(), Some("grpc"));
    let page = |ids: Option<&[i64]>, reason, after| {
        let held = reader.held(ids, reason, after, 2).unwrap();
        held.into_iter().map(|h| h.id).collect::<Vec<i64>>()
    };
    assert_eq!(page(None, None, 0), [1, 2]);
    assert_eq!(page(None, None, 2), [3]);
    assert_eq!(page(Some(&[3, 1, 9]), None, 0), [1, 3]);
    assert_eq!(page(None, Some("eas"), 2), [3]);
    assert!(page(None, Some("other"), 0).is_empty());

    let again = vec![(1, event("one".to_owned())), (2, event("two".to_owned()))];
    assert_eq!(stream.requeue(again.clone()).await, Ok(2));
    assert_eq!(stream.requeue(again).await, Ok(0));
    assert_eq!(reader.quarantined().unwrap(), 1);
    let events = reader.read(0, 10).unwrap();
    assert_eq!(events, [(1, "one".to_owned()), (2, "two".to_owned())]);
    assert_eq!(*stream.tail.borrow(), 2);
}

#[tokio::test]
async fn who_leaves_before_it_is_durable_takes_no_room() {
    let folder = tempfile::tempdir().unwrap();
    let stream = Stream::open(folder.path()).unwrap();
    let large = Batch {
        events: vec![event("x".repeat(1 << 20))],
        ..Batch::default()
    };
    for _ in 0..60 {
        // Polled once: it is handed in, and nobody waits for it.
        let mut append = Box::pin(stream.append(large.clone()));
        let _ = poll_once(append.as_mut());
    }
    wait(|| stream.spooled().queued() == 0);
    stream.append(large).await.unwrap();
}

/// Polls once.
fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
    future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
}

#[tokio::test]
async fn numbers_go_on_after_those_that_the_ledger_has() {
    let folder = tempfile::tempdir().unwrap();
    // One that was lost beside a ledger that booked ten events and noted three.
    let stream = Stream::open_marked(folder.path(), Mark::NONE, (10, 3)).unwrap();
    let aside = vec![aside(None)];
    let batch = Batch { aside, ..events(1) };
    stream.append(batch).await.unwrap();
    let reader = stream.reader().unwrap();
    assert_eq!(reader.read(10, 1).unwrap()[0].0, 11);
    assert!(reader.noted(3, 9).unwrap().iter().all(|noted| noted.id > 3));
    let before = *stream.tail.borrow();
    drop((reader, stream));
    // A ledger that is younger or older changes no number that is there.
    for booked in [(11, 3), (2, 0)] {
        let stream = Stream::open_marked(folder.path(), Mark::NONE, booked).unwrap();
        assert_eq!(*stream.tail.borrow(), before);
    }
}

#[tokio::test]
async fn what_is_set_aside_fills_no_mark() {
    let folder = tempfile::tempdir().unwrap();
    let stream = Stream::open(folder.path()).unwrap();
    let before = stream.spooled().bytes();
    let aside = vec![aside(None); 2_000];
    let events = Vec::new();
    let full = Batch {
        events,
        aside,
        ..Batch::default()
    };
    stream.append(full).await.unwrap();
    let grown = stream.spooled().bytes().saturating_sub(before);
    assert!(grown < 150_000, "{grown}");
    drop(stream);
    let again = Stream::open(folder.path()).unwrap().spooled().bytes();
    assert!(again.saturating_sub(before) < 150_000, "{again}");
}
