//! Whether a request may be served, and by which models: what the budget, the
//! tokens of the minute and the requests under way leave of the plan.

use std::sync::Arc;

use weir_pricing::upper_bound;
use weir_router_core::{
    allowance::{AtCeiling, Purse, affordable_output},
    budget::{Ask, Held, Month, Refused, Settle, Standing},
    catalogue::Tier,
    count::Input,
    meter::Attempt,
    offer::{Decision, Offer},
    refusal::Refusal,
    request::Asked,
};
use weir_wire::{
    ids::{RequestId, TenantId},
    proto::usage::UsageEvent,
};

use super::{Hold, Live, Money, Terms, hold::takes};

/// Tokens that an image may come to, however small its bytes: the dearest of the
/// providers' tables, gpt-4o-mini's for the largest that it looks at in detail.
const IMAGE_TOKENS: u64 = 37_000;

/// Of fewer tokens than that an answer is of no use.
const LEAST_OUTPUT: u64 = 16;

/// Turns of choosing and asking: down from premium to fast to self-hosted, each
/// clamped once.
const TURNS_MAX: usize = 6;

/// A request that wants to be served.
pub struct Admission<'a> {
    pub offer: &'a Offer,
    pub terms: &'a Terms,
    pub tenant: &'a TenantId,
    pub id: RequestId,
    pub asked: &'a Asked,
    /// See [`most_input`].
    pub most_input: u64,
    /// For estimates: the body, and its tokens roughly.
    pub input: &'a (Input, u64),
    /// Whether its class is billed at all.
    pub is_billed: bool,
    /// What it is witnessed as where this router is never heard of again, without
    /// its usage.
    pub event: UsageEvent,
}

/// A request that may be.
pub struct Admitted {
    /// The first one is to be called; others may take its place. Never empty.
    pub candidates: Vec<Decision>,
    pub hold: Hold,
}

/// Tokens of a request's input at the most, whichever model reads it: no token is
/// shorter than a byte of the body, whatever member it is of; an image is as many as it
/// may be, and what a provider fetches by itself is without a bound.
pub fn most_input(asked: &Asked, body: &[u8]) -> u64 {
    let count = |word: &str| memchr::memmem::find_iter(body, word.as_bytes()).count();
    let has = |word: &str| memchr::memmem::find(body, word.as_bytes()).is_some();
    if has("file_url") || (has("\"document\"") && has("\"url\"")) {
        return u64::MAX;
    }
    let images = match asked.uses.images {
        true => u64::try_from(count("image")).unwrap_or(u64::MAX),
        false => 0,
    };
    let bytes = u64::try_from(body.len()).unwrap_or(u64::MAX);
    bytes.saturating_add(images.saturating_mul(IMAGE_TOKENS))
}

/// What is still tried.
struct Turn {
    purse: Purse,
    /// The most tokens of an answer that the budget covers.
    clamp: Option<u64>,
    /// The store does not answer: what costs something is not served.
    is_away: bool,
    /// What is left is held by requests under way.
    is_held: bool,
}

impl Admission<'_> {
    fn month(&self) -> Month {
        Month::of_ms(self.id.time_ms())
    }

    fn input_bound(&self, decision: &Decision) -> u64 {
        self.most_input.min(decision.context_tokens)
    }

    /// What a call of that model may come to.
    pub fn bound(&self, decision: &Decision) -> u64 {
        let output = decision.upper_output_tokens(self.asked.choices);
        let input = self.input_bound(decision);
        let charge = upper_bound(&decision.prices, self.terms.markup, input, output);
        match self.is_billed {
            true => self.terms.counted(charge),
            false => 0,
        }
    }

    fn ask(&self, decision: &Decision, live: &Live, life_ms: u64) -> Ask {
        let output = decision.upper_output_tokens(self.asked.choices);
        let budget = self.terms.budget.as_ref();
        Ask {
            tenant: self.tenant.clone(),
            id: self.id,
            amount: self.bound(decision),
            not_from: budget
                .filter(|_| decision.tier == Tier::Premium)
                .map(|budget| budget.near_from()),
            bounds: self.terms.bounds,
            tokens: match self.is_billed {
                true => self.input.1.saturating_add(output),
                false => 0,
            },
            life_ms,
            progress: live.progress(),
        }
    }

    fn clamp(&self, candidates: &mut [Decision], most: u64) {
        for decision in candidates {
            if let Some(tokens) = &mut decision.max_tokens
                && *tokens <= most
            {
                continue;
            }
            if self.asked.endpoint.streams() {
                decision.max_tokens = Some(most);
                decision.bounded = true;
            }
        }
    }

    fn candidates(&self, turn: &Turn) -> Result<Vec<Decision>, Refusal> {
        let plan = &self.terms.plan;
        let at_ceiling = self.terms.budget.as_ref().map(|b| b.at_ceiling);
        let is_spent = turn.purse == Purse::Spent && !turn.is_away;
        if is_spent && at_ceiling == Some(AtCeiling::Reject) {
            return Err(match turn.is_held {
                true => held_by_others(),
                false => Refusal::budget_exhausted(plan, self.month()),
            });
        }
        let mut candidates = self.offer.candidates(plan, self.asked, turn.purse)?;
        if let Some(most) = turn.clamp {
            self.clamp(&mut candidates, most);
        }
        Ok(candidates)
    }

    /// After a refusal for the budget: fewer tokens, or the next cheaper models.
    fn poorer(&self, turn: &mut Turn, first: &Decision, standing: &Standing) {
        let ceiling = self.terms.bounds.ceiling.map_or(0, |c| c.micros);
        let used = standing.spend.saturating_add(standing.held);
        turn.is_held = standing.held > 0 && standing.spend < ceiling;
        let tokens = affordable_output(
            &first.prices,
            self.terms.markup,
            self.terms.counts(),
            self.input_bound(first),
            ceiling.saturating_sub(used),
        );
        let each = tokens
            .checked_div(self.asked.choices.max(1))
            .unwrap_or(tokens);
        let wanted = first.max_tokens.unwrap_or(first.max_output_tokens);
        let least = self.asked.thinking_tokens.map_or(LEAST_OUTPUT, |thinking| {
            thinking.saturating_add(LEAST_OUTPUT)
        });
        if turn.clamp.is_none() && (least..wanted).contains(&each) {
            turn.clamp = Some(each);
            return;
        }
        turn.clamp = None;
        turn.purse = match (turn.purse, first.tier) {
            (Purse::Far, Tier::Premium) => Purse::Near,
            _ => Purse::Spent,
        };
    }
}

impl Money {
    /// Chooses, and holds what the choice may come to.
    ///
    /// # Errors
    /// 402 where the budget is exhausted and the plan says so; 429 where too many
    /// tokens or requests are under way; 503 where the store is away and the plan
    /// has no model that costs nothing; what [`Offer::candidates`] refuses.
    pub async fn admit(self: &Arc<Self>, admission: &Admission<'_>) -> Result<Admitted, Refusal> {
        let mut unknown = false;
        let admitted = self.choose(admission, &mut unknown).await;
        if unknown && admitted.is_err() {
            // It may be held all the same, now or in a moment.
            self.later(admission).await;
        }
        admitted
    }

    /// What was not served comes to nothing, once the store answers.
    async fn later(&self, admission: &Admission<'_>) {
        let settle = Settle {
            tenant: admission.tenant.clone(),
            id: admission.id,
            micros: 0,
            tokens: 0,
            ceiling: admission.terms.bounds.ceiling,
        };
        self.unsettled.keep(&settle).await;
    }

    async fn choose(
        self: &Arc<Self>,
        admission: &Admission<'_>,
        unknown: &mut bool,
    ) -> Result<Admitted, Refusal> {
        let Admission {
            tenant, id, terms, ..
        } = admission;
        let month = admission.month();
        let counts = terms.counts();
        let live = Live::new((*tenant).clone(), *id, counts, admission.event.clone());
        let life_ms = u64::try_from(self.renewal.life.as_millis()).unwrap_or(u64::MAX);
        let budget = terms.budget.as_ref();
        let mut turn = Turn {
            purse: budget.map_or(Purse::Far, |b| b.purse(self.accounts.spend(tenant, month))),
            clamp: None,
            is_away: false,
            is_held: false,
        };
        for _ in 0..TURNS_MAX {
            let candidates = match admission.candidates(&turn) {
                Err(_) if turn.is_away => return Err(away()),
                candidates => candidates?,
            };
            let Some(first) = candidates.first() else {
                break;
            };
            let markup = terms.markup;
            let (input, unbilled) = (admission.input.clone(), !admission.is_billed);
            live.replace(Attempt::new(first, 1, markup, input, unbilled));
            let ask = admission.ask(first, &live, life_ms);
            let spend = self.accounts.spend(tenant, month);
            let may_stay = ask.not_from.is_none_or(|from| spend < from / 2);
            if may_stay
                && self
                    .accounts
                    .is_far(tenant, month, &terms.bounds, takes(&ask))
            {
                let hold = Hold::pending(self, live, terms, ask);
                return Ok(Admitted { candidates, hold });
            }
            let (held, standing) = match self.hold(ask.clone()).await {
                Ok(answer) => answer,
                Err(_) if ask.amount == 0 => {
                    // It costs nothing; what can't be counted is served all the same.
                    let hold = Hold::granted(self, live, terms, &ask, None);
                    return Ok(Admitted { candidates, hold });
                }
                Err(_) if turn.is_away => {
                    *unknown = true;
                    return Err(away());
                }
                Err(_) => {
                    *unknown = true;
                    turn.purse = Purse::Spent;
                    turn.is_away = true;
                    continue;
                }
            };
            self.accounts.note(tenant, month, standing);
            match held {
                Held::Held | Held::Duplicate => {
                    let hold = Hold::granted(self, live, terms, &ask, Some(standing));
                    return Ok(Admitted { candidates, hold });
                }
                Held::Refused(Refused::Near) => turn.purse = Purse::Near,
                Held::Refused(Refused::Budget | Refused::Gone) => {
                    admission.poorer(&mut turn, first, &standing);
                }
                Held::Refused(why) => return Err(too_many(terms, why, &standing)),
            }
        }
        Err(Refusal::budget_exhausted(&terms.plan, month))
    }
}

/// Too many tokens, or too many requests at once.
pub fn too_many(terms: &Terms, why: Refused, standing: &Standing) -> Refusal {
    let (code, message, retry_ms) = match why {
        Refused::Tokens { retry_ms } => {
            let limit = terms.bounds.tokens_per_minute.unwrap_or(0);
            let message = match retry_ms {
                Some(_) => format!(
                    "Rate limit reached: {limit} tokens a minute, {} of them used.",
                    standing.tokens
                ),
                None => format!(
                    "The request alone may take more than the limit of {limit} tokens a minute; ask for a shorter answer."
                ),
            };
            ("tokens_per_minute_exceeded", message, retry_ms)
        }
        _ => {
            let most = terms.bounds.in_flight.unwrap_or(0);
            let message = format!("Rate limit reached: {most} requests are under way.");
            ("requests_in_flight_exceeded", message, Some(1_000))
        }
    };
    let mut refusal = Refusal::invalid(429, code, message);
    refusal.error.kind = match why {
        Refused::Tokens { .. } => "tokens".to_owned(),
        _ => "requests".to_owned(),
    };
    for (name, value) in terms.told(standing) {
        refusal = refusal.with(name, value);
    }
    match retry_ms {
        Some(retry_ms) => refusal.retry_after(retry_ms),
        None => refusal,
    }
}

/// What is left of a budget may be free again once the requests that hold it are over.
fn held_by_others() -> Refusal {
    let message =
        "What is left of the month's budget is held by requests under way; try again later.";
    Refusal::invalid(429, "budget_held", message).retry_after(1_000)
}

/// The store of budgets does not answer, and nothing is to be had for nothing.
pub fn away() -> Refusal {
    Refusal::server(
        503,
        "budget_unavailable",
        "Budgets can't be looked at just now, and no model costs nothing.",
    )
    .retry_after(1_000)
}
