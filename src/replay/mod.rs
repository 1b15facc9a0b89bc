//! How a request is sent a second time.
//!
//! Before a request is sent, a spare of it is kept; after a rejection the spare is sent with the new token. A spare is a
//! [head](SpareHead) and whatever the way to retry keeps of the body.

mod body;
mod head;
mod impls;

use std::convert::Infallible;
use std::fmt;

pub use self::body::ReplayBody;
pub(crate) use self::head::SpareHead;

/// A way to keep a spare of a request's body: [`ByType`], [`ReplayWith`] or [`NoRetry`].
///
/// Sealed, since streams will ask more of it than it has now. For a body of your own implement [`ReplayBody`].
pub trait Retry<B>: sealed::Sealed {
    /// What is kept while the request is under way.
    type Spare;

    /// Splits a body into the one to send and a spare; none if there is to be no second attempt.
    fn split(&self, body: B) -> (B, Option<Self::Spare>);

    /// Makes the body of the second attempt; none if the spare turns out not to be the whole of it.
    fn replay(&self, spare: Self::Spare) -> Option<B>;
}

/// Retries with whatever the body's type can keep of itself; the default.
///
/// Asks [`ReplayBody`] of the body.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ByType;

impl<B: ReplayBody> Retry<B> for ByType {
    type Spare = B::Spare;

    fn split(&self, body: B) -> (B, Option<B::Spare>) {
        body.split(REPLAY_LIMIT)
    }

    fn replay(&self, spare: B::Spare) -> Option<B> {
        B::replay(spare)
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

    fn split(&self, body: B) -> (B, Option<B>) {
        let spare = (self.copy)(&body);
        (body, spare)
    }

    fn replay(&self, spare: B) -> Option<B> {
        Some(spare)
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

    fn split(&self, body: B) -> (B, Option<Infallible>) {
        (body, None)
    }

    fn replay(&self, spare: Infallible) -> Option<B> {
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

/// How much of a body is copied for a second attempt, in bytes.
const REPLAY_LIMIT: usize = 64 * 1024;

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
        let (body, spare) = ByType.split(Full::new(Bytes::from_static(b"a")));
        assert_eq!(body.into_inner().unwrap(), "a");
        let replayed: Option<Full<Bytes>> = ByType.replay(spare.unwrap());
        assert_eq!(replayed.unwrap().into_inner().unwrap(), "a");
    }

    #[test]
    fn a_foreign_body_is_replayed_by_a_closure_or_not_at_all() {
        let retry = ReplayWith::new(|body: &Foreign| body.0.map(|text| Foreign(Some(text))));
        let (body, spare) = retry.split(Foreign(Some("a")));
        assert_eq!(body, Foreign(Some("a")));
        assert_eq!(retry.replay(spare.unwrap()), Some(Foreign(Some("a"))));
        assert!(retry.split(Foreign(None)).1.is_none());
    }

    #[test]
    fn without_retry_nothing_is_kept_and_nothing_asked_of_the_body() {
        let (body, spare) = NoRetry.split(Foreign(Some("a")));
        assert_eq!(body, Foreign(Some("a")));
        assert!(spare.is_none());
        assert_eq!(size_of_val(&spare), 0);
    }

    #[test]
    fn a_spare_is_send_if_its_body_is() {
        fn send<T: Send>(_: Option<T>) {}
        send(ByType.split(Full::new(Bytes::new())).1);
        send(ReplayWith::new(|_: &String| None).split(String::new()).1);
        send(NoRetry.split(String::new()).1);
    }
}
