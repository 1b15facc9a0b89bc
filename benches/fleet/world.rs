//! The parts of a fleet that all its processes share: the users, their stores, the token endpoint and the API.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::time::{Instant, sleep};
use tower::Service;
use tower_refresh::store::{
    MemoryLock, MemoryStore, StoreError, StoreLock, StoredTokens, TokenStore, WriteId,
};
use tower_refresh::{Renewal, SourceInfo, TokenError, TokenSet, TokenSource};

use crate::HOUR;
use crate::support::services::Body;

pub(crate) const TOKEN_LATENCY: Duration = Duration::from_millis(50);
pub(crate) const STORE_LATENCY: Duration = Duration::from_millis(1);

pub(crate) struct World {
    start: Instant,
    users: Vec<User>,
    is_down: AtomicBool,
    /// Each entry counts the events of one second.
    pub(crate) granted: Series,
    pub(crate) failed: Series,
    pub(crate) stored: Series,
    pub(crate) reuses: AtomicU64,
}

/// A user, with a session that begins with the first token request.
#[derive(Default)]
struct User {
    store: MemoryStore,
    /// The number of the newest token set.
    newest: AtomicU64,
    /// The number of the last one whose access token was revoked.
    revoked: AtomicU64,
}

impl World {
    pub(crate) fn new(users: usize, seconds: usize) -> Arc<Self> {
        let series = || Series((0..seconds).map(|_| AtomicU64::new(0)).collect());
        Arc::new(Self {
            start: Instant::now(),
            users: (0..users).map(|_| User::default()).collect(),
            is_down: AtomicBool::new(false),
            granted: series(),
            failed: series(),
            stored: series(),
            reuses: AtomicU64::new(0),
        })
    }

    pub(crate) fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Relaxed);
    }

    /// Revokes the access token of each user. The refresh tokens stay valid.
    pub(crate) fn revoke_all(&self) {
        for user in &self.users {
            user.revoked.store(user.newest.load(Relaxed), Relaxed);
        }
    }

    pub(crate) fn store(self: &Arc<Self>, user: u32) -> CountedStore {
        CountedStore { store: self.users[user as usize].store.clone(), world: Arc::clone(self) }
    }

    pub(crate) fn source(self: &Arc<Self>, user: u32) -> Source {
        Source { world: Arc::clone(self), user }
    }

    async fn store_operation(&self) {
        self.stored.count(self.start);
        sleep(STORE_LATENCY).await;
    }
}

pub(crate) struct Series(Vec<AtomicU64>);

impl Series {
    fn count(&self, start: Instant) {
        if let Some(count) = self.0.get(start.elapsed().as_secs() as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn to_vec(&self) -> Vec<f64> {
        self.0.iter().map(|count| count.load(Relaxed) as f64).collect()
    }
}

// ===== the token endpoint =====

/// The session of a user, over a refresh token that is accepted once.
pub(crate) struct Source {
    world: Arc<World>,
    user: u32,
}

impl TokenSource for Source {
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        let world = &self.world;
        if world.is_down.load(Relaxed) {
            world.failed.count(world.start);
            sleep(TOKEN_LATENCY).await;
            return Err(TokenError::transient("503"));
        }
        world.granted.count(world.start);
        sleep(TOKEN_LATENCY).await;
        let sent = renewal.refresh_token().ok().map(|token| token.expose_secret().to_owned());
        let newest = &world.users[self.user as usize].newest;
        if sent.unwrap_or_else(|| "0".to_owned()) != newest.load(Relaxed).to_string() {
            world.reuses.fetch_add(1, Relaxed);
        }
        let number = newest.fetch_add(1, Relaxed) + 1;
        let ends = (world.start.elapsed() + HOUR).as_millis();
        let tokens = TokenSet::bearer(format!("{}.{number}.{ends}", self.user))?;
        Ok(tokens.with_expires_in(HOUR).with_refresh_token(number.to_string()))
    }

    fn info(&self) -> SourceInfo {
        SourceInfo::new().token_endpoint("https://auth.example.com")
    }
}

// ===== the store =====

/// The record of a user in the store that the processes share.
pub(crate) struct CountedStore {
    store: MemoryStore,
    world: Arc<World>,
}

impl TokenStore for CountedStore {
    type Lock = CountedLock;

    async fn lock(&self, wait: Duration) -> Result<CountedLock, StoreError> {
        self.world.store_operation().await;
        let lock = self.store.lock(wait).await?;
        Ok(CountedLock { lock, world: Arc::clone(&self.world) })
    }

    async fn load(&self) -> Result<Option<StoredTokens>, StoreError> {
        self.world.store_operation().await;
        self.store.load().await
    }

    async fn save(
        &self,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> Result<(), StoreError> {
        self.world.store_operation().await;
        self.store.save(record, replaces).await
    }
}

pub(crate) struct CountedLock {
    lock: MemoryLock,
    world: Arc<World>,
}

impl StoreLock for CountedLock {
    async fn is_held(&self) -> Result<bool, StoreError> {
        self.world.store_operation().await;
        self.lock.is_held().await
    }

    async fn release(self) {
        self.world.store_operation().await;
        self.lock.release().await;
    }
}

// ===== the API =====

/// Accepts the tokens that are neither revoked nor expired, and responds at once.
#[derive(Clone)]
pub(crate) struct Api(pub(crate) Arc<World>);

/// When the token of an accepted request expires, in milliseconds since the start. An extension of the response.
#[derive(Clone, Copy)]
pub(crate) struct Ends(pub(crate) u64);

impl Service<Request<Body>> for Api {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let token = request.headers()[AUTHORIZATION].to_str().expect("a token");
        let token = token.strip_prefix("Bearer ").expect("a bearer token");
        let mut parts = token.split('.').map(|part| part.parse::<u64>().expect("a number"));
        let [user, number, ends] = [(); 3].map(|()| parts.next().expect("three parts"));
        let mut response = Response::new(Full::default());
        let is_revoked = number <= self.0.users[user as usize].revoked.load(Relaxed);
        if is_revoked || self.0.start.elapsed() >= Duration::from_millis(ends) {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        } else {
            response.extensions_mut().insert(Ends(ends));
        }
        ready(Ok(response))
    }
}
