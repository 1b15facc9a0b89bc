//! The budget of refreshes that the rejections of one origin may start.

use std::time::Duration;

use crate::clock::Timestamp;

/// The budgets of the origins that have started refreshes. A full one needs no memory.
///
/// A budget gains one refresh per interval.
#[derive(Debug, Default)]
pub(super) struct Budgets(Vec<Budget>);

/// How much of a budget a rejection may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// The last refresh for the target did not help: one is left for the first rejection elsewhere.
    AllButOne,
    All,
    /// All responses reject the token, which they accepted before: the spare refreshes as well.
    Spare,
}

impl Budgets {
    /// Returns how long the rejections of an origin start no refresh, because this share of its budget is used up.
    pub(super) fn exhausted_for(
        &self,
        now: Timestamp,
        origin: u32,
        share: Share,
        interval: Duration,
    ) -> Option<Duration> {
        match self.0.iter().find(|budget| budget.origin == origin) {
            Some(budget) => budget.exhausted_for(now, share),
            None if self.0.len() < ORIGINS => None,
            // With so many origins that reject, another one has no budget.
            None => self.0.iter().all(|budget| !budget.is_full(now)).then_some(interval),
        }
    }

    /// Takes a refresh from the budget of an origin.
    pub(super) fn charge(&mut self, now: Timestamp, origin: u32, interval: Duration) {
        if self.of(origin).is_none() {
            self.0.retain(|budget| !budget.is_full(now));
            if self.0.len() < ORIGINS {
                self.0.push(Budget::new(now, origin, interval));
            }
        }
        if let Some(budget) = self.of(origin) {
            budget.charge(now);
        }
    }

    /// Gives a useful refresh back to the budget of its origin.
    pub(super) fn refund(&mut self, now: Timestamp, origin: u32) {
        if let Some(budget) = self.of(origin) {
            budget.refund(now);
        }
    }

    /// Returns the longest time for which a budget is used up.
    pub(super) fn longest_exhausted(&self, now: Timestamp) -> Option<Duration> {
        self.0.iter().filter_map(|budget| budget.exhausted_for(now, Share::All)).max()
    }

    fn of(&mut self, origin: u32) -> Option<&mut Budget> {
        self.0.iter_mut().find(|budget| budget.origin == origin)
    }
}

#[derive(Debug)]
struct Budget {
    origin: u32,
    refreshes: Allowance,
    spare: u32,
    /// Limits what is given back: behind a load balancer with one broken server, each retry looks useful.
    refunds: Allowance,
}

impl Budget {
    fn new(now: Timestamp, origin: u32, interval: Duration) -> Self {
        Self {
            origin,
            refreshes: Allowance::full(now, BUDGET, interval),
            spare: SPARE,
            refunds: Allowance::full(now, REFUNDS, interval / 10),
        }
    }

    fn is_full(&self, now: Timestamp) -> bool {
        self.refreshes.left(now) == BUDGET
    }

    /// Returns how long until the budget has something of this share, if it has nothing now.
    fn exhausted_for(&self, now: Timestamp, share: Share) -> Option<Duration> {
        let kept = u32::from(share == Share::AllButOne);
        let has_spare = share == Share::Spare && self.spare > 0;
        (!has_spare && self.refreshes.left(now) <= kept).then(|| self.refreshes.next_in(now))
    }

    fn charge(&mut self, now: Timestamp) {
        if self.is_full(now) {
            self.spare = SPARE;
        }
        if !self.refreshes.take(now) {
            self.spare = self.spare.saturating_sub(1);
        }
    }

    fn refund(&mut self, now: Timestamp) {
        if !self.refunds.take(now) {
            return;
        }
        match self.spare {
            SPARE.. => self.refreshes.give_back(),
            _ => self.spare += 1,
        }
    }
}

/// A number that grows by one per interval, up to a capacity.
#[derive(Debug)]
struct Allowance {
    left: u32,
    capacity: u32,
    interval: Duration,
    /// Start of the current interval, on the monotonic clock.
    since: Duration,
}

impl Allowance {
    fn full(now: Timestamp, capacity: u32, interval: Duration) -> Self {
        Self { left: capacity, capacity, interval, since: now.monotonic() }
    }

    fn left(&self, now: Timestamp) -> u32 {
        self.left.saturating_add(self.gained(now)).min(self.capacity)
    }

    /// Takes one. Returns false if the allowance is used up.
    fn take(&mut self, now: Timestamp) -> bool {
        let gained = self.gained(now);
        self.left = self.left(now);
        self.since = match self.left == self.capacity {
            // The next interval begins when something is taken.
            true => now.monotonic(),
            false => self.since.saturating_add(self.interval.saturating_mul(gained)),
        };
        let is_taken = self.left > 0;
        self.left -= u32::from(is_taken);
        is_taken
    }

    fn give_back(&mut self) {
        self.left = self.capacity.min(self.left + 1);
    }

    /// Returns the time until it grows by one.
    fn next_in(&self, now: Timestamp) -> Duration {
        let end = self.interval.saturating_mul(self.gained(now).saturating_add(1));
        end.saturating_sub(now.monotonic().saturating_sub(self.since))
    }

    /// Returns the number of intervals that have passed.
    fn gained(&self, now: Timestamp) -> u32 {
        let passed = now.monotonic().saturating_sub(self.since).as_nanos();
        let intervals = passed.checked_div(self.interval.as_nanos()).unwrap_or(u128::MAX);
        u32::try_from(intervals).unwrap_or(u32::MAX)
    }
}

/// The number of origins with a budget of their own.
pub(super) const ORIGINS: usize = 16;
/// The number of refreshes that the rejections of one origin may start in a row. It gains one per longest backoff.
pub(super) const BUDGET: u32 = 4;
/// The number of further refreshes for a token that all responses reject although they accepted it before. They are restored when
/// the budget is full again.
pub(super) const SPARE: u32 = 3;
/// The number of useful refreshes in a row that are given back to a budget. It gains one per tenth of the longest backoff.
pub(super) const REFUNDS: u32 = 250;
