//! The limits of a plan or a tenant.

use std::{collections::HashSet, num::NonZeroU32};

use serde::{Deserialize, Serialize};
use weir_dialects::routes::RequestClass;
use weir_wire::quota::LIMITS_MAX;

/// The longest window: a day.
const WINDOW_MAX_S: u32 = 86_400;

/// The longest name of a class, in bytes.
pub const CLASS_MAX_BYTES: usize = 32;

/// Whether a class of requests may be named so; empty is all of them.
#[must_use]
pub fn is_class(name: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_lowercase() || b == b'_';
    name.len() <= CLASS_MAX_BYTES && name.bytes().all(is_letter)
}

/// At most so many requests in any stretch of time that long.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// At the most so many, 1 to 4,294,967,295.
    pub requests: NonZeroU32,
    /// In any so many seconds, 1 to 86,400: 1 for a second, 60 for a minute.
    pub window_s: NonZeroU32,
    /// Of this class of requests, such as `chat`; of all together where absent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub class: String,
}

impl Limit {
    /// The window in milliseconds.
    #[must_use]
    pub fn window_ms(&self) -> u64 {
        u64::from(self.window_s.get()).saturating_mul(1_000)
    }
}

/// Limits that hold together, each once for a class and window.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Limits(Vec<Limit>);

impl Limits {
    /// Takes limits as they are; [`Limits::validate`] checks them.
    #[must_use]
    pub fn new(limits: Vec<Limit>) -> Self {
        Self(limits)
    }

    /// Those that a request of that class is counted by.
    #[must_use]
    pub fn of_class(&self, class: &str) -> Vec<Limit> {
        let applies = |limit: &&Limit| limit.class.is_empty() || limit.class == class;
        self.0.iter().filter(applies).cloned().collect()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Limit] {
        &self.0
    }

    /// Checks what types cannot say.
    ///
    /// # Errors
    /// A message that names the field, what was found and what is allowed.
    pub fn validate(&self) -> Result<(), String> {
        let mut seen = HashSet::new();
        for (i, limit) in self.0.iter().enumerate() {
            if limit.window_s.get() > WINDOW_MAX_S {
                return Err(format!(
                    "limits[{i}].window_s: must be 1 to {WINDOW_MAX_S}, found {}",
                    limit.window_s
                ));
            }
            let classes = RequestClass::ALL.map(RequestClass::as_str);
            if !limit.class.is_empty() && !classes.contains(&limit.class.as_str()) {
                return Err(format!(
                    "limits[{i}].class: must be one of {}",
                    classes.join(", ")
                ));
            }
            if !seen.insert((&limit.class, limit.window_s)) {
                return Err(format!(
                    "limits[{i}]: another one has the same class and window_s"
                ));
            }
        }
        let classes: HashSet<&str> = self.0.iter().map(|l| l.class.as_str()).collect();
        for class in classes {
            let count = self.of_class(class).len();
            if count > LIMITS_MAX {
                return Err(format!(
                    "limits: at most {LIMITS_MAX} may apply to one request, found {count}"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn read(json: &str) -> Result<Limits, String> {
        let limits: Limits = serde_json::from_str(json).map_err(|e| e.to_string())?;
        limits.validate().map(|()| limits)
    }

    #[track_caller]
    fn check_refused(json: &str, says: &str) {
        let error = read(json).unwrap_err();
        assert!(error.contains(says), "{error} should say {says}");
    }

    #[test]
    fn a_class_is_counted_by_its_own_limits_and_by_those_of_all() {
        let limits = read(
            r#"[{"requests":100,"window_s":60},{"requests":5,"window_s":1,"class":"chat"},
                {"requests":9,"window_s":60,"class":"embedding"}]"#,
        )
        .unwrap();
        let windows = |class: &str| -> Vec<u32> {
            let limits = limits.of_class(class);
            limits.iter().map(|l| l.requests.get()).collect()
        };
        assert_eq!(windows("chat"), [100, 5]);
        assert_eq!(windows("embedding"), [100, 9]);
        assert_eq!(windows(""), [100]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        check_refused(r#"[{"requests":0,"window_s":60}]"#, "nonzero");
        check_refused(r#"[{"requests":1,"window_s":86401}]"#, "limits[0].window_s");
        check_refused(
            r#"[{"requests":1,"window_s":1,"class":"A b"}]"#,
            "limits[0].class",
        );
        check_refused(
            r#"[{"requests":1,"window_s":1},{"requests":2,"window_s":1}]"#,
            "limits[1]",
        );
        check_refused(r#"[{"requests":1,"window":1}]"#, "window");
        let many: Vec<String> = (1..=9)
            .map(|s| format!(r#"{{"requests":1,"window_s":{s}}}"#))
            .collect();
        check_refused(&format!("[{}]", many.join(",")), "at most 8");
    }
}
