//! Which fault strikes which request.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
#[expect(
    clippy::disallowed_types,
    reason = "the orders of a test; held for a few lines and never over an await or the test's own code"
)]
use std::sync::Mutex;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use super::fault::Fault;
use crate::clock::Clock;

/// The faults ordered for one endpoint.
///
/// Get it from [`AuthorizationServer::token_faults`](super::AuthorizationServer::token_faults) or
/// [`AuthorizationServer::resource_faults`](super::AuthorizationServer::resource_faults). Clones give orders to the
/// same endpoint, at any time, from any thread.
///
/// One-off faults ([`once`](Self::once), [`next`](Self::next)) come first, in the order in which they were given, one
/// for each request. When there are none, the standing ones ([`during`](Self::during), [`when`](Self::when),
/// [`always`](Self::always)) are asked in the order in which they were given, and the first that applies strikes.
#[derive(Clone)]
pub struct Faults {
    clock: Arc<dyn Clock>,
    #[expect(clippy::disallowed_types, reason = "as at its import")]
    orders: Arc<Mutex<Orders>>,
}

#[derive(Default)]
struct Orders {
    requests: u64,
    /// How many requests, and what strikes them.
    one_off: VecDeque<(u64, Fault)>,
    standing: Vec<Standing>,
}

#[derive(Clone)]
enum Standing {
    During(Range<Duration>, Fault),
    When(Arc<dyn Fn(u64) -> Option<Fault> + Send + Sync>),
    Always(Fault),
}

impl Faults {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, orders: Arc::default() }
    }

    /// Orders a fault for the next request that has none yet.
    pub fn once(&self, fault: Fault) {
        self.next(1, fault);
    }

    /// Orders a fault for the next `requests` requests that have none yet.
    pub fn next(&self, requests: u64, fault: Fault) {
        if requests > 0 {
            self.lock().one_off.push_back((requests, fault));
        }
    }

    /// Orders a fault for a window of time, counted from now by the monotonic reading of the server's clock.
    ///
    /// An outage that begins in 3 seconds and lasts for 1:
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_refresh::testing::{AuthorizationServer, Fault};
    ///
    /// let server = AuthorizationServer::new();
    /// let window = Duration::from_secs(3)..Duration::from_secs(4);
    /// server.token_faults().during(window, Fault::unavailable());
    /// ```
    pub fn during(&self, window: Range<Duration>, fault: Fault) {
        let now = self.clock.now().monotonic();
        let window = now.saturating_add(window.start)..now.saturating_add(window.end);
        self.lock().standing.push(Standing::During(window, fault));
    }

    /// Asks `decide` about every request: it gets the request's number at this endpoint, from 1, and returns a fault or
    /// none.
    ///
    /// Every third request is lost:
    ///
    /// ```
    /// use tower_refresh::testing::{AuthorizationServer, Fault};
    ///
    /// let server = AuthorizationServer::new();
    /// server.resource_faults().when(|number| (number % 3 == 0).then(Fault::drop_connection));
    /// ```
    pub fn when(&self, decide: impl Fn(u64) -> Option<Fault> + Send + Sync + 'static) {
        let decide = Arc::new(decide);
        self.lock().standing.push(Standing::When(decide));
    }

    /// Orders a fault for every request from now on, until [`clear`](Self::clear).
    pub fn always(&self, fault: Fault) {
        self.lock().standing.push(Standing::Always(fault));
    }

    /// Withdraws all orders. Requests that were already struck stay so.
    pub fn clear(&self) {
        let mut orders = self.lock();
        orders.one_off.clear();
        let withdrawn = std::mem::take(&mut orders.standing);
        drop(orders);
        // Closures of the test's own: what they drop, they drop outside the lock.
        drop(withdrawn);
    }

    /// Counts a request and takes the fault that strikes it.
    pub(super) fn take(&self) -> Option<Fault> {
        let (number, standing) = {
            let mut orders = self.lock();
            orders.requests += 1;
            if let Some((left, fault)) = orders.one_off.front_mut() {
                let fault = fault.clone();
                *left -= 1;
                if *left == 0 {
                    orders.one_off.pop_front();
                }
                return Some(fault);
            }
            (orders.requests, orders.standing.clone())
        };

        let now = self.clock.now().monotonic();
        standing.into_iter().find_map(|order| match order {
            Standing::During(window, fault) => window.contains(&now).then_some(fault),
            Standing::When(decide) => decide(number),
            Standing::Always(fault) => Some(fault),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Orders> {
        // Nothing that can panic runs under the lock.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let orders = self.lock();
        f.debug_struct("Faults")
            .field("requests", &orders.requests)
            .field("one_off", &orders.one_off)
            .field("standing", &orders.standing.len())
            .finish()
    }
}
