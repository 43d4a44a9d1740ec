//! JSON Web Tokens (RFC 7519): which issuer signed one, and which tenant it is
//! for.
//!
//! In this order, so that what is cheap comes first: [`VerifiedCache::get`],
//! [`Issuers::peek`], [`Budget::take`] of [`Peeked::checks`],
//! [`Peeked::verify`], [`VerifiedCache::put`].

mod algorithm;
mod budget;
mod cache;
pub mod config;
mod issuers;
mod json;
mod jwk;
mod key;
mod peeked;
mod refused;
mod remote;
mod shared_keys;
pub mod signature;
#[cfg(test)]
pub(crate) mod tests;
mod token;

pub use algorithm::{Algorithm, Hash};
pub use budget::Budget;
pub use cache::VerifiedCache;
pub use config::{ClaimPath, IssuerConfig, JwksUriConfig, PemKey};
pub use issuers::{Fetched, Issuers};
pub use jwk::{JwksError, KID_MAX_BYTES, SET_MAX_BYTES, SET_MAX_KEYS, Skipped};
pub use key::{Key, PublicKey, RSA_MAX_BITS, RSA_MIN_BITS};
pub use peeked::{Claimed, Peeked};
pub use refused::{Reason, Refused};
pub use shared_keys::{Ask, Fetch, SharedKeys};
pub use signature::{JwtSimple, SignatureCheck};
pub use token::TOKEN_MAX_BYTES;
