//! The typed API (`weir.router.v1.InferenceRouter`) in terms of chat completions:
//! the body of a request, and the events of its stream.

use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};
use weir_dialects::{
    sse::{Splitter, TooLong},
    tokens::parse_usage,
};
use weir_wire::{
    error::ApiError,
    proto::router::{
        FinishReason, Finished, Image, InferEvent, InferRequest, Message, Role, Tool,
        ToolCallDelta, ToolChoice, Usage, infer_event::Event, part::Part,
    },
};

use crate::refusal::Refusal;

/// The longest event of a stream, in bytes.
const EVENT_MAX_BYTES: usize = 4 << 20;

/// The name that a schema goes by; providers want one.
const SCHEMA_NAME: &str = "answer";

/// The body of a chat completion that streams and tells its usage.
///
/// # Errors
/// 400, naming the field of the message, for what is missing or no JSON.
pub fn body(request: &InferRequest) -> Result<Vec<u8>, Refusal> {
    let mut body = Map::new();
    body.insert("model".into(), json!(request.model));
    body.insert("messages".into(), messages(&request.messages)?.into());
    body.insert("stream".into(), true.into());
    body.insert("stream_options".into(), json!({"include_usage": true}));
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    set("max_completion_tokens", request.max_tokens.map(Value::from));
    set("temperature", number("temperature", request.temperature)?);
    set("top_p", number("top_p", request.top_p)?);
    set(
        "stop",
        (!request.stop.is_empty()).then(|| json!(request.stop)),
    );
    if !request.tools.is_empty() {
        let tools = request.tools.iter().enumerate();
        let tools: Vec<Value> = tools.map(tool).collect::<Result<_, _>>()?;
        set("tools", Some(tools.into()));
    }
    set("tool_choice", tool_choice(request)?);
    set(
        "parallel_tool_calls",
        request.one_tool_at_a_time.then(|| false.into()),
    );
    if !request.json_schema.is_empty() {
        let schema = object("json_schema", &request.json_schema)?;
        set(
            "response_format",
            Some(json!({
                "type": "json_schema",
                "json_schema": {"name": SCHEMA_NAME, "schema": schema},
            })),
        );
    }
    Ok(Value::from(body).to_string().into_bytes())
}

fn wrong(field: &str, message: &str) -> Refusal {
    Refusal::invalid(
        400,
        "invalid_value",
        format!("Invalid '{field}': {message}."),
    )
    .at(field)
}

/// JSON has no other numbers than finite ones.
fn number(field: &str, value: Option<f64>) -> Result<Option<Value>, Refusal> {
    match value {
        Some(value) if !value.is_finite() => Err(wrong(field, "must be a finite number")),
        value => Ok(value.map(Value::from)),
    }
}

/// A JSON object that came as text.
fn object(field: &str, text: &str) -> Result<Map<String, Value>, Refusal> {
    serde_json::from_str(text).map_err(|_| wrong(field, "must be a JSON object"))
}

fn tool_choice(request: &InferRequest) -> Result<Option<Value>, Refusal> {
    if !request.tool_name.is_empty() {
        let named = json!({"type": "function", "function": {"name": request.tool_name}});
        return Ok(Some(named));
    }
    Ok(match ToolChoice::try_from(request.tool_choice) {
        Ok(ToolChoice::Unspecified) => None,
        Ok(ToolChoice::Auto) => Some("auto".into()),
        Ok(ToolChoice::None) => Some("none".into()),
        Ok(ToolChoice::Required) => Some("required".into()),
        Err(_) => return Err(wrong("tool_choice", "is none that is known")),
    })
}

fn tool((index, tool): (usize, &Tool)) -> Result<Value, Refusal> {
    let parameters = match tool.parameters.as_str() {
        "" => json!({"type": "object", "properties": {}}),
        text => object(&format!("tools[{index}].parameters"), text)?.into(),
    };
    let mut function = json!({"name": tool.name, "parameters": parameters});
    if !tool.description.is_empty()
        && let Some(function) = function.as_object_mut()
    {
        function.insert("description".into(), json!(tool.description));
    }
    Ok(json!({"type": "function", "function": function}))
}

fn messages(messages: &[Message]) -> Result<Vec<Value>, Refusal> {
    if messages.is_empty() {
        return Err(wrong("messages", "must hold at least one"));
    }
    let mut out = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let mut parts = Parts::default();
        for (number, part) in message.parts.iter().enumerate() {
            let field = format!("messages[{index}].parts[{number}]");
            let Some(part) = &part.part else {
                return Err(wrong(&field, "is empty"));
            };
            parts.take(&field, message.role(), part)?;
        }
        parts.finish(&format!("messages[{index}]"), message.role(), &mut out)?;
    }
    Ok(out)
}

/// The parts of one message, sorted by where chat completions have them.
#[derive(Default)]
struct Parts {
    content: Vec<Value>,
    calls: Vec<Value>,
    results: Vec<Value>,
}

impl Parts {
    fn take(&mut self, field: &str, role: Role, part: &Part) -> Result<(), Refusal> {
        match (part, role) {
            (Part::Text(text), _) => self.content.push(json!({"type": "text", "text": text})),
            (Part::Image(image), Role::User) => {
                let url = image_url(field, image)?;
                self.content
                    .push(json!({"type": "image_url", "image_url": {"url": url}}));
            }
            (Part::ToolCall(call), Role::Assistant) => {
                object(&format!("{field}.arguments"), &call.arguments)?;
                self.calls.push(json!({
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }));
            }
            (Part::ToolResult(result), Role::User) => self.results.push(json!({
                "role": "tool",
                "tool_call_id": result.tool_call_id,
                "content": result.text,
            })),
            _ => return Err(wrong(field, "is of no message of that role")),
        }
        Ok(())
    }

    fn finish(self, field: &str, role: Role, out: &mut Vec<Value>) -> Result<(), Refusal> {
        let role = match role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Unspecified => return Err(wrong(&format!("{field}.role"), "is missing")),
        };
        if self.content.is_empty() && self.calls.is_empty() && self.results.is_empty() {
            return Err(wrong(&format!("{field}.parts"), "must hold at least one"));
        }
        out.extend(self.results);
        if !self.content.is_empty() || !self.calls.is_empty() {
            let mut message = json!({"role": role, "content": self.content});
            if !self.calls.is_empty()
                && let Some(message) = message.as_object_mut()
            {
                message.insert("tool_calls".into(), self.calls.into());
                if message
                    .get("content")
                    .and_then(Value::as_array)
                    .is_some_and(Vec::is_empty)
                {
                    message.insert("content".into(), Value::Null);
                }
            }
            out.push(message);
        }
        Ok(())
    }
}

fn image_url(field: &str, image: &Image) -> Result<String, Refusal> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    match (image.data.is_empty(), image.url.is_empty()) {
        (true, false) => Ok(image.url.clone()),
        (false, true) if !image.media_type.is_empty() => Ok(format!(
            "data:{};base64,{}",
            image.media_type,
            STANDARD.encode(&image.data)
        )),
        (false, true) => Err(wrong(&format!("{field}.image.media_type"), "is missing")),
        _ => Err(wrong(
            &format!("{field}.image"),
            "must have either data or a url",
        )),
    }
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    error: Option<ApiError>,
    choices: Option<Vec<Choice>>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<Vec<Call>>,
}

#[derive(Deserialize)]
struct Call {
    index: Option<u32>,
    id: Option<String>,
    function: Option<Function>,
}

#[derive(Deserialize)]
struct Function {
    name: Option<String>,
    arguments: Option<String>,
}

/// The stream of a chat completion as events.
#[derive(Debug)]
pub struct Events {
    splitter: Splitter,
    finish: Option<FinishReason>,
    usage: Option<Usage>,
    refused: bool,
}

/// What a stream gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// The next event.
    Event(InferEvent),
    /// It failed; nothing comes after.
    Failed(ApiError),
}

impl Default for Events {
    fn default() -> Self {
        Self {
            splitter: Splitter::new(EVENT_MAX_BYTES),
            finish: None,
            usage: None,
            refused: false,
        }
    }
}

impl Events {
    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    /// [`TooLong`] where one event passes four MiB.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Told>, TooLong> {
        let mut told = Vec::new();
        for event in self.splitter.feed(bytes)? {
            if event.data == b"[DONE]" {
                let reason = match self.refused {
                    true => FinishReason::Refusal,
                    false => self.finish.unwrap_or(FinishReason::Stop),
                };
                told.push(said(Event::Finished(Finished {
                    reason: reason.into(),
                    usage: self.usage,
                })));
            } else if event.data.is_empty() {
                // A comment.
            } else if let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(&event.data) {
                self.take(chunk, &mut told);
            } else {
                told.push(Told::Failed(ApiError::new(
                    "server_error",
                    "provider_error",
                    "The model's provider sent what is no event.",
                )));
            }
        }
        Ok(told)
    }

    fn take(&mut self, chunk: Chunk<'_>, told: &mut Vec<Told>) {
        if let Some(error) = chunk.error {
            told.push(Told::Failed(error));
            return;
        }
        if let Some(t) = chunk.usage.and_then(|u| parse_usage(u.get().as_bytes())) {
            self.usage = Some(Usage {
                input_tokens: t.input.saturating_add(t.cache_write),
                cached_input_tokens: t.cached_input,
                output_tokens: t.output,
                reasoning_tokens: t.reasoning,
            });
        }
        for choice in chunk.choices.into_iter().flatten() {
            self.finish = match choice.finish_reason.as_deref() {
                None => self.finish,
                Some("length") => Some(FinishReason::MaxTokens),
                Some("tool_calls") => Some(FinishReason::ToolCalls),
                Some("content_filter") => Some(FinishReason::Refusal),
                Some(_) => Some(FinishReason::Stop),
            };
            let Some(delta) = choice.delta else {
                continue;
            };
            self.refused |= delta.refusal.is_some();
            let texts = [delta.content, delta.refusal].into_iter().flatten();
            let texts = texts.filter(|text| !text.is_empty());
            told.extend(texts.map(|text| said(Event::Text(text))));
            for call in delta.tool_calls.into_iter().flatten() {
                told.push(said(Event::ToolCall(tool_call(call))));
            }
        }
    }
}

fn said(event: Event) -> Told {
    Told::Event(InferEvent { event: Some(event) })
}

fn tool_call(call: Call) -> ToolCallDelta {
    let (name, arguments) = call
        .function
        .map_or((None, None), |f| (f.name, f.arguments));
    ToolCallDelta {
        index: call.index.unwrap_or(0),
        id: call.id.unwrap_or_default(),
        name: name.unwrap_or_default(),
        arguments: arguments.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
