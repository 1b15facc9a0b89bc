//! Workers that share a store, and a store that follows a script.
#![allow(clippy::disallowed_types, reason = "locks shared with the code under test")]

use std::collections::HashMap;
use std::future::pending;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::Full;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tower::ServiceExt as _;
use tower_refresh::oauth2::{Dialect, RefreshTokenGrant, TokenEndpoint};
use tower_refresh::store::{
    MemoryLock, MemoryStore, StoreError, StoreLock, StoredTokens, TokenStore, WriteId,
};
use tower_refresh::testing::{AuthorizationServer, AuthorizationServerBuilder, Fault, TokioClock};
use tower_refresh::{
    Clock, Credentials, CredentialsBuilder, Event, Events, OnUnavailable, RefreshPolicy,
    RefreshToken, Timestamp, TokenError, TokenSet, TokenSource,
};

pub use crate::harness::{MINUTE, SECOND};

pub const URL: &str = "https://as.test/token";

// ===== the world =====

/// An authorization server, a place for records, and a log.
#[derive(Clone)]
pub struct World {
    pub clock: TokioClock,
    pub server: AuthorizationServer,
    pub backing: Backing,
    pub log: Log,
    pub dialect: Dialect,
    /// The configured refresh token of the workers.
    pub configured: RefreshToken,
}

/// The steps, in order.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<&'static str>>>);

impl Log {
    pub fn push(&self, what: &'static str) {
        self.0.lock().unwrap().push(what);
    }

    pub fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl World {
    /// Strict rotation, and access tokens of a minute.
    pub fn new() -> Self {
        Self::with(|server| server)
    }

    pub fn with(
        build: impl FnOnce(AuthorizationServerBuilder) -> AuthorizationServerBuilder,
    ) -> Self {
        let clock = TokioClock::new();
        let builder =
            AuthorizationServer::builder().access_token_lifetime(MINUTE).clock(clock.clone());
        let server = build(builder).build();
        let configured = server.issue_refresh_token();
        Self {
            clock,
            server,
            backing: Backing::default(),
            log: Log::default(),
            dialect: Dialect::rfc6749(),
            configured,
        }
    }

    pub fn dialect(mut self, edit: impl FnOnce(&mut Dialect)) -> Self {
        edit(&mut self.dialect);
        self
    }

    /// Returns the token endpoint, whose requests are logged.
    pub fn endpoint(&self) -> TokenEndpoint {
        let (server, log) = (self.server.clone(), self.log.clone());
        let client = tower::service_fn(move |request: Request<Full<Bytes>>| {
            log.push("fetch");
            server.token_service().oneshot(request)
        });
        TokenEndpoint::new(client, URL)
            .unwrap()
            .dialect(self.dialect.clone())
            .clock(self.clock.clone())
    }

    pub fn grant(&self) -> RefreshTokenGrant {
        self.grant_with(self.configured.clone())
    }

    pub fn grant_with(&self, token: impl Into<RefreshToken>) -> RefreshTokenGrant {
        RefreshTokenGrant::new(self.endpoint(), token)
    }

    pub fn store(&self) -> PuppetStore {
        PuppetStore { backing: self.backing.clone(), log: self.log.clone(), script: Arc::default() }
    }

    /// Starts a worker that the store cannot distinguish from a process of its own.
    pub fn worker(&self) -> Worker {
        self.worker_of(self.grant())
    }

    pub fn workers(&self, count: usize) -> Vec<Worker> {
        (0..count).map(|_| self.worker()).collect()
    }

    pub fn worker_of(&self, source: impl TokenSource) -> Worker {
        self.worker_as(source, |stored| stored)
    }

    pub fn worker_as(
        &self,
        source: impl TokenSource,
        set_up: impl FnOnce(CredentialsBuilder) -> CredentialsBuilder,
    ) -> Worker {
        let store = self.store();
        let builder = Credentials::builder(source).store(store.clone()).policy(self.policy());
        let credentials = set_up(builder).build();
        Worker { events: Arc::new(Mutex::new(credentials.subscribe())), credentials, store }
    }

    pub fn policy(&self) -> RefreshPolicy {
        RefreshPolicy::default().clock(self.clock.clone()).jitter(Duration::ZERO)
    }

    /// Starts a worker that continues while the store is down.
    pub fn serving(&self) -> Worker {
        self.worker_as(self.grant(), |stored| stored.on_unavailable(OnUnavailable::Continue))
    }

    pub fn requests(&self) -> u64 {
        self.server.counters().token_requests
    }

    pub fn reuses(&self) -> u64 {
        self.server.counters().refresh_token_reuses
    }

    /// Returns the stored record.
    pub async fn record(&self) -> Option<StoredTokens> {
        self.backing.memory().load().await.unwrap()
    }

    pub async fn has_open_intent(&self) -> bool {
        self.record().await.is_some_and(|record| record.has_open_intent())
    }

    /// Returns the stored record as JSON.
    pub async fn json(&self) -> String {
        match self.record().await {
            Some(record) => String::from_utf8(record.to_json().unwrap().to_vec()).unwrap(),
            None => String::new(),
        }
    }
}

/// A process.
#[derive(Clone)]
pub struct Worker {
    pub credentials: Credentials,
    pub store: PuppetStore,
    events: Arc<Mutex<Events>>,
}

impl Worker {
    /// Returns the access token that a request would carry.
    pub async fn access(&self) -> String {
        access(&self.credentials.tokens().await.unwrap()).to_owned()
    }

    /// Starts a refresh, and returns it once it has reached a step, with the sender that resumes it.
    pub async fn refresh_to(&self, step: Step) -> (Refreshing, oneshot::Sender<()>) {
        let paused = self.store.pause(step);
        let refreshing = tokio::spawn({
            let worker = self.clone();
            async move { worker.refresh().await }
        });
        (refreshing, paused.reached().await)
    }

    /// Refreshes while the store goes down between the response and the save. Returns the new access token.
    pub async fn renew_unsaved(&self) -> String {
        let (renewing, go) = self.refresh_to(Step::SaveTokens).await;
        self.store.go_down();
        go.send(()).unwrap();
        access(&renewing.await.unwrap().unwrap()).to_owned()
    }

    /// Returns the events since the last call.
    pub fn events(&self) -> Vec<Event> {
        let mut events = self.events.lock().unwrap();
        std::iter::from_fn(|| {
            let next = events.recv();
            futures_util::FutureExt::now_or_never(next).flatten()
        })
        .collect()
    }

    /// Kills the process at a step: its later operations have no effect, and its lock is free.
    pub fn kill(&self) {
        self.store.script.lock().unwrap().is_dead = true;
        self.store.expire_lock();
    }
}

pub type Refreshing = JoinHandle<Result<TokenSet, TokenError>>;

impl Deref for Worker {
    type Target = Credentials;

    fn deref(&self) -> &Self::Target {
        &self.credentials
    }
}

pub fn access(tokens: &TokenSet) -> &str {
    tokens.access_token().expose_secret()
}

pub fn refresh(tokens: &TokenSet) -> &str {
    tokens.refresh_token().unwrap().expose_secret()
}

pub fn count(events: &[Event], is_it: impl Fn(&Event) -> bool) -> usize {
    events.iter().filter(|event| is_it(event)).count()
}

// ===== answers of the token endpoint =====

/// The server spends the token, and the response is lost.
pub fn lost() -> Fault {
    Fault::drop_connection().after_processing()
}

/// An answer with this refresh token and no access token.
pub fn useless(refresh_token: &str) -> Fault {
    let body = format!(r#"{{"token_type":"bearer","refresh_token":"{refresh_token}"}}"#);
    Fault::status(StatusCode::OK)
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .body(body)
}

// ===== a wrong clock =====

/// A clock that is wrong by some seconds.
#[derive(Clone)]
pub struct Skewed {
    pub clock: TokioClock,
    pub ahead: Duration,
    pub behind: Duration,
}

impl Clock for Skewed {
    fn now(&self) -> Timestamp {
        let now = self.clock.now();
        Timestamp::new(now.monotonic(), now.wall() + self.ahead - self.behind)
    }
}

// ===== the store =====

/// The place of the records, which can be lost and restored from a backup.
#[derive(Clone, Default)]
pub struct Backing(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    memory: MemoryStore,
    era: usize,
    is_doubted: bool,
}

impl Backing {
    fn memory(&self) -> MemoryStore {
        self.0.lock().unwrap().memory.clone()
    }

    fn era(&self) -> usize {
        self.0.lock().unwrap().era
    }

    /// Restores the store with this record, or empty. Its lock is free.
    pub async fn come_back(&self, record: Option<&StoredTokens>) {
        let memory = MemoryStore::new();
        if let Some(record) = record {
            memory.save(record, None).await.unwrap();
        }
        let mut inner = self.0.lock().unwrap();
        inner.memory = memory;
        inner.era += 1;
    }

    /// The store reports that it may have lost its last write.
    pub fn doubt(&self) {
        self.0.lock().unwrap().is_doubted = true;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Lock,
    Load,
    /// A record with an open intent.
    SaveIntent,
    IsHeld,
    /// A record with a higher revision than the stored one.
    SaveTokens,
    /// Any other.
    SaveRest,
    Release,
}

#[derive(Debug)]
pub enum Order {
    Fail,
    /// The operation succeeds, and its answer is lost.
    FailAfterwards,
    Hang,
    Delay(Duration),
    /// Notifies the test, and waits for it.
    Pause(oneshot::Sender<()>, oneshot::Receiver<()>),
    /// The lock expires at this step.
    LoseLock,
}

#[derive(Default)]
struct Script {
    orders: HashMap<Step, Vec<Order>>,
    is_down: bool,
    is_dead: bool,
    /// The lock held through this handle.
    lock: Option<Arc<Mutex<Option<MemoryLock>>>>,
}

/// The store as one process sees it.
#[derive(Clone)]
pub struct PuppetStore {
    backing: Backing,
    log: Log,
    script: Arc<Mutex<Script>>,
}

/// A step at which a worker waits for the test.
pub struct Paused {
    reached: oneshot::Receiver<()>,
    go: oneshot::Sender<()>,
}

impl Paused {
    /// Waits until the worker reaches the step, and returns the sender that resumes it.
    pub async fn reached(self) -> oneshot::Sender<()> {
        self.reached.await.unwrap();
        self.go
    }
}

impl PuppetStore {
    /// Adds an order for the next time that the worker reaches this step.
    pub fn order(&self, step: Step, order: Order) {
        self.script.lock().unwrap().orders.entry(step).or_default().push(order);
    }

    /// Removes all orders.
    pub fn obey(&self) {
        self.script.lock().unwrap().orders.clear();
    }

    pub fn pause(&self, step: Step) -> Paused {
        let (tell, reached) = oneshot::channel();
        let (go, wait) = oneshot::channel();
        self.order(step, Order::Pause(tell, wait));
        Paused { reached, go }
    }

    pub fn go_down(&self) {
        self.script.lock().unwrap().is_down = true;
    }

    pub fn come_up(&self) {
        self.script.lock().unwrap().is_down = false;
    }

    /// Ends the lease.
    pub fn expire_lock(&self) {
        let lock = self.script.lock().unwrap().lock.clone();
        if let Some(lock) = lock {
            lock.lock().unwrap().take();
        }
    }

    /// Carries out the order of a step. Returns whether the step fails afterwards.
    async fn come_to(&self, step: Step) -> Result<bool, StoreError> {
        let order = {
            let mut script = self.script.lock().unwrap();
            let orders = script.orders.entry(step).or_default();
            (!orders.is_empty()).then(|| orders.remove(0))
        };
        match order {
            None => {}
            Some(Order::Fail) => return Err(down()),
            Some(Order::FailAfterwards) => return Ok(true),
            Some(Order::Hang) => pending::<()>().await,
            Some(Order::Delay(delay)) => sleep(delay).await,
            Some(Order::Pause(tell, go)) => {
                let _ = tell.send(());
                let _ = go.await;
            }
            Some(Order::LoseLock) => self.expire_lock(),
        }
        let (is_dead, is_down) = {
            let script = self.script.lock().unwrap();
            (script.is_dead, script.is_down)
        };
        if is_dead {
            pending::<()>().await;
        }
        if is_down { Err(down()) } else { Ok(false) }
    }
}

fn down() -> StoreError {
    StoreError::unavailable("connection refused")
}

impl TokenStore for PuppetStore {
    type Lock = PuppetLock;

    async fn lock(&self, wait: Duration) -> Result<PuppetLock, StoreError> {
        self.log.push("lock");
        self.come_to(Step::Lock).await?;
        let lock = self.backing.memory().lock(wait).await?;
        let lock = Arc::new(Mutex::new(Some(lock)));
        self.script.lock().unwrap().lock = Some(Arc::clone(&lock));
        Ok(PuppetLock { store: self.clone(), lock, era: self.backing.era() })
    }

    async fn load(&self) -> Result<Option<StoredTokens>, StoreError> {
        self.log.push("load");
        self.come_to(Step::Load).await?;
        let record = self.backing.memory().load().await?;
        let is_doubted = self.backing.0.lock().unwrap().is_doubted;
        Ok(record.map(|record| if is_doubted { record.doubted() } else { record }))
    }

    async fn save(
        &self,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> Result<(), StoreError> {
        let stored = self.backing.memory().load().await?;
        let (step, name) = if record.has_open_intent() {
            (Step::SaveIntent, "save intent")
        } else if stored.is_none_or(|stored| stored.revision() < record.revision()) {
            (Step::SaveTokens, "save tokens")
        } else {
            (Step::SaveRest, "save")
        };
        self.log.push(name);
        let fails_afterwards = self.come_to(step).await?;
        self.backing.memory().save(record, replaces).await?;
        self.backing.0.lock().unwrap().is_doubted = false;
        if fails_afterwards { Err(down()) } else { Ok(()) }
    }

    fn describe(&self) -> String {
        "the puppet".into()
    }
}

pub struct PuppetLock {
    store: PuppetStore,
    lock: Arc<Mutex<Option<MemoryLock>>>,
    era: usize,
}

impl StoreLock for PuppetLock {
    async fn is_held(&self) -> Result<bool, StoreError> {
        self.store.log.push("is held");
        self.store.come_to(Step::IsHeld).await?;
        Ok(self.lock.lock().unwrap().is_some() && self.era == self.store.backing.era())
    }

    async fn release(self) {
        self.store.log.push("release");
        let _ = self.store.come_to(Step::Release).await;
        self.lock.lock().unwrap().take();
    }
}
