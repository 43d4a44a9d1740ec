//! The router's gRPC for services: who gets in, inference on behalf of a tenant,
//! what would be decided, providers, tenants.

use tokio::runtime::Runtime;
use tokio_stream::StreamExt as _;
use tonic::{
    Code, Request, Status, client::Grpc, codegen::http::uri::PathAndQuery, metadata::MetadataValue,
    transport::Channel,
};
use tonic_prost::ProstCodec;
use weir_pipeline_tests::Pipeline;
use weir_wire::{
    context, headers,
    ids::RequestId,
    keys::Keyring,
    proto::{
        context::TenantContext,
        directory::{SnapshotPage, SnapshotRequest},
        router::{
            FinishReason, InferEvent, InferRequest, Message, Part, Role, RouteRequest,
            RouteResponse, Tool, infer_event::Event, part, route_response::Decision,
        },
    },
};

/// `weir.admin.v1.CreateTenantRequest`, and what of a tenant is looked at.
#[derive(Clone, PartialEq, prost::Message)]
struct Tenant {
    #[prost(string, tag = "1")]
    tenant: String,
    #[prost(string, tag = "2")]
    plan: String,
}

/// `weir.admin.v1.MakeKeyRequest`, as far as it is asked.
#[derive(Clone, PartialEq, prost::Message)]
struct OfTenant {
    #[prost(string, tag = "1")]
    tenant: String,
}

/// A request for a provider by name, and what of its state is looked at.
#[derive(Clone, PartialEq, prost::Message)]
struct Provider {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    kind: String,
    #[prost(bool, tag = "3")]
    drained: bool,
    #[prost(uint64, tag = "5")]
    calls: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Providers {
    #[prost(message, repeated, tag = "1")]
    providers: Vec<Provider>,
}

struct Services {
    pipeline: Pipeline,
    runtime: Runtime,
    channel: Channel,
}

impl Services {
    fn start() -> Self {
        let pipeline = Pipeline::start();
        let runtime = Runtime::new().unwrap();
        let url = format!("http://{}", pipeline.stack.router.services.clone().unwrap());
        let channel = runtime.block_on(Channel::from_shared(url).unwrap().connect());
        Self {
            pipeline,
            channel: channel.unwrap(),
            runtime,
        }
    }

    /// A context as a gateway signs it.
    fn context(&self, tenant: &str, plan: &str) -> String {
        let keys = Keyring::parse(&self.pipeline.stack.secrets.context_keys).unwrap();
        let now_ms = weir_pipeline_tests::now_s() * 1_000;
        let mut random = [0; 10];
        getrandom::fill(&mut random).unwrap();
        let request_id = RequestId::mint(u64::try_from(now_ms).unwrap(), random);
        let signed = TenantContext {
            tenant: tenant.into(),
            plan: plan.into(),
            request_id: request_id.to_string(),
            issued_at_ms: now_ms,
        };
        context::sign(&signed, &keys)
    }

    fn with_token<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let token = format!("Bearer {}", self.pipeline.stack.secrets.service_token);
        let metadata = request.metadata_mut();
        metadata.insert("authorization", token.parse().unwrap());
        request
    }

    fn call<Q, A>(&self, path: &'static str, request: Request<Q>) -> Result<A, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut client = Grpc::new(self.channel.clone());
        self.runtime.block_on(async {
            client.ready().await.unwrap();
            let path = PathAndQuery::from_static(path);
            let codec = ProstCodec::<Q, A>::default();
            let answer = client.unary(request, path, codec).await?;
            Ok(answer.into_inner())
        })
    }

    fn ask<Q, A>(&self, path: &'static str, message: Q) -> Result<A, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        self.call(path, self.with_token(message))
    }

    fn infer(&self, message: InferRequest) -> Result<Vec<Event>, Status> {
        let mut client = Grpc::new(self.channel.clone());
        self.runtime.block_on(async {
            client.ready().await.unwrap();
            let path = PathAndQuery::from_static("/weir.router.v1.InferenceRouter/Infer");
            let codec = ProstCodec::<InferRequest, InferEvent>::default();
            let request = self.with_token(message);
            let answer = client.server_streaming(request, path, codec).await?;
            let mut stream = answer.into_inner();
            let mut events = Vec::new();
            while let Some(event) = stream.next().await {
                events.push(event?.event.expect("an event"));
            }
            Ok(events)
        })
    }

    fn request(&self, model: &str, text: &str) -> InferRequest {
        let part = Part {
            part: Some(part::Part::Text(text.into())),
        };
        InferRequest {
            tenant_context: self.context("acme", "enterprise"),
            model: model.into(),
            messages: vec![Message {
                role: Role::User.into(),
                parts: vec![part],
            }],
            ..InferRequest::default()
        }
    }
}

const ROUTE: &str = "/weir.router.v1.InferenceRouter/Route";
const LIST_PROVIDERS: &str = "/weir.admin.v1.Providers/ListProviders";

#[test]
fn a_service_infers_for_a_tenant_on_every_provider() {
    let s = Services::start();
    for (model, provider) in [
        ("claude-opus-5-5", "anthropic"),
        ("gpt-4o", "openai"),
        ("mistral-7b", "self-hosted"),
    ] {
        let events = s.infer(s.request(model, "Of rivers")).unwrap();
        let [Event::Started(started), .., Event::Finished(finished)] = events.as_slice() else {
            panic!("{events:?}");
        };
        let served = started.served.clone().unwrap();
        assert_eq!(
            (served.model.as_str(), served.provider.as_str()),
            (model, provider)
        );
        assert_eq!(served.max_tokens, Some(4_096));
        assert_eq!(finished.reason(), FinishReason::Stop);
        assert!(finished.usage.unwrap().output_tokens > 0);
        assert!(events.iter().any(|e| matches!(e, Event::Text(_))));

        let tool = Tool {
            name: "weather".into(),
            parameters:
                r#"{"type":"object","properties":{"place":{"type":"string"}},"required":["place"]}"#
                    .into(),
            ..Tool::default()
        };
        let request = InferRequest {
            tools: vec![tool],
            ..s.request(model, "Use the tool")
        };
        let events = s.infer(request).unwrap();
        let arguments: String = events
            .iter()
            .filter_map(|e| match e {
                Event::ToolCall(call) => Some(call.arguments.as_str()),
                _ => None,
            })
            .collect();
        assert!(arguments.contains("\"place\""), "{model}: {events:?}");
    }
    // Each context is good for one use.
    let once = s.request("gpt-4o", "once");
    s.infer(once.clone()).unwrap();
    let again = s.infer(once).unwrap_err();
    assert_eq!(again.code(), Code::Unauthenticated);
    // What the provider cut is no end.
    s.pipeline.fault_of(
        "anthropic",
        &serde_json::json!({"cut_after_chunks": 5, "times": 1}),
    );
    let cut = s.infer(s.request("claude-opus-5-5", "cut")).unwrap_err();
    assert_eq!(cut.code(), Code::Unavailable, "{cut:?}");
    let wrong = s.infer(InferRequest {
        messages: Vec::new(),
        ..s.request("gpt-4o", "")
    });
    let wrong = wrong.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
    assert!(wrong.message().contains("messages"), "{wrong:?}");
    // All of it is billed like any other request.
    let billed = s.pipeline.close_hour();
    assert!(billed.to_string().contains("acme"), "{billed}");
}

#[test]
fn what_would_be_decided_is_explained() {
    let s = Services::start();
    let route = |plan: &str, model: &str, max_tokens| -> RouteResponse {
        let request = RouteRequest {
            tenant_context: s.context("acme", plan),
            model: model.into(),
            max_tokens,
            ..RouteRequest::default()
        };
        // It does not use the context up.
        let first = s.ask(ROUTE, request.clone()).unwrap();
        assert_eq!(s.ask::<_, RouteResponse>(ROUTE, request).unwrap(), first);
        first
    };
    let routed = route("enterprise", "claude-opus-5-5", Some(9_999));
    let Some(Decision::Routed(to)) = &routed.decision else {
        panic!("{routed:?}");
    };
    assert_eq!(
        (to.provider_path.as_str(), to.translated),
        ("messages", true)
    );
    assert_eq!((to.timeout_s, to.tier.as_str()), (30, "premium"));
    assert_eq!(to.served.as_ref().unwrap().max_tokens, Some(4_096));
    let refused = route("starter", "gpt-4o", None);
    let Some(Decision::Refused(why)) = &refused.decision else {
        panic!("{refused:?}");
    };
    assert_eq!((why.status, why.code.as_str()), (403, "model_not_in_plan"));
    assert!(refused.explanation.len() >= 2, "{refused:?}");
    assert!(s.pipeline.provider_log().is_empty(), "nobody was called");
}

#[test]
fn only_services_get_in() {
    let s = Services::start();
    let list = || Providers::default();
    let check = |request: Request<Providers>, code: Code| {
        let found = s.call::<_, Providers>(LIST_PROVIDERS, request);
        assert_eq!(found.unwrap_err().code(), code);
    };
    check(Request::new(list()), Code::Unauthenticated);
    let mut wrong = Request::new(list());
    wrong
        .metadata_mut()
        .insert("authorization", MetadataValue::from_static("Bearer wrong"));
    check(wrong, Code::Unauthenticated);
    let mut tenants = s.with_token(list());
    let signed = s.context("acme", "enterprise");
    tenants
        .metadata_mut()
        .insert(headers::TENANT_CONTEXT, signed.parse().unwrap());
    check(tenants, Code::PermissionDenied);
    // Nor is any of it on the port of tenants' paths.
    let gateway = format!("{}{LIST_PROVIDERS}", s.pipeline.stack.url());
    let answer = s
        .pipeline
        .http
        .post(gateway)
        .bearer_auth(s.pipeline.key("acme"));
    assert_eq!(answer.send().unwrap().status(), 404);
}

#[test]
fn an_operator_drains_a_provider_and_makes_a_tenant() {
    let s = Services::start();
    let name = |name: &str| Provider {
        name: name.into(),
        ..Provider::default()
    };
    let drained: Provider = s
        .ask("/weir.admin.v1.Providers/DrainProvider", name("openai"))
        .unwrap();
    assert!(drained.drained);
    let elsewhere = s.pipeline.chat("acme", "drained");
    assert_eq!(elsewhere.status(), 200);
    assert_eq!(elsewhere.headers()["x-weir-provider"], "anthropic");
    let resumed: Provider = s
        .ask("/weir.admin.v1.Providers/ResumeProvider", name("openai"))
        .unwrap();
    assert!(!resumed.drained);
    let resumed = s.pipeline.chat("acme", "resumed");
    assert_eq!(resumed.headers()["x-weir-provider"], "openai");
    let all: Providers = s.ask(LIST_PROVIDERS, Providers::default()).unwrap();
    let kinds: Vec<(&str, u64)> = all
        .providers
        .iter()
        .map(|p| (p.kind.as_str(), p.calls))
        .collect();
    assert_eq!(
        kinds,
        [("anthropic", 1), ("openai", 1), ("openai-compatible", 0)]
    );
    let unknown = s.ask::<_, Provider>("/weir.admin.v1.Providers/DrainProvider", name("x"));
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);

    let made: Tenant = s
        .ask(
            "/weir.admin.v1.Tenants/CreateTenant",
            Tenant {
                tenant: "newco".into(),
                plan: "starter".into(),
            },
        )
        .unwrap();
    assert_eq!(made.plan, "starter");
    let wrong = s.ask::<_, Tenant>(
        "/weir.admin.v1.Tenants/CreateTenant",
        Tenant {
            tenant: "other".into(),
            plan: "nosuch".into(),
        },
    );
    let wrong = wrong.unwrap_err();
    assert!(wrong.message().contains("plan"), "{wrong:?}");
    let of = OfTenant {
        tenant: "newco".into(),
    };
    let _: () = s.ask("/weir.admin.v1.Tenants/MakeKey", of).unwrap();
    let log = std::fs::read_to_string(format!(
        "{}.audit.jsonl",
        s.pipeline.stack.directory.display()
    ))
    .unwrap();
    assert!(
        log.contains("service:token") && log.contains("newco"),
        "{log}"
    );

    // The directory is served here, too.
    let page: SnapshotPage = s
        .ask(
            "/weir.directory.v1.Directory/Snapshot",
            SnapshotRequest::default(),
        )
        .unwrap();
    assert!(page.version.is_some());
}
