//! The faults that are ordered for the requests to come.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::fault::Fault;
use crate::clock::Clock;
use crate::lock::Lock;

/// The faults that are ordered for one endpoint.
///
/// Returned by [`AuthorizationServer::token_faults`](super::AuthorizationServer::token_faults) and
/// [`AuthorizationServer::resource_faults`](super::AuthorizationServer::resource_faults). Clones order faults for the same
/// endpoint, at any time and from any thread.
///
/// One-off faults ([`once`](Self::once), [`times`](Self::times)) come first, in the order in which they were added, one for each
/// request. Without a one-off fault, the first standing fault that applies is used ([`during`](Self::during),
/// [`when`](Self::when), [`always`](Self::always)).
///
/// # Examples
///
/// ```
/// use http::StatusCode;
/// use tower_refresh::testing::{AuthorizationServer, Fault};
///
/// let server = AuthorizationServer::new();
/// // The next token request loses its answer, and the two after it get a 502.
/// server.token_faults().once(Fault::drop_connection().after_processing());
/// server.token_faults().times(2, Fault::status(StatusCode::BAD_GATEWAY));
/// // Then the API is down until `clear`.
/// server.resource_faults().always(Fault::unavailable());
/// server.resource_faults().clear();
/// ```
#[derive(Clone)]
pub struct Faults {
    clock: Arc<dyn Clock>,
    orders: Arc<Lock<Orders>>,
}

#[derive(Default)]
struct Orders {
    requests: u64,
    /// The number of requests, and their fault.
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

    /// Orders a fault for the next request.
    pub fn once(&self, fault: Fault) {
        self.times(1, fault);
    }

    /// Orders a fault for the next `requests` requests.
    ///
    /// Requests for which a one-off fault was ordered before do not count.
    pub fn times(&self, requests: u64, fault: Fault) {
        if requests > 0 {
            self.orders.lock().one_off.push_back((requests, fault));
        }
    }

    /// Orders a fault for all requests in a window of time, counted from now by the monotonic reading of the server's clock.
    ///
    /// # Examples
    ///
    /// An outage that begins in 3 seconds and lasts for 1 second:
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
        self.orders.lock().standing.push(Standing::During(window, fault));
    }

    /// Calls `decide` for every request with the number of the request at this endpoint, from 1. It returns the fault, if any.
    ///
    /// # Examples
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
        self.orders.lock().standing.push(Standing::When(decide));
    }

    /// Orders a fault for every request until [`clear`](Self::clear).
    pub fn always(&self, fault: Fault) {
        self.orders.lock().standing.push(Standing::Always(fault));
    }

    /// Removes all faults. Requests in flight keep theirs.
    pub fn clear(&self) {
        let mut orders = self.orders.lock();
        orders.one_off.clear();
        let withdrawn = std::mem::take(&mut orders.standing);
        drop(orders);
        // Closures of the test are dropped outside the lock.
        drop(withdrawn);
    }

    /// Counts a request, and returns its fault.
    pub(super) fn take(&self) -> Option<Fault> {
        let (number, standing) = {
            let mut orders = self.orders.lock();
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
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let orders = self.orders.lock();
        f.debug_struct("Faults")
            .field("requests", &orders.requests)
            .field("one_off", &orders.one_off)
            .field("standing", &orders.standing.len())
            .finish()
    }
}
