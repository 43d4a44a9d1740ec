//! Who holds which shard, over histories of beats, deaths, pauses and clocks that are set.

use std::cell::RefCell;

use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
use weir_wire::ids::TenantId;

use super::{memory::Table, *};

/// Ledgers and streams are read by later versions.
#[test]
fn the_shards_of_tenants_are_golden() {
    let shard = |name: &str| Shard::of(&TenantId::new(name).unwrap()).number();
    assert_eq!(["acme", "solo", "globex"].map(shard), [14, 1, 10]);
    let counts = (0..1_600_u32).fold([0_u32; 16], |mut counts, n| {
        counts[usize::from(shard(&format!("tenant-{n}")))] += 1;
        counts
    });
    assert!(counts.iter().all(|n| (60..140).contains(n)), "{counts:?}");
}

#[test]
fn a_holder_of_before_is_fenced() {
    let shard = Shard::new(3).unwrap();
    let held = |epoch| Scope::Held(Lease { shard, epoch });
    assert_eq!(check(held(7), 7), Ok(()));
    for found in [6, 8] {
        assert_eq!(check(held(7), found), Err(Fenced { shard }));
    }
    assert_eq!(check(Scope::Asked(shard), 8), Ok(()));
    assert_eq!(
        Fenced { shard }.to_string(),
        "shard 3 has another holder by now"
    );
}

const TERMS: Terms = Terms {
    ttl_ms: 6_000,
    forget_ms: 3_600_000,
};

fn member(n: u8, wants_all: bool) -> Member {
    Member {
        id: format!("replica-{n}"),
        version: 1,
        wants_all,
    }
}

/// One beat. Two are never told the same shard under one epoch, and each is told what the
/// table says.
fn beat(store: &mut Table, n: u8, wants_all: bool) -> Vec<Lease> {
    let me = member(n, wants_all);
    let held = keep(store, &me, &TERMS).unwrap();
    store.tell(&me.id, &held);
    let rows = store.rows.iter();
    let mine = rows.filter(|row| row.holder.as_ref() == Some(&me.id));
    let mine: Vec<Lease> = mine
        .map(|row| Lease {
            shard: row.shard,
            epoch: row.epoch,
        })
        .collect();
    assert!(held == mine || (wants_all && held.is_empty() && mine.len() < 16));
    held
}

/// A round of beats, a third of a life apart in all.
fn round(store: &mut Table, of: &[u8]) {
    for n in of {
        beat(store, *n, false);
        store.now_ms += TERMS.ttl_ms / 3 / i64::try_from(of.len()).unwrap();
    }
}

fn counts(store: &Table) -> Vec<usize> {
    let mut counts: Vec<usize> = store.holders().into_values().collect();
    counts.sort_unstable();
    counts
}

#[test]
fn replicas_that_join_and_leave_have_equal_shares_soon() {
    let mut store = Table::new();
    round(&mut store, &[1]);
    assert_eq!(counts(&store), [16]);
    round(&mut store, &[1, 2]);
    round(&mut store, &[1, 2]);
    assert_eq!(counts(&store), [8, 8]);
    for _ in 0..2 {
        round(&mut store, &[1, 2, 3]);
    }
    assert_eq!(counts(&store), [5, 5, 6]);
    // Each shard moved as often as it had to: 16 to the first, 8 and 5 given and taken.
    assert_eq!(store.moves, 16 + 2 * 8 + 2 * 5);
    // One that stops makes room at once.
    leave(&mut store, &member(2, false)).unwrap();
    round(&mut store, &[1, 3]);
    assert_eq!(counts(&store), [8, 8]);
    // One that dies does so when its time is up.
    for _ in 0..2 {
        round(&mut store, &[1]);
        assert_eq!(counts(&store), [8, 8]);
    }
    round(&mut store, &[1]);
    round(&mut store, &[1]);
    assert_eq!(counts(&store), [16]);
    // And is forgotten long after.
    assert_eq!(store.replicas.len(), 2);
    store.now_ms += TERMS.forget_ms + 1;
    round(&mut store, &[1]);
    assert_eq!(store.replicas.len(), 1);
}

/// Who has the first shard keeps it, whoever comes and whoever else goes.
#[test]
fn the_first_shard_moves_only_where_its_holder_goes() {
    let mut store = Table::new();
    let first = Shard::new(0).unwrap();
    let check = |store: &mut Table, of: &[u8], holder: u8, epoch: i64| {
        for _ in 0..3 {
            round(store, of);
        }
        let row = store.row(first);
        let holder = Some(member(holder, false).id);
        assert_eq!((&row.holder, row.epoch), (&holder, epoch), "{of:?}");
    };
    // Its id may come before the others' or behind them.
    check(&mut store, &[5], 5, 1);
    check(&mut store, &[5, 1], 5, 1);
    check(&mut store, &[1, 5, 9], 5, 1);
    let many: Vec<u8> = (0..16).collect();
    check(&mut store, &many, 5, 1);
    for n in many.into_iter().filter(|n| *n != 5) {
        leave(&mut store, &member(n, false)).unwrap();
    }
    check(&mut store, &[5], 5, 1);
    check(&mut store, &[5, 7], 5, 1);
    leave(&mut store, &member(5, false)).unwrap();
    check(&mut store, &[7, 8], 7, 3);
    // What is worked on is not given back: then others are.
    store.locked.extend(Shard::all().skip(1));
    store.locked.remove(&Shard::new(15).unwrap());
    check(&mut store, &[7, 8, 9], 7, 3);
}

#[test]
fn more_replicas_than_shards_wait() {
    let mut store = Table::new();
    let all: Vec<u8> = (0..20).collect();
    for _ in 0..3 {
        round(&mut store, &all);
    }
    assert_eq!(counts(&store), [1; 16]);
}

#[test]
fn one_holds_all_or_nothing_where_it_wants_all() {
    let mut store = Table::new();
    assert_eq!(beat(&mut store, 1, true).len(), 16);
    // The other waits, is seen, and has no part in what is shared.
    for _ in 0..5 {
        assert!(beat(&mut store, 2, true).is_empty());
        assert_eq!(beat(&mut store, 1, true).len(), 16);
        store.now_ms += TERMS.ttl_ms / 3;
    }
    assert_eq!(store.replicas.len(), 2);
    store.now_ms += TERMS.ttl_ms;
    assert_eq!(beat(&mut store, 2, true).len(), 16);
    assert!(beat(&mut store, 1, true).is_empty());
    // A transaction under way keeps one shard back for a while.
    leave(&mut store, &member(2, true)).unwrap();
    store.locked.insert(Shard::new(5).unwrap());
    assert!(beat(&mut store, 3, true).is_empty());
    assert!(beat(&mut store, 4, true).is_empty());
    assert_eq!(store.holders()[&None], 11);
    store.locked.clear();
    assert!(beat(&mut store, 4, true).is_empty());
    assert_eq!(beat(&mut store, 3, true).len(), 16);
}

#[test]
fn a_clock_that_is_set_back_keeps_no_dead_replica_alive() {
    let mut store = Table::new();
    round(&mut store, &[1, 2]);
    store.now_ms -= 86_400_000;
    for _ in 0..5 {
        round(&mut store, &[2]);
    }
    assert_eq!(counts(&store), [16]);
}

/// A process that others overtake between any two calls.
struct Torn<'a> {
    store: &'a RefCell<Table>,
    /// What happens meanwhile, the last first.
    others: &'a RefCell<Vec<Act>>,
}

impl Torn<'_> {
    fn then<T>(
        &mut self,
        call: impl FnOnce(&mut Table) -> Result<T, std::convert::Infallible>,
    ) -> Result<T, std::convert::Infallible> {
        let act = self.others.borrow_mut().pop();
        if let Some(act) = act {
            act.play(self.store, self.others);
        }
        call(&mut self.store.borrow_mut())
    }
}

impl Leases for Torn<'_> {
    type Error = std::convert::Infallible;

    fn now_ms(&mut self) -> Result<i64, Self::Error> {
        self.then(Table::now_ms)
    }

    fn rows(&mut self) -> Result<Vec<LeaseRow>, Self::Error> {
        self.then(Table::rows)
    }

    fn claim(
        &mut self,
        shard: Shard,
        epoch: i64,
        holder: Option<&str>,
    ) -> Result<bool, Self::Error> {
        self.then(|store| store.claim(shard, epoch, holder))
    }

    fn replicas(&mut self) -> Result<Vec<Replica>, Self::Error> {
        self.then(Table::replicas)
    }

    fn put_replica(&mut self, replica: &Replica) -> Result<(), Self::Error> {
        self.then(|store| store.put_replica(replica))
    }

    fn drop_replica(&mut self, id: &str) -> Result<(), Self::Error> {
        self.then(|store| store.drop_replica(id))
    }
}

/// Something that happens.
#[derive(Debug, Clone, Copy)]
enum Act {
    Beat(u8),
    /// Of one that wants all.
    BeatOfAll(u8),
    Leave(u8),
    /// Time goes on, or the clock is set; milliseconds.
    Clock(i64),
    Lock(u8),
    Unlock,
}

impl Act {
    fn play(self, store: &RefCell<Table>, others: &RefCell<Vec<Self>>) {
        let mut torn = Torn { store, others };
        match self {
            Self::Beat(n) | Self::BeatOfAll(n) => {
                let me = member(n, matches!(self, Self::BeatOfAll(_)));
                let held = keep(&mut torn, &me, &TERMS).unwrap();
                store.borrow_mut().tell(&me.id, &held);
            }
            Self::Leave(n) => leave(&mut torn, &member(n, false)).unwrap(),
            Self::Clock(by_ms) => store.borrow_mut().now_ms += by_ms,
            Self::Lock(n) => {
                let shard = Shard::new(u16::from(n)).unwrap();
                store.borrow_mut().locked.insert(shard);
            }
            Self::Unlock => store.borrow_mut().locked.clear(),
        }
    }
}

fn act() -> impl Strategy<Value = Act> {
    let short = prop_oneof![0_i64..3_000, 3_000_i64..20_000];
    let step = prop_oneof![
        -7_200_000_i64..0,
        -20_000_i64..0,
        0_i64..20_000,
        0_i64..7_200_000
    ];
    prop_oneof![
        8 => (0_u8..6).prop_map(Act::Beat),
        1 => (6_u8..8).prop_map(Act::BeatOfAll),
        1 => (0_u8..6).prop_map(Act::Leave),
        4 => short.prop_map(Act::Clock),
        1 => step.prop_map(Act::Clock),
        1 => (0_u8..16).prop_map(Act::Lock),
        1 => Just(Act::Unlock),
    ]
}

/// Acts, and whether others happen inside of what each does.
fn acts() -> impl Strategy<Value = Vec<(Act, Vec<Act>)>> {
    let inside = prop_oneof![
        3 => Just(Vec::new()),
        1 => prop::collection::vec(act(), 0..12),
    ];
    prop::collection::vec((act(), inside), 0..80)
}

fn play(acts: Vec<(Act, Vec<Act>)>, keeps_epoch: bool) -> Table {
    let store = RefCell::new(Table {
        keeps_epoch,
        ..Table::new()
    });
    for (act, inside) in acts {
        let epochs: Vec<i64> = store.borrow().rows.iter().map(|row| row.epoch).collect();
        act.play(&store, &RefCell::new(inside));
        let store = store.borrow();
        assert!(store.rows.iter().zip(epochs).all(|(row, e)| row.epoch >= e));
    }
    store.into_inner()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happened, of a shard and an epoch one replica was told; once all who are
    /// alive beat, they soon have equal shares, and nothing moves any more.
    #[test]
    fn shards_have_one_holder_and_settle(acts in acts(), alive in prop::collection::btree_set(0_u8..6, 1..=6)) {
        let mut store = play(acts, false);
        store.locked.clear();
        let alive: Vec<u8> = alive.into_iter().collect();
        let mut rounds = 0;
        // Until who died is gone, though the clock was set back.
        while store.replicas.values().any(|replica| {
            let is_alive = alive.iter().any(|n| replica.id == member(*n, false).id);
            !is_alive && replica.until_ms > store.now_ms
        }) {
            round(&mut store, &alive);
            rounds += 1;
        }
        prop_assert!(rounds <= 3 * 10, "{}", rounds);
        for _ in 0..4 {
            round(&mut store, &alive);
        }
        let counts = counts(&store);
        prop_assert!(!store.holders().contains_key(&None));
        prop_assert_eq!(counts.len(), alive.len());
        prop_assert!(counts[counts.len() - 1] - counts[0] <= 1, "{:?}", counts);
        let rows = store.rows.clone();
        for _ in 0..3 {
            round(&mut store, &alive);
        }
        prop_assert_eq!(rows, store.rows);
    }

    /// One replica that wants all gets all, once nobody else is alive.
    #[test]
    fn who_wants_all_gets_all(acts in acts()) {
        let mut store = play(acts, false);
        store.locked.clear();
        for _ in 0..14 {
            beat(&mut store, 6, true);
            store.now_ms += TERMS.ttl_ms;
        }
        prop_assert_eq!(beat(&mut store, 6, true).len(), 16);
    }
}

/// The tests tell right from wrong: where a takeover raises no epoch, two are told the same.
#[cfg(not(target_arch = "wasm32"))]
#[test]
fn a_takeover_without_another_epoch_is_found() {
    let run = || {
        let beats = [Act::Beat(1), Act::Clock(7_000), Act::Beat(2)];
        play(beats.map(|act| (act, Vec::new())).to_vec(), true)
    };
    assert!(std::panic::catch_unwind(run).is_err());
}
