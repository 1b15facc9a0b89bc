//! The content of `WWW-Authenticate`.

/// One challenge of a `WWW-Authenticate` field (RFC 9110 §11.6.1).
#[derive(Clone, Debug)]
pub struct Challenge {}
