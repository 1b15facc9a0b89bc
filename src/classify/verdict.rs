//! The trait that judges responses, and its result.

use http::{HeaderMap, StatusCode};

/// Decides from a response whether the resource server accepted the token.
///
/// [`Unauthorized`](crate::Unauthorized) is the default and follows HTTP, RFC 6750 and gRPC. Implement this trait, or pass a
/// closure to [`RefreshLayer::classifier`](crate::RefreshLayer::classifier), for an API that rejects tokens in another way.
///
/// `classify` is called for every response that a token was sent for, so it should be cheap for successful ones. It sees the
/// status and the headers. The body belongs to the caller and is not read.
///
/// # Examples
///
/// An API that reports an expired session in a header of its own:
///
/// ```
/// use http::{HeaderMap, StatusCode};
/// use tower_refresh::{Classify, RefreshLayer, StaticToken, Unauthorized, Verdict};
///
/// let default = Unauthorized::default();
/// let classifier = move |status: StatusCode, headers: &HeaderMap| {
///     match headers.get("x-session") {
///         Some(session) if session == "expired" => Verdict::Rejected,
///         _ => default.classify(status, headers),
///     }
/// };
/// # let mut headers = HeaderMap::new();
/// # headers.insert("x-session", http::HeaderValue::from_static("expired"));
/// # assert_eq!(Classify::classify(&classifier, StatusCode::OK, &headers), Verdict::Rejected);
/// # headers.clear();
/// # assert_eq!(Classify::classify(&classifier, StatusCode::OK, &headers), Verdict::Accepted);
///
/// let layer = RefreshLayer::new(StaticToken::new("sesame".parse()?)).classifier(classifier);
/// # Ok::<(), tower_refresh::TokenError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not classify responses",
    label = "expected a closure, or a type with `Classify`",
    note = "a closure has typed arguments: `|status: StatusCode, headers: &HeaderMap| Verdict::Accepted`"
)]
pub trait Classify: Send + Sync + 'static {
    /// Returns the verdict for a response with this status and these headers.
    fn classify(&self, status: StatusCode, headers: &HeaderMap) -> Verdict;
}

impl<F> Classify for F
where
    F: Fn(StatusCode, &HeaderMap) -> Verdict + Send + Sync + 'static,
{
    fn classify(&self, status: StatusCode, headers: &HeaderMap) -> Verdict {
        self(status, headers)
    }
}

/// A resource server's verdict on the token, as far as a response reveals it.
///
/// # Examples
///
/// ```
/// use http::{HeaderMap, StatusCode};
/// use tower_refresh::{Classify, Unauthorized, Verdict};
///
/// let verdict = |status| Unauthorized::default().classify(status, &HeaderMap::new());
/// assert_eq!(verdict(StatusCode::NOT_FOUND), Verdict::Accepted);
/// assert_eq!(verdict(StatusCode::UNAUTHORIZED), Verdict::Rejected);
/// assert_eq!(verdict(StatusCode::BAD_GATEWAY), Verdict::Unknown);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// The server accepts the token, even if it refuses the request for another reason.
    Accepted,
    /// The server does not accept the token: it is refreshed, and the request is retried if its body can be sent again.
    Rejected,
    /// The response does not show whether the token was checked, as with most 5xx: it changes nothing.
    Unknown,
}
