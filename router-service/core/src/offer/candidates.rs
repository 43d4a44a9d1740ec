//! Which models a request may be served by, one after the other: by what is left of
//! the tenant's money, and by what may take the place of a model that fails.

use std::collections::{HashSet, VecDeque};

use weir_dialects::routes::Endpoint;
use weir_wire::ids::PlanName;

use super::{Decision, Instead, Offer, View};
use crate::{
    allowance::Purse,
    catalogue::{Capability, Model, Tier},
    refusal::Refusal,
    request::{Asked, Uses},
};

/// Bytes of input for which one token is taken where a candidate's context is
/// compared: OpenAI's rule of thumb for English text.
const BYTES_PER_TOKEN: usize = 4;

impl Offer {
    /// The models that may serve a request of a plan's, the best first. While there
    /// is money the first is that of [`Offer::decide`]; each that follows may take
    /// its place when those before it fail, and none does where the plan does not
    /// want it.
    ///
    /// Others may help where they serve the call, can what it uses, have room for it
    /// and are either of the plan or self-hosted: a model that costs nothing may
    /// always help out. First come the fallbacks, then theirs, and so on, then every
    /// self-hosted model; for embeddings fallbacks alone, because vectors of a model
    /// that nobody named as like it are of no use.
    ///
    /// # Errors
    /// Those of [`Offer::decide`]; 402 where the money is spent and no self-hosted
    /// model can serve the request.
    pub fn candidates(
        &self,
        plan: &PlanName,
        asked: &Asked,
        purse: Purse,
    ) -> Result<Vec<Decision>, Refusal> {
        let view = self.view(plan, asked)?;
        let (granted, instead) = view.granted()?;
        let decided = view.decision(granted, instead)?;
        // Counting tokens costs nothing.
        let purse = match asked.endpoint {
            Endpoint::CountTokens => Purse::Far,
            _ => purse,
        };
        let (first, others) = match purse {
            Purse::Far => (decided, view.helpers(&[granted], |_| true)),
            Purse::Near => view.near(granted, decided),
            Purse::Spent => view.spent(granted, decided)?,
        };
        let mut all = vec![first];
        if view.plan.fallback {
            all.extend(others);
        }
        Ok(all)
    }
}

impl View<'_> {
    /// Without premium models, except for one that nothing can replace.
    fn near(&self, granted: &Model, decided: Decision) -> (Decision, Vec<Decision>) {
        let is_cheap = |model: &Model| model.tier != Tier::Premium;
        let others = self.helpers(&[granted], is_cheap);
        if is_cheap(granted) {
            return (decided, others);
        }
        let of_tier = |tier| others.iter().find(|other| other.tier == tier);
        let Some(cheaper) = of_tier(Tier::Fast).or_else(|| of_tier(Tier::SelfHosted)) else {
            return (decided, others);
        };
        let Some(model) = self.offer.catalogue.find(&cheaper.model) else {
            return (decided, others);
        };
        let first = Decision {
            instead: Some(Instead::BudgetLow),
            ..cheaper.clone()
        };
        // Its own fallbacks are more like it than those of the model that made way.
        (first, self.helpers(&[model, granted], is_cheap))
    }

    /// Self-hosted models alone.
    fn spent(
        &self,
        granted: &Model,
        decided: Decision,
    ) -> Result<(Decision, Vec<Decision>), Refusal> {
        let is_own = |model: &Model| model.tier == Tier::SelfHosted;
        let mut others = self.helpers(&[granted], is_own).into_iter();
        if is_own(granted) {
            return Ok((decided, others.collect()));
        }
        let Some(first) = others.next() else {
            return Err(Refusal::insufficient_quota(format!(
                "The month's budget of the plan {} is spent, and no self-hosted model can serve this request. The next one begins on the first day of the month, in UTC.",
                self.name
            )));
        };
        let first = Decision {
            instead: Some(Instead::BudgetSpent),
            ..first
        };
        Ok((first, others.collect()))
    }

    /// Those that may help where these fail, each once, the best first.
    fn helpers(&self, failed: &[&Model], is_wanted: impl Fn(&Model) -> bool) -> Vec<Decision> {
        let catalogue = &self.offer.catalogue;
        let mut seen: HashSet<&str> = HashSet::new();
        let mut in_order: Vec<&Model> = Vec::new();
        for start in failed {
            let mut next = VecDeque::from([*start]);
            while let Some(model) = next.pop_front() {
                if !seen.insert(&model.name) {
                    continue;
                }
                in_order.push(model);
                next.extend(model.fallbacks.iter().filter_map(|f| catalogue.find(f)));
            }
        }
        if self.asked.endpoint != Endpoint::Embeddings {
            let own = catalogue.models.iter();
            let own = own.filter(|m| m.tier == Tier::SelfHosted);
            in_order.extend(own.filter(|m| seen.insert(&m.name)));
        }
        let mut helpers = Vec::new();
        for model in in_order {
            let is_new = !failed.iter().any(|f| f.name == model.name);
            if is_new && is_wanted(model) {
                helpers.extend(self.helper(model));
            }
        }
        helpers
    }

    /// What the model would do, if it may and can.
    fn helper(&self, model: &Model) -> Option<Decision> {
        let may = self.plan.has(model) || model.tier == Tier::SelfHosted;
        let mut needs = needs(self.asked.uses);
        if !may || !self.serves(model) || !needs.all(|c| model.can(c)) {
            return None;
        }
        let decision = self.decision(model, Some(Instead::Failover)).ok()?;
        self.has_room(&decision).then_some(decision)
    }

    /// Whether the input and one answer fit the model's context. Bytes say nothing of
    /// images' tokens, and inputs to embed are each read by themselves.
    fn has_room(&self, decision: &Decision) -> bool {
        let asked = self.asked;
        if asked.uses.images || !asked.endpoint.streams() {
            return true;
        }
        let input = asked.input_bytes.div_ceil(BYTES_PER_TOKEN);
        let input = u64::try_from(input).unwrap_or(u64::MAX);
        let output = decision.max_tokens.unwrap_or(1);
        input.saturating_add(output) <= decision.context_tokens
    }
}

/// What a model must be able to do for what a request uses.
fn needs(uses: Uses) -> impl Iterator<Item = Capability> {
    let needs = [
        (uses.tools, Capability::Tools),
        (uses.images, Capability::Images),
        (uses.json, Capability::Json),
        (uses.json_object, Capability::JsonObject),
    ];
    needs
        .into_iter()
        .filter_map(|(used, need)| used.then_some(need))
}

#[cfg(test)]
mod tests;
