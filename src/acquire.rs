//! A token for a request, and then a service that is ready to send it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Request;
use tower_service::Service;

use crate::credentials::{Answer, Credentials, Issued, Waiting};
use crate::error::{BoxError, TokenError};

/// Waits for a token, and then readies a service.
///
/// The token comes first, so that a request that waits for one holds no permit and no place in a queue. Nothing is awaited
/// between a service that is ready and its call.
pub(crate) struct Acquire<I> {
    service: I,
    phase: Phase,
    /// True if the first token was no longer valid when the service was ready.
    went_back: bool,
}

enum Phase {
    /// Waits for a token, with a service that is not ready.
    Waiting(Waiting),
    /// Has a token, and readies the service.
    Readying { token: Arc<Issued>, was_delayed: bool },
}

/// Why nothing is sent.
pub(crate) enum Failure {
    Token(TokenError),
    Service(BoxError),
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        Self::Token(error)
    }
}

impl<I> Acquire<I> {
    /// Waits for a token. The service is not ready.
    pub(crate) fn wait(waiting: Waiting, service: I) -> Self {
        Self { service, phase: Phase::Waiting(waiting), went_back: false }
    }

    /// Has a token, for a service that is not ready.
    pub(crate) fn with(token: Arc<Issued>, service: I) -> Self {
        Self { service, phase: Phase::Readying { token, was_delayed: false }, went_back: false }
    }

    /// The service, which is ready once [`poll`](Self::poll) has returned a token.
    pub(crate) fn service(&mut self) -> &mut I {
        &mut self.service
    }

    pub(crate) fn poll<B>(
        &mut self,
        credentials: &Credentials,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Arc<Issued>, Failure>>
    where
        I: Service<Request<B>> + Clone,
        I::Error: Into<BoxError>,
    {
        loop {
            match &mut self.phase {
                // ## Waiting => (Readying | error)
                Phase::Waiting(waiting) => {
                    let token = ready!(Pin::new(waiting).poll(cx))?;
                    self.phase = Phase::Readying { token, was_delayed: false };
                }

                // ## Readying => (token | Waiting | error)
                Phase::Readying { token, was_delayed } => {
                    let Poll::Ready(ready) = self.service.poll_ready(cx) else {
                        *was_delayed = true;
                        return Poll::Pending;
                    };
                    ready.map_err(|error| Failure::Service(error.into()))?;
                    // While the service was not ready, the token may have been replaced, logged out, or have expired. The
                    // request goes back for a newer one once: with tokens that live shorter than the queue is long, it
                    // would go back forever.
                    let may_have_expired = self.went_back || !*was_delayed;
                    match credentials.recheck(Arc::clone(token), may_have_expired) {
                        Answer::Use(token) => return Poll::Ready(Ok(token)),
                        Answer::Wait(waiting) => {
                            // Releases what the service that is ready holds.
                            self.service = self.service.clone();
                            self.went_back = true;
                            self.phase = Phase::Waiting(waiting);
                        }
                        Answer::Refuse(error) => return Poll::Ready(Err(Failure::Token(error))),
                    }
                }
            }
        }
    }

    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting(_))
    }
}
