//! A time limit that does not lose a response that has already arrived.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::yield_now;
use tokio::time::{Instant, Sleep, timeout_at};

/// The time limit of one exchange, which may await several futures in turn.
///
/// A process can be stopped for longer than the limit: by a signal, with its virtual machine, or because its runtime is not
/// polled. When it goes on, the timer is due, and the answer may lie in a socket that no task has read yet. The invariant is
/// therefore: a future is dropped only if it is still pending after every task that was runnable when the limit passed has
/// run, and the I/O driver as well. If the timer fired late, the future gets further time in proportion.
pub(crate) struct Limit {
    end: Instant,
    has_passed: bool,
}

impl Limit {
    pub(crate) fn after(duration: Duration) -> Self {
        let now = now();
        let end = now.checked_add(duration).unwrap_or_else(|| now + FAR_FUTURE);
        Self { end, has_passed: false }
    }

    #[cfg(feature = "oauth2")]
    pub(crate) fn is_over(&self) -> bool {
        self.has_passed || self.end <= now()
    }

    /// Returns the time until the limit.
    pub(crate) fn left(&self) -> Duration {
        self.end.saturating_duration_since(now())
    }

    /// Awaits a future until the limit, and returns `None` if it is still pending then.
    pub(crate) async fn run<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        if !self.has_passed {
            if let Ok(output) = timeout_at(self.end, &mut future).await {
                return Some(output);
            }
            self.has_passed = true;
            self.end = further_time(self.end).unwrap_or(self.end);
        }
        // Each yield lets the I/O driver run. An answer passes through several tasks: the connection's, a buffer's.
        for _ in 0..YIELDS {
            yield_now().await;
            if let Some(output) = (&mut future).now_or_never() {
                return Some(output);
            }
        }
        timeout_at(self.end, future).await.ok()
    }
}

/// Waits until a timer has fired and every task that was runnable then has run, and for the further time if it fired late.
pub(crate) async fn passed(timer: Sleep) {
    let mut timer = pin!(timer);
    timer.as_mut().await;
    let further = further_time(timer.deadline());
    for _ in 0..YIELDS {
        yield_now().await;
    }
    if let Some(end) = further {
        timer.as_mut().reset(end);
        timer.await;
    }
}

/// Returns the end of the further time after a timer that fires now, later than its deadline.
fn further_time(deadline: Instant) -> Option<Instant> {
    let now = now();
    let late = now.duration_since(deadline);
    (late > ON_TIME).then(|| now + late.clamp(SHORTEST_GRACE, LONGEST_GRACE))
}

#[expect(
    clippy::disallowed_methods,
    reason = "compared with tokio's timers, which use no other clock"
)]
fn now() -> Instant {
    Instant::now()
}

/// A timer that fires this much after its deadline is not late: timers are exact to a millisecond, and tasks are scheduled.
const ON_TIME: Duration = Duration::from_millis(10);

/// The further time after a timer that fired late. All tasks of a process, or all processes of a machine, go on at once.
const SHORTEST_GRACE: Duration = Duration::from_secs(1);

/// A server repeats a segment that was not acknowledged after a pause that grows with the time of the stop.
const LONGEST_GRACE: Duration = Duration::from_secs(30);

const YIELDS: usize = 64;

/// The duration that tokio uses for a timer that never fires.
const FAR_FUTURE: Duration = Duration::from_secs(86_400 * 365 * 30);

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::time::{advance, sleep};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// S1
    #[tokio::test(start_paused = true)]
    async fn answer_that_waits_behind_other_tasks_is_used_after_a_stop() {
        for hops in [1, 10, 50] {
            let mut limit = Limit::after(2 * SECOND);
            let (sender, answer) = oneshot::channel();
            let work = tokio::spawn(async move { limit.run(answer).await });
            // The answer arrives within the limit, and is read after as many tasks have run.
            tokio::spawn(async move {
                sleep(SECOND).await;
                for _ in 0..hops {
                    yield_now().await;
                }
                sender.send("answer")
            });
            yield_now().await;
            advance(4 * SECOND).await;
            assert_eq!(work.await.unwrap(), Some(Ok("answer")), "{hops}");
        }
    }

    /// S1
    #[tokio::test(start_paused = true)]
    async fn answer_that_arrives_together_with_the_limit_is_used() {
        let mut limit = Limit::after(2 * SECOND);
        let answer = tokio::spawn(async {
            sleep(2 * SECOND).await;
            for _ in 0..20 {
                yield_now().await;
            }
        });
        assert!(limit.run(answer).await.is_some());
    }

    /// S1
    #[tokio::test(start_paused = true)]
    async fn late_timer_leaves_time_in_proportion_and_a_bounded_one() {
        for (stopped, answered, expected) in [
            (3, 900, Some(())),
            (3, 1100, None),
            (22, 19_000, Some(())),
            (3600, 29_000, Some(())),
            (3600, 31_000, None),
        ] {
            let mut limit = Limit::after(2 * SECOND);
            let work = tokio::spawn(async move {
                let answer = sleep(stopped * SECOND + Duration::from_millis(answered));
                limit.run(answer).await
            });
            yield_now().await;
            advance(stopped * SECOND).await;
            assert_eq!(work.await.unwrap(), expected, "{stopped} {answered}");
        }
    }

    /// S1
    #[expect(clippy::disallowed_methods, reason = "tokio's clock is paused")]
    #[tokio::test(start_paused = true)]
    async fn timer_on_time_is_not_extended() {
        let begun = Instant::now();
        let mut limit = Limit::after(2 * SECOND);
        assert_eq!(limit.run(std::future::pending::<()>()).await, None);
        assert_eq!(limit.run(std::future::pending::<()>()).await, None);
        assert!(begun.elapsed() < 2 * SECOND + ON_TIME);
        assert_eq!(limit.run(std::future::ready(1)).await, Some(1));
        assert_eq!(Limit::after(Duration::MAX).run(std::future::ready(2)).await, Some(2));
    }
}
