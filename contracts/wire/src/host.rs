//! Which gateway a filter runs in. Every filter's config has it.

use serde::{Deserialize, Serialize};

/// The two hosts differ in what a filter may call and in what a header change
/// does; ARCHITECTURE.md lists how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostKind {
    /// Envoy, runtime `v8`.
    Envoy,
    /// Kong Gateway 3.4 to 3.10.
    Kong,
}
