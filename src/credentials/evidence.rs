//! What responses have shown about the current token, and whether a rejection starts a refresh.
//!
//! A rejection counts against a token only as long as nothing speaks for the token: an endpoint that answers 401 to
//! everything must not cost a refresh per request, and must not keep a real revocation from being repaired either.
//!
//! What always holds:
//!
//! - A target that rejects a token which was obtained because it rejected the one before (a *suspect*) starts no
//!   refresh until its backoff is over, and then only if no response has accepted the current token meanwhile, or about once an
//!   hour.
//! - A target that is no suspect starts a refresh at once, as long as its origin has a budget left. A refresh takes one
//!   from the budget, and gives it back once it has proved useful at its target, at a bounded rate.
//! - A target whose last refresh did not help leaves the last one of the budget to the others.
//! - If a refresh failed, its target starts another only if no response has accepted the token meanwhile.
//! - One origin takes nothing from another.
//! - Only responses count. A retry that never happened proves nothing and releases nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::generation::Generation;
use super::policy::Backoff;
use crate::clock::{Deadline, Timestamp};
use crate::target::Target;

/// How many suspects are remembered.
const SUSPECTS: usize = 16;
/// How many origins have a budget of their own.
const ORIGINS: usize = 16;
/// How many refreshes the rejections of one origin may start in a row; one more for each longest backoff that passes.
const BUDGET: u32 = 4;
/// How many more for a token that all responses reject although they accepted it before, until the budget is full again.
const SPARE: u32 = 3;
/// How many useful refreshes in a row are given back to a budget; one more for each tenth of the longest backoff that passes.
const REFUNDS: u32 = 250;
/// One in so many backoffs of a suspect ends with a refresh although others accept the token: they may accept any token.
const DOUBT_OTHERS: u32 = 12;
/// For how long a target must accept the new token until its refresh counts as useful, if no retry has shown it.
const USEFUL_AFTER: Duration = Duration::from_secs(30);

/// What is known for and against the current token.
#[derive(Debug)]
pub(super) struct Evidence {
    /// The backoff of a suspect: at first, and at the most.
    backoff: Backoff,
    /// How many acceptances were taken in. Most are not: see [`Witness`].
    acceptances: u64,
    /// Whether a response has accepted the current token.
    is_accepted: bool,
    /// Whether the next acceptance is news, wherever it comes from.
    is_awaited: bool,
    /// Since when the current token is rejected and no response accepts it, on the monotonic clock.
    doubted: Option<Duration>,
    /// How many acceptances had been taken in when the last refresh failed.
    failed_after: u64,
    /// Oldest first.
    suspects: Vec<Suspect>,
    budgets: Vec<Budget>,
}

/// A target that has rejected a token, and for which a refresh was made.
#[derive(Debug)]
struct Suspect {
    target: Target,
    /// The newest generation that it is known to have rejected.
    rejected: Generation,
    /// How many refreshes in a row did not help here, or were not made for that reason.
    strikes: u32,
    hold: Option<Hold>,
    /// Whether its refresh may still prove useful, and be given back to the budget.
    is_charged: bool,
    /// When it accepted a newer token, on the monotonic clock: it is no suspect then.
    cleared: Option<Duration>,
}

/// While it lasts, the suspect's rejections start no refresh.
#[derive(Clone, Copy, Debug)]
struct Hold {
    until: Deadline,
    /// How many acceptances had been taken in when it began.
    acceptances: u64,
}

/// How many refreshes the rejections of one origin may still start.
#[derive(Debug)]
struct Budget {
    origin: u32,
    left: u32,
    spare: u32,
    /// When it last began to fill up, on the monotonic clock.
    since: Duration,
    /// How many refreshes it may still get back: behind a load balancer with one broken server, each retry looks useful.
    refunds: u32,
    /// When that last began to fill up.
    refunded_since: Duration,
}

/// How much of a budget a rejection may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    /// The last refresh for the target did not help: one is left for the first rejection elsewhere.
    AllButOne,
    All,
    /// All, and then what is spare: all responses reject the token, which they accepted before.
    Spare,
}

/// What to look out for among the responses that accept a token: any at all (the bit [`ANY`], until there is one), and those
/// of suspects (a bit for each, and their numbers).
///
/// It goes with the token, so that a response that accepts a token that is known to be good costs one relaxed load.
#[derive(Debug)]
pub(super) struct Witness {
    asked: AtomicU64,
    /// The numbers of the suspects: a good target may share a suspect's bit, and must not take the lock for each response.
    suspects: [AtomicU64; SUSPECTS],
}

/// What a response that accepts a token means for its witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Testimony {
    /// Nothing that is not known.
    Known,
    /// It may come from a suspect.
    OfSuspect,
}

/// Any response is looked out for.
const ANY: u64 = 1 << 63;

/// What a rejection of the current token means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It counts against the token.
    Counts,
    /// It starts no refresh.
    Ignored {
        left: Duration,
        /// Whether that begins now.
        begins: bool,
    },
}

impl Evidence {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            acceptances: 0,
            is_accepted: false,
            is_awaited: true,
            doubted: None,
            failed_after: 0,
            suspects: Vec::new(),
            budgets: Vec::new(),
        }
    }

    /// There is a new token, about which nothing is known.
    pub(super) fn token_issued(&mut self) {
        self.is_accepted = false;
        self.is_awaited = true;
        self.doubted = None;
        for hold in self.suspects.iter_mut().filter_map(|suspect| suspect.hold.as_mut()) {
            hold.acceptances = self.acceptances;
        }
    }

    /// A target rejected the current token.
    pub(super) fn judge(
        &mut self,
        now: Timestamp,
        current: Generation,
        target: Target,
    ) -> Judgement {
        self.give_back(now);
        let share = self.share_of(now, target);
        self.forfeit(now, target);
        let acceptances = self.acceptances;
        if let Some(suspect) = self.suspects.iter_mut().find(|suspect| suspect.is(target)) {
            let (left, begins) = match &suspect.hold {
                None if current > suspect.rejected => (None, true),
                None => (None, false),
                Some(hold) => match hold.left(now) {
                    None => (None, acceptances > hold.acceptances && !suspect.is_due()),
                    left => (left, false),
                },
            };
            if begins || left.is_some() {
                if !self.is_accepted {
                    self.doubted.get_or_insert(now.monotonic());
                }
                let left = left.unwrap_or_else(|| {
                    self.is_awaited = true;
                    suspect.strike(now, current, self.backoff, acceptances)
                });
                return Judgement::Ignored { left, begins };
            }
        }
        self.doubted.get_or_insert(now.monotonic());
        self.is_awaited = true;
        match self.exhausted_for(now, target.origin(), share) {
            None => Judgement::Counts,
            Some(left) => Judgement::Ignored { left, begins: false },
        }
    }

    /// A refresh was made because a target rejected this generation.
    pub(super) fn refreshed(&mut self, now: Timestamp, target: Target, rejected: Generation) {
        let suspect = self.suspect(target);
        suspect.rejected = rejected;
        suspect.hold = None;
        suspect.is_charged = true;
        suspect.cleared = None;
        self.charge(now, target.origin());
    }

    /// A refresh failed, which this target's rejection of the current token had started, if any.
    pub(super) fn refresh_failed(
        &mut self,
        now: Timestamp,
        current: Generation,
        target: Option<Target>,
    ) {
        self.is_awaited = true;
        self.failed_after = self.acceptances;
        let (backoff, acceptances) = (self.backoff, self.acceptances);
        if let Some(target) = target {
            let suspect = self.suspect(target);
            suspect.rejected = current;
            suspect.cleared = None;
            if suspect.is_due() {
                suspect.strike(now, current, backoff, acceptances);
            } else {
                // It is over already: the backoff is enough, unless a response accepts the token.
                let until = Deadline::monotonic(now, Duration::ZERO);
                suspect.hold = Some(Hold { until, acceptances });
            }
        }
    }

    /// Returns whether responses have accepted the current token since the last refresh failed, and were not followed by
    /// rejections alone for the longest backoff.
    pub(super) fn speaks_for_the_token(&self, now: Timestamp) -> bool {
        let doubted_for = self.doubted.map(|since| now.monotonic().saturating_sub(since));
        self.acceptances > self.failed_after
            && doubted_for.is_none_or(|doubted_for| doubted_for < self.backoff.max)
    }

    /// Takes in what the responses to the current token have shown, which are counted without the lock.
    pub(super) fn hear(&mut self, witness: &Witness) {
        if self.is_awaited && witness.has_accepted() {
            self.acceptances += 1;
            self.is_accepted = true;
            self.is_awaited = false;
            self.doubted = None;
        }
    }

    /// A suspect accepted the current token. Returns whether it had backed off.
    pub(super) fn accepted(&mut self, now: Timestamp, target: Target) -> bool {
        let suspect = self.suspects.iter_mut().find(|suspect| suspect.is(target));
        suspect.is_some_and(|suspect| suspect.clear(now))
    }

    /// A request that was rejected was accepted with a newer token: its refresh was useful. Returns whether it had
    /// backed off.
    pub(super) fn retry_accepted(&mut self, now: Timestamp, target: Target) -> bool {
        let Some(at) = self.suspects.iter().position(|suspect| suspect.target == target) else {
            return false;
        };
        let suspect = self.suspects.remove(at);
        if suspect.is_charged {
            self.refund(now, target.origin());
        }
        suspect.strikes > 0
    }

    /// A request that was rejected was rejected with this newer generation too. Returns the hold that begins with it.
    pub(super) fn retry_rejected(
        &mut self,
        now: Timestamp,
        target: Target,
        generation: Generation,
    ) -> Option<Duration> {
        self.is_awaited = true;
        if !self.is_accepted {
            self.doubted.get_or_insert(now.monotonic());
        }
        let (backoff, acceptances) = (self.backoff, self.acceptances);
        let suspect = self.suspect(target);
        let is_known = suspect.cleared.is_none() && suspect.rejected >= generation;
        if is_known || suspect.hold.is_some_and(|hold| hold.left(now).is_some()) {
            return None;
        }
        suspect.cleared = None;
        Some(suspect.strike(now, generation, backoff, acceptances))
    }

    /// Has the witness look out for what is not known yet.
    pub(super) fn ask(&self, witness: &Witness) {
        let suspects = self.suspects.iter().filter(|suspect| suspect.cleared.is_none());
        let mut asked = if self.is_awaited { ANY } else { 0 };
        // A number that is left of an earlier suspect costs a lock at most.
        for (place, suspect) in witness.suspects.iter().zip(suspects) {
            asked |= bit(suspect.target);
            place.store(suspect.target.number(), Ordering::Relaxed);
        }
        witness.asked.store(asked, Ordering::Relaxed);
    }

    /// Returns whether the current token was rejected and not accepted since.
    pub(super) fn is_doubted(&self, witness: &Witness) -> bool {
        self.doubted.is_some() && !(self.is_awaited && witness.has_accepted())
    }

    /// Returns for how long some target's rejections start no refresh.
    pub(super) fn longest_left(&self, now: Timestamp) -> Option<Duration> {
        let suspects = self.suspects.iter().filter(|suspect| suspect.cleared.is_none());
        let holds = suspects.filter_map(|suspect| suspect.hold?.left(now));
        let budgets = self
            .budgets
            .iter()
            .filter_map(|budget| budget.exhausted_for(now, self.backoff.max, Share::All));
        holds.chain(budgets).max()
    }

    // ===== suspects =====

    /// Returns the suspect of a target, a new one if there is none. The oldest is forgotten if there are too many.
    fn suspect(&mut self, target: Target) -> &mut Suspect {
        let at = self.suspects.iter().position(|suspect| suspect.target == target);
        let at = at.unwrap_or_else(|| {
            if self.suspects.len() >= SUSPECTS {
                let cleared = self.suspects.iter().position(|suspect| suspect.cleared.is_some());
                self.suspects.remove(cleared.unwrap_or(0));
            }
            self.suspects.push(Suspect {
                target,
                rejected: Generation(0),
                strikes: 0,
                hold: None,
                is_charged: false,
                cleared: None,
            });
            self.suspects.len() - 1
        });
        &mut self.suspects[at]
    }

    /// Returns how much of its origin's budget a target's rejection may use.
    fn share_of(&self, now: Timestamp, target: Target) -> Share {
        let passed = |since: Duration| now.monotonic().saturating_sub(since);
        let is_dead = self.is_accepted
            && self.doubted.is_some_and(|since| passed(since) >= self.backoff.first);
        match self.suspects.iter().find(|suspect| suspect.target == target) {
            Some(Suspect { cleared: None, strikes: 1.., .. }) => Share::AllButOne,
            _ if is_dead => Share::Spare,
            // It accepts some requests and rejects others.
            Some(Suspect { cleared: Some(at), .. }) if passed(*at) < USEFUL_AFTER => {
                Share::AllButOne
            }
            _ => Share::All,
        }
    }

    /// Gives back to the budgets what has proved useful by now.
    fn give_back(&mut self, now: Timestamp) {
        let is_useful = |suspect: &Suspect| {
            suspect.is_charged
                && suspect
                    .cleared
                    .is_some_and(|at| now.monotonic().saturating_sub(at) >= USEFUL_AFTER)
        };
        for at in 0..self.suspects.len() {
            if is_useful(&self.suspects[at]) {
                self.suspects[at].is_charged = false;
                self.refund(now, self.suspects[at].target.origin());
            }
        }
    }

    /// A target that accepted the new token rejects one so soon: its refresh has not proved useful.
    fn forfeit(&mut self, now: Timestamp, target: Target) {
        let mut suspects = self.suspects.iter_mut();
        if let Some(suspect) = suspects.find(|suspect| suspect.target == target) {
            suspect.is_charged = false;
            suspect.cleared = suspect.cleared.map(|_| now.monotonic());
        }
    }

    // ===== budgets =====

    /// Returns how long an origin's rejections start no refresh, if this share of its budget is used up.
    fn exhausted_for(&self, now: Timestamp, origin: u32, share: Share) -> Option<Duration> {
        let most = self.backoff.max;
        match self.budgets.iter().find(|budget| budget.origin == origin) {
            Some(budget) => budget.exhausted_for(now, most, share),
            None if self.budgets.len() < ORIGINS => None,
            // With so many origins that reject, another one has none to start with.
            None => {
                self.budgets.iter().all(|budget| budget.left(now, most) < BUDGET).then_some(most)
            }
        }
    }

    fn charge(&mut self, now: Timestamp, origin: u32) {
        let most = self.backoff.max;
        if !self.budgets.iter().any(|budget| budget.origin == origin) {
            self.budgets.retain(|budget| budget.left(now, most) < BUDGET);
            if self.budgets.len() >= ORIGINS {
                return;
            }
            self.budgets.push(Budget {
                origin,
                left: BUDGET,
                spare: SPARE,
                since: now.monotonic(),
                refunds: REFUNDS,
                refunded_since: now.monotonic(),
            });
        }
        if let Some(budget) = self.budgets.iter_mut().find(|budget| budget.origin == origin) {
            budget.fill(now, most);
            match budget.left {
                0 => budget.spare = budget.spare.saturating_sub(1),
                _ => budget.left -= 1,
            }
        }
    }

    fn refund(&mut self, now: Timestamp, origin: u32) {
        let most = self.backoff.max;
        if let Some(budget) = self.budgets.iter_mut().find(|budget| budget.origin == origin) {
            budget.refund(now, most / 10);
        }
    }
}

impl Witness {
    pub(super) fn new() -> Self {
        Self { asked: AtomicU64::new(ANY), suspects: Default::default() }
    }

    /// A response of this target accepted the token.
    pub(super) fn accepted(&self, target: Target) -> Testimony {
        let asked = self.asked.load(Ordering::Relaxed);
        if asked == 0 {
            return Testimony::Known;
        }
        if asked & ANY != 0 {
            self.asked.fetch_and(!ANY, Ordering::Relaxed);
        }
        let is_suspect = |place: &AtomicU64| place.load(Ordering::Relaxed) == target.number();
        if asked & bit(target) != 0 && self.suspects.iter().any(is_suspect) {
            Testimony::OfSuspect
        } else {
            Testimony::Known
        }
    }

    fn has_accepted(&self) -> bool {
        self.asked.load(Ordering::Relaxed) & ANY == 0
    }
}

/// Returns the bit of a target: targets with different bits are different.
fn bit(target: Target) -> u64 {
    1 << (target.number() % u64::from(ANY.trailing_zeros()))
}

impl Suspect {
    /// Returns whether this is the suspect of a target, and it was not cleared.
    fn is(&self, target: Target) -> bool {
        self.target == target && self.cleared.is_none()
    }

    /// The last refresh did not help here, or would not. Returns for how long there is no other.
    fn strike(
        &mut self,
        now: Timestamp,
        rejected: Generation,
        backoff: Backoff,
        acceptances: u64,
    ) -> Duration {
        self.strikes = self.strikes.saturating_add(1);
        self.rejected = rejected;
        self.is_charged = false;
        let pause = backoff.after(self.strikes);
        self.hold = Some(Hold { until: Deadline::monotonic(now, pause), acceptances });
        pause
    }

    /// Returns whether its current backoff ends with a refresh, even if others accept the token.
    fn is_due(&self) -> bool {
        self.strikes % DOUBT_OTHERS == DOUBT_OTHERS - 1
    }

    /// It accepted the current token. Returns whether it had backed off.
    fn clear(&mut self, now: Timestamp) -> bool {
        self.cleared = Some(now.monotonic());
        self.hold = None;
        std::mem::take(&mut self.strikes) > 0
    }
}

impl Hold {
    fn left(&self, now: Timestamp) -> Option<Duration> {
        self.until.left(now).filter(|left| !left.is_zero())
    }
}

impl Budget {
    /// Returns how much of it is left by now: one more for each `interval` that has passed.
    fn left(&self, now: Timestamp, interval: Duration) -> u32 {
        self.left.saturating_add(self.filled(now, interval)).min(BUDGET)
    }

    fn filled(&self, now: Timestamp, interval: Duration) -> u32 {
        intervals(self.since, now, interval)
    }

    fn refund(&mut self, now: Timestamp, interval: Duration) {
        let gained = intervals(self.refunded_since, now, interval);
        self.refunds = self.refunds.saturating_add(gained).min(REFUNDS);
        if gained > 0 {
            self.refunded_since = now.monotonic();
        }
        if self.refunds == 0 {
            return;
        }
        self.refunds -= 1;
        match self.spare {
            SPARE.. => self.left = BUDGET.min(self.left + 1),
            _ => self.spare += 1,
        }
    }

    /// Returns how long until there is something of this share, if there is nothing now.
    fn exhausted_for(&self, now: Timestamp, interval: Duration, share: Share) -> Option<Duration> {
        let kept = u32::from(share == Share::AllButOne);
        if share == Share::Spare && self.spare > 0 {
            return None;
        }
        let next = interval.saturating_mul(self.filled(now, interval).saturating_add(1));
        let passed = now.monotonic().saturating_sub(self.since);
        (self.left(now, interval) <= kept).then(|| next.saturating_sub(passed))
    }

    /// Takes in what it has gained, and begins to fill up from now on if it is full.
    fn fill(&mut self, now: Timestamp, interval: Duration) {
        let filled = self.filled(now, interval);
        self.left = self.left(now, interval);
        self.since = match self.left {
            BUDGET => {
                self.spare = SPARE;
                now.monotonic()
            }
            _ => self.since.saturating_add(interval.saturating_mul(filled)),
        };
    }
}

/// Returns how many intervals have passed on the monotonic clock.
fn intervals(since: Duration, now: Timestamp, interval: Duration) -> u32 {
    let passed = now.monotonic().saturating_sub(since).as_nanos();
    u32::try_from(passed.checked_div(interval.as_nanos()).unwrap_or(u128::MAX)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
