//! The members of a JSON object with their values as they stand: what is not
//! looked at stays byte for byte.

use std::fmt;

use serde::{
    Deserialize,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::refusal::Refusal;

/// The most members that a body may have; OpenAI's API knows about forty.
const MEMBERS_MAX: usize = 256;

/// The members of a JSON object, in order, their values as they stand.
#[derive(Debug)]
pub struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Vec<(String, &'de RawValue)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    // Here, and not after the whole was read: the search below
                    // is short only while there are few.
                    if members.len() >= MEMBERS_MAX {
                        return Err(serde::de::Error::custom(format!(
                            "an object has more than {MEMBERS_MAX} members"
                        )));
                    }
                    // Two parsers may choose differently between the two.
                    if members.iter().any(|(n, _)| *n == name) {
                        return Err(serde::de::Error::custom(format!(
                            "the member `{name}` comes twice"
                        )));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl<'a> Members<'a> {
    /// The value of that member.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0
            .iter()
            .find_map(|(n, value)| (n == name).then_some(*value))
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// Whether there is such a member, and it is not null.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.get() != "null")
    }

    /// A member of that type; absent and null are `None`.
    ///
    /// # Errors
    /// 400 that names the member and says what was `wanted`.
    pub fn typed<T: Deserialize<'a>>(
        &self,
        name: &str,
        wanted: &str,
    ) -> Result<Option<T>, Refusal> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        serde_json::from_str::<Option<T>>(value.get()).map_err(|_| {
            Refusal::invalid(
                400,
                "invalid_type",
                format!("Invalid type for '{name}': expected {wanted}."),
            )
            .at(name)
        })
    }
}

/// A JSON object under construction.
#[derive(Debug, Default)]
pub struct Object(String);

impl Object {
    /// Adds a member, whose value is JSON already.
    pub fn member(&mut self, name: &str, raw: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push_str(&serde_json::Value::from(name).to_string());
        self.0.push(':');
        self.0.push_str(raw);
    }

    /// The JSON text.
    #[must_use]
    pub fn close(mut self) -> String {
        if self.0.is_empty() {
            self.0.push('{');
        }
        self.0.push('}');
        self.0
    }
}
