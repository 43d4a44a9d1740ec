//! Idempotency keys: the first answer to a key is the answer to it for a day.

use std::collections::HashMap;

use super::{api::Answer, error::StripeError, form::Form};

/// Seconds for which Stripe keeps a key at least; the fake forgets it right then.
const KEEP_S: i64 = 86_400;

/// What a key was first used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Used {
    path: String,
    form: Vec<(String, String)>,
}

impl Used {
    pub(super) fn new(path: &str, form: &Form) -> Self {
        Self {
            path: path.to_owned(),
            form: form.fingerprint(),
        }
    }
}

#[derive(Debug)]
struct Slot {
    used: Used,
    since: i64,
    /// None while the first request is in progress.
    answer: Option<Answer>,
}

/// The keys in use.
#[derive(Debug, Default)]
pub(super) struct Keys(HashMap<String, Slot>);

impl Keys {
    /// The answer to replay, or none where the caller is the first and must
    /// call [`Keys::end`].
    pub(super) fn begin(
        &mut self,
        key: &str,
        used: &Used,
        now: i64,
    ) -> Result<Option<Answer>, StripeError> {
        let slot = self
            .0
            .get(key)
            .filter(|slot| now.saturating_sub(slot.since) < KEEP_S);
        match slot {
            Some(slot) if slot.used != *used => Err(StripeError::other_parameters(key)),
            Some(Slot { answer: None, .. }) => Err(StripeError::key_in_use()),
            Some(Slot { answer, .. }) => Ok(answer.clone()),
            None => {
                let slot = Slot {
                    used: used.clone(),
                    since: now,
                    answer: None,
                };
                self.0.insert(key.to_owned(), slot);
                Ok(None)
            }
        }
    }

    /// Keeps the answer, or frees the key where the request was not carried out.
    pub(super) fn end(&mut self, key: &str, answer: Option<Answer>) {
        match answer {
            Some(answer) => {
                if let Some(slot) = self.0.get_mut(key) {
                    slot.answer = Some(answer);
                }
            }
            None => {
                self.0.remove(key);
            }
        }
    }
}
