//! The path of one request whose token is fresh: send, classify. All other requests take the detour in [`slow`](crate::slow).

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::acquire::Acquire;
use crate::attempt::{First, Rejected, Sent};
use crate::classify::Classify;
use crate::config::Layered;
use crate::error::BoxError;
use crate::find::FindCredentials;
use crate::replay::Retry;
use crate::slow::{Next, Slow};

pin_project! {
    /// The response future of [`Refresh`](crate::Refresh).
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the request, and does not stop a refresh. If the request was rejected and waits for a newer token, a
    /// stream that is still being sent ends with an error, over HTTP/1.1 with its connection.
    pub struct ResponseFuture<I, S, C, R, B, D>
    where
        I: Service<Request<B>>,
        S: FindCredentials,
        R: Retry<B>,
    {
        layered: Arc<Layered<I, S, C, R>>,
        #[pin]
        state: State<I, S, R, B, D>,
    }
}

pin_project! {
    /// The state of the request. The parts that only waiting and sending again need are boxed, so that the
    /// future of most requests is small.
    #[project = StateProj]
    enum State<I, S, R, B, D>
    where
        I: Service<Request<B>>,
        S: FindCredentials,
        R: Retry<B>,
    {
        /// Waits for the response.
        Sending { #[pin] response: I::Future, sent: Sent<S::Found, R::Spare> },
        /// Waits for a token, or is about to be sent again.
        Slow { slow: Pin<Box<Slow<I, B, S::Found, R, D>>> },
        /// Was never sent. Without the error, the future has ended.
        Failed { error: Option<BoxError> },
    }
}

impl<I, S, C, R, B, D> ResponseFuture<I, S, C, R, B, D>
where
    I: Service<Request<B>>,
    S: FindCredentials,
    R: Retry<B>,
{
    pub(crate) fn sending(
        layered: Arc<Layered<I, S, C, R>>,
        response: I::Future,
        sent: Sent<S::Found, R::Spare>,
    ) -> Self {
        Self { layered, state: State::Sending { response, sent } }
    }

    pub(crate) fn acquiring(
        layered: Arc<Layered<I, S, C, R>>,
        attempt: First<B, S::Found>,
        acquire: Acquire<I>,
    ) -> Self {
        let slow = Slow::acquiring(attempt, acquire);
        Self { layered, state: State::Slow { slow } }
    }

    pub(crate) fn failed(layered: Arc<Layered<I, S, C, R>>, error: BoxError) -> Self {
        Self { layered, state: State::Failed { error: Some(error) } }
    }
}

impl<I, S, C, R, B, D> Future for ResponseFuture<I, S, C, R, B, D>
where
    I: Service<Request<B>, Response = Response<D>> + Clone,
    I::Error: Into<BoxError>,
    S: FindCredentials,
    C: Classify,
    R: Retry<B>,
    D: Body,
{
    type Output = Result<Response<D>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let config = &this.layered.config;
        loop {
            match this.state.as_mut().project() {
                // ## Sending => (response | error | Slow)
                StateProj::Sending { response, sent } => {
                    let polled = response.poll(cx);
                    let is_rejected = match &polled {
                        Poll::Ready(Ok(response)) => sent.is_rejected_by(config, response),
                        Poll::Ready(Err(_)) => false,
                        Poll::Pending => return Poll::Pending,
                    };
                    let sent = if is_rejected { mem::take(sent) } else { Sent::Untouched };
                    // The inner future has ended, and is dropped before the request waits.
                    this.state.set(State::OVER);
                    let Sent::First(first) = sent else {
                        return polled.map_err(Into::into);
                    };
                    let slow = match first.rejected(config, ready!(polled).map_err(Into::into)?) {
                        Rejected::Final(response) => return Poll::Ready(Ok(response)),
                        Rejected::Wait(waiting, response, paused) => {
                            Slow::renewing(waiting, response, paused)
                        }
                        Rejected::Retry(token, response, paused) => {
                            Slow::retrying(config, token, response, paused)
                        }
                    };
                    this.state.set(State::Slow { slow });
                }
                // ## Slow => (Sending | response | error)
                StateProj::Slow { slow } => match ready!(slow.as_mut().poll(this.layered, cx)) {
                    Ok(Next::Sending((response, sent))) => {
                        this.state.set(State::Sending { response, sent });
                    }
                    Ok(Next::Rejected(response)) => return this.state.end(Ok(response)),
                    Err(error) => return this.state.end(Err(error)),
                },
                StateProj::Failed { error } => {
                    #[expect(
                        clippy::expect_used,
                        reason = "as with every future, polling it after its end is a bug of the caller"
                    )]
                    let error = error.take().expect("`ResponseFuture` polled after it was ready");
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
}

impl<I, S, R, B, D> State<I, S, R, B, D>
where
    I: Service<Request<B>>,
    S: FindCredentials,
    R: Retry<B>,
{
    const OVER: Self = Self::Failed { error: None };

    /// Drops what the state holds, and returns the outcome.
    fn end<T>(mut self: Pin<&mut Self>, outcome: T) -> Poll<T> {
        self.set(Self::OVER);
        Poll::Ready(outcome)
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Sending { .. } => "Sending",
            Self::Slow { slow } => slow.name(),
            Self::Failed { error: Some(_) } => "Failed",
            Self::Failed { error: None } => "Over",
        }
    }
}

impl<I, S, C, R, B, D> fmt::Debug for ResponseFuture<I, S, C, R, B, D>
where
    I: Service<Request<B>>,
    S: FindCredentials,
    R: Retry<B>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.name();
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
