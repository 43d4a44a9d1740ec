//! What the host knows beside headers and bodies. Envoy only: on Kong an unknown
//! property traps.

use proxy_wasm::hostcalls;

/// The bytes of a property, such as `["connection", "peer_certificate_valid"]`;
/// `None` where there is none.
#[must_use]
pub fn get(path: &[&str]) -> Option<Vec<u8>> {
    hostcalls::get_property(path.to_vec()).ok().flatten()
}

/// Sets a property of the request, such as `weir.usage`, which Envoy's access log
/// and matchers find in filter state as `wasm.weir.usage`; says whether that went
/// well. The SDK's own call panics where it did not.
#[allow(unsafe_code)]
pub fn set(name: &str, value: &str) -> bool {
    // SAFETY: pointers and lengths are those of borrowed slices.
    unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) == 0 }
}

#[allow(unsafe_code)]
#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_set_property(
        path: *const u8,
        path_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
}
