//! The functions without the feature `metrics`: they have no effect.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Ending, Eviction, Troubles};
use crate::classify::Verdict;
use crate::clock::Clock;
use crate::grant::backing::Backing;
use crate::source::Cause;

#[derive(Clone)]
pub(crate) struct Metrics;

pub(crate) struct Waiter;

pub(crate) struct Refreshing;

pub(crate) struct Place;

impl Metrics {
    pub(crate) fn new(_: Arc<str>) -> Self {
        Self
    }

    pub(crate) fn of_pool(_: Arc<str>) -> Self {
        Self
    }

    pub(crate) fn response(&self, _: Verdict, _is_retry: bool) {}

    pub(crate) fn untouched(&self, _is_rejected: bool) {}

    pub(crate) fn not_sent(&self) {}

    pub(crate) fn wait(&self, _: &Arc<dyn Clock>) -> Waiter {
        Waiter
    }

    pub(crate) fn refresh(&self, _: Cause, _: &Arc<dyn Clock>) -> Refreshing {
        Refreshing
    }

    pub(crate) fn lost(&self) {}

    pub(crate) fn expires(&self, _: Option<SystemTime>) {}

    pub(crate) fn measured(
        &self,
        backing: Box<dyn Backing>,
        _: &Arc<dyn Clock>,
    ) -> Box<dyn Backing> {
        backing
    }

    pub(crate) fn pool_grows(&self) {}

    pub(crate) fn pool_shrinks(&self) {}

    pub(crate) fn evicted(&self, _: Eviction) {}

    pub(crate) fn place(&self, _limit: usize) -> Place {
        Place
    }
}

impl Refreshing {
    pub(crate) fn ends(&self, _: Ending<'_>) {}
}

pub(crate) struct Standing {
    pub(crate) metrics: Metrics,
}

impl Standing {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self { metrics }
    }

    pub(crate) fn note(&self, _: impl FnOnce() -> Troubles) -> Change {
        Change
    }

    pub(crate) fn apply(&self, _: Change) {}
}

pub(crate) struct Change;
