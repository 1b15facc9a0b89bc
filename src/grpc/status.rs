//! Errors as statuses.

use std::sync::Arc;

use http::HeaderMap;
use tonic::{Code, Status};

use super::wire::is_grpc;
use crate::error::{BoxError, TokenError};

/// Converts to a status that means that the call was never sent, so that a caller may retry `UNAVAILABLE` safely.
///
/// Transient and ambiguous errors are `UNAVAILABLE`, denied ones `UNAUTHENTICATED`, and misconfigured ones
/// `FAILED_PRECONDITION`. The error is the source of the status.
#[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
impl From<TokenError> for Status {
    fn from(error: TokenError) -> Self {
        let code = if error.is_denied() {
            Code::Unauthenticated
        } else if error.is_misconfigured() {
            Code::FailedPrecondition
        } else {
            Code::Unavailable
        };
        let mut status = Self::new(code, error.to_string());
        status.set_source(Arc::new(error));
        status
    }
}

/// Converts the error of a request to a status if the request is a gRPC one.
///
/// tonic's clients look for a `Status` in the error of the service below them, and otherwise report `UNKNOWN`.
pub(crate) fn for_caller(request: &HeaderMap, error: BoxError) -> BoxError {
    if !is_grpc(request) {
        return error;
    }
    match error.downcast::<TokenError>() {
        Ok(error) => Status::from(*error).into(),
        // The token was rejected and there is no newer one: the server would have returned this code.
        Err(error) => {
            let reason = error.source().map_or_else(String::new, |reason| format!(": {reason}"));
            Status::unauthenticated(format!("{error}{reason}")).into()
        }
    }
}
