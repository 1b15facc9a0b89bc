//! A stream that is kept while it is sent.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::error::BoxError;

/// A handle to a body that two attempts share: the first attempt's, or the second's.
///
/// What the first attempt's handle sends is kept as it goes by, so that nothing waits and nothing is read ahead; the
/// second one sends what was kept, and then the rest of the body, wherever the first has stopped.
pub(super) struct Tee<B> {
    part: Part<B>,
}

enum Part<B> {
    /// There never was anything to send.
    Nothing,
    /// Nobody else wants anything of it any more.
    Alone(B),
    /// The first attempt, while there may be a second.
    First(First<B>),
    /// The second attempt: what was kept, and then the rest.
    Second(Second<B>),
}

/// The first attempt's end of it.
struct First<B>(Handle<B>);

/// The second attempt's end of it.
struct Second<B> {
    shared: Handle<B>,
    /// What it has sent so far, in bytes; none as long as it was not polled.
    sent: Option<u64>,
}

/// What is kept of a body while the first attempt sends it: the [`Spare`](crate::ReplayBody::Spare) of bodies that are
/// streams.
///
/// It holds on to the frames that were sent, up to a limit, and lets go of them when it is dropped, or when the limit is
/// passed.
pub struct StreamSpare<B> {
    /// None if there was nothing to send.
    shared: Option<Handle<B>>,
}

type Handle<B> = Arc<Lock<Shared<B>>>;

/// What the handles share.
///
/// The body itself is polled outside the lock, by one of them at a time: who polls it takes it away and brings it back.
///
/// | phase | the first attempt's handle | the spare |
/// |---|---|---|
/// | `Keeping` | sends, and keeps what it sends | may pause, replay, or let go |
/// | `Paused` | waits; a frame that was on its way as it began is kept and sent still | may replay, or let go |
/// | `Torn` | fails | is the second attempt's handle, and owns the rest |
/// | `Released` | sends | is gone, or of no use |
///
/// A frame is sent only if it was kept, unless nobody can ask for it any more: so that the second attempt sends all that
/// the first one did.
struct Shared<B> {
    phase: Phase,
    rest: Rest<B>,
    kept: Kept,
    /// How many more bytes may be kept.
    room: usize,
    /// What was known of the body's length when the first attempt asked for a frame; none as long as it has not. The second
    /// attempt says the same: with a length that came to be known later it would be another message, and over HTTP/1.1 one
    /// without trailers.
    length: Option<SizeHint>,
    /// The first attempt's handle, which waits for the body or for the end of a pause; once that is torn, the second one's,
    /// which waits for the rest.
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Keeping,
    Paused,
    Torn,
    Released,
}

/// What has not been sent yet.
enum Rest<B> {
    Here(B),
    /// One of the handles polls it, or has it for good.
    Away,
    Ended,
    Failed,
}

impl<B> Tee<B>
where
    B: Body + Unpin,
{
    /// Makes the first attempt's handle, and the spare that keeps up to `limit` bytes.
    pub(super) fn split(body: B, limit: usize) -> (Self, StreamSpare<B>) {
        let shared = Arc::new(Lock::new(Shared {
            phase: Phase::Keeping,
            length: None,
            rest: Rest::Here(body),
            kept: Kept::default(),
            room: limit,
            waker: None,
        }));
        let spare = StreamSpare { shared: Some(Arc::clone(&shared)) };
        (Self { part: Part::First(First(shared)) }, spare)
    }
}

// ===== impl Body =====

impl<B> Body for Tee<B>
where
    B: Body + Unpin,
{
    type Data = Bytes;
    type Error = Failure<B::Error>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        loop {
            let alone = match &mut self.part {
                Part::Nothing => return Poll::Ready(None),
                Part::Alone(body) => return poll_body(body, cx),
                Part::First(first) => {
                    let (polled, alone) = first.poll(cx);
                    if let Some(body) = alone {
                        self.part = Part::Alone(body);
                    }
                    return polled;
                }
                Part::Second(second) => match ready!(second.poll(cx)) {
                    Next::Kept(frame) => return Poll::Ready(frame),
                    Next::Rest(body) => body,
                },
            };
            self.part = Part::Alone(alone);
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.part {
            Part::Nothing => true,
            Part::Alone(body) => body.is_end_stream(),
            Part::First(First(shared)) => shared.lock().rest.is_end_stream(),
            Part::Second(Second { shared, sent }) => {
                let shared = shared.lock();
                // If the first attempt asked for a frame, the body had not ended by then, and so neither has this.
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
                let Some(length) = shared.length else {
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

/// Polls a body, whatever its buffers are.
fn poll_body<B>(body: &mut B, cx: &mut Context<'_>) -> PollFrame<B::Error>
where
    B: Body + Unpin,
{
    // A `Bytes` is not copied by this.
    let to_bytes = |mut data: B::Data| data.copy_to_bytes(data.remaining());
    let polled = ready!(Pin::new(body).poll_frame(cx));
    Poll::Ready(polled.map(|frame| match frame {
        Ok(frame) => Ok(frame.map_data(to_bytes)),
        Err(error) => Err(Failure::Body(error)),
    }))
}

type PollFrame<E> = Poll<Option<Result<Frame<Bytes>, Failure<E>>>>;

impl<B> First<B>
where
    B: Body + Unpin,
{
    /// Polls for the next frame, and keeps it. Returns the body as well once nothing is to be kept any more.
    fn poll(&mut self, cx: &mut Context<'_>) -> (PollFrame<B::Error>, Option<B>) {
        let mut shared = self.0.lock();
        let refused = match (shared.phase, &shared.rest) {
            // ## Keeping, Released => the body is polled
            (Phase::Keeping | Phase::Released, Rest::Here(_)) => None,
            (_, Rest::Ended) => Some(Poll::Ready(None)),
            (Phase::Torn, _) => Some(Poll::Ready(Some(Err(Failure::Cut(Cut::Torn))))),
            (Phase::Paused, Rest::Here(_)) => Some(Poll::Pending),
            // It has failed already.
            (_, Rest::Failed) => Some(Poll::Ready(None)),
            // It panicked, and nobody has been told yet that it failed.
            (_, Rest::Away) => Some(Poll::Ready(Some(Err(Failure::Cut(Cut::Failed))))),
        };
        if let Some(refused) = refused {
            let waker = if refused.is_pending() { shared.wait(cx) } else { None };
            drop(shared);
            drop(waker);
            return (refused, None);
        }
        if shared.length.is_none() {
            shared.length = Some(shared.rest.size_hint());
        }
        let Some(mut body) = shared.take_rest() else {
            return (Poll::Ready(None), None);
        };
        drop(shared);

        let polled = poll_body(&mut body, cx);

        // Meanwhile the spare may have paused, torn or released this handle.
        let mut shared = self.0.lock();
        let mut dropped = None;
        match &polled {
            Poll::Ready(Some(Ok(frame))) if shared.phase != Phase::Released => {
                // What was on its way when the pause began is sent, and so it is kept, whatever its size.
                if !shared.keep(frame) && shared.phase == Phase::Keeping {
                    shared.phase = Phase::Released;
                    dropped = Some(mem::take(&mut shared.kept));
                }
            }
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
            Poll::Ready(Some(Err(_))) => shared.rest = Rest::Failed,
            Poll::Ready(None) => shared.rest = Rest::Ended,
        }
        let mut alone = None;
        if matches!(polled, Poll::Ready(Some(Ok(_))) | Poll::Pending) {
            if shared.phase == Phase::Released {
                alone = Some(body);
            } else {
                shared.rest = Rest::Here(body);
            }
        }
        let is_torn = shared.phase == Phase::Torn;
        let (forgotten, waiting) = match shared.phase {
            // The second attempt may wait for the body.
            Phase::Torn => (None, shared.waker.take()),
            // Whoever tears this handle must tell whoever polls it: the body will tell the second attempt alone.
            Phase::Keeping | Phase::Paused if polled.is_pending() => (shared.wait(cx), None),
            Phase::Keeping | Phase::Paused | Phase::Released => (None, None),
        };
        drop(shared);
        drop((forgotten, dropped));
        if let Some(waiting) = waiting {
            waiting.wake();
        }
        if is_torn && polled.is_pending() {
            // For the error.
            cx.waker().wake_by_ref();
        }
        (polled, alone)
    }
}

impl<B> Drop for First<B> {
    fn drop(&mut self) {
        let mut shared = self.0.lock();
        // The body panicked while it was polled, and is gone; or the second attempt has it, which asks no more.
        if matches!(shared.rest, Rest::Away) {
            shared.rest = Rest::Failed;
        }
        let waker = if shared.phase == Phase::Torn { shared.waker.take() } else { None };
        drop(shared);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

enum Next<B: Body> {
    Kept(Option<Result<Frame<Bytes>, Failure<B::Error>>>),
    /// All that was kept has been sent: this is the rest.
    Rest(B),
}

impl<B: Body> Second<B> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Next<B>> {
        let mut shared = self.shared.lock();
        let sent = self.sent.get_or_insert(0);
        if let Some(frame) = shared.kept.pop() {
            *sent += frame.data_ref().map_or(0, |data| data.len() as u64);
            return Poll::Ready(Next::Kept(Some(Ok(frame))));
        }
        Poll::Ready(match &shared.rest {
            Rest::Ended => Next::Kept(None),
            Rest::Failed => Next::Kept(Some(Err(Failure::Cut(Cut::Failed)))),
            Rest::Away | Rest::Here(_) => match shared.take_rest() {
                Some(body) => Next::Rest(body),
                None => {
                    // The first attempt's handle is in the middle of a poll.
                    let waker = shared.wait(cx);
                    drop(shared);
                    drop(waker);
                    return Poll::Pending;
                }
            },
        })
    }
}

/// Frees what is left, since the first attempt's handle may stay for long: it is not asked for its error as long as a
/// frame of it waits for the server.
impl<B> Drop for Second<B> {
    fn drop(&mut self) {
        let mut shared = self.shared.lock();
        let kept = mem::take(&mut shared.kept);
        let rest = match shared.rest {
            Rest::Here(_) => mem::replace(&mut shared.rest, Rest::Failed),
            _ => Rest::Failed,
        };
        drop(shared);
        drop((kept, rest));
    }
}

impl<B: Body> Rest<B> {
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Here(body) => body.is_end_stream(),
            Self::Ended => true,
            Self::Away | Self::Failed => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Here(body) => body.size_hint(),
            Self::Ended => SizeHint::with_exact(0),
            Self::Away | Self::Failed => SizeHint::default(),
        }
    }
}

// ===== impl StreamSpare =====

impl<B> StreamSpare<B> {
    /// Makes the spare of a body that has nothing to send.
    pub(super) fn nothing() -> Self {
        Self { shared: None }
    }

    /// Stops the first attempt's handle where it is, and returns whether there can be a second one.
    ///
    /// If there can, nothing but a failure of the body itself changes that any more.
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

    /// Makes the second attempt's handle. The first attempt's fails from now on: an orderly end would make the server
    /// believe that what it has is all there is.
    pub(super) fn replay(mut self) -> Tee<B> {
        let Some(handle) = self.shared.take() else {
            return Tee { part: Part::Nothing };
        };
        let mut shared = handle.lock();
        let mut dropped = None;
        if shared.phase == Phase::Released {
            // Nobody may ask for that. What was sent is not here any more, so that there is nothing to send but an error.
            dropped = Some(mem::replace(&mut shared.rest, Rest::Failed));
        }
        shared.phase = Phase::Torn;
        let waker = shared.waker.take();
        drop(shared);
        drop(dropped);
        if let Some(waker) = waker {
            waker.wake();
        }
        Tee { part: Part::Second(Second { shared: handle, sent: None }) }
    }
}

/// Frees what was kept, and lets the first attempt go on.
impl<B> Drop for StreamSpare<B> {
    fn drop(&mut self) {
        let Some(shared) = &self.shared else {
            return;
        };
        let mut shared = shared.lock();
        shared.phase = Phase::Released;
        let kept = mem::take(&mut shared.kept);
        let waker = shared.waker.take();
        drop(shared);
        drop(kept);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<B> fmt::Debug for StreamSpare<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamSpare").finish_non_exhaustive()
    }
}

impl<B> fmt::Debug for Tee<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = match &self.part {
            Part::Nothing => "Nothing",
            Part::Alone(_) => "Alone",
            Part::First(_) => "First",
            Part::Second(_) => "Second",
        };
        f.debug_struct("Tee").field("part", &part).finish_non_exhaustive()
    }
}

// ===== what is kept =====

impl<B> Shared<B> {
    /// Takes the body away, to poll it.
    fn take_rest(&mut self) -> Option<B> {
        if !matches!(self.rest, Rest::Here(_)) {
            return None;
        }
        match mem::replace(&mut self.rest, Rest::Away) {
            Rest::Here(body) => Some(body),
            _ => None,
        }
    }

    /// Has the caller woken. Returns the waker that is forgotten, which must not be dropped under the lock: a task may go
    /// with it, and with the task the other handle.
    fn wait(&mut self, cx: &Context<'_>) -> Option<Waker> {
        match &self.waker {
            Some(waker) if waker.will_wake(cx.waker()) => None,
            _ => self.waker.replace(cx.waker().clone()),
        }
    }

    /// Keeps a frame; returns false if that took more room than there was.
    fn keep(&mut self, frame: &Frame<Bytes>) -> bool {
        let size = if let Some(data) = frame.data_ref() {
            self.kept.push_data(data, self.room);
            data.len()
        } else if let Some(trailers) = frame.trailers_ref() {
            self.kept.frames.push_back(KeptFrame::Trailers(Box::new(trailers.clone())));
            trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
        } else {
            // A kind of frame that is not known today cannot be kept.
            usize::MAX
        };
        let fits = size <= self.room;
        self.room = self.room.saturating_sub(size);
        fits
    }
}

#[derive(Default)]
struct Kept {
    frames: VecDeque<KeptFrame>,
}

enum KeptFrame {
    /// Shared with the first attempt.
    Large(Bytes),
    /// Copies of small frames, one after the other: the buffers that they are cut from may outweigh them.
    Small(BytesMut),
    /// Boxed, so that the others are no larger than their data is.
    Trailers(Box<HeaderMap>),
}

/// Smaller frames are copied, in bytes.
///
/// Servers read into buffers of some 8 KiB, hyper's into a new one for each packet.
const LARGE: usize = 4096;

/// The most that lies in one piece of small frames, in bytes.
const BLOCK: usize = 8192;

impl Kept {
    /// Takes no more than the data's length, or what `room` there is.
    fn push_data(&mut self, data: &Bytes, room: usize) {
        if data.len() >= LARGE {
            self.frames.push_back(KeptFrame::Large(data.clone()));
            return;
        }
        let mut data = &data[..];
        // One frame is all that many bodies have; where there are two, there will be more.
        let mut capacity = 0;
        if let Some(KeptFrame::Small(block)) = self.frames.back_mut() {
            let (fits, left) = data.split_at(data.len().min(block.capacity() - block.len()));
            block.extend_from_slice(fits);
            data = left;
            capacity = room.min(BLOCK);
        }
        if !data.is_empty() {
            let mut block = BytesMut::with_capacity(capacity.max(data.len()));
            block.extend_from_slice(data);
            self.frames.push_back(KeptFrame::Small(block));
        }
    }

    fn pop(&mut self) -> Option<Frame<Bytes>> {
        let data = match self.frames.pop_front()? {
            KeptFrame::Large(data) => data,
            KeptFrame::Small(small) => small.freeze(),
            KeptFrame::Trailers(trailers) => return Some(Frame::trailers(*trailers)),
        };
        Some(Frame::data(data))
    }

    fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

// ===== errors =====

/// Why a handle has no further frame.
#[derive(Debug)]
pub(super) enum Failure<E> {
    /// The body failed, as it would have without us.
    Body(E),
    Cut(Cut),
}

impl<E> Failure<E> {
    /// Returns the body's error, or makes one of its type.
    pub(super) fn unwrap_or_else(self, wrap: impl FnOnce(BoxError) -> E) -> E {
        match self {
            Self::Body(error) => error,
            Self::Cut(cut) => wrap(cut.into()),
        }
    }

    pub(super) fn boxed(self) -> BoxError
    where
        E: Into<BoxError>,
    {
        match self {
            Self::Body(error) => error.into(),
            Self::Cut(cut) => cut.into(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    Torn,
    Failed,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Torn => {
                "the token was rejected while this was sent, and the request is sent again"
            }
            Self::Failed => "the body failed in the first attempt, and cannot be sent again",
        })
    }
}

impl Error for Cut {}

// ===== the lock =====

/// A lock that a panic does not poison.
///
/// Of somebody else's code only a body's hints run while it is held: bodies are polled, dropped and woken outside.
#[expect(
    clippy::disallowed_types,
    reason = "two tasks share a body, and the state's lock is not theirs"
)]
struct Lock<T>(std::sync::Mutex<T>);

impl<T> Lock<T> {
    fn new(value: T) -> Self {
        #[expect(clippy::disallowed_types, reason = "as above")]
        Self(std::sync::Mutex::new(value))
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
