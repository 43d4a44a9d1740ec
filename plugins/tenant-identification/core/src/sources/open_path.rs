//! Paths that need no tenant, such as health checks.

/// One path, or all under one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenPath {
    path: String,
    /// Whether everything under it is open too.
    under: bool,
}

impl OpenPath {
    /// Takes `/healthz`, or `/docs/*` for everything under `/docs/`.
    ///
    /// # Errors
    /// What must be written instead.
    pub fn new(text: &str) -> Result<Self, String> {
        let (path, under) = match text.strip_suffix("/*") {
            Some(start) => (format!("{start}/"), true),
            None => (text.to_owned(), false),
        };
        let plain = path.starts_with('/') && is_plain(&path) && !path.contains(['*', '?', '#']);
        if !plain || (under && path == "/") {
            return Err(format!(
                "must be a path such as /healthz, or /docs/* for all under it, found {text:?}"
            ));
        }
        Ok(Self { path, under })
    }

    /// Whether a request's path, its query with it, is open.
    #[must_use]
    pub fn matches(&self, target: &[u8]) -> bool {
        let path = target
            .split(|b| *b == b'?' || *b == b'#')
            .next()
            .unwrap_or_default();
        if path == self.path.as_bytes() {
            return true;
        }
        // What an upstream may read as another path is not under this one.
        self.under
            && path.starts_with(self.path.as_bytes())
            && std::str::from_utf8(path).is_ok_and(is_plain)
    }
}

/// Without what is resolved, decoded or folded on the way: dots, escapes,
/// doubled and reversed slashes.
fn is_plain(path: &str) -> bool {
    !path.contains(['%', '\\', ';'])
        && !path.contains("//")
        && path
            .split('/')
            .all(|segment| segment != "." && segment != "..")
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[track_caller]
    fn check(open: &str, target: &str, expected: bool) {
        let found = OpenPath::new(open).unwrap().matches(target.as_bytes());
        assert_eq!(found, expected, "{open} {target}");
    }

    #[test]
    fn what_is_listed_is_open_and_nothing_beside_it() {
        check("/healthz", "/healthz", true);
        check("/healthz", "/healthz?full=1", true);
        check("/healthz", "/healthz/", false);
        check("/healthz", "/healthzz", false);
        check("/docs/*", "/docs/a/b", true);
        check("/docs/*", "/docs/", true);
        check("/docs/*", "/docs", false);
        for around in [
            "/docs/../v1/chat",
            "/docs/%2e%2e/v1",
            "/docs//x",
            "/docs/..;/v1",
            "/docs/\\..",
            "/docs/.",
        ] {
            check("/docs/*", around, false);
        }
    }

    #[test]
    fn what_opens_too_much_is_refused() {
        for bad in [
            "", "healthz", "/*", "*", "/a*", "/a/*/b", "/a?b", "/a/../b", "/%61",
        ] {
            assert!(OpenPath::new(bad).is_err(), "{bad}");
        }
    }
}
