//! Waiting for a token: requests, and calls of the application.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt as _;

use super::flight::Landing;
use super::generation::Generation;
use super::handle::Credentials;
use super::issued::Issued;
use super::log::Occasion;
use super::session::{self, Session};
use super::state::{Decision, State};
use super::task;
use crate::classify::Rejection;
use crate::error::TokenError;
use crate::limit;
use crate::metrics::Waiter;
use crate::source::{Cause, FetchedFor};
use crate::target::Target;
use crate::token::TokenSet;

impl Credentials {
    /// Returns a valid token set. Obtains one first if necessary.
    ///
    /// The call belongs to no session: after a log-in or a log-out while it waits, it returns the tokens of the new session.
    ///
    /// # Errors
    ///
    /// The [`TokenError`] of the refresh. Also:
    ///
    /// - A [transient](TokenError::is_transient) error if no token set arrives within the policy's timeout.
    /// - A [misconfigured](TokenError::is_misconfigured) error if a refresh is needed and there is no tokio runtime, or if the source
    ///   itself calls this.
    ///
    /// # Panics
    ///
    /// If a refresh is needed and the runtime has no time driver (`enable_time`), like tokio's own timers.
    ///
    /// # Cancel safety
    ///
    /// Dropping this future does not stop the refresh. Its result is used.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::{Credentials, StaticToken};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_refresh::TokenError> {
    /// let credentials = Credentials::new(StaticToken::new("sesame".parse()?));
    /// let tokens = credentials.tokens().await?;
    /// assert_eq!(tokens.access_token().expose_secret(), "sesame");
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "token")]
    pub async fn tokens(&self) -> Result<TokenSet, TokenError> {
        if let Some(tokens) = self.with_fresh(|issued| issued.tokens.clone()) {
            return Ok(tokens);
        }
        self.wait_for(Want::Token).await
    }

    /// Obtains a newer token set than the current one.
    ///
    /// Joins a refresh that is in flight. A log-in while it waits counts as the newer token set. During the backoff after a failure,
    /// it returns the [remembered](TokenError::is_remembered) error and asks no source, with two exceptions: a source that is
    /// [misconfigured](TokenError::is_misconfigured), and a denied source that is asked again every five minutes ([`TokenError`]), are
    /// asked at once. [`refresh_now`](Self::refresh_now) asks after every failure whose outcome is known.
    ///
    /// # Errors
    ///
    /// As [`tokens`](Self::tokens).
    ///
    /// # Cancel safety
    ///
    /// As [`tokens`](Self::tokens).
    #[doc(alias("renew", "force"))]
    pub async fn refresh(&self) -> Result<TokenSet, TokenError> {
        let generation = self.lock().generation;
        self.wait_for(Want::NewerThan(generation)).await
    }

    /// Obtains a newer token set at once, also after a failure whose cause was removed.
    ///
    /// Unlike [`refresh`](Self::refresh), it does not return a remembered error during the backoff, or after the source was
    /// [denied](TokenError::is_denied) or [misconfigured](TokenError::is_misconfigured). Use it for a button or a signal of an operator,
    /// and not for requests, which would defeat the backoff.
    ///
    /// It keeps the other promises of the credentials:
    ///
    /// - It joins a refresh that is in flight.
    /// - A refresh token that the server has refused is not sent again. The source is asked without one, so that a
    ///   [second source](crate::TokenSource::or_else) logs in again. Without a second source, use [`log_in`](Self::log_in).
    /// - After an [ambiguous](TokenError::is_ambiguous) failure, the refresh token is not sent again while the access token works: the
    ///   server may have spent it, and a second use may end the session. The ambiguous error is returned. Without a known expiry of the
    ///   access token, it is sent again after the backoff. After two such failures it is sent again at the earliest after a minute,
    ///   then two, up to 15, and [`log_in`](Self::log_in) ends the wait. Sources that spend no refresh token are asked.
    /// - In a pool it counts as one of the refreshes in flight. During an outage of the token endpoint it is the next attempt, unless
    ///   another one is in flight.
    ///
    /// # Errors
    ///
    /// As [`tokens`](Self::tokens).
    ///
    /// # Cancel safety
    ///
    /// As [`tokens`](Self::tokens).
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::Credentials;
    ///
    /// /// The operator has corrected the configuration.
    /// async fn reload(credentials: &Credentials) -> String {
    ///     match credentials.refresh_now().await {
    ///         Ok(_) => credentials.status().to_string(),
    ///         Err(error) => error.to_string(),
    ///     }
    /// }
    /// ```
    #[doc(alias("retry", "force"))]
    pub async fn refresh_now(&self) -> Result<TokenSet, TokenError> {
        let generation = self.lock().generation;
        self.wait_for(Want::AtOnce(generation)).await
    }

    /// Obtains a newer token set, because a server has rejected these tokens.
    ///
    /// Use it for clients that are not tower services, such as those of Kafka, PostgreSQL or a WebSocket. (A
    /// [`RefreshLayer`](crate::RefreshLayer) does this by itself.) Concurrent reports about one token set lead to one refresh. A report
    /// about an older token set returns the current one.
    ///
    /// If the new tokens are rejected too, the [rejection backoff](crate::RefreshPolicy::rejection_backoff) applies, and all callers of
    /// this method share it. It ends with [`accepted`](Self::accepted). If no rejection is reported for the longest backoff, five minutes by
    /// default, the tokens count as accepted, so that `accepted` need not be called.
    ///
    /// # Errors
    ///
    /// As [`tokens`](Self::tokens). During the rejection backoff, a [transient](TokenError::is_transient) error.
    ///
    /// # Cancel safety
    ///
    /// As [`tokens`](Self::tokens).
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::{Credentials, TokenError};
    /// # struct Connection;
    /// # enum ConnectError { Unauthorized, Other }
    /// # async fn connect(_: &str) -> Result<Connection, ConnectError> { Ok(Connection) }
    ///
    /// async fn connection(credentials: &Credentials) -> Result<Connection, TokenError> {
    ///     let mut tokens = credentials.tokens().await?;
    ///     loop {
    ///         match connect(tokens.access_token().expose_secret()).await {
    ///             Ok(connection) => {
    ///                 credentials.accepted(&tokens);
    ///                 return Ok(connection);
    ///             }
    ///             // Returns an error if the server rejects the new tokens too.
    ///             Err(ConnectError::Unauthorized) => tokens = credentials.rejected(&tokens).await?,
    ///             Err(ConnectError::Other) => return Err(TokenError::transient("no connection")),
    ///         }
    ///     }
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), TokenError> {
    /// # let credentials = Credentials::new(tower_refresh::StaticToken::new("sesame".parse()?));
    /// # connection(&credentials).await.map(drop)
    /// # }
    /// ```
    #[doc(alias("invalidate", "unauthorized"))]
    pub async fn rejected(&self, tokens: &TokenSet) -> Result<TokenSet, TokenError> {
        let Some(generation) = self.lock().generation_of(tokens) else {
            return self.tokens().await;
        };
        self.log_rejection(generation, &Rejection::default());
        self.wait_for(Want::NewerThanReported(generation)).await
    }

    /// Reports that a server has accepted these tokens, for clients that report [rejections](Self::rejected).
    ///
    /// It ends the rejection backoff and the status [`Rejected`](crate::TokenStatus::Rejected). A report about an older token set
    /// changes nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::{Credentials, StaticToken, TokenStatus};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_refresh::TokenError> {
    /// let credentials = Credentials::new(StaticToken::new("sesame".parse()?));
    /// let tokens = credentials.tokens().await?;
    /// assert!(credentials.rejected(&tokens).await.is_err());
    /// assert_eq!(credentials.status().token, TokenStatus::Rejected);
    /// // The clock of the server was wrong.
    /// credentials.accepted(&tokens);
    /// assert_eq!(credentials.status().token, TokenStatus::Fresh);
    /// # Ok(())
    /// # }
    /// ```
    pub fn accepted(&self, tokens: &TokenSet) {
        let Some(generation) = self.lock().generation_of(tokens) else { return };
        self.accepted_at(generation, Target::APPLICATION);
    }

    async fn wait_for(&self, want: Want) -> Result<TokenSet, TokenError> {
        self.issued(want).await.map(|issued| issued.tokens.clone())
    }

    /// Returns a token set with its generation.
    pub(crate) async fn issued(&self, want: Want) -> Result<Arc<Issued>, TokenError> {
        let issued = match self.ask(want) {
            Answer::Use(issued) => Ok(issued),
            Answer::Wait(waiting) => waiting.await,
            Answer::Refuse(error) => Err(error),
        };
        // A source that asks for the token of these credentials may return their error.
        issued.map_err(|error| match FetchedFor::current() {
            Some(_) => error.of_other_source(),
            None => error,
        })
    }

    /// Obtains the first token, for example at start-up rather than for the first request.
    ///
    /// Does nothing if there is a valid token.
    ///
    /// # Errors
    ///
    /// As [`tokens`](Self::tokens).
    ///
    /// # Cancel safety
    ///
    /// As [`tokens`](Self::tokens).
    #[doc(alias("prime", "preload"))]
    pub async fn warm_up(&self) -> Result<(), TokenError> {
        self.tokens().await.map(drop)
    }

    /// Answers a request for a token, and starts a flight if one is needed.
    pub(crate) fn ask(&self, mut want: Want) -> Answer {
        let rejection = match &want {
            Want::NewerThanRejected { rejection, .. } => Some(Arc::clone(rejection)),
            Want::NewerThanReported(_) => Some(Arc::default()),
            _ => None,
        };
        self.notice_change(rejection.is_some());
        let runtime = self.runtime().and_then(|runtime| self.refuse_recursion().map(|()| runtime));
        let occasion = match &rejection {
            Some(rejection) => Occasion::Rejection(rejection),
            None => Occasion::Other,
        };
        let decision = self.decide_on(occasion, |state, now| {
            if let Want::TokenOf(session @ None) = &mut want {
                *session = Some(state.session_of_new_request(now));
            }
            let decision = match &want {
                want if want.is_over(state) => Decision::Refuse(session::is_over()),
                Want::Token => state.token_for_application(now),
                Want::TokenOf(_) => state.token(now),
                Want::NewerThanRejected { generation, target, .. } => {
                    state.rejected(now, *generation, *target)
                }
                Want::NewerThanReported(generation) => {
                    state.rejected(now, *generation, Target::APPLICATION)
                }
                Want::NewerThan(generation) => state.forced(now, *generation),
                Want::AtOnce(generation) => state.forced_at_once(now, *generation),
            };
            match (&runtime, decision) {
                // The token is used while it lasts.
                (Err(_), Decision::Use(issued, Some(departure))) => {
                    state.call_off(&departure);
                    Decision::Use(issued, None)
                }
                (Err(error), Decision::Wait(_, departure)) => {
                    departure.inspect(|departure| state.call_off(departure));
                    Decision::Refuse(error.clone())
                }
                (_, decision) => decision,
            }
        });
        let (token, departure) = match decision {
            Decision::Use(issued, departure) => (Ok(issued), departure),
            Decision::Wait(landing, departure) => (Err(landing), departure),
            Decision::Refuse(error) => return Answer::Refuse(error),
        };
        if let (Some(departure), Ok(runtime)) = (departure, runtime) {
            let challenge = rejection.and_then(|rejection| rejection.challenge.clone());
            // Only for the token that is refreshed now, not for the rejection of an older one.
            let challenge = challenge.filter(|_| departure.wish.cause == Cause::Rejected);
            task::start(self, departure, challenge, &runtime);
        }
        match token {
            Ok(issued) => Answer::Use(issued),
            // Last: without a time driver it panics, and the flight must have its task by then.
            Err(landing) => Answer::Wait(Waiting::new(self.clone(), want, landing)),
        }
    }

    /// Answers a request that obtained a token, and then readied its service, perhaps for a long time.
    ///
    /// With `may_have_expired`, a token is used although it has expired meanwhile: a token without a lifetime serves the requests
    /// that waited for it.
    pub(crate) fn recheck(&self, token: Arc<Issued>, may_have_expired: bool) -> Answer {
        let fresh = self.with_fresh(Arc::clone);
        if let Some(fresh) = fresh.filter(|fresh| fresh.session == token.session) {
            return Answer::Use(fresh);
        }
        let want = Want::TokenOf(Some(token.session));
        let may_be_sent = may_have_expired || !token.is_expired(self.now());
        if may_be_sent && self.is_for(&token, &want) {
            return Answer::Use(token);
        }
        self.ask(want)
    }

    /// Returns whether a token and its waiter belong to the current session.
    fn is_for(&self, token: &Issued, want: &Want) -> bool {
        let state = self.lock();
        token.session == state.session && !want.is_over(&state)
    }
}

/// A wish for a token.
#[derive(Clone, Debug)]
pub(crate) enum Want {
    /// A token that may be sent, of any session.
    Token,
    /// A token for a request of this session, or with `None` for a new request.
    TokenOf(Option<Session>),
    /// A newer token than this one, which a resource server rejected.
    NewerThanRejected { generation: Generation, target: Target, rejection: Arc<Rejection> },
    /// A newer token than this one, which a server of the application rejected.
    NewerThanReported(Generation),
    /// A newer token than this one, because the application asks for it.
    NewerThan(Generation),
    /// The same, also after a failure.
    AtOnce(Generation),
}

impl Want {
    /// Returns whether a log-in or a log-out has ended the session of the request.
    fn is_over(&self, state: &State) -> bool {
        match self {
            Self::TokenOf(Some(session)) => state.session > *session,
            Self::NewerThanRejected { generation, .. } => state.is_of_earlier_session(*generation),
            // A new request, and calls of the application, belong to no session.
            Self::TokenOf(None)
            | Self::Token
            | Self::NewerThanReported(_)
            | Self::NewerThan(_)
            | Self::AtOnce(_) => false,
        }
    }
}

/// The answer of the credentials.
pub(crate) enum Answer {
    Use(Arc<Issued>),
    Wait(Waiting),
    Refuse(TokenError),
}

/// Waits for a usable token, from a flight, a log-in or another process.
///
/// Dropping it does not stop the flight.
pub(crate) struct Waiting {
    credentials: Credentials,
    want: Want,
    /// An error from before a log-in is not for a waiter that asked after it.
    epoch: u64,
    landing: Landing,
    // Each waiter uses its own runtime: a flight on a runtime that is not polled holds up no waiter.
    patience: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
    /// How often it has asked again.
    asks: u32,
    /// The metrics of the wait, once it has begun.
    measured: Option<Waiter>,
}

impl Waiting {
    fn new(credentials: Credentials, want: Want, landing: Landing) -> Self {
        let patience = credentials.timer(credentials.timeout()).map(|timer| {
            Box::pin(limit::passed(timer)) as Pin<Box<dyn Future<Output = ()> + Send + Sync>>
        });
        let epoch = credentials.lock().epoch;
        landing.record.is_waited_for();
        Self { credentials, want, epoch, landing, patience, asks: 0, measured: None }
    }

    /// Returns whether the current token will do, although it is not new.
    fn takes_any(&self) -> bool {
        matches!(self.want, Want::Token | Want::TokenOf(_))
    }
}

impl Future for Waiting {
    type Output = Result<Arc<Issued>, TokenError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let credentials = this.credentials.clone();
        loop {
            match this.landing.poll_unpin(cx) {
                Poll::Ready(Ok(Ok(issued))) if credentials.is_for(&issued, &this.want) => {
                    return Poll::Ready(Ok(issued));
                }
                Poll::Ready(Ok(Err(error))) if credentials.lock().epoch == this.epoch => {
                    // The token that was not replaced may still be good for this request.
                    let now = credentials.now();
                    let usable = credentials.lock().usable(now).filter(|_| this.takes_any());
                    let usable = usable.filter(|issued| credentials.is_for(issued, &this.want));
                    return Poll::Ready(usable.ok_or(error));
                }
                // The application has logged in or out, for example.
                Poll::Ready(_) => {
                    this.asks += 1;
                    if this.asks > ASKS_MAX {
                        return Poll::Ready(Err(TokenError::transient(format!(
                            "gave up waiting for a token after {ASKS_MAX} refreshes, log-ins and log-outs that brought none: does the clock of the policy run?"
                        ))));
                    }
                    match credentials.ask(this.want.clone()) {
                        Answer::Use(issued) => return Poll::Ready(Ok(issued)),
                        Answer::Refuse(error) => return Poll::Ready(Err(error)),
                        // The time that it has waited so far counts.
                        Answer::Wait(next) => {
                            this.epoch = next.epoch;
                            this.landing = next.landing;
                        }
                    }
                }
                Poll::Pending => {
                    let clock = &credentials.shared.keeper.clock;
                    this.measured.get_or_insert_with(|| credentials.metrics().wait(clock));
                    // The call was made elsewhere, as a buffer's worker does, and is awaited in the fetch.
                    credentials.refuse_recursion()?;
                    credentials.is_waited_for();
                    // There is a timer: a caller without a runtime does not wait.
                    let Some(patience) = &mut this.patience else {
                        return Poll::Pending;
                    };
                    ready!(patience.as_mut().poll(cx));
                    // The token that is being replaced may still be good for this request.
                    if this.takes_any()
                        && let Answer::Use(issued) = credentials.ask(this.want.clone())
                    {
                        return Poll::Ready(Ok(issued));
                    }
                    let timeout = credentials.timeout();
                    credentials.shared.log.timed_out(&credentials.subject(), timeout);
                    return Poll::Ready(Err(TokenError::transient(format!(
                        "no token within {timeout:?}; the refresh goes on and its answer will be used: if the token endpoint needs that long, raise `RefreshPolicy::timeout`"
                    ))));
                }
            }
        }
    }
}

/// How often a waiter asks again. With a clock that jumps, each flight ends before it lands, and a waiter would ask forever.
const ASKS_MAX: u32 = 16;
