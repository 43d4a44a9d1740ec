//! A body for its provider.

use std::borrow::Cow;

use weir_dialects::routes::Endpoint;

use super::{
    Body,
    members::{Members, Object},
    token_members,
};
use crate::{
    offer::Decision,
    provider::ProviderKind,
    refusal::Refusal,
    translate::{Target, to_anthropic, to_openai},
};

impl<'a> Body<'a> {
    /// The body that goes to the provider that was decided on: the client's own
    /// where nothing is to be changed.
    ///
    /// # Errors
    /// 400, naming the parameter, for what has no counterpart in the dialect of
    /// the provider.
    pub fn for_provider(&self, decision: &Decision) -> Result<Cow<'a, [u8]>, Refusal> {
        if decision.endpoint == self.asked.endpoint {
            return Ok(self.rewritten(decision));
        }
        let target = Target {
            model: &decision.upstream,
            max_tokens: decision.max_tokens,
            compatible: decision.kind == ProviderKind::OpenAiCompatible,
        };
        let translated = match decision.endpoint {
            Endpoint::Messages => to_anthropic::request(self.bytes, &target),
            _ => to_openai::request(self.bytes, &target),
        };
        translated.map(Cow::Owned)
    }

    fn rewritten(&self, decision: &Decision) -> Cow<'a, [u8]> {
        let mut changes = Changes::default();
        if decision.upstream != self.asked.model {
            changes.set("model", quoted(&decision.upstream));
        }
        let newer = self.members.has("max_completion_tokens");
        if decision.bounded || (newer && decision.kind == ProviderKind::OpenAiCompatible) {
            self.bound(decision, &mut changes);
        }
        let options = self.asked.stream && !self.asked.usage_asked;
        if options
            && matches!(
                decision.endpoint,
                Endpoint::ChatCompletions | Endpoint::Completions
            )
        {
            changes.set("stream_options", with_usage(&self.members));
        }
        if decision.endpoint == Endpoint::Responses && !self.members.has("store") {
            // Kept by default, in an account that all tenants share.
            changes.set("store", "false".to_owned());
        }
        if changes.0.is_empty() {
            return Cow::Borrowed(self.bytes);
        }
        Cow::Owned(changes.apply(&self.members).into_bytes())
    }

    /// Says the most tokens in the member that the client used, or in the one
    /// that the provider knows best.
    fn bound(&self, decision: &Decision, changes: &mut Changes) {
        let Some(tokens) = decision.max_tokens else {
            return;
        };
        let names = token_members(decision.endpoint);
        let used = names.iter().find(|name| self.members.has(name));
        if decision.kind == ProviderKind::OpenAiCompatible {
            // Not every such server knows the newer name, and one that does not
            // would answer without a bound.
            for other in names.iter().filter(|name| self.members.get(name).is_some()) {
                changes.drop(other);
            }
            if let Some(name) = names.last() {
                changes.set(name, tokens.to_string());
            }
        } else if let Some(name) = used.or(names.first()) {
            changes.set(name, tokens.to_string());
        }
    }
}

/// The body with that model in the place of its own; none where it is no JSON
/// object.
#[must_use]
pub fn with_model(body: &[u8], model: &str) -> Option<Vec<u8>> {
    let members: Members<'_> = serde_json::from_slice(body).ok()?;
    let mut changes = Changes::default();
    changes.set("model", quoted(model));
    Some(changes.apply(&members).into_bytes())
}

/// Members to be set, or to be left out; those that are there keep their place.
#[derive(Default)]
struct Changes(Vec<(&'static str, Option<String>)>);

impl Changes {
    fn set(&mut self, name: &'static str, raw: String) {
        self.0.retain(|(changed, _)| *changed != name);
        self.0.push((name, Some(raw)));
    }

    fn drop(&mut self, name: &'static str) {
        self.0.push((name, None));
    }

    fn apply(&self, members: &Members<'_>) -> String {
        let mut object = Object::default();
        for (name, value) in members.iter() {
            match self.0.iter().find(|(changed, _)| *changed == name) {
                None => object.member(name, value.get()),
                Some((_, Some(raw))) => object.member(name, raw),
                Some((_, None)) => {}
            }
        }
        for (name, raw) in &self.0 {
            if let Some(raw) = raw
                && members.get(name).is_none()
            {
                object.member(name, raw);
            }
        }
        object.close()
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `stream_options` with `include_usage: true`.
fn with_usage(members: &Members<'_>) -> String {
    let options: Option<Members<'_>> = members
        .get("stream_options")
        .and_then(|raw| serde_json::from_str(raw.get()).ok());
    let mut object = Object::default();
    for (name, value) in options.iter().flat_map(Members::iter) {
        if name != "include_usage" {
            object.member(name, value.get());
        }
    }
    object.member("include_usage", "true");
    object.close()
}
