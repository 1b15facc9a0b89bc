//! A program that calls an API for itself and for its users, and the incidents that an operator must notice.
//!
//! The authorization server and the API are in memory, so that a test can run all of it in paused time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http_body_util::Full;
use tokio::time::{sleep, timeout};
use tower::{Layer as _, ServiceExt as _};
use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
use tower_refresh::store::MemoryStore;
use tower_refresh::testing::{AuthorizationServer, Fault, ServerService};
use tower_refresh::{
    BoxError, Clock, Credentials, CredentialsPool, Keyed, Refresh, RefreshLayer, RefreshPolicy,
    RequestHead, Skip,
};

pub struct Program {
    server: AuthorizationServer,
    /// The credentials of the program itself. Their name is the label `credentials` of the metrics.
    billing: Credentials,
    billing_client: Refresh<ServerService>,
    /// The credentials of its users. The name of the pool is the label.
    users: CredentialsPool<User>,
    users_client: Refresh<ServerService, Keyed<User, FindUser>>,
    /// The lifetime of access tokens.
    lifetime: Duration,
    moments: AtomicU64,
}

type User = u64;

type FindUser = fn(RequestHead<'_>) -> Option<User>;

const USERS: User = 8;

impl Program {
    pub fn new(clock: impl Clock + Clone, lifetime: Duration) -> Result<Self, BoxError> {
        let server =
            AuthorizationServer::builder().access_token_lifetime(lifetime).clock(clock.clone());
        let server = server.build();
        let api = server.service();
        let endpoint = TokenEndpoint::new(server.token_service(), "https://auth.test/token")?;
        // In proportion to the lifetime, which is far shorter than usual.
        let policy = RefreshPolicy::default()
            .clock(clock.clone())
            .refresh_ahead(lifetime / 2)
            .leeway(lifetime / 10)
            .backoff(lifetime / 20, lifetime / 5)
            .rejection_backoff(lifetime / 2, lifetime);

        let grant = RefreshTokenGrant::new(endpoint.clone(), server.issue_refresh_token());
        let billing = Credentials::builder(grant)
            .name("billing")
            .store(MemoryStore::new())
            .policy(policy.clone())
            .build();
        let layer = RefreshLayer::new(billing.clone()).origin("https://api.test")?;
        let billing_client = layer.layer(api.clone());

        // Each user has logged in before, and the stores outlive the credentials in the pool.
        let log_in = |user| (user, (server.issue_refresh_token(), MemoryStore::new()));
        let sessions: HashMap<User, _> = (0..USERS).map(log_in).collect();
        let users = CredentialsPool::builder(move |user: &User| {
            let (refresh_token, store) = sessions[user].clone();
            Credentials::builder(RefreshTokenGrant::new(endpoint.clone(), refresh_token))
                .store(store)
                .policy(policy.clone())
        })
        .name("users")
        .capacity(4)
        .concurrent_refreshes(4)
        .idle(lifetime)
        .clock(clock)
        .build();
        let user: FindUser = |request| request.extensions().get().copied();
        let layer = RefreshLayer::keyed(users.clone(), user).origin("https://api.test")?;
        let users_client = layer.layer(api);

        let moments = AtomicU64::new(0);
        let program =
            Self { server, billing, billing_client, users, users_client, lifetime, moments };
        program.end_outage();
        Ok(program)
    }

    /// Runs all incidents, one after the other. The program recovers from each of them.
    pub async fn run(&self) -> Result<(), BoxError> {
        self.healthy().await;
        self.outage().await;
        self.revocation().await;
        self.rejected_token().await;
        self.ended_session().await?;
        self.healthy().await;
        Ok(())
    }

    /// Many requests at once wait for the first token. Later tokens are refreshed in the background.
    async fn healthy(&self) {
        join_all((0..20).map(|_| self.billing("/invoices"))).await;
        self.requests_during(2 * self.lifetime).await;
    }

    /// The token endpoint fails until the token has expired. From then on, no request is sent.
    async fn outage(&self) {
        self.server.token_faults().clear();
        let slow = Fault::unavailable().delay(self.lifetime / MOMENTS / 2);
        self.server.token_faults().always(slow);
        self.requests_during(2 * self.lifetime).await;
        self.end_outage();
        self.requests_during(self.lifetime).await;
    }

    fn end_outage(&self) {
        let slow = Fault::normal().delay(LATENCY.min(self.lifetime / MOMENTS));
        self.server.token_faults().clear();
        self.server.token_faults().always(slow);
    }

    /// All access tokens are revoked. Rejected requests are sent again with a new token.
    async fn revocation(&self) {
        self.server.revoke_all_access_tokens();
        self.requests_during(self.lifetime).await;
    }

    /// One path of the API rejects every token, as with a wrong audience. It costs few refreshes.
    async fn rejected_token(&self) {
        let requests = async {
            loop {
                self.billing("/unauthorized").await;
                self.moment().await;
            }
        };
        let _ = timeout(self.lifetime, requests).await;
    }

    /// The session of the program is revoked. Its refreshes are denied until a person logs in.
    async fn ended_session(&self) -> Result<(), BoxError> {
        let tokens = self.billing.tokens().await?;
        if let Some(refresh_token) = tokens.refresh_token() {
            self.server.revoke_refresh_token(refresh_token.expose_secret());
        }
        self.requests_during(2 * self.lifetime).await;
        self.billing.log_in(self.server.issue()).await?;
        Ok(())
    }

    async fn requests_during(&self, time: Duration) {
        let requests = async {
            loop {
                self.moment().await;
            }
        };
        let _ = timeout(time, requests).await;
    }

    /// The requests of a moment.
    async fn moment(&self) {
        self.billing("/invoices").await;
        // The response does not show whether the token was checked.
        self.billing("/status/503").await;
        // An origin that was not named gets no token, and answers 401.
        drop(self.billing_client.clone().oneshot(get("https://elsewhere.test/")).await);
        let mut public = get("https://api.test/");
        public.extensions_mut().insert(Skip::Token);
        drop(self.billing_client.clone().oneshot(public).await);
        // More users than the pool has room for take turns.
        let moment = self.moments.fetch_add(1, Ordering::Relaxed);
        let turn = moment / u64::from(MOMENTS) % 2;
        join_all((0..USERS / 2).map(|user| self.user(2 * user + turn))).await;
        sleep(self.lifetime / MOMENTS).await;
    }

    async fn billing(&self, path: &str) {
        let request = get(&format!("https://api.test{path}"));
        // The metrics show whether it succeeds.
        drop(self.billing_client.clone().oneshot(request).await);
    }

    async fn user(&self, user: User) {
        let mut request = get("https://api.test/me");
        request.extensions_mut().insert(user);
        drop(self.users_client.clone().oneshot(request).await);
    }

    /// Saves the tokens before the program ends.
    pub async fn stop(&self) -> Result<(), BoxError> {
        self.billing.flush().await?;
        self.users.flush().await?;
        Ok(())
    }
}

fn get(url: &str) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = url.parse().unwrap_or_default();
    request
}

/// The time that the token endpoint takes.
const LATENCY: Duration = Duration::from_millis(200);

/// The number of moments in the lifetime of an access token.
const MOMENTS: u32 = 20;
