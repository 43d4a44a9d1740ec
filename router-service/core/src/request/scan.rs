//! What stands among the messages of a request, at any depth: images, and things
//! that are kept in the account of the provider's that all tenants share.
//!
//! What can't be read one way only is refused: two parsers may choose differently
//! between two members of one name, and a plan without images is not to be got
//! around by that.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Found {
    /// There is an image.
    pub images: bool,
    /// Something is named that the provider keeps: a file, or an item of an earlier
    /// response.
    pub kept: bool,
}

/// The most members of one object.
const MEMBERS_MAX: usize = 256;

/// What a part that is an image, or holds one, says as its type: OpenAI's chat,
/// OpenAI's responses, Anthropic's.
const IMAGES: [&str; 4] = ["image_url", "input_image", "image", "computer_screenshot"];

/// Members that are the words of a model or of a tool's author, in which anything
/// may stand.
const FREE: [&str; 3] = ["input", "arguments", "parameters"];

/// Looks through the value of a member.
///
/// # Errors
/// What is wrong with it, for a person.
pub(super) fn scan(value: &RawValue) -> Result<Found, String> {
    let mut found = Found::default();
    let mut deserializer = serde_json::Deserializer::from_str(value.get());
    Value {
        found: &mut found,
        depth: 0,
    }
    .deserialize(&mut deserializer)
    .map_err(|e| e.to_string())?;
    Ok(found)
}

struct Value<'f> {
    found: &'f mut Found,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// A text that is looked at without a copy where it stands as it is.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A member's value, where it is to be a text.
struct Word<'f>(&'f mut Option<String>);

impl<'de> DeserializeSeed<'de> for Word<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        *self.0 = serde_json::from_str(raw.get()).ok();
        Ok(())
    }
}

/// Whether a member's value is not null.
struct Given<'f>(&'f mut bool);

impl<'de> DeserializeSeed<'de> for Given<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        *self.0 |= Option::<IgnoredAny>::deserialize(deserializer)?.is_some();
        Ok(())
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let depth = self.depth.saturating_add(1);
        loop {
            let item = Value {
                found: &mut *self.found,
                depth,
            };
            if items.next_element_seed(item)?.is_none() {
                return Ok(());
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut names: Vec<Cow<'de, str>> = Vec::with_capacity(4);
        let mut kind = None;
        while let Some(Text(name)) = members.next_key::<Text<'de>>()? {
            if names.contains(&name) {
                return Err(A::Error::custom(format!("the member `{name}` comes twice")));
            }
            if names.len() >= MEMBERS_MAX {
                return Err(A::Error::custom(format!(
                    "an object has more than {MEMBERS_MAX} members"
                )));
            }
            match name.as_ref() {
                "type" => members.next_value_seed(Word(&mut kind))?,
                "file_id" => members.next_value_seed(Given(&mut self.found.kept))?,
                free if FREE.contains(&free) => {
                    members.next_value::<IgnoredAny>()?;
                }
                _ => members.next_value_seed(Value {
                    found: &mut *self.found,
                    depth: self.depth.saturating_add(1),
                })?,
            }
            names.push(name);
        }
        let kind: Option<&str> = kind.as_deref();
        self.found.images |= kind.is_some_and(|kind| IMAGES.contains(&kind));
        // An item of a response by its id alone is a reference, with its type or
        // without.
        let has = |name: &str| names.iter().any(|n| n == name);
        let alone = self.depth == 1 && has("id") && kind.is_none() && !has("role");
        self.found.kept |= kind == Some("item_reference") || alone;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn find(text: &str) -> Result<(bool, bool), String> {
        let raw = RawValue::from_string(text.to_owned()).unwrap();
        scan(&raw).map(|found| (found.images, found.kept))
    }

    #[test]
    fn images_are_found_wherever_they_are() {
        for text in [
            r#"[{"content":[{"type":"image_url","image_url":{"url":"u"}}]}]"#,
            r#"[{"content":[{"type":"im\u0061ge_url"}]}]"#,
            r#"[{"content":[{"type":"tool_result","content":[{"type":"image"}]}]}]"#,
            r#"[{"content":[{"type":"document","source":{"type":"content","content":[{"type":"image"}]}}]}]"#,
            r#"[{"type":"computer_call_output","output":{"type":"computer_screenshot"}}]"#,
            r#"[{"content":[{"\u0074ype":"input_image"}]}]"#,
        ] {
            assert_eq!(find(text), Ok((true, false)), "{text}");
        }
        for text in [
            r#"[{"role":"user","content":"an image_url"}]"#,
            r#"[{"content":[{"type":"tool_use","input":{"type":"image","file_id":"x"}}]}]"#,
            r#""a text""#,
            r#"[1, 2.5, null, true, [-3]]"#,
        ] {
            assert_eq!(find(text), Ok((false, false)), "{text}");
        }
    }

    #[test]
    fn what_is_kept_is_found() {
        for text in [
            r#"[{"type":"item_reference","id":"msg_1"}]"#,
            r#"[{"id":"msg_1"}]"#,
            r#"[{"content":[{"type":"input_file","file_id":"f"}]}]"#,
            r#"[{"content":[{"type":"document","source":{"type":"file","file_id":"f"}}]}]"#,
        ] {
            assert_eq!(find(text), Ok((false, true)), "{text}");
        }
        for text in [
            r#"[{"id":"msg_1","role":"assistant","content":[]}]"#,
            r#"[{"type":"function_call","id":"fc_1","call_id":"c"}]"#,
            r#"[{"content":[{"type":"file","file":{"file_id":null,"file_data":"d"}}]}]"#,
        ] {
            assert_eq!(find(text), Ok((false, false)), "{text}");
        }
    }

    #[test]
    fn what_reads_two_ways_is_refused() {
        for text in [
            r#"[{"type":"text","type":"image_url"}]"#,
            r#"[{"content":"a","c\u006fntent":[{"type":"image"}]}]"#,
        ] {
            assert!(find(text).unwrap_err().contains("comes twice"), "{text}");
        }
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(find(&deep).is_err());
    }
}
