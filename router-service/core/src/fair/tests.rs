//! Whose turn it is, who waits and who is refused.

mod always;

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

fn id(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn queue(capacity: u32, queue: u32) -> FairQueue {
    FairQueue::new(FairConfig {
        capacity,
        queue,
        queue_per_tenant: None,
    })
}

/// Requests of tenants named by letters, each at weight and cost 1 unless said.
struct Scene {
    queue: FairQueue,
    names: HashMap<Ticket, char>,
    now_ms: u64,
}

impl Scene {
    fn new(capacity: u32, queue: u32) -> Self {
        Self {
            queue: self::queue(capacity, queue),
            names: HashMap::new(),
            now_ms: 0,
        }
    }

    fn enter(&mut self, name: char, weight: u32, cost: u64) -> Entered {
        let tenant = id(&name.to_string());
        let entered = self.queue.enter(&tenant, weight, cost, self.now_ms);
        if let Entered::Run(ticket) | Entered::Wait { ticket, .. } = entered {
            self.names.insert(ticket, name);
        }
        entered
    }

    /// One of each letter comes, and there is room for it.
    #[track_caller]
    fn come(&mut self, names: &str) {
        for name in names.chars() {
            let entered = self.enter(name, 1, 1);
            assert!(!matches!(entered, Entered::Full { .. }), "{name}");
        }
    }

    fn end(&mut self, actual: u64) -> Vec<Started> {
        let first = self.queue.running.keys().min().copied().unwrap();
        self.queue.leave(first, actual, self.now_ms)
    }

    /// Ends those that run, the oldest first, so many times; gives whose ran next.
    fn order(&mut self, count: usize, actual: u64) -> String {
        let mut order = String::new();
        for _ in 0..count {
            for started in self.end(actual) {
                order.push(self.names[&started.ticket]);
            }
        }
        order
    }
}

#[test]
fn tenants_take_turns_whatever_they_have_waiting() {
    let mut scene = Scene::new(1, 20);
    scene.come("aaaaaabbc");
    assert_eq!(scene.order(8, 1), "bcabaaaa");
    assert_eq!(scene.order(1, 1), "");
    assert_eq!((scene.queue.running(), scene.queue.waiting()), (0, 0));
    assert!(scene.queue.flows.is_empty());
}

#[test]
fn turns_are_by_weight_and_by_cost() {
    let mut heavy = Scene::new(1, 40);
    heavy.come("x");
    for _ in 0..12 {
        heavy.enter('a', 3, 1);
        heavy.enter('b', 1, 1);
    }
    let order = heavy.order(12, 1);
    assert_eq!(order.matches('a').count(), 9, "{order}");
    let mut dear = Scene::new(1, 40);
    dear.come("x");
    for _ in 0..12 {
        dear.enter('a', 1, 300);
        dear.enter('b', 1, 100);
    }
    let mut order = String::new();
    for _ in 0..12 {
        let actual = if order.ends_with('a') { 300 } else { 100 };
        order += &dear.order(1, actual);
    }
    assert_eq!(order.matches('b').count(), 9, "{order}");
}

#[test]
fn what_an_estimate_was_wrong_by_is_charged_later() {
    let mut scene = Scene::new(1, 40);
    scene.come("x");
    for _ in 0..12 {
        scene.enter('a', 1, 100);
        scene.enter('b', 1, 100);
    }
    let mut order = String::new();
    for _ in 0..12 {
        let actual = if order.ends_with('a') { 300 } else { 100 };
        order += &scene.order(1, actual);
    }
    assert_eq!(order.matches('b').count(), 9, "{order}");
}

#[test]
fn having_been_idle_is_no_merit() {
    let mut scene = Scene::new(1, 40);
    scene.come("bax");
    assert_eq!(scene.order(2, 1), "ax");
    scene.come("aaaaaaaa");
    assert_eq!(scene.order(4, 1), "aaaa");
    // b was away while a had four: both have their turns from now on.
    scene.come("bbbb");
    assert_eq!(scene.order(8, 1), "babababa");
}

#[test]
fn several_run_at_once_and_what_ends_makes_room() {
    let mut scene = Scene::new(2, 10);
    for _ in 0..2 {
        assert!(matches!(scene.enter('a', 1, 1), Entered::Run(_)));
    }
    scene.now_ms = 1_000;
    let Entered::Wait { ticket, displaced } = scene.enter('b', 1, 1) else {
        panic!("it should wait");
    };
    assert_eq!(displaced, None);
    scene.now_ms = 1_700;
    let waited_ms = 700;
    assert_eq!(scene.end(1), [Started { ticket, waited_ms }]);
    // What is not there any more changes nothing.
    assert_eq!(scene.queue.leave(Ticket(1), 1, 1_800), []);
    assert_eq!(scene.queue.running(), 2);
}

#[test]
fn who_leaves_early_makes_room_too() {
    let mut scene = Scene::new(1, 10);
    scene.come("abc");
    assert_eq!(scene.queue.abandon(Ticket(2), 0), []);
    assert_eq!(scene.queue.waiting(), 1);
    let started = scene.queue.abandon(Ticket(1), 5);
    assert_eq!(started[0].ticket, Ticket(3));
    assert_eq!(scene.queue.abandon(Ticket(2), 5), []);
    assert_eq!(scene.queue.abandon(Ticket(3), 5), []);
    assert!(scene.queue.flows.is_empty());
}

/// The full queue of these requests, one running before them; then one comes. Gives
/// which one gave way, if it waits.
#[track_caller]
fn check_full(waiting: &[(char, u32)], comes: (char, u32), gave_way: Option<Option<char>>) {
    let mut scene = Scene::new(1, u32::try_from(waiting.len()).unwrap());
    scene.come("x");
    for (name, weight) in waiting {
        scene.enter(*name, *weight, 1);
    }
    let newest = scene.queue.last;
    let found = match scene.enter(comes.0, comes.1, 1) {
        Entered::Wait { displaced, .. } => {
            let displaced = displaced.map(|d| d.ticket);
            if let Some(displaced) = displaced {
                assert!(displaced <= newest);
            }
            Some(displaced.map(|ticket| scene.names[&ticket]))
        }
        Entered::Full { retry_after_ms } => {
            let waiting = u64::try_from(waiting.len()).unwrap();
            assert_eq!(retry_after_ms, 1_000 * (waiting + 1));
            assert_eq!(scene.queue.last, newest);
            None
        }
        Entered::Run(_) => panic!("it should not run"),
    };
    assert_eq!(found, gave_way);
    assert_eq!(scene.queue.waiting(), waiting.len());
}

#[test]
fn of_a_full_queue_the_longest_gives_way_to_the_shorter() {
    let of = |names: &str| -> Vec<(char, u32)> { names.chars().map(|name| (name, 1)).collect() };
    // A batch job has it all: the first of another one, but no more of its own.
    check_full(&of("aaaa"), ('b', 1), Some(Some('a')));
    check_full(&of("aaaa"), ('a', 1), None);
    // Until they have equally many.
    check_full(&of("aaab"), ('b', 1), Some(Some('a')));
    check_full(&of("aabb"), ('b', 1), None);
    check_full(&of("aabb"), ('c', 1), Some(Some('b')));
    // Nobody gives up the only one it has.
    check_full(&of("abcd"), ('e', 1), None);
    // A heavier one may have more.
    let heavy = [('a', 3), ('a', 3), ('a', 3), ('b', 1)];
    check_full(&heavy, ('b', 1), None);
    check_full(&heavy, ('c', 1), Some(Some('a')));
    let light = [('a', 1), ('a', 1), ('b', 3), ('b', 3)];
    check_full(&light, ('b', 3), Some(Some('a')));
    check_full(&[], ('a', 1), None);
}

#[test]
fn the_newest_gives_way_and_is_told_when_to_come_again() {
    let mut scene = Scene::new(1, 3);
    scene.come("aaaa");
    let Entered::Wait { displaced, .. } = scene.enter('b', 1, 1) else {
        panic!("it should wait");
    };
    let displaced = displaced.unwrap();
    assert_eq!(displaced.ticket, Ticket(4));
    assert_eq!(displaced.retry_after_ms, 4_000);
    // Once it is known how long they run: four of them for one place.
    scene.now_ms = 5_000;
    scene.order(1, 1);
    scene.come("b");
    assert_eq!(
        scene.enter('b', 1, 1),
        Entered::Full {
            retry_after_ms: 20_000
        }
    );
}

#[test]
fn one_tenants_queue_has_a_bound_of_its_own() {
    let mut queue = FairQueue::new(FairConfig {
        capacity: 1,
        queue: 10,
        queue_per_tenant: Some(2),
    });
    let mut enter = |name| matches!(queue.enter(&id(name), 1, 1, 0), Entered::Full { .. });
    assert_eq!(
        [enter("a"), enter("a"), enter("a"), enter("a")],
        [false, false, false, true]
    );
    assert!(!enter("b"));
}
