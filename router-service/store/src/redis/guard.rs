//! Calls of Redis: within a time-out, over the session, and none where it did not
//! answer lately.

use std::{sync::Arc, time::Duration};

use super::{
    RedisSettings, SettingsError,
    breaker::Breaker,
    link::{Fault, Link, Session},
    script::Scripts,
};
use crate::Unavailable;

/// A link, and what keeps its failures short.
pub(crate) struct Guard {
    pub(crate) link: Arc<Link>,
    pub(crate) timeout: Duration,
    breaker: Breaker,
}

impl Guard {
    pub(crate) fn new(settings: &RedisSettings, scripts: Scripts) -> Result<Self, SettingsError> {
        Ok(Self {
            link: Arc::new(Link::new(settings, scripts)?),
            timeout: settings.timeout,
            breaker: Breaker::default(),
        })
    }

    /// Connects, and waits for that for the time-out at the most.
    pub(crate) async fn connect(&self) {
        // Why it can't be reached is logged; it need not be, yet.
        let session = self.link.session();
        drop(tokio::time::timeout(self.timeout, session).await);
    }

    /// Makes a call within the time-out, unless the breaker is open.
    pub(crate) async fn call<T>(
        &self,
        call: impl AsyncFnOnce(&Arc<Session>) -> Result<T, redis::RedisError>,
    ) -> Result<T, Unavailable> {
        let Some(pass) = self.breaker.enter() else {
            return Err(unavailable("it did not answer lately"));
        };
        let mut used = None;
        let whole = async {
            let session = self.link.session().await?;
            let session = used.insert(session);
            call(session).await.map_err(Fault::Redis)
        };
        let result = tokio::time::timeout(self.timeout, whole).await;
        let why = match result {
            Ok(Ok(value)) => {
                pass.succeeded();
                return Ok(value);
            }
            // Nothing was learnt about Redis.
            Ok(Err(Fault::Connecting)) => return Err(unavailable("connecting to it")),
            Ok(Err(Fault::Redis(error))) => {
                if let Some(session) = &used {
                    self.link.failed(session, &error);
                }
                error.to_string()
            }
            Err(_) => "no answer in time".to_owned(),
        };
        if pass.failed() {
            tracing::warn!(why, "Redis does not answer; calls are refused for a while");
            // Answers may never come over it any more, without an end to it.
            if let Some(session) = &used {
                self.link.give_up(session);
            }
        }
        Err(Unavailable { why })
    }
}

fn unavailable(why: &str) -> Unavailable {
    Unavailable {
        why: why.to_owned(),
    }
}
