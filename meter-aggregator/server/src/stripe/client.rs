//! Carries calls to Stripe: signs and slows them, reads what comes, asks again where
//! that does no harm.

use std::{
    num::NonZeroU32,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use backon::{ExponentialBuilder, Retryable as _};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use reqwest::{
    Client as Http, Response,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use serde::de::DeserializeOwned;
use weir_meter_core::stripe::{
    Answer, Call, Heard, Method, Page, SummaryError, VERSION, Wrong, WrongId, read,
};

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// How often a call that changes nothing is made, at the most.
const TRIES: usize = 4;

/// The longest pause between two tries; whoever asked for it tries again later.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Calls a second that Stripe takes at one endpoint, meter events excepted
/// (docs.stripe.com/rate-limits); here of all together that read.
const READS_PER_SECOND: NonZeroU32 = NonZeroU32::new(25).unwrap();

/// The largest answer that is read.
const BODY_MAX_BYTES: usize = 8 << 20;

/// The most pages of one list.
const PAGES_MAX: usize = 1_000;

/// Why there is no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum StripeError {
    /// No answer came, or not all of it.
    #[error("Stripe was not reached")]
    Unreached(#[source] reqwest::Error),
    /// More than anything here is.
    #[error("Stripe's answer is larger than {BODY_MAX_BYTES} bytes or {PAGES_MAX} pages")]
    TooLarge,
    /// Stripe does not do it.
    #[error("Stripe answered {}", .0.told())]
    Refused(Answer),
    /// Something else came than what the API promises.
    #[error(transparent)]
    Wrong(#[from] Wrong),
    /// A number that is not whole.
    #[error(transparent)]
    Summary(#[from] SummaryError),
    /// A summary that is not of an hour.
    #[error("a summary must be of one hour, found {0} to {1}")]
    Window(i64, i64),
    /// No id.
    #[error(transparent)]
    Id(#[from] WrongId),
}

impl StripeError {
    /// Whether it may go by itself.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreached(_) => true,
            Self::Refused(answer) => answer.is_passing(),
            _ => false,
        }
    }

    /// Whether Stripe has no such object.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Id(_)) || matches!(self, Self::Refused(a) if a.status == 404)
    }

    fn retry_after(&self) -> Option<Duration> {
        let Self::Refused(answer) = self else {
            return None;
        };
        let ms = u64::try_from(answer.heard.retry_after_ms?).ok()?;
        Some(Duration::from_millis(ms))
    }
}

/// How fast calls may be made.
struct Limits {
    calls: DefaultDirectRateLimiter,
    reads: DefaultDirectRateLimiter,
}

impl Limits {
    fn new(calls_per_second: NonZeroU32, reads_per_second: NonZeroU32) -> Arc<Self> {
        Arc::new(Self {
            calls: limiter(calls_per_second),
            reads: limiter(calls_per_second.min(reads_per_second)),
        })
    }
}

/// The way to one account.
pub struct Client {
    base: String,
    bearer: HeaderValue,
    http: Http,
    calls_per_second: NonZeroU32,
    limits: RwLock<Arc<Limits>>,
}

impl Client {
    pub fn new(
        base: &str,
        bearer: HeaderValue,
        calls_per_second: NonZeroU32,
    ) -> anyhow::Result<Self> {
        let http = Http::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            base: base.to_owned(),
            bearer,
            http,
            calls_per_second,
            limits: RwLock::new(Limits::new(calls_per_second, READS_PER_SECOND)),
        })
    }

    /// Makes calls at that part of what Stripe allows, `part` of `whole`, and one a second
    /// at least: other processes make the rest.
    pub fn share(&self, part: u16, whole: u16) {
        let part_of = |all: NonZeroU32| {
            let share = all.get().saturating_mul(u32::from(part));
            let share = share.checked_div(u32::from(whole)).unwrap_or(0);
            NonZeroU32::new(share).unwrap_or(NonZeroU32::MIN)
        };
        let limits = Limits::new(part_of(self.calls_per_second), part_of(READS_PER_SECOND));
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    fn limits(&self) -> Arc<Limits> {
        let limits = self.limits.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&limits)
    }

    /// Makes a call once, when the limiter lets it.
    pub async fn once(&self, call: &Call) -> Result<(Answer, Vec<u8>), StripeError> {
        self.turn(call).await;
        self.now(call).await
    }

    /// Waits until the limiter lets a call.
    pub async fn turn(&self, call: &Call) {
        let limits = self.limits();
        if call.method == Method::Get {
            limits.reads.until_ready().await;
        }
        limits.calls.until_ready().await;
    }

    /// Makes a call now, whose turn it is.
    pub async fn now(&self, call: &Call) -> Result<(Answer, Vec<u8>), StripeError> {
        let url = format!("{}{}", self.base, call.path);
        let encoded = call.encoded();
        let request = match call.method {
            Method::Get if encoded.is_empty() => self.http.get(url),
            Method::Get => self.http.get(format!("{url}?{encoded}")),
            Method::Post => self
                .http
                .post(url)
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(encoded),
        };
        let request = match &call.idempotency_key {
            Some(key) => request.header("Idempotency-Key", key),
            None => request,
        };
        let response = request
            .header(AUTHORIZATION, self.bearer.clone())
            .header("Stripe-Version", VERSION)
            .send()
            .await
            .map_err(unreached)?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let heard = Heard::of(|name| headers.get(name).map(HeaderValue::as_bytes));
        let good = response.status().is_success();
        let body = match body(response).await {
            Ok(body) => body,
            // It is done, whatever else it says. Of a refusal the text is needed.
            Err(_) if good && call.method == Method::Post => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok((Answer::of(status, heard, &body), body))
    }

    /// Makes a call that changes nothing, a few times if need be, and reads its object.
    pub async fn get<T: DeserializeOwned>(&self, call: &Call) -> Result<T, StripeError> {
        let ask = async || {
            let (answer, body) = self.once(call).await?;
            if !answer.is_good() {
                return Err(StripeError::Refused(answer));
            }
            Ok(read(&body)?)
        };
        let pauses = ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(PAUSE_MAX)
            .with_max_times(TRIES.saturating_sub(1));
        ask.retry(pauses)
            .when(StripeError::is_passing)
            // No pause: out of tries, or Stripe asks for a longer one than is waited here.
            .adjust(|error, pause| {
                let pause = pause?.max(error.retry_after().unwrap_or_default());
                (pause <= PAUSE_MAX).then_some(pause)
            })
            .notify(|error, pause| tracing::info!(path = %call.path, %error, ?pause, "asking Stripe again"))
            .await
    }

    /// All objects of a list, page by page; `id` is the cursor.
    pub async fn all<T: DeserializeOwned>(
        &self,
        page: impl Fn(Option<&str>) -> Result<Call, WrongId>,
        id: impl Fn(&T) -> &str,
    ) -> Result<Vec<T>, StripeError> {
        let mut all: Vec<T> = Vec::new();
        for _ in 0..PAGES_MAX {
            let call = page(all.last().map(&id))?;
            let found: Page<T> = self.get(&call).await?;
            let more = found.has_more && !found.data.is_empty();
            all.extend(found.data);
            if !more {
                return Ok(all);
            }
        }
        Err(StripeError::TooLarge)
    }
}

/// So many calls a second, evenly: a burst of a full second would meet the end of the
/// one before.
fn limiter(calls_per_second: NonZeroU32) -> DefaultDirectRateLimiter {
    let burst = NonZeroU32::new(calls_per_second.get() / 50).unwrap_or(NonZeroU32::MIN);
    RateLimiter::direct(Quota::per_second(calls_per_second).allow_burst(burst))
}

/// Without the URL, in which a customer may stand.
fn unreached(error: reqwest::Error) -> StripeError {
    StripeError::Unreached(error.without_url())
}

async fn body(mut response: Response) -> Result<Vec<u8>, StripeError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreached)? {
        if body.len().saturating_add(chunk.len()) > BODY_MAX_BYTES {
            return Err(StripeError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
