//! The tenants' paths: which class of work each one asks for.
//!
//! One table, because the gateway classifies and the router classifies again
//! for itself, and the two must agree.

use std::fmt;

use weir_wire::error::Dialect;

/// What kind of work a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestClass {
    /// A turn of a conversation: `chat/completions`, `messages`.
    Chat,
    /// One that is answered from a tenant's documents.
    Rag,
    /// `completions`: a text that goes on.
    Completion,
    /// `responses`.
    Responses,
    /// `embeddings`.
    Embedding,
    /// `images/...`.
    Image,
    /// `audio/...`.
    Audio,
    /// `moderations`.
    Moderation,
    /// `batches`, `messages/batches`.
    Batch,
    /// `messages/count_tokens`. Bills nothing.
    CountTokens,
    /// `models`. Bills nothing.
    Models,
    /// What a gateway let pass that it could not tell.
    Unclassified,
}

impl RequestClass {
    /// Every one.
    pub const ALL: [Self; 12] = [
        Self::Chat,
        Self::Rag,
        Self::Completion,
        Self::Responses,
        Self::Embedding,
        Self::Image,
        Self::Audio,
        Self::Moderation,
        Self::Batch,
        Self::CountTokens,
        Self::Models,
        Self::Unclassified,
    ];

    /// The value of `X-Request-Class` and of a usage event's `request_class`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Rag => "rag",
            Self::Completion => "completion",
            Self::Responses => "responses",
            Self::Embedding => "embedding",
            Self::Image => "image",
            Self::Audio => "audio",
            Self::Moderation => "moderation",
            Self::Batch => "batch",
            Self::CountTokens => "count_tokens",
            Self::Models => "models",
            Self::Unclassified => "unclassified",
        }
    }

    /// Whether requests of this class are billed. No provider charges for
    /// those that are not.
    #[must_use]
    pub fn is_billed(self) -> bool {
        !matches!(self, Self::CountTokens | Self::Models)
    }

    /// The class of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == name)
    }
}

impl fmt::Display for RequestClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One call of the APIs that clients and providers speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// OpenAI's `POST /v1/chat/completions`.
    ChatCompletions,
    /// OpenAI's `POST /v1/completions`.
    Completions,
    /// OpenAI's `POST /v1/responses`.
    Responses,
    /// OpenAI's `POST /v1/embeddings`.
    Embeddings,
    /// Anthropic's `POST /v1/messages`.
    Messages,
    /// Anthropic's `POST /v1/messages/count_tokens`.
    CountTokens,
    /// `GET /v1/models` and `GET /v1/models/{id}`, which both dialects have.
    Models,
}

impl Endpoint {
    /// Every one.
    pub const ALL: [Self; 7] = [
        Self::ChatCompletions,
        Self::Completions,
        Self::Responses,
        Self::Embeddings,
        Self::Messages,
        Self::CountTokens,
        Self::Models,
    ];

    /// The path after `/v1/`.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat/completions",
            Self::Completions => "completions",
            Self::Responses => "responses",
            Self::Embeddings => "embeddings",
            Self::Messages => "messages",
            Self::CountTokens => "messages/count_tokens",
            Self::Models => "models",
        }
    }

    /// The one method that it takes.
    #[must_use]
    pub fn method(self) -> &'static str {
        match self {
            Self::Models => "GET",
            _ => "POST",
        }
    }

    /// What kind of work it asks for.
    #[must_use]
    pub fn class(self) -> RequestClass {
        match self {
            Self::ChatCompletions | Self::Messages => RequestClass::Chat,
            Self::Completions => RequestClass::Completion,
            Self::Responses => RequestClass::Responses,
            Self::Embeddings => RequestClass::Embedding,
            Self::CountTokens => RequestClass::CountTokens,
            Self::Models => RequestClass::Models,
        }
    }

    /// Whose API it is of; OpenAI's for the one that both have.
    #[must_use]
    pub fn dialect(self) -> Dialect {
        match self {
            Self::Messages | Self::CountTokens => Dialect::Anthropic,
            _ => Dialect::OpenAi,
        }
    }

    /// Whether its answer may be an event stream.
    #[must_use]
    pub fn streams(self) -> bool {
        matches!(
            self,
            Self::ChatCompletions | Self::Completions | Self::Responses | Self::Messages
        )
    }
}

/// What a path and a method come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// A call of ours.
    Endpoint(Endpoint),
    /// The path is one of ours, and takes this method only.
    MethodNotAllowed {
        /// For the `allow` header.
        allow: &'static str,
    },
    /// No path of ours.
    NotFound,
}

/// The call in a path, without `/v1/` and its query, and the deployment that it
/// names: `/v1/chat/completions`, or as Azure's clients have it (Azure OpenAI REST
/// API reference), `/openai/v1/chat/completions` and
/// `/openai/deployments/gpt-4o/chat/completions`.
#[must_use]
pub fn call(path: &str) -> Option<(&str, Option<&str>)> {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let Some(azure) = path.strip_prefix("/openai/") else {
        return Some((path.strip_prefix("/v1/")?, None));
    };
    let (rest, deployment) = azure_call(azure)?;
    // Azure has OpenAI's calls alone.
    let is_anthropics = rest.split('/').next() == Some("messages");
    (!is_anthropics).then_some((rest, deployment))
}

/// The same of a path after `/openai/`.
fn azure_call(path: &str) -> Option<(&str, Option<&str>)> {
    if let Some(deployed) = path.strip_prefix("deployments/") {
        let (deployment, rest) = deployed.split_once('/')?;
        return (!deployment.is_empty()).then_some((rest, Some(deployment)));
    }
    // These two it has without a deployment, too.
    if path == "responses" || path == "models" || path.starts_with("models/") {
        return Some((path, None));
    }
    Some((path.strip_prefix("v1/")?, None))
}

/// Looks up a path, with or without its query.
#[must_use]
pub fn route(method: &str, path: &str) -> Route {
    let endpoint = call(path).and_then(|(rest, deployment)| {
        let known = Endpoint::ALL.into_iter().find(|e| e.path() == rest);
        let one_model = || {
            let id = rest.strip_prefix("models/")?;
            (!id.is_empty() && !id.contains('/')).then_some(Endpoint::Models)
        };
        let endpoint = known.or_else(one_model)?;
        // A deployment is no list of models.
        let listed = deployment.is_some() && endpoint == Endpoint::Models;
        (!listed).then_some(endpoint)
    });
    match endpoint {
        Some(endpoint) if endpoint.method() == method => Route::Endpoint(endpoint),
        Some(endpoint) => Route::MethodNotAllowed {
            allow: endpoint.method(),
        },
        None => Route::NotFound,
    }
}

/// What a gateway makes of a path and a method, where not all goes to Weir's router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathClass {
    /// What it asks for, and the call where the router serves it.
    Class(RequestClass, Option<Endpoint>),
    /// The path is known, and takes these methods only.
    MethodNotAllowed {
        /// For the `allow` header.
        allow: &'static str,
    },
    /// No path that is known.
    Unknown,
}

/// What both APIs have and Weir's router does not serve, after `/v1/`: a path, in
/// which `*` is one identifier, its methods and its class (OpenAI's API reference;
/// Anthropic's, "Message Batches").
const OTHERS: [(&str, &str, RequestClass); 14] = [
    ("images/generations", "POST", RequestClass::Image),
    ("images/edits", "POST", RequestClass::Image),
    ("images/variations", "POST", RequestClass::Image),
    ("audio/speech", "POST", RequestClass::Audio),
    ("audio/transcriptions", "POST", RequestClass::Audio),
    ("audio/translations", "POST", RequestClass::Audio),
    ("moderations", "POST", RequestClass::Moderation),
    ("batches", "GET, POST", RequestClass::Batch),
    ("batches/*", "GET", RequestClass::Batch),
    ("batches/*/cancel", "POST", RequestClass::Batch),
    ("messages/batches", "GET, POST", RequestClass::Batch),
    ("messages/batches/*", "DELETE, GET", RequestClass::Batch),
    ("messages/batches/*/results", "GET", RequestClass::Batch),
    ("messages/batches/*/cancel", "POST", RequestClass::Batch),
];

/// Looks up a path, with or without its query, among all calls that are known.
#[must_use]
pub fn classify_path(method: &str, path: &str) -> PathClass {
    match route(method, path) {
        Route::Endpoint(endpoint) => return PathClass::Class(endpoint.class(), Some(endpoint)),
        Route::MethodNotAllowed { allow } => return PathClass::MethodNotAllowed { allow },
        Route::NotFound => {}
    }
    let known = call(path).and_then(|(rest, deployment)| {
        let mut others = OTHERS.iter();
        let other = others.find(|(pattern, _, _)| has_form(rest, pattern))?;
        // What is batched names its deployments inside.
        let deployed = deployment.is_some() && other.2 == RequestClass::Batch;
        (!deployed).then_some(other)
    });
    match known {
        Some((_, methods, class)) if methods.split(", ").any(|m| m == method) => {
            PathClass::Class(*class, None)
        }
        Some((_, allow, _)) => PathClass::MethodNotAllowed { allow },
        None => PathClass::Unknown,
    }
}

/// Whether a path has the parts of a pattern, `*` being any one of them.
fn has_form(path: &str, pattern: &str) -> bool {
    let mut parts = path.split('/');
    let fits = pattern.split('/').all(|wanted| {
        let part = parts.next().unwrap_or_default();
        part == wanted || (wanted == "*" && !part.is_empty())
    });
    fits && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[track_caller]
    fn check(method: &str, path: &str, expected: Route) {
        assert_eq!(route(method, path), expected, "{method} {path}");
    }

    #[test]
    fn tells_the_endpoints_apart() {
        for endpoint in Endpoint::ALL {
            let path = format!("/v1/{}", endpoint.path());
            check(endpoint.method(), &path, Route::Endpoint(endpoint));
            let query = format!("{path}?api-version=1");
            check(endpoint.method(), &query, Route::Endpoint(endpoint));
            // The filters know the dialect by the path alone.
            assert_eq!(Dialect::of_path(&path), endpoint.dialect(), "{path}");
            let class = endpoint.class();
            assert_eq!(RequestClass::parse(class.as_str()), Some(class));
        }
        let chat = Route::Endpoint(Endpoint::ChatCompletions);
        check("POST", "/openai/v1/chat/completions", chat);
        let path = "/openai/deployments/gpt-4o/chat/completions";
        check("POST", &format!("{path}?api-version=2024-10-21"), chat);
        let responses = Route::Endpoint(Endpoint::Responses);
        check("POST", "/openai/responses?api-version=preview", responses);
        check("GET", "/openai/models", Route::Endpoint(Endpoint::Models));
        assert_eq!(call(path), Some(("chat/completions", Some("gpt-4o"))));
        let one = Route::Endpoint(Endpoint::Models);
        check("GET", "/v1/models/gpt-4o", one);
        assert_eq!(RequestClass::parse("chats"), None);
    }

    #[test]
    fn a_wrong_method_is_told_the_right_one() {
        let post = Route::MethodNotAllowed { allow: "POST" };
        for method in ["GET", "PUT", "DELETE", "OPTIONS", "post", ""] {
            check(method, "/v1/chat/completions", post);
        }
        check(
            "POST",
            "/v1/models",
            Route::MethodNotAllowed { allow: "GET" },
        );
    }

    #[test]
    fn any_other_path_is_none_of_ours() {
        for path in [
            "",
            "/",
            "/v1",
            "/v1/chat",
            "/v1/chat/completions/",
            "/v1/models/",
            "/v1/models/a/b",
            "/v1/messages/batches",
            "/v1/responses/resp_1",
            "/V1/embeddings",
            "//v1/embeddings",
            "/openai/chat/completions",
            "/openai/deployments//chat/completions",
            "/openai/deployments/gpt-4o",
            "/openai/deployments/gpt-4o/models",
            "/openai/v1/messages",
            "/openai/deployments/gpt-4o/messages/count_tokens",
            "/v1/../v1/embeddings",
            "/weir.usage.v1.UsageIngest/Publish",
        ] {
            check("POST", path, Route::NotFound);
        }
    }

    #[track_caller]
    fn check_class(method: &str, path: &str, expected: PathClass) {
        assert_eq!(classify_path(method, path), expected, "{method} {path}");
    }

    #[test]
    fn a_gateway_knows_more_than_the_router_serves() {
        for endpoint in Endpoint::ALL {
            let class = PathClass::Class(endpoint.class(), Some(endpoint));
            let path = format!("/v1/{}?a=b", endpoint.path());
            check_class(endpoint.method(), &path, class);
        }
        for (pattern, methods, class) in OTHERS {
            let path = format!("/v1/{}", pattern.replace('*', "id_1"));
            for method in ["GET", "POST", "DELETE", "PUT", "get"] {
                let expected = if methods.split(", ").any(|m| m == method) {
                    PathClass::Class(class, None)
                } else {
                    PathClass::MethodNotAllowed { allow: methods }
                };
                check_class(method, &path, expected);
            }
            check_class("POST", &format!("{path}/a/b/c"), PathClass::Unknown);
        }
        for (path, class) in [
            ("/openai/v1/batches", RequestClass::Batch),
            (
                "/openai/v1/moderations?api-version=1",
                RequestClass::Moderation,
            ),
            (
                "/openai/deployments/d/images/generations",
                RequestClass::Image,
            ),
            ("/openai/deployments/d/audio/speech", RequestClass::Audio),
        ] {
            check_class("POST", path, PathClass::Class(class, None));
        }
        for path in [
            "/v1/batches/",
            "/v1/batches//cancel",
            "/v1/images",
            "/v1/files",
            "/openai/v1/messages/batches",
            "/openai/deployments/d/batches",
            "/audio/speech",
        ] {
            check_class("POST", path, PathClass::Unknown);
        }
    }
}
