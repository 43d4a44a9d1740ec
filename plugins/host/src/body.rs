//! Bodies as they pass.

use proxy_wasm::{hostcalls, types::BufferType};

/// The bytes of the answer's body that pass now, of which the host announced so
/// many.
#[must_use]
pub fn response(size: usize) -> Vec<u8> {
    if size == 0 {
        return Vec::new();
    }
    hostcalls::get_buffer(BufferType::HttpResponseBody, 0, size)
        .ok()
        .flatten()
        .unwrap_or_default()
}

/// Puts `bytes` in the place of those that pass now. Says whether that went well; the
/// SDK's own call panics where it did not.
#[allow(unsafe_code)]
pub fn replace_response(size: usize, bytes: &[u8]) -> bool {
    let kind = BufferType::HttpResponseBody as u32;
    // SAFETY: pointer and length are those of a borrowed slice.
    unsafe { proxy_set_buffer_bytes(kind, 0, size, bytes.as_ptr(), bytes.len()) == 0 }
}

#[allow(unsafe_code)]
#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_set_buffer_bytes(
        kind: u32,
        start: usize,
        size: usize,
        bytes: *const u8,
        length: usize,
    ) -> u32;
}
