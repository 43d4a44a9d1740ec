//! By which way a command reaches the books: through the aggregator that runs, or, where
//! none does, in its data folder.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::watch,
    task::JoinHandle,
};
use weir_meter_store::stream::Mark;

use crate::{
    api::Parts,
    config::{self, ADMIN_ENVIRONMENT, For, Settings},
    fleet::Fleet,
    operations::{Operation, Refused, perform},
    rounds,
    service::{ADDRESS_FILE, lock},
};

/// The longest that an answer may take: that of `close-hour` waits for Stripe.
const ANSWER_MAX: Duration = Duration::from_secs(150);

/// The longest that a proof may take: it walks all of the journal.
const PROOF_MAX: Duration = Duration::from_secs(3_600);

/// How long it is tried again where the aggregator is busy, or starts anew.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a command that ends waits until its leases are given back.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// The way to the books.
pub enum Reach {
    /// The aggregator that runs.
    Running(Running),
    /// The data folder, which nobody else has as long as the lock is held.
    Offline {
        /// What works on it.
        parts: Box<Parts>,
        /// Whether Stripe can be asked; its key may not be there.
        has_stripe_key: bool,
        _in_place: Option<InPlace>,
        _lock: File,
    },
}

/// An aggregator that runs.
pub struct Running {
    http: reqwest::Client,
    data_dir: PathBuf,
}

impl Reach {
    /// Looks who has the data folder.
    pub async fn open(config: &Path) -> anyhow::Result<Self> {
        let file = config::read(config)?;
        let (data_dir, is_shared) = (file.data_dir.clone(), file.is_shared());
        if is_shared {
            std::fs::create_dir_all(&data_dir)
                .with_context(|| format!("data_dir: cannot create {}", data_dir.display()))?;
        } else if !data_dir.is_dir() {
            bail!("data_dir: no aggregator has run on {}", data_dir.display());
        }
        match lock(&data_dir)? {
            Some(lock) => {
                let settings = config::load(config, For::Command)?;
                Self::offline(settings, lock).await
            }
            None => Ok(Self::Running(Running::new(data_dir)?)),
        }
    }

    /// Works on the folder, or on what replicas share. Where none of these lives, this
    /// process takes their part for as long as it lasts.
    async fn offline(mut settings: Settings, lock: File) -> anyhow::Result<Self> {
        let has_stripe_key = !settings.stripe.api_key.is_empty();
        // Nobody listens there any more: who comes meanwhile is not to call it.
        let _ = std::fs::remove_file(settings.data_dir.join(ADDRESS_FILE));
        settings.mark = Mark::NONE;
        let opened = Parts::open(settings, For::Command).await?;
        opened.parts.refuse_moved().await?;
        let in_place = match opened.fleet {
            Some(fleet) if !fleet.others_live().await? => {
                Some(InPlace::begin(fleet, &opened.parts).await?)
            }
            _ => None,
        };
        Ok(Self::Offline {
            has_stripe_key,
            parts: Box::new(opened.parts),
            _in_place: in_place,
            _lock: lock,
        })
    }

    /// Refuses where Stripe would have to be asked and can't be.
    pub fn needs_stripe(&self) -> anyhow::Result<()> {
        match self {
            Self::Offline {
                has_stripe_key: false,
                ..
            } => bail!("stripe.api_key_env: its variable is not set, and Stripe has to be asked"),
            Self::Running(_) | Self::Offline { .. } => Ok(()),
        }
    }

    /// Performs an operation.
    pub async fn perform(&self, operation: Operation) -> Result<Value, Refused> {
        match self {
            Self::Running(running) => running.ask(&operation).await,
            Self::Offline { parts, .. } => perform(parts, operation).await,
        }
    }

    /// Performs an operation that may be repeated, until the aggregator is not busy.
    pub async fn insist(&self, operation: Operation) -> Result<Value, Refused> {
        let begun = tokio::time::Instant::now();
        loop {
            match self.perform(operation.clone()).await {
                Err(Refused::Busy(_)) if begun.elapsed() < PATIENCE => {
                    tokio::time::sleep(PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }
}

/// A command in the place of replicas, of which none lives.
pub struct InPlace {
    stop: watch::Sender<bool>,
    leave: watch::Sender<bool>,
    tasks: Option<[JoinHandle<()>; 2]>,
}

impl InPlace {
    /// Takes all shards, and follows an operator's word on them.
    async fn begin(fleet: Fleet, parts: &Parts) -> anyhow::Result<Self> {
        fleet.take_all().await?;
        let (stop, stopped) = watch::channel(false);
        let (leave, leaving) = watch::channel(false);
        let (sender, books) = (parts.sender.clone(), parts.books.clone());
        let following = tokio::spawn(rounds::close(sender, books, stopped));
        let keeping = tokio::spawn(fleet.run(leaving));
        Ok(Self {
            stop,
            leave,
            tasks: Some([following, keeping]),
        })
    }
}

impl Drop for InPlace {
    /// Gives the leases back, so that the next command, or a replica, need not wait for
    /// their end.
    fn drop(&mut self) {
        self.stop.send_replace(true);
        let (Some([following, keeping]), Ok(runtime)) = (self.tasks.take(), Handle::try_current())
        else {
            return;
        };
        let leave = &self.leave;
        // What is worked on can't be given back.
        let given_back = async move {
            let _ = following.await;
            leave.send_replace(true);
            let _ = keeping.await;
        };
        if runtime.runtime_flavor() == RuntimeFlavor::MultiThread {
            let given_back = tokio::time::timeout(LEAVE_MAX, given_back);
            // Where it takes too long, they end by themselves.
            let _ = tokio::task::block_in_place(|| runtime.block_on(given_back));
        }
    }
}

impl Running {
    fn new(data_dir: PathBuf) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { http, data_dir })
    }

    /// Where it listens; another place after each start.
    pub fn url(&self, path: &str) -> anyhow::Result<String> {
        let file = self.data_dir.join(ADDRESS_FILE);
        let address = std::fs::read_to_string(&file).with_context(|| {
            let file = file.display();
            format!(
                "data_dir: {file} can't be read: another command works there, or one that starts"
            )
        })?;
        Ok(format!("http://{address}{path}"))
    }

    /// For calls of other kinds.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    async fn ask(&self, operation: &Operation) -> Result<Value, Refused> {
        let failed = |error: reqwest::Error| {
            Refused::Failed(format!("{:#}", anyhow::Error::new(error.without_url())))
        };
        let token = weir_process::secret(ADMIN_ENVIRONMENT)
            .map_err(|error| Refused::Failed(error.to_string()))?;
        let (method, path, arguments) = operation
            .call()
            .map_err(|error| Refused::Failed(error.to_string()))?;
        let url = self.url(path)?;
        let request = if method == Method::GET {
            self.http.get(with_query(&url, &arguments)?)
        } else {
            self.http.post(&url).json(&arguments)
        };
        let time = match operation {
            Operation::Prove(_) => PROOF_MAX,
            _ => ANSWER_MAX,
        };
        let request = request.bearer_auth(token).timeout(time);
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() => {
                return Err(Refused::Busy(format!("no aggregator answers at {url}")));
            }
            Err(error) => return Err(failed(error)),
        };
        let status = response.status();
        if status.is_success() {
            return response.json().await.map_err(failed);
        }
        let text = response.text().await.map_err(failed)?;
        let text = text.trim();
        Err(match status {
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
                Refused::Wrong(text.to_owned())
            }
            StatusCode::NOT_FOUND => Refused::Missing(text.to_owned()),
            StatusCode::CONFLICT => Refused::Conflict(text.to_owned()),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Refused::Busy(format!("the aggregator answered {status}: {text}"))
            }
            _ => Refused::Failed(format!("the aggregator answered {status}: {text}")),
        })
    }
}

/// What is not null, as a query.
fn with_query(url: &str, arguments: &Value) -> Result<reqwest::Url, Refused> {
    let mut url =
        reqwest::Url::parse(url).map_err(|error| Refused::Failed(format!("{url}: {error}")))?;
    {
        let mut pairs = url.query_pairs_mut();
        for (name, value) in arguments.as_object().into_iter().flatten() {
            match value {
                Value::Null => {}
                Value::String(text) => drop(pairs.append_pair(name, text)),
                other => drop(pairs.append_pair(name, &other.to_string())),
            }
        }
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_are_a_query() {
        let arguments = json!({"limit": 3, "before": null, "reason": "a&b c", "lines": false});
        let url = with_query("http://h:1/admin/x", &arguments).unwrap();
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let expected = [("limit", "3"), ("lines", "false"), ("reason", "a&b c")];
        let mut found: Vec<(&str, &str)> = pairs.iter().map(|(n, v)| (&**n, &**v)).collect();
        found.sort_unstable();
        assert_eq!(found, expected);
    }
}
