//! The path of one request: acquire a token, send, classify, and at most once refresh and send again.

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
use crate::attempt::{First, Last, Paused, Rejected, Sent};
use crate::classify::{Classify, Verdict};
use crate::config::Config;
use crate::credentials::{Issued, Waiting};
use crate::drain::Drain;
use crate::error::BoxError;
use crate::find::FindCredentials;
use crate::replay::Retry;

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
        config: Arc<Config<S, C, R>>,
        #[pin]
        state: State<I, S, R, B, D>,
    }
}

pin_project! {
    /// The state of the request. Futures and bodies of others are pinned and polled in place. A [`Step`] is owned: `poll` takes it,
    /// and puts it back while it waits.
    #[project = StateProj]
    enum State<I, S, R, B, D>
    where
        I: Service<Request<B>>,
        S: FindCredentials,
        R: Retry<B>,
    {
        /// Waits for the response.
        Sending { #[pin] response: I::Future, sent: Sent<I, S::Found, R::Spare> },
        /// Reads the rejected response to its end, so that its connection can be used again.
        Draining { #[pin] rejected: D, drain: Drain, then: Step<I, S, R, B, D> },
        Owned { step: Step<I, S, R, B, D> },
    }
}

enum Step<I, S, R, B, D>
where
    S: FindCredentials,
    R: Retry<B>,
{
    /// Has sent nothing yet.
    First {
        attempt: First<B, S::Found>,
        acquire: Acquire<I>,
    },
    /// Was rejected, and waits for a newer token. The response is untouched, and the request's body is paused.
    Renewing {
        waiting: Waiting,
        rejected: Response<D>,
        paused: Paused<I, B, S::Found, R>,
    },
    /// Has a newer token.
    Retry {
        token: Arc<Issued>,
        paused: Paused<I, B, S::Found, R>,
    },
    /// Is about to be sent again.
    Last {
        attempt: Last<B, S::Found>,
        acquire: Acquire<I>,
    },
    /// Was never sent.
    Failed {
        error: BoxError,
    },
    Over,
}

impl<I, S, C, R, B, D> ResponseFuture<I, S, C, R, B, D>
where
    I: Service<Request<B>>,
    S: FindCredentials,
    R: Retry<B>,
{
    pub(crate) fn sending(
        config: &Arc<Config<S, C, R>>,
        response: I::Future,
        sent: Sent<I, S::Found, R::Spare>,
    ) -> Self {
        Self { config: Arc::clone(config), state: State::Sending { response, sent } }
    }

    pub(crate) fn acquiring(
        config: &Arc<Config<S, C, R>>,
        attempt: First<B, S::Found>,
        acquire: Acquire<I>,
    ) -> Self {
        let step = Step::First { attempt, acquire };
        Self { config: Arc::clone(config), state: State::Owned { step } }
    }

    pub(crate) fn failed(config: &Arc<Config<S, C, R>>, error: BoxError) -> Self {
        let step = Step::Failed { error };
        Self { config: Arc::clone(config), state: State::Owned { step } }
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
        let config = &**this.config;
        loop {
            let step = match this.state.as_mut().project() {
                // ## Sending => (response | error | Renewing | Draining)
                StateProj::Sending { response, sent } => {
                    let response = match ready!(response.poll(cx)) {
                        Ok(response) => response,
                        Err(error) => return this.state.end(Err(error.into())),
                    };
                    if sent.judge(config, &response) != Verdict::Rejected {
                        return this.state.end(Ok(response));
                    }
                    let sent = mem::take(sent);
                    this.state.set(State::OVER);
                    let Sent::First(first) = sent else {
                        return Poll::Ready(Ok(response));
                    };
                    match first.rejected(config, response) {
                        Rejected::Final(response) => return Poll::Ready(Ok(response)),
                        Rejected::Wait(waiting, rejected, paused) => {
                            Step::Renewing { waiting, rejected, paused }
                        }
                        Rejected::Retry(token, rejected, paused) => {
                            this.state.set(State::drain(config, rejected, token, paused));
                            continue;
                        }
                    }
                }
                // ## Draining => Retry
                StateProj::Draining { rejected, drain, then } => {
                    ready!(drain.poll(rejected, cx));
                    let step = mem::replace(then, Step::Over);
                    this.state.set(State::OVER);
                    step
                }
                StateProj::Owned { step } => mem::replace(step, Step::Over),
            };

            let next = match step {
                // ## First => (Sending | error)
                Step::First { attempt, mut acquire } => {
                    match acquire.poll(config.find.found(attempt.found()), cx) {
                        Poll::Pending => return this.state.pend(Step::First { attempt, acquire }),
                        Poll::Ready(token) => {
                            let token = token.map_err(|failure| attempt.fail(failure))?;
                            let (response, sent) =
                                attempt.send(config, token, acquire.service())?;
                            State::Sending { response, sent }
                        }
                    }
                }
                // ## Renewing => (Draining | response)
                Step::Renewing { mut waiting, rejected, paused } => {
                    match Pin::new(&mut waiting).poll(cx) {
                        Poll::Ready(Ok(token)) => State::drain(config, rejected, token, paused),
                        // A response of the server beats an error of ours.
                        Poll::Ready(Err(error)) => {
                            return Poll::Ready(Ok(paused.give_up(rejected, error)));
                        }
                        Poll::Pending => {
                            return this.state.pend(Step::Renewing { waiting, rejected, paused });
                        }
                    }
                }
                // ## Retry => (Last | error)
                Step::Retry { token, paused } => {
                    // Only now: the end of the first attempt's body can end its response as well.
                    let (attempt, service) = paused.replay()?;
                    let acquire = Acquire::with(token, service);
                    State::Owned { step: Step::Last { attempt, acquire } }
                }
                // ## Last => (Sending | error)
                Step::Last { attempt, mut acquire } => {
                    match acquire.poll(config.find.found(attempt.found()), cx) {
                        Poll::Pending => return this.state.pend(Step::Last { attempt, acquire }),
                        Poll::Ready(token) => {
                            let token = token.map_err(|failure| attempt.fail(failure))?;
                            let (response, sent) =
                                attempt.send(config, token, acquire.service())?;
                            State::Sending { response, sent }
                        }
                    }
                }
                Step::Failed { error } => return Poll::Ready(Err(error)),
                #[expect(
                    clippy::panic,
                    reason = "as with every future, polling it after its end is a bug of the caller"
                )]
                Step::Over => panic!("`ResponseFuture` polled after it was ready"),
            };
            this.state.set(next);
        }
    }
}

impl<I, S, R, B, D> State<I, S, R, B, D>
where
    I: Service<Request<B>>,
    S: FindCredentials,
    R: Retry<B>,
{
    const OVER: Self = Self::Owned { step: Step::Over };

    /// Creates the state that reads the rejected response to its end and then sends the request again with this token.
    fn drain<C>(
        config: &Config<S, C, R>,
        rejected: Response<D>,
        token: Arc<Issued>,
        paused: Paused<I, B, S::Found, R>,
    ) -> Self
    where
        D: Body,
    {
        let rejected = rejected.into_body();
        let drain = Drain::new(&rejected, config.find.found(paused.found()));
        Self::Draining { rejected, drain, then: Step::Retry { token, paused } }
    }

    /// Puts a step back that waits.
    fn pend<T>(mut self: Pin<&mut Self>, step: Step<I, S, R, B, D>) -> Poll<T> {
        self.set(Self::Owned { step });
        Poll::Pending
    }

    /// Drops what the state holds, and returns the outcome.
    fn end<T>(mut self: Pin<&mut Self>, outcome: T) -> Poll<T> {
        self.set(Self::OVER);
        Poll::Ready(outcome)
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Sending { .. } => "Sending",
            Self::Draining { .. } => "Draining",
            Self::Owned { step } => match step {
                Step::First { acquire, .. } | Step::Last { acquire, .. } => {
                    if acquire.is_waiting() { "Waiting" } else { "Readying" }
                }
                Step::Renewing { .. } => "Renewing",
                Step::Retry { .. } => "Retry",
                Step::Failed { .. } => "Failed",
                Step::Over => "Over",
            },
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
