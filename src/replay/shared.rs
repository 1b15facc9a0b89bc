//! The state that two attempts to send one stream share.

use std::error::Error;
use std::fmt;
use std::mem;
use std::sync::MutexGuard;
use std::task::{Context, Waker};

use http_body::{Body, SizeHint};

use super::kept::Kept;

/// The state that the handles of one body share.
///
/// The body is polled outside the lock, by one handle at a time: the handle takes it out of `rest` and puts it back.
///
/// | Phase | First attempt | Spare |
/// |---|---|---|
/// | `Keeping` | sends, and keeps what it sends | may pause, replay, or be dropped |
/// | `Paused` | waits; a frame that is being polled is still kept and sent | may replay, or be dropped |
/// | `Cut` | fails | has become the second attempt, which owns the rest |
/// | `Released` | sends | was dropped, or exceeded the limit |
///
/// Invariant: until `Released`, a frame is sent only if it is kept. So the second attempt sends everything that the first one
/// has sent.
pub(super) struct Shared<B> {
    pub(super) phase: Phase,
    pub(super) rest: Rest<B>,
    pub(super) kept: Kept,
    /// The length that the body reported when the first attempt asked for its first frame, `None` before that.
    ///
    /// The second attempt reports the same. With a length that became known later it would be a different message, and over
    /// HTTP/1.1 one without trailers.
    pub(super) length: Option<SizeHint>,
    /// Wakes the first attempt, which waits for the body or for the end of a pause. From `Cut` on, wakes the second attempt,
    /// which waits for the rest.
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Keeping,
    Paused,
    Cut,
    Released,
}

/// The part of the body that has not been sent.
pub(super) enum Rest<B> {
    Here(B),
    /// A handle polls it, or owns it. If the handle's poll panicked, the body is lost.
    Away,
    Ended,
    Failed,
}

impl<B> Shared<B> {
    pub(super) fn new(body: B, limit: usize) -> Self {
        Self {
            phase: Phase::Keeping,
            rest: Rest::Here(body),
            kept: Kept::up_to(limit),
            length: None,
            waker: None,
        }
    }

    /// Takes the body out, to poll it.
    pub(super) fn take_rest(&mut self) -> Option<B> {
        match mem::replace(&mut self.rest, Rest::Away) {
            Rest::Here(body) => Some(body),
            other => {
                self.rest = other;
                None
            }
        }
    }

    /// Registers the caller to be woken, and unlocks.
    ///
    /// The previous waker is dropped after that: it may own a task, and the task may own the other handle.
    pub(super) fn wait(mut shared: MutexGuard<'_, Self>, cx: &Context<'_>) {
        let previous = match &shared.waker {
            Some(waker) if waker.will_wake(cx.waker()) => None,
            _ => shared.waker.replace(cx.waker().clone()),
        };
        drop(shared);
        drop(previous);
    }

    /// Unlocks, and wakes the handle that waits.
    pub(super) fn wake(mut shared: MutexGuard<'_, Self>) {
        let waker = shared.waker.take();
        drop(shared);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<B: Body> Rest<B> {
    pub(super) fn is_end_stream(&self) -> bool {
        match self {
            Self::Here(body) => body.is_end_stream(),
            Self::Ended => true,
            Self::Away | Self::Failed => false,
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Here(body) => body.size_hint(),
            Self::Ended => SizeHint::with_exact(0),
            Self::Away | Self::Failed => SizeHint::default(),
        }
    }
}

/// The error of an attempt whose body does not fail by itself.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    /// The second attempt has taken over.
    Retried,
    /// The body failed or panicked in the first attempt.
    Failed,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Retried => {
                "the token was rejected while this body was sent; the request is sent again"
            }
            Self::Failed => "the body failed in the first attempt and cannot be sent again",
        })
    }
}

impl Error for Cut {}
