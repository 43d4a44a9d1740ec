//! One state of the directory as gateways are told of it: pages, encoded once,
//! and what differs from another state.

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;
use prost::{Message as _, encoding};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use weir_wire::{
    directory::{self as wire, PAGE_MAX_BYTES, PAGES_MAX, Version},
    ids::{PlanName, TenantId},
    proto::directory as proto,
    timestamp::Timestamp,
};

use super::file::{File, Tenant};
use crate::{allowance::Allowance, plan::Plan, quota::Limits};

/// The most bytes that a page's own fields take beside tenants: two versions
/// with a number of up to 10 bytes, and two numbers of up to 5.
const ENVELOPE_MAX_BYTES: usize = 64;

/// `SnapshotPage.tenants`.
const TENANTS_TAG: u32 = 5;

/// `SnapshotPage.removed`.
const REMOVED_TAG: u32 = 6;

/// There is more than a gateway can hold.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "tenants: come to {pages} pages of {PAGE_MAX_BYTES} bytes, at most {PAGES_MAX} are allowed"
)]
pub struct TooLarge {
    /// How many pages it would be.
    pub pages: usize,
}

/// One tenant, ready to be sent.
#[derive(Debug, Clone)]
struct Entry {
    id: TenantId,
    /// The field of the page, with its tag; a part of a page's bytes.
    field: Bytes,
}

/// A tenant that differs between two states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which.
    pub id: TenantId,
    /// Whether the older state had it.
    pub was_there: bool,
}

/// One state of the directory: all tenants, suspended ones too, with their keys
/// that are not revoked. Keys that have expired are in it, because it has no
/// clock; gateways compare.
#[derive(Debug, Clone)]
pub struct Snapshot {
    version: Version,
    /// By id.
    entries: Vec<Entry>,
    keys: usize,
    pages: Vec<Bytes>,
}

impl Snapshot {
    /// Encodes a file that was validated.
    ///
    /// # Errors
    /// [`TooLarge`] beyond [`PAGES_MAX`] pages.
    pub fn new(file: &File) -> Result<Self, TooLarge> {
        let mut tenants: Vec<&Tenant> = file.tenants.iter().collect();
        tenants.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let mut hash = Sha256::new();
        let mut pages = Paginator::default();
        let mut keys = 0_usize;
        let places: Vec<(usize, Range<usize>)> = tenants
            .iter()
            .map(|tenant| {
                let message = message(tenant);
                keys = keys.saturating_add(message.keys.len());
                let mut field = Vec::new();
                encoding::message::encode(TENANTS_TAG, &message, &mut field);
                hash.update(&field);
                if let Some(limits) = &tenant.limits {
                    hash_limits(&mut hash, limits);
                }
                if !tenant.allowance.is_empty() {
                    hash_allowance(&mut hash, &tenant.allowance);
                }
                pages.push(&field)
            })
            .collect();
        if !file.plans.is_empty() {
            hash_plans(&mut hash, &file.plans);
        }
        let version = Version {
            number: file.version,
            digest: digest(&hash.finalize()),
        };
        let pages = pages.finish(version, None)?;
        let entries = tenants
            .iter()
            .zip(places)
            .map(|(tenant, (page, within))| Entry {
                id: tenant.id.clone(),
                field: pages
                    .get(page)
                    .map(|page| page.body(within))
                    .unwrap_or_default(),
            })
            .collect();
        Ok(Self {
            version,
            entries,
            keys,
            pages: pages.into_iter().map(|page| page.bytes).collect(),
        })
    }

    /// Which state it is.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// How many tenants it has.
    #[must_use]
    pub fn tenants(&self) -> usize {
        self.entries.len()
    }

    /// How many keys all of them have together.
    #[must_use]
    pub const fn keys(&self) -> usize {
        self.keys
    }

    /// All of it, for a holder of nothing.
    #[must_use]
    pub fn pages(&self) -> &[Bytes] {
        &self.pages
    }

    /// The bytes of all its pages.
    #[must_use]
    pub fn size(&self) -> usize {
        size(&self.pages)
    }

    /// One empty page, for a holder of this very state.
    #[must_use]
    pub fn unchanged(&self) -> Bytes {
        let page = proto::SnapshotPage {
            version: Some(self.version.into()),
            base: Some(self.version.into()),
            page: 0,
            pages: 1,
            ..Default::default()
        };
        page.encode_to_vec().into()
    }

    /// The tenants that are not the same in `from`, by id.
    #[must_use]
    pub fn differences(&self, from: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut differs = |entry: &Entry, was_there| {
            found.push(Difference {
                id: entry.id.clone(),
                was_there,
            });
        };
        let mut old = from.entries.iter().peekable();
        for new in &self.entries {
            while let Some(gone) = old.next_if(|old| old.id < new.id) {
                differs(gone, true);
            }
            match old.next_if(|old| old.id == new.id) {
                Some(same) if same.field == new.field => {}
                other => differs(new, other.is_some()),
            }
        }
        old.for_each(|gone| differs(gone, true));
        found
    }

    /// Pages that lead a holder of `base` here, where `differences` are all that
    /// it lacks. `None` where the whole is no larger.
    pub fn changes<'a>(
        &self,
        base: Version,
        differences: impl IntoIterator<Item = (&'a TenantId, bool)>,
    ) -> Option<Vec<Bytes>> {
        let mut pages = Paginator::default();
        let mut field = Vec::new();
        for (id, was_there) in differences {
            if let Some(entry) = self.find(id) {
                pages.push(&entry.field);
            } else if was_there {
                field.clear();
                encoding::string::encode(REMOVED_TAG, &id.to_string(), &mut field);
                pages.push(&field);
            }
        }
        let pages: Vec<Bytes> = pages
            .finish(self.version, Some(base))
            .ok()?
            .into_iter()
            .map(|page| page.bytes)
            .collect();
        (pages.len() == 1 || size(&pages) < self.size()).then_some(pages)
    }

    fn find(&self, id: &TenantId) -> Option<&Entry> {
        let at = self.entries.binary_search_by(|e| e.id.cmp(id)).ok()?;
        self.entries.get(at)
    }
}

fn size(pages: &[Bytes]) -> usize {
    pages.iter().map(Bytes::len).fold(0, usize::saturating_add)
}

/// A tenant on the wire, its keys by hash, so that the order in the file does
/// not show.
fn message(tenant: &Tenant) -> proto::Tenant {
    let mut keys: Vec<wire::Key> = tenant
        .keys
        .iter()
        .filter(|key| key.state.is_active())
        .map(|key| wire::Key {
            hash: key.sha256,
            expires_at_ms: key.expires_at.map(Timestamp::ms),
        })
        .collect();
    keys.sort_unstable_by_key(|key| key.hash);
    proto::Tenant::from(&wire::Tenant {
        id: tenant.id.clone(),
        plan: tenant.plan.clone(),
        state: tenant.state,
        keys,
    })
}

/// Gateways are not told of plans, but a state with others is another state.
fn hash_plans(hash: &mut Sha256, plans: &BTreeMap<PlanName, Plan>) {
    // Plans always serialise, and in one order.
    hash.update(serde_json::to_vec(plans).unwrap_or_default());
}

/// Gateways are not told of limits, but a state with others is another state. No
/// field's tag is 0 or 1 and no class has a 0, so nothing else is hashed the same.
fn hash_limits(hash: &mut Sha256, limits: &Limits) {
    hash.update([0]);
    for limit in limits.all() {
        hash.update([1]);
        hash.update(limit.requests.get().to_le_bytes());
        hash.update(limit.window_s.get().to_le_bytes());
        hash.update(&limit.class);
        hash.update([0]);
    }
}

/// The same for what a tenant is allowed. Its JSON has no byte 2.
fn hash_allowance(hash: &mut Sha256, allowance: &Allowance) {
    hash.update([2]);
    // It always serialises, and in one order.
    hash.update(serde_json::to_vec(allowance).unwrap_or_default());
    hash.update([2]);
}

fn digest(hash: &[u8]) -> u64 {
    let mut first = [0; 8];
    first
        .iter_mut()
        .zip(hash)
        .for_each(|(to, from)| *to = *from);
    u64::from_le_bytes(first)
}

/// Cuts fields into pages.
#[derive(Default)]
struct Paginator {
    bodies: Vec<Vec<u8>>,
}

/// A page and where its fields begin.
struct Page {
    bytes: Bytes,
    envelope: usize,
}

impl Page {
    fn body(&self, within: Range<usize>) -> Bytes {
        let shift = |at: usize| at.saturating_add(self.envelope).min(self.bytes.len());
        self.bytes.slice(shift(within.start)..shift(within.end))
    }
}

impl Paginator {
    /// Adds a field; gives the page and where in its body. A tenant of
    /// `KEYS_MAX` keys is smaller than a page, so each field has its place.
    fn push(&mut self, field: &[u8]) -> (usize, Range<usize>) {
        let room = PAGE_MAX_BYTES.saturating_sub(ENVELOPE_MAX_BYTES);
        let full = |body: &Vec<u8>| body.len().saturating_add(field.len()) > room;
        if self.bodies.last().is_none_or(full) {
            self.bodies.push(Vec::new());
        }
        let page = self.bodies.len().saturating_sub(1);
        let Some(body) = self.bodies.last_mut() else {
            return (page, 0..0);
        };
        let start = body.len();
        body.extend_from_slice(field);
        (page, start..body.len())
    }

    fn finish(mut self, version: Version, base: Option<Version>) -> Result<Vec<Page>, TooLarge> {
        if self.bodies.is_empty() {
            self.bodies.push(Vec::new());
        }
        let count = self.bodies.len();
        let pages = u32::try_from(count)
            .ok()
            .filter(|pages| *pages <= PAGES_MAX)
            .ok_or(TooLarge { pages: count })?;
        let bodies = self.bodies.into_iter().zip(0_u32..);
        Ok(bodies
            .map(|(body, page)| {
                let envelope = proto::SnapshotPage {
                    version: Some(version.into()),
                    base: base.map(Into::into),
                    page,
                    pages,
                    ..Default::default()
                };
                // Fields of a message may follow each other in any order.
                let mut bytes = envelope.encode_to_vec();
                let envelope = bytes.len();
                bytes.reserve_exact(body.len());
                bytes.extend_from_slice(&body);
                Page {
                    bytes: bytes.into(),
                    envelope,
                }
            })
            .collect())
    }
}
