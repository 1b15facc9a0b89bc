//! Failed checks and time limits.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::resume_unwind;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::store::{StoreError, StoreLock};

pub(super) const LAW_1: &str = "law 1 (one row and one lock for a grant)";
pub(super) const LAW_2: &str = "law 2 (the lock is exclusive)";
pub(super) const LAW_3: &str = "law 3 (a lock reports whether it is held)";
pub(super) const LAW_4: &str = "law 4 (a save compares and swaps)";
pub(super) const LAW_5: &str = "law 5 (a save is whole and durable)";
pub(super) const LAW_6: &str = "law 6 (a load returns the last record, whole)";
pub(super) const CANCEL_SAFETY: &str = "cancel safety";

/// The limit for an operation that does not wait, on the slowest machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The limit for the release of a dropped lock: longer than the lease of any store.
pub(super) const LEASE: Duration = Duration::from_secs(60);

/// Long enough to see that a lock waits.
pub(super) const SHORT: Duration = Duration::from_millis(100);

#[expect(clippy::panic, reason = "an assertion, for the tests of others")]
pub(super) fn broken(law: &str, seen: impl fmt::Display) -> ! {
    panic!("the store breaks {law}, see `TokenStore`: {seen}")
}

/// Returns the output of an operation that must succeed.
pub(super) fn must<T>(law: &str, what: &str, result: Result<T, StoreError>) -> T {
    result.unwrap_or_else(|error| broken(law, format_args!("{what} failed: {error}")))
}

/// Awaits an operation that must succeed within this time.
pub(super) async fn must_in_time<T>(
    law: &str,
    what: &str,
    limit: Duration,
    future: impl Future<Output = Result<T, StoreError>>,
) -> T {
    must(law, what, in_time(law, what, limit, future).await)
}

pub(super) async fn must_be_held(lock: &impl StoreLock) {
    if !must_in_time(LAW_3, "`is_held`", PATIENCE, lock.is_held()).await {
        broken(LAW_3, "`is_held` is false for a held lock");
    }
}

pub(super) async fn in_time<F: Future>(
    law: &str,
    what: &str,
    limit: Duration,
    future: F,
) -> F::Output {
    match timeout(limit, future).await {
        Ok(output) => output,
        Err(_) => broken(law, format_args!("{what} did not end within {limit:?}")),
    }
}

/// Polls a future at most this often and drops it. Returns its output if it is ready by then.
pub(super) async fn polled<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = times;
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        left -= 1;
        if left == 0 { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}

pub(super) async fn joined<T>(task: JoinHandle<T>) -> T {
    passed_on(task.await)
}

pub(super) async fn all_of(mut tasks: JoinSet<()>) {
    while let Some(task) = tasks.join_next().await {
        passed_on(task);
    }
}

/// Returns the output of a task, or continues its panic.
pub(super) fn passed_on<T>(task: Result<T, JoinError>) -> T {
    match task.map_err(JoinError::try_into_panic) {
        Ok(output) => output,
        Err(Ok(panic)) => resume_unwind(panic),
        Err(Err(error)) => broken("no law", format_args!("a task of the test has ended: {error}")),
    }
}
