//! What an answer says about the token.

mod challenge;
mod grpc;
mod unauthorized;

use http::{HeaderMap, StatusCode};

pub use self::challenge::Challenge;
pub use self::unauthorized::Unauthorized;

/// Decides what an answer says about the token that was sent.
///
/// [`Unauthorized`] is the default and does what RFC 6750 says. A closure serves for an API that has its own way of
/// saying no:
///
/// ```
/// use http::{HeaderMap, StatusCode};
/// use tower_refresh::{Classify, Unauthorized, Verdict};
///
/// let usual = Unauthorized::default();
/// let classify = move |status: StatusCode, headers: &HeaderMap| {
///     match headers.get("x-session") {
///         Some(session) if session == "expired" => Verdict::Rejected,
///         _ => usual.classify(status, headers),
///     }
/// };
/// # let mut headers = HeaderMap::new();
/// # headers.insert("x-session", http::HeaderValue::from_static("expired"));
/// # assert_eq!(Classify::classify(&classify, StatusCode::OK, &headers), Verdict::Rejected);
/// # headers.clear();
/// # assert_eq!(Classify::classify(&classify, StatusCode::OK, &headers), Verdict::Accepted);
/// ```
///
/// It is asked for every answer, the usual good ones included, and should cost them next to nothing. It sees the head of
/// the answer and never its body, which belongs to the caller.
pub trait Classify: Send + Sync + 'static {
    /// Returns what an answer with this status and these headers says about the token.
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

/// What an answer says about the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// The resource server knows the token, whatever else it says of the request.
    Accepted,
    /// The resource server does not take the token: it is renewed, and the request is sent again if it can be.
    Rejected,
    /// Nobody looked at the token, as with most of the 5xx: nothing follows from it.
    Unknown,
}
