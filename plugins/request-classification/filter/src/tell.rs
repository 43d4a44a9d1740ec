//! Tells the host what was found: headers, filter state, and a changed body.

use weir_dialects::routes::RequestClass;
use weir_plugin_host::{body, headers, property};
use weir_request_classification_core::{Config, Edit, Told};
use weir_wire::headers as names;

/// Tells of a request whose class was given as `class` already, and whose body has
/// the length `content_length` where its headers say so.
pub(crate) fn tell(config: &Config, told: &Told, class: RequestClass, content_length: Option<u64>) {
    let tokens = told.input_tokens.map(|tokens| tokens.to_string());
    if config.writes_filter_state() {
        let stream = told.stream.then_some("true");
        let properties = [
            ("weir.request_class", Some(told.class.as_str())),
            ("weir.model_asked", told.model.as_deref()),
            ("weir.stream", stream),
            ("weir.input_tokens", tokens.as_deref()),
        ];
        // Before the headers: whoever changes one has Envoy choose the route anew.
        for (name, value) in properties {
            if let Some(value) = value {
                property::set(name, value);
            }
        }
    }
    if told.class != class {
        headers::set_request(names::REQUEST_CLASS, told.class.as_str());
    }
    if let Some(model) = &told.model {
        headers::give_request(config.host, names::MODEL_ASKED, model);
    }
    if told.stream {
        headers::give_request(config.host, names::STREAM, "true");
    }
    if let Some(tokens) = &tokens {
        headers::give_request(config.host, names::INPUT_TOKENS, tokens);
    }
    if let Some(edit) = &told.edit
        && change_body(edit)
    {
        if let Some(length) = content_length {
            let length = edit.length(length).to_string();
            headers::set_request("content-length", &length);
        }
        headers::give_request(config.host, names::USAGE_ADDED, "true");
    }
}

/// What stands before the change is written again with it.
fn change_body(edit: &Edit) -> bool {
    let kept = body::request(0, edit.start);
    let text = [kept.as_slice(), edit.text.as_bytes()].concat();
    kept.len() == edit.start && body::replace_request(edit.end, &text)
}
