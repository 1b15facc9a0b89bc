//! Users with a session each at one authorization server, and a store for each.
#![allow(clippy::disallowed_types, reason = "a panic fails the test")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
use tower_refresh::store::MemoryStore;
use tower_refresh::testing::{AuthorizationServer, TokioClock};
use tower_refresh::{Credentials, CredentialsBuilder, RefreshPolicy, RefreshToken};

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

/// Returns the names of so many users.
pub fn names(number: usize) -> Vec<String> {
    (0..number).map(|n| format!("user-{n}")).collect()
}
