//! What a request gets: which model of its plan, in how many tokens and how much
//! time, or why not.

mod candidates;
mod decision;

use std::collections::BTreeMap;

use weir_dialects::routes::Endpoint;
use weir_wire::ids::PlanName;

use crate::{
    catalogue::{Capability, Catalogue, Model},
    plan::{Feature, Plan},
    provider::ProviderKind,
    refusal::Refusal,
    request::Asked,
};

pub use self::decision::{Decision, Instead};

/// The plans, the catalogue that they are granted from, and what its providers
/// are.
#[derive(Debug, Clone)]
pub struct Offer {
    plans: BTreeMap<PlanName, Plan>,
    catalogue: Catalogue,
    providers: BTreeMap<String, ProviderKind>,
}

/// How much of a name that a client sent is repeated to it.
const SHOWN_CHARS: usize = 100;

impl Offer {
    /// Joins them.
    ///
    /// # Errors
    /// A message that names the plan and the field where a plan names what the
    /// catalogue does not have.
    pub fn new(
        plans: BTreeMap<PlanName, Plan>,
        catalogue: Catalogue,
        providers: BTreeMap<String, ProviderKind>,
    ) -> Result<Self, String> {
        for (name, plan) in &plans {
            plan.validate_models(&catalogue)
                .map_err(|message| format!("plans.{name}.{message}"))?;
        }
        Ok(Self {
            plans,
            catalogue,
            providers,
        })
    }

    /// The plan of that name.
    #[must_use]
    pub fn plan(&self, name: &PlanName) -> Option<&Plan> {
        self.plans.get(name)
    }

    /// All models there are.
    #[must_use]
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// The models that the plan has, in the catalogue's order. None for a plan
    /// that the router does not know.
    pub fn models<'a>(&'a self, plan: &PlanName) -> impl Iterator<Item = &'a Model> + use<'a> {
        let plan = self.plans.get(plan);
        self.catalogue
            .models
            .iter()
            .filter(move |m| plan.is_some_and(|p| p.has(m)))
    }

    /// What a request of a plan's gets.
    ///
    /// # Errors
    /// 404 for a model that nobody has; 403 for one that the plan lacks (it
    /// names those that it has) and for features that it lacks; 400 for a model
    /// that does not answer this call, or can't do what is asked.
    pub fn decide(&self, plan_name: &PlanName, asked: &Asked) -> Result<Decision, Refusal> {
        let view = self.view(plan_name, asked)?;
        let (model, instead) = view.granted()?;
        view.decision(model, instead)
    }

    fn view<'a>(&'a self, plan_name: &'a PlanName, asked: &'a Asked) -> Result<View<'a>, Refusal> {
        let plan = self.plans.get(plan_name);
        let Some(plan) = plan.filter(|_| self.models(plan_name).next().is_some()) else {
            return Err(Refusal::invalid(
                403,
                "plan_without_models",
                format!("The plan {plan_name} has no models."),
            ));
        };
        Ok(View {
            offer: self,
            name: plan_name,
            plan,
            asked,
        })
    }

    fn kind(&self, model: &Model) -> ProviderKind {
        // The catalogue was validated against the providers' names.
        self.providers
            .get(&model.provider)
            .copied()
            .unwrap_or(ProviderKind::OpenAiCompatible)
    }
}

/// One request before one plan.
struct View<'a> {
    offer: &'a Offer,
    name: &'a PlanName,
    plan: &'a Plan,
    asked: &'a Asked,
}

impl<'a> View<'a> {
    /// The model that it gets while there is money and all goes well.
    fn granted(&self) -> Result<(&'a Model, Option<Instead>), Refusal> {
        let (model, instead) = self.model()?;
        self.check_features(model)?;
        Ok((model, instead))
    }

    fn decision(&self, model: &Model, instead: Option<Instead>) -> Result<Decision, Refusal> {
        let kind = self.offer.kind(model);
        let (max_tokens, bounded) = self.tokens(model, kind)?;
        Ok(Decision {
            model: model.name.clone(),
            upstream: model.upstream().to_owned(),
            tier: model.tier,
            provider: model.provider.clone(),
            kind,
            endpoint: kind.endpoint_for(self.asked.endpoint),
            instead,
            max_tokens,
            bounded,
            prices: model.prices,
            context_tokens: model.context_tokens,
            max_output_tokens: model.max_output_tokens,
            timeout: self.plan.timeout(),
            stream_total: self.plan.stream_total(),
        })
    }

    fn serves(&self, model: &Model) -> bool {
        let spoken = self.offer.kind(model).dialect();
        model.serves(self.asked.endpoint, spoken)
    }

    /// The names that its tenants may ask for, of the models for this call that
    /// are `fit`.
    fn has(&self, fit: impl Fn(&Model) -> bool) -> String {
        let names: Vec<&str> = self
            .offer
            .models(self.name)
            .filter(|m| self.serves(m) && fit(m))
            .map(|m| m.name.as_str())
            .collect();
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    }

    fn model(&self) -> Result<(&'a Model, Option<Instead>), Refusal> {
        let (plan, name) = (self.plan, self.name);
        let asked = self.asked.model.as_str();
        let shown: String = asked.chars().take(SHOWN_CHARS).collect();
        let aliased = plan.aliases.get(asked);
        let wanted = aliased.map_or(asked, String::as_str);
        let Some(model) = self.offer.catalogue.find(wanted) else {
            let message = format!("The model `{shown}` does not exist.");
            return Err(Refusal::invalid(404, "model_not_found", message).at("model"));
        };
        if !self.serves(model) {
            let message = format!(
                "The model `{shown}` does not serve this endpoint; the plan {name} has {} for it.",
                self.has(|_| true)
            );
            return Err(Refusal::invalid(400, "model_not_supported", message).at("model"));
        }
        if plan.has(model) {
            return Ok((model, aliased.map(|_| Instead::Alias)));
        }
        let default = plan.default_model.as_deref();
        if let Some(model) = default.and_then(|d| self.offer.catalogue.find(d))
            && self.serves(model)
        {
            return Ok((model, Some(Instead::NotInPlan)));
        }
        let message = format!(
            "The plan {name} does not have the model `{shown}`; it has {}.",
            self.has(|_| true)
        );
        Err(Refusal::invalid(403, "model_not_in_plan", message).at("model"))
    }

    fn check_features(&self, model: &Model) -> Result<(), Refusal> {
        let asked = self.asked;
        let uses = [
            (
                asked.uses.tools,
                "tools",
                Some(Feature::Tools),
                Some(Capability::Tools),
            ),
            (
                asked.uses.images,
                "messages",
                Some(Feature::Images),
                Some(Capability::Images),
            ),
            (
                asked.uses.json,
                "response_format",
                None,
                Some(Capability::Json),
            ),
            (
                asked.uses.json_object,
                "response_format",
                None,
                Some(Capability::JsonObject),
            ),
            (asked.uses.rag, "retrieval", Some(Feature::Rag), None),
        ];
        for (used, param, feature, capability) in uses {
            if !used {
                continue;
            }
            if let Some(feature) = feature
                && !self.plan.features.contains(&feature)
            {
                let has: Vec<&str> = self.plan.features.iter().map(|f| f.as_str()).collect();
                let has = if has.is_empty() {
                    "none".to_owned()
                } else {
                    has.join(", ")
                };
                let message = format!(
                    "The plan {} does not have {}; of such features it has {has}.",
                    self.name,
                    feature.as_str(),
                );
                return Err(Refusal::invalid(403, "feature_not_in_plan", message).at(param));
            }
            let Some(capability) = capability.filter(|c| !model.can(*c)) else {
                continue;
            };
            let what = match capability {
                Capability::Tools => "call tools",
                Capability::Images => "see images",
                Capability::JsonObject => "answer in any JSON object; it may by a schema",
                _ => "answer in JSON by a schema",
            };
            let message = format!(
                "The model `{}` can't {what}; of the plan {} these can: {}.",
                model.name,
                self.name,
                self.has(|m| m.can(capability))
            );
            return Err(Refusal::invalid(400, "model_not_supported", message).at(param));
        }
        if asked.uses.rag {
            let message = "Retrieval is not served yet.";
            return Err(Refusal::invalid(400, "unsupported_parameter", message).at("retrieval"));
        }
        Ok(())
    }

    /// The most tokens of the answer, and whether that is the router's word.
    fn tokens(&self, model: &Model, kind: ProviderKind) -> Result<(Option<u64>, bool), Refusal> {
        let endpoint = self.asked.endpoint;
        if !endpoint.streams() {
            return Ok((None, false));
        }
        let in_all = self
            .plan
            .max_tokens
            .map_or(model.max_output_tokens, |m| m.min(model.max_output_tokens));
        let choices = self.asked.choices.max(1);
        let most = in_all.checked_div(choices).unwrap_or(in_all);
        if most == 0 {
            let message = format!(
                "The plan {} has {in_all} tokens for the answers of a request to {}, which are not enough for {choices}.",
                self.name, model.name
            );
            return Err(Refusal::invalid(400, "invalid_value", message).at("n"));
        }
        let bound = match self.asked.max_tokens {
            Some(asked) => (Some(asked.min(most)), asked > most),
            // OpenAI's own default there is sixteen.
            None if endpoint == Endpoint::Completions && kind == ProviderKind::OpenAi => {
                (None, false)
            }
            // What must name a bound gets one.
            None if self.plan.max_tokens.is_some() || kind == ProviderKind::Anthropic => {
                (Some(most), true)
            }
            None => (None, false),
        };
        let thinking = self.asked.thinking_tokens;
        match (thinking, bound) {
            (Some(thinking), (Some(tokens), true)) if thinking >= tokens => {
                let message = format!(
                    "The plan {} has {tokens} tokens for an answer of {}, thinking included; found {thinking} for thinking.",
                    self.name, model.name
                );
                let refusal = Refusal::invalid(400, "invalid_value", message);
                Err(refusal.at("thinking.budget_tokens"))
            }
            _ => Ok(bound),
        }
    }
}

#[cfg(test)]
mod tests;
