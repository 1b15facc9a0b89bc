//! A stream that is kept while it is sent.

use std::fmt;
use std::mem;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use super::kept::Kept;
use super::shared::{Cut, Phase, Rest, Shared};
use crate::error::BoxError;
use crate::lock::Lock;

/// A body that two attempts share: the handle of the first or of the second attempt.
///
/// The first attempt keeps every frame that it sends, so that nothing is delayed and nothing is read ahead. The second sends
/// what was kept and then the rest of the body, from where the first stopped.
pub(super) struct Tee<B, E> {
    part: Part<B>,
    /// Makes the error of an attempt that cannot go on.
    fail: fn(BoxError) -> E,
}

enum Part<B> {
    /// The body was empty from the start.
    Nothing,
    /// The body itself: no other handle needs it.
    Alone(B),
    /// The first attempt, while a second is possible.
    First(First<B>),
    /// The second attempt: the kept frames, and then the rest.
    Second(Second<B>),
}

/// The handle of the first attempt.
struct First<B>(Handle<B>);

/// The handle of the second attempt.
struct Second<B> {
    shared: Handle<B>,
    /// How many bytes it has sent, `None` before it was polled.
    sent: Option<u64>,
}

/// The spare of a body that is a stream: the frames that the first attempt has sent, up to the limit.
///
/// The [`Spare`](super::ReplayBody::Spare) of [`Replayable`](super::Replayable) and of the box bodies. Dropping it frees the
/// frames, and so does exceeding the limit.
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use tower_refresh::replay::{ReplayBody, Replayable, StreamSpare};
///
/// type Body = Replayable<Full<Bytes>>;
///
/// let mut body: Body = Replayable::new(Full::from("text"));
/// let spare: Option<StreamSpare<Box<Body>>> = body.keep_spare(1024);
/// ```
pub struct StreamSpare<B> {
    /// None if the body is empty.
    shared: Option<Handle<B>>,
}

/// The only foreign code that runs under the lock is `is_end_stream` and `size_hint` of the body. Bodies are polled, dropped and woken
/// outside.
type Handle<B> = Arc<Lock<Shared<B>>>;

impl<B, E> Tee<B, E> {
    /// Returns the first attempt, and a spare that keeps up to `limit` bytes.
    pub(super) fn split(body: B, limit: usize, fail: fn(BoxError) -> E) -> (Self, StreamSpare<B>) {
        let shared = Arc::new(Lock::new(Shared::new(body, limit)));
        let spare = StreamSpare { shared: Some(Arc::clone(&shared)) };
        (Self { part: Part::First(First(shared)), fail }, spare)
    }
}

// ===== impl Body =====

impl<B, E> Body for Tee<B, E>
where
    B: Body<Error = E> + Unpin,
{
    type Data = Bytes;
    type Error = E;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> PollFrame<E> {
        let this = self.get_mut();
        let error = |cut: Cut| (this.fail)(cut.into());
        loop {
            match &mut this.part {
                Part::Nothing => return Poll::Ready(None),
                Part::Alone(body) => return poll_bytes(Pin::new(body), cx),
                Part::First(first) => {
                    let (polled, alone) = first.poll(cx, error);
                    if let Some(body) = alone {
                        this.part = Part::Alone(body);
                    }
                    return polled;
                }
                Part::Second(second) => match ready!(second.poll(cx)) {
                    ControlFlow::Continue(rest) => this.part = Part::Alone(rest),
                    ControlFlow::Break(kept) => {
                        return Poll::Ready(kept.map(|kept| kept.map_err(error)));
                    }
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.part {
            Part::Nothing => true,
            Part::Alone(body) => body.is_end_stream(),
            Part::First(First(shared)) => shared.lock().rest.is_end_stream(),
            Part::Second(Second { shared, sent }) => {
                let shared = shared.lock();
                // If the first attempt asked for a frame, its body had not ended before. Neither has this one.
                let asked = shared.length.is_some() && sent.is_none();
                !asked && shared.kept.is_empty() && shared.rest.is_end_stream()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.part {
            Part::Nothing => SizeHint::with_exact(0),
            Part::Alone(body) => body.size_hint(),
            Part::First(First(shared)) => shared.lock().rest.size_hint(),
            Part::Second(Second { shared, sent }) => {
                let shared = shared.lock();
                let Some(length) = &shared.length else {
                    return shared.rest.size_hint();
                };
                let sent = sent.unwrap_or_default();
                let mut hint = SizeHint::new();
                hint.set_lower(length.lower().saturating_sub(sent));
                if let Some(upper) = length.upper() {
                    hint.set_upper(upper.saturating_sub(sent));
                }
                hint
            }
        }
    }
}

pub(super) type PollFrame<E> = Poll<Option<Result<Frame<Bytes>, E>>>;

/// Polls a body and converts its data to `Bytes`, which copies no data that is `Bytes` already.
pub(super) fn poll_bytes<B: Body>(body: Pin<&mut B>, cx: &mut Context<'_>) -> PollFrame<B::Error> {
    let to_bytes = |mut data: B::Data| data.copy_to_bytes(data.remaining());
    body.poll_frame(cx)
        .map(|polled| polled.map(|frame| frame.map(|frame| frame.map_data(to_bytes))))
}

impl<B> First<B>
where
    B: Body + Unpin,
{
    /// Polls for the next frame and keeps it. Also returns the body once no more frames need to be kept.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        error: impl Fn(Cut) -> B::Error,
    ) -> (PollFrame<B::Error>, Option<B>) {
        let mut shared = self.0.lock();
        let body = match shared.phase {
            Phase::Keeping | Phase::Released => shared.take_rest(),
            Phase::Paused | Phase::Cut => None,
        };
        let Some(mut body) = body else {
            let cut = match (shared.phase, &shared.rest) {
                (_, Rest::Ended) => None,
                (Phase::Cut, _) => Some(Cut::Retried),
                // The attempt has returned the error before.
                (_, Rest::Failed) => None,
                // The body has panicked, without an error so far.
                (_, Rest::Away) => Some(Cut::Failed),
                // Paused.
                (_, Rest::Here(_)) => {
                    Shared::wait(shared, cx);
                    return (Poll::Pending, None);
                }
            };
            drop(shared);
            return (Poll::Ready(cut.map(|cut| Err(error(cut)))), None);
        };
        shared.length.get_or_insert_with(|| body.size_hint());
        drop(shared);

        let polled = poll_bytes(Pin::new(&mut body), cx);

        // Meanwhile the spare may have paused, cut off or released this handle.
        let mut freed = Kept::default();
        let mut shared = self.0.lock();
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && shared.phase != Phase::Released
            && !shared.kept.push(frame)
            // A frame that was being polled when the pause began is kept even if it exceeds the limit.
            && shared.phase == Phase::Keeping
        {
            shared.phase = Phase::Released;
            freed = mem::take(&mut shared.kept);
        }
        let mut alone = None;
        match &polled {
            Poll::Ready(Some(Err(_))) => shared.rest = Rest::Failed,
            Poll::Ready(None) => shared.rest = Rest::Ended,
            _ if shared.phase == Phase::Released => alone = Some(body),
            _ => shared.rest = Rest::Here(body),
        }
        match shared.phase {
            Phase::Cut => {
                // The second attempt may wait for the body.
                Shared::wake(shared);
                if polled.is_pending() {
                    // To return the error: the body will wake the second attempt only.
                    cx.waker().wake_by_ref();
                }
            }
            // Registered even though the body wakes the caller: the second attempt must wake it to cut it off.
            Phase::Keeping | Phase::Paused if polled.is_pending() => Shared::wait(shared, cx),
            Phase::Keeping | Phase::Paused | Phase::Released => drop(shared),
        }
        drop(freed);
        (polled, alone)
    }
}

impl<B> Drop for First<B> {
    fn drop(&mut self) {
        let mut shared = self.0.lock();
        // The body panicked and is lost, or the second attempt owns it and needs nothing more.
        if matches!(shared.rest, Rest::Away) {
            shared.rest = Rest::Failed;
        }
        if shared.phase == Phase::Cut {
            Shared::wake(shared);
        }
    }
}

/// A frame that was kept, or the end of the body.
type KeptFrame = Option<Result<Frame<Bytes>, Cut>>;

impl<B> Second<B> {
    /// Returns the next frame that was kept, and then the rest of the body.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ControlFlow<KeptFrame, B>> {
        let mut shared = self.shared.lock();
        let sent = self.sent.get_or_insert(0);
        if let Some(frame) = shared.kept.pop() {
            *sent += frame.data_ref().map_or(0, |data| data.len() as u64);
            return Poll::Ready(ControlFlow::Break(Some(Ok(frame))));
        }
        if let Some(rest) = shared.take_rest() {
            return Poll::Ready(ControlFlow::Continue(rest));
        }
        match shared.rest {
            Rest::Ended => Poll::Ready(ControlFlow::Break(None)),
            Rest::Failed => Poll::Ready(ControlFlow::Break(Some(Err(Cut::Failed)))),
            // The first attempt is polling it.
            Rest::Here(_) | Rest::Away => {
                Shared::wait(shared, cx);
                Poll::Pending
            }
        }
    }
}

/// Frees what is left. The first attempt's handle may exist for long: hyper does not poll it for its error while one of its
/// frames waits for the server.
impl<B> Drop for Second<B> {
    fn drop(&mut self) {
        let mut shared = self.shared.lock();
        let kept = mem::take(&mut shared.kept);
        let rest = shared.take_rest();
        if rest.is_some() {
            shared.rest = Rest::Failed;
        }
        drop(shared);
        drop((kept, rest));
    }
}

// ===== impl StreamSpare =====

impl<B> StreamSpare<B> {
    /// Returns the spare of an empty body.
    pub(super) fn nothing() -> Self {
        Self { shared: None }
    }

    /// Stops the first attempt where it is, and returns whether a second one is possible.
    ///
    /// After `true`, the second attempt can fail only if the body itself fails.
    pub(super) fn pause(&self) -> bool {
        let Some(shared) = &self.shared else {
            return true;
        };
        let mut shared = shared.lock();
        if shared.phase == Phase::Released || matches!(shared.rest, Rest::Failed) {
            return false;
        }
        shared.phase = Phase::Paused;
        true
    }

    /// Returns the second attempt. From now on the first one fails: if it ended normally, the server would take the part that
    /// it has received for the whole body.
    pub(super) fn replay<E>(mut self, fail: fn(BoxError) -> E) -> Tee<B, E> {
        let Some(handle) = self.shared.take() else {
            return Tee { part: Part::Nothing, fail };
        };
        let mut shared = handle.lock();
        let mut dropped = None;
        if shared.phase == Phase::Released {
            // The caller has violated the contract. The frames that were sent are gone, so the second attempt must fail.
            dropped = Some(mem::replace(&mut shared.rest, Rest::Failed));
        }
        shared.phase = Phase::Cut;
        Shared::wake(shared);
        drop(dropped);
        Tee { part: Part::Second(Second { shared: handle, sent: None }), fail }
    }
}

/// Frees what was kept, and resumes the first attempt.
impl<B> Drop for StreamSpare<B> {
    fn drop(&mut self) {
        let Some(shared) = &self.shared else {
            return;
        };
        let mut shared = shared.lock();
        shared.phase = Phase::Released;
        let kept = mem::take(&mut shared.kept);
        Shared::wake(shared);
        drop(kept);
    }
}

impl<B> fmt::Debug for StreamSpare<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamSpare").finish_non_exhaustive()
    }
}
