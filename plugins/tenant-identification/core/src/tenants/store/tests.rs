//! The store against a naive model, and what it costs.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use weir_wire::directory::Key;

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

fn hash(n: u32) -> KeyHash {
    KeyHash::of(&n.to_le_bytes())
}

fn version(number: u64) -> Version {
    Version { number, digest: 0 }
}

/// A tenant named by a number; keys end at their own number.
fn tenant(id: u32, plan: u8, keys: &[u32]) -> Tenant {
    Tenant {
        id: TenantId::new(format!("tenant-{id}")).unwrap(),
        plan: PlanName::new(format!("plan-{plan}")).unwrap(),
        state: if plan == 0 {
            State::Suspended
        } else {
            State::Active
        },
        keys: keys
            .iter()
            .map(|n| Key {
                hash: hash(*n),
                expires_at_ms: (n % 2 == 0).then_some(u64::from(*n)),
            })
            .collect(),
    }
}

fn pages(base: Option<u64>, to: u64, parts: Vec<(Vec<Tenant>, Vec<TenantId>)>) -> Vec<Page> {
    let count = u32::try_from(parts.len()).unwrap();
    let page = |(at, (tenants, removed)): (u32, (Vec<Tenant>, Vec<TenantId>))| Page {
        version: version(to),
        base: base.map(version),
        page: at,
        pages: count,
        tenants,
        removed,
    };
    (0..).zip(parts).map(page).collect()
}

/// A whole directory, a tenant a page.
fn whole(to: u64, tenants: &[Tenant]) -> Vec<Page> {
    let parts = tenants.iter().map(|t| (vec![t.clone()], Vec::new()));
    pages(None, to, parts.collect())
}

fn change(from: u64, to: u64, tenants: &[Tenant]) -> Vec<Page> {
    let parts = tenants.iter().map(|t| (vec![t.clone()], Vec::new()));
    pages(Some(from), to, parts.collect())
}

fn filled(pages: &[Page]) -> Store {
    let mut store = Store::default();
    pages.iter().for_each(|page| store.apply(page).unwrap());
    store
}

fn owner(store: &Store, key: u32) -> Option<String> {
    match store.find(&hash(key), 0) {
        Found::Known(tenant) => Some(tenant.id.to_string()),
        Found::Expired { .. } | Found::Unknown => None,
    }
}

/// What the store says to a page after some whole directories and a part of one.
#[track_caller]
fn check(before: &[&[Page]], page: &Page, expected: Result<(), ApplyError>) {
    let mut store = filled(&before.concat());
    let held = (store.version(), store.tenants(), store.keys());
    assert_eq!(store.apply(page), expected);
    if expected.is_err() {
        assert_eq!(held, (store.version(), store.tenants(), store.keys()));
    }
}

#[test]
fn only_a_page_that_follows_is_taken() {
    let two = whole(2, &[tenant(1, 1, &[1]), tenant(2, 1, &[2])]);
    let three = whole(3, &[tenant(1, 1, &[1]), tenant(2, 1, &[2])]);
    let onward = change(2, 3, &[tenant(1, 1, &[]), tenant(3, 1, &[])]);
    let same = Page {
        base: Some(version(2)),
        ..change(2, 2, &[tenant(1, 1, &[])])[0].clone()
    };
    let gap = Err(ApplyError::Gap);
    check(&[], &two[0], Ok(()));
    check(&[], &two[1], gap);
    check(&[], &onward[0], gap);
    check(&[&two], &onward[0], Ok(()));
    check(&[&two], &onward[1], gap);
    check(&[&two], &same, Ok(()));
    check(&[&three], &same, Err(ApplyError::Older));
    check(&[&two[..1]], &same, gap);
    check(&[&two[..1]], &three[1], gap);
    check(&[&two[..1]], &three[0], Ok(()));
    check(&[&two, &three[..1]], &onward[0], gap);
    check(&[&two, &onward[..1]], &onward[0], Ok(()));
    check(&[&two, &onward[..1]], &onward[1], Ok(()));
    check(
        &[&two, &onward[..1]],
        &change(2, 4, &[tenant(9, 1, &[])])[0],
        gap,
    );
    check(&[&three], &two[0], Err(ApplyError::Older));
}

#[test]
fn a_directory_under_way_is_no_version_yet() {
    let mut store = filled(&whole(1, &[tenant(1, 1, &[1])]));
    let next = whole(2, &[tenant(2, 1, &[3]), tenant(3, 1, &[5])]);
    store.apply(&next[0]).unwrap();
    assert_eq!((store.version(), store.held()), (Some(version(1)), None));
    assert_eq!(owner(&store, 1).unwrap(), "tenant-1");
    store.apply(&next[1]).unwrap();
    assert_eq!(store.held(), Some(version(2)));
    assert_eq!(owner(&store, 1), None);
    assert_eq!((store.tenants(), store.keys()), (2, 2));
    assert_eq!(store.plans.len(), 1);
}

#[test]
fn a_key_that_moves_is_not_lost_with_its_old_tenant() {
    // Tenant 1 had it, 2 takes it, then 1 goes: key 1 stays.
    let both = whole(1, &[tenant(1, 1, &[1, 3, 5]), tenant(2, 1, &[3])]);
    let mut store = filled(&both);
    assert_eq!(owner(&store, 3).unwrap(), "tenant-2");
    let gone = vec![(Vec::new(), vec![tenant(1, 1, &[]).id])];
    store.apply(&pages(Some(1), 2, gone)[0]).unwrap();
    assert_eq!(owner(&store, 3).unwrap(), "tenant-2");
    assert_eq!((owner(&store, 1), store.keys()), (None, 1));
}

#[test]
fn a_key_ends_at_its_time() {
    let store = filled(&whole(1, &[tenant(1, 1, &[1000, 1001])]));
    assert!(matches!(store.find(&hash(1000), 999), Found::Known(_)));
    assert!(matches!(
        store.find(&hash(1000), 1000),
        Found::Expired { .. }
    ));
    assert!(matches!(
        store.find(&hash(1001), u64::MAX - 1),
        Found::Known(_)
    ));
    assert_eq!(store.find(&hash(7), 0), Found::Unknown);
}

#[test]
fn what_a_configuration_lists_twice_is_named() {
    let inline = |tenants: &[Tenant]| Store::inline(tenants.to_vec()).map_err(|e| e.to_string());
    let store = inline(&[tenant(1, 1, &[1]), tenant(2, 0, &[3])]).unwrap();
    assert_eq!(store.tenant("tenant-2").unwrap().state, State::Suspended);
    for (tenants, names) in [
        (
            [tenant(1, 1, &[1]), tenant(1, 2, &[3])],
            "tenant tenant-1 is",
        ),
        (
            [tenant(1, 1, &[1]), tenant(2, 2, &[1])],
            "tenant-2 is also a key of tenant tenant-1",
        ),
        (
            [tenant(1, 1, &[1]), tenant(2, 2, &[3, 3])],
            "tenant-2 is also a key of tenant tenant-2",
        ),
    ] {
        let error = inline(&tenants).unwrap_err();
        assert!(error.contains(names), "{error} should name {names}");
    }
}

/// 100,000 tenants with two keys each, 400 a page.
fn large(to: u64, from: u32) -> impl Iterator<Item = Page> {
    (0..250).map(move |at| Page {
        version: version(to),
        base: None,
        page: at,
        pages: 250,
        tenants: (0..400)
            .map(|n| from + at * 400 + n)
            .map(|n| tenant(n, 1 + u8::try_from(n % 5).unwrap(), &[2 * n, 2 * n + 1]))
            .collect(),
        removed: Vec::new(),
    })
}

#[test]
fn a_large_directory_is_small_and_stays_so() {
    let mut store = Store::default();
    large(1, 0).for_each(|page| store.apply(&page).unwrap());
    assert_eq!(
        (store.tenants(), store.keys(), store.plans.len()),
        (100_000, 200_000, 5)
    );
    let first = store.memory_bytes();
    large(2, 0).for_each(|page| store.apply(&page).unwrap());
    let again = store.memory_bytes();
    large(3, 1_000).for_each(|page| store.apply(&page).unwrap());
    large(4, 0).for_each(|page| store.apply(&page).unwrap());
    let moved = store.memory_bytes();
    eprintln!("bytes: {first}, the same again {again}, a hundredth changed {moved}");
    eprintln!(
        "slots: {} {}",
        size_of::<Option<KeySlot>>(),
        size_of::<Option<TenantSlot>>()
    );
    assert!(first < 20 << 20 && again - first < 64 << 10 && moved - first < 1 << 20);
    assert_eq!(size_of::<Option<KeySlot>>(), 48);
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    tenants: BTreeMap<TenantId, (PlanName, State)>,
    keys: BTreeMap<KeyHash, (TenantId, u64)>,
}

impl Model {
    fn remove(&mut self, id: &TenantId) {
        self.tenants.remove(id);
        self.keys.retain(|_, (owner, _)| owner != id);
    }

    fn put(&mut self, tenant: &Tenant) {
        self.remove(&tenant.id);
        let held = (tenant.plan.clone(), tenant.state);
        self.tenants.insert(tenant.id.clone(), held);
        for key in &tenant.keys {
            let end = key.expires_at_ms.unwrap_or(u64::MAX);
            self.keys.insert(key.hash, (tenant.id.clone(), end));
        }
    }
}

/// All the store's parts say the same as the model.
fn check_model(store: &Store, model: &Model) {
    let tenants = store.tenants.iter();
    let tenants = tenants.map(|(_, t)| (t.id.clone(), (PlanName::clone(&t.plan), t.state)));
    assert_eq!(tenants.collect::<BTreeMap<_, _>>(), model.tenants);
    for (key, (id, end)) in &model.keys {
        let found = store.find(key, end - 1);
        assert!(matches!(found, Found::Known(t) if t.id == id), "{found:?}");
    }
    assert_eq!(
        (store.keys(), store.by_hash.len()),
        (model.keys.len(), model.keys.len())
    );
    assert_eq!(
        (store.tenants(), store.by_id.len()),
        (model.tenants.len(), model.tenants.len())
    );
    assert!(
        model
            .tenants
            .keys()
            .all(|id| store.tenant(id.as_str()).is_some())
    );
    let plans: BTreeSet<_> = model.tenants.values().map(|(plan, _)| plan).collect();
    assert_eq!(
        store.plans.iter().map(|p| &**p).collect::<BTreeSet<_>>(),
        plans
    );
}

fn parts() -> impl Strategy<Value = Vec<(Vec<Tenant>, Vec<TenantId>)>> {
    let one = (0u32..12, 0u8..4, prop::collection::vec(2u32..30, 0..5));
    let some = prop::collection::vec(
        one.prop_map(|(id, plan, keys)| tenant(id, plan, &keys)),
        0..5,
    );
    let gone = prop::collection::vec((0u32..12).prop_map(|id| tenant(id, 1, &[]).id), 0..3);
    prop::collection::vec((some, gone), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_says_what_the_model_says(
        answers in prop::collection::vec((any::<bool>(), parts(), 1usize..9), 1..20),
    ) {
        let mut store = Store::default();
        let mut model = Model::default();
        for (to, (is_whole, parts, cut)) in (1..).zip(answers) {
            let base = store.held().filter(|_| !is_whole).map(|v| v.number);
            let pages = pages(base, to, parts);
            let mut marked = BTreeSet::new();
            for page in pages.iter().take(cut) {
                store.apply(page).unwrap();
                page.tenants.iter().for_each(|t| model.put(t));
                page.removed.iter().for_each(|id| model.remove(id));
                marked.extend(page.tenants.iter().map(|t| t.id.clone()));
            }
            if cut >= pages.len() {
                if base.is_none() {
                    let old = |id: &&TenantId| !marked.contains(*id);
                    let old: Vec<_> = model.tenants.keys().filter(old).cloned().collect();
                    old.iter().for_each(|id| model.remove(id));
                }
                prop_assert_eq!(store.held(), Some(version(to)));
            } else {
                prop_assert_eq!(store.held(), None);
            }
            check_model(&store, &model);
        }
    }
}
