//! What every service of Weir does as a process, decided once: where logs go,
//! what time it is, how it says that it listens, how it serves and when it stops,
//! where secrets come from, who bears one, and how it speaks TLS.

mod bearer;
#[cfg(feature = "grpc")]
pub mod grpc;
mod serve;
mod stamp;
mod tls;

use std::{
    fs, io,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

pub use bearer::bears;
pub use serve::{StillOpen, serve, serve_tls, serve_tls_with, serve_with};
pub use stamp::Stamp;
pub use tls::{ClientCertificate, Tls, TlsError, TlsFiles};

use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The wall clock: milliseconds of the Unix epoch, UTC.
#[must_use]
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or(0)
}

/// Sends logs to standard error, in colour on a terminal; `RUST_LOG` filters
/// them, `info` where it is not set.
pub fn init_logs() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
}

/// Writes a file in one step, so that a reader never sees half of it.
///
/// # Errors
/// Where the folder can't be written.
pub fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = PathBuf::from(partial);
    fs::write(&partial, text)?;
    fs::rename(&partial, path)
}

/// The signals that ask a process to stop: SIGTERM and SIGINT.
#[derive(Debug)]
pub struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    /// Listens from now on: whoever reads the ready file may signal at once, so
    /// this comes before it is written.
    ///
    /// # Errors
    /// Where the handlers can't be installed.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Returns when one of them came.
    pub async fn wait(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// A variable that must be in the environment is not.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the environment variable {0} is not set")]
pub struct NotSet(pub String);

/// A secret, which comes from the environment and must not be empty.
///
/// # Errors
/// [`NotSet`], which names the variable.
pub fn secret(name: &str) -> Result<String, NotSet> {
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => Ok(value),
        _ => Err(NotSet(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_whole_and_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ready");
        write_whole(&path, "127.0.0.1:1").unwrap();
        write_whole(&path, "127.0.0.1:2").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "127.0.0.1:2");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_secret_that_is_missing_is_named() {
        let error = secret("WEIR_NO_SUCH_VARIABLE").unwrap_err().to_string();
        assert!(error.contains("WEIR_NO_SUCH_VARIABLE"), "{error}");
    }
}
