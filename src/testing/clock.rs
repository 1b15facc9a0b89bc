//! Clocks that a test holds in its hand.

use std::fmt;
#[expect(
    clippy::disallowed_types,
    reason = "two numbers that are read and written together; a test's clock is no hot path"
)]
use std::sync::Mutex;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::clock::{Clock, Timestamp};

/// A clock that stands still until the test moves it.
///
/// Clones are the same clock: one goes to the client under test, one stays in the test, and one may go to the
/// [server](super::AuthorizationServerBuilder::clock).
///
/// It moves no timer. Where the code under test sleeps as well as reads the time, [`TokioClock`] with tokio's paused
/// time keeps both together.
///
/// ```
/// use std::time::Duration;
/// use tower_refresh::Clock;
/// use tower_refresh::testing::ManualClock;
///
/// let clock = ManualClock::new();
/// let before = clock.now();
///
/// // An hour with the lid closed.
/// clock.suspend(Duration::from_secs(3600));
///
/// assert_eq!(clock.now().monotonic(), before.monotonic());
/// assert_eq!(clock.now().since_epoch() - before.since_epoch(), Duration::from_secs(3600));
/// ```
#[derive(Clone)]
pub struct ManualClock {
    #[expect(clippy::disallowed_types, reason = "as at its import")]
    time: Arc<Mutex<Time>>,
}

#[derive(Clone, Copy)]
struct Time {
    monotonic: Duration,
    wall: SystemTime,
}

impl ManualClock {
    /// Creates a clock that stands at 2023-11-14T22:13:20Z, an arbitrary moment.
    pub fn new() -> Self {
        Self::at(epoch())
    }

    /// Creates a clock that stands at this time of day.
    pub fn at(wall: SystemTime) -> Self {
        #[expect(clippy::disallowed_types, reason = "as at its import")]
        let time = Mutex::new(Time {
            // Not zero, so that code which takes zero for "never" is found out.
            monotonic: Duration::from_secs(1000),
            wall,
        });
        Self { time: Arc::new(time) }
    }

    /// Moves both readings forward: time passes.
    pub fn advance(&self, by: Duration) {
        let mut time = self.lock();
        time.monotonic = time.monotonic.saturating_add(by);
        time.wall = time.wall.checked_add(by).unwrap_or(time.wall);
    }

    /// Moves the monotonic reading alone: time passes while somebody holds the wall clock back.
    pub fn advance_monotonic(&self, by: Duration) {
        let mut time = self.lock();
        time.monotonic = time.monotonic.saturating_add(by);
    }

    /// Moves the wall reading forward and leaves the monotonic one: the machine slept, and the monotonic clock with it.
    pub fn suspend(&self, for_: Duration) {
        self.step_forward(for_);
    }

    /// Moves the wall reading forward and leaves the monotonic one: somebody set the clock.
    pub fn step_forward(&self, by: Duration) {
        let mut time = self.lock();
        time.wall = time.wall.checked_add(by).unwrap_or(time.wall);
    }

    /// Moves the wall reading back and leaves the monotonic one: somebody set the clock.
    pub fn step_back(&self, by: Duration) {
        let mut time = self.lock();
        time.wall = time.wall.checked_sub(by).unwrap_or(time.wall);
    }

    /// Sets the wall reading and leaves the monotonic one.
    pub fn set_wall(&self, to: SystemTime) {
        self.lock().wall = to;
    }

    fn lock(&self) -> MutexGuard<'_, Time> {
        // Nothing that can panic runs under the lock.
        self.time.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        let time = *self.lock();
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

/// A clock that follows tokio's, and so its paused time.
///
/// Both readings move together: the wall clock shows 2023-11-14T22:13:20Z when the clock is created, and moves as
/// [`tokio::time::Instant`] does. Under `#[tokio::test(start_paused = true)]` a token then expires exactly when a sleep
/// of its lifetime ends, in no real time at all.
///
/// Clones show the same time. Two clocks that were created at different moments do not.
#[derive(Clone, Debug)]
pub struct TokioClock {
    start: tokio::time::Instant,
}

impl TokioClock {
    /// Creates a clock that starts now, by the time of the runtime that it is called in.
    #[expect(
        clippy::disallowed_methods,
        reason = "a `Clock` itself: what everything else is to read the time by"
    )]
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

/// A moment as good as any other, and not close to a round number of days.
fn epoch() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reading_of_the_manual_clock_moves_alone() {
        let clock = ManualClock::new();
        let start = clock.now();
        let moved = || {
            let now = clock.now();
            let wall = now.since_epoch().as_secs() as i64 - start.since_epoch().as_secs() as i64;
            ((now.monotonic() - start.monotonic()).as_secs(), wall)
        };

        clock.advance(Duration::from_secs(1));
        assert_eq!(moved(), (1, 1));
        clock.advance_monotonic(Duration::from_secs(2));
        assert_eq!(moved(), (3, 1));
        clock.suspend(Duration::from_secs(10));
        assert_eq!(moved(), (3, 11));
        clock.clone().step_back(Duration::from_secs(20));
        assert_eq!(moved(), (3, -9));
        clock.step_forward(Duration::from_secs(9));
        assert_eq!(moved(), (3, 0));
        clock.set_wall(SystemTime::UNIX_EPOCH);
        assert_eq!(clock.now().since_epoch(), Duration::ZERO);
        assert_eq!(moved().0, 3);
    }

    #[test]
    fn the_manual_clock_survives_absurd_orders() {
        let clock = ManualClock::new();
        clock.advance(Duration::MAX);
        clock.advance_monotonic(Duration::MAX);
        clock.step_back(Duration::MAX);
        assert_eq!(clock.now().monotonic(), Duration::MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn the_tokio_clock_follows_paused_time() {
        let clock = TokioClock::new();
        let start = clock.now();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let hour = Duration::from_secs(3600);
        assert_eq!(clock.now().monotonic() - start.monotonic(), hour);
        assert_eq!(clock.clone().now().since_epoch() - start.since_epoch(), hour);
    }
}
