//! The membership of credentials in a pool.

use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast};

use super::event::Event;
use super::flight::{Departure, FlightId};
#[cfg(feature = "pool")]
use super::handle::Credentials;
use super::outage::{Admitted, Change, Endpoint};
use crate::clock::{Clock, Timestamp};
use crate::error::TokenError;
#[cfg(feature = "pool")]
use crate::grant::Beginning;
use crate::lock::Lock;
use crate::metrics::{Metrics, Place};
use crate::source::{BoxTokenSource, FetchedFor, Renewal, SourceInfo, TokenSource};
use crate::token::TokenSet;
#[cfg_attr(
    not(feature = "tracing"),
    expect(unused_imports, reason = "the macros expand to nothing")
)]
use crate::trace::{self, ms, target};

/// The part that makes credentials a member of a pool.
pub(crate) struct Member {
    /// The id of the credentials.
    pub(super) id: u64,
    common: Arc<Common>,
    /// The token endpoint, if the source names one.
    endpoint: Option<Arc<Endpoint>>,
    /// The number of the last flight that the source of other credentials waits for, or 0.
    ///
    /// A notification alone could reach the wrong flight: one that a log-in has ended, or a later one.
    needed: AtomicU64,
    needed_changed: Notify,
    /// How the source begins a session.
    #[cfg(feature = "pool")]
    pub(super) beginning: Beginning,
    /// When the pool last handed the credentials out, in milliseconds of the pool's monotonic clock.
    last_used: AtomicU64,
}

/// The part of a pool that its members share.
pub(crate) struct Common {
    /// The clock of the pool. The clocks of the members need not agree with each other.
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    /// One permit for each refresh in flight, first come, first served.
    permits: Arc<Semaphore>,
    refreshes: usize,
    endpoints: Lock<HashMap<String, Arc<Endpoint>>>,
    /// Made for the first subscriber.
    events: OnceLock<broadcast::Sender<NamedEvent>>,
}

/// An event, and the name of its key.
pub(crate) type NamedEvent = (Arc<str>, Event);

/// The permission to refresh. The refresh counts as one of those in flight until it is dropped or [gives way](Self::give_way).
pub(super) struct Admission {
    permit: Option<(OwnedSemaphorePermit, Place)>,
    _admitted: Option<Admitted>,
}

impl Admission {
    /// Lets another refresh begin, because this one takes long.
    pub(super) fn give_way(&mut self) {
        self.permit = None;
    }
}

impl Member {
    /// Creates the member of this name, and the source that reports to its token endpoint.
    pub(super) fn new(
        common: &Arc<Common>,
        id: u64,
        name: &Arc<str>,
        source: BoxTokenSource,
    ) -> (Self, BoxTokenSource) {
        let info = source.info();
        let member = Self {
            id,
            common: Arc::clone(common),
            endpoint: info.token_endpoint.clone().map(|origin| common.endpoint(origin)),
            needed: AtomicU64::new(0),
            needed_changed: Notify::new(),
            #[cfg(feature = "pool")]
            beginning: Beginning::of(info),
            last_used: AtomicU64::new(0),
        };
        let source = match &member.endpoint {
            Some(endpoint) => Reporting {
                source,
                id,
                name: Arc::clone(name),
                common: Arc::clone(common),
                endpoint: Arc::clone(endpoint),
            }
            .boxed(),
            None => source,
        };
        common.metrics.pool_grows();
        (member, source)
    }

    /// Returns the permission for a refresh that may begin at once, or `None` if it must wait.
    ///
    /// # Errors
    ///
    /// If the token endpoint fails for other members.
    pub(super) fn admit_at_once(
        &self,
        departure: &Departure,
        timeout: Duration,
    ) -> Result<Option<Admission>, TokenError> {
        // The refresh that waits for this one may hold the last permit.
        let is_nested = FetchedFor::current().is_some_and(|fetched_for| fetched_for.is_nested());
        if is_nested {
            return self.admission(None, departure, timeout).map(Some);
        }
        match Arc::clone(&self.common.permits).try_acquire_owned() {
            Ok(permit) => self.admission(Some(permit), departure, timeout).map(Some),
            Err(_) => {
                let (now, at_once) = (self.common.now(), departure.at_once);
                self.endpoint.as_ref().map_or(Ok(()), |it| it.refuses(now, at_once))?;
                Ok(None)
            }
        }
    }

    /// Waits until the refresh of this flight may begin.
    ///
    /// # Errors
    ///
    /// If the token endpoint fails for other members.
    pub(super) async fn admit(
        &self,
        departure: &Departure,
        timeout: Duration,
    ) -> Result<Admission, TokenError> {
        let permit = pin!(Arc::clone(&self.common.permits).acquire_owned());
        let permit = match select(permit, pin!(self.needs(departure.id))).await {
            // The semaphore is never closed.
            Either::Left((permit, _)) => permit.ok(),
            Either::Right(_) => None,
        };
        self.admission(permit, departure, timeout)
    }

    fn admission(
        &self,
        permit: Option<OwnedSemaphorePermit>,
        departure: &Departure,
        timeout: Duration,
    ) -> Result<Admission, TokenError> {
        let (now, at_once) = (self.common.now(), departure.at_once);
        let admit = |endpoint: &Arc<Endpoint>| endpoint.admit(now, self.id, timeout, at_once);
        let Common { metrics, refreshes, .. } = &*self.common;
        let permit = permit.map(|permit| (permit, metrics.place(*refreshes)));
        Ok(Admission { permit, _admitted: self.endpoint.as_ref().map(admit).transpose()? })
    }

    /// Lets the refresh of this flight begin at once if it waits for a permit. The source of other credentials waits for the
    /// refresh, and may hold the last permit.
    pub(super) fn need(&self, flight: FlightId) {
        if self.needed.fetch_max(flight.0, Ordering::Relaxed) < flight.0 {
            self.needed_changed.notify_waiters();
        }
    }

    /// Waits until this flight is [needed](Self::need).
    async fn needs(&self, flight: FlightId) {
        loop {
            // Before the number is read, so that no change in between is missed.
            let changed = self.needed_changed.notified();
            if self.needed.load(Ordering::Relaxed) == flight.0 {
                return;
            }
            changed.await;
        }
    }

    pub(super) fn send(&self, name: &Arc<str>, event: &Event) {
        self.common.send(name, event);
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.common.metrics
    }

    pub(super) fn used(&self, now: Timestamp) {
        self.last_used.store(milliseconds(now), Ordering::Relaxed);
    }

    pub(super) fn idle(&self, now: Timestamp) -> Duration {
        let used = self.last_used.load(Ordering::Relaxed);
        Duration::from_millis(milliseconds(now).saturating_sub(used))
    }
}

/// For the pool of the credentials.
#[cfg(feature = "pool")]
impl Credentials {
    /// Notes that the pool hands the credentials out.
    pub(crate) fn used(&self, now: Timestamp) {
        if let Some(member) = &self.shared.member {
            member.used(now);
        }
    }

    /// Returns how long ago the pool last handed the credentials out.
    pub(crate) fn idle(&self, now: Timestamp) -> Duration {
        self.shared.member.as_ref().map_or(Duration::ZERO, |member| member.idle(now))
    }

    /// Returns whether [`flush`](Self::flush) has nothing to do.
    pub(crate) fn is_settled(&self) -> bool {
        self.shared.work.has_ended() && self.is_saved()
    }

    /// Returns whether nothing but the caller has the credentials, and nothing is lost with them.
    pub(crate) fn is_disposable(&self) -> bool {
        let Some(member) = &self.shared.member else { return false };
        Arc::strong_count(&self.shared) == 1 && self.shared.keeper.is_disposable(&member.beginning)
    }
}

impl Common {
    pub(crate) fn new(name: Arc<str>, refreshes: usize, clock: Arc<dyn Clock>) -> Self {
        let refreshes = refreshes.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            clock,
            metrics: Metrics::of_pool(name),
            permits: Arc::new(Semaphore::new(refreshes)),
            refreshes,
            endpoints: Lock::default(),
            events: OnceLock::new(),
        }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn endpoint(&self, origin: String) -> Arc<Endpoint> {
        // Dropped after the lock is released: the error of an outage is code of others.
        let _unused: Vec<_>;
        let mut endpoints = self.endpoints.lock();
        if let Some(endpoint) = endpoints.get(&origin) {
            return Arc::clone(endpoint);
        }
        if endpoints.len() == endpoints.capacity() {
            // Removes the endpoints of evicted members. The map is then at most half full, so that this is rare.
            _unused = endpoints.extract_if(|_, it| Arc::strong_count(it) == 1).collect();
            let kept = endpoints.len();
            endpoints.reserve(kept + 1);
        }
        let endpoint = Arc::new(Endpoint::new(origin.clone()));
        endpoints.insert(origin, Arc::clone(&endpoint));
        endpoint
    }

    fn send(&self, name: &Arc<str>, event: &Event) {
        if let Some(events) = self.events.get() {
            // All subscriptions may have been dropped. That is not an error.
            let _ = events.send((Arc::clone(name), event.clone()));
        }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<NamedEvent> {
        self.events.get_or_init(|| broadcast::Sender::new(CAPACITY)).subscribe()
    }

    /// Returns the token endpoints of the members.
    pub(crate) fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.endpoints.lock().values().cloned().collect()
    }
}

/// A source that reports the health of its token endpoint.
struct Reporting {
    source: BoxTokenSource,
    id: u64,
    name: Arc<str>,
    common: Arc<Common>,
    endpoint: Arc<Endpoint>,
}

impl TokenSource for Reporting {
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        let result = self.source.fetch(renewal).await;
        if let Some(change) = self.endpoint.report(self.common.now(), self.id, &self.name, &result)
        {
            let endpoint = self.endpoint.origin();
            let event = match change {
                Change::Began(error) => {
                    trace::warning!(
                        target: target::POOL,
                        credentials = &*self.name, endpoint,
                        kind = error.kind().as_str(), code = error.code(),
                        retry_in_ms = error.retry_after().map(ms),
                        %error,
                        "outage of a token endpoint: it fails for several credentials or has asked for a pause, and is asked for one at a time"
                    );
                    Event::OutageStarted { endpoint: endpoint.into(), error }
                }
                Change::Ended => {
                    trace::info!(target: target::POOL, endpoint, "outage of a token endpoint over");
                    Event::OutageEnded { endpoint: endpoint.into() }
                }
            };
            self.common.send(&self.name, &event);
        }
        result
    }

    fn info(&self) -> SourceInfo {
        self.source.info()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.common.metrics.pool_shrinks();
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("id", &self.id).finish_non_exhaustive()
    }
}

fn milliseconds(now: Timestamp) -> u64 {
    u64::try_from(now.monotonic().as_millis()).unwrap_or(u64::MAX)
}

/// The number of events that a slow subscriber to a pool may fall behind.
const CAPACITY: usize = 1024;

#[cfg(all(test, feature = "pool"))]
mod tests {
    use std::error::Error;
    use std::sync::{Weak, mpsc};
    use std::thread;

    use super::*;
    use crate::clock::SystemClock;

    /// An error that looks at the endpoints of its pool when it is dropped.
    struct Curious(Weak<Common>);

    impl fmt::Debug for Curious {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Curious")
        }
    }

    impl fmt::Display for Curious {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("429")
        }
    }

    impl Error for Curious {}

    impl Drop for Curious {
        fn drop(&mut self) {
            self.0.upgrade().map(|common| common.endpoints());
        }
    }

    #[test]
    fn forgotten_endpoint_with_an_outage_does_not_hang() {
        let (done, is_done) = mpsc::channel();
        drop(thread::spawn(move || {
            let common = Arc::new(Common::new("pool".into(), 1, Arc::new(SystemClock)));
            let error = TokenError::transient(Curious(Arc::downgrade(&common)));
            let result = Err(error.with_retry_after(Duration::from_secs(1)));
            let began = common.endpoint("0".into()).report(common.now(), 0, &"0".into(), &result);
            assert!(began.is_some());
            drop((began, result));
            for endpoint in 1..100_u8 {
                common.endpoint(endpoint.to_string());
            }
            done.send(common.endpoints().len() < 99)
        }));
        assert_eq!(is_done.recv_timeout(Duration::from_secs(10)), Ok(true));
    }
}
