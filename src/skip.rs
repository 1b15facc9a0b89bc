//! How one request opts out of the layer's work.

/// Skips part of the layer's work for one request, if it is in the request's extensions.
///
/// # Examples
///
/// ```
/// use http::Request;
/// use tower_refresh::Skip;
///
/// let request = Request::post("https://api.example.com/v1/payments")
///     .extension(Skip::Retry)
///     .body(())?;
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Skip {
    /// Sends the request unchanged: no token is attached, and the response has no effect on the token.
    Token,
    /// Sends the request once: a response that rejects the token is returned. The token is still refreshed.
    Retry,
}
