//! The measurements, with a recorder of the facade `metrics`.
//!
//! The counters of requests are looked up once, for the first request, so that a request with a fresh token adds to a counter and does
//! nothing else. All other metrics are looked up when they change.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::metrics::{
    Counter, Gauge, Histogram, Key, Label, Level, Metadata, SharedString, with_recorder,
};

use super::table::{self, Metric};
use super::{Ending, Eviction, Troubles, store};
use crate::classify::Verdict;
use crate::clock::Clock;
use crate::error::TokenErrorKind;
use crate::grant::backing::Backing;
use crate::source::Cause;

/// The metrics of credentials, or of all members of a pool.
#[derive(Clone)]
pub(crate) struct Metrics(Arc<Shared>);

struct Shared {
    /// The label `credentials`.
    name: Arc<str>,
    is_pool: bool,
    /// Not a `Once`: a recorder that sends a request of its own would wait for itself.
    begun: AtomicBool,
    requests: OnceLock<Box<Requests>>,
}

/// The counters of requests, by outcome.
struct Requests {
    judged: ByVerdict,
    retries: ByVerdict,
    untouched: Counter,
    untouched_rejected: Counter,
    not_sent: Counter,
}

struct ByVerdict {
    accepted: Counter,
    rejected: Counter,
    not_judged: Counter,
}

impl Metrics {
    /// Creates the metrics of credentials with this name. No recorder is called before the first of them changes.
    pub(crate) fn new(name: Arc<str>) -> Self {
        Self::of(name, false)
    }

    /// Creates the metrics that the members of a pool share.
    pub(crate) fn of_pool(name: Arc<str>) -> Self {
        Self::of(name, true)
    }

    fn of(name: Arc<str>, is_pool: bool) -> Self {
        let (begun, requests) = (AtomicBool::new(false), OnceLock::new());
        Self(Arc::new(Shared { name, is_pool, begun, requests }))
    }

    // ===== requests =====

    /// Counts a response to the first or the second attempt of a request.
    #[inline]
    pub(crate) fn response(&self, verdict: Verdict, is_retry: bool) {
        let requests = self.requests();
        requests.judged.of(verdict).increment(1);
        if is_retry {
            requests.retries.of(verdict).increment(1);
        }
    }

    /// Counts a request that is sent without a token. `is_rejected` if its origin is not named and answers 401.
    pub(crate) fn untouched(&self, is_rejected: bool) {
        let Requests { untouched, untouched_rejected, .. } = self.requests();
        let counter = if is_rejected { untouched_rejected } else { untouched };
        counter.increment(1);
    }

    /// Counts a request that is not sent, because there is no token for it.
    pub(crate) fn not_sent(&self) {
        self.requests().not_sent.increment(1);
    }

    #[inline]
    fn requests(&self) -> &Requests {
        match self.0.requests.get() {
            Some(requests) => requests,
            None => self.look_up(),
        }
    }

    #[cold]
    fn look_up(&self) -> &Requests {
        let counter = |metric, outcome| {
            let mut counter = Counter::noop();
            self.quietly(|| counter = self.counter(metric, [("outcome", outcome)]));
            counter
        };
        let by_verdict = |metric| ByVerdict {
            accepted: counter(metric, "accepted"),
            rejected: counter(metric, "rejected"),
            not_judged: counter(metric, "not_judged"),
        };
        let requests = Box::new(Requests {
            judged: by_verdict(&table::REQUESTS),
            retries: by_verdict(&table::RETRIES),
            untouched: counter(&table::REQUESTS, "untouched"),
            untouched_rejected: counter(&table::REQUESTS, "untouched_rejected"),
            not_sent: counter(&table::REQUESTS, "not_sent"),
        });
        // Only now: as for `begun`.
        self.0.requests.get_or_init(|| requests)
    }

    /// Begins the wait of a request or a call. It ends when the return value is dropped.
    pub(crate) fn wait(&self, clock: &Arc<dyn Clock>) -> Waiter {
        self.quietly(|| self.gauge(&table::WAITERS, []).increment(1.0));
        Waiter(Timer::start(self, clock))
    }

    // ===== refreshes =====

    /// Begins a refresh. It is in flight until the return value is dropped.
    pub(crate) fn refresh(&self, cause: Cause, clock: &Arc<dyn Clock>) -> Refreshing {
        self.quietly(|| self.gauge(&table::IN_FLIGHT, []).increment(1.0));
        Refreshing { timer: Timer::start(self, clock), cause }
    }

    /// Counts a refresh that is no longer waited for.
    pub(crate) fn lost(&self) {
        self.quietly(|| self.counter(&table::REFRESHES, [("outcome", "lost")]).increment(1));
    }

    /// Sets when the token expires, or that it has no known expiry. The members of a pool have no common expiry.
    pub(crate) fn expires(&self, at: Option<SystemTime>) {
        if self.0.is_pool {
            return;
        }
        let since_1970 = at.map(|at| at.duration_since(UNIX_EPOCH).unwrap_or_default());
        let seconds = since_1970.map_or(f64::INFINITY, |since| since.as_secs_f64());
        self.quietly(|| self.gauge(&table::EXPIRY, []).set(seconds));
    }

    // ===== stores and pools =====

    /// Measures the operations of a store.
    pub(crate) fn measured(
        &self,
        backing: Box<dyn Backing>,
        clock: &Arc<dyn Clock>,
    ) -> Box<dyn Backing> {
        store::measured(self, backing, clock)
    }

    pub(super) fn store_operation(
        &self,
        store: &SharedString,
        operation: &'static str,
        outcome: &'static str,
        took: Duration,
    ) {
        self.quietly(|| {
            let labels = [("operation", operation), ("outcome", outcome)];
            let label = || Some(Label::new("store", store.clone()));
            let (operations, duration) = (&table::STORE_OPERATIONS, &table::STORE_OPERATION);
            self.register_counter(&self.key(operations, labels, label())).increment(1);
            self.register_histogram(&self.key(duration, labels, label())).record(took);
        });
    }

    pub(crate) fn pool_grows(&self) {
        self.quietly(|| self.gauge(&table::POOL_SIZE, []).increment(1.0));
    }

    pub(crate) fn pool_shrinks(&self) {
        self.quietly(|| self.gauge(&table::POOL_SIZE, []).decrement(1.0));
    }

    pub(crate) fn evicted(&self, eviction: Eviction) {
        let cause = match eviction {
            Eviction::Idle => "idle",
            Eviction::Capacity => "capacity",
        };
        self.quietly(|| self.counter(&table::EVICTIONS, [("cause", cause)]).increment(1));
    }

    /// Takes one of the places for refreshes, until the return value is dropped.
    pub(crate) fn place(&self, limit: usize) -> Place {
        self.quietly(|| {
            self.gauge(&table::PLACES_LIMIT, []).set(limit as f64);
            self.gauge(&table::PLACES, []).increment(1.0);
        });
        Place(self.clone())
    }

    // ===== the recorder =====

    /// Calls the recorder. Its panic must not leave a flight or a log-in without its task.
    fn quietly(&self, record: impl FnOnce()) {
        let _ = catch_unwind(AssertUnwindSafe(record));
    }

    fn counter<const N: usize>(&self, metric: &Metric, labels: Labels<N>) -> Counter {
        self.register_counter(&self.key(metric, labels, None))
    }

    fn gauge<const N: usize>(&self, metric: &Metric, labels: Labels<N>) -> Gauge {
        let key = self.key(metric, labels, None);
        with_recorder(|recorder| recorder.register_gauge(&key, &METADATA))
    }

    fn histogram<const N: usize>(&self, metric: &Metric, labels: Labels<N>) -> Histogram {
        self.register_histogram(&self.key(metric, labels, None))
    }

    fn register_counter(&self, key: &Key) -> Counter {
        with_recorder(|recorder| recorder.register_counter(key, &METADATA))
    }

    fn register_histogram(&self, key: &Key) -> Histogram {
        with_recorder(|recorder| recorder.register_histogram(key, &METADATA))
    }

    fn key<const N: usize>(&self, metric: &Metric, labels: Labels<N>, more: Option<Label>) -> Key {
        if !self.0.begun.load(Ordering::Relaxed) && !self.0.begun.swap(true, Ordering::Relaxed) {
            self.quietly(|| self.begin());
        }
        self.compose(metric, labels, more)
    }

    /// Describes the metrics, and makes the counters of rare events: Prometheus takes no notice of the first event of a counter that
    /// begins with 1.
    fn begin(&self) {
        table::describe();
        let begin = |metric: &Metric, labels: &[(&'static str, &'static str)]| {
            let labels = labels.iter().map(|(label, value)| Label::from_static_parts(label, value));
            drop(self.register_counter(&self.compose(metric, [], labels)));
        };
        for cause in CAUSES.map(Cause::as_str) {
            begin(&table::REFRESHES, &[("cause", cause), ("outcome", "success")]);
            for kind in KINDS {
                let labels =
                    [("cause", cause), ("outcome", "failure"), ("error.kind", kind.as_str())];
                begin(&table::REFRESHES, &labels);
            }
        }
        begin(&table::REFRESHES, &[("outcome", "lost")]);
        if self.0.is_pool {
            begin(&table::EVICTIONS, &[("cause", "idle")]);
            begin(&table::EVICTIONS, &[("cause", "capacity")]);
        }
    }

    fn compose<const N: usize>(
        &self,
        metric: &Metric,
        labels: Labels<N>,
        more: impl IntoIterator<Item = Label>,
    ) -> Key {
        let name = SharedString::from_shared(Arc::clone(&self.0.name));
        let labels = labels.map(|(label, value)| Label::from_static_parts(label, value));
        let labels = [Label::new("credentials", name)].into_iter().chain(labels).chain(more);
        Key::from_parts(metric.name, labels.collect::<Vec<_>>())
    }
}

impl ByVerdict {
    #[inline]
    fn of(&self, verdict: Verdict) -> &Counter {
        match verdict {
            Verdict::Accepted => &self.accepted,
            Verdict::Rejected => &self.rejected,
            Verdict::Unknown => &self.not_judged,
        }
    }
}

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// A wait for a token.
pub(crate) struct Waiter(Timer);

impl Drop for Waiter {
    fn drop(&mut self) {
        let Timer { metrics, .. } = &self.0;
        metrics.quietly(|| {
            metrics.gauge(&table::WAITERS, []).decrement(1.0);
            metrics.histogram(&table::WAIT, []).record(self.0.elapsed());
        });
    }
}

/// A refresh in flight.
pub(crate) struct Refreshing {
    timer: Timer,
    cause: Cause,
}

impl Refreshing {
    /// Counts the end of the refresh.
    pub(crate) fn ends(&self, ending: Ending<'_>) {
        let metrics = &self.timer.metrics;
        let outcome = match &ending {
            Ending::Success { was_stored: false } => "success",
            Ending::Success { was_stored: true } => "found_in_store",
            Ending::Failure(error) if error.is_of_outage() => "not_tried",
            Ending::Failure(_) => "failure",
            Ending::Superseded => "superseded",
        };
        let kind = match ending {
            Ending::Failure(error) => {
                Some(Label::from_static_parts("error.kind", error.kind().as_str()))
            }
            Ending::Success { .. } | Ending::Superseded => None,
        };
        metrics.quietly(|| {
            let labels = [("cause", self.cause.as_str()), ("outcome", outcome)];
            metrics.register_counter(&metrics.key(&table::REFRESHES, labels, kind)).increment(1);
            let duration = metrics.histogram(&table::REFRESH, [("outcome", outcome)]);
            duration.record(self.timer.elapsed());
        });
    }
}

impl Drop for Refreshing {
    fn drop(&mut self) {
        let metrics = &self.timer.metrics;
        metrics.quietly(|| metrics.gauge(&table::IN_FLIGHT, []).decrement(1.0));
    }
}

/// A place for a refresh in a pool.
pub(crate) struct Place(Metrics);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.quietly(|| self.0.gauge(&table::PLACES, []).decrement(1.0));
    }
}

/// Measures a time by the clock of the credentials.
pub(super) struct Timer {
    pub(super) metrics: Metrics,
    clock: Arc<dyn Clock>,
    began: Duration,
}

impl Timer {
    pub(super) fn start(metrics: &Metrics, clock: &Arc<dyn Clock>) -> Self {
        let (metrics, clock) = (metrics.clone(), Arc::clone(clock));
        Self { metrics, began: clock.now().monotonic(), clock }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.clock.now().monotonic().saturating_sub(self.began)
    }
}

// ===== troubles =====

/// The metrics of credentials, and the troubles that gauges count for them.
///
/// Gauges count the credentials in trouble, because the members of a pool share them. The troubles are noted under the lock of the
/// state, and the gauges are changed after it is released. These changes commute, so that their order does not matter.
pub(crate) struct Standing {
    pub(crate) metrics: Metrics,
    /// The bits of [`Bits`].
    noted: AtomicU8,
}

/// A change of the noted troubles.
#[must_use = "the gauges do not have it yet"]
pub(crate) struct Change {
    from: Bits,
    to: Bits,
}

/// Troubles as bits, in the order of the gauges, and [`KNOWN`](Self::KNOWN) once the gauges exist.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Bits(u8);

impl Standing {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self { metrics, noted: AtomicU8::new(0) }
    }

    /// Notes the troubles. Calls no recorder, and is to be called under the lock of the state.
    pub(crate) fn note(&self, troubles: impl FnOnce() -> Troubles) -> Change {
        let to = Bits::of(troubles());
        Change { from: Bits(self.noted.swap(to.0, Ordering::Relaxed)), to }
    }

    /// Changes the gauges.
    pub(crate) fn apply(&self, Change { from, to }: Change) {
        if from == to {
            return;
        }
        self.metrics.quietly(|| {
            for bit in 0..=Bits::UNSAVED {
                let change = f64::from(to.has(bit)) - f64::from(from.has(bit));
                // A gauge that is 0 from the start shows that there is no trouble.
                if change != 0.0 || !from.has(Bits::KNOWN) {
                    self.gauge(bit).increment(change);
                }
            }
        });
    }

    fn gauge(&self, bit: u8) -> Gauge {
        let metrics = &self.metrics;
        match bit {
            Bits::REJECTED => metrics.gauge(&table::REJECTION_BACKOFF, []),
            Bits::UNSAVED => metrics.gauge(&table::UNSAVED, []),
            kind => {
                metrics.gauge(&table::BACKOFF, [("error.kind", KINDS[usize::from(kind)].as_str())])
            }
        }
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        let change = self.note(Troubles::default);
        if change.from.has(Bits::KNOWN) {
            self.apply(change);
        }
    }
}

impl Bits {
    /// After those of the [`KINDS`].
    const REJECTED: u8 = 4;
    const UNSAVED: u8 = 5;
    const KNOWN: u8 = 7;

    fn of(Troubles { failed, is_rejected, is_unsaved }: Troubles) -> Self {
        let kinds = KINDS.iter().zip(0..).filter(|(kind, _)| failed == Some(**kind));
        let kinds = kinds.fold(0, |bits, (_, bit)| bits | 1 << bit);
        let (rejected, unsaved) = (u8::from(is_rejected), u8::from(is_unsaved));
        Self(kinds | rejected << Self::REJECTED | unsaved << Self::UNSAVED | 1 << Self::KNOWN)
    }

    fn has(self, bit: u8) -> bool {
        self.0 & 1 << bit != 0
    }
}

const KINDS: [TokenErrorKind; 4] = [
    TokenErrorKind::Transient,
    TokenErrorKind::Ambiguous,
    TokenErrorKind::Denied,
    TokenErrorKind::Misconfigured,
];

const CAUSES: [Cause; 5] =
    [Cause::Missing, Cause::Expiring, Cause::Expired, Cause::Rejected, Cause::Forced];

static METADATA: Metadata<'static> = Metadata::new("tower_refresh", Level::INFO, None);
