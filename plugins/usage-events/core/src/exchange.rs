//! One request and its answer, as the gateway saw them.

use std::borrow::Cow;

use weir_dialects::{
    answer::Watch,
    media::{EVENT_STREAM, essence},
    tokens::clip_model,
    used,
};
use weir_wire::{
    headers as names,
    ids::RequestId,
    proto::usage::{Kind, ModelUsage, Outcome, UsageEvent, Witness},
};

use crate::{Decoder, Hide, config::AcceptEncoding};

/// Headers. On Kong names are as they were sent, in any case.
pub type Pairs<'a> = [(&'a str, &'a [u8])];

/// A request, and what is seen of its answer.
#[derive(Debug, Default)]
pub struct Exchange {
    tenant: String,
    tenant_context: String,
    request_id: String,
    class: String,
    model_asked: String,
    /// What request-classification says of the input.
    input_tokens: Option<u64>,
    content_length: u64,
    /// The client did not ask for the usage that its stream reports.
    usage_added: bool,
    started_ms: u64,
    status: u32,
    answer: Option<Answer>,
    first_byte_ms: Option<u64>,
    ended: bool,
}

/// What is seen of the answer's body.
#[derive(Debug)]
struct Answer {
    form: Form,
    decoder: Decoder,
    watch: Watch,
    hide: Option<Hide>,
    passed_bytes: u64,
}

/// What a content type says of an answer's end and of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// It says in its content that it came to its end.
    Json,
    /// The same.
    Events,
    /// Text without an end of its own.
    Text,
    /// Sound, images, nothing at all.
    Other,
}

/// What the request's headers need before they go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changes {
    /// `accept-encoding` becomes `identity`.
    pub identity: bool,
    /// [`names::USAGE_ADDED`] is nobody's business upstream.
    pub usage_added: bool,
}

/// What the answer's headers need before they go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerChanges<'a> {
    /// The request's id, where the answer does not have it.
    pub request_id: Option<&'a str>,
    /// Whether `content-length` goes, because what is hidden makes it wrong.
    pub content_length: bool,
}

/// How the exchange ended, as the host tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The host says that the client went away.
    ClientGone,
    /// Nothing of that kind.
    Other,
}

impl End {
    /// What Envoy's `response.code_details` says (its documentation, "Response Code
    /// Details").
    #[must_use]
    pub fn of_details(details: &[u8]) -> Self {
        let left: [&[u8]; 2] = [b"downstream_remote", b"http2.remote_re"];
        match left.iter().any(|word| details.starts_with(word)) {
            true => Self::ClientGone,
            false => Self::Other,
        }
    }
}

impl Exchange {
    /// A request whose headers pass at `now_ms` (Unix epoch), and what to change of
    /// them; `None` for one that is nobody's.
    #[must_use]
    pub fn begin(
        headers: &Pairs<'_>,
        accept_encoding: AcceptEncoding,
        now_ms: u64,
    ) -> Option<(Self, Changes)> {
        let (mut exchange, seen) = Self::read(headers);
        if exchange.tenant.is_empty() && seen.is_open {
            return None;
        }
        exchange.started_ms = now_ms;
        // Nothing can be hidden in what is encoded.
        let identity = accept_encoding == AcceptEncoding::Identity || exchange.usage_added;
        let changes = Changes {
            identity: identity && seen.is_encoding_asked,
            usage_added: exchange.usage_added,
        };
        Some((exchange, changes))
    }

    /// A request that is over and never came to this filter, but that passed the
    /// limit, which its class tells: request-classification, which stands in
    /// between, refused it, or its client left during the upload. `answer` are the
    /// headers of what was answered. `None` where the limit did not let it pass.
    #[must_use]
    pub fn missed(headers: &Pairs<'_>, answer: &Pairs<'_>) -> Option<Self> {
        let (mut exchange, seen) = Self::read(headers);
        if seen.is_open || exchange.tenant.is_empty() || exchange.class.is_empty() {
            return None;
        }
        // The gateway made the id as the request came.
        exchange.started_ms = RequestId::parse(&exchange.request_id)
            .ok()
            .and_then(|id| u64::try_from(id.time_ms()).ok())
            .unwrap_or(0);
        exchange.status = status(answer).unwrap_or(0);
        Some(exchange)
    }

    fn read(headers: &Pairs<'_>) -> (Self, Seen) {
        let (mut exchange, mut seen) = (Self::default(), Seen::default());
        for (name, value) in headers {
            let text = || String::from_utf8_lossy(value).into_owned();
            let is = |wanted| name.eq_ignore_ascii_case(wanted);
            match *name {
                names::TENANT_ID => exchange.tenant = text(),
                names::TENANT_CONTEXT => exchange.tenant_context = text(),
                names::REQUEST_ID => exchange.request_id = text(),
                names::REQUEST_CLASS => exchange.class = text(),
                names::MODEL_ASKED => exchange.model_asked = clip_model(text()),
                names::INPUT_TOKENS => exchange.input_tokens = number(value),
                names::USAGE_ADDED => exchange.usage_added = true,
                names::OPEN => seen.is_open = true,
                _ if is("content-length") => {
                    exchange.content_length = number(value).unwrap_or(0);
                }
                _ if is("accept-encoding") => {
                    seen.is_encoding_asked |= !value.trim_ascii().eq_ignore_ascii_case(b"identity");
                }
                _ => {}
            }
        }
        (exchange, seen)
    }

    /// The answer's headers pass. `other_status` is asked for where they have none, as
    /// on Kong.
    pub fn answer(
        &mut self,
        headers: &Pairs<'_>,
        other_status: impl FnOnce() -> u32,
        end_of_stream: bool,
    ) -> AnswerChanges<'_> {
        let find = |wanted: &str| {
            let mut all = headers.iter();
            all.find(|(name, _)| name.eq_ignore_ascii_case(wanted))
        };
        let value = |wanted| find(wanted).map(|(_, value)| *value).unwrap_or_default();
        self.status = status(headers).unwrap_or_else(other_status);
        self.ended = end_of_stream;
        let (content_type, encoding) = (value("content-type"), value("content-encoding"));
        // Of an answer without a body nothing is missing.
        let form = match end_of_stream {
            true => Form::Other,
            false => Form::of(content_type),
        };
        let is_plain = encoding.is_empty() || encoding.eq_ignore_ascii_case(b"identity");
        let hides = self.usage_added && form == Form::Events && is_plain;
        self.answer = Some(Answer {
            form,
            decoder: Decoder::new(encoding),
            watch: Watch::new(content_type),
            hide: hides.then(Hide::new),
            passed_bytes: 0,
        });
        let is_told = find(names::REQUEST_ID).is_some() || self.request_id.is_empty();
        AnswerChanges {
            request_id: (!is_told).then_some(&self.request_id),
            content_length: hides && find("content-length").is_some(),
        }
    }

    /// Bytes of the answer pass; gives those to pass on, which are others only where
    /// something is hidden. `now_ms` is asked for at the first of them.
    #[must_use]
    pub fn body<'a>(
        &mut self,
        bytes: &'a [u8],
        end_of_stream: bool,
        now_ms: impl FnOnce() -> u64,
    ) -> Cow<'a, [u8]> {
        if !bytes.is_empty() && self.first_byte_ms.is_none() {
            self.first_byte_ms = Some(now_ms());
        }
        self.ended |= end_of_stream;
        let Some(answer) = &mut self.answer else {
            return Cow::Borrowed(bytes);
        };
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        answer.passed_bytes = answer.passed_bytes.saturating_add(length);
        let watch = &mut answer.watch;
        answer.decoder.feed(bytes, |decoded| watch.feed(decoded));
        if end_of_stream {
            watch.finish();
        }
        match &mut answer.hide {
            Some(hide) => hide.pass(bytes, end_of_stream),
            None => Cow::Borrowed(bytes),
        }
    }

    /// The answer ends with trailers.
    pub fn end(&mut self) {
        self.ended = true;
        if let Some(answer) = &mut self.answer {
            answer.watch.finish();
        }
    }

    /// The event to send, once the host has nothing more to say. `end` is asked
    /// for where the answer did not come to its end, `request_bytes` (of its
    /// body) where the answer reported no usage and nobody knows of the request's.
    #[must_use]
    pub fn finish(
        self,
        end: impl FnOnce() -> End,
        request_bytes: impl FnOnce() -> u64,
        now_ms: u64,
    ) -> UsageEvent {
        let outcome = self.outcome(end);
        UsageEvent {
            kind: Kind::Request.into(),
            // One event a request and witness: sent again, it is the same.
            event_id: format!("{}/gw", self.request_id),
            witness: Witness::Gateway.into(),
            usage: self.usage(outcome, request_bytes),
            outcome: outcome.into(),
            status: self.status,
            started_at_ms: i64::try_from(self.started_ms).unwrap_or(i64::MAX),
            duration_ms: now_ms.saturating_sub(self.started_ms),
            time_to_first_token_ms: self
                .first_byte_ms
                .map(|t| t.saturating_sub(self.started_ms)),
            request_id: self.request_id,
            tenant: self.tenant,
            request_class: self.class,
            tenant_context: self.tenant_context,
            model_asked: self.model_asked,
            producer_run: String::new(),
            sequence: 0,
            storage_mb_hours: 0,
        }
    }

    /// What the request announced of its body, in bytes.
    #[must_use]
    pub fn content_length(&self) -> u64 {
        self.content_length
    }

    fn outcome(&self, end: impl FnOnce() -> End) -> Outcome {
        let answer = self.answer.as_ref();
        let failed = answer.is_some_and(|a| a.watch.has_error());
        let whole = self.ended && answer.is_some_and(Answer::is_whole);
        match self.status {
            400..500 => Outcome::Rejected,
            500.. => Outcome::UpstreamError,
            _ if failed => Outcome::UpstreamError,
            _ if whole => Outcome::Completed,
            _ if end() == End::ClientGone => Outcome::ClientDisconnected,
            _ => Outcome::UpstreamError,
        }
    }

    fn usage(&self, outcome: Outcome, request_bytes: impl FnOnce() -> u64) -> Vec<ModelUsage> {
        let Some(answer) = &self.answer else {
            return Vec::new();
        };
        let reported = answer.watch.usage();
        if reported.is_none() && outcome == Outcome::Rejected {
            return Vec::new();
        }
        let base = ModelUsage {
            model_served: answer.watch.model().unwrap_or_default().to_owned(),
            attempt: 1,
            ..ModelUsage::default()
        };
        // A router's stream reports its usage to clients that asked for it
        // alone: for the others an estimate is all that a gateway can say. The
        // router's own witness replaces it.
        let output_bytes = answer.text_bytes();
        let seen = used::Seen {
            reported,
            begun: answer.watch.begun(),
            completed: outcome == Outcome::Completed,
            output_bytes,
        };
        vec![used::used(
            base,
            seen,
            || {
                self.input_tokens
                    .unwrap_or_else(|| used::estimate(request_bytes()))
            },
            || used::estimate(output_bytes),
        )]
    }
}

/// What of a request's headers is not kept.
#[derive(Debug, Default)]
struct Seen {
    is_open: bool,
    is_encoding_asked: bool,
}

impl Answer {
    /// Whether an answer that ended was all of it.
    fn is_whole(&self) -> bool {
        match self.form {
            Form::Json if self.passed_bytes == 0 => true,
            Form::Json if self.decoder.is_readable() => self.watch.is_done(),
            // Not every server says that it is done; usage comes last.
            Form::Events if self.decoder.is_readable() => {
                self.watch.is_done() || self.watch.usage().is_some()
            }
            _ => true,
        }
    }

    /// Bytes of text; where the text can't be seen, of all that could be some.
    fn text_bytes(&self) -> u64 {
        match self.form {
            Form::Other => 0,
            Form::Text => self.passed_bytes,
            Form::Json | Form::Events if self.decoder.is_readable() => self.watch.text_bytes(),
            Form::Json | Form::Events => self.passed_bytes,
        }
    }
}

impl Form {
    fn of(content_type: &[u8]) -> Self {
        let essence = essence(content_type);
        let ends = |end: &[u8]| {
            essence
                .last_chunk()
                .is_some_and(|last: &[u8; 4]| last.eq_ignore_ascii_case(end))
        };
        if essence.eq_ignore_ascii_case(EVENT_STREAM) {
            Self::Events
        } else if ends(b"json") {
            Self::Json
        } else if essence
            .get(..5)
            .is_some_and(|begin| begin.eq_ignore_ascii_case(b"text/"))
        {
            Self::Text
        } else {
            Self::Other
        }
    }
}

fn status(headers: &Pairs<'_>) -> Option<u32> {
    let (_, value) = headers.iter().find(|(name, _)| *name == ":status")?;
    u32::try_from(number(value)?).ok()
}

fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
