//! The attempts to send a request: the first, and after a rejection one more.
//!
//! There is at most one retry, by type. Only [`First`] keeps a [`Spare`] of the request. Only a first attempt that was
//! rejected leads to a [`Last`], which has no spare: it can be sent, and its response is returned.

use std::sync::Arc;

use http::request::Parts;
use http::{Extensions, HeaderMap, Request, Response};
use tower_service::Service;

use crate::acquire::Failure;
use crate::classify::{Challenge, Classify, Verdict};
use crate::config::Config;
use crate::credentials::{Answer, Generation, Issued, Waiting, Want};
use crate::error::{BoxError, TokenError};
use crate::find::FindCredentials;
use crate::replay::{Retry, SpareHead};
use crate::skip::Skip;
use crate::target::Target;

// ===== before it is sent =====

/// A request that has not been sent. Its token is attached at the last moment.
pub(crate) struct First<B, F> {
    head: Parts,
    body: B,
    found: F,
}

impl<B, F> First<B, F> {
    pub(crate) fn new(head: Parts, body: B, found: F) -> Self {
        Self { head, body, found }
    }

    pub(crate) fn found(&self) -> &F {
        &self.found
    }

    pub(crate) fn extensions(&self) -> &Extensions {
        &self.head.extensions
    }

    /// Makes the caller's error of a request that is not sent.
    pub(crate) fn fail(&self, failure: impl Into<Failure>) -> BoxError {
        match failure.into() {
            Failure::Token(error) => for_caller(&self.head.headers, error),
            Failure::Service(error) => error,
        }
    }

    /// Attaches the token and sends the request through a service that is ready. Keeps a spare if the request can be sent
    /// again.
    pub(crate) fn send<I, S, C, R>(
        self,
        config: &Config<S, C, R>,
        token: Arc<Issued>,
        service: &mut I,
    ) -> Result<Sending<I, B, F, R::Spare>, BoxError>
    where
        I: Service<Request<B>> + Clone,
        R: Retry<B>,
    {
        let Self { mut head, mut body, found } = self;
        let target = Target::of(&head);
        let spare = match head.extensions.get() {
            Some(Skip::Retry) => None,
            _ => config.retry.keep_spare(&mut body, head.extensions.get().copied()),
        };
        let spare = spare.map(|body| (SpareHead::of(&head), body));
        if let Err(error) = config.attach.attach(&mut head, token.tokens.access_token()) {
            return Err(for_caller(&head.headers, error));
        }
        // The service is cloned only if there is a spare to send with it.
        let spare = spare.map(|(head, body)| Spare { head, body, service: service.clone() });
        let response = service.call(Request::from_parts(head, body));
        let sent = OnTrial { generation: token.generation, target, found };
        Ok((response, Sent::First(FirstSent { sent, spare })))
    }
}

/// A request whose first attempt was rejected. It is not sent a third time.
pub(crate) struct Last<B, F> {
    head: Parts,
    body: B,
    found: F,
}

impl<B, F> Last<B, F> {
    pub(crate) fn found(&self) -> &F {
        &self.found
    }

    /// Makes the caller's error of a request that is not sent again.
    pub(crate) fn fail(&self, failure: Failure) -> BoxError {
        match failure {
            Failure::Token(error) => not_sent_again(&self.head, &error),
            Failure::Service(error) => error,
        }
    }

    /// Attaches the token and sends the request through a service that is ready.
    pub(crate) fn send<I, S, C, R, T>(
        self,
        config: &Config<S, C, R>,
        token: Arc<Issued>,
        service: &mut I,
    ) -> Result<Sending<I, B, F, T>, BoxError>
    where
        I: Service<Request<B>>,
    {
        let Self { mut head, body, found } = self;
        let target = Target::of(&head);
        if let Err(error) = config.attach.attach(&mut head, token.tokens.access_token()) {
            return Err(not_sent_again(&head, &error));
        }
        let response = service.call(Request::from_parts(head, body));
        Ok((response, Sent::Last(OnTrial { generation: token.generation, target, found })))
    }
}

/// Makes the error of a request that was rejected and is not sent again. Not a [`TokenError`], which means that the request
/// was never sent.
fn not_sent_again(head: &Parts, error: &TokenError) -> BoxError {
    let message = format!("the token was rejected, and the request not sent again: {error}");
    for_caller(&head.headers, message)
}

/// Creates the error that the caller of the request with these headers gets: for gRPC, one that tonic's clients know.
pub(crate) fn for_caller(request: &HeaderMap, error: impl Into<BoxError>) -> BoxError {
    #[cfg(feature = "tonic")]
    return crate::grpc::for_caller(request, error.into());
    #[cfg(not(feature = "tonic"))]
    {
        let _ = request;
        error.into()
    }
}

// ===== while the response is awaited =====

/// The future of the response, and the attempt that it belongs to.
type Sending<I, B, F, T> = (<I as Service<Request<B>>>::Future, Sent<I, F, T>);

/// An attempt whose response is awaited.
#[derive(Default)]
pub(crate) enum Sent<I, F, T> {
    /// A request without a token of ours: its response is returned unchanged.
    #[default]
    Untouched,
    First(FirstSent<I, F, T>),
    Last(OnTrial<F>),
}

pub(crate) struct FirstSent<I, F, T> {
    sent: OnTrial<F>,
    spare: Option<Spare<I, T>>,
}

/// The token that the response is a verdict on, and where it was sent.
pub(crate) struct OnTrial<F> {
    generation: Generation,
    target: Target,
    found: F,
}

/// A copy of the request, without the token, and a service for it.
struct Spare<I, T> {
    head: SpareHead,
    body: T,
    /// Not ready.
    service: I,
}

impl<I, F, T> Sent<I, F, T> {
    /// Classifies the response and reports the verdict to the credentials.
    ///
    /// The rejection of a first attempt is reported by [`FirstSent::rejected`], which asks for a newer token.
    pub(crate) fn judge<S, C, R, D>(
        &self,
        config: &Config<S, C, R>,
        response: &Response<D>,
    ) -> Verdict
    where
        S: FindCredentials<Found = F>,
        C: Classify,
    {
        let (Self::First(FirstSent { sent, .. }) | Self::Last(sent)) = self else {
            return Verdict::Unknown;
        };
        let verdict = config.classify.classify(response.status(), response.headers());
        let credentials = config.find.found(&sent.found);
        match (self, verdict) {
            (Self::First(_), Verdict::Accepted) => {
                credentials.accepted(sent.generation, sent.target)
            }
            (Self::Last(_), Verdict::Accepted) => {
                credentials.retry_accepted(sent.generation, sent.target);
            }
            (Self::Last(_), Verdict::Rejected) => {
                credentials.retry_rejected(sent.generation, sent.target);
            }
            _ => {}
        }
        verdict
    }
}

// ===== after a rejection =====

/// The consequence of a first attempt's rejection.
pub(crate) enum Rejected<I, B, F, R: Retry<B>, D> {
    /// The response is the caller's.
    Final(Response<D>),
    /// A refresh is in flight: the request waits for a newer token.
    Wait(Waiting, Response<D>, Paused<I, B, F, R>),
    /// There is a newer token already.
    Retry(Arc<Issued>, Response<D>, Paused<I, B, F, R>),
}

impl<I, F, T> FirstSent<I, F, T> {
    /// Reports the rejection, asks for a newer token, and pauses the rest of the request's body.
    pub(crate) fn rejected<B, S, C, R, D>(
        self,
        config: &Config<S, C, R>,
        mut response: Response<D>,
    ) -> Rejected<I, B, F, R, D>
    where
        S: FindCredentials<Found = F>,
        R: Retry<B, Spare = T>,
    {
        let Self { sent: OnTrial { generation, target, found }, spare } = self;
        let credentials = config.find.found(&found);
        let can_wait = |spare: &Spare<I, T>| !credentials.is_own_request(spare.head.extensions());
        // Before the refresh starts: the rest of the body would be sent in vain.
        let spare = spare.filter(can_wait).and_then(|spare| spare.pause(&config.retry));
        let challenge = Challenge::for_source(response.headers());
        let answer = credentials.ask(Want::NewerThanRejected { generation, target, challenge });
        let Some((head, body, service)) = spare else {
            // The refresh goes on without this request.
            if let Answer::Refuse(error) = answer {
                response.extensions_mut().insert(error);
            }
            return Rejected::Final(response);
        };
        let paused = Paused { head, body, service, found };
        match answer {
            Answer::Use(token) => Rejected::Retry(token, response, paused),
            Answer::Wait(waiting) => Rejected::Wait(waiting, response, paused),
            Answer::Refuse(error) => Rejected::Final(paused.give_up(response, error)),
        }
    }
}

impl<I, T> Spare<I, T> {
    /// Pauses the first attempt's body. Returns `None` if the spare cannot become the whole body.
    fn pause<B, R>(mut self, retry: &Arc<R>) -> Option<(SpareHead, PausedBody<B, R>, I)>
    where
        R: Retry<B, Spare = T>,
    {
        if !retry.pause(&mut self.body) {
            return None;
        }
        let body = PausedBody { retry: Arc::clone(retry), spare: Some(self.body) };
        Some((self.head, body, self.service))
    }
}

/// A rejected request that can be sent again. The rest of its first attempt's body is paused.
pub(crate) struct Paused<I, B, F, R: Retry<B>> {
    head: SpareHead,
    body: PausedBody<B, R>,
    service: I,
    found: F,
}

impl<I, B, F, R: Retry<B>> Paused<I, B, F, R> {
    pub(crate) fn found(&self) -> &F {
        &self.found
    }

    /// Ends the first attempt's body and makes the request again, with a service to be readied.
    ///
    /// # Errors
    ///
    /// If `http` does not take back the head that it has parsed before.
    pub(crate) fn replay(self) -> Result<(Last<B, F>, I), BoxError> {
        let Self { head, body, service, found } = self;
        match (body.replay(), head.rebuild()) {
            (Some(body), Some(head)) => Ok((Last { head, body, found }, service)),
            _ => Err("the rejected request could not be made again".into()),
        }
    }

    /// Lets the first attempt's body go on, and returns the rejection with the reason why there is no newer token.
    pub(crate) fn give_up<D>(self, mut rejected: Response<D>, error: TokenError) -> Response<D> {
        self.body.resume();
        rejected.extensions_mut().insert(error);
        rejected
    }
}

/// The spare of a body that is paused. Dropped, it ends the body with an error: the caller is gone, and the rest would be
/// sent in vain.
struct PausedBody<B, R: Retry<B>> {
    retry: Arc<R>,
    /// Present until it is replayed or resumed.
    spare: Option<R::Spare>,
}

impl<B, R: Retry<B>> PausedBody<B, R> {
    fn replay(mut self) -> Option<B> {
        self.take()
    }

    fn resume(mut self) {
        self.spare = None;
    }

    fn take(&mut self) -> Option<B> {
        self.spare.take().map(|spare| self.retry.replay(spare))
    }
}

impl<B, R: Retry<B>> Drop for PausedBody<B, R> {
    fn drop(&mut self) {
        drop(self.take());
    }
}
