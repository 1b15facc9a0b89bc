//! The steps of a refresh, at each of which a process can end or freeze by order.
//!
//! lock → load → save the intent → check the lock → send → save the tokens → release

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tower_refresh::store::{StoreError, StoreLock, StoredTokens, TokenStore, WriteId};
use tower_refresh::{Renewal, SourceInfo, TokenError, TokenSet, TokenSource};

use crate::worker::{Reporter, say};

/// All steps, in order, except those while a token request is in transit, which only the test can see.
pub const STEPS: [&str; 14] = [
    "before the lock",
    "after the lock",
    "before the load",
    "after the load",
    "before the intent",
    "after the intent",
    "before the look",
    "after the look",
    "before the sending",
    "after the answer",
    "before the save",
    "after the save",
    "before the release",
    "after the release",
];

/// The step to halt at, and the way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Halt {
    pub at: String,
    /// The number of times that the step is passed before.
    pub skip: usize,
    pub how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    Kill,
    Stop,
}

#[derive(Clone)]
pub struct Steps {
    halt: Option<Halt>,
    passed: Arc<AtomicUsize>,
}

impl Steps {
    pub fn new(halt: Option<Halt>) -> Self {
        Self { halt, passed: Arc::default() }
    }

    fn reach(&self, step: &str) {
        let Some(halt) = self.halt.as_ref().filter(|halt| halt.at == step) else { return };
        if self.passed.fetch_add(1, Ordering::Relaxed) != halt.skip {
            return;
        }
        say(&json!({ "at": step }));
        let signal = match halt.how {
            How::Kill => Signal::KILL,
            How::Stop => Signal::STOP,
        };
        kill_process(getpid(), signal).unwrap();
        // Another thread may handle the signal. This one waits until it has.
        std::thread::sleep(Duration::from_millis(100));
    }
}

// ===== the store =====

#[derive(Clone)]
pub struct SteppedStore<T> {
    pub store: T,
    pub steps: Steps,
}

pub struct SteppedLock<L> {
    lock: L,
    steps: Steps,
}

impl<T: TokenStore> TokenStore for SteppedStore<T> {
    type Lock = SteppedLock<T::Lock>;

    async fn lock(&self, wait: Duration) -> Result<Self::Lock, StoreError> {
        self.steps.reach("before the lock");
        let lock = self.store.lock(wait).await?;
        self.steps.reach("after the lock");
        Ok(SteppedLock { lock, steps: self.steps.clone() })
    }

    async fn load(&self) -> Result<Option<StoredTokens>, StoreError> {
        self.steps.reach("before the load");
        let loaded = self.store.load().await?;
        self.steps.reach("after the load");
        Ok(loaded)
    }

    async fn save(
        &self,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> Result<(), StoreError> {
        let (before, after) = if record.has_open_intent() {
            ("before the intent", "after the intent")
        } else {
            ("before the save", "after the save")
        };
        self.steps.reach(before);
        self.store.save(record, replaces).await?;
        self.steps.reach(after);
        Ok(())
    }

    fn describe(&self) -> String {
        self.store.describe()
    }
}

impl<L: StoreLock> StoreLock for SteppedLock<L> {
    async fn is_held(&self) -> Result<bool, StoreError> {
        self.steps.reach("before the look");
        let is_held = self.lock.is_held().await?;
        self.steps.reach("after the look");
        Ok(is_held)
    }

    async fn release(self) {
        self.steps.reach("before the release");
        self.lock.release().await;
        self.steps.reach("after the release");
    }
}

// ===== the source =====

/// Reports each refresh token before it is sent.
pub struct SteppedSource<S> {
    pub source: S,
    pub steps: Steps,
    pub reporter: Reporter,
}

impl<S: TokenSource> TokenSource for SteppedSource<S> {
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        let number = renewal.refresh_token().ok().map(|token| number_of(token.expose_secret()));
        if let Some(number) = number {
            // Pending reports come first.
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
            say(&json!({ "sending": number, "told": self.reporter.has_told() }));
            self.steps.reach("before the sending");
        }
        let answer = self.source.fetch(renewal).await;
        if number.is_some() {
            self.steps.reach("after the answer");
        }
        answer
    }

    fn info(&self) -> SourceInfo {
        self.source.info()
    }
}

/// Returns the number of a token of the testing server, `rt-3-…`, or 0 for other tokens.
pub fn number_of(token: &str) -> u64 {
    token.split('-').nth(1).and_then(|number| number.parse().ok()).unwrap_or_default()
}
