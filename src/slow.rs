//! The detour of one request that waits for a token, and of one that is sent again.

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::acquire::Acquire;
use crate::attempt::{First, Last, Paused, Sending};
use crate::config::{Config, Layered};
use crate::credentials::{Issued, Waiting};
use crate::drain::Drain;
use crate::error::BoxError;
use crate::find::FindCredentials;
use crate::replay::Retry;

pin_project! {
    /// The state of the request. A body of others is pinned and polled in place. A [`Step`] is owned: `poll` takes it, and puts it
    /// back while it waits.
    #[project = SlowProj]
    pub(crate) enum Slow<I, B, F, R, D>
    where
        R: Retry<B>,
    {
        Owned { step: Step<I, B, F, R, D> },
        /// Reads the rejected response to its end, so that its connection can be used again.
        Draining { #[pin] rejected: D, drain: Drain, then: Step<I, B, F, R, D> },
    }
}

pub(crate) enum Step<I, B, F, R: Retry<B>, D> {
    /// Has sent nothing yet.
    First {
        attempt: First<B, F>,
        acquire: Acquire<I>,
    },
    /// Was rejected, and waits for a newer token. The response is untouched, and the request's body is paused.
    Renewing {
        waiting: Waiting,
        rejected: Response<D>,
        paused: Paused<B, F, R>,
    },
    /// Has a newer token.
    Retry {
        token: Arc<Issued>,
        paused: Paused<B, F, R>,
    },
    /// Is about to be sent again.
    Last {
        attempt: Last<B, F>,
        acquire: Acquire<I>,
    },
    Over,
}

/// The end of the detour: it fails, or the request goes on with this.
pub(crate) type Outcome<I, B, F, T, D> = Result<Next<Sending<I, B, F, T>, D>, BoxError>;

pub(crate) enum Next<S, D> {
    Sending(S),
    /// There is no newer token.
    Rejected(Response<D>),
}

impl<I, B, F, R: Retry<B>, D> Slow<I, B, F, R, D> {
    /// Waits for the first token.
    pub(crate) fn acquiring(attempt: First<B, F>, acquire: Acquire<I>) -> Pin<Box<Self>> {
        Box::pin(Self::Owned { step: Step::First { attempt, acquire } })
    }

    /// Waits for a newer token.
    pub(crate) fn renewing(
        waiting: Waiting,
        rejected: Response<D>,
        paused: Paused<B, F, R>,
    ) -> Pin<Box<Self>> {
        Box::pin(Self::Owned { step: Step::Renewing { waiting, rejected, paused } })
    }

    /// Has a newer token.
    pub(crate) fn retrying<S, C>(
        config: &Config<S, C, R>,
        token: Arc<Issued>,
        rejected: Response<D>,
        paused: Paused<B, F, R>,
    ) -> Pin<Box<Self>>
    where
        S: FindCredentials<Found = F>,
        D: Body,
    {
        Box::pin(Self::drain(config, token, rejected, paused))
    }

    /// Creates the state that reads the rejected response to its end and then sends the request again with this token.
    fn drain<S, C>(
        config: &Config<S, C, R>,
        token: Arc<Issued>,
        rejected: Response<D>,
        paused: Paused<B, F, R>,
    ) -> Self
    where
        S: FindCredentials<Found = F>,
        D: Body,
    {
        let rejected = rejected.into_body();
        let drain = Drain::new(&rejected, config.find.found(paused.found()));
        Self::Draining { rejected, drain, then: Step::Retry { token, paused } }
    }

    pub(crate) fn poll<S, C>(
        mut self: Pin<&mut Self>,
        layered: &Layered<I, S, C, R>,
        cx: &mut Context<'_>,
    ) -> Poll<Outcome<I, B, F, R::Spare, D>>
    where
        I: Service<Request<B>> + Clone,
        I::Error: Into<BoxError>,
        S: FindCredentials<Found = F>,
        D: Body,
    {
        let config = &layered.config;
        loop {
            let step = match self.as_mut().project() {
                SlowProj::Owned { step } => mem::replace(step, Step::Over),
                // ## Draining => Retry
                SlowProj::Draining { rejected, drain, then } => {
                    ready!(drain.poll(rejected, cx));
                    let step = mem::replace(then, Step::Over);
                    self.set(Self::OVER);
                    step
                }
            };
            match step {
                // ## First => (Sending | error)
                Step::First { attempt, mut acquire } => {
                    let credentials = config.find.found(attempt.found());
                    match acquire.poll(credentials, cx) {
                        Poll::Pending => return self.pend(Step::First { attempt, acquire }),
                        Poll::Ready(token) => {
                            let fail = |failure| attempt.fail(failure, credentials.metrics());
                            let token = token.map_err(fail)?;
                            let sending = attempt.send(config, &token, acquire.service())?;
                            return Poll::Ready(Ok(Next::Sending(sending)));
                        }
                    }
                }
                // ## Renewing => (Draining | rejection)
                Step::Renewing { mut waiting, rejected, paused } => {
                    match Pin::new(&mut waiting).poll(cx) {
                        Poll::Pending => {
                            return self.pend(Step::Renewing { waiting, rejected, paused });
                        }
                        Poll::Ready(Ok(token)) => {
                            self.set(Self::drain(config, token, rejected, paused));
                        }
                        // A response of the server beats an error of ours.
                        Poll::Ready(Err(error)) => {
                            let rejected = paused.give_up(rejected, error);
                            return Poll::Ready(Ok(Next::Rejected(rejected)));
                        }
                    }
                }
                // ## Retry => (Last | error)
                Step::Retry { token, paused } => {
                    // Only now: the end of the first attempt's body can end its response as well.
                    let attempt = paused.replay()?;
                    let acquire = Acquire::with(token, layered.service());
                    self.set(Self::Owned { step: Step::Last { attempt, acquire } });
                }
                // ## Last => (Sending | error)
                Step::Last { attempt, mut acquire } => {
                    match acquire.poll(config.find.found(attempt.found()), cx) {
                        Poll::Pending => return self.pend(Step::Last { attempt, acquire }),
                        Poll::Ready(token) => {
                            let token = token.map_err(|failure| attempt.fail(failure))?;
                            let sending = attempt.send(config, &token, acquire.service())?;
                            return Poll::Ready(Ok(Next::Sending(sending)));
                        }
                    }
                }
                #[expect(clippy::panic, reason = "its owner drops it at its end")]
                Step::Over => panic!("`Slow` polled after it was ready"),
            }
        }
    }

    const OVER: Self = Self::Owned { step: Step::Over };

    /// Puts a step back that waits.
    fn pend<T>(mut self: Pin<&mut Self>, step: Step<I, B, F, R, D>) -> Poll<T> {
        self.set(Self::Owned { step });
        Poll::Pending
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Draining { .. } => "Draining",
            Self::Owned { step } => match step {
                Step::First { acquire, .. } | Step::Last { acquire, .. } => {
                    if acquire.is_waiting() { "Waiting" } else { "Readying" }
                }
                Step::Renewing { .. } => "Renewing",
                Step::Retry { .. } => "Retry",
                Step::Over => "Over",
            },
        }
    }
}
