//! The credentials that a pool keeps.

use std::cell::RefCell;
use std::hash::{BuildHasher as _, RandomState};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quick_cache::sync::{Cache, GuardResult};
use quick_cache::{Lifecycle, OptionsBuilder, UnitWeighter};
use tokio::runtime::Handle;

use super::builder::Limits;
use super::key::{self, PoolKey};
use super::status::OutageStatus;
use crate::clock::{Clock, Timestamp};
use crate::credentials::{Common, Credentials, CredentialsBuilder};
use crate::error::TokenError;
use crate::metrics::Eviction;

/// A bounded map from key to credentials.
///
/// Invariants:
///
/// - A key has at most one `Credentials`. One thread makes them, while other threads that ask for the key wait.
/// - Credentials leave the map only if the map alone holds them and nothing is lost with them. The lock of their part of the map is
///   held from that decision on. A clone would need the lock too.
pub(super) struct Kept<K> {
    map: Map<K>,
    hasher: RandomState,
    make: Make<K>,
    limits: Limits,
    common: Arc<Common>,
    /// When to look for idle keys again, in milliseconds of the monotonic clock.
    next_sweep: AtomicU64,
    /// Drops the keys of the map. A function pointer, because `Drop` does not have the bounds of the key.
    discard: fn(&mut Map<K>),
}

type Map<K> = Cache<K, Credentials, UnitWeighter, RandomState, Keep>;

/// Makes the credentials of a key.
pub(super) type Make<K> = Box<dyn Fn(&K) -> Result<CredentialsBuilder, TokenError> + Send + Sync>;

impl<K: PoolKey> Kept<K> {
    pub(super) fn new(
        make: Make<K>,
        name: Arc<str>,
        limits: Limits,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let hasher = RandomState::new();
        Self {
            map: map(limits.capacity, hasher.clone()),
            hasher,
            make,
            limits,
            common: Arc::new(Common::new(name, limits.refreshes, clock)),
            next_sweep: AtomicU64::new(0),
            discard,
        }
    }

    pub(super) fn get(self: &Arc<Self>, key: &K) -> Result<Credentials, TokenError> {
        let now = self.common.now();
        let credentials = match self.map.get(key) {
            Some(credentials) => credentials,
            None => self.make(key, now)?,
        };
        credentials.used(now);
        if self.is_sweep_due(now) {
            match Handle::try_current() {
                Ok(runtime) => {
                    let kept = Arc::clone(self);
                    // In a task, so that the request does not wait.
                    drop(runtime.spawn(async move { kept.sweep_in_steps(now).await }));
                }
                Err(_) => self.sweep(now),
            }
        }
        Ok(credentials)
    }

    /// Returns the credentials of a key if there are any. Does not count as a use of the key.
    pub(super) fn look(&self, key: &K) -> Option<Credentials> {
        self.tidy();
        self.map.peek(key)
    }

    pub(super) fn all(&self) -> Vec<Credentials> {
        self.tidy();
        self.map.iter().map(|(_, credentials)| credentials).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.tidy();
        self.map.len()
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    pub(super) fn common(&self) -> &Common {
        &self.common
    }

    pub(super) fn outages(&self) -> Vec<OutageStatus> {
        let now = self.common.now();
        let endpoints = self.common.endpoints();
        let outages = endpoints.iter().filter_map(|endpoint| {
            let (error, next_probe) = endpoint.outage(now)?;
            Some(OutageStatus { endpoint: endpoint.origin().to_owned(), error, next_probe })
        });
        outages.collect()
    }

    fn make(&self, key: &K, now: Timestamp) -> Result<Credentials, TokenError> {
        let name = key.name();
        if key::is_empty(&name) {
            return Err(TokenError::misconfigured(
                "the key has an empty name, so that it belongs to no user: do not ask for it, or name it in `PoolKey::name`",
            ));
        }
        // A closure that asks for its own key would wait for itself.
        let patience = if self.makes(key) { Duration::ZERO } else { PATIENCE };
        let credentials = match self.map.get_value_or_guard(key, Some(patience)) {
            GuardResult::Value(credentials) => return Ok(credentials),
            GuardResult::Guard(place) => {
                let _making = Making::begin(self.mark(key));
                let credentials = (self.make)(key)?.build_for(&self.common, name.into_owned());
                // The insertion fails only if the key was removed meanwhile. Only keys with credentials are removed.
                let _ = place.insert(credentials.clone());
                credentials
            }
            GuardResult::Timeout => {
                return Err(TokenError::misconfigured(format!(
                    "the closure of the pool has not made the credentials of a key within {PATIENCE:?}: it must not block, nor ask the pool for the same key"
                )));
            }
        };
        self.make_room(now);
        Ok(credentials)
    }

    /// Returns whether this thread makes the credentials of the key.
    fn makes(&self, key: &K) -> bool {
        let mark = self.mark(key);
        MAKING.with_borrow(|making| making.contains(&mark))
    }

    fn mark(&self, key: &K) -> (usize, u64) {
        (std::ptr::from_ref(self).addr(), self.hasher.hash_one(key))
    }

    /// Raises the capacity of the map for a while if it is full of credentials that must stay. Otherwise each new key would look at
    /// all of them.
    fn make_room(&self, now: Timestamp) {
        let keys = self.map.len();
        if weight(keys) > self.map.capacity() {
            self.map.set_capacity(weight(keys.saturating_add(keys / 8)));
            let soon = milliseconds(now.monotonic()).saturating_add(SWEEP_WHEN_FULL);
            self.next_sweep.fetch_min(soon, Ordering::Relaxed);
        }
    }

    // ===== idle keys =====

    /// Evicts the idle keys, if it is time to look for them.
    fn tidy(&self) {
        let now = self.common.now();
        if self.is_sweep_due(now) {
            self.sweep(now);
        }
    }

    fn is_sweep_due(&self, now: Timestamp) -> bool {
        let now = milliseconds(now.monotonic());
        let due = self.next_sweep.load(Ordering::Relaxed);
        let next = now.saturating_add(milliseconds(self.limits.idle / 4).max(SWEEP_MIN));
        now >= due
            && self
                .next_sweep
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Evicts the idle keys, and gives way to other tasks meanwhile.
    async fn sweep_in_steps(&self, now: Timestamp) {
        for keys in self.idle(now).chunks(STEP) {
            self.evict(keys, now);
            tokio::task::yield_now().await;
        }
        self.lower_capacity(now);
    }

    fn sweep(&self, now: Timestamp) {
        self.evict(&self.idle(now), now);
        self.lower_capacity(now);
    }

    fn idle(&self, now: Timestamp) -> Vec<K> {
        let idle = self.map.iter().filter(|(_, credentials)| self.is_idle(credentials, now));
        idle.map(|(key, _)| key).collect()
    }

    fn is_idle(&self, credentials: &Credentials, now: Timestamp) -> bool {
        credentials.idle(now) >= self.limits.idle
    }

    /// Evicts those of the keys that are still idle, and whose credentials may be evicted.
    fn evict(&self, keys: &[K], now: Timestamp) {
        for key in keys {
            // One at a time, so that requests need not wait for the lock.
            let may_be = |it: &Credentials| self.is_idle(it, now) && !Keep.is_pinned(key, it);
            if self.map.remove_if(key, may_be).is_some() {
                self.common.metrics().evicted(Eviction::Idle);
            }
        }
    }

    /// Lowers the capacity of the map if it was raised.
    fn lower_capacity(&self, now: Timestamp) {
        let capacity = weight(self.limits.capacity);
        if self.map.capacity() > capacity {
            // It was raised, or is a little more because the parts of the map are equal.
            self.map.set_capacity(capacity);
            self.make_room(now);
        }
    }
}

impl<K> Drop for Kept<K> {
    fn drop(&mut self) {
        (self.discard)(&mut self.map);
    }
}

fn map<K: PoolKey>(capacity: usize, hasher: RandomState) -> Map<K> {
    #[expect(clippy::expect_used, reason = "both values are set")]
    let options = OptionsBuilder::new()
        .estimated_items_capacity(capacity.min(PREPARED))
        .weight_capacity(weight(capacity))
        .build()
        .expect("the options are complete");
    Cache::with_options(options, UnitWeighter, hasher, Keep)
}

/// Drops the keys, if there are many on a thread where other tasks do not wait for that.
fn discard<K: PoolKey>(keys: &mut Map<K>) {
    if keys.len() > STEP
        && let Ok(runtime) = Handle::try_current()
    {
        let keys = mem::replace(keys, map(1, RandomState::new()));
        drop(runtime.spawn_blocking(move || drop(keys)));
    }
}

thread_local! {
    /// The keys whose closures run on this thread, by their pool and their hash.
    static MAKING: RefCell<Vec<(usize, u64)>> = const { RefCell::new(Vec::new()) };
}

/// Marks a key whose closure runs on this thread.
struct Making;

impl Making {
    fn begin(mark: (usize, u64)) -> Self {
        MAKING.with_borrow_mut(|making| making.push(mark));
        Self
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        MAKING.with_borrow_mut(Vec::pop);
    }
}

/// Which credentials may be evicted.
#[derive(Clone, Copy, Debug)]
struct Keep;

impl<K> Lifecycle<K, Credentials> for Keep {
    /// The evicted credentials. They are dropped after the lock is released, because their sources and stores are code of others, which
    /// may use the pool.
    type RequestState = Evicted<K>;

    fn is_pinned(&self, _: &K, credentials: &Credentials) -> bool {
        // A store is code of others. Its panic would poison the lock.
        catch_unwind(AssertUnwindSafe(|| !credentials.is_disposable())).unwrap_or(true)
    }

    fn on_evict(&self, evicted: &mut Self::RequestState, key: K, credentials: Credentials) {
        evicted.0.push((key, credentials));
    }
}

/// The credentials that one call has evicted.
struct Evicted<K>(Vec<(K, Credentials)>);

impl<K> Default for Evicted<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K> Drop for Evicted<K> {
    fn drop(&mut self) {
        for (_, credentials) in &self.0 {
            credentials.metrics().evicted(Eviction::Capacity);
        }
    }
}

fn weight(keys: usize) -> u64 {
    u64::try_from(keys).unwrap_or(u64::MAX)
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The number of keys that the map has room for from the start, if its capacity is larger.
const PREPARED: usize = 1 << 20;

/// The number of keys that are dropped in one go.
const STEP: usize = 128;

/// How long a thread waits for another one to make the credentials of a key.
const PATIENCE: Duration = Duration::from_secs(5);

/// The least number of milliseconds between two searches for idle keys.
const SWEEP_MIN: u64 = 1_000;

/// The most milliseconds until the next search, while there are more keys than the capacity.
const SWEEP_WHEN_FULL: u64 = 10_000;
