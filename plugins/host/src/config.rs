//! Loading of plugin configuration and of secrets.

use proxy_wasm::{hostcalls, types::LogLevel};
use serde::de::DeserializeOwned;
use weir_wire::shown;

/// Reads a filter's JSON configuration.
///
/// # Errors
/// A message that names the filter, the field, what was found and what is
/// allowed; the caller logs it and refuses the configuration.
pub fn parse<T: DeserializeOwned>(filter: &str, bytes: Option<&[u8]>) -> Result<T, String> {
    let bytes = bytes.unwrap_or_default();
    let json = &mut serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(json).map_err(|e| {
        let inner = shown::shorten(&e.inner().to_string());
        format!("{filter}: configuration: {}: {inner}", e.path())
    })
}

/// Reads a variable of the VM's environment, which `vm_config` fills from the
/// gateway's by `environment_variables.host_env_keys`.
///
/// # Errors
/// A message that names the variable.
pub fn environment(filter: &str, name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|_| {
        format!("{filter}: {name} is not in the VM's environment (vm_config.environment_variables.host_env_keys)")
    })
}

/// Logs why a configuration is refused and answers what `on_configure` returns.
#[must_use]
pub fn accept(outcome: Result<(), String>) -> bool {
    match outcome {
        Ok(()) => true,
        Err(message) => {
            log(LogLevel::Error, &message);
            false
        }
    }
}

/// Writes to the host's log. What must not be in it: secrets, keys, tokens,
/// prompts.
pub fn log(level: LogLevel, message: &str) {
    // A log that can't be written has nowhere to say so.
    let _ = hostcalls::log(level, message);
}
