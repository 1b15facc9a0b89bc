//! The state that all handles and services of one server share.

use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use super::client::Client;
use super::counters::Counters;
use super::faults::Faults;
use super::tokens::{Rules, Tokens};
use crate::clock::Clock;
use crate::lock::Lock;

/// The settings.
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
    state: Lock<State>,
}

/// The part that changes.
pub(super) struct State {
    pub(super) tokens: Tokens,
    /// Without the fields that the tokens count.
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
            state: Lock::new(state),
        }
    }

    /// Returns the monotonic time, as of a server on another machine: it is not suspended with the client, and does not depend on
    /// the client's wall clock.
    pub(super) fn now(&self) -> Duration {
        self.clock.now().monotonic()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
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

/// The field of the counters that counts a request.
pub(super) type Counted = fn(&mut Counters) -> &mut u64;

/// A request from its arrival to its answer, or until its caller drops it. It is counted once in both cases.
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

    /// Ends the visit with this outcome.
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
