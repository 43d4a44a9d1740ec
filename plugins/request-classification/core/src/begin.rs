//! What the headers say of a request, and whether its body is to be read.

use std::sync::Arc;

use weir_dialects::{
    json::Places,
    media::essence,
    routes::{Endpoint, PathClass, RequestClass, call, classify_path},
};
use weir_wire::{headers as names, host::HostKind};

use crate::{
    Config, Denial, Policy,
    reading::{Parts, Reading, Told},
    rules::{Asked, Candidates, Rules},
};

/// Where the places stand that are looked for in each body.
pub(crate) const POINTERS: [&str; 5] = [
    "/model",
    "/stream",
    "/retrieval",
    "/stream_options",
    "/stream_options/include_usage",
];

/// A configuration, ready to decide.
#[derive(Debug)]
pub struct Classifier {
    pub(crate) config: Config,
    pub(crate) rules: Rules,
    pub(crate) places: Arc<Places>,
    pub(crate) pointers: Vec<String>,
    classes: Vec<RequestClass>,
}

/// What the headers say.
#[derive(Debug)]
pub struct Begun {
    /// The class so far; of what is refused the path's.
    pub class: RequestClass,
    /// How it goes on.
    pub next: Next,
}

/// How a request goes on.
#[derive(Debug)]
pub enum Next {
    /// It gets this answer.
    Refuse(Box<Denial>),
    /// It passes, and this is told of it.
    Pass(Told),
    /// Its body decides.
    Read(Box<Reading>),
}

/// The headers that are of interest.
#[derive(Debug, Default)]
struct Head<'a> {
    method: &'a str,
    path: &'a str,
    length: Option<&'a [u8]>,
    content_type: &'a [u8],
    encoding: &'a [u8],
    is_chunked: bool,
}

impl<'a> Head<'a> {
    fn of(headers: &[(&'a str, &'a [u8])]) -> Option<Self> {
        let mut head = Self::default();
        for (name, value) in headers.iter().copied() {
            let text = || std::str::from_utf8(value).unwrap_or_default();
            match name {
                ":method" => head.method = text(),
                ":path" => head.path = text(),
                "content-length" => head.length = Some(value),
                "content-type" => head.content_type = value,
                "content-encoding" => head.encoding = value.trim_ascii(),
                "transfer-encoding" => head.is_chunked = true,
                names::OPEN => return None,
                _ => {}
            }
        }
        Some(head)
    }

    fn has_body(&self, host: HostKind, end_of_stream: bool) -> bool {
        match host {
            HostKind::Envoy => !end_of_stream,
            // What nginx says of the end comes with the body.
            HostKind::Kong => self.is_chunked || self.length.is_some_and(|l| l != b"0"),
        }
    }

    fn is_json(&self) -> bool {
        let essence = essence(self.content_type);
        essence.eq_ignore_ascii_case(b"application/json")
            || essence.to_ascii_lowercase().ends_with(b"+json")
    }

    fn is_encoded(&self) -> bool {
        !(self.encoding.is_empty() || self.encoding.eq_ignore_ascii_case(b"identity"))
    }
}

impl Classifier {
    /// Checks a configuration and makes it ready.
    ///
    /// # Errors
    /// A message that names the field, what was found and what is allowed.
    pub fn new(config: Config) -> Result<Self, String> {
        config.validate()?;
        let mut pointers = POINTERS.map(str::to_owned).to_vec();
        let rules = Rules::new(&config.rules, |pointer| {
            let known = pointers.iter().position(|p| p == pointer);
            known.unwrap_or_else(|| {
                pointers.push(pointer.to_owned());
                pointers.len().saturating_sub(1)
            })
        });
        let places = Places::new(&pointers).map_err(|e| format!("rules: pointer: {e}"))?;
        Ok(Self {
            classes: config
                .classes
                .iter()
                .filter_map(|name| RequestClass::parse(name))
                .collect(),
            rules,
            places: Arc::new(places),
            pointers,
            config,
        })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn lets_through(&self, class: RequestClass) -> bool {
        self.classes.contains(&class)
    }

    /// Decides by a request's headers, pseudo-headers among them; `end_of_stream`
    /// says that nothing comes after them. None where the request is nobody's.
    #[must_use]
    pub fn begin(&self, headers: &[(&str, &[u8])], end_of_stream: bool) -> Option<Begun> {
        let head = Head::of(headers)?;
        let by_path = classify_path(head.method, head.path);
        let default = self.by_path(&head, by_path);
        let asked = Asked {
            method: head.method,
            path: head.path.split(['?', '#']).next().unwrap_or_default(),
            headers,
        };
        let candidates = self.rules.candidates(asked, default.is_ok());
        let next = self.next(&head, by_path, default.clone(), candidates, end_of_stream);
        let class = match (&next, self.rules.by_headers(candidates), default) {
            (Next::Refuse(_), ..) => match by_path {
                PathClass::Class(class, _) => class,
                _ => RequestClass::Unclassified,
            },
            (Next::Pass(told), ..) => told.class,
            (Next::Read(_), Some(class), _) | (Next::Read(_), None, Ok(class)) => class,
            (Next::Read(_), None, Err(_)) => RequestClass::Unclassified,
        };
        Some(Begun { class, next })
    }

    /// What the path says, or what is said of the path.
    fn by_path(&self, head: &Head<'_>, path: PathClass) -> Result<RequestClass, Box<Denial>> {
        match path {
            PathClass::Class(class, _) if self.lets_through(class) => Ok(class),
            PathClass::MethodNotAllowed { allow } => {
                Err(Denial::method_not_allowed(head.method, head.path, allow))
            }
            PathClass::Unknown if self.config.unknown == Policy::Pass => {
                Ok(RequestClass::Unclassified)
            }
            PathClass::Class(..) | PathClass::Unknown => {
                Err(Denial::unknown_url(head.method, head.path))
            }
        }
    }

    fn next(
        &self,
        head: &Head<'_>,
        path: PathClass,
        default: Result<RequestClass, Box<Denial>>,
        candidates: Candidates,
        end_of_stream: bool,
    ) -> Next {
        if let (Err(denial), true) = (&default, candidates.is_empty()) {
            return Next::Refuse(denial.clone());
        }
        let content_length = match self.content_length(head) {
            Ok(length) => length,
            Err(denial) => return Next::Refuse(denial),
        };
        let (class, endpoint) = match path {
            PathClass::Class(class, endpoint) => (Some(class), endpoint),
            _ => (None, None),
        };
        let has_body = head.has_body(self.config.host, end_of_stream);
        // What a call of the router's is made of is JSON, whatever it is called.
        let takes_json = endpoint.is_some_and(|e| e.method() == "POST");
        let reads = self.config.read_body && (takes_json || (has_body && head.is_json()));
        let deployment = call(head.path).and_then(|(_, deployment)| deployment);
        let mut reading = Reading::new(
            self,
            Parts {
                class,
                endpoint,
                default,
                candidates,
                deployment: deployment.map(str::to_owned),
                content_length,
            },
        );
        let decided = if !reads {
            reading.decide(self)
        } else if head.is_encoded() && has_body {
            reading.unreadable(self)
        } else if has_body {
            return Next::Read(Box::new(reading));
        } else {
            reading.finish(self)
        };
        match decided {
            Ok(told) => Next::Pass(told),
            Err(denial) => Next::Refuse(denial),
        }
    }

    fn content_length(&self, head: &Head<'_>) -> Result<Option<u64>, Box<Denial>> {
        let Some(length) = head.length else {
            return Ok(None);
        };
        match std::str::from_utf8(length).map(str::parse::<u64>) {
            Ok(Ok(length)) if length <= self.config.max_body_bytes => Ok(Some(length)),
            Ok(Ok(_)) => Err(Denial::too_large(self.config.max_body_bytes)),
            _ => Err(Denial::no_length()),
        }
    }
}

/// Whether a `retrieval` object makes a call one for documents.
pub(crate) fn may_be_rag(endpoint: Option<Endpoint>) -> bool {
    matches!(
        endpoint,
        Some(Endpoint::ChatCompletions | Endpoint::Messages | Endpoint::Responses)
    )
}
