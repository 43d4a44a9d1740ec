//! A refusal as gRPC tells it.

use tonic::{Code, Status, metadata::MetadataValue};
use weir_router_core::refusal::Refusal;
use weir_wire::error::ApiError;

/// The metadata with the code that HTTP clients see.
const CODE: &str = "weir-code";

/// The status for a refusal.
pub fn of_refusal(refusal: &Refusal) -> Status {
    of_error(refusal.status, &refusal.error)
}

/// The status for an error that HTTP clients see with that status.
pub fn of_error(status: u16, error: &ApiError) -> Status {
    let code = match status {
        401 => Code::Unauthenticated,
        402 | 429 => Code::ResourceExhausted,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        408 | 504 => Code::DeadlineExceeded,
        400..500 => Code::InvalidArgument,
        502 | 503 | 529 => Code::Unavailable,
        _ => Code::Internal,
    };
    let mut told = Status::new(code, error.message.clone());
    let named = error.code.as_deref().map(MetadataValue::try_from);
    if let Some(Ok(named)) = named {
        told.metadata_mut().insert(CODE, named);
    }
    told
}
