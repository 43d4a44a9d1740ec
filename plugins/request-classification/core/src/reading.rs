//! A body as it comes: read until it is known what it asks for.

use std::sync::Arc;

use weir_dialects::{
    json::{Found, Kind, Scan, Text},
    routes::{Endpoint, RequestClass},
    used::estimate,
};
use weir_wire::usage::MODEL_MAX_BYTES;

use crate::{
    Classifier, Denial, Edit, Policy, begin::may_be_rag, include_usage, rules::Candidates,
};

/// Positions in [`crate::begin::POINTERS`].
const MODEL: usize = 0;
const STREAM: usize = 1;
const RETRIEVAL: usize = 2;
const OPTIONS: usize = 3;
const INCLUDE_USAGE: usize = 4;

/// The longest value that is looked at, in bytes.
const VALUE_MAX_BYTES: usize = 4_096;

/// Members whose strings are no text: pictures, sound and files, and the model.
const NO_TEXT: [&str; 9] = [
    "url",
    "data",
    "file_data",
    "file_id",
    "image_url",
    "file_url",
    "b64_json",
    "encrypted_content",
    "model",
];

/// What the host is told of a request that passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Its class.
    pub class: RequestClass,
    /// The model that it asks for, by the client's name for it: up to 256 bytes of
    /// visible ASCII.
    pub model: Option<String>,
    /// Whether its answer is to be an event stream.
    pub stream: bool,
    /// About how many tokens of input it has.
    pub input_tokens: Option<u64>,
    /// The change that makes its stream report usage.
    pub edit: Option<Edit>,
}

/// What came of some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It is not known yet.
    More,
    /// The request passes; the rest of the body is not looked at.
    Pass(Told),
    /// The request gets this answer.
    Refuse(Box<Denial>),
}

/// What the headers said.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The path's class.
    pub(crate) class: Option<RequestClass>,
    pub(crate) endpoint: Option<Endpoint>,
    /// The class, or the answer, where no rule says another.
    pub(crate) default: Result<RequestClass, Box<Denial>>,
    pub(crate) candidates: Candidates,
    /// The model that an Azure path names.
    pub(crate) deployment: Option<String>,
    pub(crate) content_length: Option<u64>,
}

/// A body that is being read.
#[derive(Debug)]
pub struct Reading {
    scan: Scan,
    parts: Parts,
}

impl Reading {
    pub(crate) fn new(classifier: &Classifier, parts: Parts) -> Self {
        let places = Arc::clone(&classifier.places);
        Self {
            scan: Scan::new(places, Text::AllBut(&NO_TEXT), VALUE_MAX_BYTES),
            parts,
        }
    }

    /// The length that the headers announced, in bytes.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.parts.content_length
    }

    /// How many bytes of the body came so far.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.scan.offset()
    }

    /// Takes the next bytes of the body.
    pub fn feed(&mut self, classifier: &Classifier, bytes: &[u8]) -> Step {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let max_bytes = classifier.config.max_body_bytes;
        if self.scan.offset().saturating_add(length) > max_bytes {
            return Step::Refuse(Denial::too_large(max_bytes));
        }
        if let Err(broken) = self.scan.feed(bytes) {
            return Step::Refuse(Denial::invalid_json(broken));
        }
        // Without a length nobody knows how much text is still to come.
        if self.parts.content_length.is_none() || !self.knows(classifier) {
            return match self.check(classifier) {
                Ok(()) => Step::More,
                Err(denial) => Step::Refuse(denial),
            };
        }
        self.decided(classifier)
    }

    /// The body is whole.
    ///
    /// # Errors
    /// The answer that refuses the request.
    pub fn finish(&mut self, classifier: &Classifier) -> Result<Told, Box<Denial>> {
        self.scan.finish().map_err(Denial::invalid_json)?;
        self.decide(classifier)
    }

    /// The host has a body and can't show it.
    ///
    /// # Errors
    /// The answer that refuses the request, by the operator's policy.
    pub fn unreadable(&self, classifier: &Classifier) -> Result<Told, Box<Denial>> {
        match classifier.config.unreadable() {
            Policy::Refuse => Err(Denial::unreadable()),
            Policy::Pass => Ok(Told {
                class: RequestClass::Unclassified,
                model: self.parts.deployment.as_deref().and_then(shown),
                stream: false,
                input_tokens: None,
                edit: None,
            }),
        }
    }

    fn decided(&self, classifier: &Classifier) -> Step {
        match self.decide(classifier) {
            Ok(told) => Step::Pass(told),
            Err(denial) => Step::Refuse(denial),
        }
    }

    /// Whether all has been found that is looked for.
    fn knows(&self, classifier: &Classifier) -> bool {
        let parts = &self.parts;
        let streams = parts.endpoint.is_some_and(Endpoint::streams);
        let known = |place: usize| {
            let found = self.scan.found(place);
            found.is_some_and(|found| found.end.is_some())
        };
        known(MODEL)
            && (!streams || known(STREAM))
            && (!may_be_rag(parts.endpoint) || known(RETRIEVAL))
            && (!self.may_add_usage(classifier) || known(OPTIONS))
            && classifier.rules.places(parts.candidates).all(known)
    }

    /// What is wrong as far as the body came.
    fn check(&self, classifier: &Classifier) -> Result<(), Box<Denial>> {
        if let Some(place) = self.scan.twice() {
            let pointer = classifier.pointers.get(place);
            return Err(Denial::twice(pointer.map_or("", String::as_str)));
        }
        if self.parts.class.is_none() {
            // What a path of the operator's takes is the upstream's matter.
            return Ok(());
        }
        if self.scan.root().is_some_and(|(k, _)| k != Kind::Object) {
            return Err(Denial::no_object());
        }
        let kind = |place| self.scan.found(place).map(|found| found.kind);
        match kind(MODEL) {
            None | Some(Kind::String) => {}
            Some(_) => return Err(Denial::wrong_type("model", "a string")),
        }
        match kind(STREAM) {
            None | Some(Kind::Bool | Kind::Null) => Ok(()),
            Some(_) => Err(Denial::wrong_type("stream", "true or false")),
        }
    }

    /// Decides by what has come, which may be nothing.
    ///
    /// # Errors
    /// The answer that refuses the request.
    pub(crate) fn decide(&self, classifier: &Classifier) -> Result<Told, Box<Denial>> {
        self.check(classifier)?;
        let parts = &self.parts;
        let asked = parts.deployment.clone().or_else(|| self.model());
        let by_rule = classifier
            .rules
            .by_body(parts.candidates, &self.scan, asked.as_deref());
        let class = match (by_rule, &parts.default) {
            (Some(class), _) => class,
            (None, Err(denial)) => return Err(denial.clone()),
            (None, Ok(_)) if self.is_rag() => RequestClass::Rag,
            (None, Ok(class)) => *class,
        };
        // A rule's class and the path's are among those that pass.
        if class == RequestClass::Rag && !classifier.lets_through(class) {
            return Err(Denial::not_served("retrieval"));
        }
        let stream = self.bool(STREAM);
        let adds = stream && self.may_add_usage(classifier);
        Ok(Told {
            class,
            model: asked.as_deref().and_then(shown),
            stream,
            input_tokens: self.input_tokens(),
            edit: adds.then(|| self.edit()).flatten(),
        })
    }

    fn model(&self) -> Option<String> {
        let raw = self.scan.found(MODEL)?.raw?;
        serde_json::from_slice(raw).ok()
    }

    fn bool(&self, place: usize) -> bool {
        let raw = self.scan.found(place).and_then(|found| found.raw);
        raw == Some(b"true")
    }

    fn is_rag(&self) -> bool {
        let retrieval = self.scan.found(RETRIEVAL);
        may_be_rag(self.parts.endpoint) && retrieval.is_some_and(|r| r.kind == Kind::Object)
    }

    /// None where nothing of the body was read.
    fn input_tokens(&self) -> Option<u64> {
        self.scan.root()?;
        let total = self.parts.content_length.unwrap_or(0);
        let unread = total.saturating_sub(self.scan.offset());
        let text = self.scan.text_bytes().saturating_add(unread);
        Some(estimate(text))
    }

    /// The other calls report their usage anyway.
    fn may_add_usage(&self, classifier: &Classifier) -> bool {
        let endpoint = self.parts.endpoint;
        let lacks = matches!(
            endpoint,
            Some(Endpoint::ChatCompletions | Endpoint::Completions)
        );
        classifier.config.add_include_usage && lacks
    }

    fn edit(&self) -> Option<Edit> {
        let (_, root) = self.scan.root()?;
        let options: Option<Found<'_>> = self.scan.found(OPTIONS);
        include_usage::edit(root, options, self.scan.found(INCLUDE_USAGE))
    }
}

/// What of a model's name may stand in a header.
fn shown(model: &str) -> Option<String> {
    let visible = !model.is_empty() && model.bytes().all(|b| b.is_ascii_graphic());
    visible.then(|| model.chars().take(MODEL_MAX_BYTES).collect())
}
