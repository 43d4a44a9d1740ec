//! What a plan has, and what it is told when it asks for more.

use std::collections::BTreeMap;

use serde::Deserialize;
use weir_dialects::routes::RequestClass;
use weir_wire::ids::PlanName;

use crate::{
    catalogue::{Catalogue, Model, Tier},
    quota::Limits,
    refusal::Refusal,
};

/// One plan.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The tiers whose models it has.
    pub tiers: Vec<Tier>,
    /// How many requests each of its tenants may make; any number where absent.
    #[serde(default)]
    pub limits: Limits,
}

impl Plan {
    /// Checks what types cannot say.
    ///
    /// # Errors
    /// A message that names the field within the plan, what was found and what is
    /// allowed.
    pub fn validate(&self) -> Result<(), String> {
        self.limits.validate()
    }
}

/// The plans and the catalogue that they are granted from.
#[derive(Debug, Clone)]
pub struct Offer {
    plans: BTreeMap<PlanName, Plan>,
    catalogue: Catalogue,
}

impl Offer {
    /// Joins the two, which were validated.
    #[must_use]
    pub fn new(plans: BTreeMap<PlanName, Plan>, catalogue: Catalogue) -> Self {
        Self { plans, catalogue }
    }

    /// The models that the plan has, in the catalogue's order. None for a plan
    /// that the router does not know.
    pub fn models<'a>(&'a self, plan: &PlanName) -> impl Iterator<Item = &'a Model> + use<'a> {
        let tiers = self.plans.get(plan).map(|p| p.tiers.as_slice());
        self.catalogue
            .models
            .iter()
            .filter(move |m| tiers.is_some_and(|t| t.contains(&m.tier)))
    }

    /// The model that a request gets.
    ///
    /// # Errors
    /// 404 for a model that nobody has, 403 for one that the plan lacks (it
    /// names those that it has), 400 for one that does not answer this class.
    pub fn choose(
        &self,
        plan: &PlanName,
        class: RequestClass,
        asked: &str,
    ) -> Result<&Model, Refusal> {
        let shown: String = asked.chars().take(100).collect();
        let model = self.catalogue.find(asked).ok_or_else(|| {
            Refusal::invalid(
                404,
                "model_not_found",
                format!("The model `{shown}` does not exist."),
            )
            .at("model")
        })?;
        let mut has = self.models(plan).peekable();
        if has.peek().is_none() {
            return Err(Refusal::invalid(
                403,
                "plan_without_models",
                format!("The plan {plan} has no models."),
            ));
        }
        let has: Vec<&str> = has
            .filter(|m| m.serves(class))
            .map(|m| m.name.as_str())
            .collect();
        if !model.serves(class) {
            return Err(Refusal::invalid(
                400,
                "model_not_supported",
                format!(
                    "The model `{shown}` does not serve this endpoint; the plan {plan} has {} for it.",
                    has.join(", ")
                ),
            )
            .at("model"));
        }
        if !has.contains(&asked) {
            return Err(Refusal::invalid(
                403,
                "model_not_in_plan",
                format!(
                    "The plan {plan} does not have the model `{shown}`; it has {}.",
                    has.join(", ")
                ),
            )
            .at("model"));
        }
        Ok(model)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn offer() -> Offer {
        let plans = r#"{"enterprise":{"tiers":["premium","fast"]},"starter":{"tiers":["fast"]}}"#;
        let catalogue = r#"{"models":[
            {"name":"big","provider":"p","tier":"premium","capability":"chat"},
            {"name":"mini","provider":"p","tier":"fast","capability":"chat"},
            {"name":"embed","provider":"p","tier":"fast","capability":"embedding"}]}"#;
        Offer::new(
            serde_json::from_str(plans).unwrap(),
            serde_json::from_str(catalogue).unwrap(),
        )
    }

    #[track_caller]
    fn check(plan: &str, class: RequestClass, asked: &str, expected: Result<(), (u16, &str)>) {
        let offer = offer();
        let found = offer.choose(&PlanName::new(plan).unwrap(), class, asked);
        match (found, expected) {
            (Ok(model), Ok(())) => assert_eq!(model.name, asked),
            (Err(refusal), Err((status, says))) => {
                assert_eq!(refusal.status, status);
                assert!(refusal.error.message.contains(says), "{refusal:?}");
            }
            (found, expected) => panic!("{found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn a_plan_gets_its_tiers() {
        check("enterprise", RequestClass::Chat, "big", Ok(()));
        check("starter", RequestClass::Chat, "mini", Ok(()));
        check("starter", RequestClass::Embedding, "embed", Ok(()));
    }

    #[test]
    fn a_refusal_says_what_there_is() {
        let chat = RequestClass::Chat;
        check("starter", chat, "big", Err((403, "it has mini.")));
        check("starter", chat, "nope", Err((404, "`nope`")));
        check("starter", chat, "embed", Err((400, "has mini")));
        check(
            "starter",
            RequestClass::Embedding,
            "big",
            Err((400, "has embed")),
        );
        check("unknown", chat, "mini", Err((403, "unknown has no models")));
    }

    #[test]
    fn models_are_listed_by_plan() {
        let names = |plan: &str| -> Vec<String> {
            let plan = PlanName::new(plan).unwrap();
            offer().models(&plan).map(|m| m.name.clone()).collect()
        };
        assert_eq!(names("starter"), ["mini", "embed"]);
        assert_eq!(names("enterprise"), ["big", "mini", "embed"]);
        assert!(names("other").is_empty());
    }
}
