//! When to refresh, how long to wait, and how long to back off.

use std::cmp::min;
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::runtime::Handle;

#[cfg(feature = "serde")]
use super::seconds;
use crate::clock::{Clock, SystemClock};
use crate::grant::Leeway;

/// The policy of [`Credentials`](crate::Credentials): when to refresh, how long to wait, and how long to back off after a failure.
///
/// The defaults suit most programs. All windows scale with the lifetime of the token, so that they fit tokens of five seconds and
/// of thirty days.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_refresh::{Credentials, RefreshPolicy, StaticToken};
///
/// let policy = RefreshPolicy::default().timeout(Duration::from_secs(10));
/// let credentials = Credentials::with_policy(StaticToken::new("sesame".parse()?), policy);
/// # Ok::<(), tower_refresh::TokenError>(())
/// ```
///
/// # JSON
///
/// With the feature `serde` the policy is `Serialize` and `Deserialize`, for a configuration file. All times are numbers of
/// seconds, with or without a fraction. Each field may be left out for its default. An unknown field and a negative time are
/// errors. The clock and the runtime are not part of it. These are the defaults:
///
/// ```json
/// {
///   "leeway": 10,
///   "refresh_ahead": null,
///   "jitter": 60,
///   "timeout": 30,
///   "backoff": { "first": 1, "max": 60 },
///   "rejection_backoff": { "first": 5, "max": 300 }
/// }
/// ```
#[derive(Clone)]
#[must_use]
pub struct RefreshPolicy {
    /// Shared by the credentials with this policy.
    pub(super) timing: Arc<Timing>,
    pub(super) runtime: Option<Handle>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Default for RefreshPolicy {
    fn default() -> Self {
        static DEFAULT: LazyLock<(Arc<Timing>, Arc<dyn Clock>)> =
            LazyLock::new(|| (Arc::default(), Arc::new(SystemClock)));

        let (timing, clock) = DEFAULT.clone();
        Self { timing, runtime: None, clock }
    }
}

impl RefreshPolicy {
    /// Sets how long before its expiry a token counts as expired, to allow for clocks that differ and for the time that a
    /// request is on its way.
    ///
    /// The default is 10 seconds. The leeway is never more than a tenth of the lifetime of the token.
    pub fn leeway(mut self, leeway: Duration) -> Self {
        Arc::make_mut(&mut self.timing).leeway = leeway;
        self
    }

    /// Sets how long before its expiry a token becomes stale: it is still used, and refreshed in the background.
    ///
    /// The default is 5 minutes, or a fifth of the lifetime if that is less. A value set here is limited to half of the lifetime.
    /// Zero turns the early refresh off, and requests at expiry wait.
    #[doc(alias = "early_refresh")]
    pub fn refresh_ahead(mut self, refresh_ahead: Duration) -> Self {
        Arc::make_mut(&mut self.timing).refresh_ahead = Some(refresh_ahead);
        self
    }

    /// Sets by how much instances differ in when a token becomes stale, so that a fleet does not refresh all at once.
    ///
    /// Each instance draws its share once. The default is 60 seconds. The jitter is never more than a twentieth of the lifetime.
    pub fn jitter(mut self, jitter: Duration) -> Self {
        Arc::make_mut(&mut self.timing).jitter = jitter;
        self
    }

    /// Sets how long a request waits for a token before it fails.
    ///
    /// The refresh continues: its response may be the only copy of the next refresh token. After ten timeouts a refresh counts as
    /// lost, and the next request that needs a token starts another. Do not set less than a tenth of what your HTTP client may
    /// take. The default is 30 seconds, and the minimum is a millisecond.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        let timing = Arc::make_mut(&mut self.timing);
        timing.timeout = timeout;
        *timing = timing.corrected();
        self
    }

    /// Sets how long no refresh starts after a failure: after the first one, and at most.
    ///
    /// The backoff doubles with each failure in a row. A random share of up to a half is taken off. A
    /// longer `Retry-After` of the token endpoint replaces it, up to an hour. The defaults are 1 second and 60 seconds.
    ///
    /// While requests have no usable token, the backoff after a [transient](crate::TokenError::is_transient) failure is at most 5
    /// seconds or `first`, if that is longer, so that requests succeed soon after the end of an outage. It is `first` if the
    /// token endpoint was [not reached](crate::TokenError::unsent) or a store is unavailable.
    #[doc(alias = "cooldown")]
    pub fn backoff(mut self, first: Duration, max: Duration) -> Self {
        Arc::make_mut(&mut self.timing).backoff = Backoff::new(first, max);
        self
    }

    /// Sets how long the rejections by one target start no refresh after a refresh that did not help there: the first time, and
    /// at most. A target is a method, an origin and a path.
    ///
    /// An endpoint that responds with 401 to everything must not cost a refresh per request. If a target also rejects the new
    /// token, it backs off. The backoff doubles each time, and continues while other responses accept the token. One in twelve
    /// backoffs ends with a refresh regardless, because a public or a cached path accepts any token. Every other target still
    /// starts a refresh with its first rejection, so that a revoked token is replaced at once. The rejections of one origin start
    /// at most four refreshes that do not help, and then one per `max`. Three more are kept for a token that responses
    /// accepted before and that all of them have rejected for `first`.
    ///
    /// If the outcome of a refresh is unknown, the refresh token may be spent. Then no rejection starts another refresh while
    /// other responses accept the token, nor for `max` after the last one that did.
    ///
    /// The defaults are 5 seconds and 5 minutes.
    pub fn rejection_backoff(mut self, first: Duration, max: Duration) -> Self {
        Arc::make_mut(&mut self.timing).rejection_backoff = Backoff::new(first, max);
        self
    }

    /// Sets the runtime that refreshes run on, instead of the one of the request that starts them.
    ///
    /// Set it if a program has several runtimes, or one that it polls only now and then: a refresh makes no progress on a
    /// current-thread runtime that is not polled. The runtime needs its time driver.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Sets the clock, instead of the clock of the operating system.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }
}

impl fmt::Debug for RefreshPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshPolicy").field("timing", &self.timing).finish_non_exhaustive()
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for RefreshPolicy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.timing.serialize(serializer)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for RefreshPolicy {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let timing = Arc::new(Timing::deserialize(deserializer)?.corrected());
        Ok(Self { timing, ..Self::default() })
    }
}

/// The times of a policy, which the state decides with.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub(super) struct Timing {
    #[cfg_attr(feature = "serde", serde(with = "seconds"))]
    pub(super) leeway: Duration,
    #[cfg_attr(
        feature = "serde",
        serde(
            serialize_with = "seconds::serialize",
            deserialize_with = "seconds::deserialize_option"
        )
    )]
    pub(super) refresh_ahead: Option<Duration>,
    #[cfg_attr(feature = "serde", serde(with = "seconds"))]
    pub(super) jitter: Duration,
    #[cfg_attr(feature = "serde", serde(with = "seconds"))]
    pub(super) timeout: Duration,
    pub(super) backoff: Backoff,
    pub(super) rejection_backoff: Backoff,
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            leeway: seconds(10),
            refresh_ahead: None,
            jitter: seconds(60),
            timeout: seconds(30),
            backoff: Backoff::new(seconds(1), seconds(60)),
            rejection_backoff: Backoff::new(seconds(5), seconds(5 * 60)),
        }
    }
}

impl Timing {
    pub(super) fn leeway(&self) -> Leeway {
        Leeway(self.leeway)
    }

    /// Returns how long before its expiry a token of this lifetime becomes stale, for an instance whose share of the jitter is
    /// `share` (0 to 1).
    pub(super) fn refresh_ahead_of(&self, lifetime: Duration, share: f64) -> Duration {
        let ahead = match self.refresh_ahead {
            None => REFRESH_AHEAD.min(lifetime / 5),
            Some(Duration::ZERO) => return Duration::ZERO,
            Some(ahead) => ahead.min(lifetime / 2),
        };
        ahead + self.jitter.min(lifetime / 20).mul_f64(share)
    }

    /// Returns the times with the limits of the setters applied.
    fn corrected(self) -> Self {
        let corrected = |backoff: Backoff| Backoff::new(backoff.first, backoff.max);
        Self {
            timeout: self.timeout.max(Duration::from_millis(1)),
            backoff: corrected(self.backoff),
            rejection_backoff: corrected(self.rejection_backoff),
            ..self
        }
    }
}

/// A time to wait that doubles with each failure in a row.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
pub(super) struct Backoff {
    #[cfg_attr(feature = "serde", serde(with = "seconds"))]
    pub(super) first: Duration,
    #[cfg_attr(feature = "serde", serde(with = "seconds"))]
    pub(super) max: Duration,
}

impl Backoff {
    pub(super) fn new(first: Duration, max: Duration) -> Self {
        Self { first, max: max.max(first) }
    }

    /// Returns the time to wait after so many failures in a row.
    pub(super) fn after(self, failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        min(self.first.saturating_mul(factor), min(self.max, LIFETIME_MAX))
    }
}

/// The longest time that counts, so that no arithmetic overflows.
pub(super) const LIFETIME_MAX: Duration = Duration::from_secs(10 * 365 * 86400);

const REFRESH_AHEAD: Duration = Duration::from_secs(5 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(policy: RefreshPolicy) -> Arc<Timing> {
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
            assert_eq!(timing.leeway().of(lifetime), leeway);
            assert_eq!(timing.refresh_ahead_of(lifetime, 0.0), ahead);
            assert!(timing.refresh_ahead_of(lifetime, 1.0) <= lifetime / 2);
        }
    }

    #[test]
    fn configured_window_never_covers_the_lifetime() {
        let timing = timing(
            RefreshPolicy::default()
                .refresh_ahead(Duration::MAX)
                .jitter(Duration::MAX)
                .leeway(Duration::MAX),
        );
        let lifetime = Duration::from_secs(100);
        assert!(timing.refresh_ahead_of(lifetime, 1.0) <= Duration::from_secs(55));
        assert_eq!(timing.leeway().of(lifetime), Duration::from_secs(10));
    }

    #[test]
    fn backoff_doubles_up_to_its_maximum() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        for (failures, expected) in [(0, 1), (1, 1), (2, 2), (3, 4), (4, 5), (u32::MAX, 5)] {
            assert_eq!(backoff.after(failures), Duration::from_secs(expected), "{failures}");
        }
        let endless = Backoff::new(Duration::MAX, Duration::ZERO);
        assert_eq!(endless.after(1), LIFETIME_MAX);
    }

    #[cfg(feature = "serde")]
    mod json {
        use serde_json::{Value, json};

        use super::*;

        fn written(policy: &RefreshPolicy) -> Value {
            serde_json::to_value(policy).unwrap()
        }

        #[test]
        fn default_policy_has_the_documented_json_and_is_read_from_nothing() {
            let expected = json!({
                "leeway": 10.0,
                "refresh_ahead": null,
                "jitter": 60.0,
                "timeout": 30.0,
                "backoff": { "first": 1.0, "max": 60.0 },
                "rejection_backoff": { "first": 5.0, "max": 300.0 },
            });
            assert_eq!(written(&RefreshPolicy::default()), expected);
            let read: RefreshPolicy = serde_json::from_value(json!({})).unwrap();
            assert_eq!(written(&read), expected);
        }

        #[test]
        fn policy_survives_a_round_trip_with_fractions_and_whole_seconds() {
            let policy = json!({
                "refresh_ahead": 90,
                "timeout": 2.5,
                "rejection_backoff": { "first": 1, "max": 30 },
            });
            let read: RefreshPolicy = serde_json::from_value(policy).unwrap();
            assert_eq!(read.timing.refresh_ahead, Some(Duration::from_secs(90)));
            assert_eq!(read.timing.timeout, Duration::from_millis(2500));
            for policy in [read, RefreshPolicy::default().timeout(Duration::MAX)] {
                let again: RefreshPolicy = serde_json::from_value(written(&policy)).unwrap();
                assert_eq!(again.timing.timeout, policy.timing.timeout);
                assert_eq!(written(&again), written(&policy));
            }
        }

        #[test]
        fn values_that_a_setter_corrects_are_corrected() {
            let policy = json!({ "timeout": 0, "backoff": { "first": 9, "max": 3 } });
            let read: RefreshPolicy = serde_json::from_value(policy).unwrap();
            assert_eq!(read.timing.timeout, Duration::from_millis(1));
            assert_eq!(read.timing.backoff.max, Duration::from_secs(9));
        }

        #[test]
        fn misspelled_field_and_impossible_time_are_errors() {
            for (policy, words) in [
                (json!({ "leway": 1 }), "unknown field `leway`"),
                (json!({ "leeway": -1 }), "negative"),
                (json!({ "backoff": { "first": 1 } }), "missing field `max`"),
            ] {
                let error = serde_json::from_value::<RefreshPolicy>(policy).unwrap_err();
                assert!(error.to_string().contains(words), "{error}");
            }
        }
    }
}
