//! Time: two clocks that are read at once, and deadlines on both.

use std::cmp::min;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// A source of the current time.
///
/// Set a clock with [`RefreshPolicy::clock`](crate::RefreshPolicy::clock). The default reads the coarse clocks of the operating
/// system, which takes nanoseconds and is exact to a few milliseconds. For tests, the `testing` module has a clock that is set by
/// hand and one that follows tokio's paused time.
///
/// An implementation must not block or panic. It is called for every request.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tower_refresh::{Clock, RefreshPolicy, Timestamp};
///
/// struct Stopped;
///
/// impl Clock for Stopped {
///     fn now(&self) -> Timestamp {
///         let noon = Duration::from_secs(1_700_000_000);
///         Timestamp::new(noon, SystemTime::UNIX_EPOCH + noon)
///     }
/// }
///
/// let policy = RefreshPolicy::default().clock(Stopped);
/// ```
pub trait Clock: Send + Sync + 'static {
    /// Reads both clocks at once.
    fn now(&self) -> Timestamp;
}

/// One reading of the monotonic clock and of the wall clock.
///
/// A token has expired as soon as *either* clock has reached its expiry. The monotonic clock is correct after the wall clock was
/// set, and the wall clock is correct after the machine was suspended, when most monotonic clocks stop.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tower_refresh::Timestamp;
///
/// let now = Timestamp::new(Duration::from_secs(5), SystemTime::UNIX_EPOCH + Duration::from_secs(60));
/// assert_eq!(now.since_epoch(), Duration::from_secs(60));
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
    monotonic: Microseconds,
    /// Since 1970.
    wall: Microseconds,
}

/// A number of microseconds: half as large as a `Duration`, and compared at once.
type Microseconds = u64;

fn microseconds(duration: Duration) -> Microseconds {
    u64::try_from(duration.as_micros()).unwrap_or(Microseconds::MAX)
}

/// The latest reading, after 292,000 years: a clock may return anything, and there must be room for adding any pause.
const LATEST: Microseconds = Microseconds::MAX / 2;

impl Timestamp {
    /// Creates a reading from the time since a fixed but arbitrary moment, and the time of day.
    ///
    /// Both are kept in whole microseconds. A time of day before 1970 counts as 1970.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    /// use tower_refresh::Timestamp;
    ///
    /// let now = Timestamp::new(Duration::ZERO, SystemTime::UNIX_EPOCH - Duration::from_secs(1));
    /// assert_eq!(now.wall(), SystemTime::UNIX_EPOCH);
    /// ```
    pub fn new(monotonic: Duration, wall: SystemTime) -> Self {
        let reading = |duration| microseconds(duration).min(LATEST);
        Self { monotonic: reading(monotonic), wall: reading(since_epoch(wall)) }
    }

    /// Returns the time since a fixed but arbitrary moment. It never decreases.
    pub fn monotonic(&self) -> Duration {
        Duration::from_micros(self.monotonic)
    }

    /// Returns the time since 1970-01-01T00:00:00Z. It decreases if the clock is set back.
    pub fn since_epoch(&self) -> Duration {
        Duration::from_micros(self.wall)
    }

    /// Returns the time of day.
    pub fn wall(&self) -> SystemTime {
        // A reading is made of a `SystemTime` and no later than that, so that it fits into one.
        SystemTime::UNIX_EPOCH + self.since_epoch()
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timestamp")
            .field("monotonic", &self.monotonic())
            .field("since_epoch", &self.since_epoch())
            .finish()
    }
}

/// Returns the time since 1970, or zero for a time before.
pub(crate) fn since_epoch(wall: SystemTime) -> Duration {
    wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// A moment on both clocks. It has come as soon as either clock has reached it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline {
    monotonic: Microseconds,
    wall: Microseconds,
}

impl Deadline {
    pub(crate) const NEVER: Self = Self { monotonic: Microseconds::MAX, wall: Microseconds::MAX };
    pub(crate) const PAST: Self = Self { monotonic: 0, wall: 0 };

    pub(crate) fn after(now: Timestamp, pause: Duration) -> Self {
        let pause = microseconds(pause);
        Self {
            monotonic: now.monotonic.saturating_add(pause),
            wall: now.wall.saturating_add(pause),
        }
    }

    /// Returns the end of a pause that only the monotonic clock measures.
    pub(crate) fn monotonic(now: Timestamp, pause: Duration) -> Self {
        Self { wall: Microseconds::MAX, ..Self::after(now, pause) }
    }

    pub(crate) fn before(self, pause: Duration) -> Self {
        if self == Self::NEVER {
            return self;
        }
        let pause = microseconds(pause);
        Self {
            monotonic: self.monotonic.saturating_sub(pause),
            wall: self.wall.saturating_sub(pause),
        }
    }

    pub(crate) fn or_earlier(self, other: Self) -> Self {
        Self { monotonic: min(self.monotonic, other.monotonic), wall: min(self.wall, other.wall) }
    }

    pub(crate) fn has_come(self, now: Timestamp) -> bool {
        // A clock may read the highest number, which is not after `NEVER` either.
        self != Self::NEVER && (now.monotonic >= self.monotonic || now.wall >= self.wall)
    }

    /// Returns the time left, or `None` if it never comes.
    pub(crate) fn left(self, now: Timestamp) -> Option<Duration> {
        let monotonic = self.monotonic.saturating_sub(now.monotonic);
        let left = min(monotonic, self.wall.saturating_sub(now.wall));
        (self != Self::NEVER).then_some(Duration::from_micros(left))
    }

    /// Returns how long ago the monotonic clock has reached it.
    pub(crate) fn overdue(self, now: Timestamp) -> Duration {
        Duration::from_micros(now.monotonic.saturating_sub(self.monotonic))
    }
}

/// A deadline that one thread sets while others read it.
///
/// A reader may see one clock of the old deadline and the other of the new one. It then acts as if it had come a moment earlier
/// or later.
#[derive(Debug)]
pub(crate) struct AtomicDeadline {
    monotonic: AtomicU64,
    wall: AtomicU64,
}

impl AtomicDeadline {
    pub(crate) fn new(Deadline { monotonic, wall }: Deadline) -> Self {
        Self { monotonic: AtomicU64::new(monotonic), wall: AtomicU64::new(wall) }
    }

    pub(crate) fn set(&self, Deadline { monotonic, wall }: Deadline) {
        self.monotonic.store(monotonic, Ordering::Relaxed);
        self.wall.store(wall, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Deadline {
        let (monotonic, wall) = (&self.monotonic, &self.wall);
        Deadline {
            monotonic: monotonic.load(Ordering::Relaxed),
            wall: wall.load(Ordering::Relaxed),
        }
    }
}

/// The clocks of the operating system, coarse ones if there are any.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SystemClock;

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        use rustix::time::{ClockId, Timespec, clock_gettime};

        let microseconds = |time: Timespec| {
            let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
            let rest = u64::try_from(time.tv_nsec).unwrap_or_default() / 1_000;
            seconds.saturating_mul(1_000_000).saturating_add(rest).min(LATEST)
        };
        Timestamp {
            monotonic: microseconds(clock_gettime(ClockId::MonotonicCoarse)),
            wall: microseconds(clock_gettime(ClockId::RealtimeCoarse)),
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
    fn time_before_1970_counts_as_1970() {
        let early = SystemTime::UNIX_EPOCH - Duration::from_secs(5);
        assert_eq!(Timestamp::new(Duration::ZERO, early).since_epoch(), Duration::ZERO);
    }

    #[test]
    fn system_clock_agrees_with_the_standard_library() {
        #[expect(clippy::disallowed_methods, reason = "compared with the clock")]
        let wall = since_epoch(SystemTime::now());
        let now = SystemClock.now();
        assert!(now.since_epoch().abs_diff(wall) < Duration::from_secs(1));
        assert!(SystemClock.now().monotonic() >= now.monotonic());
    }

    #[test]
    fn deadline_comes_when_either_clock_has_reached_it() {
        let at = |monotonic, wall| {
            let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(wall);
            Timestamp::new(Duration::from_secs(monotonic), wall)
        };
        let deadline = Deadline::after(at(10, 100), Duration::from_secs(5));
        assert!(!deadline.has_come(at(14, 104)));
        assert!(deadline.has_come(at(15, 0)) && deadline.has_come(at(0, 105)));
        assert_eq!(deadline.left(at(12, 101)), Some(Duration::from_secs(3)));

        let paused = Deadline::monotonic(at(10, 100), Duration::from_secs(5));
        assert!(!paused.has_come(at(14, u32::MAX.into())));
    }

    #[test]
    fn clock_that_counts_from_the_year_one_goes_on() {
        let begin = Duration::from_secs(2026 * 365 * 86_400);
        let at = |seconds| {
            let passed = Duration::from_secs(seconds);
            Timestamp::new(begin + passed, SystemTime::UNIX_EPOCH + begin + passed)
        };
        for deadline in [Deadline::monotonic, Deadline::after] {
            let deadline = deadline(at(0), Duration::from_secs(5));
            assert!(!deadline.has_come(at(4)) && deadline.has_come(at(5)));
        }
    }

    #[test]
    fn deadline_that_never_comes_does_not_come_at_the_end_of_time() {
        let end = Timestamp { monotonic: Microseconds::MAX, wall: Microseconds::MAX };
        assert!(!Deadline::NEVER.has_come(end));
        assert!(!Deadline::NEVER.before(Duration::MAX).has_come(end));
        assert_eq!(Deadline::NEVER.left(end), None);
        assert!(Deadline::after(end, Duration::from_secs(1)).left(end).is_none());
    }
}
