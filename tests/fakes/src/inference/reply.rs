//! What a handler decided, and how it becomes a response once the log has it.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde_json::Value;

use super::{
    faults::Fault,
    log::{Outcome, Recorder},
    stream::{self, Plan},
};

/// An answer.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A JSON answer.
    Json(Value),
    /// A JSON answer of which half is sent before the connection is cut.
    HalfJson(Value),
    /// A stream.
    Stream(Box<Plan>),
}

impl Reply {
    /// The JSON answer, whole unless the fault cuts it.
    pub(crate) fn json(value: Value, fault: &Fault) -> Self {
        if fault.cut_after_chunks.is_some() {
            Self::HalfJson(value)
        } else {
            Self::Json(value)
        }
    }

    /// The response; finishes the record, or hands it to the stream.
    pub(crate) fn respond(self, mut recorder: Recorder) -> Response {
        match self {
            Self::Json(value) => {
                recorder.finish(Outcome::Completed);
                Json(value).into_response()
            }
            Self::HalfJson(value) => {
                recorder.usage_not_sent();
                recorder.finish(Outcome::Cut);
                stream::half(&value)
            }
            Self::Stream(plan) => plan.play(recorder),
        }
    }
}
