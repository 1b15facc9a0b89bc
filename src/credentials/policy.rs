//! When to renew, how long to wait, and when to leave the token endpoint alone.

use std::cmp::min;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::clock::{Clock, SystemClock};

/// When to renew, how long to wait, and when to leave the token endpoint alone.
///
/// The defaults are meant to be left as they are. Every window scales with the lifetime of the token, so that tokens of
/// five seconds and of thirty days both work.
///
/// ```
/// use std::time::Duration;
/// use tower_refresh::RefreshPolicy;
///
/// let policy = RefreshPolicy::default().timeout(Duration::from_secs(10));
/// ```
#[derive(Clone)]
#[must_use]
pub struct RefreshPolicy {
    pub(super) timing: Timing,
    pub(super) runtime: Option<Handle>,
    pub(super) clock: Arc<dyn Clock>,
}

/// The figures of a policy: what the state decides with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    pub(super) leeway: Duration,
    pub(super) refresh_ahead: Option<Duration>,
    pub(super) jitter: Duration,
    pub(super) timeout: Duration,
    pub(super) backoff: (Duration, Duration),
    pub(super) rejection_backoff: (Duration, Duration),
}

/// No lifetime is taken for longer, so that no arithmetic has to fear what a server sends.
pub(super) const LIFETIME_MAX: Duration = Duration::from_secs(10 * 365 * 86400);
const REFRESH_AHEAD: Duration = Duration::from_secs(5 * 60);

impl Default for RefreshPolicy {
    fn default() -> Self {
        Self {
            timing: Timing {
                leeway: Duration::from_secs(10),
                refresh_ahead: None,
                jitter: Duration::from_secs(60),
                timeout: Duration::from_secs(30),
                backoff: (Duration::from_secs(1), Duration::from_secs(60)),
                rejection_backoff: (Duration::from_secs(5), Duration::from_secs(5 * 60)),
            },
            runtime: None,
            clock: Arc::new(SystemClock),
        }
    }
}

impl RefreshPolicy {
    /// Sets how much earlier than it says a token counts as expired, for clocks that differ and for the time that a
    /// request travels.
    ///
    /// 10 seconds by default, and never more than a tenth of the token's lifetime.
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.timing.leeway = leeway;
        self
    }

    /// Sets how long before its expiry a token becomes stale: it is still used, and renewed behind the requests.
    ///
    /// 5 minutes by default, or a fifth of the token's lifetime if that is less. A value set here is never taken for
    /// more than half of the lifetime. Zero turns early renewal off: the requests at expiry then wait.
    pub fn refresh_ahead(mut self, refresh_ahead: Duration) -> Self {
        self.timing.refresh_ahead = Some(refresh_ahead);
        self
    }

    /// Sets how much the beginning of staleness may differ from one instance to the next, so that a fleet does not
    /// renew all at once.
    ///
    /// Each instance draws its share once. 60 seconds by default, and never more than a twentieth of the lifetime.
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.timing.jitter = jitter;
        self
    }

    /// Sets how long a request waits for a token before it fails.
    ///
    /// The refresh itself goes on: its answer may be the only copy of the next refresh token. Only after ten times as long
    /// it is taken for lost, and the next request that needs a token starts another; so do not set it shorter than a
    /// tenth of what your HTTP client may take. 30 seconds by default, and never less than a millisecond.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timing.timeout = timeout.max(Duration::from_millis(1));
        self
    }

    /// Sets how long the token endpoint is left alone after a failure: at first, and at the most.
    ///
    /// The pause doubles with each failure in a row; one that the server asked for (`Retry-After`, at most an hour) is kept.
    /// Each is shortened at random by up to a half. 1 second and 60 seconds by default.
    ///
    /// While requests have no usable token, a pause after a [transient](crate::TokenError::is_transient) failure is at most 5
    /// seconds or `first`, whichever is longer, so that an outage ends for them soon after it has ended. It is `first` if the
    /// token endpoint was [not reached](crate::TokenError::unsent), or a store is down.
    pub fn backoff(mut self, first: Duration, max: Duration) -> Self {
        self.timing.backoff = (first, max.max(first));
        self
    }

    /// Sets how long the rejections by one target start no refresh after a refresh that did not help there: at first, and at
    /// the most. A target is a method, an origin and a path.
    ///
    /// An endpoint that answers 401 to everything must not cost a refresh per request. So if a target rejects the new token
    /// too, it backs off. The backoff doubles each time, and goes on for as long as other responses accept the token.
    /// One in twelve backoffs ends with a refresh regardless, because a public or a cached path accepts any token. Every other
    /// target still starts a refresh with its first rejection, so that a revoked token is replaced at once. The
    /// rejections of one origin start at most four refreshes that do not help, and then one per `max`. Three more are kept for a
    /// token that responses accepted before and that all of them have rejected for `first`.
    ///
    /// If the outcome of a refresh is unknown, the refresh token may be spent. Then no rejection starts another refresh while
    /// other responses accept the token, nor for `max` after the last one that did.
    ///
    /// 5 seconds and 5 minutes by default.
    pub fn rejection_backoff(mut self, first: Duration, max: Duration) -> Self {
        self.timing.rejection_backoff = (first, max.max(first));
        self
    }

    /// Sets the runtime that refreshes run on, in place of the one that the request runs on.
    ///
    /// Set it where a program has several runtimes, or one that is polled only now and then: a refresh on a
    /// current-thread runtime that nobody polls does not move. The runtime needs its time driver.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Sets the clock, in place of the operating system's.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }
}

impl Timing {
    /// How much earlier than it says a token of this lifetime counts as expired.
    pub(super) fn leeway_of(&self, lifetime: Duration) -> Duration {
        self.leeway.min(lifetime / 10)
    }

    /// How long before its expiry a token of this lifetime becomes stale, by an instance whose share of the jitter is
    /// `share` (0 to 1).
    pub(super) fn refresh_ahead_of(&self, lifetime: Duration, share: f64) -> Duration {
        let ahead = match self.refresh_ahead {
            None => REFRESH_AHEAD.min(lifetime / 5),
            Some(Duration::ZERO) => return Duration::ZERO,
            Some(ahead) => ahead.min(lifetime / 2),
        };
        ahead + self.jitter.min(lifetime / 20).mul_f64(share)
    }
}

/// `first`, doubled with each strike after the first, at most `most`.
pub(super) fn doubled(first: Duration, strikes: u32, most: Duration) -> Duration {
    let factor = 1_u32.checked_shl(strikes.saturating_sub(1)).unwrap_or(u32::MAX);
    min(first.saturating_mul(factor), min(most, LIFETIME_MAX))
}

/// Numbers for jitter: good enough not to be in step with others, and repeatable in a test (xorshift64*).
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// At least 0, less than 1.
    pub(super) fn roll(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        bits as f64 / (f64::from(u32::MAX) + 1.0)
    }
}

impl fmt::Debug for RefreshPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshPolicy").field("timing", &self.timing).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(policy: RefreshPolicy) -> Timing {
        policy.timing
    }

    #[test]
    fn windows_scale_with_the_lifetime() {
        let timing = timing(RefreshPolicy::default());
        for (lifetime, leeway, ahead) in [
            (Duration::from_secs(5), Duration::from_millis(500), Duration::from_secs(1)),
            (Duration::from_secs(3600), Duration::from_secs(10), Duration::from_secs(300)),
            (Duration::from_secs(30 * 86400), Duration::from_secs(10), Duration::from_secs(300)),
            (Duration::ZERO, Duration::ZERO, Duration::ZERO),
        ] {
            assert_eq!(timing.leeway_of(lifetime), leeway);
            assert_eq!(timing.refresh_ahead_of(lifetime, 0.0), ahead);
            assert!(timing.refresh_ahead_of(lifetime, 1.0) <= lifetime / 2);
        }
    }

    #[test]
    fn a_window_that_somebody_set_never_swallows_the_lifetime() {
        let timing = timing(
            RefreshPolicy::default()
                .refresh_ahead(Duration::MAX)
                .jitter(Duration::MAX)
                .leeway(Duration::MAX),
        );
        let lifetime = Duration::from_secs(100);
        assert!(timing.refresh_ahead_of(lifetime, 1.0) <= Duration::from_secs(55));
        assert_eq!(timing.leeway_of(lifetime), Duration::from_secs(10));
    }
}
