//! The tenants' paths: which class of work each one asks for.
//!
//! One table, because the gateway classifies and the router classifies again
//! for itself, and the two must agree.

use std::fmt;

/// What kind of work a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestClass {
    /// `POST /v1/chat/completions`.
    Chat,
    /// `POST /v1/embeddings`.
    Embedding,
    /// `GET /v1/models` and `GET /v1/models/{id}`. Bills nothing.
    Models,
}

impl RequestClass {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Chat, Self::Embedding, Self::Models];

    /// The value of `X-Request-Class` and of a usage event's `request_class`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Embedding => "embedding",
            Self::Models => "models",
        }
    }
}

impl fmt::Display for RequestClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a path and a method come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Work of that class.
    Class(RequestClass),
    /// The path is one of ours, and takes this method only.
    MethodNotAllowed {
        /// For the `allow` header.
        allow: &'static str,
    },
    /// No path of ours.
    NotFound,
}

/// Looks up a path, with or without its query.
#[must_use]
pub fn route(method: &str, path: &str) -> Route {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let (allow, class) = match path {
        "/v1/chat/completions" => ("POST", RequestClass::Chat),
        "/v1/embeddings" => ("POST", RequestClass::Embedding),
        "/v1/models" => ("GET", RequestClass::Models),
        _ => match path.strip_prefix("/v1/models/") {
            Some(id) if !id.is_empty() && !id.contains('/') => ("GET", RequestClass::Models),
            _ => return Route::NotFound,
        },
    };
    if method == allow {
        Route::Class(class)
    } else {
        Route::MethodNotAllowed { allow }
    }
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
    fn tells_the_classes_apart() {
        let chat = Route::Class(RequestClass::Chat);
        check("POST", "/v1/chat/completions", chat);
        check("POST", "/v1/chat/completions?api-version=1", chat);
        let embedding = Route::Class(RequestClass::Embedding);
        check("POST", "/v1/embeddings", embedding);
        let models = Route::Class(RequestClass::Models);
        check("GET", "/v1/models", models);
        check("GET", "/v1/models/gpt-4o", models);
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
            "/V1/embeddings",
            "//v1/embeddings",
            "/v1/../v1/embeddings",
            "/weir.usage.v1.UsageIngest/Publish",
        ] {
            check("POST", path, Route::NotFound);
        }
    }
}
