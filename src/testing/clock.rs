//! Clocks that a test controls.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock::{Clock, Timestamp};
use crate::lock::Lock;

/// A clock that the test moves.
///
/// Clones are the same clock: pass one to the client under test, one to the
/// [server](super::AuthorizationServerBuilder::clock) if you like, and keep one.
///
/// It moves no timer. If the code under test sleeps, use [`TokioClock`] with tokio's paused time instead.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_refresh::Clock;
/// use tower_refresh::testing::ManualClock;
///
/// let clock = ManualClock::new();
/// let before = clock.now();
///
/// // The machine is suspended for an hour.
/// clock.advance_wall(Duration::from_secs(3600));
///
/// assert_eq!(clock.now().monotonic(), before.monotonic());
/// assert_eq!(clock.now().since_epoch() - before.since_epoch(), Duration::from_secs(3600));
/// ```
#[derive(Clone)]
pub struct ManualClock {
    time: Arc<Lock<Time>>,
}

#[derive(Clone, Copy)]
struct Time {
    monotonic: Duration,
    wall: SystemTime,
}

impl ManualClock {
    /// Creates a clock at 2023-11-14T22:13:20Z, an arbitrary time.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::Clock;
    /// use tower_refresh::testing::ManualClock;
    ///
    /// let clock = ManualClock::new();
    /// assert_eq!(clock.now().since_epoch().as_secs(), 1_700_000_000);
    /// ```
    pub fn new() -> Self {
        Self::at(epoch())
    }

    /// Creates a clock at this wall time.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    /// use tower_refresh::Clock;
    /// use tower_refresh::testing::ManualClock;
    ///
    /// let clock = ManualClock::at(SystemTime::UNIX_EPOCH + Duration::from_secs(60));
    /// assert_eq!(clock.now().since_epoch().as_secs(), 60);
    /// ```
    pub fn at(wall: SystemTime) -> Self {
        let time = Lock::new(Time {
            // Not zero, to detect code in which zero means "never".
            monotonic: Duration::from_secs(1000),
            wall,
        });
        Self { time: Arc::new(time) }
    }

    /// Moves both readings forward: time passes.
    pub fn advance(&self, by: Duration) {
        let mut time = self.time.lock();
        time.monotonic = time.monotonic.saturating_add(by);
        time.wall = time.wall.checked_add(by).unwrap_or(time.wall);
    }

    /// Moves the wall clock forward and leaves the monotonic reading: the machine was suspended, or its clock was set forward.
    #[doc(alias = "suspend")]
    pub fn advance_wall(&self, by: Duration) {
        let mut time = self.time.lock();
        time.wall = time.wall.checked_add(by).unwrap_or(time.wall);
    }

    /// Moves the wall clock back and leaves the monotonic reading: the clock of the machine was set back.
    pub fn rewind_wall(&self, by: Duration) {
        let mut time = self.time.lock();
        time.wall = time.wall.checked_sub(by).unwrap_or(time.wall);
    }

    /// Sets the wall clock and leaves the monotonic reading.
    pub fn set_wall(&self, to: SystemTime) {
        self.time.lock().wall = to;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        let time = *self.time.lock();
        Timestamp::new(time.monotonic, time.wall)
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ManualClock").field(&self.now()).finish()
    }
}

/// A clock that follows tokio's time, paused or not.
///
/// The wall clock starts at 2023-11-14T22:13:20Z and moves with [`tokio::time::Instant`], and so does the monotonic reading. With
/// `#[tokio::test(start_paused = true)]`, a token expires exactly when a sleep of its lifetime ends, and the test takes no real
/// time.
///
/// Clones show the same time. Two clocks that were created at different times do not.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_refresh::Clock;
/// use tower_refresh::testing::TokioClock;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let clock = TokioClock::new();
/// tokio::time::sleep(Duration::from_secs(3600)).await;
/// assert_eq!(clock.now().monotonic(), Duration::from_secs(3600));
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TokioClock {
    start: tokio::time::Instant,
}

impl TokioClock {
    /// Creates a clock that starts now, by the time of the current runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::testing::TokioClock;
    /// use tower_refresh::{Credentials, StaticToken};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_refresh::TokenError> {
    /// let source = StaticToken::new("sesame".parse()?);
    /// let credentials = Credentials::builder(source).clock(TokioClock::new()).build();
    /// # Ok(())
    /// # }
    /// ```
    #[expect(clippy::disallowed_methods, reason = "a `Clock` reads the time itself")]
    pub fn new() -> Self {
        Self { start: tokio::time::Instant::now() }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        let elapsed = self.start.elapsed();
        Timestamp::new(elapsed, epoch() + elapsed)
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::new()
    }
}

/// An arbitrary time, not close to a round number of days.
fn epoch() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_clock_moves_each_reading_alone() {
        let clock = ManualClock::new();
        let start = clock.now();
        let moved = || {
            let now = clock.now();
            let wall = now.since_epoch().as_secs() as i64 - start.since_epoch().as_secs() as i64;
            ((now.monotonic() - start.monotonic()).as_secs(), wall)
        };

        clock.advance(Duration::from_secs(1));
        assert_eq!(moved(), (1, 1));
        clock.advance_wall(Duration::from_secs(10));
        assert_eq!(moved(), (1, 11));
        clock.clone().rewind_wall(Duration::from_secs(20));
        assert_eq!(moved(), (1, -9));
        clock.set_wall(SystemTime::UNIX_EPOCH);
        assert_eq!(clock.now().since_epoch(), Duration::ZERO);
        assert_eq!(moved().0, 1);
    }

    #[test]
    fn manual_clock_does_not_overflow() {
        let clock = ManualClock::new();
        clock.advance(Duration::MAX);
        clock.advance(Duration::MAX);
        clock.rewind_wall(Duration::MAX);
        assert_eq!(clock.now().monotonic(), Duration::from_micros(u64::MAX / 2));
        let most = clock.now().monotonic();
        clock.advance(Duration::MAX);
        assert_eq!(clock.now().monotonic(), most);
    }

    #[tokio::test(start_paused = true)]
    async fn tokio_clock_follows_paused_time() {
        let clock = TokioClock::new();
        let start = clock.now();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let hour = Duration::from_secs(3600);
        assert_eq!(clock.now().monotonic() - start.monotonic(), hour);
        assert_eq!(clock.clone().now().since_epoch() - start.since_epoch(), hour);
    }
}
