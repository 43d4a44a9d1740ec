//! How many requests run on a backend, and how many may wait for it.

use serde::{Deserialize, Serialize};

/// The most that may be configured of each.
const COUNT_MAX: u32 = 100_000;

/// The bounds of one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FairConfig {
    /// So many requests run at once; at least 1.
    pub capacity: u32,
    /// So many wait; those beyond are refused, all of them where 0.
    #[serde(default = "default_queue")]
    pub queue: u32,
    /// So many of one tenant wait; any number of `queue` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_per_tenant: Option<u32>,
}

fn default_queue() -> u32 {
    256
}

impl FairConfig {
    /// Checks what types cannot say.
    ///
    /// # Errors
    /// A message that names the field, what was found and what is allowed.
    pub fn validate(&self) -> Result<(), String> {
        if !(1..=COUNT_MAX).contains(&self.capacity) {
            return Err(format!(
                "capacity: must be 1 to {COUNT_MAX}, found {}",
                self.capacity
            ));
        }
        if self.queue > COUNT_MAX {
            return Err(format!(
                "queue: must be 0 to {COUNT_MAX}, found {}",
                self.queue
            ));
        }
        match self.queue_per_tenant {
            Some(each) if !(1..=self.queue).contains(&each) => Err(format!(
                "queue_per_tenant: must be 1 to queue, {}, found {each}",
                self.queue
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn capacity(&self) -> usize {
        usize::try_from(self.capacity).unwrap_or(usize::MAX).max(1)
    }

    pub(super) fn queue(&self) -> usize {
        usize::try_from(self.queue).unwrap_or(usize::MAX)
    }

    pub(super) fn queue_per_tenant(&self) -> usize {
        let each = self.queue_per_tenant.unwrap_or(self.queue);
        usize::try_from(each).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        let read = |json: &str| {
            let config = serde_json::from_str::<FairConfig>(json).map_err(|e| e.to_string())?;
            config.validate().map(|()| config)
        };
        assert_eq!(read(r#"{"capacity":8}"#).unwrap().queue(), 256);
        for (json, names) in [
            ("{}", "capacity"),
            (
                r#"{"capacity":0}"#,
                "capacity: must be 1 to 100000, found 0",
            ),
            (r#"{"capacity":1,"queues":5}"#, "queues"),
            (r#"{"capacity":1,"queue":100001}"#, "queue: must be"),
            (
                r#"{"capacity":1,"queue":5,"queue_per_tenant":6}"#,
                "queue_per_tenant: must be 1 to queue, 5, found 6",
            ),
            (r#"{"capacity":1,"queue_per_tenant":0}"#, "queue_per_tenant"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(names), "{error} should name {names}");
        }
    }
}
