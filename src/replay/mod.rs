//! How a request is sent a second time.
//!
//! Before a request is sent, a spare of it is kept; after a rejection the spare is sent with the new token. A spare is a
//! [head](SpareHead) and whatever the way to retry keeps of the body.

mod body;
mod head;
mod in_memory;
mod replayable;
mod streams;
mod tee;

use std::convert::Infallible;
use std::fmt;

pub use self::body::ReplayBody;
pub(crate) use self::head::SpareHead;
pub use self::replayable::Replayable;
pub use self::tee::StreamSpare;

/// A way to keep a spare of a request's body: [`ByType`], [`ReplayWith`] or [`NoRetry`].
///
/// Sealed: for a body of your own implement [`ReplayBody`].
#[diagnostic::on_unimplemented(
    message = "the layer cannot send a request with a body of type `{B}` again",
    label = "`{Self}` cannot copy this body",
    note = "implement `ReplayBody` for the body or wrap it in `Replayable`; or set `.replay_with(|body: &{B}| ..)` or `.without_retry()` on the layer"
)]
pub trait Retry<B>: sealed::Sealed {
    /// What is kept while the request is under way.
    type Spare;

    /// Splits a body into the one to send and a spare; none if there is to be no second attempt. The request may bring a
    /// limit of its own.
    fn split(&self, body: B, limit: Option<ReplayLimit>) -> (B, Option<Self::Spare>);

    /// Stops the first attempt's body, and returns whether the spare can become the whole of it.
    fn pause(&self, spare: &mut Self::Spare) -> bool;

    /// Makes the body of the second attempt.
    fn replay(&self, spare: Self::Spare) -> B;
}

/// Retries with whatever the body's type can keep of itself; the default.
///
/// Asks [`ReplayBody`] of the body.
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

    fn split(&self, body: B, limit: Option<ReplayLimit>) -> (B, Option<B::Spare>) {
        let ReplayLimit(limit) = limit.unwrap_or(self.limit);
        body.split(limit)
    }

    fn pause(&self, spare: &mut B::Spare) -> bool {
        B::pause(spare)
    }

    fn replay(&self, spare: B::Spare) -> B {
        B::replay(spare)
    }
}

/// How much of a request's body may be kept for a second attempt, in bytes; 65,536 by default. Names and values of trailers
/// count.
///
/// In a request's extensions it takes the place of the layer's own [`replay_limit`](crate::RefreshLayer::replay_limit):
///
/// ```
/// use http::Request;
/// use tower_refresh::ReplayLimit;
///
/// let request = Request::put("https://api.example.com/v1/file")
///     .extension(ReplayLimit(8 * 1024 * 1024))
///     .body(())?;
/// # Ok::<(), http::Error>(())
/// ```
///
/// A body that is in memory and shares its bytes by reference count, such as [`Full`](http_body_util::Full), is kept whatever
/// the limit. With [`ReplayWith`] the closure decides, and there is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplayLimit(pub usize);

impl Default for ReplayLimit {
    fn default() -> Self {
        Self(64 * 1024)
    }
}

/// Retries with a copy of the body that a closure makes, for bodies of other crates.
///
/// Asks nothing of the body.
#[derive(Clone, Copy)]
pub struct ReplayWith<F> {
    copy: F,
}

impl<F> ReplayWith<F> {
    /// Wraps a closure that copies a body, or returns none for one that cannot be copied.
    pub fn new(copy: F) -> Self {
        Self { copy }
    }
}

impl<B, F> Retry<B> for ReplayWith<F>
where
    F: Fn(&B) -> Option<B>,
{
    type Spare = B;

    fn split(&self, body: B, _limit: Option<ReplayLimit>) -> (B, Option<B>) {
        let spare = (self.copy)(&body);
        (body, spare)
    }

    fn pause(&self, _spare: &mut B) -> bool {
        true
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

/// Never retries: the caller gets the rejection, and the next request the new token.
///
/// Asks nothing of the body, and keeps nothing.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct NoRetry;

impl<B> Retry<B> for NoRetry {
    // There is no such value, so that the compiler leaves the whole second attempt out.
    type Spare = Infallible;

    fn split(&self, body: B, _limit: Option<ReplayLimit>) -> (B, Option<Infallible>) {
        (body, None)
    }

    fn pause(&self, spare: &mut Infallible) -> bool {
        match *spare {}
    }

    fn replay(&self, spare: Infallible) -> B {
        match spare {}
    }
}

mod sealed {
    #[expect(unnameable_types, reason = "what nobody can name, nobody can implement")]
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
    fn a_body_is_replayed_by_its_type() {
        let by_type = ByType::default();
        let (body, spare) = by_type.split(Full::new(Bytes::from_static(b"a")), None);
        assert_eq!(body.into_inner().unwrap(), "a");
        let replayed: Full<Bytes> = by_type.replay(spare.unwrap());
        assert_eq!(replayed.into_inner().unwrap(), "a");
    }

    #[test]
    fn the_limit_of_a_request_takes_the_place_of_the_layers() {
        let by_type = ByType::with_limit(ReplayLimit(3));
        let body = || String::from("body");
        assert!(by_type.split(body(), None).1.is_none());
        assert!(by_type.split(body(), Some(ReplayLimit(4))).1.is_some());
        assert!(ByType::default().split(body(), Some(ReplayLimit(3))).1.is_none());
        assert!(ByType::default().split("a".repeat(65_536), None).1.is_some());
        assert!(ByType::default().split("a".repeat(65_537), None).1.is_none());
    }

    #[test]
    fn a_foreign_body_is_replayed_by_a_closure_or_not_at_all() {
        let retry = ReplayWith::new(|body: &Foreign| body.0.map(|text| Foreign(Some(text))));
        let (body, spare) = retry.split(Foreign(Some("a")), None);
        assert_eq!(body, Foreign(Some("a")));
        assert_eq!(retry.replay(spare.unwrap()), Foreign(Some("a")));
        assert!(retry.split(Foreign(None), None).1.is_none());
    }

    #[test]
    fn without_retry_nothing_is_kept_and_nothing_asked_of_the_body() {
        let (body, spare) = NoRetry.split(Foreign(Some("a")), None);
        assert_eq!(body, Foreign(Some("a")));
        assert!(spare.is_none());
        assert_eq!(size_of_val(&spare), 0);
    }

    #[test]
    fn a_spare_is_send_if_its_body_is() {
        fn send<T: Send>(_: Option<T>) {}
        send(ByType::default().split(Full::new(Bytes::new()), None).1);
        send(ReplayWith::new(|_: &String| None).split(String::new(), None).1);
        send(NoRetry.split(String::new(), None).1);
    }
}
