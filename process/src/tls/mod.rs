//! TLS by configuration: a certificate, its key, and, where clients must show one,
//! the authorities of theirs. The files are followed while the service runs.

mod client;
mod load;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

pub use client::ClientCertificate;

use rustls::ServerConfig;
use serde::Deserialize;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::Stamp;

/// How long a client may take for its handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// How often the files are looked at, at the most: with the first connection
/// after that.
const LOOK: Duration = Duration::from_secs(1);

/// The section `tls` of a listener's configuration: PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The service's certificate, and those between it and its authority.
    pub cert: PathBuf,
    /// Its private key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// The authorities of clients. Where it is set, who has no certificate of
    /// theirs is refused.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

impl TlsFiles {
    /// The same, with relative paths from `base`.
    #[must_use]
    pub fn beside(self, base: &Path) -> Self {
        Self {
            cert: base.join(self.cert),
            key: base.join(self.key),
            client_ca: self.client_ca.map(|path| base.join(path)),
        }
    }
}

/// Why TLS can't be served. No message repeats what stands in a file.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("{field}: {}: cannot be read", path.display())]
    Read {
        /// Such as `tls.key`.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it must be.
    #[error("{field}: {}: {message}", path.display())]
    Wrong {
        /// Such as `tls.key`.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// What was found and what is allowed.
        message: String,
    },
}

struct State {
    config: Arc<ServerConfig>,
    stamps: Vec<Option<Stamp>>,
    looked: Instant,
}

/// The TLS side of a listener. Copies share what was loaded.
#[derive(Clone)]
pub struct Tls {
    files: Arc<TlsFiles>,
    state: Arc<Mutex<State>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`], which names the field and the file.
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let stamps = stamps(&files);
        let state = State {
            config: load::config(&files)?,
            stamps,
            looked: Instant::now(),
        };
        Ok(Self {
            files: Arc::new(files),
            state: Arc::new(Mutex::new(state)),
        })
    }

    /// Whether a client must show a certificate.
    #[must_use]
    pub fn asks_for_clients(&self) -> bool {
        self.files.client_ca.is_some()
    }

    // A panic under the lock cannot leave a state half replaced.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shakes hands with a client, by the files as they are now; gives the client's
    /// certificate, too, where one was asked for.
    ///
    /// # Errors
    /// Where the client does not agree, or takes longer than 10 s.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, Option<ClientCertificate>)> {
        let shaken = async {
            let acceptor = TlsAcceptor::from(self.current().await);
            acceptor.accept(stream).await
        };
        let stream = tokio::time::timeout(HANDSHAKE_TIME, shaken).await??;
        let shown = stream.get_ref().1.peer_certificates();
        let client = shown
            .and_then(|certificates| certificates.first())
            .map(ClientCertificate::of);
        Ok((stream, client))
    }

    /// What to serve by. The files are looked at if that was not done within the
    /// last second, off the threads that serve.
    async fn current(&self) -> Arc<ServerConfig> {
        {
            let mut state = self.state();
            if state.looked.elapsed() < LOOK {
                return Arc::clone(&state.config);
            }
            // Whoever comes meanwhile goes on with what there is.
            state.looked = Instant::now();
        }
        let tls = self.clone();
        let looked = tokio::task::spawn_blocking(move || tls.look()).await;
        looked.unwrap_or_else(|_| Arc::clone(&self.state().config))
    }

    /// Loads what changed. What is broken is told once, and what was served before
    /// goes on.
    fn look(&self) -> Arc<ServerConfig> {
        let stamps = stamps(&self.files);
        if self.state().stamps == stamps {
            return Arc::clone(&self.state().config);
        }
        let loaded = load::config(&self.files);
        let mut state = self.state();
        state.stamps = stamps;
        match loaded {
            Ok(config) => {
                tracing::info!(cert = %self.files.cert.display(), "serving by new TLS files");
                state.config = config;
            }
            Err(error) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                let why = source.unwrap_or_default();
                tracing::error!(why, "the TLS files stay as they were: {error}");
            }
        }
        Arc::clone(&state.config)
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

fn stamps(files: &TlsFiles) -> Vec<Option<Stamp>> {
    [
        Some(&files.cert),
        Some(&files.key),
        files.client_ca.as_ref(),
    ]
    .into_iter()
    .flatten()
    .map(|path| Stamp::of(path))
    .collect()
}

#[cfg(test)]
mod tests;
