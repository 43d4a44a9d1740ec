//! A topic is one ledger's.

use super::*;

/// As an aggregator with that ledger has it.
fn settings(mock: &Mock, ledger: &str) -> KafkaSettings {
    KafkaSettings {
        ledger: ledger.to_owned(),
        ..mock.settings()
    }
}

async fn open(mock: &Mock, ledger: &str) -> Arc<dyn Transport> {
    Arc::new(KafkaStream::open(settings(mock, ledger)).await.unwrap())
}

#[track_caller]
fn says_what_to_do(error: &impl fmt::Display, place: &str) {
    let said = error.to_string();
    for part in [
        place,
        "another ledger (one)",
        "this one (two)",
        "a topic of its own",
    ] {
        assert!(said.contains(part), "{said}");
    }
}

/// Reads until that fails.
async fn read_all(stream: &Arc<dyn Transport>, after: i64) -> (Vec<String>, StreamError) {
    let mut reader = stream.reader(stream.lanes()[3], after).await.unwrap();
    let (begun, mut found) = (Instant::now(), Vec::new());
    let error = loop {
        assert!(begun.elapsed() < LONG, "{found:?}");
        match reader.read(100, LONG).await {
            Ok(chunk) => {
                assert_eq!(chunk.lost_entries, 0);
                found.extend(chunk.events.into_iter().map(|(_, text)| text));
            }
            Err(error) => break error,
        }
    };
    // What is behind it is not come to by asking again.
    for _ in 0..3 {
        assert_eq!(reader.read(100, SHORT).await, Err(error.clone()));
    }
    (found, error)
}

#[tokio::test]
async fn a_reader_books_nothing_of_another_ledger_nor_behind_it() {
    let mock = Mock::start(Some(16));
    // Both came before there was anything.
    let (one, two) = (open(&mock, "one").await, open(&mock, "two").await);
    two.append(events(3, "ours", 2)).await.unwrap();
    one.append(events(3, "theirs", 1)).await.unwrap();
    two.append(events(3, "behind", 2)).await.unwrap();
    let (found, error) = read_all(&two, 0).await;
    assert_eq!(found, texts(&events(3, "ours", 2)));
    says_what_to_do(&error, "weir-usage/3 offset 2");
    // So does the next one, from where the ledger is.
    let (found, error) = read_all(&two, 2).await;
    assert!(found.is_empty(), "{found:?}");
    says_what_to_do(&error, "weir-usage/3 offset 2");
    // Other partitions go on.
    two.append(events(4, "ours", 2)).await.unwrap();
    let mut reading = Reading::begin(&two, 4, 0).await;
    assert_eq!(reading.take(2).await, texts(&events(4, "ours", 2)));
}

#[tokio::test]
async fn a_new_ledger_on_a_topic_of_another_is_refused() {
    let mock = Mock::start(Some(16));
    let one = open(&mock, "one").await;
    one.append(events(11, "theirs", 1)).await.unwrap();
    let error = KafkaStream::open(settings(&mock, "two")).await.unwrap_err();
    assert!(matches!(error, OpenError::Unfit(_)), "{error}");
    says_what_to_do(&error, "weir-usage/11 offset 0");
    // It begins nothing where it was not looked at the beginning, either.
    let two = KafkaStream::new(settings(&mock, "two")).unwrap();
    let taken = two.append(events(3, "ours", 1)).await;
    assert_eq!(taken, Err(AppendError::Failed));
    let error = two.reader(two.lanes()[3], 0).await.err().unwrap();
    says_what_to_do(&error, "weir-usage/11 offset 0");
    // Whose it is, comes again; who does not ask, gets all.
    for ledger in ["one", ""] {
        let stream = open(&mock, ledger).await;
        let mut reading = Reading::begin(&stream, 11, 0).await;
        assert_eq!(reading.take(1).await, ["theirs 0"]);
    }
}

/// A version before this one wrote no ledger, and strangers don't.
#[tokio::test]
async fn what_says_nothing_of_a_ledger_is_read() {
    let mock = Mock::start(Some(16));
    let (before, one) = (open(&mock, "").await, open(&mock, "one").await);
    before.append(events(3, "before", 2)).await.unwrap();
    mock.send(3, Some(b"stranger"));
    let two = open(&mock, "two").await;
    two.append(events(3, "ours", 1)).await.unwrap();
    let mut reading = Reading::begin(&two, 3, 0).await;
    let found = reading.take(4).await;
    assert_eq!(found, ["before 0", "before 1", "stranger", "ours 0"]);
    // What could not be seen at the beginning, the first read sees.
    one.append(events(3, "theirs", 1)).await.unwrap();
    let two = open(&mock, "two").await;
    let (found, error) = read_all(&two, 0).await;
    assert_eq!(found, ["before 0", "before 1", "stranger", "ours 0"]);
    says_what_to_do(&error, "weir-usage/3 offset 4");
}
