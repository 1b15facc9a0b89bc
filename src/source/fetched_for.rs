//! The credentials that a fetch is for: waiting for them within the fetch would be a deadlock.

use std::future::Future;

tokio::task_local! {
    static CURRENT: FetchedFor;
}

/// The credentials that wait for the fetch of a task: those that started it, and those that wait for them.
///
/// The task, the [`Renewal`](super::Renewal) and the extensions of each token request have them, since a buffer makes the call in a
/// task of its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct FetchedFor(Vec<u64>);

impl FetchedFor {
    /// Returns those of the current task.
    pub(crate) fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Returns whether the current task fetches for these credentials.
    pub(crate) fn current_includes(id: u64) -> bool {
        CURRENT.try_with(|current| current.includes(id)).unwrap_or(false)
    }

    pub(crate) fn and(mut self, id: u64) -> Self {
        self.0.push(id);
        self
    }

    /// Returns whether the fetch is for another one, which waits for it.
    pub(crate) fn is_nested(&self) -> bool {
        self.0.len() > 1
    }

    pub(crate) fn includes(&self, id: u64) -> bool {
        self.0.contains(&id)
    }

    /// Makes them those of the task that runs a future.
    pub(crate) fn scope<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, future)
    }
}
