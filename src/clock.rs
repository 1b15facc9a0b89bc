//! Time: two clocks, read at once, and replaceable.

use std::cmp::min;
use std::fmt;
use std::time::{Duration, SystemTime};

/// Tells the time.
///
/// Set one with [`RefreshPolicy::clock`](crate::RefreshPolicy::clock). The default reads the operating system's coarse
/// clocks, which is a matter of nanoseconds and exact to a few milliseconds. A test sets a clock of its own: the
/// `testing` module has one to set by hand and one that follows tokio's paused time.
///
/// An implementation must not block and must not panic; it is called for every request.
pub trait Clock: Send + Sync + 'static {
    /// Reads both clocks at once.
    fn now(&self) -> Timestamp;
}

/// One reading of two clocks.
///
/// A token is expired as soon as *either* clock says so: the monotonic one is right when somebody sets the wall clock,
/// and the wall clock is right when the machine was suspended, during which most monotonic clocks stand still.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
    monotonic: Duration,
    wall: Duration,
}

impl Timestamp {
    /// Makes a reading out of the time since a fixed but arbitrary moment and the time of day.
    ///
    /// A time of day before 1970 counts as 1970.
    pub fn new(monotonic: Duration, wall: SystemTime) -> Self {
        Self { monotonic, wall: since_epoch(wall) }
    }

    /// Returns the time since a fixed but arbitrary moment; it never goes back.
    pub fn monotonic(&self) -> Duration {
        self.monotonic
    }

    /// Returns the time since 1970-01-01T00:00:00Z; it goes back when somebody sets the clock.
    pub fn since_epoch(&self) -> Duration {
        self.wall
    }

    /// Returns a reading that leaves room for every pause: a clock may read anything.
    pub(crate) fn bounded(self) -> Self {
        let most = Duration::from_secs(u64::MAX / 4);
        Self { monotonic: self.monotonic.min(most), wall: self.wall.min(most) }
    }

    /// Returns the time of day.
    pub fn wall(&self) -> SystemTime {
        // A reading was a `SystemTime` once, so that it fits again; a year beyond the type's range stays at 1970.
        SystemTime::UNIX_EPOCH.checked_add(self.wall).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timestamp")
            .field("monotonic", &self.monotonic)
            .field("since_epoch", &self.wall)
            .finish()
    }
}

/// Returns the time since 1970, and nothing for a time before it.
pub(crate) fn since_epoch(wall: SystemTime) -> Duration {
    wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// A moment on both clocks. It has come as soon as either clock says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline {
    pub(crate) monotonic: Duration,
    wall: Duration,
}

impl Deadline {
    pub(crate) const NEVER: Self = Self { monotonic: Duration::MAX, wall: Duration::MAX };
    pub(crate) const PAST: Self = Self { monotonic: Duration::ZERO, wall: Duration::ZERO };

    pub(crate) fn after(now: Timestamp, pause: Duration) -> Self {
        Self {
            monotonic: now.monotonic().saturating_add(pause),
            wall: now.since_epoch().saturating_add(pause),
        }
    }

    /// After a pause that only the monotonic clock measures.
    pub(crate) fn monotonic(now: Timestamp, pause: Duration) -> Self {
        Self { monotonic: now.monotonic().saturating_add(pause), wall: Duration::MAX }
    }

    pub(crate) fn before(self, pause: Duration) -> Self {
        if self == Self::NEVER {
            return self;
        }
        Self {
            monotonic: self.monotonic.saturating_sub(pause),
            wall: self.wall.saturating_sub(pause),
        }
    }

    pub(crate) fn or_earlier(self, other: Self) -> Self {
        Self { monotonic: min(self.monotonic, other.monotonic), wall: min(self.wall, other.wall) }
    }

    pub(crate) fn has_come(self, now: Timestamp) -> bool {
        // Never is not even at the end of time, which a clock may read.
        self != Self::NEVER && (now.monotonic() >= self.monotonic || now.since_epoch() >= self.wall)
    }

    /// How long until it comes; none if never.
    pub(crate) fn left(self, now: Timestamp) -> Option<Duration> {
        (self != Self::NEVER).then(|| {
            min(
                self.monotonic.saturating_sub(now.monotonic()),
                self.wall.saturating_sub(now.since_epoch()),
            )
        })
    }
}

/// The operating system's clocks: coarse where there are coarse ones.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SystemClock;

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        use rustix::time::{ClockId, Timespec, clock_gettime};

        let duration = |time: Timespec| {
            let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
            let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
            Duration::new(seconds, nanoseconds)
        };
        Timestamp {
            monotonic: duration(clock_gettime(ClockId::MonotonicCoarse)),
            wall: duration(clock_gettime(ClockId::RealtimeCoarse)),
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that everything else is to use"
    )]
    fn now(&self) -> Timestamp {
        use std::sync::OnceLock;
        use std::time::Instant;

        static START: OnceLock<Instant> = OnceLock::new();

        let start = START.get_or_init(Instant::now);
        Timestamp::new(start.elapsed(), SystemTime::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_before_1970_is_1970() {
        let early = SystemTime::UNIX_EPOCH - Duration::from_secs(5);
        assert_eq!(Timestamp::new(Duration::ZERO, early).since_epoch(), Duration::ZERO);
    }

    #[test]
    fn the_system_clock_agrees_with_the_standard_library_to_a_second() {
        #[expect(clippy::disallowed_methods, reason = "what the clock is compared with")]
        let wall = since_epoch(SystemTime::now());
        let now = SystemClock.now();
        assert!(now.since_epoch().abs_diff(wall) < Duration::from_secs(1));
        assert!(SystemClock.now().monotonic() >= now.monotonic());
    }
}
