//! Headers as bytes.

use proxy_wasm::{hostcalls, types::MapType};
use weir_wire::headers as names;

/// Every header of the request, pseudo-headers included, names in lower case.
#[must_use]
pub fn request() -> Vec<(String, Vec<u8>)> {
    hostcalls::get_map_bytes(MapType::HttpRequestHeaders).unwrap_or_default()
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

/// Removes every copy of a request header. Does nothing upstream on Kong.
pub fn remove_request(name: &str) {
    let _ = hostcalls::set_map_value_bytes(MapType::HttpRequestHeaders, name, None);
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
