//! The tenant that a host names: `{tenant}.api.example.com`.

/// The domains under which a first part names a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subdomain {
    /// In lower case, without a leading dot.
    bases: Vec<String>,
    /// Whether a host alone is believed, without a credential.
    pub trusted: bool,
}

impl Subdomain {
    /// Takes domains such as `api.example.com`.
    ///
    /// # Errors
    /// A message that says which of them is none.
    pub fn new(bases: &[String], trusted: bool) -> Result<Self, String> {
        let label = |l: &str| {
            (1..=63).contains(&l.len()) && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if bases.is_empty() {
            return Err("must name at least one domain, found none".to_owned());
        }
        for (i, base) in bases.iter().enumerate() {
            if base.len() > 253 || !base.split('.').all(label) {
                return Err(format!(
                    "must hold domains such as api.example.com, found {base:?} at {i}"
                ));
            }
        }
        Ok(Self {
            bases: bases.iter().map(|b| b.to_ascii_lowercase()).collect(),
            trusted,
        })
    }

    /// What stands before a base domain, in lower case; `None` where the host is
    /// under none of them, or is one itself. A host that holds a base domain and
    /// more after it is named whole, which is no tenant.
    #[must_use]
    pub fn of(&self, authority: &[u8]) -> Option<String> {
        let host = without_port(std::str::from_utf8(authority).ok()?);
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        // The longest base that fits, so that one base may be under another.
        let base = self
            .bases
            .iter()
            .filter(|base| {
                host.strip_suffix(base.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            })
            .max_by_key(|base| base.len());
        let Some(base) = base else {
            let holds = |base: &String| host.contains(&format!(".{base}"));
            return self.bases.iter().any(holds).then_some(host);
        };
        let name = host.strip_suffix(base.as_str())?.strip_suffix('.')?;
        Some(name.to_owned())
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[track_caller]
    fn check(host: &str, expected: Option<&str>) {
        let bases = [
            "api.example.com".to_owned(),
            "Eu.API.example.com".to_owned(),
        ];
        let subdomain = Subdomain::new(&bases, false).unwrap();
        assert_eq!(
            subdomain.of(host.as_bytes()).as_deref(),
            expected,
            "{host:?}"
        );
    }

    #[test]
    fn what_stands_before_a_base_is_the_name() {
        check("acme.api.example.com", Some("acme"));
        check("ACME.API.example.com:8443", Some("acme"));
        check("acme.api.example.com.", Some("acme"));
        check("acme.eu.api.example.com", Some("acme"));
        check("a.b.api.example.com", Some("a.b"));
        check(".api.example.com", Some(""));
        check("acme.api.example.com..", Some("acme"));
        for odd in [
            "acme.api.example.com.evil.org",
            "acme.api.example.com:80:80",
        ] {
            check(odd, Some(odd.strip_suffix(":80").unwrap_or(odd)));
        }
        for none in [
            "",
            "api.example.com",
            "eu.api.example.com",
            "evilapi.example.com",
            "acme.api.example.org",
            "127.0.0.1:8080",
            "[::1]:8080",
        ] {
            check(none, None);
        }
        let bases = ["api.example.com".to_owned()];
        let subdomain = Subdomain::new(&bases, false).unwrap();
        assert_eq!(subdomain.of(b"\xff.api.example.com"), None);
    }

    #[test]
    fn what_is_no_domain_is_refused() {
        for bad in ["", ".example.com", "a b", "https://example.com", "*.a.com"] {
            let error = Subdomain::new(&[bad.to_owned()], false).unwrap_err();
            assert!(error.contains(bad), "{error}");
        }
        assert!(Subdomain::new(&[], false).is_err());
    }
}
