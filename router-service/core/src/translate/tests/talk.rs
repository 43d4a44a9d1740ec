//! Conversations that both dialects can say, how each says them, and a form in
//! which two ways to say the same are equal.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// What a user says.
#[derive(Debug, Clone)]
pub enum Part {
    Text(String),
    ImageAt(String),
    Image(String),
    Pdf(String, String),
}

#[derive(Debug, Clone)]
pub struct Call {
    id: String,
    name: String,
    input: Value,
    result: Vec<String>,
}

/// A user's message, and what the assistant says and calls.
#[derive(Debug, Clone)]
pub struct Round {
    user: Vec<Part>,
    said: Option<String>,
    calls: Vec<Call>,
}

#[derive(Debug, Clone)]
pub struct Talk {
    system: Vec<String>,
    rounds: Vec<Round>,
    last: Vec<Part>,
    tools: Vec<(String, Option<String>, Value, bool)>,
    /// 0 to 3: auto, any, none, and the first tool.
    choice: usize,
    serial: bool,
    stop: Vec<String>,
    temperature: Option<u32>,
    user: Option<String>,
    stream: bool,
    /// Whether lone texts are strings.
    strings: bool,
}

fn text() -> impl Strategy<Value = String> {
    "[a-zé\"\\\\\n 😀]{0,8}x"
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        text().prop_map(Part::Text),
        "https://[a-z]{1,8}".prop_map(Part::ImageAt),
        "[A-Za-z0-9+/]{4}".prop_map(Part::Image),
        ("[a-z]{1,5}\\.pdf", "[A-Za-z0-9+/]{4}").prop_map(|(name, data)| Part::Pdf(name, data)),
    ]
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    prop::collection::vec(part(), 1..4)
}

fn object() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    prop::collection::btree_map("[a-z ]{1,4}", scalar, 0..3)
        .prop_map(|members| Value::Object(members.into_iter().collect()))
}

fn call() -> impl Strategy<Value = Call> {
    (
        "call_[a-z]{4}",
        "[a-z]{1,6}",
        object(),
        prop::collection::vec(text(), 0..3),
    )
        .prop_map(|(id, name, input, result)| Call {
            id,
            name,
            input,
            result,
        })
}

fn round() -> impl Strategy<Value = Round> {
    (
        parts(),
        text(),
        prop::collection::vec(call(), 0..3),
        any::<bool>(),
    )
        .prop_map(|(user, said, calls, silent)| Round {
            user,
            // An assistant does one of the two at least.
            said: (calls.is_empty() || !silent).then_some(said),
            calls,
        })
}

pub fn talks() -> impl Strategy<Value = Talk> {
    let tool = (
        "[a-z]{1,6}",
        prop::option::of(text()),
        object(),
        any::<bool>(),
    );
    let sampling = (
        prop::collection::vec(text(), 0..4),
        prop::option::of(0u32..100),
        prop::option::of("[a-z]{1,4}"),
    );
    (
        prop::collection::vec(text(), 0..3),
        prop::collection::vec(round(), 0..4),
        parts(),
        prop::collection::vec(tool, 0..3),
        (0usize..4, any::<bool>(), any::<bool>(), any::<bool>()),
        sampling,
    )
        .prop_map(
            |(system, rounds, last, tools, (choice, serial, stream, strings), sampling)| Talk {
                system,
                rounds,
                last,
                tools,
                choice,
                serial,
                stop: sampling.0,
                temperature: sampling.1,
                user: sampling.2,
                stream,
                strings,
            },
        )
}

fn schema(properties: &Value) -> Value {
    json!({"type": "object", "properties": properties})
}

fn openai_part(part: &Part) -> Value {
    match part {
        Part::Text(text) => json!({"type": "text", "text": text}),
        Part::ImageAt(url) => json!({"type": "image_url", "image_url": {"url": url}}),
        Part::Image(data) => {
            json!({"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{data}")}})
        }
        Part::Pdf(name, data) => {
            let data = format!("data:application/pdf;base64,{data}");
            json!({"type": "file", "file": {"filename": name, "file_data": data}})
        }
    }
}

fn anthropic_part(part: &Part) -> Value {
    match part {
        Part::Text(text) => json!({"type": "text", "text": text}),
        Part::ImageAt(url) => json!({"type": "image", "source": {"type": "url", "url": url}}),
        Part::Image(data) => {
            json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}})
        }
        Part::Pdf(name, data) => {
            let source = json!({"type": "base64", "media_type": "application/pdf", "data": data});
            json!({"type": "document", "title": name, "source": source})
        }
    }
}

impl Talk {
    fn content(&self, mut parts: Vec<Value>) -> Value {
        match parts.as_mut_slice() {
            [one] if self.strings && one["type"] == "text" => one["text"].take(),
            _ => Value::Array(parts),
        }
    }

    fn texts(&self, texts: &[String]) -> Value {
        if self.strings && texts.is_empty() {
            return json!("");
        }
        let text = |text: &String| json!({"type": "text", "text": text});
        self.content(texts.iter().map(text).collect())
    }

    /// As a request of OpenAI's dialect.
    pub fn openai(&self) -> Value {
        let mut messages = Vec::new();
        for (i, text) in self.system.iter().enumerate() {
            let role = if i % 2 == 0 { "system" } else { "developer" };
            messages.push(json!({"role": role, "content": text}));
        }
        let said = |parts: &[Part]| {
            let content = self.content(parts.iter().map(openai_part).collect());
            json!({"role": "user", "content": content})
        };
        for round in &self.rounds {
            messages.push(said(&round.user));
            let mut answer = json!({"role": "assistant", "content": round.said});
            if !round.calls.is_empty() {
                let call = |c: &Call| {
                    let function = json!({"name": c.name, "arguments": c.input.to_string()});
                    json!({"id": c.id, "type": "function", "function": function})
                };
                answer["tool_calls"] = round.calls.iter().map(call).collect();
            }
            messages.push(answer);
            for call in &round.calls {
                let content = self.texts(&call.result);
                messages.push(json!({"role": "tool", "tool_call_id": call.id, "content": content}));
            }
        }
        messages.push(said(&self.last));
        let mut body = self.sampling("stop");
        body.insert("messages".to_owned(), Value::Array(messages));
        if let Some(user) = &self.user {
            body.insert("user".to_owned(), json!(user));
        }
        if let Some((first, ..)) = self.tools.first() {
            let tool = |(name, description, properties, strict): &_| {
                let function = json!({"name": name, "description": description, "parameters": schema(properties), "strict": strict});
                json!({"type": "function", "function": function})
            };
            body.insert("tools".to_owned(), self.tools.iter().map(tool).collect());
            let choice = match self.choice {
                0 => json!("auto"),
                1 => json!("required"),
                2 => json!("none"),
                _ => json!({"type": "function", "function": {"name": first}}),
            };
            body.insert("tool_choice".to_owned(), choice);
            body.insert("parallel_tool_calls".to_owned(), json!(!self.serial));
        }
        Value::Object(body)
    }

    /// As a request of Anthropic's dialect.
    pub fn anthropic(&self) -> Value {
        let mut messages = Vec::new();
        let mut open = Vec::new();
        let parts = |parts: &[Part]| parts.iter().map(anthropic_part).collect::<Vec<_>>();
        for round in &self.rounds {
            open.extend(parts(&round.user));
            let content = self.content(std::mem::take(&mut open));
            messages.push(json!({"role": "user", "content": content}));
            let said = round
                .said
                .iter()
                .map(|text| json!({"type": "text", "text": text}));
            let called = round
                .calls
                .iter()
                .map(|c| json!({"type": "tool_use", "id": c.id, "name": c.name, "input": c.input}));
            let content = self.content(said.chain(called).collect());
            messages.push(json!({"role": "assistant", "content": content}));
            open.extend(round.calls.iter().map(|c| {
                let content = self.texts(&c.result);
                json!({"type": "tool_result", "tool_use_id": c.id, "content": content})
            }));
        }
        open.extend(parts(&self.last));
        messages.push(json!({"role": "user", "content": self.content(open)}));
        let mut body = self.sampling("stop_sequences");
        body.insert("max_tokens".to_owned(), json!(9));
        body.insert("messages".to_owned(), Value::Array(messages));
        body.insert("system".to_owned(), self.texts(&self.system));
        if let Some(user) = &self.user {
            body.insert("metadata".to_owned(), json!({"user_id": user}));
        }
        if let Some((first, ..)) = self.tools.first() {
            let tool = |(name, description, properties, strict): &_| json!({"name": name, "description": description, "input_schema": schema(properties), "strict": strict});
            body.insert("tools".to_owned(), self.tools.iter().map(tool).collect());
            let mut choice = match self.choice {
                0 => json!({"type": "auto"}),
                1 => json!({"type": "any"}),
                2 => json!({"type": "none"}),
                _ => json!({"type": "tool", "name": first}),
            };
            if self.choice != 2 {
                choice["disable_parallel_tool_use"] = json!(self.serial);
            }
            body.insert("tool_choice".to_owned(), choice);
        }
        Value::Object(body)
    }

    fn sampling(&self, stop: &str) -> Map<String, Value> {
        let mut body = Map::new();
        body.insert("model".to_owned(), json!("m"));
        body.insert("stream".to_owned(), json!(self.stream));
        body.insert(stop.to_owned(), json!(self.stop));
        if let Some(temperature) = self.temperature {
            body.insert(
                "temperature".to_owned(),
                json!(f64::from(temperature) / 100.0),
            );
        }
        body
    }
}

/// Texts and parts as a list of parts, whatever form they had.
fn listed(content: &Value) -> Vec<Value> {
    match content {
        Value::Null => Vec::new(),
        Value::String(text) if text.is_empty() => Vec::new(),
        Value::String(text) => vec![json!({"type": "text", "text": text})],
        parts => parts.as_array().unwrap().clone(),
    }
}

/// Without members that say what their absence says.
fn spare(body: &mut Value, absent: &[(&str, Value)]) {
    let body = body.as_object_mut().unwrap();
    body.retain(|name, value| {
        !value.is_null() && !absent.contains(&(name.as_str(), value.clone()))
    });
    for counted in [
        "model",
        "max_tokens",
        "max_completion_tokens",
        "stream_options",
    ] {
        body.remove(counted);
    }
}

/// A request of OpenAI's dialect in one form.
pub fn normal_openai(body: &Value) -> Value {
    let mut body = body.clone();
    let (mut system, mut rest) = (Vec::new(), Vec::new());
    for mut message in body["messages"].as_array().unwrap().clone() {
        let content = listed(&message["content"]);
        if message["role"] == "system" || message["role"] == "developer" {
            system.extend(content);
            continue;
        }
        message["content"] = Value::Array(content);
        for call in message["tool_calls"].as_array_mut().into_iter().flatten() {
            let arguments = call["function"]["arguments"].as_str().unwrap();
            call["function"]["arguments"] = serde_json::from_str(arguments).unwrap();
        }
        rest.push(message);
    }
    body["messages"] = json!({"system": system, "rest": rest});
    for tool in body["tools"].as_array_mut().into_iter().flatten() {
        spare(&mut tool["function"], &[("strict", json!(false))]);
    }
    if body["tool_choice"] == "none" {
        body["parallel_tool_calls"] = Value::Null;
    }
    let absent = [
        ("tool_choice", json!("auto")),
        ("parallel_tool_calls", json!(true)),
        ("stream", json!(false)),
        ("stop", json!([])),
    ];
    spare(&mut body, &absent);
    body
}

/// A request of Anthropic's dialect in one form.
pub fn normal_anthropic(body: &Value) -> Value {
    let mut body = body.clone();
    body["system"] = Value::Array(listed(&body["system"]));
    for message in body["messages"].as_array_mut().unwrap() {
        message["content"] = Value::Array(listed(&message["content"]));
        for block in message["content"].as_array_mut().unwrap() {
            if block["type"] == "tool_result" {
                block["content"] = Value::Array(listed(&block["content"]));
            }
        }
    }
    for tool in body["tools"].as_array_mut().into_iter().flatten() {
        spare(tool, &[("strict", json!(false))]);
    }
    if body["tool_choice"]["disable_parallel_tool_use"] == false {
        body["tool_choice"]
            .as_object_mut()
            .unwrap()
            .remove("disable_parallel_tool_use");
    }
    let absent = [
        ("tool_choice", json!({"type": "auto"})),
        ("stream", json!(false)),
        ("stop_sequences", json!([])),
    ];
    spare(&mut body, &absent);
    body
}
