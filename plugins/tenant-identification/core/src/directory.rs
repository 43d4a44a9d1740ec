//! Which key belongs to which tenant.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use weir_wire::ids::{PlanName, TenantId};

/// Whose a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The tenant.
    pub tenant: TenantId,
    /// Its plan.
    pub plan: PlanName,
}

#[derive(Debug, Clone)]
struct Entry {
    hash: [u8; 32],
    owner: Owner,
}

/// Key hashes and their owners.
///
/// Found by the first eight bytes of the hash, then compared whole in constant
/// time: how long a look-up takes says nothing of a hash that is stored.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    entries: HashMap<[u8; 8], Vec<Entry>>,
}

impl Directory {
    /// Adds a key; false where it is there already.
    pub fn insert(&mut self, hash: [u8; 32], tenant: TenantId, plan: PlanName) -> bool {
        let entries = self.entries.entry(bucket(&hash)).or_default();
        if entries.iter().any(|e| e.hash == hash) {
            return false;
        }
        entries.push(Entry {
            hash,
            owner: Owner { tenant, plan },
        });
        true
    }

    /// Whose key this is.
    #[must_use]
    pub fn find(&self, key: &[u8]) -> Option<&Owner> {
        let hash: [u8; 32] = Sha256::digest(key).into();
        let mut found = None;
        for entry in self.entries.get(&bucket(&hash))? {
            if bool::from(entry.hash.ct_eq(&hash)) {
                found = Some(&entry.owner);
            }
        }
        found
    }
}

fn bucket(hash: &[u8; 32]) -> [u8; 8] {
    let mut bucket = [0; 8];
    bucket
        .iter_mut()
        .zip(hash)
        .for_each(|(to, from)| *to = *from);
    bucket
}
