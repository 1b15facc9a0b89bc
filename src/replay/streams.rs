//! Box bodies, which may be streams.

use std::mem;

use bytes::Bytes;
use http_body::Body;
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};

use super::body::ReplayBody;
use super::tee::{StreamSpare, Tee};
use crate::error::BoxError;

/// Implements `ReplayBody` for a body type, given how to box a `Tee` of it and how to make its error.
macro_rules! replay_stream {
    ($(#[$attribute:meta])* [$($generics:tt)*] $body:ty, $wrap:expr, $error:expr) => {
        $(#[$attribute])*
        impl<$($generics)*> ReplayBody for $body {
            type Spare = StreamSpare<Self>;

            fn keep_spare(&mut self, limit: usize) -> Option<Self::Spare> {
                if self.is_end_stream() {
                    return Some(StreamSpare::nothing());
                }
                let (first, spare) = Tee::split(mem::take(self), limit, $error);
                *self = $wrap(first);
                Some(spare)
            }

            fn pause(spare: &mut Self::Spare) -> bool {
                spare.pause()
            }

            fn replay(spare: Self::Spare) -> Self {
                $wrap(spare.replay($error))
            }
        }
    };
}

replay_stream! {
    /// Keeps the frames that are sent, up to the limit.
    ///
    /// The error must be `From<BoxError>`, because the first attempt fails when the second takes over. For another error, use
    /// `map_err`, or wrap the body in a [`Replayable`](super::Replayable).
    [E: From<BoxError> + 'static] BoxBody<Bytes, E>, Self::new, E::from
}

replay_stream! {
    /// Keeps the frames that are sent, up to the limit.
    ///
    /// The error must be `From<BoxError>`, because the first attempt fails when the second takes over. For another error, use
    /// `map_err`, or wrap the body in a [`Replayable`](super::Replayable).
    [E: From<BoxError> + 'static] UnsyncBoxBody<Bytes, E>, Self::new, E::from
}

#[cfg(feature = "axum")]
replay_stream! {
    /// Keeps the frames that are sent, up to the limit.
    #[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
    // axum does not box an `UnsyncBoxBody` again.
    [] axum_core::body::Body, |tee: Tee<Self, _>| Self::new(UnsyncBoxBody::new(tee)), axum_core::Error::new
}

#[cfg(feature = "tonic")]
replay_stream! {
    /// Keeps the frames that are sent, up to the limit.
    #[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
    // tonic does not box an `UnsyncBoxBody` again.
    [] tonic::body::Body, |tee: Tee<Self, _>| Self::new(UnsyncBoxBody::new(tee)), tonic::Status::from_error
}
