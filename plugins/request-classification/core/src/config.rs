//! What the operator writes.

use serde::Deserialize;
use serde_json::Value;
use weir_dialects::{json::Places, routes::RequestClass};
use weir_wire::{headers, host::HostKind, shown};

use crate::pattern;

/// The most rules.
pub const RULES_MAX: usize = 16;

/// What the operator writes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The gateway that runs the filter.
    pub host: HostKind,
    /// The largest request body, in bytes: 1 to 1 GiB. What announces more is
    /// refused before it is read, what turns out to have more where it does.
    #[serde(default = "default_max_body_bytes")]
    pub max_body_bytes: u64,
    /// The classes that are let through.
    #[serde(default = "default_classes")]
    pub classes: Vec<String>,
    /// What becomes of a path that nobody knows.
    #[serde(default)]
    pub unknown: Policy,
    /// What becomes of a body that can't be read: compressed, or on Kong spooled to
    /// a file. By default it is refused in Envoy, where only a compressed one is, and
    /// Weir's router can't read that either; on Kong, where nginx spools what has
    /// more than 8 KiB, it passes as `unclassified`, or no long chat would.
    #[serde(default)]
    pub unreadable: Option<Policy>,
    /// In order: the first whose conditions all hold gives the class.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Whether bodies are read, or the headers decide alone.
    #[serde(default = "yes")]
    pub read_body: bool,
    /// Whether a stream is made to report its usage, for upstreams other than Weir's
    /// router. Envoy only.
    #[serde(default)]
    pub add_include_usage: bool,
    /// Whether the host's filter state gets what the headers have: by default in
    /// Envoy; never on Kong, which has none.
    #[serde(default)]
    pub filter_state: Option<bool>,
}

/// What becomes of what the filter does not understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// It gets an error.
    #[default]
    Refuse,
    /// It passes in the class `unclassified`, and is metered as all others are.
    Pass,
}

/// Conditions, of which there is one at least, and what they say together. In
/// patterns `*` is any run of characters.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The class of a request for which all conditions hold.
    pub class: String,
    /// A pattern for the path, without its query. Makes the path one that is known.
    #[serde(default)]
    pub path: Option<String>,
    /// The method.
    #[serde(default)]
    pub method: Option<String>,
    /// A header that the request has, none of Weir's own.
    #[serde(default)]
    pub header: Option<String>,
    /// A pattern for that header's value.
    #[serde(default)]
    pub value: Option<String>,
    /// A place in the body, as of RFC 6901, in which something other than null is.
    #[serde(default)]
    pub pointer: Option<String>,
    /// What is there: a string, a number or a truth value.
    #[serde(default)]
    pub equals: Option<Value>,
    /// A pattern for the model that is asked for.
    #[serde(default)]
    pub model: Option<String>,
}

/// Room for a few images in base64.
fn default_max_body_bytes() -> u64 {
    16 << 20
}

/// What Weir's router serves.
fn default_classes() -> Vec<String> {
    [
        RequestClass::Chat,
        RequestClass::Rag,
        RequestClass::Completion,
        RequestClass::Responses,
        RequestClass::Embedding,
        RequestClass::CountTokens,
        RequestClass::Models,
    ]
    .map(|class| class.as_str().to_owned())
    .to_vec()
}

fn yes() -> bool {
    true
}

impl Rule {
    /// Whether it asks for something that only the body says.
    #[must_use]
    pub fn reads_body(&self) -> bool {
        self.pointer.is_some() || self.model.is_some()
    }

    fn validate(&self, config: &Config) -> Result<(), String> {
        if RequestClass::parse(&self.class).is_none() || !config.classes.contains(&self.class) {
            return Err(format!(
                "class: must be one of classes ({}), found {}",
                config.classes.join(", "),
                quoted(&self.class)
            ));
        }
        let conditions = [&self.path, &self.method, &self.header, &self.pointer];
        if conditions.iter().all(|c| c.is_none()) && self.model.is_none() {
            return Err("must have one of path, method, header, pointer, model".to_owned());
        }
        for (name, text) in [
            ("path", &self.path),
            ("value", &self.value),
            ("model", &self.model),
        ] {
            let length = text.as_ref().map_or(1, String::len);
            if !(1..=pattern::MAX_BYTES).contains(&length) {
                return Err(format!(
                    "{name}: must have 1 to {} bytes, found {length}",
                    pattern::MAX_BYTES
                ));
            }
        }
        if let Some(path) = self.path.as_ref().filter(|p| !p.starts_with(['/', '*'])) {
            return Err(format!(
                "path: must begin with / or *, found {}",
                quoted(path)
            ));
        }
        self.validate_header()?;
        self.validate_pointer()?;
        if self.reads_body() && !config.read_body {
            return Err("pointer and model: need read_body, which is false".to_owned());
        }
        Ok(())
    }

    fn validate_header(&self) -> Result<(), String> {
        let upper = |m: &&String| !m.is_empty() && m.bytes().all(|b| b.is_ascii_uppercase());
        if let Some(method) = &self.method
            && !Some(method).as_ref().is_some_and(upper)
        {
            return Err(format!(
                "method: must be capital letters, found {}",
                quoted(method)
            ));
        }
        let Some(header) = &self.header else {
            let alone = self.value.is_some();
            return if alone {
                Err("value: needs a header".to_owned())
            } else {
                Ok(())
            };
        };
        let token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        if header.is_empty() || !header.bytes().all(token) {
            return Err(format!(
                "header: must be a name in small letters, found {}",
                quoted(header)
            ));
        }
        if headers::is_internal(header) {
            return Err(format!(
                "header: must be none of Weir's own, found {}",
                quoted(header)
            ));
        }
        Ok(())
    }

    fn validate_pointer(&self) -> Result<(), String> {
        let Some(pointer) = &self.pointer else {
            return match &self.equals {
                Some(_) => Err("equals: needs a pointer".to_owned()),
                None => Ok(()),
            };
        };
        Places::new(&[pointer]).map_err(|e| format!("pointer: {e}, found {}", quoted(pointer)))?;
        match &self.equals {
            Some(Value::Object(_) | Value::Array(_)) => {
                Err("equals: must be a string, a number, true or false".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl Config {
    /// Checks the whole.
    ///
    /// # Errors
    /// A message that names the field, what was found and what is allowed.
    pub fn validate(&self) -> Result<(), String> {
        if !(1..=1 << 30).contains(&self.max_body_bytes) {
            return Err(format!(
                "max_body_bytes: must be 1 to {}, found {}",
                1 << 30,
                self.max_body_bytes
            ));
        }
        if self.classes.is_empty() {
            return Err("classes: must name at least one, found none".to_owned());
        }
        for class in &self.classes {
            if RequestClass::parse(class).is_none_or(|c| c == RequestClass::Unclassified) {
                return Err(format!("classes: unknown class, found {}", quoted(class)));
            }
        }
        if self.rules.len() > RULES_MAX {
            return Err(format!(
                "rules: must be at most {RULES_MAX}, found {}",
                self.rules.len()
            ));
        }
        for (i, rule) in self.rules.iter().enumerate() {
            rule.validate(self).map_err(|e| format!("rules[{i}].{e}"))?;
        }
        if self.add_include_usage && !self.read_body {
            return Err("add_include_usage: needs read_body, which is false".to_owned());
        }
        if self.host == HostKind::Kong {
            if self.add_include_usage {
                return Err("add_include_usage: must be false on kong, found true".to_owned());
            }
            if self.filter_state == Some(true) {
                return Err("filter_state: must be false on kong, found true".to_owned());
            }
        }
        Ok(())
    }

    /// Whether the host's filter state is written.
    #[must_use]
    pub fn writes_filter_state(&self) -> bool {
        self.filter_state.unwrap_or(self.host == HostKind::Envoy)
    }

    /// What becomes of a body that can't be read.
    #[must_use]
    pub fn unreadable(&self) -> Policy {
        self.unreadable.unwrap_or(match self.host {
            HostKind::Envoy => Policy::Refuse,
            HostKind::Kong => Policy::Pass,
        })
    }
}

/// As a message shows it: somebody may have written a secret in its place.
fn quoted(found: &str) -> String {
    shown::shorten(&format!("{found:?}"))
}
