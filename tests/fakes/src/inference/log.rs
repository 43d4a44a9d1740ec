//! The record of every request: what it used, and how it ended.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::prompt::Charge;
use crate::ids;
use serde::{Deserialize, Serialize};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Answered in full: the fake handed over the JSON, or the end of the stream.
    Completed,
    /// A fault cut the connection.
    Cut,
    /// The client left before the end.
    ClientGone,
    /// A fault answered with an error, as a status or in the stream.
    Fault,
    /// The request deserved its error.
    Refused,
}

/// One request. The counts are what the provider would charge for: of a stream
/// that ended early, the tokens of the chunks it handed to the connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Order of arrival, from 1; goes on counting after the log is emptied.
    pub seq: u64,
    /// When it came, in milliseconds since 1970, UTC.
    pub at_ms: u64,
    /// The request's path.
    pub path: String,
    /// The model asked for, where the request named one.
    pub model: Option<String>,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// The `user` field; of Anthropic's API, `metadata.user_id`.
    pub user: Option<String>,
    /// The status sent; none if the client left before.
    pub status: Option<u16>,
    /// Tokens of the prompt, those from and into the cache included; 0 if it was refused.
    pub prompt_tokens: u64,
    /// Tokens of the answer, those for reasoning included.
    pub completion_tokens: u64,
    /// Tokens of the prompt that were cached.
    pub cached_tokens: u64,
    /// Tokens of the prompt that were written into the cache.
    pub cache_write_tokens: u64,
    /// Tokens spent on reasoning.
    pub reasoning_tokens: u64,
    /// Images in the prompt; 0 if it was refused.
    pub images: u64,
    /// Definitions of tools in the prompt; 0 if it was refused.
    pub tools: u64,
    /// Whether the whole `usage` was in what was sent.
    pub usage_sent: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// Chunks or events handed to the connection; neither what ends a stream (`[DONE]`,
    /// `message_stop`, `response.completed`) nor an error is one.
    pub chunks_sent: u64,
}

/// All finished requests since the log was last emptied.
#[derive(Debug, Default)]
pub(crate) struct Log(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    last_seq: u64,
    /// Requests up to this one came before the log was emptied and don't count.
    cleared_to: u64,
    open: usize,
    entries: BTreeMap<u64, Entry>,
}

impl Log {
    pub(crate) fn open(self: &Arc<Self>, path: &str) -> Recorder {
        let mut inner = self.lock();
        inner.last_seq = inner.last_seq.saturating_add(1);
        inner.open = inner.open.saturating_add(1);
        let entry = Entry {
            seq: inner.last_seq,
            at_ms: ids::now_ms(),
            path: path.to_owned(),
            model: None,
            stream: false,
            user: None,
            status: None,
            prompt_tokens: 0,
            completion_tokens: 0,
            cached_tokens: 0,
            cache_write_tokens: 0,
            reasoning_tokens: 0,
            images: 0,
            tools: 0,
            usage_sent: false,
            outcome: Outcome::ClientGone,
            chunks_sent: 0,
        };
        Recorder {
            log: Arc::clone(self),
            entry,
            finished: false,
        }
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.lock().entries.values().cloned().collect()
    }

    pub(crate) fn open_requests(&self) -> usize {
        self.lock().open
    }

    pub(crate) fn clear(&self) {
        let mut inner = self.lock();
        inner.cleared_to = inner.last_seq;
        inner.entries.clear();
    }

    fn close(&self, entry: Entry) {
        let mut inner = self.lock();
        inner.open = inner.open.saturating_sub(1);
        if entry.seq > inner.cleared_to {
            inner.entries.insert(entry.seq, entry);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The entry of one open request. Dropped before [`Recorder::finish`], it says
/// that the client went away: hyper drops a handler or a body only then.
#[derive(Debug)]
pub(crate) struct Recorder {
    log: Arc<Log>,
    entry: Entry,
    finished: bool,
}

impl Recorder {
    /// Notes what the body asks for, even if it is then refused.
    pub(crate) fn asked(&mut self, model: Option<&str>, user: Option<&str>, stream: bool) {
        self.entry.model = model.map(str::to_owned);
        self.entry.user = user.map(str::to_owned);
        self.entry.stream = stream;
    }

    pub(crate) fn status(&mut self, status: u16) {
        self.entry.status = Some(status);
    }

    pub(crate) fn prompt(&mut self, charge: &Charge) {
        self.entry.prompt_tokens = charge.tokens;
        self.entry.cached_tokens = charge.cached;
        self.entry.cache_write_tokens = charge.cache_write;
        self.entry.images = charge.images;
        self.entry.tools = charge.tools;
    }

    pub(crate) fn generated(&mut self, tokens: u64) {
        self.entry.completion_tokens = self.entry.completion_tokens.saturating_add(tokens);
    }

    pub(crate) fn reasoned(&mut self, tokens: u64) {
        self.entry.reasoning_tokens = tokens;
        self.generated(tokens);
    }

    pub(crate) fn chunk_sent(&mut self) {
        self.entry.chunks_sent = self.entry.chunks_sent.saturating_add(1);
    }

    pub(crate) fn chunks_sent(&self) -> u64 {
        self.entry.chunks_sent
    }

    pub(crate) fn usage_sent(&mut self) {
        self.entry.usage_sent = true;
    }

    pub(crate) fn usage_not_sent(&mut self) {
        self.entry.usage_sent = false;
    }

    pub(crate) fn refuse(&mut self, status: u16, on_demand: bool) {
        self.status(status);
        self.finish(if on_demand {
            Outcome::Fault
        } else {
            Outcome::Refused
        });
    }

    /// Puts the entry into the log; what comes after is not recorded.
    pub(crate) fn finish(&mut self, outcome: Outcome) {
        if !self.finished {
            self.finished = true;
            self.entry.outcome = outcome;
            self.log.close(self.entry.clone());
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.finish(Outcome::ClientGone);
    }
}
