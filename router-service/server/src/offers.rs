//! What there is to be had just now: plans and catalogue, each replaced as its
//! file changes, never to a state in which they do not fit together.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use tokio_util::sync::CancellationToken;
use weir_router_core::{catalogue::Catalogue, offer::Offer, plan::Plan, provider::ProviderKind};
use weir_wire::ids::PlanName;

use crate::watched::Watched;

/// How often the catalogue's file is looked at.
const POLL: Duration = Duration::from_secs(1);

type Plans = BTreeMap<PlanName, Plan>;

/// What there is, shared between requests and whatever replaces parts of it.
pub struct Offers {
    current: RwLock<Arc<Offer>>,
    parts: Mutex<Parts>,
}

struct Parts {
    /// Of the router's configuration.
    configured: Plans,
    /// Of the directory's file.
    listed: Plans,
    catalogue: Catalogue,
    providers: BTreeMap<String, ProviderKind>,
}

impl Parts {
    fn join(&self) -> Result<Offer, String> {
        let mut plans = self.configured.clone();
        plans.extend(self.listed.clone());
        Offer::new(plans, self.catalogue.clone(), self.providers.clone())
    }
}

impl Offers {
    /// Joins what was validated part by part.
    ///
    /// # Errors
    /// A message that names the field that does not fit.
    pub fn new(
        configured: Plans,
        catalogue: Catalogue,
        providers: BTreeMap<String, ProviderKind>,
    ) -> Result<Self, String> {
        let parts = Parts {
            configured,
            listed: Plans::new(),
            catalogue,
            providers,
        };
        Ok(Self {
            current: RwLock::new(Arc::new(parts.join()?)),
            parts: Mutex::new(parts),
        })
    }

    /// What there is now.
    pub fn current(&self) -> Arc<Offer> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, offer: Offer) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(offer);
    }

    /// Replaces the catalogue, if it has what the plans name.
    pub fn set_catalogue(&self, catalogue: Catalogue) -> Result<(), String> {
        let mut parts = self.parts();
        let names: Vec<&str> = parts.providers.keys().map(String::as_str).collect();
        catalogue.validate(&names)?;
        let before = std::mem::replace(&mut parts.catalogue, catalogue);
        match parts.join() {
            Ok(offer) => {
                self.publish(offer);
                Ok(())
            }
            Err(message) => {
                parts.catalogue = before;
                Err(message)
            }
        }
    }

    /// Whether the directory's plans fit the catalogue.
    pub fn check_plans(&self, listed: &Plans) -> Result<(), String> {
        let parts = self.parts();
        for (name, plan) in listed {
            plan.validate_models(&parts.catalogue)
                .map_err(|message| format!("plans.{name}.{message}"))?;
        }
        Ok(())
    }

    /// Replaces the directory's plans, if the catalogue has what they name.
    pub fn set_plans(&self, listed: Plans) -> Result<(), String> {
        let mut parts = self.parts();
        if parts.listed == listed {
            return Ok(());
        }
        let before = std::mem::replace(&mut parts.listed, listed);
        match parts.join() {
            Ok(offer) => {
                self.publish(offer);
                Ok(())
            }
            Err(message) => {
                parts.listed = before;
                Err(message)
            }
        }
    }

    /// Watches the catalogue's file until `stopping`.
    pub async fn watch_catalogue(
        self: Arc<Self>,
        mut file: CatalogueFile,
        stopping: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(POLL) => {}
            }
            let Some(text) = file.0.changed().await else {
                continue;
            };
            let path = file.0.path().display();
            let replaced = text.and_then(|text| {
                let catalogue = parse(&text)?;
                self.set_catalogue(catalogue).map_err(|m| anyhow!(m))
            });
            match replaced {
                Ok(()) => tracing::info!("{path}: serving a new catalogue"),
                Err(error) => {
                    tracing::error!("{path}: {error:#}; the catalogue before goes on");
                }
            }
        }
    }
}

/// The catalogue's file, and what it held last.
pub struct CatalogueFile(Watched);

impl CatalogueFile {
    /// Reads it for the first time; it is validated with the plans.
    pub fn open(path: PathBuf) -> anyhow::Result<(Self, Catalogue)> {
        let shown = path.display().to_string();
        let (watched, text) = Watched::open(path)?;
        let catalogue = parse(&text).context(shown)?;
        Ok((Self(watched), catalogue))
    }
}

fn parse(text: &str) -> anyhow::Result<Catalogue> {
    serde_saphyr::from_str(text).map_err(|e| anyhow!("{e}"))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    fn catalogue(model: &str) -> Catalogue {
        let text = format!(
            "prices_as_of: '2026-11-01'\nmodels:\n  - {{name: {model}, provider: p, tier: fast, capabilities: [chat], \
             context_tokens: 9, max_output_tokens: 9, prices: {{input: 1, output: 1}}}}\n"
        );
        parse(&text).unwrap()
    }

    fn plans(text: &str) -> Plans {
        serde_saphyr::from_str(text).unwrap()
    }

    /// One model, `m`, and a plan that has it.
    pub fn offers() -> Arc<Offers> {
        let providers = [("p".to_owned(), ProviderKind::OpenAi)].into();
        let configured = plans("p: {tiers: [fast]}");
        Arc::new(Offers::new(configured, catalogue("m"), providers).unwrap())
    }

    #[test]
    fn parts_are_replaced_only_where_they_fit() {
        let offers = offers();
        let team = PlanName::new("team").unwrap();
        let listed = plans("team: {models: [m]}");
        offers.check_plans(&listed).unwrap();
        offers.set_plans(listed).unwrap();
        assert_eq!(offers.current().models(&team).count(), 1);
        // A plan of the directory names what would be gone.
        let error = offers.set_catalogue(catalogue("other")).unwrap_err();
        assert!(error.contains("plans.team.models[0]"), "{error}");
        assert!(offers.current().catalogue().find("m").is_some());
        let wrong = plans("team: {models: [x]}");
        assert!(offers.check_plans(&wrong).is_err() && offers.set_plans(wrong).is_err());
        assert_eq!(offers.current().models(&team).count(), 1);
        offers.set_plans(Plans::new()).unwrap();
        assert_eq!(offers.current().models(&team).count(), 0);
        offers.set_catalogue(catalogue("other")).unwrap();
        assert!(offers.current().catalogue().find("other").is_some());
        let error = offers.set_catalogue(parse("prices_as_of: x\nmodels: []").unwrap());
        assert!(error.unwrap_err().contains("prices_as_of"));
    }
}
