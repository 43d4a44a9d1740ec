//! What all control APIs under `/__fake/` share: the faults, and how a mistake is said.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json, Router,
    extract::{FromRef, State},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use http::StatusCode;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

/// What can go wrong on demand. Its default is nothing.
pub(crate) trait Fault:
    Clone + Debug + Default + Send + Serialize + DeserializeOwned + 'static
{
    /// Says what is wrong with it, naming the field.
    fn validate(&self) -> Result<(), String>;

    /// How many requests it acts on; all of them until cleared where absent.
    fn times(&mut self) -> &mut Option<u64>;
}

/// The faults in force.
#[derive(Debug)]
pub(crate) struct Faults<F>(Arc<Mutex<Vec<F>>>);

impl<F> Clone for Faults<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<F> Default for Faults<F> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<F: Fault> Faults<F> {
    /// Adds one behind those that are there.
    pub(crate) fn add(&self, fault: F) {
        self.lock().push(fault);
    }

    /// The oldest fault that acts on this request; counts it.
    pub(crate) fn take(&self, acts: impl Fn(&F) -> bool) -> F {
        let mut faults = self.lock();
        let Some(index) = faults.iter().position(acts) else {
            return F::default();
        };
        let Some(fault) = faults.get_mut(index) else {
            return F::default();
        };
        let times = fault.times();
        *times = times.map(|times| times.saturating_sub(1));
        let spent = *times == Some(0);
        let taken = fault.clone();
        if spent {
            faults.remove(index);
        }
        taken
    }

    fn lock(&self) -> MutexGuard<'_, Vec<F>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `/__fake/faults`.
pub(crate) fn fault_routes<F, S>() -> Router<S>
where
    F: Fault,
    S: Clone + Send + Sync + 'static,
    Faults<F>: FromRef<S>,
{
    Router::new().route(
        "/__fake/faults",
        post(add::<F>).delete(clear::<F>).get(list::<F>),
    )
}

async fn add<F: Fault>(State(faults): State<Faults<F>>, body: Bytes) -> Response {
    let fault = serde_json::from_slice::<F>(&body).map_err(|error| error.to_string());
    match fault.and_then(|fault| fault.validate().map(|()| fault)) {
        Ok(fault) => {
            tracing::info!(?fault, "fault added");
            faults.add(fault.clone());
            Json(fault).into_response()
        }
        Err(message) => refuse(StatusCode::BAD_REQUEST, &message),
    }
}

async fn list<F: Fault>(State(faults): State<Faults<F>>) -> Json<Vec<F>> {
    Json(faults.lock().clone())
}

async fn clear<F: Fault>(State(faults): State<Faults<F>>) -> StatusCode {
    faults.lock().clear();
    StatusCode::NO_CONTENT
}

/// The answer to a control path that there is not.
pub(crate) async fn unknown() -> Response {
    refuse(StatusCode::NOT_FOUND, "no such control path")
}

/// An answer that says what is wrong.
pub(crate) fn refuse(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"error": message}))).into_response()
}
