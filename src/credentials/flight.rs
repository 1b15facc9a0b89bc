//! A refresh in flight, as the state knows it: its errand, those who wait for it, and when it counts as lost.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::Shared;
use tokio::sync::oneshot::error::RecvError;
use tokio::sync::{Mutex, oneshot};
use tokio::task::{Unconstrained, unconstrained};

use super::generation::Generation;
use super::issued::Issued;
use super::policy::Timing;
use crate::clock::{Deadline, Timestamp};
use crate::error::TokenError;
use crate::grant::{Look, Obtained, SetId, Wish};
use crate::source::Cause;
use crate::target::Target;
use crate::trace::{Span, ms};

/// A flight or an adoption that has the turn at the ledger, or waits for it.
///
/// It is lost after ten timeouts, an adoption after twenty: it may first have to wait until the flight before it is lost.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) id: FlightId,
    pub(super) kind: FlightKind,
    /// True if it asks the source. One that uses only the store, or records a log-in, sends nothing.
    pub(super) asks: bool,
    /// Until then requests wait for it although the current token has not expired.
    pub(super) patience: Deadline,
    pub(super) lost: Deadline,
    /// True if it was far overdue when that was first noticed, and was given more time.
    was_overdue: bool,
    pub(super) sender: oneshot::Sender<Outcome>,
    pub(super) landing: Landing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlightId(pub(super) u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlightKind {
    /// Refreshes while the current token is used.
    Refreshing,
    /// Refreshes because the current token was rejected: new requests wait instead of being rejected too.
    Replacing,
    /// Records a log-in or a log-out.
    Adopting,
}

/// The result of a flight, for all who wait for it.
pub(super) type Outcome = Result<Arc<Issued>, TokenError>;

/// The landing of a flight, for all who wait for it. If the sender is dropped, something else happened, such as a log-in: they ask
/// again.
///
/// It is outside of tokio's cooperative budget: a receiver that is polled without budget wakes that task and registers no waker.
/// If the task is then dropped, the others would never be woken.
#[derive(Clone, Debug)]
pub(super) struct Landing {
    outcome: Shared<Unconstrained<oneshot::Receiver<Outcome>>>,
    pub(super) record: Arc<Record>,
}

impl Landing {
    fn new(outcome: oneshot::Receiver<Outcome>) -> Self {
        Self { outcome: unconstrained(outcome).shared(), record: Arc::default() }
    }
}

impl Future for Landing {
    type Output = Result<Outcome, RecvError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.outcome.poll_unpin(cx)
    }
}

/// The turn at the ledger: held by a flight or an adoption, first come, first served.
pub(super) type Turn = Arc<Mutex<()>>;

impl Flight {
    pub(super) fn new(
        now: Timestamp,
        id: FlightId,
        kind: FlightKind,
        asks: bool,
        timing: &Timing,
    ) -> Self {
        let times = if kind == FlightKind::Adopting { 2 * LOST_AFTER } else { LOST_AFTER };
        let (sender, receiver) = oneshot::channel();
        Self {
            id,
            kind,
            asks,
            patience: Deadline::monotonic(now, timing.timeout),
            lost: Deadline::monotonic(now, timing.timeout.saturating_mul(times)),
            was_overdue: false,
            sender,
            landing: Landing::new(receiver),
        }
    }

    /// Returns whether it is lost.
    ///
    /// If it is far overdue when that is first noticed, the process may have been stopped, and the response may be in a socket that
    /// no task has read yet. Another flight would send the refresh token again, so this one gets one more timeout.
    pub(super) fn is_lost(&mut self, now: Timestamp, timing: &Timing) -> bool {
        if self.lost.has_come(now) && !self.was_overdue {
            self.was_overdue = true;
            if self.lost.overdue(now) >= timing.timeout {
                self.lost = Deadline::monotonic(now, timing.timeout);
            }
        }
        self.lost.has_come(now)
    }
}

/// A flight that was decided on and has not been started yet.
#[derive(Clone, Debug)]
pub(super) struct Departure {
    pub(super) id: FlightId,
    pub(super) errand: Errand,
    pub(super) wish: Wish,
    /// The generation that it replaces.
    pub(super) parent: Generation,
    pub(super) epoch: u64,
    /// The target whose rejection started it.
    pub(super) target: Option<Target>,
    /// True if it is sent during an outage too, as the next probe.
    pub(super) at_once: bool,
    pub(super) turn: Turn,
    pub(super) landing: Landing,
}

/// The purpose of a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// To obtain a token set.
    Refresh,
    /// To look for what other processes have stored: a rejection starts no refresh, an outcome is unknown, or the grant is denied.
    Look,
    /// To save a token set that is only in memory.
    Save,
}

/// The end of a flight.
#[derive(Debug)]
pub(super) enum Landed {
    Refreshed(Result<Obtained, TokenError>),
    Looked(Look),
    Saved(Result<bool, TokenError>),
}

impl Landed {
    /// Returns whether the token set was found in the store.
    pub(super) fn is_found(&self) -> bool {
        matches!(
            self,
            Self::Looked(Look::Newer(_)) | Self::Refreshed(Ok(Obtained { is_adopted: true, .. }))
        )
    }
}

// ===== for logs =====

/// The record of a flight for logs, which its waiters share.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// Set if it is a refresh.
    span: OnceLock<Span>,
    waiters: AtomicU32,
}

impl Record {
    /// Begins the span of a refresh. `failures` is the number of refreshes that failed before in a row.
    pub(super) fn begin(&self, credentials: &str, cause: Cause, failures: u32) -> Span {
        let attempt = failures.saturating_add(1);
        self.span.get_or_init(|| Span::of_refresh(credentials, cause.as_str(), attempt)).clone()
    }

    /// Notes that the current request waits for it.
    pub(super) fn is_waited_for(&self) {
        self.waiters.fetch_add(1, Ordering::Relaxed);
        if let Some(span) = self.span.get() {
            span.is_waited_for();
        }
    }

    /// Records the end of the refresh in its span.
    pub(super) fn end(&self, flown: Option<&Flown>, result: FlightResult<'_>) {
        let Some(span) = self.span.get() else { return };
        let (outcome, error) = match result {
            FlightResult::Superseded => ("superseded", None),
            FlightResult::Failed(error) => ("failed", Some(error)),
            FlightResult::FoundInStore(generation) => {
                span.record("generation", generation.0);
                ("found_in_store", None)
            }
            FlightResult::Refreshed(generation) => {
                span.record("generation", generation.0);
                ("refreshed", None)
            }
        };
        span.record("outcome", outcome);
        if let Some(error) = error {
            span.record("kind", error.kind().as_str());
            span.record("code", error.code());
        }
        if let Some(flown) = flown {
            span.record("duration_ms", ms(flown.duration));
        }
        span.record("waiters", self.waiters.load(Ordering::Relaxed));
    }
}

/// The result of a refresh, for its span.
pub(super) enum FlightResult<'a> {
    Refreshed(Generation),
    FoundInStore(Generation),
    Failed(&'a TokenError),
    Superseded,
}

/// A flight that lands now.
pub(super) struct Flown {
    pub(super) cause: Cause,
    /// The time since it departed.
    pub(super) duration: Duration,
    /// The timeout of requests, if it took longer than that once it had its turn.
    pub(super) late: Option<Duration>,
    pub(super) record: Arc<Record>,
}

impl Flown {
    pub(super) fn waiters(&self) -> u32 {
        self.record.waiters.load(Ordering::Relaxed)
    }
}

// ===== log-ins and log-outs =====

/// A log-in or log-out that the ledger has yet to record.
#[derive(Clone, Debug)]
pub(super) struct Adoption {
    pub(super) id: FlightId,
    pub(super) set: SetId,
    pub(super) epoch: u64,
    pub(super) turn: Turn,
}

/// The number of timeouts after which a flight counts as lost.
pub(super) const LOST_AFTER: u32 = 10;
