//! Which of a request's headers are worth a look.

use weir_wire::headers;

/// What the filter asks of every request.
const ALWAYS: [&str; 4] = [":path", ":authority", "host", "cookie"];

/// The lengths of the names that the filter reads or strips. An SDK sends twenty
/// headers, of which it needs three; the rest are passed over by one bit each
/// instead of being compared with every name, several times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reads(u64);

impl Reads {
    /// For these names, and what every request is asked for.
    #[must_use]
    pub fn of(names: &[String]) -> Self {
        let names = names.iter().map(String::as_str).chain(ALWAYS);
        Self(names.fold(0, |bits, name| bits | bit(name)))
    }

    /// Whether a header of this name may be one that is read or stripped. False
    /// only where it is none.
    #[must_use]
    pub fn may_read(self, name: &str) -> bool {
        self.0 & bit(name) != 0 || headers::is_internal(name)
    }
}

/// Names of 63 bytes and more share the last.
fn bit(name: &str) -> u64 {
    1 << name.len().min(63)
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn no_name_that_matters_is_passed_over() {
        let long = "x".repeat(80);
        let own = ["authorization".to_owned(), "x-key".to_owned(), long.clone()];
        let reads = Reads::of(&own);
        let read = ALWAYS
            .into_iter()
            .chain(headers::INTERNAL)
            .chain(own.iter().map(String::as_str))
            .chain(["X-KEY", "x-weir-of-a-length-of-its-own"]);
        for name in read {
            assert!(reads.may_read(name), "{name}");
        }
        for name in ["accept-language", "x-stainless-os", ""] {
            assert!(!reads.may_read(name), "{name}");
        }
    }
}
