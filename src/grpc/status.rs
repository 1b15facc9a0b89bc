//! What tonic's clients make of an error.

use std::sync::Arc;

use http::HeaderMap;
use tonic::{Code, Status};

use super::is_grpc;
use crate::error::{BoxError, TokenError};

/// Transient and ambiguous errors are `UNAVAILABLE`, denied ones `UNAUTHENTICATED`, misconfigured ones
/// `FAILED_PRECONDITION`. The error is the status's source.
///
/// It says that the call was never sent, so that whoever sends `UNAVAILABLE` ones again does so safely.
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

/// Makes a status of the error that the caller of a request gets, if that is a gRPC one.
///
/// tonic's clients look for a `Status` in the errors of the service below, and otherwise say `UNKNOWN`.
pub(crate) fn for_caller(request: &HeaderMap, error: BoxError) -> BoxError {
    if !is_grpc(request) {
        return error;
    }
    match error.downcast::<TokenError>() {
        Ok(error) => Status::from(*error).into(),
        // The token was rejected, and there is no other: the answer would have said so.
        Err(error) => Status::unauthenticated(error.to_string()).into(),
    }
}
