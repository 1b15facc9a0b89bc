//! Decides whether and how a request's body is kept for a second attempt.

use std::convert::Infallible;
use std::fmt;

use super::body::ReplayBody;

/// A way to send a request a second time: [`ByType`], [`ReplayWith`] or [`NoRetry`].
///
/// Chosen with [`RefreshLayer::replay_with`](crate::RefreshLayer::replay_with) and
/// [`RefreshLayer::without_retry`](crate::RefreshLayer::without_retry). The trait is sealed: for a body type of your own,
/// implement [`ReplayBody`].
///
/// # Examples
///
/// As a bound, for a function that accepts any layer:
///
/// ```
/// use tower_refresh::replay::Retry;
///
/// fn is_kept<R: Retry<String>>(retry: &R, mut body: String) -> bool {
///     retry.keep_spare(&mut body, None).is_some()
/// }
/// # use tower_refresh::replay::{ByType, NoRetry};
/// # assert!(is_kept(&ByType::default(), "text".into()));
/// # assert!(!is_kept(&NoRetry::default(), "text".into()));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot send a request with a body of type `{B}` a second time",
    note = "wrap the body in `tower_refresh::replay::Replayable`, or implement `ReplayBody` for `{B}`",
    note = "or configure the layer with `.replay_with(|body| ..)` or `.without_retry()`"
)]
pub trait Retry<B>: sealed::Sealed {
    /// The part of the request that is kept until the response is known.
    type Spare;

    /// Returns a spare of a body, or `None` if it cannot be sent a second time. The body itself is sent afterwards.
    ///
    /// `limit` is the request's own limit, if it has one.
    fn keep_spare(&self, body: &mut B, limit: Option<ReplayLimit>) -> Option<Self::Spare>;

    /// Pauses the body of the first attempt, and returns whether the spare can become the whole body.
    fn pause(&self, spare: &mut Self::Spare) -> bool {
        let _ = spare;
        true
    }

    /// Returns the body of the second attempt.
    fn replay(&self, spare: Self::Spare) -> B;
}

/// Keeps a body in the way that its type implements ([`ReplayBody`]). This is the default.
///
/// # Examples
///
/// ```
/// use tower_refresh::replay::{ByType, Retry};
///
/// let spare = ByType::default().keep_spare(&mut String::from("text"), None);
/// assert!(spare.is_some());
/// // The default limit is 64 KiB.
/// let spare = ByType::default().keep_spare(&mut "text".repeat(20_000), None);
/// assert!(spare.is_none());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ByType {
    limit: ReplayLimit,
}

impl ByType {
    pub(crate) fn with_limit(limit: ReplayLimit) -> Self {
        Self { limit }
    }
}

impl<B: ReplayBody> Retry<B> for ByType {
    type Spare = B::Spare;

    fn keep_spare(&self, body: &mut B, limit: Option<ReplayLimit>) -> Option<B::Spare> {
        let ReplayLimit(limit) = limit.unwrap_or(self.limit);
        body.keep_spare(limit)
    }

    fn pause(&self, spare: &mut B::Spare) -> bool {
        B::pause(spare)
    }

    fn replay(&self, spare: B::Spare) -> B {
        B::replay(spare)
    }
}

/// How many bytes of a request's body may be kept for a second attempt. The default is 65,536.
///
/// In the extensions of a request, it overrides the layer's [`replay_limit`](crate::RefreshLayer::replay_limit). The names and
/// values of trailers count as well. It does not apply to bodies in memory that share their bytes by reference count, such as
/// [`Full`](http_body_util::Full), nor to [`ReplayWith`].
///
/// # Examples
///
/// ```
/// use http::Request;
/// use tower_refresh::replay::ReplayLimit;
///
/// let request = Request::put("https://api.example.com/v1/file")
///     .extension(ReplayLimit(8 * 1024 * 1024))
///     .body(())?;
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplayLimit(pub usize);

impl Default for ReplayLimit {
    fn default() -> Self {
        Self(64 * 1024)
    }
}

/// Keeps a copy of the body that a closure makes, for body types of other crates.
///
/// The body need not implement anything. Usually created by
/// [`RefreshLayer::replay_with`](crate::RefreshLayer::replay_with).
///
/// # Examples
///
/// ```
/// use tower_refresh::replay::{ReplayWith, Retry};
///
/// let retry = ReplayWith::new(|body: &String| Some(body.clone()));
/// let mut body = String::from("text");
/// assert_eq!(retry.keep_spare(&mut body, None), Some(body));
/// ```
#[derive(Clone, Copy)]
pub struct ReplayWith<F> {
    copy: F,
}

impl<F> ReplayWith<F> {
    /// Creates a `ReplayWith` from a closure that copies a body, or returns none if it cannot.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::replay::ReplayWith;
    ///
    /// // Only short bodies are sent a second time.
    /// let retry = ReplayWith::new(|body: &String| (body.len() < 1024).then(|| body.clone()));
    /// ```
    pub fn new(copy: F) -> Self {
        Self { copy }
    }
}

impl<B, F> Retry<B> for ReplayWith<F>
where
    F: Fn(&B) -> Option<B>,
{
    type Spare = B;

    fn keep_spare(&self, body: &mut B, _limit: Option<ReplayLimit>) -> Option<B> {
        (self.copy)(body)
    }

    fn replay(&self, spare: B) -> B {
        spare
    }
}

impl<F> fmt::Debug for ReplayWith<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayWith").finish_non_exhaustive()
    }
}

/// Keeps nothing: each request is sent once.
///
/// If the token is rejected, the caller gets the rejection and the next request the new token. The body need not implement
/// anything. Created by [`RefreshLayer::without_retry`](crate::RefreshLayer::without_retry).
///
/// # Examples
///
/// ```
/// use tower_refresh::replay::{NoRetry, Retry};
///
/// let spare = NoRetry::default().keep_spare(&mut String::from("text"), None);
/// assert!(spare.is_none());
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct NoRetry;

impl<B> Retry<B> for NoRetry {
    // This type has no values, so the compiler removes the second attempt altogether.
    type Spare = Infallible;

    fn keep_spare(&self, _body: &mut B, _limit: Option<ReplayLimit>) -> Option<Infallible> {
        None
    }

    fn replay(&self, spare: Infallible) -> B {
        match spare {}
    }
}

mod sealed {
    #[expect(
        unnameable_types,
        reason = "seals `Retry`: a trait without a name cannot be implemented"
    )]
    pub trait Sealed {}

    impl Sealed for super::ByType {}
    impl<F> Sealed for super::ReplayWith<F> {}
    impl Sealed for super::NoRetry {}
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;

    use super::*;

    /// A body of another crate: neither `Clone` nor `ReplayBody`.
    #[derive(Debug, PartialEq)]
    struct Foreign(Option<&'static str>);

    #[test]
    fn body_is_replayed_by_its_type() {
        let by_type = ByType::default();
        let mut body = Full::new(Bytes::from_static(b"a"));
        let spare = by_type.keep_spare(&mut body, None);
        assert_eq!(body.into_inner().unwrap(), "a");
        let replayed: Full<Bytes> = by_type.replay(spare.unwrap());
        assert_eq!(replayed.into_inner().unwrap(), "a");
    }

    #[test]
    fn limit_of_a_request_overrides_the_limit_of_the_layer() {
        let by_type = ByType::with_limit(ReplayLimit(3));
        let body = || String::from("body");
        assert!(by_type.keep_spare(&mut body(), None).is_none());
        assert!(by_type.keep_spare(&mut body(), Some(ReplayLimit(4))).is_some());
        assert!(ByType::default().keep_spare(&mut body(), Some(ReplayLimit(3))).is_none());
        assert!(ByType::default().keep_spare(&mut "a".repeat(65_536), None).is_some());
        assert!(ByType::default().keep_spare(&mut "a".repeat(65_537), None).is_none());
    }

    #[test]
    fn foreign_body_is_replayed_if_the_closure_copies_it() {
        let retry = ReplayWith::new(|body: &Foreign| body.0.map(|text| Foreign(Some(text))));
        let mut body = Foreign(Some("a"));
        let spare = retry.keep_spare(&mut body, None);
        assert_eq!(body, Foreign(Some("a")));
        assert_eq!(retry.replay(spare.unwrap()), Foreign(Some("a")));
        assert!(retry.keep_spare(&mut Foreign(None), None).is_none());
    }

    #[test]
    fn no_retry_keeps_nothing_and_accepts_any_body() {
        let mut body = Foreign(Some("a"));
        let spare = NoRetry.keep_spare(&mut body, None);
        assert_eq!(body, Foreign(Some("a")));
        assert!(spare.is_none());
        assert_eq!(size_of_val(&spare), 0);
    }

    #[test]
    fn spare_is_send_if_its_body_is() {
        fn send<T: Send>(_: Option<T>) {}
        send(ByType::default().keep_spare(&mut Full::new(Bytes::new()), None));
        send(ReplayWith::new(|_: &String| None).keep_spare(&mut String::new(), None));
        send(NoRetry.keep_spare(&mut String::new(), None));
    }
}
