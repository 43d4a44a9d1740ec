//! What tests of usage events share: load, events in logs, and a configuration of
//! the filter that can be replaced while the gateway runs.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::{Value, json};
use weir_harness::envoy;
use weir_wire::{
    headers,
    proto::usage::UsageEvent,
    usage::line::{self, LineKey, Piece},
};

use crate::{Fixture, fixture::ACME};

/// The requests of events, of which no two may have the same.
///
/// # Panics
/// Where two have.
#[must_use]
#[track_caller]
pub fn requests_of(events: &[UsageEvent]) -> BTreeSet<String> {
    let ids: BTreeSet<String> = events.iter().map(|e| e.request_id.clone()).collect();
    assert_eq!(ids.len(), events.len(), "a request has two events");
    ids
}

/// The events in a log, behind whatever else is in it; none where there is no log.
///
/// # Panics
/// Where one is torn or was signed by another.
#[must_use]
pub fn logged(log: &Path, token: &str) -> Vec<UsageEvent> {
    let keys = [LineKey::of_token(token)];
    let text = fs::read(log).unwrap_or_default();
    text.split(|byte| *byte == b'\n')
        .flat_map(|line| line::pieces(line, &keys))
        .filter_map(|piece| match piece {
            Piece::Event { event, .. } => Some(*event),
            Piece::Torn { why, .. } => panic!("{}: {why}", log.display()),
            Piece::Other(_) => None,
        })
        .collect()
}

/// Makes chats from eight threads while `meanwhile` runs; gives the ids of those that
/// were answered whole. One that fails is the last of its thread.
pub fn load(fixture: &Fixture, meanwhile: impl FnOnce()) -> BTreeSet<String> {
    let (answered, is_over) = (Mutex::new(BTreeSet::new()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let Some(id) = chat(fixture) else { return };
                    answered.lock().expect("the lock").insert(id);
                }
            });
        }
        meanwhile();
        is_over.store(true, Ordering::Relaxed);
    });
    answered.into_inner().expect("the lock")
}

/// A chat, as the client knows it by its answer; `None` where none came whole.
fn chat(fixture: &Fixture) -> Option<String> {
    let request = fixture.post(crate::fixture::CHAT_PATH);
    let answer = request.bearer_auth(fixture.key(ACME)).send().ok()?;
    assert_eq!(answer.status(), 200);
    let id = answer.headers()[headers::REQUEST_ID].to_str().ok()?;
    let id = id.to_owned();
    answer.bytes().ok()?;
    Some(id)
}

/// Puts a filter that sets a request's header before the filter `before`.
///
/// # Panics
/// Where there is no such filter.
pub fn set_header(config: &mut Value, before: &str, name: &str, value: &str) {
    let filter = json!({
        "name": "test.header_mutation",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            "mutations": {"request_mutations": [{"append": {
                "header": {"key": name, "value": value},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}]}}});
    insert(config, before, filter);
}

/// Puts `filter` before the filter `before`.
///
/// # Panics
/// Where there is no such filter.
pub fn insert(config: &mut Value, before: &str, filter: Value) {
    let filters = envoy::http_filters(config).expect("filters");
    let at = filters.iter().position(|f| f["name"] == before);
    filters.insert(at.expect("the filter is there"), filter);
}

/// Usage-events' configuration in a file that Envoy watches.
pub struct Discovered {
    path: PathBuf,
    filter: Value,
}

impl Discovered {
    /// Moves it there.
    ///
    /// # Panics
    /// Where it can't.
    #[must_use]
    pub fn take(config: &mut Value, folder: &Path) -> Self {
        // Envoy asks for a name where something is discovered.
        config["node"] = json!({"id": "test", "cluster": "test"});
        let filters = envoy::http_filters(config).expect("filters");
        let filter = filters
            .iter_mut()
            .find(|f| f["name"] == "weir.usage_events");
        let filter = filter.expect("the filter is there");
        let folder = folder.join("discovered");
        fs::create_dir(&folder).expect("a folder");
        let discovered = Self {
            path: folder.join("usage_events.json"),
            filter: filter["typed_config"].take(),
        };
        discovered.replace(|_| {});
        *filter = json!({
            "name": "weir.usage_events",
            "config_discovery": {
                "config_source": {
                    "resource_api_version": "V3",
                    "path_config_source": {
                        "path": discovered.path,
                        "watched_directory": {"path": folder}}},
                "type_urls": [discovered.filter["@type"]]}});
        discovered
    }

    /// Replaces it, as a whole.
    ///
    /// # Panics
    /// Where it can't be written.
    pub fn replace(&self, change: impl FnOnce(&mut Value)) {
        let mut filter = self.filter.clone();
        let text = &mut filter["config"]["configuration"]["value"];
        let settings = text.as_str().expect("a configuration");
        let mut settings: Value = serde_json::from_str(settings).expect("JSON");
        change(&mut settings);
        *text = json!(settings.to_string());
        let discovered = json!({"resources": [{
            "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            "name": "weir.usage_events",
            "typed_config": filter}]});
        let part = self.path.with_extension("part");
        fs::write(&part, discovered.to_string()).expect("the folder can be written");
        fs::rename(&part, &self.path).expect("the folder can be written");
    }
}
