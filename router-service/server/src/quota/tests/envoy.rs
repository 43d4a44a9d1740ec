//! What Envoy's own rate limit filter is answered.

use std::collections::BTreeMap;

use tonic::{Code as GrpcCode, Status};

use super::*;
use crate::proto::{
    RateLimitDescriptor, RateLimitRequest, RateLimitResponse,
    envoy::{
        extensions::common::ratelimit::v3::rate_limit_descriptor::Entry,
        service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient,
    },
    rate_limit_response::{Code, rate_limit::Unit},
};

struct Envoy(RateLimitServiceClient<Channel>);

impl Envoy {
    async fn new() -> (Self, Arc<AtomicBool>) {
        let (channel, is_away) = connected().await;
        (Self(RateLimitServiceClient::new(channel)), is_away)
    }

    async fn ask(&mut self, request: RateLimitRequest) -> Result<RateLimitResponse, Status> {
        let response = self.0.should_rate_limit(with_token(request)).await?;
        Ok(response.into_inner())
    }

    /// Asks, and compares the codes: of the whole, and of each descriptor.
    async fn check(&mut self, request: RateLimitRequest, expected: &str) -> RateLimitResponse {
        let response = self.ask(request).await.unwrap();
        let codes = response.statuses.iter().map(|s| s.code());
        let letters: BTreeMap<Code, char> = [(Code::Ok, 'y'), (Code::OverLimit, 'n')].into();
        let found: String = codes.map(|code| letters[&code]).collect();
        assert_eq!(found, expected, "{response:?}");
        let is_over = expected.contains('n');
        let overall = letters[&response.overall_code()];
        assert_eq!(overall, if is_over { 'n' } else { 'y' });
        let headers = &response.response_headers_to_add;
        assert_eq!(headers.len(), usize::from(is_over), "{headers:?}");
        response
    }
}

fn descriptor(entries: &[(&str, &str)]) -> RateLimitDescriptor {
    let entry = |(key, value): &(&str, &str)| Entry {
        key: (*key).to_owned(),
        value: (*value).to_owned(),
    };
    RateLimitDescriptor {
        entries: entries.iter().map(entry).collect(),
        ..Default::default()
    }
}

fn of(tenant: &str, plan: &str, class: &str) -> RateLimitDescriptor {
    descriptor(&[
        ("tenant", tenant),
        ("remote_address", "10.0.0.1"),
        ("plan", plan),
        ("class", class),
    ])
}

fn request(hits: u32, descriptors: &[RateLimitDescriptor]) -> RateLimitRequest {
    RateLimitRequest {
        domain: "weir".to_owned(),
        descriptors: descriptors.to_vec(),
        hits_addend: hits,
    }
}

#[tokio::test]
async fn a_tenant_has_its_requests_and_no_more() {
    let (mut envoy, _) = Envoy::new().await;
    let ask = || request(0, &[of("acme", "starter", "")]);
    for remaining in [2, 1, 0] {
        let response = envoy.check(ask(), "y").await;
        let status = &response.statuses[0];
        let limit = status.current_limit.unwrap();
        assert_eq!((limit.requests_per_unit, limit.unit()), (3, Unit::Minute));
        assert_eq!(status.limit_remaining, remaining);
        let reset_s = status.duration_until_reset.unwrap().seconds;
        assert!((60..=61).contains(&reset_s), "{reset_s}");
    }
    let response = envoy.check(ask(), "n").await;
    let header = &response.response_headers_to_add[0];
    assert_eq!(header.key, "retry-after");
    let seconds: u64 = header.value.parse().unwrap();
    assert!((30..=61).contains(&seconds), "{seconds}");
    // Another tenant of that plan has its own.
    let other = request(1, &[of("other", "starter", "")]);
    envoy.check(other, "y").await;
}

#[tokio::test]
async fn several_requests_pass_together_or_not_at_all() {
    let (mut envoy, _) = Envoy::new().await;
    let ask = |hits| request(hits, &[of("acme", "starter", "chat")]);
    envoy.check(ask(4), "n").await;
    envoy.check(ask(2), "y").await;
    envoy.check(ask(2), "n").await;
    let own = |hits: u64| {
        let hits_addend = Some(hits);
        let base = of("acme", "starter", "");
        request(
            9,
            &[RateLimitDescriptor {
                hits_addend,
                ..base
            }],
        )
    };
    // None is a look, and the descriptor's number goes before the request's.
    envoy.check(own(0), "y").await;
    envoy.check(own(1), "y").await;
    envoy.check(own(0), "n").await;
}

#[tokio::test]
async fn every_descriptor_must_let_it_pass() {
    let (mut envoy, _) = Envoy::new().await;
    let (a, b) = (of("a", "starter", ""), of("b", "starter", ""));
    let both = request(1, &[a.clone(), b.clone()]);
    envoy.check(request(3, std::slice::from_ref(&a)), "y").await;
    // What the second had taken is given back each time.
    for _ in 0..4 {
        envoy.check(both.clone(), "ny").await;
    }
    envoy.check(request(3, &[b]), "y").await;
}

#[tokio::test]
async fn limits_are_those_of_the_plan_or_the_tenant() {
    let (mut envoy, is_away) = Envoy::new().await;
    let mut check = async |descriptor, code, limit| {
        let response = envoy.check(request(1, &[descriptor]), code).await;
        let found = response.statuses[0].current_limit;
        let found = found.map(|limit| (limit.requests_per_unit, limit.unit()));
        assert_eq!(found, limit);
        response
    };
    let (hour, second) = ((100, Unit::Hour), (5, Unit::Second));
    check(of("a", "pro", "rag"), "y", Some(hour)).await;
    check(of("a", "pro", "chat"), "y", Some(second)).await;
    let own = descriptor(&[("tenant", "own")]);
    check(own, "y", Some((9, Unit::Unknown))).await;
    let unknown = check(of("a", "gold", ""), "n", None).await;
    assert_eq!(unknown.response_headers_to_add[0].value, "1");
    check(descriptor(&[("tenant", "a")]), "n", None).await;
    is_away.store(true, Ordering::Relaxed);
    check(of("a", "free", ""), "y", None).await;
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let (mut envoy, is_away) = Envoy::new().await;
    let wrong = |change: &dyn Fn(&mut RateLimitRequest)| {
        let mut request = request(1, &[of("acme", "starter", "")]);
        change(&mut request);
        request
    };
    let own = |change: fn(&mut RateLimitDescriptor)| {
        wrong(&|request| change(&mut request.descriptors[0]))
    };
    for (request, says) in [
        (wrong(&|r| r.domain = "other".to_owned()), "domain: "),
        (wrong(&|r| r.descriptors.clear()), "descriptors: "),
        (
            own(|d| d.entries.clear()),
            "descriptors[0].entries.tenant: ",
        ),
        (
            own(|d| d.entries[2].value = "a b".to_owned()),
            "entries.plan: ",
        ),
        (
            own(|d| d.entries[3].value = "A".to_owned()),
            "entries.class: ",
        ),
        (own(|d| d.is_negative_hits = true), "[0].is_negative_hits: "),
        (own(|d| d.hits_addend = Some(1 << 32)), "[0].hits_addend: "),
    ] {
        let status = envoy.ask(request).await.unwrap_err();
        assert_eq!(status.code(), GrpcCode::InvalidArgument);
        assert!(status.message().contains(says), "{}", status.message());
    }
    let right = wrong(&|_| ());
    let status = envoy.0.should_rate_limit(right.clone()).await.unwrap_err();
    assert_eq!(status.code(), GrpcCode::Unauthenticated);
    is_away.store(true, Ordering::Relaxed);
    let status = envoy.ask(right).await.unwrap_err();
    assert_eq!(status.code(), GrpcCode::Unavailable);
}
