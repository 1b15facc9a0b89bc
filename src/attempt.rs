//! The attempts to send a request: the first, and after a rejection one more.
//!
//! There is at most one retry, by type. Only the first attempt keeps a [`Spare`] of the request. Only a first attempt that was
//! rejected leads to a [`Last`], which has no spare: it can be sent, and its response is returned.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, Request, Response, StatusCode};
use tower_service::Service;

use crate::acquire::Failure;
use crate::classify::{Classify, Rejection, Verdict};
use crate::config::Config;
use crate::credentials::{Answer, Generation, Issued, Waiting, Want};
use crate::error::{BoxError, TokenError};
use crate::find::FindCredentials;
use crate::metrics::Metrics;
use crate::origin::{Unnamed, shown_origin};
use crate::replay::{Retry, SpareHead};
use crate::skip::Skip;
use crate::target::Target;

// ===== before it is sent =====

/// A request that waits for its first token.
pub(crate) struct First<B, F> {
    request: Request<B>,
    found: F,
}

impl<B, F> First<B, F> {
    pub(crate) fn new(request: Request<B>, found: F) -> Self {
        Self { request, found }
    }

    pub(crate) fn found(&self) -> &F {
        &self.found
    }

    /// Makes the caller's error of a request that is not sent.
    pub(crate) fn fail(&self, failure: Failure, metrics: &Metrics) -> BoxError {
        match failure {
            Failure::Token(error) => {
                metrics.not_sent();
                for_caller(self.request.headers(), error)
            }
            Failure::Service(error) => error,
        }
    }

    /// Attaches the token and sends the request through a service that is ready.
    pub(crate) fn send<I, S, C, R>(
        self,
        config: &Config<S, C, R>,
        token: &Issued,
        service: &mut I,
    ) -> Result<Sending<I, B, F, R::Spare>, BoxError>
    where
        I: Service<Request<B>>,
        S: FindCredentials<Found = F>,
        R: Retry<B>,
    {
        let Self { mut request, found } = self;
        match arm(&mut request, config, token) {
            Ok(armed) => Ok((service.call(request), armed.sent(found))),
            Err(error) => {
                config.find.found(&found).metrics().not_sent();
                Err(for_caller(request.headers(), error))
            }
        }
    }
}

/// Attaches the token of a first attempt, which is then sent at once. Keeps a spare if the request can be sent again.
pub(crate) fn arm<S, C, R, B>(
    request: &mut Request<B>,
    config: &Config<S, C, R>,
    token: &Issued,
) -> Result<Armed<R::Spare>, TokenError>
where
    R: Retry<B>,
{
    let target = Target::of(request);
    let (skip, limit) = (request.extensions().get(), request.extensions().get().copied());
    let spare = match skip {
        Some(Skip::Retry) => None,
        _ => config.retry.keep_spare(request.body_mut(), limit),
    };
    let spare = spare.map(|body| Spare { head: SpareHead::of(request), body });
    config.attach.attach(request.headers_mut(), token.tokens.access_token())?;
    Ok(Armed { generation: token.generation, target, spare })
}

/// The part of a first attempt that is kept.
pub(crate) struct Armed<T> {
    generation: Generation,
    target: Target,
    spare: Option<Spare<T>>,
}

impl<T> Armed<T> {
    /// Returns the attempt, which is sent now, with the credentials that were found for it.
    pub(crate) fn sent<F>(self, found: F) -> Sent<F, T> {
        let Self { generation, target, spare } = self;
        Sent::First(FirstSent { sent: OnTrial { generation, target, found }, spare })
    }
}

/// A request whose first attempt was rejected. It is not sent a third time.
pub(crate) struct Last<B, F> {
    request: Request<B>,
    found: F,
}

impl<B, F> Last<B, F> {
    pub(crate) fn found(&self) -> &F {
        &self.found
    }

    /// Makes the caller's error of a request that is not sent again.
    pub(crate) fn fail(&self, failure: Failure) -> BoxError {
        match failure {
            Failure::Token(error) => for_caller(self.request.headers(), NotSentAgain(error)),
            Failure::Service(error) => error,
        }
    }

    /// Attaches the token and sends the request through a service that is ready.
    pub(crate) fn send<I, S, C, R, T>(
        self,
        config: &Config<S, C, R>,
        token: &Issued,
        service: &mut I,
    ) -> Result<Sending<I, B, F, T>, BoxError>
    where
        I: Service<Request<B>>,
    {
        let Self { mut request, found } = self;
        let target = Target::of(&request);
        config.origins.note(target, request.uri());
        let attached = config.attach.attach(request.headers_mut(), token.tokens.access_token());
        attached.map_err(|error| for_caller(request.headers(), NotSentAgain(error)))?;
        let sent = Sent::Last(OnTrial { generation: token.generation, target, found });
        Ok((service.call(request), sent))
    }
}

/// The error of a request that was rejected and is not sent again. Not a [`TokenError`], which means that the request was never
/// sent.
#[derive(Debug)]
struct NotSentAgain(TokenError);

impl fmt::Display for NotSentAgain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the token was rejected, and the request not sent again")
    }
}

impl Error for NotSentAgain {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
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
pub(crate) type Sending<I, B, F, T> = (<I as Service<Request<B>>>::Future, Sent<F, T>);

/// An attempt whose response is awaited.
#[derive(Default)]
pub(crate) enum Sent<F, T> {
    /// A request without a token of ours: its response is returned unchanged.
    #[default]
    Untouched,
    /// As above, because its origin is not named.
    Unnamed(Unnamed),
    First(FirstSent<F, T>),
    Last(OnTrial<F>),
}

pub(crate) struct FirstSent<F, T> {
    sent: OnTrial<F>,
    spare: Option<Spare<T>>,
}

/// The token that the response is a verdict on, and where it was sent.
pub(crate) struct OnTrial<F> {
    generation: Generation,
    target: Target,
    found: F,
}

/// A copy of the request, without the token.
struct Spare<T> {
    head: SpareHead,
    body: T,
}

impl<F, T> Sent<F, T> {
    /// Classifies the response and reports the verdict to the credentials. Returns whether the token is rejected.
    ///
    /// The rejection of a first attempt is reported by [`FirstSent::rejected`], which asks for a newer token.
    pub(crate) fn is_rejected_by<S, C, R, D>(
        &self,
        config: &Config<S, C, R>,
        response: &Response<D>,
    ) -> bool
    where
        S: FindCredentials<Found = F>,
        C: Classify,
    {
        let sent = match self {
            Self::First(FirstSent { sent, .. }) | Self::Last(sent) => sent,
            Self::Unnamed(unnamed) => {
                config.find.count_untouched(response.status() == StatusCode::UNAUTHORIZED);
                config.origins.answered(*unnamed, config.find.name(), response);
                return false;
            }
            Self::Untouched => return false,
        };
        let &OnTrial { generation, target, ref found } = sent;
        let verdict = config.classify.classify(response.status(), response.headers());
        let credentials = config.find.found(found);
        credentials.metrics().response(verdict, matches!(self, Self::Last(..)));
        match (self, verdict) {
            (Self::First(_), Verdict::Accepted) => credentials.accepted_at(generation, target),
            (Self::Last(_), Verdict::Accepted) => credentials.retry_accepted(generation, target),
            (Self::Last(_), Verdict::Rejected) => {
                let rejection = Rejection::new(response, config.origins.of_target(target));
                credentials.log_rejection(generation, &rejection);
                credentials.retry_rejected(generation, target, &rejection);
            }
            _ => {}
        }
        if verdict == Verdict::Accepted
            && response.status().is_client_error()
            && response.headers().contains_key(WWW_AUTHENTICATE)
        {
            let rejection = Rejection::new(response, config.origins.of_target(target));
            credentials.log_insufficient(generation, &rejection);
        }
        verdict == Verdict::Rejected
    }
}

// ===== after a rejection =====

/// The consequence of a first attempt's rejection.
pub(crate) enum Rejected<B, F, R: Retry<B>, D> {
    /// The response is the caller's.
    Final(Response<D>),
    /// A refresh is in flight: the request waits for a newer token.
    Wait(Waiting, Response<D>, Paused<B, F, R>),
    /// There is a newer token already.
    Retry(Arc<Issued>, Response<D>, Paused<B, F, R>),
}

impl<F, T> FirstSent<F, T> {
    /// Reports the rejection, asks for a newer token, and pauses the rest of the request's body.
    pub(crate) fn rejected<B, S, C, R, D>(
        self,
        config: &Config<S, C, R>,
        mut response: Response<D>,
    ) -> Rejected<B, F, R, D>
    where
        S: FindCredentials<Found = F>,
        R: Retry<B, Spare = T>,
    {
        let Self { sent: OnTrial { generation, target, found }, spare } = self;
        let credentials = config.find.found(&found);
        let can_wait = |spare: &Spare<T>| !credentials.is_own_request(spare.head.extensions());
        let of_head = |spare: &Spare<T>| {
            let (scheme, authority) = spare.head.scheme_and_authority()?;
            shown_origin(scheme, authority)
        };
        let of_head = || spare.as_ref().and_then(of_head).map(Arc::from);
        let origin = config.origins.of_target(target).or_else(of_head);
        // Before the refresh starts: the rest of the body would be sent in vain.
        let spare = spare.filter(can_wait).and_then(|spare| spare.pause(&config.retry));
        let rejection = Arc::new(Rejection::new(&response, origin));
        credentials.log_rejection(generation, &rejection);
        let answer = credentials.ask(Want::NewerThanRejected { generation, target, rejection });
        let Some((head, body)) = spare else {
            // The refresh goes on without this request.
            if let Answer::Refuse(error) = answer {
                response.extensions_mut().insert(error);
            }
            return Rejected::Final(response);
        };
        let paused = Paused { head, body, found };
        match answer {
            Answer::Use(token) => Rejected::Retry(token, response, paused),
            Answer::Wait(waiting) => Rejected::Wait(waiting, response, paused),
            Answer::Refuse(error) => Rejected::Final(paused.give_up(response, error)),
        }
    }
}

impl<T> Spare<T> {
    /// Pauses the first attempt's body. Returns `None` if the spare cannot become the whole body.
    fn pause<B, R>(mut self, retry: &Arc<R>) -> Option<(SpareHead, PausedBody<B, R>)>
    where
        R: Retry<B, Spare = T>,
    {
        if !retry.pause(&mut self.body) {
            return None;
        }
        let body = PausedBody { retry: Arc::clone(retry), spare: Some(self.body) };
        Some((self.head, body))
    }
}

/// A rejected request that can be sent again. The rest of its first attempt's body is paused.
pub(crate) struct Paused<B, F, R: Retry<B>> {
    head: SpareHead,
    body: PausedBody<B, R>,
    found: F,
}

impl<B, F, R: Retry<B>> Paused<B, F, R> {
    pub(crate) fn found(&self) -> &F {
        &self.found
    }

    /// Ends the first attempt's body and makes the request again.
    ///
    /// # Errors
    ///
    /// If `http` does not take back the head that it has parsed before.
    pub(crate) fn replay(self) -> Result<Last<B, F>, BoxError> {
        let Self { head, body, found } = self;
        match (body.replay(), head.rebuild()) {
            (Some(body), Some(head)) => {
                Ok(Last { request: Request::from_parts(head, body), found })
            }
            _ => Err("the rejected request could not be made again: send it once more".into()),
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
