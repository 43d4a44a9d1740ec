//! The tenant that a client's certificate names.

/// Which of the subject's alternative names is read (RFC 5280, section 4.2.1.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum San {
    /// `spiffe://example.com/tenant/acme`
    Uri,
    /// `acme.clients.example.com`
    Dns,
}

/// What a validated certificate says of its subject. The host tells the first
/// name of each kind alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its first URI.
    pub uri: Option<Vec<u8>>,
    /// Its first DNS name.
    pub dns: Option<Vec<u8>>,
}

/// A pattern with `{tenant}` where the tenant stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    san: San,
    before: String,
    after: String,
}

const MARK: &str = "{tenant}";

impl Pattern {
    /// Takes `spiffe://example.com/tenant/{tenant}`.
    ///
    /// # Errors
    /// Where `{tenant}` does not stand in it once, or stands for all of it.
    pub fn new(san: San, pattern: &str) -> Result<Self, String> {
        let found = pattern
            .split_once(MARK)
            .filter(|(_, after)| !after.contains(MARK) && pattern.len() > MARK.len());
        match found {
            Some((before, after)) => Ok(Self {
                san,
                before: before.to_owned(),
                after: after.to_owned(),
            }),
            None => Err(format!(
                "must hold {MARK} once, beside something else, found {pattern:?}"
            )),
        }
    }

    /// The name in the place of `{tenant}`; `None` where the certificate does
    /// not fit. DNS names fit in any case (RFC 4343).
    #[must_use]
    pub fn of(&self, peer: &Peer) -> Option<String> {
        let name = match self.san {
            San::Uri => peer.uri.as_deref(),
            San::Dns => peer.dns.as_deref(),
        };
        let name = std::str::from_utf8(name?).ok()?;
        let middle = name.len().checked_sub(self.after.len())?;
        let before = name.get(..self.before.len())?;
        let tenant = name.get(self.before.len()..middle)?;
        let after = name.get(middle..)?;
        let fits = match self.san {
            San::Uri => before == self.before && after == self.after,
            San::Dns => {
                before.eq_ignore_ascii_case(&self.before) && after.eq_ignore_ascii_case(&self.after)
            }
        };
        // A pattern stands for one label or one segment.
        let whole = !tenant.contains(match self.san {
            San::Uri => ['/', '?'],
            San::Dns => ['.', '*'],
        });
        (fits && whole && !tenant.is_empty()).then(|| tenant.to_owned())
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[track_caller]
    fn check(san: San, pattern: &str, name: &str, expected: Option<&str>) {
        let name = Some(name.as_bytes().to_vec());
        let peer = match san {
            San::Uri => Peer {
                uri: name,
                dns: None,
            },
            San::Dns => Peer {
                uri: None,
                dns: name,
            },
        };
        let found = Pattern::new(san, pattern).unwrap().of(&peer);
        assert_eq!(found.as_deref(), expected, "{peer:?}");
    }

    #[test]
    fn a_name_that_fits_holds_the_tenant() {
        let uri = "spiffe://mesh/tenant/{tenant}";
        check(San::Uri, uri, "spiffe://mesh/tenant/acme", Some("acme"));
        check(San::Uri, uri, "spiffe://mesh/tenant/", None);
        check(San::Uri, uri, "spiffe://mesh/tenant/acme/x", None);
        check(San::Uri, uri, "spiffe://evil/tenant/acme", None);
        check(San::Uri, "x:{tenant}:x", "x:x", None);
        let dns = "{tenant}.clients.example.com";
        check(San::Dns, dns, "acme.Clients.example.com", Some("acme"));
        check(San::Dns, dns, "a.b.clients.example.com", None);
        check(San::Dns, dns, "*.clients.example.com", None);
        check(San::Dns, dns, "é", None);
        assert_eq!(
            Pattern::new(San::Dns, dns).unwrap().of(&Peer::default()),
            None
        );
    }

    #[test]
    fn a_pattern_without_a_tenant_is_refused() {
        for bad in ["", "x", "{tenant}", "a{tenant}b{tenant}"] {
            assert!(Pattern::new(San::Uri, bad).is_err(), "{bad}");
        }
    }
}
