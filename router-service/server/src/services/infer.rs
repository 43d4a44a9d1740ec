//! Inference by gRPC: the same way that tenants' requests take, typed.

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::HeaderMap;
use tonic::{Request, Response, Status};
use weir_dialects::routes::{Endpoint, Route, route};
use weir_router_core::{
    explain,
    infer::{self, Events, Told},
    request::{Asked, Uses},
    translate::to_anthropic,
};
use weir_wire::{
    headers,
    proto::router::{
        InferEvent, InferRequest, RouteRequest, RouteResponse, Served, Started, infer_event::Event,
    },
};

use super::status;
use crate::{
    app::{self, App},
    call::{Answer, AnswerBody},
    proto::inference_router_server::InferenceRouter,
};

/// The service as tonic wants it.
pub struct Inference(pub Arc<App>);

type EventStream = Pin<Box<dyn Stream<Item = Result<InferEvent, Status>> + Send>>;

#[tonic::async_trait]
impl InferenceRouter for Inference {
    type InferStream = EventStream;

    async fn infer(&self, request: Request<InferRequest>) -> Result<Response<EventStream>, Status> {
        let request = request.into_inner();
        let app = &self.0;
        let caller = app
            .caller_by(request.tenant_context.as_bytes())
            .map_err(|refusal| status::of_refusal(&refusal))?;
        let request_id = caller.verified.request_id.to_string();
        let asked = app::Request {
            exchange: app.exchange(caller, Endpoint::ChatCompletions),
            endpoint: Endpoint::ChatCompletions,
            headers: HeaderMap::new(),
            body: infer::body(&request).map(Bytes::from),
        };
        let answer = Arc::clone(app)
            .infer(asked)
            .await
            .map_err(|refusal| status::of_refusal(&refusal))?;
        let started = Started {
            request_id,
            served: Some(served(&answer.headers)),
        };
        events(started, answer).map(Response::new)
    }

    async fn route(
        &self,
        request: Request<RouteRequest>,
    ) -> Result<Response<RouteResponse>, Status> {
        let request = request.into_inner();
        let verified = self
            .0
            .verify(request.tenant_context.as_bytes())
            .map_err(|refusal| status::of_refusal(&refusal))?;
        let endpoint = match request.path.as_str() {
            "" => Endpoint::ChatCompletions,
            path => match route("POST", &format!("/v1/{path}")) {
                Route::Endpoint(endpoint) => endpoint,
                _ => {
                    return Err(Status::invalid_argument(
                        "path: must be one that tenants post to, such as chat/completions",
                    ));
                }
            },
        };
        let asked = Asked {
            model: request.model,
            max_tokens: request.max_tokens,
            uses: Uses {
                tools: request.tools,
                images: request.images,
                json: request.json,
                json_object: false,
                rag: false,
            },
            ..Asked::new(endpoint)
        };
        let decided = self.0.offer().decide(&verified.plan, &asked);
        Ok(Response::new(explain::explained(
            &verified.plan,
            &asked,
            decided,
        )))
    }
}

/// What the answer's headers say of how it is served.
fn served(headers: &HeaderMap) -> Served {
    let text = |name: &str| {
        let value = headers.get(name).and_then(|v| v.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    Served {
        model: text(headers::MODEL),
        provider: text(headers::PROVIDER),
        reason: text(headers::MODEL_REASON),
        max_tokens: text(headers::MAX_TOKENS).parse().ok(),
    }
}

fn events(started: Started, answer: Answer) -> Result<EventStream, Status> {
    let chunks = match answer.body {
        AnswerBody::Stream(chunks) => chunks,
        AnswerBody::Whole(body) => {
            // The provider's refusal, or an answer that is not the stream it was
            // asked for.
            let code = answer.status.as_u16();
            return Err(match to_anthropic::error(&body) {
                Some(error) => status::of_error(code, &error),
                None => Status::internal("The model's provider did not stream its answer."),
            });
        }
    };
    let first = InferEvent {
        event: Some(Event::Started(started)),
    };
    let mut read = Events::default();
    let later = chunks.flat_map(move |chunk| {
        let told = match chunk {
            Ok(bytes) => read.feed(&bytes).map_err(|_| "An event is too long."),
            Err(_) => Err("The answer broke off."),
        };
        let events: Vec<Result<InferEvent, Status>> = match told {
            Ok(told) => told.into_iter().map(said).collect(),
            Err(message) => vec![Err(Status::aborted(message))],
        };
        stream::iter(events)
    });
    Ok(Box::pin(stream::once(async { Ok(first) }).chain(later)))
}

fn said(told: Told) -> Result<InferEvent, Status> {
    match told {
        Told::Event(event) => Ok(event),
        Told::Failed(error) => Err(status::of_error(502, &error)),
    }
}
