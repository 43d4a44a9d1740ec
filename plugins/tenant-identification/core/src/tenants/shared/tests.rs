//! What one worker does in each case.

use weir_wire::directory::{PAGE_MAX_BYTES, PageError};

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{
    fixture::{Router, Slots, check_same, directory, settings},
    *,
};

const START_MS: u64 = 10_000;

fn router(tenants: u64) -> Router {
    Router::new(directory(&mut 1, tenants))
}

fn worker() -> Follower {
    Follower::new(settings(false))
}

/// Answers as the router does until nothing is asked; how many requests that took.
fn poll(worker: &mut Follower, board: &Slots, now_ms: u64, router: &Router) -> usize {
    let mut step = worker.tick(board, now_ms, 1);
    let mut asked = 0;
    while let Step::Ask(request) = step {
        asked += 1;
        let page = router.answer(&request, 0);
        let answer = page.as_deref().map_or(Answer::Gone, Answer::Page);
        step = worker.answered(board, now_ms, request.ticket, answer);
    }
    asked
}

/// Ticks until nothing is left to read; how often that took.
fn read(worker: &mut Follower, board: &Slots, now_ms: u64) -> usize {
    let ticks = (1..100).find(|_| worker.tick(board, now_ms, 1) == Step::Idle);
    ticks.unwrap()
}

#[test]
fn who_joins_reads_what_is_there_a_few_pages_at_a_time() {
    let (board, router) = (Slots::default(), router(50));
    let mut leader = worker();
    let asked = poll(&mut leader, &board, START_MS, &router);
    assert!(asked > 16);
    assert_eq!(
        leader.take_outcome().unwrap().to_string(),
        format!("directory 1 came whole in {asked} pages")
    );
    assert_eq!(leader.take_outcome(), None);
    let mut joins = worker();
    assert!(!joins.ready() && joins.age_ms(START_MS).is_none());
    assert_eq!(read(&mut joins, &board, START_MS + 100), asked.div_ceil(4));
    check_same(joins.store(), &router.newest().1);
    assert_eq!(
        (joins.ready(), joins.age_ms(START_MS + 100)),
        (true, Some(100))
    );
    assert_eq!(joins.version(), Some(router.newest().0));
}

#[test]
fn another_namespace_is_another_directory() {
    let (board, router) = (Slots::default(), router(3));
    poll(&mut worker(), &board, START_MS, &router);
    let mut other = Follower::new(Settings {
        namespace: "other".into(),
        ..settings(false)
    });
    assert!(matches!(other.tick(&board, START_MS, 1), Step::Ask(_)));
}

/// What a worker that holds directory 2 makes of an answer, and what it asks for
/// in the same poll after that.
#[track_caller]
fn check(answer: Answer<'_>, outcome: Option<Outcome>) {
    let board = Slots::default();
    let mut router = router(5);
    router.push(directory(&mut 2, 5));
    let mut worker = worker();
    poll(&mut worker, &board, START_MS, &router);
    read(&mut worker, &board, START_MS);
    worker.take_outcome();
    let Step::Ask(request) = worker.tick(&board, START_MS + 500, 1) else {
        panic!("a poll is due");
    };
    assert_eq!(request.held, Some(router.newest().0));
    assert!(worker.leads());
    let step = worker.answered(&board, START_MS + 500, request.ticket, answer);
    let again =
        matches!(step, Step::Ask(ref again) if again.page == 0 && again.held == request.held);
    assert_eq!(again, outcome.is_none());
    assert_eq!(worker.take_outcome(), outcome);
    check_same(worker.store(), &router.newest().1);
    let age_ms = if outcome == Some(Outcome::Unchanged) {
        0
    } else {
        500
    };
    assert_eq!(worker.age_ms(START_MS + 500), Some(age_ms));
}

/// A page from and to the directories that [`check`] and its router have.
fn page(base: Option<u64>, number: u64, page: u32) -> Vec<u8> {
    let mut router = router(5);
    router.push(directory(&mut 2, 5));
    let version = |number: u64| match router.states.iter().find(|(v, _)| v.number == number) {
        Some((version, _)) => *version,
        None => Version { number, digest: 0 },
    };
    let base = base.map(version);
    let (tenants, removed) = (Vec::new(), Vec::new());
    Page {
        version: version(number),
        base,
        page,
        pages: 2,
        tenants,
        removed,
    }
    .encode()
}

#[test]
fn an_answer_that_is_wrong_changes_nothing() {
    let older = |offered| Some(Outcome::Older { offered, held: 2 });
    check(Answer::Page(&page(Some(2), 2, 0)), Some(Outcome::Unchanged));
    check(Answer::Page(&page(None, 2, 0)), Some(Outcome::Unchanged));
    check(Answer::Page(&page(None, 1, 0)), older(1));
    check(Answer::Page(&page(Some(1), 1, 0)), older(1));
    check(Answer::Page(&page(Some(1), 3, 0)), Some(Outcome::Unasked));
    check(Answer::Page(&page(Some(2), 3, 1)), Some(Outcome::Unasked));
    check(
        Answer::Page(b"\xff"),
        Some(Outcome::Unreadable(PageError::Malformed)),
    );
    let bytes = PAGE_MAX_BYTES + 1;
    check(
        Answer::Page(&vec![0; bytes]),
        Some(Outcome::TooLarge { bytes }),
    );
    check(Answer::Failed, Some(Outcome::Failed));
    check(Answer::Gone, None);
}

#[test]
fn a_poll_begins_again_only_so_often() {
    let board = Slots::default();
    let mut worker = worker();
    let mut step = worker.tick(&board, START_MS, 1);
    let mut asked = 0;
    while let Step::Ask(request) = step {
        asked += 1;
        step = worker.answered(&board, START_MS, request.ticket, Answer::Gone);
    }
    assert_eq!((asked, worker.take_outcome()), (4, Some(Outcome::Gone)));
}

#[test]
fn a_leader_that_is_gone_is_replaced_and_not_believed_later() {
    let (board, router) = (Slots::default(), router(3));
    let (mut gone, mut next) = (worker(), worker());
    let Step::Ask(old) = gone.tick(&board, START_MS, 1) else {
        panic!("a poll is due");
    };
    // Twice the timeout and a second.
    assert_eq!(next.tick(&board, START_MS + 1_999, 2), Step::Behind);
    let Step::Ask(new) = next.tick(&board, START_MS + 2_000, 2) else {
        panic!("the lease is over");
    };
    let page = router.answer(&old, 0).unwrap();
    let step = gone.answered(&board, START_MS + 2_000, old.ticket, Answer::Page(&page));
    assert_eq!(
        (step, gone.take_outcome()),
        (Step::Behind, Some(Outcome::LeaseLost))
    );
    let step = next.answered(
        &board,
        START_MS + 2_001,
        new.ticket + 1,
        Answer::Page(&page),
    );
    assert_eq!((step, next.take_outcome()), (Step::Behind, None));
    assert!(next.leads() && !gone.leads());
}

#[test]
fn more_changes_than_fit_are_read_as_a_whole() {
    let board = Slots::default();
    let mut router = router(3);
    let mut worker = worker();
    let mut now_ms = START_MS;
    let mut wholes = 0;
    for mut seed in 2..70 {
        poll(&mut worker, &board, now_ms, &router);
        read(&mut worker, &board, now_ms);
        wholes += usize::from(matches!(worker.take_outcome(), Some(Outcome::Whole { .. })));
        check_same(worker.store(), &router.newest().1);
        router.push(directory(&mut seed, 3));
        now_ms += 500;
    }
    assert_eq!(wholes, 2);
}

/// A page that is not the one that is due is asked for again.
#[track_caller]
fn check_lost(spoil: impl Fn(&Slot<'_>) -> Option<Vec<u8>>) {
    let (board, router) = (Slots::default(), router(8));
    poll(&mut worker(), &board, START_MS, &router);
    let key = Names::new("router").slot(0, 1);
    let (value, cas) = board.get(&key);
    match spoil(&Slot::decode(&value.unwrap()).unwrap()) {
        Some(value) => assert!(board.set(&key, value, cas, false)),
        None => assert!(board.0.borrow_mut().remove(&key).is_some()),
    }
    let mut joins = worker();
    assert_eq!(joins.tick(&board, START_MS + 10, 1), Step::Behind);
    assert_eq!((joins.ready(), joins.version()), (false, None));
    assert!(poll(&mut joins, &board, START_MS + 500, &router) > 1);
    assert_eq!(read(&mut joins, &board, START_MS + 500), 1);
    check_same(joins.store(), &router.newest().1);
}

#[test]
fn a_page_that_is_lost_is_asked_for_again() {
    let with = |slot: Slot<'_>| Some(slot.encode(false));
    check_lost(|_| None);
    check_lost(|_| Some(Vec::new()));
    check_lost(|slot| {
        with(Slot {
            epoch: slot.epoch + 1,
            ..*slot
        })
    });
    check_lost(|slot| {
        with(Slot {
            index: slot.index + 1,
            ..*slot
        })
    });
    check_lost(|slot| {
        with(Slot {
            page: b"\xff",
            ..*slot
        })
    });
    check_lost(|slot| {
        with(Slot {
            page: &page(None, 1, 1),
            ..*slot
        })
    });
}

#[test]
fn an_older_directory_on_a_lost_board_is_passed_over() {
    let (board, mut router) = (Slots::default(), router(5));
    let (mut holds, mut fresh) = (worker(), worker());
    router.push(directory(&mut 2, 5));
    poll(&mut holds, &board, START_MS, &router);
    let newest = router.states.pop().unwrap();
    board.0.borrow_mut().clear();
    poll(&mut fresh, &board, START_MS + 10, &router);
    assert_eq!(fresh.version(), Some(router.newest().0));
    for worker in [&mut holds, &mut fresh] {
        assert_eq!(worker.tick(&board, START_MS + 20, 1), Step::Idle);
    }
    check_same(holds.store(), &newest.1);
    assert!(!holds.head(&board).whole_wanted);
    router.states.push(newest);
    router.known_from = 1;
    poll(&mut fresh, &board, START_MS + 510, &router);
    for worker in [&mut holds, &mut fresh] {
        assert_eq!(worker.tick(&board, START_MS + 520, 1), Step::Idle);
        check_same(worker.store(), &router.newest().1);
    }
}

#[test]
fn an_overtaken_leader_overwrites_nothing() {
    let (board, router) = (Slots::default(), router(5));
    let mut slow = worker();
    let Step::Ask(asked) = slow.tick(&board, START_MS, 1) else {
        panic!("a poll is due");
    };
    let (_, poll_of_slow) = slow.poll.clone().unwrap();
    let head = slow.head(&board);
    let mut leader = worker();
    poll(&mut leader, &board, START_MS + 2_000, &router);
    let before = board.0.borrow().clone();
    // It found the lease its own just before it was overtaken.
    let page = router.answer(&asked, 0).unwrap();
    let place = (&slow.names, false);
    let outcome = poll_of_slow
        .clone()
        .answered(&board, place, &head, Answer::Page(&page));
    assert_eq!(outcome, Some(Outcome::NotShared));
    assert_eq!(*board.0.borrow(), before);
}

#[test]
fn a_tick_is_a_fraction_of_the_poll() {
    for (poll_ms, tick_ms) in [(250, 31), (5_000, 625), (3_600_000, 1_000)] {
        let follower = Follower::new(Settings {
            poll_ms,
            ..settings(false)
        });
        assert_eq!(follower.tick_ms(), tick_ms);
    }
}
