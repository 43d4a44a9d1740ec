//! What the book promises, case by case; `model` checks whole histories.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

mod model;

/// 2026-11-30 23:59:00 UTC.
const NOW: u64 = 1_796_083_140_000;

fn tenant() -> TenantId {
    TenantId::new("acme").unwrap()
}

fn id_at(n: u8, time_ms: u64) -> RequestId {
    RequestId::mint(time_ms, [n; 10])
}

fn id(n: u8) -> RequestId {
    id_at(n, NOW)
}

fn ask(n: u8, amount: u64, tokens: u64) -> Ask {
    Ask {
        tenant: tenant(),
        id: id(n),
        amount,
        not_from: None,
        bounds: Bounds::default(),
        tokens,
        life_ms: 10_000,
        progress: Progress {
            micros: amount / 2,
            tokens,
            note: vec![n],
        },
    }
}

fn ceiling(micros: u64) -> Option<Ceiling> {
    Some(Ceiling {
        micros,
        overage: false,
    })
}

fn under(bounds: Bounds, ask: Ask) -> Ask {
    Ask { bounds, ..ask }
}

fn of_money(micros: u64) -> Bounds {
    Bounds {
        ceiling: ceiling(micros),
        ..Bounds::default()
    }
}

fn settle(n: u8, micros: u64, tokens: u64) -> Settle {
    Settle {
        tenant: tenant(),
        id: id(n),
        micros,
        tokens,
        ceiling: None,
    }
}

fn reached(book: &Book) -> Vec<(Month, u8)> {
    let mut mail = book.mail(usize::MAX);
    mail.retain(|mail| matches!(mail.what, Happened::Reached { .. }));
    let what = |mail: Mail| match mail.what {
        Happened::Reached { month, percent, .. } => (month, percent),
        Happened::Swept { .. } => unreachable!(),
    };
    mail.into_iter().map(what).collect()
}

#[test]
fn reasons_come_in_their_order() {
    let mut book = Book::default();
    let all = Bounds {
        ceiling: ceiling(1_000),
        tokens_per_minute: Some(100),
        in_flight: Some(1),
    };
    book.settle(&settle(90, 900, 0), NOW);
    let (held, _) = book.hold(&under(all, ask(1, 0, 90)), NOW);
    assert_eq!(held, Held::Held);
    let worst = Ask {
        not_from: Some(900),
        ..under(all, ask(2, 101, 11))
    };
    let mut refused = |bounds, not_from| {
        let ask = Ask {
            bounds,
            not_from,
            ..worst.clone()
        };
        book.hold(&ask, NOW).0
    };
    assert_eq!(refused(all, Some(900)), Held::Refused(Refused::InFlight));
    let all = Bounds {
        in_flight: Some(2),
        ..all
    };
    let retry_ms = Some(60_000);
    assert_eq!(
        refused(all, Some(900)),
        Held::Refused(Refused::Tokens { retry_ms })
    );
    let never = Bounds {
        tokens_per_minute: Some(10),
        ..all
    };
    assert_eq!(
        refused(never, None),
        Held::Refused(Refused::Tokens { retry_ms: None })
    );
    let all = Bounds {
        tokens_per_minute: Some(101),
        ..all
    };
    assert_eq!(refused(all, Some(900)), Held::Refused(Refused::Near));
    assert_eq!(refused(all, Some(901)), Held::Refused(Refused::Budget));
    assert_eq!(refused(of_money(1_001), None), Held::Held);
}

#[test]
fn nothing_is_never_refused_for_the_budget() {
    let mut book = Book::default();
    book.settle(&settle(90, 5_000, 0), NOW);
    let free = under(of_money(1_000), ask(1, 0, 0));
    assert_eq!(book.hold(&free, NOW).0, Held::Held);
    let paid = under(of_money(1_000), ask(2, 1, 0));
    assert_eq!(book.hold(&paid, NOW).0, Held::Refused(Refused::Budget));
    let overage = Some(Ceiling {
        micros: 1_000,
        overage: true,
    });
    let bounds = Bounds {
        ceiling: overage,
        ..Bounds::default()
    };
    assert_eq!(book.hold(&under(bounds, paid), NOW).0, Held::Held);
}

#[test]
fn a_raise_counts_once_for_each_step() {
    let mut book = Book::default();
    book.hold(&under(of_money(100), ask(1, 40, 0)), NOW);
    let mut raise = |step, by| book.raise(&tenant(), id(1), step, by, ceiling(100), NOW);
    assert_eq!(raise(1, 50).0, Held::Held);
    let (again, standing) = raise(1, 50);
    assert_eq!((again, standing.held), (Held::Duplicate, 90));
    assert_eq!(raise(2, 11).0, Held::Refused(Refused::Budget));
    assert_eq!(raise(2, 10).0, Held::Held);
    book.settle(&settle(1, 7, 0), NOW);
    let (gone, standing) = book.raise(&tenant(), id(1), 3, 1, None, NOW);
    assert_eq!(gone, Held::Refused(Refused::Gone));
    assert_eq!((standing.spend, standing.held), (7, 0));
}

#[test]
fn a_sweep_takes_the_progress_and_a_late_settle_puts_it_right() {
    let mut book = Book::default();
    book.hold(&ask(1, 100, 10), NOW);
    book.hold(&ask(2, 60, 10), NOW);
    let progress = Progress {
        micros: 70,
        tokens: 7,
        note: vec![9],
    };
    assert!(book.renew(&tenant(), id(1), 20_000, progress.clone(), NOW));
    assert_eq!(book.sweep(10, NOW + 9_999), 0);
    assert_eq!(book.sweep(10, NOW + 10_000), 1, "not the one renewed");
    let now = book.standing(&tenant(), id(1).time_ms(), NOW + 10_000);
    assert_eq!((now.spend, now.held, now.in_flight), (30, 100, 1));
    assert_eq!(book.sweep(10, NOW + 20_000), 1);
    assert!(!book.renew(&tenant(), id(1), 1, progress.clone(), NOW + 20_000));
    let mail = book.mail(10);
    let swept = |mail: &Mail| match &mail.what {
        Happened::Swept { id, progress } => (*id, progress.micros, progress.tokens),
        other => panic!("{other:?}"),
    };
    let found: Vec<_> = mail.iter().map(swept).collect();
    assert_eq!(found, [(id(2), 30, 10), (id(1), 70, 7)], "the oldest first");
    let (found, now) = book.settle(&settle(1, 50, 8), NOW + 30_000);
    assert_eq!((found, now.spend, now.tokens), (Settled::Swept, 80, 18));
    let (again, now) = book.settle(&settle(1, 999, 999), NOW + 30_000);
    assert_eq!((again, now.spend, now.tokens), (Settled::Again, 80, 18));
    assert_eq!(book.hold(&ask(1, 1, 1), NOW + 30_000).0, Held::Duplicate);
    assert_eq!(book.acknowledge(&mail), [true, true]);
    assert_eq!(book.acknowledge(&mail), [false, false]);
    assert!(book.mail(10).is_empty());
}

#[test]
fn alerts_come_once_each_at_the_boundary() {
    let mut book = Book::default();
    let month = Month::of_ms(id(1).time_ms());
    // Of 1,001 a half is 500.5, so 501 reach it.
    let mut spend = |n: u8, micros: u64, most: u64| {
        let settle = Settle {
            ceiling: ceiling(most),
            ..settle(n, micros, 0)
        };
        book.settle(&settle, NOW);
        let percents: Vec<u8> = reached(&book).iter().map(|(_, p)| *p).collect();
        assert!(reached(&book).iter().all(|(m, _)| *m == month));
        percents
    };
    assert_eq!(spend(1, 500, 1_001), [0_u8; 0]);
    assert_eq!(spend(2, 1, 1_001), [50]);
    assert_eq!(spend(3, 399, 1_001), [50, 80], "900 of 900.9");
    assert_eq!(spend(4, 1, 1_001), [50, 80, 90]);
    assert_eq!(spend(5, 0, 5_000), [50, 80, 90], "raised");
    assert_eq!(spend(6, 99, 1_001), [50, 80, 90]);
    assert_eq!(spend(7, 1, 1_001), [50, 80, 90, 100]);
    assert_eq!(spend(8, 9_000, 1_001), [50, 80, 90, 100]);
    let mail = book.mail(10);
    assert!(book.acknowledge(&mail).iter().all(|there| *there));
    let settle = Settle {
        ceiling: ceiling(10),
        ..settle(9, 1, 0)
    };
    book.settle(&settle, NOW);
    assert!(reached(&book).is_empty());
}

#[test]
fn a_sweep_tells_by_the_ceiling_of_the_hold() {
    let mut book = Book::default();
    book.hold(&under(of_money(100), ask(1, 100, 0)), NOW);
    book.sweep(10, NOW + 10_000);
    assert_eq!(reached(&book), [(Month::of_ms(id(1).time_ms()), 50)]);
}

#[test]
fn tokens_count_for_a_minute_and_a_settle_corrects_their_slot() {
    let mut book = Book::default();
    let bounds = Bounds {
        tokens_per_minute: Some(100),
        ..Bounds::default()
    };
    let hold = |book: &mut Book, n, tokens, at| book.hold(&under(bounds, ask(n, 0, tokens)), at);
    let start = NOW + 1;
    let (_, standing) = hold(&mut book, 1, 100, start);
    assert_eq!(standing.tokens_free_ms, 60_999);
    let (held, _) = hold(&mut book, 2, 1, start + 59_999);
    let retry_ms = Some(1_000);
    assert_eq!(held, Held::Refused(Refused::Tokens { retry_ms }));
    let (_, standing) = book.settle(&settle(1, 0, 30), start + 20_000);
    assert_eq!((standing.tokens, standing.tokens_free_ms), (30, 40_999));
    assert_eq!(hold(&mut book, 3, 70, start + 21_000).0, Held::Held);
    let at = start + 60_999;
    let standing = book.standing(&tenant(), 0, at);
    assert_eq!((standing.tokens, standing.tokens_free_ms), (70, 21_000));
    // Out of the window: less is dropped, more counts from now.
    hold(&mut book, 4, 30, at);
    let late = at + 61_000;
    let (_, standing) = book.settle(&settle(4, 0, 10), late);
    assert_eq!(standing.tokens, 0);
    hold(&mut book, 5, 30, late);
    let late = late + 61_000;
    let (_, standing) = book.settle(&settle(5, 0, 40), late);
    assert_eq!(standing.tokens, 10);
    let (found, standing) = book.settle(&settle(6, 0, 5), late);
    assert_eq!((found, standing.tokens), (Settled::Orphan, 15));
}

#[test]
fn expired_holds_are_not_in_flight_and_the_next_hold_sweeps_some() {
    let mut book = Book::default();
    let bounds = Bounds {
        in_flight: Some(6),
        ..Bounds::default()
    };
    for n in 0..6 {
        assert_eq!(book.hold(&under(bounds, ask(n, 10, 0)), NOW).0, Held::Held);
    }
    let seventh = under(bounds, ask(6, 10, 0));
    let (held, _) = book.hold(&seventh, NOW + 9_999);
    assert_eq!(held, Held::Refused(Refused::InFlight));
    let (held, standing) = book.hold(&seventh, NOW + 10_000);
    assert_eq!((held, standing.in_flight), (Held::Held, 1));
    assert_eq!((standing.spend, standing.held), (4 * 5, 2 * 10 + 10));
}

#[test]
fn a_request_settles_into_the_month_of_its_id() {
    let mut book = Book::default();
    let december = NOW + 60_000;
    let old = Month::of_ms(id(1).time_ms());
    let new = id_at(2, december);
    assert_ne!(Month::of_ms(new.time_ms()), old);
    book.hold(&under(of_money(100), ask(1, 100, 0)), NOW);
    let next = Ask {
        id: new,
        ..under(of_money(100), ask(2, 100, 0))
    };
    assert_eq!(book.hold(&next, december).0, Held::Held);
    let late = Settle {
        ceiling: ceiling(100),
        ..settle(1, 100, 0)
    };
    let (_, standing) = book.settle(&late, december + 1);
    assert_eq!((standing.spend, standing.held), (100, 0));
    assert!(reached(&book).iter().all(|(month, _)| *month == old));
    let standing = book.standing(&tenant(), new.time_ms(), december);
    assert_eq!((standing.spend, standing.held), (0, 100));
}

#[test]
fn what_is_old_is_forgotten() {
    let mut book = Book::default();
    book.settle(&settle(1, 10, 0), NOW);
    book.hold(&ask(2, 10, 0), NOW);
    book.sweep(10, NOW + REMEMBERED_MS - 1);
    let week = NOW + REMEMBERED_MS;
    assert_eq!(book.settle(&settle(1, 10, 0), week - 1).0, Settled::Again);
    book.sweep(10, week + 24 * 3_600 * 1_000);
    let (found, standing) = book.settle(&settle(1, 10, 0), week + 24 * 3_600 * 1_000);
    assert_eq!((found, standing.spend), (Settled::Orphan, 25));
    book.sweep(10, week + REMEMBERED_MS);
    let year = NOW + 380 * 24 * 3_600 * 1_000;
    book.sweep(10, year);
    let standing = book.standing(&tenant(), id(1).time_ms(), year);
    assert_eq!(standing.spend, 25, "thirteen months are kept");
    book.sweep(10, year + 31 * 24 * 3_600 * 1_000);
    let standing = book.standing(&tenant(), id(1).time_ms(), year);
    assert_eq!(standing.spend, 0);
}
