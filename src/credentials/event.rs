//! Events of the credentials: definition and subscription. The log lines are in `log`.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _};
use http::StatusCode;
use tokio::sync::broadcast;

use crate::classify::Rejection;
use crate::clock::Timestamp;
use crate::error::TokenError;
use crate::metrics::Metrics;
use crate::source::Cause;

/// An event of the [`Credentials`](crate::Credentials).
///
/// Use events for metrics and a user interface that asks the user to log in. The crate [logs](crate::docs::logs) by itself. For the current state, use
/// [`Credentials::status`](crate::Credentials::status).
///
/// A refresh may be denied while the access token still works. An event reports that at once: a time to warn the user, and not to
/// interrupt. [`TokenError::of`] reports when a request has no token.
///
/// No event contains a token.
///
/// # Examples
///
/// ```
/// use tower_refresh::Event;
///
/// fn must_log_in(event: &Event) -> bool {
///     matches!(event, Event::RefreshFailed { error, .. } if error.must_log_in())
/// }
/// # assert!(!must_log_in(&Event::LoggedOut));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A refresh started.
    #[non_exhaustive]
    RefreshStarted {
        /// The reason.
        cause: Cause,
    },
    /// A refresh succeeded, and requests use the new token set.
    #[non_exhaustive]
    Refreshed {
        /// The generation of the new token set, which is higher than that of any earlier one.
        generation: u64,
        /// Time until the access token counts as expired, which is the leeway before its expiry, or `None` if its expiry is not
        /// known.
        usable_for: Option<Duration>,
    },
    /// A refresh failed.
    ///
    /// With a store, a look at the store that finds nothing new is not an event.
    #[non_exhaustive]
    RefreshFailed {
        /// The error that waiting requests get.
        error: TokenError,
        /// Time until the next refresh may start, or `None` if not before the credentials change.
        ///
        /// After an [ambiguous](TokenError::is_ambiguous) failure, not before the current token expires. After a
        /// [denied](TokenError::is_denied) one, the store is still checked for tokens of other processes.
        retry_in: Option<Duration>,
        /// Time until the access token is not used any more, so that requests fail. Zero if no token works, or `None` if its expiry is
        /// not known.
        usable_for: Option<Duration>,
    },
    /// A refresh did not end within ten timeouts, or a log-in or log-out was not recorded within twenty. It is no longer waited
    /// for.
    RefreshLost,
    /// A refresh ended after a log-in, a log-out or a newer refresh. Its result is not used.
    RefreshSuperseded,
    /// The source issued a token that had already expired, by its lifetime or by the clock of this machine.
    ///
    /// Such a token is used until a server rejects it, and is refreshed in the background every few seconds. The event is sent
    /// for the first such token, and again after a token with a lifetime.
    #[non_exhaustive]
    ExpiredOnArrival {
        /// The likely reason.
        reason: &'static str,
    },
    /// A target rejected the token again right after a refresh. Its rejections start no refresh until the
    /// [rejection backoff](crate::RefreshPolicy::rejection_backoff) is over.
    #[non_exhaustive]
    RejectionBackoffStarted {
        /// The length of the backoff.
        duration: Duration,
        /// The origin of the rejected request, if it is known.
        origin: Option<Arc<str>>,
        /// The status of the response. A gRPC rejection has the status 200. `None` if a token endpoint refused the token as a proof.
        status: Option<StatusCode>,
        /// The error code in the challenge of the response (RFC 6750 §3.1), such as `invalid_token`.
        challenge_error: Option<Arc<str>>,
    },
    /// A target with a rejection backoff accepted the token, or the application has
    /// [reported](crate::Credentials::rejected) no rejection for the longest backoff.
    RejectionBackoffEnded,
    /// The application logged in.
    #[non_exhaustive]
    LoggedIn {
        /// The generation of the token set that the application provided.
        generation: u64,
        /// Time until the access token counts as expired, or `None` if its expiry is not known.
        usable_for: Option<Duration>,
    },
    /// The application logged out.
    LoggedOut,
    /// The token set of the next event was found in the store: another process obtained it.
    FoundInStore,
    /// The store did not save a token set. The token set is used, and saved as soon as possible. If the program ends before
    /// that, it is lost.
    #[non_exhaustive]
    Unsaved {
        /// The error of the store.
        error: TokenError,
    },
    /// A token set that was unsaved is saved, or a log-in or log-out that had returned the error of the store.
    Saved,
    /// The store has a refresh token that was sent, or was about to be sent, and whose outcome is unknown. This process or
    /// another one sent it, and may have been killed.
    #[non_exhaustive]
    OutcomeUnknown {
        /// A description of that attempt.
        error: TokenError,
    },
    /// The token endpoint fails for several credentials of a pool, or has asked for a pause with `Retry-After`. Until the pause is
    /// over, no refresh is sent to it, and then one at a time. Only the subscribers of the pool get this event.
    #[non_exhaustive]
    OutageStarted {
        /// The origin of the token endpoint.
        endpoint: Arc<str>,
        /// The error of the last refresh.
        error: TokenError,
    },
    /// The token endpoint has answered. Only the subscribers of the pool get this event.
    #[non_exhaustive]
    OutageEnded {
        /// The origin of the token endpoint.
        endpoint: Arc<str>,
    },
    /// The subscriber was too slow and missed events.
    #[non_exhaustive]
    Lagged {
        /// The number of missed events.
        missed: u64,
    },
}

/// The number of events that a slow subscriber may fall behind.
pub(super) const CAPACITY: usize = 64;

impl Event {
    /// Creates the event of a rejection backoff. The state does not know the rejection.
    pub(super) fn backoff_started(duration: Duration) -> Self {
        Self::RejectionBackoffStarted {
            duration,
            origin: None,
            status: None,
            challenge_error: None,
        }
    }

    /// Adds the rejection that has caused it.
    pub(super) fn caused_by(&mut self, rejection: &Rejection) {
        if let Self::RejectionBackoffStarted { origin, status, challenge_error, .. } = self {
            origin.clone_from(&rejection.origin);
            *status = rejection.status;
            *challenge_error = rejection.error().map(Into::into);
        }
    }

    /// Changes the metrics that follow from an event alone.
    pub(super) fn count(&self, metrics: &Metrics, now: Timestamp) {
        match self {
            Self::Refreshed { usable_for, .. } | Self::LoggedIn { usable_for, .. } => {
                let expiry = usable_for.and_then(|usable| now.wall().checked_add(usable));
                metrics.expires(expiry);
            }
            Self::LoggedOut => metrics.expires(None),
            Self::RefreshLost => metrics.lost(),
            _ => {}
        }
    }
}

/// A subscription to the events of [`Credentials`](crate::Credentials), from [`subscribe`](crate::Credentials::subscribe) on.
///
/// Receive events with [`recv`](Self::recv), or use the subscription as a `Stream`. It ends when the last clone of the
/// credentials is dropped. A subscriber that falls more than 64 events behind receives [`Event::Lagged`] instead of the events
/// that it missed.
///
/// # Examples
///
/// ```
/// use tower_refresh::{Credentials, Event, StaticToken};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_refresh::TokenError> {
/// let credentials = Credentials::new(StaticToken::new("sesame".parse()?));
/// let mut events = credentials.subscribe();
/// credentials.warm_up().await?;
/// assert!(matches!(events.recv().await, Some(Event::RefreshStarted { .. })));
/// assert!(matches!(events.recv().await, Some(Event::Refreshed { generation: 1, .. })));
/// # Ok(())
/// # }
/// ```
pub struct Events {
    stream: EventStream<Event>,
}

/// A stream of events, which keeps its place between two polls, so that dropping a future that waits for the next one loses none.
pub(crate) type EventStream<T> = stream::Fuse<Pin<Box<dyn Stream<Item = T> + Send + Sync>>>;

/// Creates a stream of the received events. `lagged` makes the item that reports a number of missed ones.
pub(crate) fn event_stream<R, T>(
    receiver: broadcast::Receiver<R>,
    event: fn(R) -> T,
    lagged: fn(u64) -> T,
) -> EventStream<T>
where
    R: Clone + Send + Sync + 'static,
    T: Send + Sync + 'static,
{
    let stream = stream::unfold(receiver, move |mut receiver| async move {
        let event = match receiver.recv().await {
            Ok(received) => event(received),
            Err(broadcast::error::RecvError::Lagged(missed)) => lagged(missed),
            Err(broadcast::error::RecvError::Closed) => return None,
        };
        Some((event, receiver))
    });
    let stream: Pin<Box<dyn Stream<Item = T> + Send + Sync>> = Box::pin(stream);
    stream.fuse()
}

impl Events {
    pub(super) fn new(receiver: broadcast::Receiver<Event>) -> Self {
        Self { stream: event_stream(receiver, |event| event, |missed| Event::Lagged { missed }) }
    }

    /// Returns the next event, or `None` after the last clone of the credentials was dropped.
    ///
    /// # Cancel safety
    ///
    /// Dropping this future loses no event.
    pub async fn recv(&mut self) -> Option<Event> {
        self.stream.next().await
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.stream.poll_next_unpin(cx)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn dropped_recv_loses_no_event() {
        let sender = broadcast::Sender::new(CAPACITY);
        let mut events = Events::new(sender.subscribe());
        assert!(events.recv().now_or_never().is_none());
        sender.send(Event::Saved).unwrap();
        drop(events.recv());
        assert!(matches!(events.recv().now_or_never(), Some(Some(Event::Saved))));
    }

    #[test]
    fn slow_subscriber_receives_the_number_of_missed_events() {
        let sender = broadcast::Sender::new(2);
        let mut events = Events::new(sender.subscribe());
        for _ in 0..5 {
            sender.send(Event::Saved).unwrap();
        }
        let next = events.next().now_or_never();
        assert!(matches!(next, Some(Some(Event::Lagged { missed: 3 }))));
        assert!(matches!(events.next().now_or_never(), Some(Some(Event::Saved))));
    }

    #[test]
    fn stream_ends_with_the_credentials_and_can_be_polled_again() {
        let sender = broadcast::Sender::new(CAPACITY);
        let mut events = Events::new(sender.subscribe());
        drop(sender);
        for _ in 0..2 {
            assert!(matches!(events.next().now_or_never(), Some(None)));
        }
    }
}
