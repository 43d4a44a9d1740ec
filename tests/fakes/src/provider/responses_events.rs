//! The events of a streamed response.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::{chat::TOKENS_A_CHUNK, output::set, responses::Made};
use crate::inference::{
    answers::{Answer, Call},
    faults::Fault,
    stream::{Event, Plan},
};

/// Numbers events in their order.
struct Events {
    events: VecDeque<Event>,
    next: u64,
}

impl Events {
    fn number(&mut self, mut value: Value) -> Value {
        set(&mut value, "sequence_number", self.next);
        self.next = self.next.saturating_add(1);
        value
    }

    fn push(&mut self, value: Value, tokens: u64) {
        let value = self.number(value);
        self.events.push_back(Event::named(&value, tokens));
    }
}

/// The stream: its last event is what ends it.
pub(super) fn plan(response: &Made, fault: Fault) -> Plan {
    let mut events = Events {
        events: VecDeque::new(),
        next: 0,
    };
    for kind in ["response.created", "response.in_progress"] {
        events.push(json!({"type": kind, "response": response.begun()}), 0);
    }
    if let Some(answer) = response.answer() {
        if answer.calls.is_empty()
            && let Some(item) = response.items.first()
        {
            message(&mut events, answer, item);
        }
        for (index, (call, item)) in answer.calls.iter().zip(&response.items).enumerate() {
            function_call(&mut events, index, call, item);
        }
    }
    let tells = !fault.missing_usage;
    let last = json!({"type": response.last_event(), "response": response.finished(tells)});
    let last = events.number(last);
    // An error takes the place of a later event, whose number the client can't know.
    let error = json!({
        "type": "error",
        "code": "server_error",
        "message": "The server had an error. Retry your request.",
        "param": null,
        "sequence_number": fault.error_in_stream_after_chunks.unwrap_or(0),
    });
    Plan {
        events: events.events,
        end: Some(Event::named(&last, 0).with_usage(tells)),
        error: Event::named(&error, 0),
        reasoning_tokens: response.output.reasoning_tokens,
        fault,
    }
}

/// An item as it is when it begins.
fn begun(item: &Value, emptied: &str, empty: Value) -> Value {
    let mut item = item.clone();
    set(&mut item, "status", "in_progress");
    set(&mut item, emptied, empty);
    item
}

fn message(events: &mut Events, answer: &Answer, item: &Value) {
    let text = answer.text.concat();
    let part = |text: &str| json!({"type": "output_text", "annotations": [], "logprobs": [], "text": text});
    let place = |kind: &str, fields: Value| {
        let mut value = json!({
            "type": kind, "item_id": item.get("id"), "output_index": 0, "content_index": 0,
        });
        if let (Some(value), Value::Object(fields)) = (value.as_object_mut(), fields) {
            value.extend(fields);
        }
        value
    };
    let started = begun(item, "content", json!([]));
    events.push(
        json!({"type": "response.output_item.added", "output_index": 0, "item": started}),
        0,
    );
    events.push(
        place("response.content_part.added", json!({"part": part("")})),
        0,
    );
    for tokens in answer.text.chunks(TOKENS_A_CHUNK) {
        let delta = json!({"delta": tokens.concat(), "logprobs": []});
        events.push(
            place("response.output_text.delta", delta),
            tokens.len() as u64,
        );
    }
    let done = json!({"text": text, "logprobs": []});
    events.push(place("response.output_text.done", done), 0);
    let done = json!({"part": part(&text)});
    events.push(place("response.content_part.done", done), 0);
    events.push(
        json!({"type": "response.output_item.done", "output_index": 0, "item": item}),
        0,
    );
}

fn function_call(events: &mut Events, index: usize, call: &Call, item: &Value) {
    let started = begun(item, "arguments", json!(""));
    events.push(
        json!({"type": "response.output_item.added", "output_index": index, "item": started}),
        call.name_tokens,
    );
    let id = item.get("id");
    for tokens in call.input.chunks(TOKENS_A_CHUNK) {
        let delta = json!({
            "type": "response.function_call_arguments.delta",
            "item_id": id, "output_index": index, "delta": tokens.concat(),
        });
        events.push(delta, tokens.len() as u64);
    }
    events.push(
        json!({
            "type": "response.function_call_arguments.done",
            "item_id": id, "output_index": index,
            "arguments": call.input.concat(),
        }),
        0,
    );
    events.push(
        json!({"type": "response.output_item.done", "output_index": index, "item": item}),
        0,
    );
}
