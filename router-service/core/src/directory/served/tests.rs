//! Gateways of a few lines against what is served: whatever they held, they end
//! with the newest directory.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
use weir_wire::{
    directory::{PAGE_MAX_BYTES, Page, Tenant},
    ids::{KeyName, PlanName, TenantId},
    key_hash::KeyHash,
    timestamp::Timestamp,
};

use super::*;
use crate::directory::file::{self, File, KeyState, TenantState};

/// What a gateway holds.
#[derive(Debug, Clone, Default, PartialEq)]
struct Holder {
    version: Option<Version>,
    tenants: BTreeMap<TenantId, Tenant>,
}

impl Holder {
    /// Asks until it has the newest; `between` runs after each page. Gives how
    /// many pages it took.
    fn poll(&mut self, served: &mut Served, mut between: impl FnMut(&mut Served)) -> usize {
        let mut taken = 0;
        'again: loop {
            let mut next = self.clone();
            let mut reading = None;
            for n in 0.. {
                let Ok(bytes) = served.answer(&request(self.version, reading, n)) else {
                    continue 'again;
                };
                assert!(bytes.len() <= PAGE_MAX_BYTES, "{} bytes", bytes.len());
                taken += 1;
                between(served);
                let page = Page::decode(&bytes).unwrap();
                assert_eq!(page.page, n);
                if page.base.is_none() && n == 0 {
                    next.tenants.clear();
                }
                assert!(page.base.is_none() || page.base == self.version);
                for id in page.removed {
                    assert!(next.tenants.remove(&id).is_some(), "{id} was not held");
                }
                for tenant in page.tenants {
                    next.tenants.insert(tenant.id.clone(), tenant);
                }
                next.version = Some(page.version);
                reading = Some(page.version);
                if n + 1 == page.pages {
                    *self = next;
                    return taken;
                }
            }
        }
    }

    /// What a holder of this file has.
    fn of(file: &File) -> BTreeMap<TenantId, Tenant> {
        let tenant = |tenant: &file::Tenant| {
            let mut keys: Vec<_> = tenant
                .keys
                .iter()
                .filter(|key| key.state == KeyState::Active)
                .map(|key| weir_wire::directory::Key {
                    hash: key.sha256,
                    expires_at_ms: key.expires_at.map(Timestamp::ms),
                })
                .collect();
            keys.sort_by_key(|key| key.hash);
            Tenant {
                id: tenant.id.clone(),
                plan: tenant.plan.clone(),
                state: tenant.state,
                keys,
            }
        };
        file.tenants
            .iter()
            .map(|t| (t.id.clone(), tenant(t)))
            .collect()
    }
}

fn request(held: Option<Version>, reading: Option<Version>, page: u32) -> proto::SnapshotRequest {
    proto::SnapshotRequest {
        held: held.map(Into::into),
        reading: reading.map(Into::into),
        page,
    }
}

/// Tenants as (number, how many keys); the number of keys is what changes.
fn file(version: u64, tenants: &[(u16, u16)]) -> File {
    let seen: BTreeMap<u16, u16> = tenants.iter().copied().collect();
    let key = |tenant: u16, n: u16| file::Key {
        id: KeyName::new(format!("k{n}")).unwrap(),
        prefix: None,
        sha256: KeyHash::of(format!("{tenant} {n}").as_bytes()),
        state: if n % 7 == 3 {
            KeyState::Revoked
        } else {
            KeyState::Active
        },
        created_at: None,
        expires_at: Timestamp::from_ms(u64::from(n % 3) * 1_795_000_000_000),
    };
    File {
        plans: Default::default(),
        version,
        // In no order.
        tenants: seen
            .iter()
            .rev()
            .map(|(tenant, keys)| file::Tenant {
                id: TenantId::new(format!("t{tenant}")).unwrap(),
                plan: PlanName::new("p").unwrap(),
                state: if keys % 2 == 0 {
                    TenantState::Active
                } else {
                    TenantState::Suspended
                },
                limits: None,
                allowance: Default::default(),
                keys: (0..*keys).map(|n| key(*tenant, n)).collect(),
            })
            .collect(),
    }
}

fn snapshot(file: &File) -> Snapshot {
    file.validate(&BTreeSet::new()).unwrap();
    Snapshot::new(file).unwrap()
}

/// Serves one file after the other to holders that each stopped asking at
/// another one; at the end all ask again.
#[track_caller]
fn check_served(files: &[File]) {
    let mut served = Served::new(snapshot(&files[0]));
    let mut holders = vec![Holder::default()];
    for file in files {
        served.offer(snapshot(file)).unwrap();
        let mut holder = holders[holders.len() / 2].clone();
        holder.poll(&mut served, |_| ());
        assert_eq!(holder.tenants, Holder::of(file));
        holders.push(holder);
    }
    let newest = Holder::of(files.last().unwrap());
    for mut holder in holders {
        holder.poll(&mut served, |_| ());
        assert_eq!(holder.tenants, newest);
        assert_eq!(holder.version, Some(served.newest().version()));
        assert_eq!(holder.poll(&mut served, |_| ()), 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn every_holder_ends_with_the_newest(
        states in prop::collection::vec(prop::collection::vec((0_u16..12, 0_u16..4), 0..8), 1..25),
    ) {
        let files: Vec<File> = (1..).zip(&states).map(|(v, t)| file(v, t)).collect();
        check_served(&files);
    }

    #[test]
    fn pages_are_cut_at_their_bound(
        states in prop::collection::vec(prop::collection::vec((0_u16..12, 0_u16..1000), 1..12), 1..4),
    ) {
        let files: Vec<File> = (1..).zip(&states).map(|(v, t)| file(v * 9, t)).collect();
        check_served(&files);
    }

    #[test]
    fn a_directory_that_changes_while_it_is_read_is_read_whole(
        sizes in prop::collection::vec(500_u16..1000, 2..5),
        patience in 1_usize..4,
    ) {
        let tenants = |n: u16| -> Vec<(u16, u16)> {
            sizes.iter().zip(0..).map(|(keys, id)| (id + n % 2, keys - n)).collect()
        };
        let mut served = Served::new(snapshot(&file(1, &tenants(0))));
        let (mut pages, mut version) = (0, 1);
        let mut holder = Holder::default();
        holder.poll(&mut served, |served| {
            pages += 1;
            if pages % patience == 0 && version < 6 {
                version += 1;
                served.offer(snapshot(&file(version, &tenants(version as u16)))).unwrap();
            }
        });
        holder.poll(&mut served, |_| ());
        prop_assert_eq!(holder.tenants, Holder::of(&file(version, &tenants(version as u16 - u16::from(version == 1)))));
    }
}

#[test]
fn a_version_must_be_raised() {
    let mut served = Served::new(snapshot(&file(5, &[(1, 2)])));
    let check =
        |served: &mut Served, version, tenants: &[(u16, u16)], expected: Result<Offered, &str>| {
            let found = served.offer(snapshot(&file(version, tenants)));
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(error), Err(says)) => {
                    let error = error.to_string();
                    assert!(
                        error.contains(says) && error.contains("raise version"),
                        "{error}"
                    );
                }
                (found, expected) => panic!("{found:?}, not {expected:?}"),
            }
        };
    check(&mut served, 5, &[(1, 2)], Ok(Offered::Same));
    check(&mut served, 5, &[(1, 4)], Err("5 is served already"));
    check(&mut served, 4, &[(1, 2)], Err("found 4"));
    assert_eq!(served.newest().version().number, 5);
    check(
        &mut served,
        6,
        &[(1, 2)],
        Ok(Offered::Changed { tenants: 0 }),
    );
    check(
        &mut served,
        9,
        &[(2, 2), (3, 1)],
        Ok(Offered::Changed { tenants: 3 }),
    );
    assert_eq!((served.newest().tenants(), served.newest().keys()), (2, 3));
}

#[test]
fn what_does_not_show_is_not_in_the_digest() {
    let digest = |file: &File| snapshot(file).version().digest;
    let one = file(1, &[(1, 4), (2, 2)]);
    let mut other = file(2, &[(2, 2), (1, 4)]);
    other.tenants.reverse();
    other.tenants[0].keys.reverse();
    other.tenants[0].keys[0].prefix = Some("abc".to_owned());
    assert_eq!(digest(&one), digest(&other));
    // Gateways are told of no limits and amounts, but a state with others is another state.
    let mut digests = vec![digest(&one)];
    for limits in [
        "[]",
        r#"[{"requests":1,"window_s":2}]"#,
        r#"[{"requests":2,"window_s":1}]"#,
        r#"[{"requests":1,"window_s":2,"class":"chat"}]"#,
    ] {
        other.tenants[0].limits = Some(serde_json::from_str(limits).unwrap());
        digests.push(digest(&other));
    }
    other.tenants[0].limits = None;
    for allowance in [
        r#"{"in_flight":1}"#,
        r#"{"tokens_per_minute":1}"#,
        r#"{"budget":{"monthly_usd":1}}"#,
        r#"{"budget":{"monthly_usd":1,"at_ceiling":"reject"}}"#,
    ] {
        other.tenants[0].allowance = serde_json::from_str(allowance).unwrap();
        digests.push(digest(&other));
    }
    other.tenants[0].allowance = Default::default();
    other.tenants[0].keys.pop();
    digests.push(digest(&other));
    let different: BTreeSet<u64> = digests.iter().copied().collect();
    assert_eq!(different.len(), digests.len());
}

#[test]
fn few_changes_are_few_bytes() {
    let many: Vec<(u16, u16)> = (0..5000).map(|n| (n, 2)).collect();
    let mut served = Served::new(snapshot(&file(1, &many)));
    let mut holder = Holder::default();
    assert!(holder.poll(&mut served, |_| ()) > 5);
    let mut fewer = many.clone();
    fewer[17].1 = 4;
    fewer.remove(4000);
    served.offer(snapshot(&file(2, &fewer))).unwrap();
    let page = served.answer(&request(holder.version, None, 0)).unwrap();
    assert!(page.len() < 400, "{} bytes", page.len());
    // The same bytes for the next gateway, not a copy.
    let again = served.answer(&request(holder.version, None, 0)).unwrap();
    assert_eq!(page.as_ptr(), again.as_ptr());
    // A tenant that came and went is not told to who never had it.
    served
        .offer(snapshot(&file(
            3,
            &[fewer.as_slice(), &[(6000, 2)]].concat(),
        )))
        .unwrap();
    served.offer(snapshot(&file(4, &fewer))).unwrap();
    assert_eq!(holder.poll(&mut served, |_| ()), 1);
    assert_eq!(holder.tenants, Holder::of(&file(4, &fewer)));
}

#[test]
fn what_is_not_there_is_gone() {
    let mut served = Served::new(snapshot(&file(1, &[(1, 2)])));
    let first = served.newest().version();
    let check = |served: &Served, reading, page, there: bool| {
        let found = served.answer(&request(None, reading, page));
        assert_eq!(found.is_ok(), there, "{reading:?} {page}");
    };
    check(&served, None, 0, true);
    check(&served, None, 1, false);
    check(&served, Some(first), 0, true);
    check(&served, Some(first), 1, false);
    check(&served, Some(first), u32::MAX, false);
    served.offer(snapshot(&file(2, &[]))).unwrap();
    check(&served, Some(first), 0, true);
    check(&served, Some(served.newest().version()), 0, true);
    served.offer(snapshot(&file(3, &[]))).unwrap();
    check(&served, Some(first), 0, false);
    check(&served, Some(Version::default()), 0, false);
}

#[test]
fn history_is_bounded() {
    let mut served = Served::new(snapshot(&file(1, &[])));
    for version in 2..60 {
        served
            .offer(snapshot(&file(version, &[(version as u16, 1)])))
            .unwrap();
    }
    assert_eq!(served.newest.steps.len(), HISTORY_MAX);
    let many: Vec<(u16, u16)> = (0..HISTORY_TENANTS_MAX as u16 + 1)
        .map(|n| (n, 0))
        .collect();
    served.offer(snapshot(&file(60, &many))).unwrap();
    assert_eq!(served.newest.steps.len(), 0);
}
