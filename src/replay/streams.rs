//! Bodies in boxes, which may be streams.

#[cfg(feature = "reqwest")]
use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt as _;
#[cfg(feature = "reqwest")]
use http_body_util::Either;
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};

use super::ReplayBody;
#[cfg(feature = "reqwest")]
use super::tee::Failure;
use super::tee::{StreamSpare, Tee};
use crate::error::BoxError;

/// Implements `ReplayBody` for a body type, with the function that makes one of a `Tee` of it.
macro_rules! replay_stream {
    ($(#[$attribute:meta])* [$($generics:tt)*] $body:ty, $wrap:expr) => {
        $(#[$attribute])*
        impl<$($generics)*> ReplayBody for $body {
            type Spare = StreamSpare<Self>;

            fn split(self, limit: usize) -> (Self, Option<Self::Spare>) {
                if self.is_end_stream() {
                    return (self, Some(StreamSpare::nothing()));
                }
                let (first, spare) = Tee::split(self, limit);
                ($wrap(first), Some(spare))
            }

            fn pause(spare: &mut Self::Spare) -> bool {
                spare.pause()
            }

            fn replay(spare: Self::Spare) -> Self {
                $wrap(spare.replay())
            }
        }
    };
}

replay_stream! {
    /// Kept while it is sent, up to the limit: see [`Replayable`](crate::Replayable).
    ///
    /// The first attempt's body must be able to fail once the second takes over, so that the error is one that can be made
    /// of a [`BoxError`]; where it cannot, map it, or wrap the body into a `Replayable`.
    [E: From<BoxError> + 'static] BoxBody<Bytes, E>,
    |tee: Tee<Self>| Self::new(tee.map_err(|failure| failure.unwrap_or_else(E::from)))
}

replay_stream! {
    /// Kept while it is sent, up to the limit: see [`Replayable`](crate::Replayable).
    ///
    /// The first attempt's body must be able to fail once the second takes over, so that the error is one that can be made
    /// of a [`BoxError`]; where it cannot, map it, or wrap the body into a `Replayable`.
    [E: From<BoxError> + 'static] UnsyncBoxBody<Bytes, E>,
    |tee: Tee<Self>| Self::new(tee.map_err(|failure| failure.unwrap_or_else(E::from)))
}

#[cfg(feature = "axum")]
replay_stream! {
    /// Kept while it is sent, up to the limit: see [`Replayable`](crate::Replayable).
    #[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
    [] axum_core::body::Body,
    // axum takes this box as it is, with no other around it.
    |tee: Tee<Self>| Self::new(UnsyncBoxBody::new(
        tee.map_err(|failure| failure.unwrap_or_else(axum_core::Error::new)),
    ))
}

#[cfg(feature = "tonic")]
replay_stream! {
    /// Kept while it is sent, up to the limit: see [`Replayable`](crate::Replayable).
    #[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
    [] tonic::body::Body,
    // tonic takes this box as it is, with no other around it.
    |tee: Tee<Self>| Self::new(UnsyncBoxBody::new(
        tee.map_err(|failure| failure.unwrap_or_else(tonic::Status::from_error)),
    ))
}

/// A body in memory is cloned by reference count, whatever the limit, and stays one that reqwest itself can send again after
/// a redirect. A stream is kept while it is sent, up to the limit: see [`Replayable`](crate::Replayable).
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
impl ReplayBody for reqwest::Body {
    type Spare = Either<Bytes, StreamSpare<Self>>;

    fn split(mut self, limit: usize) -> (Self, Option<Self::Spare>) {
        if self.as_bytes().is_some() {
            // In memory, so that it is all there in one frame; a copy of `as_bytes` would be one.
            let mut cx = Context::from_waker(Waker::noop());
            let frame = match Pin::new(&mut self).poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
                _ => None,
            };
            let bytes = frame.unwrap_or_default();
            return (bytes.clone().into(), Some(Either::Left(bytes)));
        }
        if self.is_end_stream() {
            return (self, Some(Either::Right(StreamSpare::nothing())));
        }
        let (first, spare) = Tee::split(self, limit);
        (Self::wrap(first.map_err(Failure::boxed)), Some(Either::Right(spare)))
    }

    fn pause(spare: &mut Self::Spare) -> bool {
        match spare {
            Either::Left(_) => true,
            Either::Right(spare) => spare.pause(),
        }
    }

    fn replay(spare: Self::Spare) -> Self {
        match spare {
            Either::Left(bytes) => bytes.into(),
            Either::Right(spare) => Self::wrap(spare.replay().map_err(Failure::boxed)),
        }
    }
}
