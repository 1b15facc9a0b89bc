//! The handle to the server, and how it is set up.

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
/// See the [module](super) for what it can do and for a complete program. Clones are handles to the same server.
#[derive(Clone)]
pub struct AuthorizationServer {
    shared: Arc<Shared>,
}

impl AuthorizationServer {
    /// Creates a server with [strict rotation](Rotation::Strict), access tokens that live for an hour, and refresh
    /// tokens that live for ever, which takes any client for the right one.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Begins a server that is set up otherwise.
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

    /// Logs somebody in without HTTP, and returns what a client would have got: an access token with its lifetime, and
    /// the first refresh token of a new family.
    pub fn issue(&self) -> TokenSet {
        // A log-in always comes with a refresh token.
        let granted = self.log_in();
        let refresh_token = granted.refresh_token.unwrap_or_default();
        #[expect(
            clippy::expect_used,
            reason = "the server makes its tokens of letters, digits and hyphens"
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

    /// Logs somebody in without HTTP, and returns the first refresh token of a new family.
    pub fn issue_refresh_token(&self) -> RefreshToken {
        self.log_in().refresh_token.unwrap_or_default().into()
    }

    fn log_in(&self) -> Granted {
        let now = self.shared.now();
        let mut state = self.shared.lock();
        state.tokens.log_in(now)
    }

    /// Returns whether the resource would accept this access token now.
    pub fn is_live(&self, access_token: &str) -> bool {
        let now = self.shared.now();
        self.shared.lock().tokens.live(now, access_token).is_some()
    }

    /// Returns whether this refresh token is alive and was never rotated.
    ///
    /// After the last refresh of a client it is true of exactly the token that the client must have kept.
    pub fn is_unspent(&self, refresh_token: &str) -> bool {
        let now = self.shared.now();
        self.shared.lock().tokens.is_unspent(now, refresh_token)
    }

    /// Returns how often this refresh token was used at the token endpoint.
    pub fn refresh_token_uses(&self, refresh_token: &str) -> u64 {
        self.shared.lock().tokens.uses_of(refresh_token)
    }

    /// Revokes an access token, and returns whether it was there to be revoked.
    ///
    /// The client is not told; it learns of it by a 401.
    pub fn revoke_access_token(&self, access_token: &str) -> bool {
        self.shared.lock().tokens.revoke_access_token(access_token)
    }

    /// Revokes every access token issued so far. Refresh tokens stay.
    pub fn revoke_all_access_tokens(&self) {
        self.shared.lock().tokens.revoke_all_access_tokens();
    }

    /// Revokes a refresh token and its family, and returns whether it was there to be revoked.
    ///
    /// Such a family is not counted in [`Counters::families_revoked`].
    pub fn revoke_refresh_token(&self, refresh_token: &str) -> bool {
        self.shared.lock().tokens.revoke_refresh_token(refresh_token)
    }

    // ===== faults and counters =====

    /// Returns the faults of the token endpoint, to order some.
    pub fn token_faults(&self) -> &Faults {
        &self.shared.token_faults
    }

    /// Returns the faults of the protected resource, to order some.
    pub fn resource_faults(&self) -> &Faults {
        &self.shared.resource_faults
    }

    /// Returns what happened so far, in numbers.
    pub fn counters(&self) -> Counters {
        self.shared.counters()
    }

    // ===== services =====

    /// Returns the whole server: `/token` is the token endpoint, `/revoke` the revocation endpoint, and every other
    /// path the protected resource.
    pub fn service(&self) -> ServerService {
        ServerService::new(self.shared.clone(), Route::All)
    }

    /// Returns the token endpoint, under every path but `/revoke`, which is the revocation endpoint.
    pub fn token_service(&self) -> ServerService {
        ServerService::new(self.shared.clone(), Route::Token)
    }

    /// Returns the protected resource, under every path.
    pub fn resource_service(&self) -> ServerService {
        ServerService::new(self.shared.clone(), Route::Resource)
    }

    /// Serves [`service`](Self::service) on a free port of 127.0.0.1, until the returned value is dropped.
    ///
    /// # Errors
    ///
    /// The system's, if it has no port to listen on.
    ///
    /// # Panics
    ///
    /// If it is called outside a tokio runtime, or in one whose I/O or time is not enabled.
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

/// Sets an [`AuthorizationServer`] up.
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
#[must_use = "call `build` for the server"]
pub struct AuthorizationServerBuilder {
    config: Config,
    clock: Arc<dyn Clock>,
}

impl AuthorizationServerBuilder {
    /// Sets what happens to a refresh token that is used. The default is [`Rotation::Strict`].
    pub fn rotation(mut self, rotation: Rotation) -> Self {
        self.config.rules.rotation = rotation;
        self
    }

    /// Sets how long access tokens live. The default is an hour.
    ///
    /// Whole seconds are sent as an integer. Anything else is sent as a number with a fraction (`"expires_in": 1.5`),
    /// which some servers do and some clients do not survive.
    pub fn access_token_lifetime(mut self, lifetime: Duration) -> Self {
        self.config.rules.access_token_lifetime = lifetime;
        self
    }

    /// Sets how long refresh tokens live, each from when it is issued. Without it they do not expire.
    ///
    /// The answers then have a `refresh_token_expires_in`, which no RFC knows and several servers send.
    pub fn refresh_token_lifetime(mut self, lifetime: Duration) -> Self {
        self.config.rules.refresh_token_lifetime = Some(lifetime);
        self
    }

    /// Sets whether issuing an access token revokes those before it, of the same log-in. By default they live on.
    ///
    /// With such a server a refresh ahead of time makes requests fail that are under way.
    pub fn revokes_previous(mut self, revokes: bool) -> Self {
        self.config.rules.revokes_previous = revokes;
        self
    }

    /// Sets the scope of every log-in, words with spaces between them, and the most that a client may ask for.
    ///
    /// Without it a client gets whatever scope it asks for.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.config.rules.scope = Some(scope.into());
        self
    }

    /// Expects this client, with its secret (RFC 6749 §2.3.1): in a Basic header, both form-encoded first, or in the
    /// body as `client_id` and `client_secret`.
    ///
    /// A header without the form-encoding is refused where it makes a difference. By default any client will do.
    pub fn client(mut self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        self.config.client =
            Client::Confidential { id: id.into(), secret: secret.into(), unencoded: false };
        self
    }

    /// Expects this client, as [`client`](Self::client), but with a Basic header that is *not* form-encoded.
    ///
    /// RFC 6749 knows no such thing; many servers do.
    pub fn client_unencoded(mut self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        self.config.client =
            Client::Confidential { id: id.into(), secret: secret.into(), unencoded: true };
        self
    }

    /// Expects this client, which has no secret and names itself in the body as `client_id` (RFC 6749 §3.2.1).
    pub fn public_client(mut self, id: impl Into<String>) -> Self {
        self.config.client = Client::Public { id: id.into() };
        self
    }

    /// Adds somebody who can log in with the `password` grant (RFC 6749 §4.3). By default nobody can.
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.config.users.push((name.into(), password.into()));
        self
    }

    /// Sets the clock by whose monotonic reading tokens live and die and [`Faults::during`] is reckoned. The default is
    /// the system's.
    ///
    /// It moves no timer: delays and drips are tokio's. [`TokioClock`](super::TokioClock) goes with its paused time.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Returns the server.
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
