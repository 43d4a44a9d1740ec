//! A limit as people write it: `500/60s`, `5/1s/chat`.

use std::{num::NonZeroU32, str::FromStr};

use weir_router_core::quota::Limit;

use crate::span::Span;

/// One limit; whether there is such a class is checked with the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitArgument(pub Limit);

impl FromStr for LimitArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, '/');
        let requests = parts.next().and_then(|n| n.parse::<NonZeroU32>().ok());
        let window_s = parts
            .next()
            .and_then(|span| span.parse::<Span>().ok())
            .and_then(|span| u32::try_from(span.seconds()).ok())
            .and_then(NonZeroU32::new);
        let class = parts.next();
        match (requests, window_s) {
            (Some(requests), Some(window_s)) if class != Some("") => Ok(Self(Limit {
                requests,
                window_s,
                class: class.unwrap_or_default().to_owned(),
            })),
            _ => Err(format!(
                "must be requests/window or requests/window/class, such as 500/60s or 5/1s/chat, found {text:?}"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_requests_in_a_window_of_a_class() {
        for (text, expected) in [
            ("500/60s", (500, 60, "")),
            ("5/1s/chat", (5, 1, "chat")),
            ("1/1d", (1, 86_400, "")),
        ] {
            let LimitArgument(found) = text.parse().unwrap();
            let found = (
                found.requests.get(),
                found.window_s.get(),
                found.class.as_str(),
            );
            assert_eq!(found, expected, "{text}");
        }
        for wrong in [
            "",
            "5",
            "5/",
            "0/1s",
            "5/0s",
            "5/1",
            "5/1s/",
            "-1/1s",
            "5/99999999999s",
        ] {
            let error = wrong.parse::<LimitArgument>().unwrap_err();
            assert!(error.contains(&format!("{wrong:?}")), "{error}");
        }
    }
}
