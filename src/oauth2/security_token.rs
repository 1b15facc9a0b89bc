//! A security token that a grant sends.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;

use crate::classify::Rejection;
use crate::credentials::{Credentials, Generation, IntoCredentials, Issued};
use crate::error::TokenError;
use crate::source::{Cause, Renewal, Watch};
use crate::target::Target;
use crate::token::{AccessToken, Secret, TokenSet};

/// A token that a grant sends as a proof, such as the access token of the user on whose behalf a program acts: its source and
/// its type.
///
/// [`TokenExchangeGrant`](super::TokenExchangeGrant) sends subject and actor tokens, [`JwtBearerGrant`](super::JwtBearerGrant) an
/// assertion.
///
/// | Source | Constructor | Next token after a refusal |
/// |---|---|---|
/// | a string, an [`AccessToken`] | [`new`](Self::new), `into()` | none |
/// | [`Credentials`], any [`TokenSource`](crate::TokenSource) | [`from_credentials`](Self::from_credentials), `into()` | that of a refresh |
/// | a closure | [`from_fn`](Self::from_fn) | that of another call |
///
/// `Debug` shows no token, and fixed tokens are wiped from memory.
///
/// # Examples
///
/// ```
/// use tower_refresh::oauth2::{SecurityToken, TokenEndpoint, TokenExchangeGrant};
/// use tower_refresh::{Credentials, TokenFile};
///
/// /// The projected token of a Kubernetes service account, exchanged for one of a cloud.
/// fn grant(endpoint: TokenEndpoint) -> TokenExchangeGrant {
///     let file = TokenFile::new("/var/run/secrets/tokens/cloud");
///     let token = SecurityToken::from_credentials(file).token_type("urn:ietf:params:oauth:token-type:jwt");
///     TokenExchangeGrant::new(endpoint, token).scope("https://www.googleapis.com/auth/cloud-platform")
/// }
/// ```
#[derive(Clone)]
#[must_use]
pub struct SecurityToken {
    source: Source,
    token_type: String,
}

#[derive(Clone)]
enum Source {
    Fixed(Secret),
    Credentials(Credentials, Seen),
    Closure(Arc<Closure>),
}

type Closure = dyn Fn(Renewal) -> BoxFuture<'static, Result<Secret, TokenError>> + Send + Sync;

impl SecurityToken {
    /// Creates a token that does not change, such as the one that came with a request.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::oauth2::SecurityToken;
    ///
    /// let token = SecurityToken::new("2YotnFZFEjr1zCsicMWpAA");
    /// assert!(!format!("{token:?}").contains("2YotnFZFEjr1zCsicMWpAA"));
    /// ```
    pub fn new(token: impl Into<String>) -> Self {
        Self::of(Source::Fixed(Secret::new(token)))
    }

    /// Creates a token that is the current access token of other credentials, or of a [`TokenSource`](crate::TokenSource).
    ///
    /// The credentials keep the token fresh as usual. After a refusal they are refreshed. With the
    /// [type](Self::token_type) `urn:ietf:params:oauth:token-type:id_token`, their [id token](TokenSet::id_token) is sent instead.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::Credentials;
    /// use tower_refresh::oauth2::{RefreshTokenGrant, SecurityToken, TokenEndpoint};
    ///
    /// fn token_of(user: &Credentials) -> SecurityToken {
    ///     SecurityToken::from_credentials(user.clone())
    /// }
    /// ```
    pub fn from_credentials(credentials: impl IntoCredentials) -> Self {
        Self::of(Source::Credentials(credentials.into_credentials(), Seen::default()))
    }

    /// Creates a token that a closure returns. The closure is called for each request of the grant.
    ///
    /// Use it for an assertion that must be signed afresh, and for the newest token of a session that another part of the
    /// program keeps. The argument is a [`Renewal`] with the cause [`Rejected`](Cause::Rejected) if the token endpoint has just
    /// refused the closure's token, and [`Missing`](Cause::Missing) otherwise. The closure has the time of
    /// [`TokenEndpoint::timeout`](super::TokenEndpoint::timeout). If there is no token because the user must log in, return a
    /// [denied](TokenError::denied) error.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::oauth2::SecurityToken;
    ///
    /// async fn sign() -> String {
    ///     // …ask the key service for a JWT…
    /// #   String::new()
    /// }
    ///
    /// let assertion = SecurityToken::from_fn(|_renewal| async { Ok(sign().await) });
    /// ```
    pub fn from_fn<F, Fut, T>(f: F) -> Self
    where
        F: Fn(Renewal) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, TokenError>> + Send + 'static,
        T: Into<String>,
    {
        Self::of(Source::Closure(Arc::new(move |renewal| {
            let token = f(renewal);
            Box::pin(async move { token.await.map(Secret::new) })
        })))
    }

    /// Sets the type (RFC 8693 §3). The default is `urn:ietf:params:oauth:token-type:access_token`.
    ///
    /// | Token | Type |
    /// |---|---|
    /// | access token of the authorization server | `urn:ietf:params:oauth:token-type:access_token` |
    /// | id token (OpenID Connect) | `urn:ietf:params:oauth:token-type:id_token` |
    /// | any other JWT, such as one of another issuer | `urn:ietf:params:oauth:token-type:jwt` |
    /// | SAML 2.0 assertion, in base64url | `urn:ietf:params:oauth:token-type:saml2` |
    ///
    /// A [`JwtBearerGrant`](super::JwtBearerGrant) sends no type.
    pub fn token_type(mut self, token_type: impl Into<String>) -> Self {
        self.token_type = token_type.into();
        self
    }

    fn of(source: Source) -> Self {
        Self { source, token_type: ACCESS_TOKEN.to_owned() }
    }

    pub(super) fn type_uri(&self) -> &str {
        &self.token_type
    }

    pub(super) fn is_fixed(&self) -> bool {
        matches!(self.source, Source::Fixed(_))
    }

    /// Returns the token to send.
    pub(super) async fn current(&self) -> Result<Proven, TokenError> {
        match &self.source {
            Source::Fixed(token) => Ok(Proven::new(token.clone())),
            Source::Credentials(credentials, seen) => {
                let before = seen.number_of(credentials);
                let issued = credentials.newest().await;
                self.sent(issued.inspect_err(|_| seen.note(before))?, seen)
            }
            Source::Closure(f) => f(Renewal::new(Cause::Missing)).await.map(Proven::new),
        }
    }

    /// Returns a token that differs from one that an endpoint has refused.
    pub(super) async fn other_than(
        &self,
        refused: &Proven,
        by: Target,
    ) -> Result<Other, TokenError> {
        let is_other = |token: &Proven| token.secret.expose() != refused.secret.expose();
        let token = match &self.source {
            Source::Fixed(_) => return Ok(Other::Nothing),
            Source::Credentials(credentials, seen) => {
                // Another grant may have had it refreshed meanwhile.
                let current = self.current().await?;
                let generation = current.generation.filter(|_| !is_other(&current));
                let Some(generation) = generation else { return Ok(Other::Token(current)) };
                match credentials.replace_refused(generation, by).await {
                    Some(issued) => self.sent(issued?, seen)?,
                    None => return Ok(Other::RefusedBefore),
                }
            }
            Source::Closure(f) => f(Renewal::new(Cause::Rejected)).await.map(Proven::new)?,
        };
        Ok(if is_other(&token) { Other::Token(token) } else { Other::Nothing })
    }

    /// Takes in whether an endpoint has accepted a token, which is the second one if `is_other`.
    pub(super) fn judged(&self, token: &Proven, by: Target, is_other: bool, is_accepted: bool) {
        let Source::Credentials(credentials, _) = &self.source else { return };
        let Some(generation) = token.generation else { return };
        match (is_accepted, is_other) {
            (true, true) => credentials.retry_accepted(generation, by),
            (true, false) => credentials.accepted_at(generation, by),
            (false, true) => credentials.retry_rejected(generation, by, &Rejection::default()),
            (false, false) => {}
        }
    }

    /// Returns the token of a token set that is about to be sent.
    fn sent(&self, issued: Arc<Issued>, seen: &Seen) -> Result<Proven, TokenError> {
        seen.note(Seen::number(issued.generation.number()));
        let secret = self.part_of(&issued.tokens)?;
        Ok(Proven { secret, generation: Some(issued.generation) })
    }

    /// Returns a watch for new tokens of the credentials, such as those of a log-in.
    pub(super) fn watch(&self) -> Option<Watch> {
        let Source::Credentials(credentials, seen) = &self.source else { return None };
        let (credentials, seen) = (credentials.clone(), Seen(Arc::clone(&seen.0)));
        Some(Watch::new(move || seen.is_outdated(&credentials)))
    }

    fn part_of(&self, tokens: &TokenSet) -> Result<Secret, TokenError> {
        if self.token_type != ID_TOKEN {
            return Ok(Secret::new(tokens.access_token().expose_secret()));
        }
        tokens.id_token().map(Secret::new).ok_or_else(|| {
            TokenError::misconfigured(
                "the token set of its credentials has no id token: request the scope `openid`, or change `token_type`",
            )
        })
    }
}

/// A token to send as a proof.
#[derive(Clone)]
pub(super) struct Proven {
    pub(super) secret: Secret,
    /// That of the credentials it comes from.
    generation: Option<Generation>,
}

impl Proven {
    fn new(secret: Secret) -> Self {
        Self { secret, generation: None }
    }
}

/// The token to send after a refusal.
pub(super) enum Other {
    Token(Proven),
    /// The source has no other one.
    Nothing,
    /// The refused token is itself the result of a refresh after a refusal, which did not help.
    RefusedBefore,
}

impl From<AccessToken> for SecurityToken {
    fn from(token: AccessToken) -> Self {
        Self::new(token.expose_secret())
    }
}

impl From<&str> for SecurityToken {
    fn from(token: &str) -> Self {
        Self::new(token)
    }
}

impl From<String> for SecurityToken {
    fn from(token: String) -> Self {
        Self::new(token)
    }
}

impl From<Credentials> for SecurityToken {
    fn from(credentials: Credentials) -> Self {
        Self::from_credentials(credentials)
    }
}

impl fmt::Debug for SecurityToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source: &dyn fmt::Debug = match &self.source {
            Source::Fixed(token) => token,
            Source::Credentials(credentials, _) => credentials,
            Source::Closure(_) => &format_args!("closure"),
        };
        f.debug_struct("SecurityToken")
            .field("source", source)
            .field("token_type", &self.token_type)
            .finish()
    }
}

/// The token set of the credentials that a grant has last sent, by its number. A clone is for another grant, and begins anew.
struct Seen(Arc<AtomicU64>);

impl Seen {
    /// Returns the number of the current token set. 0 means that there is no token set.
    fn number_of(&self, credentials: &Credentials) -> u64 {
        credentials.status().generation.map_or(0, Self::number)
    }

    fn number(generation: u64) -> u64 {
        generation.saturating_add(1)
    }

    fn note(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }

    /// Returns whether the credentials have another token set, or their source has the input for one. Returns false if none was sent:
    /// the failure is then that of another source.
    fn is_outdated(&self, credentials: &Credentials) -> bool {
        let seen = self.0.load(Ordering::Relaxed);
        seen != NEVER && (seen != self.number_of(credentials) || credentials.has_newer_input())
    }
}

impl Default for Seen {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(NEVER)))
    }
}

impl Clone for Seen {
    fn clone(&self) -> Self {
        Self::default()
    }
}

const NEVER: u64 = u64::MAX;

/// RFC 8693 §3
pub(super) const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
