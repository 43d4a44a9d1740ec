//! What one worker of the gateway knows.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};

use proxy_wasm::types::Bytes;
use weir_plugin_host::{
    clock::{self, Randomness},
    config,
    turn::Tick,
};
use weir_tenant_identification_core::{
    Config,
    config::{DirectoryConfig, Setup},
    jwt::SharedKeys,
    key_hashes::KeyHashes,
    tenants::{Follower, Settings, Store},
    tokens::Tokens,
};
use weir_wire::{
    directory::TOKEN_ENVIRONMENT,
    host::HostKind,
    keys::{self, Keyring},
};

use crate::{NAME, board::HostBoard, checker::HostChecker, metrics::Metrics, request};

/// The most requests of one worker that wait for keys.
const WAITING_MAX: usize = 1000;

/// A request that waits for its issuer's keys.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    /// Its context.
    pub id: u32,
    /// Whose keys.
    pub issuer: usize,
}

/// Everything but the root context itself.
pub struct State {
    pub setup: Setup,
    pub keys: Keyring,
    pub checker: HostChecker,
    pub tokens: RefCell<Tokens>,
    pub key_hashes: RefCell<KeyHashes>,
    /// The tenants of the configuration.
    pub inline: Store,
    /// The tenants of the router's directory.
    pub follower: Option<RefCell<Follower>>,
    pub directory: Option<Directory>,
    pub shared_keys: SharedKeys,
    pub board: HostBoard,
    pub metrics: Metrics,
    pub randomness: RefCell<Randomness>,
    pub waiting: RefCell<Vec<Waiting>>,
    /// Issuers whose keys a request asked for, and which it had found.
    pub wanted: RefCell<BTreeMap<usize, u32>>,
    pub tick: Tick,
    /// Whether the directory has been loaded.
    pub loaded: Cell<bool>,
    /// What was last said of the directory in the log.
    pub told: RefCell<String>,
}

/// Where the directory is asked for.
pub struct Directory {
    pub config: DirectoryConfig,
    /// `Bearer …`
    pub authorization: String,
}

impl State {
    /// Loads the configuration.
    ///
    /// # Errors
    /// A message for the log.
    pub fn load(configuration: Option<Bytes>) -> Result<Self, String> {
        let named = |e: String| format!("{NAME}: {e}");
        let config: Config = config::parse(NAME, configuration.as_deref())?;
        let host = config.host;
        let secrets = config::environment(NAME, keys::ENVIRONMENT)?;
        let keys = Keyring::parse(&secrets).map_err(|e| named(e.to_string()))?;
        let validated = config
            .validate(
                |variable| config::environment(NAME, variable),
                &cache_key(&keys)?,
            )
            .map_err(named)?;
        let directory = validated
            .directory
            .map(|config| {
                let token = config::environment(NAME, TOKEN_ENVIRONMENT)?;
                Ok::<_, String>(Directory {
                    config,
                    authorization: format!("Bearer {token}"),
                })
            })
            .transpose()?;
        let fixed = host == HostKind::Kong;
        Ok(Self {
            keys,
            checker: HostChecker(host),
            board: HostBoard(host),
            metrics: Metrics::define(validated.tokens.issuers.len()),
            follower: directory.as_ref().map(|d| {
                RefCell::new(Follower::new(Settings {
                    // Routers that differ by their authority alone differ, too.
                    namespace: format!(
                        "{}/{}",
                        d.config.cluster,
                        d.config.authority.as_deref().unwrap_or_default()
                    ),
                    fixed,
                    poll_ms: d.config.poll_ms,
                    timeout_ms: d.config.timeout_ms,
                }))
            }),
            directory,
            shared_keys: SharedKeys::new(fixed),
            setup: validated.setup,
            tokens: RefCell::new(validated.tokens),
            key_hashes: RefCell::new(validated.key_hashes),
            inline: validated.store,
            randomness: RefCell::default(),
            waiting: RefCell::default(),
            wanted: RefCell::default(),
            tick: Tick::default(),
            loaded: Cell::new(false),
            told: RefCell::default(),
        })
    }

    /// Lets a request wait for its issuer's keys; false where it must not. That
    /// the keys are asked for is noted either way.
    pub fn wait(&self, id: u32, issuer: usize) -> bool {
        let generation = self.tokens.borrow().issuers.generation(issuer);
        self.wanted.borrow_mut().insert(issuer, generation);
        let mut waiting = self.waiting.borrow_mut();
        let may = request::can_wait(self.setup.host) && waiting.len() < WAITING_MAX;
        if may {
            waiting.push(Waiting { id, issuer });
        }
        may
    }
}

/// A secret of this worker's own. Kong's randomness alone could be guessed.
fn cache_key(keys: &Keyring) -> Result<[u8; 16], String> {
    let random = clock::random::<16>();
    let random = random.ok_or_else(|| format!("{NAME}: the host has no randomness"))?;
    let mac = keys.signing().sign(&[b"token cache", &random[..]].concat());
    let half = mac.first_chunk();
    half.copied().ok_or_else(|| format!("{NAME}: no key"))
}
