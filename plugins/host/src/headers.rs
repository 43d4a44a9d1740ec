//! Headers as bytes.

use proxy_wasm::{hostcalls, types::MapType};
use weir_wire::{
    headers as names,
    host::{self, HostKind},
};

/// Every header of the request, pseudo-headers included, names in lower case.
#[derive(Debug)]
pub struct Request(Vec<u8>);

impl Request {
    /// Asks the host; where it has none there is none.
    #[must_use]
    pub fn read() -> Self {
        Self(read_map(MapType::HttpRequestHeaders))
    }

    /// The headers, borrowed: copies of each would be a fourth of what the
    /// filter itself does.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&str, &[u8])> {
        host::pairs(&self.0).unwrap_or_default()
    }
}

/// Every header of the answer, likewise.
#[derive(Debug)]
pub struct Response(Vec<u8>);

impl Response {
    /// Asks the host; where it has none there is none.
    #[must_use]
    pub fn read() -> Self {
        Self(read_map(MapType::HttpResponseHeaders))
    }

    /// The headers, borrowed.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&str, &[u8])> {
        host::pairs(&self.0).unwrap_or_default()
    }
}

#[allow(unsafe_code)]
fn read_map(map: MapType) -> Vec<u8> {
    let (mut data, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: both pointers are those of locals.
    let status = unsafe { proxy_get_header_map_pairs(map as u32, &mut data, &mut size) };
    if status != 0 || data.is_null() {
        return Vec::new();
    }
    // SAFETY: the host allocated these bytes for us by the SDK's
    // `proxy_on_memory_allocate`, a boxed slice of that size.
    unsafe { Vec::from_raw_parts(data, size, size) }
}

#[allow(unsafe_code)]
#[link(wasm_import_module = "env")]
unsafe extern "C" {
    /// The SDK's own use of it copies each name and each value.
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
}

/// One header of the request; several copies come joined by commas.
#[must_use]
pub fn request_value(name: &str) -> Option<Vec<u8>> {
    hostcalls::get_map_value_bytes(MapType::HttpRequestHeaders, name)
        .ok()
        .flatten()
}

/// The same as text; bytes that are no UTF-8 become U+FFFD.
#[must_use]
pub fn request_text(name: &str) -> Option<String> {
    request_value(name).map(|v| String::from_utf8_lossy(&v).into_owned())
}

/// Whether the request is nobody's: its path needs no tenant.
#[must_use]
pub fn is_open() -> bool {
    request_value(names::OPEN).is_some()
}

/// Replaces every copy of a request header.
pub fn set_request(name: &str, value: &str) {
    let _ =
        hostcalls::set_map_value_bytes(MapType::HttpRequestHeaders, name, Some(value.as_bytes()));
}

/// Gives the request a header that it does not have, any more. In Envoy half the
/// price of [`set_request`], which has to look for the name first; on Kong the
/// same, for there a header that was removed is still on its way upstream.
pub fn give_request(host: HostKind, name: &str, value: &str) {
    match host {
        HostKind::Envoy => {
            let (map, value) = (MapType::HttpRequestHeaders, value.as_bytes());
            let _ = hostcalls::add_map_value_bytes(map, name, value);
        }
        HostKind::Kong => set_request(name, value),
    }
}

/// Removes every copy of a request header. Does nothing upstream on Kong.
pub fn remove_request(name: &str) {
    let _ = hostcalls::set_map_value_bytes(MapType::HttpRequestHeaders, name, None);
}

/// Gives the response a header. In Envoy a third of the price of replacing one,
/// which has to look for the name first; what an upstream sends under the same
/// name stays beside it there.
pub fn give_response(host: HostKind, name: &str, value: &str) {
    let (map, value) = (MapType::HttpResponseHeaders, value.as_bytes());
    let _ = match host {
        HostKind::Envoy => hostcalls::add_map_value_bytes(map, name, value),
        HostKind::Kong => hostcalls::set_map_value_bytes(map, name, Some(value)),
    };
}

/// Removes every copy of a header of the response.
pub fn remove_response(name: &str) {
    let _ = hostcalls::set_map_value_bytes(MapType::HttpResponseHeaders, name, None);
}

/// One header of the response.
#[must_use]
pub fn response_value(name: &str) -> Option<Vec<u8>> {
    hostcalls::get_map_value_bytes(MapType::HttpResponseHeaders, name)
        .ok()
        .flatten()
}

/// `:status` of the response, 0 where it has none.
#[must_use]
pub fn response_status() -> u32 {
    response_value(":status")
        .and_then(|v| std::str::from_utf8(&v).ok()?.parse().ok())
        .unwrap_or(0)
}

/// `:status` of a callout's answer, of which the host announced so many headers.
/// `None` where the callout failed: on Kong always, in Envoy where the answer
/// broke off after its headers. It then announces none, and the SDK panics
/// at any look at them.
#[must_use]
pub fn callout_status(num_headers: usize) -> Option<u32> {
    if num_headers == 0 {
        return None;
    }
    hostcalls::get_map_value_bytes(MapType::HttpCallResponseHeaders, ":status")
        .ok()
        .flatten()
        .and_then(|v| std::str::from_utf8(&v).ok()?.parse().ok())
}
