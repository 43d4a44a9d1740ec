//! What the host knows beside headers and bodies. Envoy only: on Kong an unknown
//! property traps.

use proxy_wasm::hostcalls;

/// The bytes of a property, such as `["connection", "peer_certificate_valid"]`;
/// `None` where there is none.
#[must_use]
pub fn get(path: &[&str]) -> Option<Vec<u8>> {
    hostcalls::get_property(path.to_vec()).ok().flatten()
}
