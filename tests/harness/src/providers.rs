//! The three providers of a stack: real ones where the environment names them, the
//! fakes otherwise.

use std::{collections::BTreeMap, path::Path};

use crate::{
    parts::{self, Service},
    secrets,
};

/// The names of the providers in the router's configuration.
pub const PROVIDERS: [&str; 3] = ["anthropic", "openai", "self-hosted"];

/// A provider that is no fake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Real {
    /// Its address, `/v1` included.
    pub base: String,
    /// The router's key there, where it needs one.
    pub key: Option<String>,
}

/// One provider of a stack.
#[derive(Debug)]
pub struct Provider {
    /// Its address, `/v1` included.
    pub base: String,
    /// The router's key there; none at the self-hosted one, unless it is real.
    pub key: Option<String>,
    /// The fake, where it is one.
    pub fake: Option<Service>,
}

/// All of [`PROVIDERS`], by name.
#[derive(Debug)]
pub struct Providers(BTreeMap<&'static str, Provider>);

impl Providers {
    /// Starts the fakes of those that are not `real`.
    ///
    /// # Errors
    /// Where one does not start.
    pub fn start(real: &BTreeMap<&'static str, Real>, folder: &Path) -> anyhow::Result<Self> {
        let start = |name| {
            let provider = match real.get(name) {
                Some(real) => Provider {
                    base: real.base.clone(),
                    key: real.key.clone(),
                    fake: None,
                },
                None => fake(name, folder)?,
            };
            Ok((name, provider))
        };
        PROVIDERS
            .into_iter()
            .map(start)
            .collect::<anyhow::Result<_>>()
            .map(Self)
    }

    /// None that answers, for a router that calls none.
    #[must_use]
    pub fn none() -> Self {
        Self::at("http://127.0.0.1:9/v1")
    }

    /// All at one address, `/v1` included, that takes any key.
    #[must_use]
    pub fn at(base: &str) -> Self {
        let one = |name| {
            let provider = Provider {
                base: base.to_owned(),
                key: Some("any".to_owned()),
                fake: None,
            };
            (name, provider)
        };
        Self(PROVIDERS.into_iter().map(one).collect())
    }

    /// The one of that name.
    ///
    /// # Panics
    /// For a name that is none of [`PROVIDERS`].
    #[must_use]
    pub fn get(&self, name: &str) -> &Provider {
        self.0.get(name).expect("one of PROVIDERS")
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Provider)> {
        self.0.iter().map(|(name, provider)| (*name, provider))
    }

    /// The fakes among them.
    pub fn fakes_mut(&mut self) -> impl Iterator<Item = &mut Service> {
        self.0.values_mut().filter_map(|p| p.fake.as_mut())
    }
}

fn fake(name: &'static str, folder: &Path) -> anyhow::Result<Provider> {
    let key = (name != "self-hosted").then(secrets::random);
    let fake = parts::provider(name, key.as_deref(), folder)?;
    Ok(Provider {
        base: format!("{}/v1", fake.url()),
        key,
        fake: Some(fake),
    })
}

/// The variable that a provider's key comes by.
#[must_use]
pub fn key_variable(name: &str) -> String {
    format!("{}_API_KEY", name.to_ascii_uppercase().replace('-', "_"))
}
