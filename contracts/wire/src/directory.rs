//! A page of the directory, checked: what the router serves and what
//! tenant-identification polls.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    ids::{IdError, PlanName, TenantId},
    key_hash::KeyHash,
    proto::directory as proto,
};

/// Where a page is asked for (the shape of unary Connect).
pub const SNAPSHOT_PATH: &str = "/weir.directory.v1.Directory/Snapshot";

/// The variable that holds the token for it, at the router and at the gateway.
pub const TOKEN_ENVIRONMENT: &str = "WEIR_DIRECTORY_TOKEN";

/// The most bytes of one page. A page is kept in the gateway's shared data.
pub const PAGE_MAX_BYTES: usize = 60 << 10;

/// The most pages of one answer; together with [`PAGE_MAX_BYTES`] the bound of
/// what a gateway holds.
pub const PAGES_MAX: u32 = 4096;

/// The most keys of one tenant, so that a tenant fits in a page.
pub const KEYS_MAX: usize = 1000;

/// Why a page is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PageError {
    /// It is no protobuf of this type.
    #[error("the page is no SnapshotPage")]
    Malformed,
    /// A field is missing or beyond its bound.
    #[error("{field} is missing or beyond its bound")]
    Field {
        /// Which.
        field: &'static str,
    },
    /// An identifier is not one.
    #[error(transparent)]
    Id(#[from] IdError),
}

/// A state of the directory: a number that only grows, and a digest that tells
/// two states of one number apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Version {
    /// As in the directory's file, at least 1.
    pub number: u64,
    /// The first eight bytes, little endian, of a SHA-256 over what is served.
    pub digest: u64,
}

/// Whether a tenant may call: `active` or `suspended` where operators write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It may.
    #[default]
    Active,
    /// It is known and refused.
    Suspended,
}

impl State {
    /// Whether it may.
    #[must_use]
    pub fn is_active(&self) -> bool {
        *self == Self::Active
    }
}

/// Whether a key that is listed works: `active` or `revoked` where operators
/// write it. A page has only those that do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// It does, until it expires.
    #[default]
    Active,
    /// It does not, and never will again.
    Revoked,
}

impl KeyState {
    /// Whether it does.
    #[must_use]
    pub fn is_active(&self) -> bool {
        *self == Self::Active
    }
}

/// One key that works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// Its hash.
    pub hash: KeyHash,
    /// When it ends, in milliseconds of the Unix epoch; `None` for never.
    pub expires_at_ms: Option<u64>,
}

/// One tenant with all its keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tenant {
    /// Its name.
    pub id: TenantId,
    /// The plan it is on.
    pub plan: PlanName,
    /// Whether it may call.
    pub state: State,
    /// Its keys.
    pub keys: Vec<Key>,
}

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Where all pages of the answer together lead.
    pub version: Version,
    /// Where they start: `None` for a whole directory, `version` where nothing
    /// changed.
    pub base: Option<Version>,
    /// Which page this is, from 0.
    pub page: u32,
    /// Of how many, 1 to [`PAGES_MAX`].
    pub pages: u32,
    /// Each replaces what is held of that tenant.
    pub tenants: Vec<Tenant>,
    /// Tenants that are gone.
    pub removed: Vec<TenantId>,
}

impl Page {
    /// Reads and checks a page.
    ///
    /// # Errors
    /// [`PageError`], which names the field.
    pub fn decode(bytes: &[u8]) -> Result<Self, PageError> {
        use prost::Message as _;
        let page = proto::SnapshotPage::decode(bytes).map_err(|_| PageError::Malformed)?;
        Self::try_from(page)
    }

    /// The bytes of it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        use prost::Message as _;
        proto::SnapshotPage::from(self).encode_to_vec()
    }
}

impl TryFrom<proto::SnapshotPage> for Page {
    type Error = PageError;

    fn try_from(page: proto::SnapshotPage) -> Result<Self, PageError> {
        let within = |field, holds: bool| holds.then_some(()).ok_or(PageError::Field { field });
        let version = page.version.map(Version::from).unwrap_or_default();
        within("version.number", version.number > 0)?;
        within("pages", (1..=PAGES_MAX).contains(&page.pages))?;
        within("page", page.page < page.pages)?;
        Ok(Self {
            version,
            base: page.base.map(Version::from),
            page: page.page,
            pages: page.pages,
            tenants: page
                .tenants
                .into_iter()
                .map(Tenant::try_from)
                .collect::<Result<_, _>>()?,
            removed: page
                .removed
                .into_iter()
                .map(TenantId::new)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<proto::Tenant> for Tenant {
    type Error = PageError;

    fn try_from(tenant: proto::Tenant) -> Result<Self, PageError> {
        let wrong = |field| PageError::Field { field };
        if tenant.keys.len() > KEYS_MAX {
            return Err(wrong("tenants.keys"));
        }
        Ok(Self {
            state: match tenant.state() {
                proto::TenantState::Active => State::Active,
                proto::TenantState::Suspended => State::Suspended,
                proto::TenantState::Unspecified => return Err(wrong("tenants.state")),
            },
            id: TenantId::new(tenant.id)?,
            plan: PlanName::new(tenant.plan)?,
            keys: tenant
                .keys
                .into_iter()
                .map(|key| {
                    let hash = <[u8; 32]>::try_from(key.sha256)
                        .map_err(|_| wrong("tenants.keys.sha256"))?;
                    Ok(Key {
                        hash: KeyHash::from_bytes(hash),
                        expires_at_ms: (key.expires_at_ms > 0).then_some(key.expires_at_ms),
                    })
                })
                .collect::<Result<_, PageError>>()?,
        })
    }
}

impl From<proto::Version> for Version {
    fn from(version: proto::Version) -> Self {
        Self {
            number: version.number,
            digest: version.digest,
        }
    }
}

impl From<Version> for proto::Version {
    fn from(version: Version) -> Self {
        Self {
            number: version.number,
            digest: version.digest,
        }
    }
}

impl From<&Tenant> for proto::Tenant {
    fn from(tenant: &Tenant) -> Self {
        let state = match tenant.state {
            State::Active => proto::TenantState::Active,
            State::Suspended => proto::TenantState::Suspended,
        };
        Self {
            id: tenant.id.to_string(),
            plan: tenant.plan.to_string(),
            state: state.into(),
            keys: tenant
                .keys
                .iter()
                .map(|key| proto::Key {
                    sha256: key.hash.as_bytes().to_vec(),
                    expires_at_ms: key.expires_at_ms.unwrap_or(0),
                })
                .collect(),
        }
    }
}

impl From<&Page> for proto::SnapshotPage {
    fn from(page: &Page) -> Self {
        Self {
            version: Some(page.version.into()),
            base: page.base.map(Into::into),
            page: page.page,
            pages: page.pages,
            tenants: page.tenants.iter().map(Into::into).collect(),
            removed: page.removed.iter().map(ToString::to_string).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn page() -> Page {
        Page {
            version: Version {
                number: 7,
                digest: 9,
            },
            base: Some(Version {
                number: 6,
                digest: 1,
            }),
            page: 0,
            pages: 1,
            tenants: vec![Tenant {
                id: TenantId::new("acme").unwrap(),
                plan: PlanName::new("starter").unwrap(),
                state: State::Suspended,
                keys: vec![Key {
                    hash: KeyHash::of(b"k"),
                    expires_at_ms: Some(5),
                }],
            }],
            removed: vec![TenantId::new("gone").unwrap()],
        }
    }

    #[test]
    fn a_page_comes_back_as_it_was() {
        assert_eq!(Page::decode(&page().encode()), Ok(page()));
    }

    #[track_caller]
    fn check_refused(spoil: impl FnOnce(&mut proto::SnapshotPage), names: &str) {
        let mut wrong = proto::SnapshotPage::from(&page());
        spoil(&mut wrong);
        let error = Page::try_from(wrong).unwrap_err().to_string();
        assert!(error.contains(names), "{error} should name {names}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        check_refused(|p| p.version = None, "version");
        check_refused(|p| p.pages = 0, "pages");
        check_refused(|p| p.pages = PAGES_MAX + 1, "pages");
        check_refused(|p| p.page = 1, "page");
        check_refused(|p| p.tenants[0].state = 0, "state");
        check_refused(|p| p.tenants[0].state = 9, "state");
        check_refused(|p| p.tenants[0].id = "a b".into(), "a b");
        check_refused(|p| p.tenants[0].keys[0].sha256 = vec![1; 31], "sha256");
        check_refused(|p| p.removed = vec![String::new()], "tenant");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Page::decode(&bytes);
        }
    }
}
