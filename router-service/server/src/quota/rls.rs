//! Envoy's rate limit service over the same limits: each call takes what it asks
//! about, and has spent it when it is answered.

use std::{cmp::Reverse, sync::Arc};

use prost_types::Duration;
use tonic::{Request, Response, Status};
use weir_router_core::quota::{
    Closing, LeaseId,
    service::{Invalid, Wish, class, plan, tenant},
};
use weir_router_store::QuotaStore;
use weir_wire::{
    ids::{PlanName, TenantId},
    proto::quota::{AcquireResponse, LimitState, Outcome},
    quota::LEASE_ID_BYTES,
};

use super::service::{Failed, Service};
use crate::proto::{
    HeaderValue, RateLimitDescriptor, RateLimitRequest, RateLimitResponse,
    rate_limit_response::{Code, DescriptorStatus, RateLimit, rate_limit::Unit},
    rate_limit_service_server::RateLimitService,
};

/// The most descriptors of one request.
const DESCRIPTORS_MAX: usize = 16;

/// The service as Envoy asks it.
pub struct RateLimits<S> {
    pub service: Arc<Service<S>>,
    /// The domain that is answered.
    pub domain: String,
}

/// One descriptor, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    tenant: TenantId,
    plan: Option<PlanName>,
    class: String,
    /// 0 asks and takes nothing.
    hits: u32,
}

/// What came of one descriptor.
struct Taken {
    /// To be given back where it is not used after all.
    leases: Vec<(String, Closing)>,
    /// The last answer.
    response: AcquireResponse,
    is_over: bool,
}

#[tonic::async_trait]
impl<S: QuotaStore> RateLimitService for RateLimits<S> {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let asked = self.read(request.get_ref()).map_err(Failed::Invalid)?;
        let mut taken = Vec::with_capacity(asked.len());
        for asked in &asked {
            taken.push(self.take(asked).await?);
        }
        let response = response(&taken);
        let is_over = response.overall_code() == Code::OverLimit;
        let unused = taken.into_iter().zip(&asked);
        let unused = unused.filter(|(_, asked)| is_over || asked.hits == 0);
        let unused = unused.flat_map(|(taken, _)| taken.leases).collect();
        // What can't be given back now counts until it is over.
        let _ = self.service.give_back(unused).await;
        Ok(Response::new(response))
    }
}

impl<S: QuotaStore> RateLimits<S> {
    fn read(&self, request: &RateLimitRequest) -> Result<Vec<Asked>, Invalid> {
        if request.domain != self.domain {
            return Err(Invalid::new("domain", format!("must be {}", self.domain)));
        }
        let count = request.descriptors.len();
        if !(1..=DESCRIPTORS_MAX).contains(&count) {
            let message = format!("must be 1 to {DESCRIPTORS_MAX}, found {count}");
            return Err(Invalid::new("descriptors", message));
        }
        let read = |(i, descriptor)| {
            asked(descriptor, request.hits_addend.max(1)).map_err(|invalid| {
                let field = format!("descriptors[{i}].{}", invalid.field);
                Invalid::new(field, invalid.message)
            })
        };
        request.descriptors.iter().enumerate().map(read).collect()
    }

    /// Takes all that is asked for, or says why not. One lease is half of what is
    /// free at the most, so that more than one request may need some of them.
    async fn take(&self, asked: &Asked) -> Result<Taken, Failed> {
        let mut leases = Vec::new();
        let mut wanted = asked.hits.max(1);
        loop {
            let id = random()?;
            let wish = Wish {
                tenant: asked.tenant.clone(),
                plan: asked.plan.clone(),
                class: asked.class.clone(),
                id,
                wanted,
                life_ms: 1,
                epoch: String::new(),
                closing: Vec::new(),
            };
            let response = self.service.take(wish, 1).await?;
            let outcome = response.outcome();
            if outcome == Outcome::Granted {
                let unspent = Closing {
                    id,
                    spent: 0,
                    age_ms: 0,
                };
                leases.push((asked.tenant.to_string(), unspent));
                // A grant is at least 1, which ends the loop.
                wanted = wanted.saturating_sub(response.granted.max(1));
                if wanted > 0 {
                    continue;
                }
            }
            let may_pass = matches!(outcome, Outcome::Granted | Outcome::Unlimited);
            return Ok(Taken {
                leases,
                response,
                is_over: !may_pass,
            });
        }
    }
}

fn random() -> Result<LeaseId, Failed> {
    let mut id = [0; LEASE_ID_BYTES];
    getrandom::fill(&mut id).map_err(|error| {
        tracing::error!(%error, "no randomness");
        Failed::Unavailable
    })?;
    Ok(id)
}

/// Reads `tenant`, `plan` and `class`; other entries are others' business.
fn asked(descriptor: &RateLimitDescriptor, hits: u32) -> Result<Asked, Invalid> {
    if descriptor.is_negative_hits {
        let message = "must be false: what was spent is not given back";
        return Err(Invalid::new("is_negative_hits", message));
    }
    let hits = match descriptor.hits_addend {
        None => hits,
        Some(hits) => u32::try_from(hits).map_err(|_| {
            let message = format!("must be at most {}, found {hits}", u32::MAX);
            Invalid::new("hits_addend", message)
        })?,
    };
    let entry = |key: &str| {
        let found = descriptor.entries.iter().find(|entry| entry.key == key);
        found.map_or("", |entry| entry.value.as_str())
    };
    Ok(Asked {
        tenant: tenant("entries.tenant", entry("tenant"))?,
        plan: plan("entries.plan", entry("plan"))?,
        class: class("entries.class", entry("class").to_owned())?,
        hits,
    })
}

fn response(taken: &[Taken]) -> RateLimitResponse {
    let over = taken.iter().filter(|taken| taken.is_over);
    // Of a plan that is not known, nobody can say when.
    let wait_ms = |taken: &Taken| {
        let response = &taken.response;
        response.retry_after_ms.max(response.life_ms.into())
    };
    let wait_ms = over.map(wait_ms).max();
    let retry_after = wait_ms.map(|wait_ms| HeaderValue {
        key: http::header::RETRY_AFTER.to_string(),
        value: wait_ms.div_ceil(1_000).max(1).to_string(),
    });
    RateLimitResponse {
        overall_code: code(retry_after.is_some()).into(),
        statuses: taken.iter().map(status).collect(),
        response_headers_to_add: retry_after.into_iter().collect(),
    }
}

fn code(is_over: bool) -> Code {
    if is_over { Code::OverLimit } else { Code::Ok }
}

fn status(taken: &Taken) -> DescriptorStatus {
    let limits = taken.response.limits.iter();
    let tightest = limits.min_by_key(|limit| (limit.remaining, Reverse(limit.reset_ms)));
    DescriptorStatus {
        code: code(taken.is_over).into(),
        current_limit: tightest.map(|limit| RateLimit {
            requests_per_unit: limit.requests,
            unit: unit(limit).into(),
        }),
        limit_remaining: tightest.map_or(0, |limit| limit.remaining),
        duration_until_reset: tightest.map(|limit| duration(limit.reset_ms)),
    }
}

fn unit(limit: &LimitState) -> Unit {
    match limit.window_s {
        1 => Unit::Second,
        60 => Unit::Minute,
        3_600 => Unit::Hour,
        86_400 => Unit::Day,
        _ => Unit::Unknown,
    }
}

fn duration(ms: u64) -> Duration {
    let duration = std::time::Duration::from_millis(ms);
    Duration::try_from(duration).unwrap_or_default()
}
