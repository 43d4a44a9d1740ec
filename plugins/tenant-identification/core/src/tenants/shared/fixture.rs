//! A router and a gateway's shared data for the tests, in memory.

use std::{cell::RefCell, collections::BTreeMap};

use weir_wire::{
    directory::{Key, Page, State, Tenant, Version},
    ids::{PlanName, TenantId},
    key_hash::KeyHash,
};

use super::{super::Found, Board, Request, Settings, Store};

pub(super) const TENANTS: u64 = 10;
pub(super) const KEYS: u64 = 16;

/// The next of a sequence of numbers (splitmix64).
pub(super) fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub(super) fn settings(fixed: bool) -> Settings {
    Settings {
        namespace: "router".into(),
        fixed,
        poll_ms: 1_000,
        timeout_ms: 500,
    }
}

/// Values with a number that each write changes.
#[derive(Default)]
pub(super) struct Slots(pub(super) RefCell<BTreeMap<String, (Vec<u8>, u64)>>);

impl Slots {
    pub(super) fn get(&self, key: &str) -> (Option<Vec<u8>>, u64) {
        let found = self.0.borrow().get(key).cloned();
        found.map_or((None, 0), |(value, cas)| (Some(value), cas))
    }

    /// Writes if nobody has since `cas`.
    pub(super) fn set(&self, key: &str, value: Vec<u8>, cas: u64, fixed: bool) -> bool {
        let mut slots = self.0.borrow_mut();
        let slot = slots.entry(key.to_owned()).or_insert((value.clone(), 0));
        assert!(
            !fixed || slot.0.len() == value.len(),
            "{key} changed its size"
        );
        let same = slot.1 == cas;
        if same {
            *slot = (value, cas + 1);
        }
        same
    }
}

impl Board for Slots {
    fn read(&self, key: &str) -> Option<Vec<u8>> {
        self.get(key).0
    }

    fn change<T>(
        &self,
        key: &str,
        mut decide: impl FnMut(Option<&[u8]>) -> (T, Option<Vec<u8>>),
    ) -> Option<T> {
        let (value, cas) = self.get(key);
        let (outcome, write) = decide(value.as_deref());
        let written = write.is_none_or(|value| self.set(key, value, cas, false));
        written.then_some(outcome)
    }
}

pub(super) type Directory = BTreeMap<TenantId, Tenant>;

/// A directory in which every key has at most one tenant.
pub(super) fn directory(seed: &mut u64, tenants: u64) -> Directory {
    let mut all = Directory::new();
    for n in 0..tenants {
        let tenant = Tenant {
            id: TenantId::new(format!("tenant-{n}")).unwrap(),
            plan: PlanName::new(format!("plan-{}", next(seed) % 3)).unwrap(),
            state: [State::Active, State::Suspended][usize::from(next(seed).is_multiple_of(4))],
            keys: Vec::new(),
        };
        if !next(seed).is_multiple_of(5) {
            all.insert(tenant.id.clone(), tenant);
        }
    }
    for key in 0..KEYS {
        let owner = TenantId::new(format!("tenant-{}", next(seed) % tenants)).unwrap();
        if let Some(tenant) = all.get_mut(&owner) {
            tenant.keys.push(Key {
                hash: hash(key),
                expires_at_ms: None,
            });
        }
    }
    all
}

pub(super) fn hash(key: u64) -> KeyHash {
    KeyHash::of(&key.to_le_bytes())
}

/// What a router has served, the newest last.
pub(super) struct Router {
    pub(super) states: Vec<(Version, Directory)>,
    /// Changes are known from this state on.
    pub(super) known_from: usize,
    /// Tenants of one page.
    pub(super) cut: usize,
}

impl Router {
    pub(super) fn new(first: Directory) -> Self {
        let version = Version {
            number: 1,
            digest: 1,
        };
        Self {
            states: vec![(version, first)],
            known_from: 0,
            cut: 2,
        }
    }

    pub(super) fn newest(&self) -> &(Version, Directory) {
        self.states.last().unwrap()
    }

    pub(super) fn push(&mut self, directory: Directory) {
        let number = self.newest().0.number + 1;
        let version = Version {
            number,
            digest: number * 7,
        };
        self.states.push((version, directory));
    }

    /// A page, or nothing where it is gone. `behind` is a router that has not
    /// seen so many of the newest states.
    pub(super) fn answer(&self, request: &Request, behind: usize) -> Option<Vec<u8>> {
        let seen = &self.states[..self.states.len().saturating_sub(behind).max(1)];
        let recent = seen.iter().rev().take(2);
        let (version, newest) = match request.reading {
            None => seen.last().unwrap(),
            Some(reading) => recent.clone().find(|(version, _)| *version == reading)?,
        };
        let known = seen.iter().skip(self.known_from);
        let base = known
            .clone()
            .find(|(v, _)| Some(*v) == request.held && v.number <= version.number);
        let old = base.map(|(_, old)| old);
        let changed = |t: &&Tenant| old.is_none_or(|old| old.get(&t.id) != Some(*t));
        let tenants: Vec<Tenant> = newest.values().filter(changed).cloned().collect();
        let gone = old.into_iter().flat_map(|old| old.keys());
        let gone: Vec<TenantId> = gone
            .filter(|id| !newest.contains_key(*id))
            .cloned()
            .collect();
        let pages = tenants.len().div_ceil(self.cut).max(1);
        let at = usize::try_from(request.page).unwrap();
        let page = Page {
            version: *version,
            base: base.map(|(version, _)| *version),
            page: request.page,
            pages: u32::try_from(pages).unwrap(),
            tenants: tenants
                .iter()
                .skip(at * self.cut)
                .take(self.cut)
                .cloned()
                .collect(),
            removed: if at + 1 == pages { gone } else { Vec::new() },
        };
        (at < pages).then(|| page.encode())
    }
}

/// A store holds this directory, no more and no less.
#[track_caller]
pub(super) fn check_same(store: &Store, directory: &Directory) {
    let keys: usize = directory.values().map(|tenant| tenant.keys.len()).sum();
    assert_eq!((store.tenants(), store.keys()), (directory.len(), keys));
    for tenant in directory.values() {
        let held = store.tenant(tenant.id.as_str()).unwrap();
        assert_eq!((held.plan, held.state), (&tenant.plan, tenant.state));
        for key in &tenant.keys {
            assert_eq!(store.find(&key.hash, 0), Found::Known(held));
        }
    }
}
