//! Users with a session each at one authorization server, and a store for each.
#![allow(clippy::disallowed_types, reason = "a panic fails the test")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
use tower_refresh::store::{
    MemoryLock, MemoryStore, StoreError, StoredTokens, TokenStore, WriteId,
};
use tower_refresh::testing::{AuthorizationServer, TokioClock};
use tower_refresh::{Credentials, CredentialsBuilder, RefreshPolicy, RefreshToken, TokenSource};

use crate::harness::{HOUR, policy};

#[derive(Clone)]
pub struct Users {
    pub server: AuthorizationServer,
    pub policy: RefreshPolicy,
    sessions: Arc<Mutex<HashMap<String, (RefreshToken, MemoryStore)>>>,
}

impl Users {
    pub fn new() -> Self {
        let clock = TokioClock::new();
        let server =
            AuthorizationServer::builder().access_token_lifetime(HOUR).clock(clock).build();
        Self { server, policy: policy(), sessions: Arc::default() }
    }

    /// Returns the builder of a user's credentials, which have a store that outlives them.
    pub fn stored(&self, user: &str) -> CredentialsBuilder {
        let (source, store) = self.session(user);
        Credentials::builder(source).policy(self.policy.clone()).store(store)
    }

    pub fn without_store(&self, user: &str) -> CredentialsBuilder {
        Credentials::builder(self.session(user).0).policy(self.policy.clone())
    }

    pub fn without_store_or_else(
        &self,
        user: &str,
        fallback: impl TokenSource,
    ) -> CredentialsBuilder {
        let source = self.session(user).0.or_else(fallback);
        Credentials::builder(source).policy(self.policy.clone())
    }

    /// Returns the builder of a user's credentials whose store fails to save once.
    pub fn failing_once(&self, user: &str) -> CredentialsBuilder {
        let (source, store) = self.session(user);
        let store = FailsOnce { store, has_failed: AtomicBool::new(false) };
        Credentials::builder(source).policy(self.policy.clone()).store(store)
    }

    /// Returns the builder of the credentials of a user who has yet to log in, without a store.
    pub fn logged_out(&self) -> CredentialsBuilder {
        let endpoint = TokenEndpoint::new(self.server.token_service(), "https://auth.test/token");
        let source = RefreshTokenGrant::new(endpoint.unwrap(), "");
        Credentials::builder(source).policy(self.policy.clone())
    }

    fn session(&self, user: &str) -> (RefreshTokenGrant, MemoryStore) {
        let mut sessions = self.sessions.lock().unwrap();
        let issue = || (self.server.issue_refresh_token(), MemoryStore::new());
        let (refresh_token, store) = sessions.entry(user.to_owned()).or_insert_with(issue).clone();
        let endpoint = TokenEndpoint::new(self.server.token_service(), "https://auth.test/token");
        (RefreshTokenGrant::new(endpoint.unwrap(), refresh_token), store)
    }

    /// Asserts that no refresh token was sent twice.
    pub fn assert_no_reuse(&self) {
        assert_eq!(self.server.counters().refresh_token_reuses, 0);
    }
}

struct FailsOnce {
    store: MemoryStore,
    has_failed: AtomicBool,
}

impl TokenStore for FailsOnce {
    type Lock = MemoryLock;

    async fn lock(&self, wait: Duration) -> Result<MemoryLock, StoreError> {
        self.store.lock(wait).await
    }

    async fn load(&self) -> Result<Option<StoredTokens>, StoreError> {
        self.store.load().await
    }

    async fn save(
        &self,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> Result<(), StoreError> {
        match self.has_failed.swap(true, Ordering::SeqCst) {
            true => self.store.save(record, replaces).await,
            false => Err(StoreError::unavailable("not yet")),
        }
    }

    fn survives_drop(&self) -> bool {
        self.store.survives_drop()
    }
}

/// Returns the names of so many users.
pub fn names(number: usize) -> Vec<String> {
    (0..number).map(|n| format!("user-{n}")).collect()
}
