//! The turns of a conversation: who may say what, and which result belongs to which use of a tool.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{
    blocks::{Block, Reader, check_text, need},
    error::ApiError,
};
use crate::inference::{
    params::{self, Kind, Param, given},
    prompt::MESSAGE_TOKENS,
    tools::LastTurn,
};

const MESSAGE: &[Param] = &[("content", Kind::TextOrArray), ("role", Kind::Text)];

const USER_BLOCKS: &[&str] = &["text", "image", "document", "tool_result"];

const ASSISTANT_BLOCKS: &[&str] = &["text", "tool_use", "thinking", "redacted_thinking"];

/// Messages of one role in a row, which count as one.
#[derive(Debug)]
struct Turn {
    assistant: bool,
    /// The first of its messages.
    index: usize,
    blocks: Vec<Block>,
}

/// Reads all messages, and gives the turn by which the rule for tools goes.
pub(super) fn read(reader: &mut Reader, body: &Map<String, Value>) -> Result<LastTurn, ApiError> {
    let messages = given(body, "messages").ok_or_else(|| ApiError::missing("messages"))?;
    let messages = messages.as_array().map_or(&[][..], Vec::as_slice);
    if messages.is_empty() {
        return Err(ApiError::at("messages", "at least one message is required"));
    }
    let mut turns: Vec<Turn> = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let last = index.saturating_add(1) == messages.len();
        let (assistant, blocks) = message_of(reader, index, message, last)?;
        match turns.last_mut() {
            Some(turn) if turn.assistant == assistant => turn.blocks.extend(blocks),
            _ => turns.push(Turn {
                assistant,
                index,
                blocks,
            }),
        }
    }
    reader.prompt.add(MESSAGE_TOKENS);
    check_tools(&turns)?;
    if let Some(turn) = turns.last().filter(|turn| turn.assistant)
        && let Some(Block::Text(text)) = turn.blocks.last()
        && text.ends_with(char::is_whitespace)
    {
        let message = "final assistant content cannot end with trailing whitespace";
        return Err(ApiError::at("messages", message));
    }
    Ok(last_turn(&turns))
}

fn message_of(
    reader: &mut Reader,
    index: usize,
    message: &Value,
    last: bool,
) -> Result<(bool, Vec<Block>), ApiError> {
    let path = format!("messages.{index}");
    let Some(message) = message.as_object() else {
        return Err(ApiError::at(&path, "Input should be a valid dictionary"));
    };
    params::check(&path, message, MESSAGE)?;
    let role = need(&path, message, "role")?;
    let assistant = match role {
        "user" => false,
        "assistant" => true,
        "system" => {
            return Err(ApiError::at(
                "messages",
                "Unexpected role \"system\". The Messages API accepts a top-level `system` parameter, not \"system\" as an input message role.",
            ));
        }
        other => {
            return Err(ApiError::at(
                "messages",
                &format!(
                    "Unexpected role \"{other}\". Allowed roles are \"user\" or \"assistant\""
                ),
            ));
        }
    };
    reader.prompt.add(MESSAGE_TOKENS);
    reader.prompt.mix(role);
    let content = given(message, "content");
    let content = content.ok_or_else(|| ApiError::missing(&format!("{path}.content")))?;
    let empty = content.as_str().is_some_and(str::is_empty)
        || content.as_array().is_some_and(Vec::is_empty);
    if empty && assistant && last {
        return Ok((assistant, Vec::new()));
    }
    if empty {
        let message = "all messages must have non-empty content except for the optional final assistant message";
        return Err(ApiError::at(&path, message));
    }
    if let Some(text) = content.as_str() {
        check_text(text)?;
        reader.prompt.text(text);
        return Ok((assistant, vec![Block::Text(text.to_owned())]));
    }
    let allowed = if assistant {
        ASSISTANT_BLOCKS
    } else {
        USER_BLOCKS
    };
    let blocks = content.as_array().into_iter().flatten().enumerate();
    let read = blocks.map(|(position, block)| {
        reader.block(&format!("{path}.content.{position}"), block, allowed)
    });
    Ok((assistant, read.collect::<Result<_, _>>()?))
}

/// Each use of a tool has its result at the start of the next turn, and the other way round.
fn check_tools(turns: &[Turn]) -> Result<(), ApiError> {
    let mut seen = HashSet::new();
    let mut open: Vec<&str> = Vec::new();
    let mut used_at = 0;
    for turn in turns {
        if !turn.assistant {
            results(turn, &mut open)?;
        }
        unanswered(used_at, &open)?;
        for block in &turn.blocks {
            if let Block::ToolUse(id) = block {
                if !seen.insert(id.as_str()) {
                    return Err(ApiError::at("messages", "`tool_use` ids must be unique"));
                }
                open.push(id);
                used_at = turn.index;
            }
        }
    }
    unanswered(used_at, &open)
}

fn results(turn: &Turn, open: &mut Vec<&str>) -> Result<(), ApiError> {
    let mut other_came = false;
    for (position, block) in turn.blocks.iter().enumerate() {
        let Block::ToolResult(id) = block else {
            other_came = true;
            continue;
        };
        let path = format!("messages.{}.content.{position}", turn.index);
        let Some(used) = open.iter().position(|used| used == id) else {
            let message = format!(
                "unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
            );
            return Err(ApiError::at(&path, &message));
        };
        if other_came {
            // What Anthropic says of it, too: the use counts as not answered.
            return unanswered(turn.index.saturating_sub(1), open);
        }
        open.remove(used);
    }
    Ok(())
}

fn unanswered(index: usize, open: &[&str]) -> Result<(), ApiError> {
    if open.is_empty() {
        return Ok(());
    }
    let message = format!(
        "`tool_use` ids were found without `tool_result` blocks immediately after: {}. Each `tool_use` block must have a corresponding `tool_result` block in the next message.",
        open.join(", ")
    );
    Err(ApiError::at(&format!("messages.{index}"), &message))
}

fn last_turn(turns: &[Turn]) -> LastTurn {
    let user = turns.iter().rev().find(|turn| !turn.assistant);
    let blocks = user.map_or(&[][..], |turn| turn.blocks.as_slice());
    let texts = blocks.iter().filter_map(|block| match block {
        Block::Text(text) => Some(text.as_str()),
        _ => None,
    });
    LastTurn {
        user_text: texts.collect::<Vec<_>>().join("\n"),
        is_result: blocks
            .iter()
            .any(|block| matches!(block, Block::ToolResult(_))),
    }
}
