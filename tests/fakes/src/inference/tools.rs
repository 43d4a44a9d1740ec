//! Whether an answer calls tools, and which: a rule that a test can foresee.

use serde_json::Value;

/// A tool that a request defines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    /// The schema of its input.
    pub(crate) schema: Option<&'a Value>,
}

/// What the request says of calling tools.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Choice<'a> {
    /// The rule decides.
    #[default]
    Auto,
    /// No tool is called.
    None,
    /// Some tool is called.
    Any,
    /// This one is called.
    Named(&'a str),
}

/// The last turn of a conversation, by which the rule goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastTurn {
    /// The text of the last message of the user.
    pub(crate) user_text: String,
    /// Whether the conversation ends with the result of a tool.
    pub(crate) is_result: bool,
}

/// The calls of an answer; none where it is text.
///
/// Tools are called where the request demands it, or, where the choice is the
/// model's, if the last user's text contains `tool` and the conversation does
/// not end with a tool's result. It is the first tool or the named one; where
/// that text contains `two tools` and calls may be parallel, it is the first
/// two, or the same one twice.
pub(crate) fn calls<'a>(
    tools: &[Wanted<'a>],
    choice: Choice<'_>,
    parallel: bool,
    last: &LastTurn,
) -> Vec<Wanted<'a>> {
    let text = last.user_text.to_lowercase();
    let mut able: Vec<Wanted<'a>> = tools.to_vec();
    match choice {
        Choice::None => return Vec::new(),
        Choice::Auto if last.is_result || !text.contains("tool") => return Vec::new(),
        Choice::Auto | Choice::Any => {}
        Choice::Named(name) => able.retain(|tool| tool.name == name),
    }
    let Some(first) = able.first().copied() else {
        return Vec::new();
    };
    if parallel && text.contains("two tools") {
        return vec![first, able.get(1).copied().unwrap_or(first)];
    }
    vec![first]
}

/// Whether it is 1 to `most` of the characters that names of tools may have.
pub(crate) fn is_name(name: &str, most: usize) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=most).contains(&name.len()) && name.bytes().all(plain)
}
