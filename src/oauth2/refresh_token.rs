//! The refresh token grant, and what is known of the refresh tokens that it has sent.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::endpoint::TokenEndpoint;
use super::request::{Parameters, check_characters, from_previous};
use super::response;
use super::token_request::{TokenRequest, more};
use crate::clock::Timestamp;
use crate::error::TokenError;
use crate::source::{Renewal, SourceInfo, TokenSource};
use crate::token::{RefreshToken, TokenSet};

/// The refresh token grant (RFC 6749 §6).
///
/// It spends the refresh token of the token set that is to be renewed, and at first the one it was made with:
///
/// ```
/// # use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
/// # fn example(endpoint: TokenEndpoint) -> RefreshTokenGrant {
/// let refresh_token = std::env::var("REFRESH_TOKEN").unwrap_or_default();
/// RefreshTokenGrant::new(endpoint, refresh_token).scope("mail contacts")
/// # }
/// ```
///
/// What an answer leaves out is kept from before: the refresh token, the scope, the id token, and
/// [extra fields](super::Fields::extra).
///
/// # A refresh token is spent once
///
/// The configured refresh token is not sent again once the server has replaced or refused it, nor after the application
/// logged in or out itself ([`Credentials::replace`](crate::Credentials::replace),
/// [`forget`](crate::Credentials::forget)): somebody must then log in, and the error is
/// [denied](TokenError::is_denied). The application may bring it itself if it was neither replaced nor refused; any
/// other token that it brings is sent unless it is the one that was refused last. After a restart the configured token
/// is sent again, so that a program that restarts must write down the one that it has: see
/// [`TokenSet::refresh_token`].
///
/// If the answer to a request is lost, nobody knows whether the token was spent; the error is
/// [ambiguous](TokenError::is_ambiguous), and whoever asks decides when it is worth the risk to ask again. Only with a
/// dialect that names a [`reuse_grace`](super::Dialect::reuse_grace) it is sent again at once, one time, while that lasts.
///
/// If an answer brings a new refresh token and is of no other use (its access token is missing, say, or of an unknown
/// type), the new one is kept and sent the next time.
///
/// A refresh token is sent after its [stated expiry](TokenSet::refresh_token_expires_at) as well. The server decides, so that
/// a wrong clock does not log the user out.
#[derive(Clone)]
pub struct RefreshTokenGrant {
    request: TokenRequest,
    configured: RefreshToken,
    state: Arc<Shared>,
}

/// What is known of refresh tokens that were sent.
#[derive(Default)]
struct State {
    /// Why the configured refresh token is not to be sent any more.
    given_up: Option<GivenUp>,
    /// The refresh token that the server refused last, whoever brought it.
    denied: Option<RefreshToken>,
    /// The refresh token that was sent last without a clear answer.
    unanswered: Option<Unanswered>,
    /// The refresh tokens that are being sent: a flight that was given up on, or other credentials, may be at it.
    sending: Vec<RefreshToken>,
    /// A refresh token, and the one that the server issued in its place with an answer that is of no other use.
    successor: Option<(RefreshToken, RefreshToken)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum GivenUp {
    /// The server issued another in its place.
    Rotated,
    /// The server refused it.
    Denied,
    /// The application brought other tokens.
    Replaced,
    /// The application logged out.
    LoggedOut,
}

struct Unanswered {
    token: RefreshToken,
    first_sent: Timestamp,
    /// Whether an answer was lost; if not, it was not sent, or the server said that it did not count.
    is_lost: bool,
    /// Whether it was sent again in the grace window; that is done once.
    sent_again: bool,
}

impl RefreshTokenGrant {
    /// Makes a source of an endpoint and the refresh token to begin with.
    ///
    /// An empty one is none: nothing is sent until [`Credentials::replace`](crate::Credentials::replace) brings one.
    pub fn new(endpoint: TokenEndpoint, refresh_token: impl Into<RefreshToken>) -> Self {
        Self {
            request: TokenRequest::new(endpoint, "refresh_token"),
            configured: refresh_token.into(),
            state: Arc::default(),
        }
    }

    /// Asks for a scope (RFC 6749 §3.3): words with spaces between them. By default none is named, and the scope stays
    /// what it was.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.request.scope = Some(scope.into());
        self
    }

    /// Asks for a token for a resource (RFC 8707). May be called several times.
    #[must_use]
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.request.parameters.push("resource", resource);
        self
    }

    /// Adds a parameter.
    #[must_use]
    pub fn param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.parameters.push(name, value);
        self
    }

    /// Asks a closure for more parameters, anew for each attempt.
    ///
    /// It is given the [`Renewal`]: the previous token set, why it is renewed, and the challenge of the response that
    /// rejected it. The time it takes counts towards [`TokenEndpoint::timeout`]. A parameter that is set twice is an error,
    /// and nothing is sent: the closure cannot replace the refresh token. Another call replaces the closure.
    ///
    /// # Examples
    ///
    /// Microsoft Entra rejects a token with `error="insufficient_claims"` if a new one must fulfil further claims, which the
    /// challenge contains in base64. They are sent with the refresh request. By default such a challenge starts no refresh, since
    /// the token is good and not enough: add [`Unauthorized::reject_error`](crate::Unauthorized::reject_error) to the layer.
    ///
    /// ```
    /// use base64::Engine as _;
    /// use base64::engine::general_purpose::STANDARD;
    /// use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
    /// use tower_refresh::{Challenge, RefreshLayer, Renewal, TokenError, Unauthorized};
    ///
    /// fn claims(challenge: &Challenge) -> Result<Option<String>, TokenError> {
    ///     if challenge.error() != Some("insufficient_claims") {
    ///         return Ok(None);
    ///     }
    ///     let Some(claims) = challenge.param("claims") else { return Ok(None) };
    ///     let claims = STANDARD.decode(claims).map_err(TokenError::misconfigured)?;
    ///     String::from_utf8(claims).map(Some).map_err(TokenError::misconfigured)
    /// }
    ///
    /// # fn example(endpoint: TokenEndpoint, refresh_token: String) -> Result<(), tower_refresh::BoxError> {
    /// let grant = RefreshTokenGrant::new(endpoint, refresh_token).params_with(|renewal: Renewal| async move {
    ///     let claims = renewal.challenge().map(claims).transpose()?.flatten();
    ///     Ok(claims.map(|claims| ("claims", claims)))
    /// });
    /// let layer = RefreshLayer::new(grant)
    ///     .origin("https://graph.microsoft.com")?
    ///     .classifier(Unauthorized::default().reject_error("insufficient_claims"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn params_with<F, Fut, P, N, V>(mut self, f: F) -> Self
    where
        F: Fn(Renewal) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<P, TokenError>> + Send + 'static,
        P: IntoIterator<Item = (N, V)>,
        N: Into<String>,
        V: Into<String>,
    {
        self.request.more = Some(more(f));
        self
    }

    /// Chooses the refresh token to send.
    fn choose(&self, renewal: &Renewal) -> Result<RefreshToken, TokenError> {
        let previous = renewal.previous();
        let token = previous.and_then(TokenSet::refresh_token);
        if token.is_none() && renewal.is_seed_spent() {
            return Err(TokenError::denied("there is no refresh token left; somebody must log in"));
        }
        let newest = token.unwrap_or(&self.configured);
        if let Some(successor) = self.state.with(|state| state.successor_of(newest)) {
            return self.unless_denied(successor);
        }

        let given_up = self.state.with(|state| state.given_up);
        let Some(token) = token else {
            return match given_up {
                Some(why) => Err(why.error()),
                None if is_empty(&self.configured) => {
                    Err(TokenError::denied("there is no refresh token; somebody must log in"))
                }
                None => self.unless_denied(self.configured.clone()),
            };
        };
        // The application may bring the configured token itself, and then means it; but a server's word stands.
        if let Some(why) = given_up.filter(|why| why.is_by_server())
            && is_same(token, &self.configured)
        {
            return Err(why.error());
        }
        self.unless_denied(token.clone())
    }

    fn unless_denied(&self, token: RefreshToken) -> Result<RefreshToken, TokenError> {
        let is_denied = self
            .state
            .with(|state| state.denied.as_ref().is_some_and(|denied| is_same(denied, &token)));
        if is_denied {
            return Err(TokenError::denied(
                "the server has refused this refresh token before; somebody must log in again",
            ));
        }
        Ok(token)
    }

    /// Sends the token, and once more if the answer was lost and the server is known to bear it.
    async fn spend(&self, token: &RefreshToken, renewal: &Renewal) -> Result<TokenSet, TokenError> {
        let first_sent =
            self.state.with(|state| state.first_sent(token, self.request.endpoint.now()));
        let lost = match self.send(token, renewal).await {
            (Err(error), _) if error.is_ambiguous() => error,
            (outcome, _) => return outcome,
        };
        let dialect = self.request.endpoint.checked_dialect()?;
        let is_borne = dialect
            .reuse_grace
            .is_some_and(|grace| elapsed(first_sent, self.request.endpoint.now()) < grace);
        // A store writes down each attempt before it is made, and makes the second one itself.
        if renewal.is_counted() || !is_borne || !self.state.with(|state| state.send_again()) {
            return Err(lost);
        }
        match self.send(token, renewal).await {
            // It says nothing about the first request: only new tokens, or a refusal of this one, do.
            (Err(error), false) => {
                let both = format!("{}; when sent again, {}", lost.get_ref(), error.get_ref());
                Err(error.into_ambiguous().wrapped_as(both))
            }
            (outcome, _) => outcome,
        }
    }

    /// Sends the token. Also returns whether it is now known what became of it.
    async fn send(
        &self,
        token: &RefreshToken,
        renewal: &Renewal,
    ) -> (Result<TokenSet, TokenError>, bool) {
        let mut first = Parameters::default();
        first.push("refresh_token", token.expose_secret());
        let dialect = self.request.endpoint.checked_dialect();
        if let Err(error) = dialect
            .and_then(|dialect| from_previous(dialect, renewal.previous(), token, &mut first))
        {
            return (Err(error), false);
        }
        let mut successor = None;
        let outcome = self
            .request
            .send(first, renewal, |answer, context| {
                let outcome = response::read(answer, context);
                if outcome.is_err() {
                    successor = response::refresh_token(answer, context);
                }
                outcome
            })
            .await;
        let Some(successor) = successor.filter(|successor| !is_same(successor, token)) else {
            let is_settled = outcome.as_ref().err().is_none_or(TokenError::is_refusal);
            return (outcome, is_settled);
        };
        // The answer may be of no use, but it says what became of the token, and which one to send next.
        self.state.with(|state| {
            let spent = match state.successor.take() {
                // What it was a successor of is what the credentials still have.
                Some((spent, last)) if is_same(&last, token) => spent,
                _ => token.clone(),
            };
            if is_same(&spent, &self.configured) {
                state.given_up = Some(GivenUp::Rotated);
            }
            state.successor = Some((spent, successor.clone()));
        });
        let known = |error: TokenError| {
            let error = if error.is_ambiguous() { error.into_transient() } else { error };
            error.with_successor(successor)
        };
        (outcome.map_err(known), true)
    }

    /// Remembers what came of it.
    fn note(&self, token: &RefreshToken, outcome: &Result<TokenSet, TokenError>) {
        let given_up = match outcome {
            Ok(tokens) => tokens
                .refresh_token()
                .filter(|next| !is_same(next, token))
                .map(|_| GivenUp::Rotated),
            Err(error) if error.is_conditional_denial() => None,
            Err(error) => error.is_refusal().then_some(GivenUp::Denied),
        };
        let is_lost = matches!(outcome, Err(error) if error.is_ambiguous());
        let is_settled = match outcome {
            Ok(_) => true,
            Err(error) => error.is_refusal(),
        };
        self.state.with(|state| {
            match &mut state.unanswered {
                Some(unanswered) if is_lost => unanswered.is_lost = true,
                // Nothing came of this attempt, and an earlier one is as open as it was.
                Some(unanswered) if unanswered.is_lost && !is_settled => {}
                _ => state.unanswered = None,
            }
            if given_up == Some(GivenUp::Rotated) {
                // It is in the token set now, and what came after it is too.
                state.successor.take_if(|(_, successor)| is_same(successor, token));
            }
            if given_up == Some(GivenUp::Denied) {
                state.denied = Some(token.clone());
            }
            if given_up.is_some() && is_same(token, &self.configured) {
                state.given_up = given_up;
            }
        });
    }
}

impl TokenSource for RefreshTokenGrant {
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        let token = self.choose(&renewal)?;
        let _sending = Sending::begin(self, &token)?;
        let outcome = self.spend(&token, &renewal).await;
        self.note(&token, &outcome);
        let tokens = outcome?;

        let previous = renewal.previous();
        let mut kept = tokens.clone();
        if tokens.refresh_token().is_none() {
            kept = kept.with_refresh_token(token.clone());
            let expiry = previous
                .filter(|previous| {
                    previous.refresh_token().is_some_and(|last| is_same(last, &token))
                })
                .and_then(TokenSet::refresh_token_expires_at);
            if let (None, Some(at)) = (tokens.refresh_token_expires_at(), expiry) {
                kept = kept.with_refresh_token_expires_at(at);
            }
        }
        if let (None, Some(scope)) =
            (tokens.scope(), previous.and_then(TokenSet::scope).or(self.request.scope.as_deref()))
        {
            kept = kept.with_scope(scope);
        }
        if let (None, Some(id_token)) = (tokens.id_token(), previous.and_then(TokenSet::id_token)) {
            kept = kept.with_id_token(id_token);
        }
        for (name, value) in previous.into_iter().flat_map(TokenSet::extras) {
            if tokens.extra(name).is_none() {
                kept = kept.with_extra(name, value);
            }
        }
        Ok(kept)
    }

    async fn adopt(&self, tokens: Option<&TokenSet>) -> Result<(), TokenError> {
        let why = match tokens {
            Some(_) => GivenUp::Replaced,
            None => GivenUp::LoggedOut,
        };
        self.state.with(|state| {
            if !state.given_up.is_some_and(GivenUp::is_by_server) {
                state.given_up = Some(why);
            }
            state.unanswered = None;
            state.successor = None;
        });
        // It would be refused when it is to be sent, which may be an hour from now.
        match tokens.and_then(TokenSet::refresh_token) {
            Some(token) => check_characters("refresh_token", token.expose_secret()),
            None => Ok(()),
        }
    }

    fn info(&self) -> SourceInfo {
        self.request.endpoint.info().refresh_token(self.configured.clone()).remembering_refusals()
    }
}

impl fmt::Debug for RefreshTokenGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshTokenGrant").field("request", &self.request).finish_non_exhaustive()
    }
}

/// That a refresh token is being sent, until dropped.
///
/// The flight keeps one sending from another, but not from a flight that was given up on and is still at it, and not from
/// other credentials that have a clone of the grant.
struct Sending<'a> {
    state: &'a Shared,
    token: RefreshToken,
}

impl<'a> Sending<'a> {
    fn begin(grant: &'a RefreshTokenGrant, token: &RefreshToken) -> Result<Self, TokenError> {
        let rotates = grant.request.endpoint.checked_dialect()?.rotates;
        grant.state.with(|state| {
            if rotates && state.sending.iter().any(|sending| is_same(sending, token)) {
                return Err(TokenError::ambiguous(
                    "this refresh token is being sent already, and the answer is still to come",
                ));
            }
            state.sending.push(token.clone());
            Ok(())
        })?;
        Ok(Self { state: &grant.state, token: token.clone() })
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.state.with(|state| {
            let mut sending = state.sending.iter();
            if let Some(at) = sending.position(|sending| is_same(sending, &self.token)) {
                state.sending.swap_remove(at);
            }
        });
    }
}

impl State {
    /// Returns the token that is known to have taken the place of this one.
    fn successor_of(&self, token: &RefreshToken) -> Option<RefreshToken> {
        let (spent, successor) = self.successor.as_ref()?;
        is_same(spent, token).then(|| successor.clone())
    }

    /// Notes that a token is about to be sent, and returns when that was first done.
    fn first_sent(&mut self, token: &RefreshToken, now: Timestamp) -> Timestamp {
        match &self.unanswered {
            Some(unanswered) if is_same(&unanswered.token, token) => unanswered.first_sent,
            _ => {
                self.unanswered = Some(Unanswered {
                    token: token.clone(),
                    first_sent: now,
                    is_lost: false,
                    sent_again: false,
                });
                now
            }
        }
    }

    /// Returns whether the token may be sent again; it may once.
    fn send_again(&mut self) -> bool {
        match &mut self.unanswered {
            Some(unanswered) => !std::mem::replace(&mut unanswered.sent_again, true),
            None => false,
        }
    }
}

impl GivenUp {
    /// Returns whether the server has said so, and nothing that the application does can change it.
    fn is_by_server(self) -> bool {
        matches!(self, Self::Rotated | Self::Denied)
    }

    fn error(self) -> TokenError {
        TokenError::denied(match self {
            Self::Rotated => {
                "the server has replaced the configured refresh token, and its successor is gone; somebody must log in again"
            }
            Self::Denied => {
                "the server has refused the configured refresh token; somebody must log in again"
            }
            Self::Replaced => {
                "there is no refresh token: other tokens took the place of the configured one; somebody must log in again"
            }
            Self::LoggedOut => "there is no refresh token after logging out; somebody must log in",
        })
    }
}

/// The state behind its lock, which is held for a moment and never across an await.
#[derive(Default)]
#[expect(
    clippy::disallowed_types,
    reason = "a source has no access to the credentials' lock; taken a few times for each token request"
)]
struct Shared(std::sync::Mutex<State>);

impl Shared {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Returns how much time passed, by whichever clock says more: the monotonic one stands still in suspend.
fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    let monotonic = to.monotonic().saturating_sub(from.monotonic());
    let wall = to.since_epoch().saturating_sub(from.since_epoch());
    monotonic.max(wall)
}

/// Compares two tokens that are both ours: there is nobody to time it.
fn is_same(one: &RefreshToken, other: &RefreshToken) -> bool {
    one.expose_secret() == other.expose_secret()
}

fn is_empty(token: &RefreshToken) -> bool {
    token.expose_secret().is_empty()
}
