//! What happens to the credentials, for whoever wants to watch.

use std::time::Duration;

use tokio::sync::broadcast;

use crate::error::TokenError;
use crate::source::{Cause, Notice};
use crate::trace;

/// How many events a slow subscriber may fall behind.
pub(super) const CAPACITY: usize = 64;

/// Something that happened to the [`Credentials`](crate::Credentials).
///
/// No event contains a token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A refresh began.
    #[non_exhaustive]
    RefreshStarted {
        /// Why.
        cause: Cause,
    },
    /// A new token set was issued to the requests.
    #[non_exhaustive]
    Refreshed {
        /// Its number; each new token set has a higher one.
        generation: u64,
        /// How long it may be used, leeway deducted; none if that is not known.
        usable_for: Option<Duration>,
    },
    /// A refresh failed. (A store that is looked at again while denied, and has nothing new, is no event, nor is that look.)
    #[non_exhaustive]
    RefreshFailed {
        /// Why.
        error: TokenError,
        /// Time until the source is asked again; `None` if not before the credentials change.
        ///
        /// After an [ambiguous](TokenError::is_ambiguous) failure that is not before the current token expires.
        retry_in: Option<Duration>,
    },
    /// A refresh did not land within ten timeouts, or the source was not told of a log-in or log-out within twenty, and is
    /// no longer waited for.
    RefreshLost,
    /// The source issues tokens that are over on arrival: by their lifetime or this machine's clock they have expired already.
    ///
    /// Such a token is used until a server rejects it, and refreshed in the background every few seconds. Sent for the first one,
    /// and again after a token with a lifetime.
    #[non_exhaustive]
    ExpiredOnArrival {
        /// The likely cause.
        reason: &'static str,
    },
    /// A refresh landed after others had brought newer credentials, and was published to nobody.
    RefreshSuperseded,
    /// A target rejected the token that was obtained because it rejected the one before. Its rejections start no refresh for a
    /// while; see [`RefreshPolicy::rejection_backoff`](crate::RefreshPolicy::rejection_backoff).
    #[non_exhaustive]
    RejectionBackoffStarted {
        /// For how long.
        duration: Duration,
    },
    /// A target accepted a token again after it had backed off.
    RejectionBackoffEnded,
    /// The application brought a token set of its own.
    #[non_exhaustive]
    LoggedIn {
        /// Its number.
        generation: u64,
    },
    /// The application forgot its tokens.
    LoggedOut,
    /// What the next event issues was obtained by somebody else, and found in the store.
    FoundInStore,
    /// A token set could not be saved. It is used, and will be saved as soon as that can be done; until then it is lost if
    /// the program ends.
    #[non_exhaustive]
    Unsaved {
        /// Why.
        error: TokenError,
    },
    /// What was unsaved is saved.
    Saved,
    /// The store tells of a refresh token that was sent, or was about to be, and nobody knows what became of it: by this
    /// process or another, which may have been killed.
    #[non_exhaustive]
    OutcomeUnknown {
        /// What is known.
        error: TokenError,
    },
    /// The subscriber was too slow and missed this many events.
    #[non_exhaustive]
    Lagged {
        /// How many.
        missed: u64,
    },
}

impl Event {
    #[cfg_attr(
        not(feature = "tracing"),
        allow(unused_variables, reason = "the macros expand to nothing")
    )]
    pub(super) fn trace(&self) {
        match self {
            Self::RefreshFailed { error, retry_in } => {
                trace::warning!(%error, ?retry_in, "refresh failed")
            }
            Self::RefreshLost => trace::warning!("refresh lost"),
            Self::ExpiredOnArrival { reason } => trace::warning!(reason, "token over on arrival"),
            Self::Unsaved { error } => trace::warning!(%error, "token set not saved"),
            Self::OutcomeUnknown { error } => {
                trace::warning!(%error, "outcome of a refresh unknown")
            }
            Self::RejectionBackoffStarted { duration } => trace::warning!(
                ?duration,
                "renewed token rejected too; rejections by this endpoint start no refresh meanwhile"
            ),
            _ => trace::debug!(event = ?self, "credentials"),
        }
    }
}

impl From<Notice> for Event {
    fn from(notice: Notice) -> Self {
        match notice {
            Notice::Adopted => Self::FoundInStore,
            Notice::Unsaved(error) => Self::Unsaved { error },
            Notice::Saved => Self::Saved,
            Notice::Unanswered(error) => Self::OutcomeUnknown { error },
        }
    }
}

/// The events of [`Credentials`](crate::Credentials), from the moment of [`subscribe`](crate::Credentials::subscribe) on.
#[derive(Debug)]
pub struct Events {
    receiver: broadcast::Receiver<Event>,
}

impl Events {
    pub(super) fn new(receiver: broadcast::Receiver<Event>) -> Self {
        Self { receiver }
    }

    /// Returns the next event, or none once the credentials are gone.
    ///
    /// A subscriber that falls more than 64 events behind gets [`Event::Lagged`] in place of those that it missed.
    ///
    /// # Cancel safety
    ///
    /// Dropping this future loses no event.
    pub async fn recv(&mut self) -> Option<Event> {
        match self.receiver.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Event::Lagged { missed }),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
