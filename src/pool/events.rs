//! The events of all keys of a pool.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::stream::{Stream, StreamExt as _};
use tokio::sync::broadcast;

use crate::credentials::{Event, EventStream, NamedEvent, event_stream};

/// An event of the [`Credentials`](crate::Credentials) of one key.
///
/// No event contains a token.
///
/// # Examples
///
/// ```
/// use tower_refresh::{Event, PoolEvent};
///
/// fn must_log_in(event: &PoolEvent) -> Option<&str> {
///     let denied = matches!(&event.event, Event::RefreshFailed { error, .. } if error.must_log_in());
///     denied.then_some(&*event.key)
/// }
/// # let _ = must_log_in;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolEvent {
    /// The [name](crate::PoolKey::name) of the key.
    ///
    /// For [`Event::OutageStarted`] and [`Event::OutageEnded`], it is the key whose refresh failed or was answered. For
    /// [`Event::Lagged`] it is empty, because the missed events are those of any key.
    pub key: Arc<str>,
    /// The event.
    pub event: Event,
}

/// A subscription to the events of all keys, returned by [`CredentialsPool::subscribe`](crate::CredentialsPool::subscribe).
///
/// Receive events with [`recv`](Self::recv), or use the subscription as a `Stream`. It ends when the pool and all of its credentials
/// are dropped. A subscriber that falls more than 1,024 events behind receives [`Event::Lagged`] instead of the events that it missed.
///
/// # Examples
///
/// ```
/// use tower_refresh::{Credentials, CredentialsPool, Event, Renewal, TokenSet};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_refresh::TokenError> {
/// let pool = CredentialsPool::new(|_: &String| {
///     Credentials::builder(|_: Renewal| async { TokenSet::bearer("sesame") })
/// });
/// let mut events = pool.subscribe();
/// pool.get(&"alice".to_owned())?.warm_up().await?;
/// let first = events.recv().await.unwrap();
/// assert_eq!(&*first.key, "alice");
/// assert!(matches!(first.event, Event::RefreshStarted { .. }));
/// # Ok(())
/// # }
/// ```
pub struct PoolEvents {
    stream: EventStream<PoolEvent>,
}

impl PoolEvents {
    pub(super) fn new(receiver: broadcast::Receiver<NamedEvent>) -> Self {
        let event = |(key, event)| PoolEvent { key, event };
        let lagged = |missed| PoolEvent { key: "".into(), event: Event::Lagged { missed } };
        Self { stream: event_stream(receiver, event, lagged) }
    }

    /// Returns the next event, or `None` after the pool and all of its credentials were dropped.
    ///
    /// # Cancel safety
    ///
    /// Dropping this future loses no event.
    pub async fn recv(&mut self) -> Option<PoolEvent> {
        self.stream.next().await
    }
}

impl Stream for PoolEvents {
    type Item = PoolEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<PoolEvent>> {
        self.stream.poll_next_unpin(cx)
    }
}

impl fmt::Debug for PoolEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolEvents").finish_non_exhaustive()
    }
}
