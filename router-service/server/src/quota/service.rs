//! What the quota service answers, whichever way it was asked.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::{sync::watch, time::Instant};
use weir_router_core::quota::{
    Closing,
    gateways::Gateways,
    service::{Invalid, Plans, Resolved, Tenants, Wish, closing, told},
};
use weir_router_store::{QuotaStore, Unavailable};
use weir_wire::proto::quota::{AcquireRequest, AcquireResponse, CloseRequest, CloseResponse};

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failed {
    /// The request is none.
    Invalid(Invalid),
    /// The store can't be asked just now; the log says why.
    Unavailable,
}

impl From<Invalid> for Failed {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

/// The plans, the directory and the store behind all ways to ask.
pub struct Service<S> {
    store: S,
    plans: Plans,
    tenants: watch::Receiver<Arc<Tenants>>,
    gateways: Mutex<Gateways>,
    start: Instant,
    /// Whether the store was away when it was last asked, so that it is told once.
    is_away: AtomicBool,
}

impl<S: QuotaStore> Service<S> {
    pub fn new(store: S, plans: Plans, tenants: watch::Receiver<Arc<Tenants>>) -> Self {
        Self {
            store,
            plans,
            tenants,
            gateways: Mutex::default(),
            start: Instant::now(),
            is_away: AtomicBool::new(false),
        }
    }

    /// Takes a lease for a gateway.
    pub async fn acquire(&self, request: AcquireRequest) -> Result<AcquireResponse, Failed> {
        let gateway = request.gateway;
        let wish = Wish::try_from(request)?;
        let gateways = self.seen(gateway);
        self.take(wish, gateways).await
    }

    /// Gives leases back.
    pub async fn close(&self, request: CloseRequest) -> Result<CloseResponse, Failed> {
        self.give_back(closing(&request)?).await?;
        Ok(CloseResponse {})
    }

    /// Takes a lease of what so many share.
    pub async fn take(&self, wish: Wish, gateways: u32) -> Result<AcquireResponse, Failed> {
        // Cloned for the log alone, which is seldom that detailed.
        let told_of = tracing::enabled!(tracing::Level::DEBUG)
            .then(|| (wish.tenant.clone(), wish.class.clone()));
        // Not held while the store is asked: a new state would wait for it.
        let tenants = Arc::clone(&self.tenants.borrow());
        let response = match self.plans.resolve(wish, &tenants, gateways) {
            Resolved::Ask(ask) => {
                let limits = ask.limits.clone();
                let answer = self.noted(self.store.acquire(ask).await)?;
                told(&limits, answer)
            }
            Resolved::Settled { response, closing } => {
                // What is not given back counts until it is over; who is not
                // limited need not wait for that.
                let _ = self.give_back(closing).await;
                response
            }
        };
        if let Some((tenant, class)) = told_of {
            let outcome = response.outcome().as_str_name();
            tracing::debug!(%tenant, class, outcome, granted = response.granted, "asked");
        }
        Ok(response)
    }

    /// Gives leases back that were checked.
    pub async fn give_back(&self, closing: Vec<(String, Closing)>) -> Result<(), Failed> {
        if closing.is_empty() {
            return Ok(());
        }
        self.noted(self.store.close(closing).await)
    }

    fn seen(&self, gateway: u64) -> u32 {
        let now_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        // A panic under the lock cannot leave a gateway half seen.
        let mut gateways = self.gateways.lock().unwrap_or_else(PoisonError::into_inner);
        gateways.seen(gateway, now_ms)
    }

    fn noted<T>(&self, answered: Result<T, Unavailable>) -> Result<T, Failed> {
        let was_away = self.is_away.swap(answered.is_err(), Ordering::Relaxed);
        match answered {
            Ok(_) if was_away => tracing::info!("the quota store answers again"),
            Err(ref error) if !was_away => tracing::error!("{error}"),
            _ => {}
        }
        answered.map_err(|_| Failed::Unavailable)
    }
}
