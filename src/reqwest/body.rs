//! reqwest's body: how it is made, and how it is sent a second time.

use std::any::Any;
use std::mem;
use std::pin::Pin;
#[expect(
    clippy::disallowed_types,
    reason = "makes a body `Sync`; never contended, since a body has one owner"
)]
use std::sync::Mutex;
use std::sync::{MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Empty, Full};

use super::watch::Watch;
use crate::error::BoxError;
use crate::replay::{ReplayBody, Replayable};

/// Keeps a body in memory by reference count, regardless of the limit, and such that reqwest can still send it again after a
/// redirect. Keeps the frames of a stream, up to the limit.
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
impl ReplayBody for reqwest::Body {
    type Spare = Either<Bytes, <Replayable<Self> as ReplayBody>::Spare>;

    fn keep_spare(&mut self, limit: usize) -> Option<Self::Spare> {
        if self.as_bytes().is_some() {
            // The body is one frame, which is shared. `as_bytes` would have to be copied.
            let mut cx = Context::from_waker(Waker::noop());
            let bytes = match Pin::new(&mut *self).poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
                _ => Bytes::new(),
            };
            *self = bytes.clone().into();
            return Some(Either::Left(bytes));
        }
        if self.is_end_stream() {
            return Some(Either::Left(Bytes::new()));
        }
        let mut first = Replayable::new(mem::take(self));
        let spare = first.keep_spare(limit);
        *self = Self::wrap(first);
        spare.map(Either::Right)
    }

    fn pause(spare: &mut Self::Spare) -> bool {
        match spare {
            Either::Left(_) => true,
            Either::Right(spare) => Replayable::<Self>::pause(spare),
        }
    }

    fn replay(spare: Self::Spare) -> Self {
        match spare {
            Either::Left(bytes) => bytes.into(),
            Either::Right(spare) => Self::wrap(Replayable::<Self>::replay(spare)),
        }
    }
}

/// Converts a body to reqwest's.
///
/// A body that is known to be in memory remains there, because reqwest cannot send a stream a second time. A token request is a
/// stream even so: reqwest must not send it a second time.
pub(super) fn into_reqwest<B>(mut body: B, watch: Option<Watch>) -> reqwest::Body
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    if watch.is_none() {
        let any: &mut dyn Any = &mut body;
        if let Some(body) = any.downcast_mut::<reqwest::Body>() {
            return mem::take(body);
        } else if let Some(full) = any.downcast_mut::<Full<Bytes>>() {
            return mem::take(full).into_inner().unwrap_or_default().into();
        } else if let Some(string) = any.downcast_mut::<String>() {
            return mem::take(string).into();
        } else if any.is::<Empty<Bytes>>() {
            return reqwest::Body::default();
        }
    }
    reqwest::Body::wrap(Streamed::new(body, watch))
}

/// A stream that is `Sync`, which reqwest requires and axum's and tonic's bodies are not.
struct Streamed<B> {
    #[expect(clippy::disallowed_types, reason = "see its import")]
    body: Mutex<Pin<Box<B>>>,
    /// Set for a token request.
    watch: Option<Watch>,
}

impl<B> Streamed<B> {
    #[expect(clippy::disallowed_types, reason = "see its import")]
    fn new(body: B, watch: Option<Watch>) -> Self {
        Self { body: Mutex::new(Box::pin(body)), watch }
    }

    fn body(&self) -> MutexGuard<'_, Pin<Box<B>>> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sending(&self) {
        if let Some(watch) = &self.watch {
            watch.sending();
        }
    }
}

impl<B: Body> Body for Streamed<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.sending();
        let body = self.body.get_mut().unwrap_or_else(PoisonError::into_inner);
        body.as_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        let is_empty = self.body().is_end_stream();
        if is_empty {
            // A body without further frames is not polled.
            self.sending();
        }
        is_empty
    }

    fn size_hint(&self) -> SizeHint {
        self.body().size_hint()
    }
}
