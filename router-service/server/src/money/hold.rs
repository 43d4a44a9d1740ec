//! One request's hold: got before the call or beside it, raised before further
//! attempts, settled at the end.

use std::sync::Arc;

use tokio::task::JoinHandle;
use weir_router_core::{
    budget::{Ask, Held, Month, Refused, Settle, Standing},
    refusal::Refusal,
};
use weir_router_store::{BudgetStore as _, Unavailable};
use weir_wire::{
    ids::{RequestId, TenantId},
    proto::usage::UsageEvent,
};

use super::{Live, Money, Terms, accounts::Takes, admission::too_many, counted};

type Answer = Result<(Held, Standing), Unavailable>;

/// What is held for a request.
pub struct Hold {
    money: Arc<Money>,
    pub live: Arc<Live>,
    terms: Terms,
    month: Month,
    amount: u64,
    step: u32,
    /// As of the last answer.
    standing: Option<Standing>,
    pending: Option<JoinHandle<Answer>>,
    /// Why there is none after all.
    refused: Option<Refused>,
    /// Whether the request is witnessed.
    pub is_told: bool,
    is_settled: bool,
}

/// Whether a hold is there.
pub enum Certain {
    Held,
    /// It is not: its call must not go on.
    Refused(Refused),
    /// The store did not answer.
    Unavailable,
}

impl Hold {
    /// One that was granted.
    pub fn granted(
        money: &Arc<Money>,
        live: Arc<Live>,
        terms: &Terms,
        ask: &Ask,
        standing: Option<Standing>,
    ) -> Self {
        money.live.add(&live);
        Self {
            money: Arc::clone(money),
            live,
            terms: terms.clone(),
            month: ask.month(),
            amount: ask.amount,
            step: 0,
            standing,
            pending: None,
            refused: None,
            is_told: false,
            is_settled: false,
        }
    }

    /// One that is asked for beside its call.
    pub fn pending(money: &Arc<Money>, live: Arc<Live>, terms: &Terms, ask: Ask) -> Self {
        let mut hold = Self::granted(money, live, terms, &ask, None);
        let money = Arc::clone(money);
        hold.pending = Some(tokio::spawn(async move {
            let (tenant, month, takes) = (ask.tenant.clone(), ask.month(), takes(&ask));
            let answer = money.hold(ask).await;
            money.accounts.answered(&tenant, takes);
            if let Ok((_, standing)) = &answer {
                money.accounts.note(&tenant, month, *standing);
            }
            answer
        }));
        hold
    }

    /// Waits until it is known.
    pub async fn certain(&mut self) -> Certain {
        if let Some(why) = self.refused {
            return Certain::Refused(why);
        }
        let Some(pending) = self.pending.take() else {
            return Certain::Held;
        };
        match pending.await {
            Ok(Ok((Held::Held | Held::Duplicate, standing))) => {
                self.standing = Some(standing);
                Certain::Held
            }
            Ok(Ok((Held::Refused(why), standing))) => {
                self.standing = Some(standing);
                self.refused = Some(why);
                Certain::Refused(why)
            }
            Ok(Err(_)) | Err(_) => Certain::Unavailable,
        }
    }

    /// Raises it to cover another attempt of that much; `false` where the budget
    /// does not.
    pub async fn cover(&mut self, next: u64) -> bool {
        if matches!(self.certain().await, Certain::Refused(_)) {
            return false;
        }
        let (made, _) = counted(&self.live.usage(), self.terms.counts());
        let by = made.saturating_add(next).saturating_sub(self.amount);
        if by == 0 {
            return true;
        }
        self.step = self.step.saturating_add(1);
        let (tenant, id) = (&self.live.tenant, self.live.id);
        let ceiling = self.terms.bounds.ceiling;
        let raised = self.money.store.raise(tenant, id, self.step, by, ceiling);
        match raised.await {
            Ok((Held::Held | Held::Duplicate, standing)) => {
                self.amount = self.amount.saturating_add(by);
                self.note(standing);
                true
            }
            Ok((Held::Refused(_), standing)) => {
                self.note(standing);
                false
            }
            Err(_) => false,
        }
    }

    /// What answers say of where the tenant stands.
    pub fn told(&self) -> Vec<(&'static str, String)> {
        let told = self.standing.as_ref().map(|s| self.terms.told(s));
        told.unwrap_or_default()
    }

    /// Whether spend is so near a threshold that the next request should see what
    /// this one came to.
    pub fn is_near(&self) -> bool {
        let (Some(ceiling), Some(standing)) = (self.terms.bounds.ceiling, &self.standing) else {
            return false;
        };
        let used = standing.spend.saturating_add(standing.held);
        used >= ceiling.micros.div_ceil(2)
    }

    /// What a client is told where a hold that was asked for beside its call is
    /// refused.
    pub fn refusal(&self, why: Refused) -> Refusal {
        let standing = self.standing.unwrap_or_default();
        match why {
            Refused::InFlight | Refused::Tokens { .. } => too_many(&self.terms, why, &standing),
            _ => Refusal::server(
                503,
                "budget_changed",
                "The budget was used up by others meanwhile; send the request again.",
            )
            .retry_after(1_000),
        }
    }

    /// Whether it is settled already.
    pub fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// It came to what its attempts did.
    pub async fn settle(&mut self) {
        self.is_settled = true;
        if let Some(pending) = self.pending.take() {
            // It counts before it is settled, or the other way round: an orphan.
            let _ = pending.await;
        }
        let (micros, tokens) = counted(&self.live.usage(), self.terms.counts());
        self.money.live.remove(&self.live);
        let settle = Settle {
            tenant: self.live.tenant.clone(),
            id: self.live.id,
            micros,
            tokens,
            ceiling: self.terms.bounds.ceiling,
        };
        self.money.settle(&settle, self.month).await;
    }

    fn note(&mut self, standing: Standing) {
        self.standing = Some(standing);
        let (tenant, month) = (&self.live.tenant, self.month);
        self.money.accounts.note(tenant, month, standing);
    }
}

/// However it ends, it is renewed no more.
impl Drop for Hold {
    fn drop(&mut self) {
        self.money.live.remove(&self.live);
    }
}

impl Money {
    /// Settles now or, where the store is away, once it is back.
    async fn settle(&self, settle: &Settle, month: Month) {
        match self.store.settle(settle.clone()).await {
            Ok((_, standing)) => self.accounts.note(&settle.tenant, month, standing),
            Err(_) => self.unsettled.keep(settle).await,
        }
    }

    /// Settles by what a router before this one witnessed: it may not have come to
    /// that any more.
    pub async fn settle_again(&self, event: &UsageEvent, terms: &Terms) {
        let id = RequestId::parse(&event.request_id);
        let (Ok(id), Ok(tenant)) = (id, TenantId::new(event.tenant.clone())) else {
            return;
        };
        let (micros, tokens) = counted(&event.usage, terms.counts());
        let settle = Settle {
            tenant,
            id,
            micros,
            tokens,
            ceiling: terms.bounds.ceiling,
        };
        self.settle(&settle, Month::of_ms(id.time_ms())).await;
    }
}

/// What a hold takes of each bound.
pub fn takes(ask: &Ask) -> Takes {
    Takes {
        micros: ask.amount,
        tokens: ask.tokens,
    }
}
