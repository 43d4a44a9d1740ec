//! One request: its headers wait until its body says enough.

use std::rc::Rc;

use proxy_wasm::{
    traits::{Context, HttpContext},
    types::Action,
};
use weir_dialects::routes::RequestClass;
use weir_plugin_host::{
    body, headers,
    reply::{self, Caller},
};
use weir_request_classification_core::{Classifier, Denial, Next, Reading, Step, Told};
use weir_wire::{headers as names, host::HostKind};

use crate::{RequestClassification, tell};

/// The context of one request.
pub(crate) struct Request {
    filter: Rc<RequestClassification>,
    state: State,
}

enum State {
    /// Nothing is left to do.
    Done,
    /// The headers wait for the body.
    Reading(Box<Waiting>),
    /// The body goes by; so many bytes of it went.
    Passing(Box<Caller>, u64),
}

struct Waiting {
    reading: Reading,
    /// Once the headers are gone they can't be read any more.
    caller: Caller,
    class: RequestClass,
}

impl Request {
    pub(crate) fn new(filter: Rc<RequestClassification>) -> Self {
        Self {
            filter,
            state: State::Done,
        }
    }

    fn classifier(&self) -> &Classifier {
        &self.filter.0
    }

    fn host(&self) -> HostKind {
        self.classifier().config().host
    }

    /// More of a body for which the headers wait; `size` bytes of it are at hand.
    fn read(&mut self, mut waiting: Box<Waiting>, size: usize, end_of_stream: bool) -> Action {
        let classifier = self.classifier();
        // While it waits, what came before is still there.
        let seen = usize::try_from(waiting.reading.offset()).unwrap_or(usize::MAX);
        let unseen = size.saturating_sub(seen);
        let bytes = body::request(seen, unseen);
        if unseen > 0 && bytes.is_empty() {
            // On Kong, nginx has put it into a file.
            let decided = waiting.reading.unreadable(classifier);
            return self.decide(*waiting, decided);
        }
        // On Kong the body comes at once.
        let is_whole = end_of_stream || self.host() == HostKind::Kong;
        let decided = match waiting.reading.feed(classifier, &bytes) {
            Step::Refuse(denial) => Err(denial),
            Step::Pass(told) => Ok(told),
            Step::More if is_whole => waiting.reading.finish(classifier),
            Step::More => {
                self.state = State::Reading(waiting);
                return Action::Pause;
            }
        };
        self.decide(*waiting, decided)
    }

    fn decide(&mut self, waiting: Waiting, decided: Result<Told, Box<Denial>>) -> Action {
        match decided {
            Ok(told) => {
                let length = waiting.reading.content_length();
                tell::tell(self.classifier().config(), &told, waiting.class, length);
                let seen = waiting.reading.offset();
                self.state = State::Passing(Box::new(waiting.caller), seen);
                Action::Continue
            }
            Err(denial) => refuse(&waiting.caller, &denial),
        }
    }
}

impl Context for Request {}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        let all = headers::Request::read();
        let pairs = all.pairs();
        let classifier = self.classifier();
        let Some(begun) = classifier.begin(&pairs, end_of_stream) else {
            return Action::Continue;
        };
        let config = classifier.config();
        // Also on what is refused: usage-events knows by it that the request passed
        // the limit.
        headers::give_request(config.host, names::REQUEST_CLASS, begun.class.as_str());
        let caller = Caller::of(&pairs);
        match begun.next {
            Next::Refuse(denial) => refuse(&caller, &denial),
            Next::Pass(told) => {
                tell::tell(config, &told, begun.class, None);
                if !end_of_stream {
                    self.state = State::Passing(Box::new(caller), 0);
                }
                Action::Continue
            }
            Next::Read(reading) => {
                let host = config.host;
                self.state = State::Reading(Box::new(Waiting {
                    reading: *reading,
                    caller,
                    class: begun.class,
                }));
                match host {
                    HostKind::Envoy => Action::Pause,
                    // A pause would be for ever, and headers can be set later there.
                    HostKind::Kong => Action::Continue,
                }
            }
        }
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Done => Action::Continue,
            State::Reading(waiting) => self.read(waiting, size, end_of_stream),
            State::Passing(caller, seen) => {
                let seen = seen.saturating_add(u64::try_from(size).unwrap_or(u64::MAX));
                let max_bytes = self.classifier().config().max_body_bytes;
                if seen > max_bytes {
                    return refuse(&caller, &Denial::too_large(max_bytes));
                }
                self.state = State::Passing(caller, seen);
                Action::Continue
            }
        }
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Reading(mut waiting) => {
                let decided = waiting.reading.finish(self.classifier());
                self.decide(*waiting, decided)
            }
            _ => Action::Continue,
        }
    }
}

fn refuse(caller: &reply::Caller, denial: &Denial) -> Action {
    let allow: Vec<(&str, &str)> = denial.allow.map(|a| ("allow", a)).into_iter().collect();
    caller.refuse(denial.status, &denial.error, &allow)
}
