//! What all handles and services of one server share.

#[expect(
    clippy::disallowed_types,
    reason = "a test server's state; held for one decision and never over an await"
)]
use std::sync::Mutex;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use super::client::Client;
use super::counters::Counters;
use super::faults::Faults;
use super::tokens::{Rules, Tokens};
use crate::clock::Clock;

/// What the test has set; it does not change.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) rules: Rules,
    pub(super) client: Client,
    pub(super) users: Vec<(String, String)>,
}

pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) token_faults: Faults,
    pub(super) resource_faults: Faults,
    clock: Arc<dyn Clock>,
    #[expect(clippy::disallowed_types, reason = "as at its import")]
    state: Mutex<State>,
}

/// What changes.
pub(super) struct State {
    pub(super) tokens: Tokens,
    /// Those of its fields that the tokens do not know.
    pub(super) counters: Counters,
    token_requests_in_flight: u64,
}

impl Shared {
    pub(super) fn new(config: Config, clock: Arc<dyn Clock>) -> Self {
        let state = State {
            tokens: Tokens::new(config.rules.clone()),
            counters: Counters::default(),
            token_requests_in_flight: 0,
        };
        Self {
            config,
            token_faults: Faults::new(clock.clone()),
            resource_faults: Faults::new(clock.clone()),
            clock,
            #[expect(clippy::disallowed_types, reason = "as at its import")]
            state: Mutex::new(state),
        }
    }

    /// The time by which tokens live and die: a server that runs somewhere else is neither suspended with the client
    /// nor misled by whoever sets the client's clock.
    pub(super) fn now(&self) -> Duration {
        self.clock.now().monotonic()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panics elsewhere may still want to print the counters.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counters(&self) -> Counters {
        let state = self.lock();
        Counters {
            access_tokens_issued: state.tokens.access_tokens_issued(),
            refresh_token_uses: state.tokens.uses(),
            refresh_token_reuses: state.tokens.reuses,
            refresh_tokens_answered_again: state.tokens.answered_again,
            families_revoked: state.tokens.families_revoked,
            ..state.counters.clone()
        }
    }
}

/// Something that happens to a request, as the field of the counters that it is counted in.
pub(super) type Counted = fn(&mut Counters) -> &mut u64;

/// A request from its arrival until its answer leaves, or its caller goes away: counted once, whichever it is.
pub(super) struct Visit {
    shared: Arc<Shared>,
    is_token_request: bool,
    outcome: Counted,
}

impl Visit {
    pub(super) fn to_token_endpoint(shared: &Arc<Shared>) -> Self {
        let mut state = shared.lock();
        state.token_requests_in_flight += 1;
        let in_flight = state.token_requests_in_flight;
        let counters = &mut state.counters;
        counters.token_requests += 1;
        counters.max_concurrent_token_requests =
            counters.max_concurrent_token_requests.max(in_flight);
        drop(state);
        Self {
            shared: shared.clone(),
            is_token_request: true,
            outcome: |counters| &mut counters.token_requests_abandoned,
        }
    }

    pub(super) fn to_resource(shared: &Arc<Shared>) -> Self {
        shared.lock().counters.resource_requests += 1;
        Self {
            shared: shared.clone(),
            is_token_request: false,
            outcome: |counters| &mut counters.resource_requests_abandoned,
        }
    }

    /// The visit ends here, and well.
    pub(super) fn end(mut self, outcome: Counted) {
        self.outcome = outcome;
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        *(self.outcome)(&mut state.counters) += 1;
        if self.is_token_request {
            state.token_requests_in_flight -= 1;
        }
    }
}
