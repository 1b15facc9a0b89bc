//! The way of one request: acquire, send, classify, and at most once renew and send again.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf as _;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_service::Service;

use crate::classify::{Challenge, Classify, Verdict};
use crate::credentials::{Answer, Issued, Waiting, Want};
use crate::error::{BoxError, TokenError, for_caller};
use crate::find::FindCredentials;
use crate::layer::RefreshLayer;
use crate::replay::Retry;
use crate::service::Spare;
use crate::target::Target;

/// How much of a rejected answer is read, so that its connection can be used again.
const DRAIN_BYTES: usize = 16 * 1024;
/// How long a rejected answer is read.
const DRAIN_TIME: Duration = Duration::from_millis(50);

pin_project! {
    /// The response of a [`Refresh`](crate::Refresh).
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the request, and does not stop a refresh. If it was rejected and its token is being renewed, a body
    /// that is still being sent is broken off, over HTTP/1.1 with its connection.
    pub struct ResponseFuture<I, S, C, R, B, D>
    where
        I: Service<Request<B>>,
        S: FindCredentials,
        R: Retry<B>,
    {
        layer: Arc<RefreshLayer<S, C, R>>,
        #[pin]
        state: State<I, S, R, B, D>,
    }

    impl<I, S, C, R, B, D> PinnedDrop for ResponseFuture<I, S, C, R, B, D>
    where
        I: Service<Request<B>>,
        S: FindCredentials,
        R: Retry<B>,
    {
        /// What is left of the body that is paused would go on if its spare were merely let go: to no purpose, since nobody
        /// waits for the answer any more.
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(again) = this.state.take_paused() {
                drop(again.spare.replay(&*this.layer.retry));
            }
        }
    }
}

pin_project! {
    /// At most one retry, by shape: only `Sending` leads to `Renewing`, only with `Round::First`, and every way from
    /// there to another `Sending` has `Round::Second`.
    ///
    /// Nothing is awaited between a service that is ready and its call.
    #[project = StateProj]
    #[project_replace = StateOwned]
    enum State<I, S, R, B, D>
    where
        I: Service<Request<B>>,
        S: FindCredentials,
        R: Retry<B>,
    {
        /// Waits for a token. The service is not ready, so that nothing is held up meanwhile.
        Waiting { waiting: Waiting, attempt: Attempt<I, S::Found, B> },
        /// Has a token, and readies the service, which may have been delayed.
        Readying { token: Arc<Issued>, attempt: Attempt<I, S::Found, B>, delayed: bool },
        /// Waits for the answer.
        Sending { #[pin] response: I::Future, round: Round<I, S::Found, R::Spare> },
        /// Was rejected, and waits for a newer token with the answer untouched. What is left of the body waits as well.
        Renewing {
            waiting: Waiting,
            rejected: Response<D>,
            found: S::Found,
            again: Again<I, R::Spare>,
        },
        /// Has a newer token, and reads the rejected answer out.
        Draining {
            #[pin]
            rejected: D,
            left: usize,
            deadline: Option<Pin<Box<Sleep>>>,
            token: Arc<Issued>,
            found: S::Found,
            again: Again<I, R::Spare>,
        },
        /// Fails before anything was sent.
        Failed { error: BoxError },
        /// Is over, or between two states.
        Over,
    }
}

/// Which attempt is under way, and what it takes for the next.
pub(crate) enum Round<I, F, T> {
    /// Not ours: no token was attached.
    Untouched,
    /// The first.
    First(Sent<F>, Option<Again<I, T>>),
    /// The second and last.
    Second(Sent<F>),
}

/// What was sent where.
pub(crate) struct Sent<F> {
    pub(crate) token: Arc<Issued>,
    pub(crate) target: Target,
    pub(crate) found: F,
}

/// What it takes for a second attempt.
pub(crate) struct Again<I, T> {
    pub(crate) spare: Spare<T>,
    /// Not ready.
    pub(crate) service: I,
}

/// A request on its way to a service, without the token.
struct Attempt<I, F, B> {
    request: Request<B>,
    service: I,
    /// The credentials of the request.
    found: F,
    number: Number,
    /// It had a token before, which was of no use when the service was ready at last.
    went_back: bool,
}

/// Which attempt it is.
enum Number {
    First,
    Second,
}

impl<I, F, B> Attempt<I, F, B> {
    /// Makes the error for a request that gets no token.
    fn fail(&self, error: TokenError) -> BoxError {
        match self.number {
            Number::First => for_caller(&self.request, error),
            Number::Second => not_sent_again(&self.request, &error),
        }
    }

    /// Lets go of the service that is ready, to come back with another token.
    fn go_back(self) -> Self
    where
        I: Clone,
    {
        Self { service: self.service.clone(), went_back: true, ..self }
    }

    /// Attaches the token and sends the request, through a service that is ready.
    fn send<S, C, R, D>(
        mut self,
        layer: &RefreshLayer<S, C, R>,
        token: Arc<Issued>,
    ) -> Result<State<I, S, R, B, D>, BoxError>
    where
        I: Service<Request<B>>,
        S: FindCredentials<Found = F>,
        R: Retry<B>,
    {
        let found = self.found;
        let target = Target::of(&self.request);
        match self.number {
            Number::First => {
                let (request, spare) = layer.arm(self.request, &token)?;
                let response = self.service.call(request);
                let again = spare.map(|spare| Again { spare, service: self.service });
                Ok(State::Sending {
                    response,
                    round: Round::First(Sent { token, target, found }, again),
                })
            }
            Number::Second => {
                let access_token = token.tokens.access_token();
                if let Err(error) = layer.attach.attach(self.request.headers_mut(), access_token) {
                    return Err(not_sent_again(&self.request, &error));
                }
                let response = self.service.call(self.request);
                Ok(State::Sending { response, round: Round::Second(Sent { token, target, found }) })
            }
        }
    }
}

/// Makes the error for a request that was rejected and gets no second attempt. A `TokenError` would say that it was never
/// sent.
fn not_sent_again<B>(request: &Request<B>, error: &TokenError) -> BoxError {
    for_caller(request, format!("the token was rejected, and the request not sent again: {error}"))
}

impl<I, S, C, R, B, D> ResponseFuture<I, S, C, R, B, D>
where
    I: Service<Request<B>>,
    S: FindCredentials,
    R: Retry<B>,
{
    fn new(layer: &Arc<RefreshLayer<S, C, R>>, state: State<I, S, R, B, D>) -> Self {
        Self { layer: Arc::clone(layer), state }
    }

    pub(crate) fn untouched(layer: &Arc<RefreshLayer<S, C, R>>, response: I::Future) -> Self {
        Self::sending(layer, response, Round::Untouched)
    }

    pub(crate) fn sending(
        layer: &Arc<RefreshLayer<S, C, R>>,
        response: I::Future,
        round: Round<I, S::Found, R::Spare>,
    ) -> Self {
        Self::new(layer, State::Sending { response, round })
    }

    pub(crate) fn waiting(
        layer: &Arc<RefreshLayer<S, C, R>>,
        found: S::Found,
        waiting: Waiting,
        request: Request<B>,
        service: I,
    ) -> Self {
        let attempt = Attempt { request, service, found, number: Number::First, went_back: false };
        Self::new(layer, State::Waiting { waiting, attempt })
    }

    pub(crate) fn failed(layer: &Arc<RefreshLayer<S, C, R>>, error: BoxError) -> Self {
        Self::new(layer, State::Failed { error })
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
        let layer = &**this.layer;
        loop {
            let next = match this.state.as_mut().project() {
                // ## Waiting => (Readying | error)
                StateProj::Waiting { waiting, .. } => {
                    let landed = ready!(Pin::new(waiting).poll(cx));
                    let StateOwned::Waiting { attempt, .. } = this.state.as_mut().take() else {
                        unreachable!()
                    };
                    match landed {
                        Ok(token) => State::Readying { token, attempt, delayed: false },
                        Err(error) => return Poll::Ready(Err(attempt.fail(error))),
                    }
                }

                // ## Readying => (Sending | Waiting | error)
                StateProj::Readying { attempt, delayed, .. } => {
                    match attempt.service.poll_ready(cx) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(error)) => return this.state.end(Err(error.into())),
                        Poll::Pending => {
                            *delayed = true;
                            return Poll::Pending;
                        }
                    }
                    let StateOwned::Readying { token, attempt, delayed } =
                        this.state.as_mut().take()
                    else {
                        unreachable!()
                    };
                    // While the service took its time, the token may have been renewed, forgotten, or have expired. For
                    // a newer one the request goes back once: with tokens that live shorter than the queue is long, it
                    // would do so for ever.
                    let credentials = layer.find.found(&attempt.found);
                    match credentials.recheck(token, attempt.went_back || !delayed) {
                        Answer::Use(token) => match attempt.send(layer, token) {
                            Ok(sending) => sending,
                            Err(error) => return Poll::Ready(Err(error)),
                        },
                        Answer::Wait(waiting) => {
                            State::Waiting { waiting, attempt: attempt.go_back() }
                        }
                        Answer::Refuse(error) => return Poll::Ready(Err(attempt.fail(error))),
                    }
                }

                // ## Sending => (response | error | Renewing | Draining)
                StateProj::Sending { response, round } => {
                    let mut response = match ready!(response.poll(cx)) {
                        Ok(response) => response,
                        Err(error) => return this.state.end(Err(error.into())),
                    };
                    if matches!(round, Round::Untouched) {
                        return this.state.end(Ok(response));
                    }
                    let verdict = layer.classify.classify(response.status(), response.headers());
                    if let Round::First(sent, _) = &round
                        && verdict != Verdict::Rejected
                    {
                        if verdict == Verdict::Accepted {
                            layer.find.found(&sent.found).accepted(&sent.token, sent.target);
                        }
                        return this.state.end(Ok(response));
                    }
                    let StateOwned::Sending { round, .. } = this.state.as_mut().take() else {
                        unreachable!()
                    };
                    let (sent, again) = match round {
                        Round::First(sent, again) => (sent, again),
                        Round::Second(Sent { token, target, found }) => {
                            let credentials = layer.find.found(&found);
                            match verdict {
                                Verdict::Accepted => credentials.retry_accepted(&token, target),
                                Verdict::Rejected => credentials.retry_rejected(&token, target),
                                Verdict::Unknown => {}
                            }
                            return Poll::Ready(Ok(response));
                        }
                        Round::Untouched => return Poll::Ready(Ok(response)),
                    };

                    let credentials = layer.find.found(&sent.found);
                    // Some of the body may not have been sent yet, and is not to be sent for nothing.
                    let again = again
                        .filter(|again| !credentials.is_own_request(again.spare.extensions()))
                        .and_then(|mut again| again.spare.pause(&*layer.retry).then_some(again));
                    let challenge = Challenge::for_source(response.headers());
                    let generation = sent.token.generation;
                    let target = sent.target;
                    let want = Want::NewerThanRejected { generation, target, challenge };
                    match (credentials.ask(want), again) {
                        (Answer::Refuse(error), _) => {
                            response.extensions_mut().insert(error);
                            return Poll::Ready(Ok(response));
                        }
                        // The refresh goes on without this request.
                        (_, None) => return Poll::Ready(Ok(response)),
                        (Answer::Wait(waiting), Some(again)) => {
                            let found = sent.found;
                            State::Renewing { waiting, rejected: response, found, again }
                        }
                        (Answer::Use(token), Some(again)) => {
                            drain(layer, response, token, sent.found, again)
                        }
                    }
                }

                // ## Renewing => (Draining | response)
                StateProj::Renewing { waiting, .. } => {
                    let landed = ready!(Pin::new(waiting).poll(cx));
                    let StateOwned::Renewing { mut rejected, found, again, .. } =
                        this.state.as_mut().take()
                    else {
                        unreachable!()
                    };
                    match landed {
                        Ok(token) => drain(layer, rejected, token, found, again),
                        // An answer from the server beats an error of ours. The body goes on.
                        Err(error) => {
                            rejected.extensions_mut().insert(error);
                            return Poll::Ready(Ok(rejected));
                        }
                    }
                }

                // ## Draining => (Readying | error)
                StateProj::Draining { rejected, left, deadline, .. } => {
                    ready!(poll_drained(rejected, left, deadline, cx));
                    let StateOwned::Draining { token, found, again, .. } =
                        this.state.as_mut().take()
                    else {
                        unreachable!()
                    };
                    // Only now, since the end of the first attempt's body can be the end of its answer as well.
                    let Some(request) = again.spare.replay(&*layer.retry) else {
                        return Poll::Ready(Err(
                            "the rejected request could not be made again".into()
                        ));
                    };
                    let number = Number::Second;
                    let service = again.service;
                    let attempt = Attempt { request, service, found, number, went_back: false };
                    State::Readying { token, attempt, delayed: false }
                }

                StateProj::Failed { .. } => {
                    let StateOwned::Failed { error } = this.state.as_mut().take() else {
                        unreachable!()
                    };
                    return Poll::Ready(Err(error));
                }

                #[expect(
                    clippy::panic,
                    reason = "as every future: polling it after its end is a bug of the caller"
                )]
                StateProj::Over => panic!("`ResponseFuture` polled after it was ready"),
            };
            this.state.set(next);
        }
    }
}

/// There is all that it takes for the second attempt; the first answer's body is in its way.
fn drain<I, S, C, R, B, D>(
    layer: &RefreshLayer<S, C, R>,
    rejected: Response<D>,
    token: Arc<Issued>,
    found: S::Found,
    again: Again<I, R::Spare>,
) -> State<I, S, R, B, D>
where
    I: Service<Request<B>>,
    S: FindCredentials,
    R: Retry<B>,
    D: Body,
{
    let rejected = rejected.into_body();
    // A body that is not there needs no time.
    let deadline =
        if rejected.is_end_stream() { None } else { layer.find.found(&found).sleep(DRAIN_TIME) };
    State::Draining { rejected, left: DRAIN_BYTES, deadline, token, found, again }
}

/// Reads a body to its end, within limits.
fn poll_drained<D: Body>(
    mut body: Pin<&mut D>,
    left: &mut usize,
    deadline: &mut Option<Pin<Box<Sleep>>>,
    cx: &mut Context<'_>,
) -> Poll<()> {
    while !body.is_end_stream() {
        match body.as_mut().poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                // An empty frame counts too: there may be no end of them.
                let length = frame.data_ref().map_or(0, |data| data.remaining()).max(1);
                if length > *left {
                    break;
                }
                *left -= length;
            }
            Poll::Ready(Some(Err(_)) | None) => break,
            Poll::Pending => match deadline {
                Some(deadline) => return deadline.as_mut().poll(cx),
                // Without a timer there is no waiting.
                None => break,
            },
        }
    }
    Poll::Ready(())
}

impl<I, S, R, B, D> State<I, S, R, B, D>
where
    I: Service<Request<B>>,
    S: FindCredentials,
    R: Retry<B>,
{
    fn take(self: Pin<&mut Self>) -> StateOwned<I, S, R, B, D> {
        self.project_replace(Self::Over)
    }

    /// Takes what a second attempt would have been made of, where the first one is paused.
    fn take_paused(mut self: Pin<&mut Self>) -> Option<Again<I, R::Spare>> {
        match self.as_mut().project() {
            StateProj::Renewing { .. } | StateProj::Draining { .. } => {}
            _ => return None,
        }
        match self.take() {
            StateOwned::Renewing { again, .. } | StateOwned::Draining { again, .. } => Some(again),
            _ => None,
        }
    }

    /// Drops what the state holds, and returns the outcome.
    fn end<T>(mut self: Pin<&mut Self>, outcome: T) -> Poll<T> {
        self.set(Self::Over);
        Poll::Ready(outcome)
    }
}

impl<I, S, C, R, B, D> fmt::Debug for ResponseFuture<I, S, C, R, B, D>
where
    I: Service<Request<B>>,
    S: FindCredentials,
    R: Retry<B>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Waiting { .. } => "Waiting",
            State::Readying { .. } => "Readying",
            State::Sending { .. } => "Sending",
            State::Renewing { .. } => "Renewing",
            State::Draining { .. } => "Draining",
            State::Failed { .. } => "Failed",
            State::Over => "Over",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
