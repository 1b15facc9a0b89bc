//! A store whose operations are measured.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ::metrics::SharedString;

use super::recorded::{Metrics, Timer};
use crate::clock::Clock;
use crate::grant::backing::{Backing, BackingLock, BoxFuture, Failure};
use crate::grant::record::{Record, WriteId};

pub(super) fn measured(
    metrics: &Metrics,
    backing: Box<dyn Backing>,
    clock: &Arc<dyn Clock>,
) -> Box<dyn Backing> {
    let store = short(backing.type_name()).into();
    let gauge = Gauge { metrics: metrics.clone(), clock: Arc::clone(clock), store };
    Box::new(Measured { backing, gauge })
}

struct Measured {
    backing: Box<dyn Backing>,
    gauge: Gauge,
}

/// Measures the operations of one store.
#[derive(Clone)]
struct Gauge {
    metrics: Metrics,
    clock: Arc<dyn Clock>,
    /// The label `store`.
    store: SharedString,
}

impl Gauge {
    fn operation(&self, name: &'static str) -> Operation<'_> {
        let timer = Timer::start(&self.metrics, &self.clock);
        Operation { timer, store: &self.store, name, outcome: "no_answer" }
    }

    async fn run<T>(
        &self,
        name: &'static str,
        operation: impl Future<Output = Result<T, Failure>>,
        outcome: impl FnOnce(&T) -> &'static str,
    ) -> Result<T, Failure> {
        let mut measured = self.operation(name);
        let result = operation.await;
        measured.outcome = match &result {
            Ok(value) => outcome(value),
            Err(Failure::Conflict) => "conflict",
            Err(Failure::Unavailable(_)) => "unavailable",
            Err(Failure::Failed(_)) => "failure",
        };
        result
    }
}

/// An operation, which has no answer if it is dropped before its end.
struct Operation<'a> {
    timer: Timer,
    store: &'a SharedString,
    name: &'static str,
    outcome: &'static str,
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        let took = self.timer.elapsed();
        self.timer.metrics.store_operation(self.store, self.name, self.outcome, took);
    }
}

impl Backing for Measured {
    fn lock_or_wait(
        &self,
        wait: Duration,
    ) -> BoxFuture<'_, Result<Option<Box<dyn BackingLock>>, Failure>> {
        Box::pin(async move {
            let taking = self.backing.lock_or_wait(wait);
            let is_taken = |lock: &Option<_>| if lock.is_some() { "success" } else { "held" };
            let lock = self.gauge.run("lock", taking, is_taken).await?;
            Ok(lock.map(|lock| Box::new(Held { lock, gauge: self.gauge.clone() }) as _))
        })
    }

    fn load(&self) -> BoxFuture<'_, Result<Option<Record>, Failure>> {
        Box::pin(self.gauge.run("load", self.backing.load(), |_| "success"))
    }

    fn save<'a>(
        &'a self,
        record: &'a Record,
        replaces: Option<WriteId>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(self.gauge.run("save", self.backing.save(record, replaces), |()| "success"))
    }

    fn describe(&self) -> String {
        self.backing.describe()
    }

    fn type_name(&self) -> &'static str {
        self.backing.type_name()
    }

    #[cfg(feature = "pool")]
    fn survives_drop(&self) -> bool {
        self.backing.survives_drop()
    }
}

struct Held {
    lock: Box<dyn BackingLock>,
    gauge: Gauge,
}

impl BackingLock for Held {
    fn is_held(&self) -> BoxFuture<'_, Result<bool, Failure>> {
        let outcome = |is_held: &bool| if *is_held { "success" } else { "lost" };
        Box::pin(self.gauge.run("check", self.lock.is_held(), outcome))
    }

    fn release(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let Self { lock, gauge } = *self;
            let mut released = gauge.operation("release");
            lock.release().await;
            released.outcome = "success";
        })
    }
}

/// Returns the name of a type without its path, such as `EncryptedStore<RedisStore>`.
fn short(type_name: &str) -> String {
    let mut short = String::new();
    for part in type_name.split_inclusive(|c: char| !c.is_alphanumeric() && c != '_' && c != ':') {
        short.push_str(part.rsplit("::").next().unwrap_or(part));
    }
    short
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn store_is_labelled_with_its_type_without_a_path() {
        assert_eq!(short("a::memory::MemoryStore"), "MemoryStore");
        assert_eq!(short("a::b::Encrypted<c::RedisStore>"), "Encrypted<RedisStore>");
        assert_eq!(short("a::Pair<b::One, c::Two<d::Three>>"), "Pair<One, Two<Three>>");
    }
}
