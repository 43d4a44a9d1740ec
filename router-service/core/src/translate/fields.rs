//! Strict reading of a request: each member is asked for by name, and what
//! nobody asked for is unknown.
//!
//! Errors name the path of a member, such as `messages[2].content[0].type`,
//! and never quote a value: it may be a tenant's prompt.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::write::compact;
use crate::refusal::Refusal;

/// The most members of an object that is read; both dialects know about forty.
/// The search for one that comes twice is short only while they are few.
const MEMBERS_MAX: usize = 64;

/// The most items of a list that is read: as many messages as Anthropic takes
/// ("Create a Message"). A list of small items takes many times its bytes.
const ITEMS_MAX: usize = 100_000;

/// The most bytes of an unknown member's name that an error repeats.
const NAME_SHOWN_MAX_BYTES: usize = 64;

/// A value that is as good as absence.
#[derive(Debug, Clone, Copy)]
pub(super) enum Is {
    /// Absence or null alone.
    Absent,
    /// That number.
    Number(f64),
    /// That boolean.
    Bool(bool),
    /// An object or list without members.
    Empty,
    /// One of these strings.
    Words(&'static [&'static str]),
    /// A list of that string alone.
    Only(&'static str),
}

impl Is {
    fn holds(self, raw: &RawValue) -> bool {
        let raw = raw.get();
        match self {
            Self::Absent => false,
            Self::Number(default) => serde_json::from_str::<f64>(raw).is_ok_and(|n| n == default),
            Self::Bool(default) => serde_json::from_str::<bool>(raw).is_ok_and(|b| b == default),
            Self::Empty => {
                matches!(raw.as_bytes(), [b'{' | b'[', .., b'}' | b']'] if compact(raw).len() == 2)
            }
            Self::Words(words) => {
                serde_json::from_str::<Text<'_>>(raw).is_ok_and(|t| words.contains(&t.0.as_ref()))
            }
            Self::Only(word) => serde_json::from_str::<Vec<Text<'_>>>(raw)
                .is_ok_and(|l| matches!(l.as_slice(), [t] if t.0 == word)),
        }
    }
}

/// A string that borrows where it holds no escapes.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// A member that a dialect knows and the other has no counterpart for: its
/// name, its default, and why.
pub(super) type Without = (&'static str, Is, &'static str);

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node<'a> {
    pub path: String,
    pub raw: &'a RawValue,
}

impl<'a> Node<'a> {
    /// A value of that type.
    pub fn typed<T: Deserialize<'a>>(&self, wanted: &str) -> Result<T, Refusal> {
        serde_json::from_str(self.raw.get()).map_err(|_| self.wrong_type(wanted))
    }

    pub fn text(&self) -> Result<Cow<'a, str>, Refusal> {
        Ok(self.typed::<Text<'a>>("a string")?.0)
    }

    pub fn is_text(&self) -> bool {
        self.raw.get().starts_with('"')
    }

    pub fn list(&self) -> Result<Vec<Node<'a>>, Refusal> {
        if !self.raw.get().starts_with('[') {
            return Err(self.wrong_type("an array"));
        }
        let Items(items) = serde_json::from_str(self.raw.get())
            .map_err(|_| self.invalid(format!("holds more than {ITEMS_MAX} items")))?;
        Ok(items
            .into_iter()
            .enumerate()
            .map(|(i, raw)| Node {
                path: format!("{}[{i}]", self.path),
                raw,
            })
            .collect())
    }

    /// A list whose items are strings.
    pub fn texts(&self) -> Result<Vec<Cow<'a, str>>, Refusal> {
        self.list()?.iter().map(Node::text).collect()
    }

    /// An object that goes on as it stands.
    pub fn object(&self) -> Result<&'a RawValue, Refusal> {
        if self.raw.get().starts_with('{') {
            Ok(self.raw)
        } else {
            Err(self.wrong_type("an object"))
        }
    }

    pub fn fields(&self) -> Result<Fields<'a>, Refusal> {
        let raw = self.object()?.get();
        let InOrder(members) = serde_json::from_str(raw).map_err(|_| {
            invalid(
                &self.path,
                "invalid_json",
                format!("holds more than {MEMBERS_MAX} members, or a name that is no text"),
            )
        })?;
        for (i, (name, _)) in members.iter().enumerate() {
            // Two parsers may choose differently between the two.
            if members
                .iter()
                .skip(i.saturating_add(1))
                .any(|(n, _)| n == name)
            {
                let path = join(&self.path, shown(name));
                return Err(invalid(&path, "duplicate_parameter", "comes twice"));
            }
        }
        Ok(Fields {
            path: self.path.clone(),
            members,
        })
    }

    pub fn wrong_type(&self, wanted: &str) -> Refusal {
        Refusal::invalid(
            400,
            "invalid_type",
            format!("Invalid type for '{}': expected {wanted}.", self.path),
        )
        .at(&self.path)
    }

    /// The value is none that the dialect allows here.
    pub fn invalid(&self, why: impl fmt::Display) -> Refusal {
        invalid(&self.path, "invalid_value", why)
    }

    /// The dialect allows it, and the provider's has no counterpart.
    pub fn unsupported(&self, why: impl fmt::Display) -> Refusal {
        unsupported(&self.path, why)
    }
}

fn invalid(path: &str, code: &str, why: impl fmt::Display) -> Refusal {
    if path.is_empty() {
        return Refusal::invalid(400, code, format!("Invalid value: the body {why}."));
    }
    Refusal::invalid(400, code, format!("Invalid value: '{path}' {why}.")).at(path)
}

/// A member at that path has no counterpart with the provider.
pub(super) fn unsupported(path: &str, why: impl fmt::Display) -> Refusal {
    let message = format!(
        "Unsupported parameter: '{path}' has no counterpart with this model's provider: {why}."
    );
    Refusal::invalid(400, "unsupported_parameter", message).at(path)
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn shown(name: &str) -> &str {
    name.get(..name.floor_char_boundary(NAME_SHOWN_MAX_BYTES))
        .unwrap_or_default()
}

/// The members of an object that were not asked for yet.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    path: String,
    members: Vec<(String, &'a RawValue)>,
}

impl<'a> Fields<'a> {
    /// A request's body.
    pub fn root(body: &'a [u8]) -> Result<Self, Refusal> {
        let no_json = |what: String| {
            let message = format!("We could not parse the JSON body of your request: {what}.");
            Refusal::invalid(400, "invalid_json", message)
        };
        let text = std::str::from_utf8(body).map_err(|_| no_json("it is not UTF-8".to_owned()))?;
        let raw: &RawValue = serde_json::from_str(text).map_err(|e| {
            no_json(format!(
                "it breaks off or errs at line {} column {}",
                e.line(),
                e.column()
            ))
        })?;
        if !raw.get().starts_with('{') {
            return Err(no_json("it is no object".to_owned()));
        }
        Node {
            path: String::new(),
            raw,
        }
        .fields()
    }

    /// Whether a member is there, be it null.
    pub fn has(&self, name: &str) -> bool {
        self.members.iter().any(|(n, _)| n == name)
    }

    /// A member; absent and null are `None`.
    pub fn take(&mut self, name: &str) -> Option<Node<'a>> {
        let at = self.members.iter().position(|(n, _)| n == name)?;
        let (_, raw) = self.members.swap_remove(at);
        (raw.get() != "null").then(|| Node {
            path: join(&self.path, name),
            raw,
        })
    }

    /// A member that must be there.
    pub fn require(&mut self, name: &str) -> Result<Node<'a>, Refusal> {
        self.take(name).ok_or_else(|| {
            let path = join(&self.path, name);
            let message = format!("Missing required parameter: '{path}'.");
            Refusal::invalid(400, "missing_required_parameter", message).at(&path)
        })
    }

    pub fn text(&mut self, name: &str) -> Result<Option<Cow<'a, str>>, Refusal> {
        self.take(name).map(|n| n.text()).transpose()
    }

    pub fn flag(&mut self, name: &str) -> Result<Option<bool>, Refusal> {
        self.take(name).map(|n| n.typed("a boolean")).transpose()
    }

    /// A number, as a value to judge and as it was written.
    pub fn number(&mut self, name: &str) -> Result<Option<(f64, Node<'a>)>, Refusal> {
        let Some(node) = self.take(name) else {
            return Ok(None);
        };
        Ok(Some((node.typed("a number")?, node)))
    }

    /// A count whose value the router decides: its type is checked alone.
    pub fn count(&mut self, name: &str) -> Result<Option<u64>, Refusal> {
        self.take(name)
            .map(|n| n.typed("a whole number that is not negative"))
            .transpose()
    }

    /// Refuses a member that is neither absent nor at its default.
    pub fn without(&mut self, (name, default, why): Without) -> Result<(), Refusal> {
        match self.take(name) {
            Some(node) if !default.holds(node.raw) => Err(node.unsupported(why)),
            _ => Ok(()),
        }
    }

    /// Everything was asked for: what is left is unknown.
    pub fn end(self) -> Result<(), Refusal> {
        let Some((name, _)) = self.members.first() else {
            return Ok(());
        };
        let path = join(&self.path, shown(name));
        let message = format!("Unknown parameter: '{path}'.");
        Err(Refusal::invalid(400, "unknown_parameter", message).at(&path))
    }
}

/// The members of an object, in order.
struct InOrder<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for InOrder<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = InOrder<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry::<String, &'de RawValue>()? {
                    if members.len() >= MEMBERS_MAX {
                        return Err(serde::de::Error::custom("too many members"));
                    }
                    members.push(member);
                }
                Ok(InOrder(members))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

/// The items of a list, in order.
struct Items<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Items<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Items<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    if items.len() >= ITEMS_MAX {
                        return Err(serde::de::Error::custom("too many items"));
                    }
                    items.push(item);
                }
                Ok(Items(items))
            }
        }
        deserializer.deserialize_seq(Read)
    }
}
