//! Bodies as they pass.

use proxy_wasm::{hostcalls, types::BufferType};

/// The bytes of the answer's body that pass now, of which the host announced so
/// many.
#[must_use]
pub fn response(size: usize) -> Vec<u8> {
    read(BufferType::HttpResponseBody, 0, size)
}

/// So many bytes of the request's body from `start` on, of those that are at hand.
#[must_use]
pub fn request(start: usize, size: usize) -> Vec<u8> {
    read(BufferType::HttpRequestBody, start, size)
}

fn read(kind: BufferType, start: usize, size: usize) -> Vec<u8> {
    if size == 0 {
        return Vec::new();
    }
    hostcalls::get_buffer(kind, start, size)
        .ok()
        .flatten()
        .unwrap_or_default()
}

/// Puts `bytes` in the place of those of the answer that pass now. Says whether that
/// went well.
pub fn replace_response(size: usize, bytes: &[u8]) -> bool {
    replace(BufferType::HttpResponseBody, size, bytes)
}

/// Puts `bytes` in the place of the first `size` of the request's body; Envoy replaces
/// the beginning of a buffer, and nothing in its middle. Says whether that went well.
pub fn replace_request(size: usize, bytes: &[u8]) -> bool {
    replace(BufferType::HttpRequestBody, size, bytes)
}

/// The SDK's own call panics where it fails.
#[allow(unsafe_code)]
fn replace(kind: BufferType, size: usize, bytes: &[u8]) -> bool {
    // SAFETY: pointer and length are those of a borrowed slice.
    unsafe { proxy_set_buffer_bytes(kind as u32, 0, size, bytes.as_ptr(), bytes.len()) == 0 }
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
