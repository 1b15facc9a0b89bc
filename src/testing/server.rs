//! The handle to the server, and its builder.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::client::Client;
use super::counters::Counters;
use super::faults::Faults;
use super::service::{Route, ServerService};
use super::serving::Serving;
use super::shared::{Config, Shared};
use super::tokens::{Granted, Rotation, Rules};
use crate::clock::{Clock, SystemClock};
use crate::token::{AccessToken, RefreshToken, TokenSet};

/// An OAuth 2.0 authorization server and a protected resource, for tests.
///
/// The [module](super) describes the features and has a complete program. Clones are handles to the same server.
///
/// # Examples
///
/// ```
/// use tower_refresh::testing::AuthorizationServer;
///
/// let server = AuthorizationServer::new();
/// let tokens = server.issue();
/// assert!(server.is_live(tokens.access_token().expose_secret()));
/// server.revoke_all_access_tokens();
/// assert!(!server.is_live(tokens.access_token().expose_secret()));
/// ```
#[doc(alias = "mock")]
#[doc(alias = "fake")]
#[derive(Clone)]
pub struct AuthorizationServer {
    shared: Arc<Shared>,
}

impl AuthorizationServer {
    /// Creates a server with [strict rotation](Rotation::Strict), access tokens that are valid for an hour, and refresh tokens that
    /// do not expire. It accepts any client.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::testing::AuthorizationServer;
    ///
    /// let server = AuthorizationServer::new();
    /// assert_eq!(server.counters().token_requests, 0);
    /// ```
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Returns a builder for a server with other settings.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_refresh::testing::AuthorizationServer;
    ///
    /// let server = AuthorizationServer::builder()
    ///     .access_token_lifetime(Duration::from_secs(60))
    ///     .user("alice", "sesame")
    ///     .build();
    /// ```
    pub fn builder() -> AuthorizationServerBuilder {
        AuthorizationServerBuilder {
            config: Config {
                rules: Rules {
                    rotation: Rotation::default(),
                    access_token_lifetime: Duration::from_secs(3600),
                    refresh_token_lifetime: None,
                    revokes_previous: false,
                    scope: None,
                },
                client: Client::default(),
                users: Vec::new(),
            },
            clock: Arc::new(SystemClock),
        }
    }

    // ===== tokens =====

    /// Logs a user in without HTTP, and returns the token set: an access token with its lifetime, and the first refresh token of a
    /// new family.
    pub fn issue(&self) -> TokenSet {
        // A log-in always issues a refresh token.
        let granted = self.log_in();
        let refresh_token = granted.refresh_token.unwrap_or_default();
        #[expect(
            clippy::expect_used,
            reason = "a token of the server has only letters, digits and hyphens"
        )]
        let access_token =
            AccessToken::new(granted.access_token).expect("a token of the server is visible ASCII");
        let mut tokens = TokenSet::new(access_token)
            .with_expires_in(self.shared.config.rules.access_token_lifetime)
            .with_refresh_token(refresh_token);
        if let Some(scope) = granted.scope {
            tokens = tokens.with_scope(scope);
        }
        tokens
    }

    /// Logs a user in without HTTP, and returns the first refresh token of a new family.
    pub fn issue_refresh_token(&self) -> RefreshToken {
        self.log_in().refresh_token.unwrap_or_default().into()
    }

    fn log_in(&self) -> Granted {
        let now = self.shared.now();
        let mut state = self.shared.lock();
        state.tokens.log_in(now)
    }

    /// Returns whether the resource accepts this access token now.
    pub fn is_live(&self, access_token: &str) -> bool {
        let now = self.shared.now();
        self.shared.lock().tokens.live(now, access_token).is_some()
    }

    /// Returns the number of the log-in that this access token was issued for, or `None` if the token is unknown.
    ///
    /// The tokens of one [`issue`](Self::issue), their refreshed successors, and the tokens that they were exchanged for have the
    /// same number. The token of a client itself has the number 0.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::testing::AuthorizationServer;
    ///
    /// let server = AuthorizationServer::new();
    /// let [alice, bob] = [server.issue(), server.issue()];
    /// let log_in_of = |tokens: &tower_refresh::TokenSet| server.log_in_of(tokens.access_token().expose_secret());
    /// assert_eq!([log_in_of(&alice), log_in_of(&bob)], [Some(1), Some(2)]);
    /// ```
    pub fn log_in_of(&self, access_token: &str) -> Option<u64> {
        self.shared.lock().tokens.issued(access_token).map(|access| access.family as u64)
    }

    /// Returns the audiences and resources that an exchanged access token was requested for, separated by spaces, or `None` if the
    /// token is unknown.
    ///
    /// The text is empty if the token was not exchanged, or was requested for no audience.
    pub fn audience_of(&self, access_token: &str) -> Option<String> {
        self.shared.lock().tokens.issued(access_token).map(|access| access.audience.clone())
    }

    /// Returns whether this refresh token is valid and was not rotated.
    ///
    /// After a refresh, this is true for exactly the refresh token that the client must have stored.
    pub fn is_unspent(&self, refresh_token: &str) -> bool {
        let now = self.shared.now();
        self.shared.lock().tokens.is_unspent(now, refresh_token)
    }

    /// Returns how often this refresh token was sent to the token endpoint.
    pub fn refresh_token_uses(&self, refresh_token: &str) -> u64 {
        self.shared.lock().tokens.uses_of(refresh_token)
    }

    /// Revokes an access token, and returns whether it existed and was not revoked before.
    ///
    /// The client learns of it by a 401.
    pub fn revoke_access_token(&self, access_token: &str) -> bool {
        self.shared.lock().tokens.revoke_access_token(access_token)
    }

    /// Revokes every access token issued so far. Refresh tokens stay valid.
    pub fn revoke_all_access_tokens(&self) {
        self.shared.lock().tokens.revoke_all_access_tokens();
    }

    /// Revokes a refresh token and its family, and returns whether it existed and was not revoked before.
    ///
    /// It may be any refresh token of the log-in, also one that was replaced. The access tokens of the log-in are rejected too.
    ///
    /// [`Counters::families_revoked`] does not include it.
    pub fn revoke_refresh_token(&self, refresh_token: &str) -> bool {
        self.shared.lock().tokens.revoke_refresh_token(refresh_token)
    }

    // ===== faults and counters =====

    /// Returns the faults of the token endpoint.
    pub fn token_faults(&self) -> &Faults {
        &self.shared.token_faults
    }

    /// Returns the faults of the protected resource.
    pub fn resource_faults(&self) -> &Faults {
        &self.shared.resource_faults
    }

    /// Returns a snapshot of the counters.
    pub fn counters(&self) -> Counters {
        self.shared.counters()
    }

    // ===== services =====

    /// Returns the whole server: `/token` is the token endpoint, `/revoke` the revocation endpoint, and every other
    /// path the protected resource.
    pub fn service(&self) -> ServerService {
        ServerService::new(self.shared.clone(), Route::All)
    }

    /// Returns the token endpoint for every path, except for `/revoke`, which is the revocation endpoint.
    pub fn token_service(&self) -> ServerService {
        ServerService::new(self.shared.clone(), Route::Token)
    }

    /// Returns the protected resource for every path.
    pub fn resource_service(&self) -> ServerService {
        ServerService::new(self.shared.clone(), Route::Resource)
    }

    /// Serves [`service`](Self::service) on a free port of 127.0.0.1, until the returned value is dropped.
    ///
    /// # Errors
    ///
    /// An error of the operating system if it has no free port.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime with I/O and time enabled.
    pub async fn serve(&self) -> io::Result<Serving> {
        Serving::start(self.shared.clone()).await
    }
}

impl Default for AuthorizationServer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for AuthorizationServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counters = self.counters();
        f.debug_struct("AuthorizationServer")
            .field("rules", &self.shared.config.rules)
            .field("client", &self.shared.config.client)
            .field("token_requests", &counters.token_requests)
            .field("resource_requests", &counters.resource_requests)
            .finish_non_exhaustive()
    }
}

/// A builder for an [`AuthorizationServer`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_refresh::testing::{AuthorizationServer, Rotation};
///
/// let server = AuthorizationServer::builder()
///     .rotation(Rotation::Grace(Duration::from_secs(10)))
///     .access_token_lifetime(Duration::from_millis(1500))
///     .client("compass", "s3cr3t:with/odd%chars+&=")
///     .build();
/// ```
#[derive(Clone)]
#[must_use = "call `build` to create the server"]
pub struct AuthorizationServerBuilder {
    config: Config,
    clock: Arc<dyn Clock>,
}

impl AuthorizationServerBuilder {
    /// Sets the handling of used refresh tokens. The default is [`Rotation::Strict`].
    pub fn rotation(mut self, rotation: Rotation) -> Self {
        self.config.rules.rotation = rotation;
        self
    }

    /// Sets the lifetime of access tokens. The default is an hour.
    ///
    /// Whole seconds are sent as an integer, any other lifetime as a number with a fraction (`"expires_in": 1.5`), as some servers
    /// do.
    pub fn access_token_lifetime(mut self, lifetime: Duration) -> Self {
        self.config.rules.access_token_lifetime = lifetime;
        self
    }

    /// Sets the lifetime of each refresh token. By default, refresh tokens do not expire.
    ///
    /// The answers then have a `refresh_token_expires_in`, which is not part of an RFC, and which several servers send.
    pub fn refresh_token_lifetime(mut self, lifetime: Duration) -> Self {
        self.config.rules.refresh_token_lifetime = Some(lifetime);
        self
    }

    /// Sets whether a new access token revokes the previous ones of the same log-in. The default is `false`.
    ///
    /// With such a server, a refresh ahead of time makes requests in flight fail.
    pub fn revokes_previous(mut self, revokes: bool) -> Self {
        self.config.rules.revokes_previous = revokes;
        self
    }

    /// Sets the scope of every log-in, as words with spaces between them. A client may request a part of it.
    ///
    /// By default, a client gets the scope that it requests.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.config.rules.scope = Some(scope.into());
        self
    }

    /// Requires this client and its secret (RFC 6749 §2.3.1): form-encoded in a Basic header, or in the body as `client_id` and
    /// `client_secret`.
    ///
    /// A header without the form-encoding is refused if the encoding changes the value. By default, any client is accepted.
    pub fn client(mut self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        self.config.client =
            Client::Confidential { id: id.into(), secret: secret.into(), unencoded: false };
        self
    }

    /// Requires this client as [`client`](Self::client) does, but with a Basic header that is *not* form-encoded.
    ///
    /// This departs from RFC 6749 as many servers do.
    pub fn client_unencoded(mut self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        self.config.client =
            Client::Confidential { id: id.into(), secret: secret.into(), unencoded: true };
        self
    }

    /// Requires this client without a secret, as `client_id` in the body (RFC 6749 §3.2.1).
    pub fn public_client(mut self, id: impl Into<String>) -> Self {
        self.config.client = Client::Public { id: id.into() };
        self
    }

    /// Adds a user who can log in with the `password` grant (RFC 6749 §4.3). The default is no user.
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.config.users.push((name.into(), password.into()));
        self
    }

    /// Sets the clock. Its monotonic reading determines when tokens expire and the windows of [`Faults::during`]. The default is the
    /// clock of the system.
    ///
    /// The clock moves no timer: delays use tokio's. [`TokioClock`](super::TokioClock) follows tokio's paused time.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Creates the server.
    #[must_use]
    pub fn build(self) -> AuthorizationServer {
        AuthorizationServer { shared: Arc::new(Shared::new(self.config, self.clock)) }
    }
}

impl fmt::Debug for AuthorizationServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizationServerBuilder")
            .field("rules", &self.config.rules)
            .field("client", &self.config.client)
            .finish_non_exhaustive()
    }
}
