//! Evidence for and against the current token: whether a rejection starts a refresh.
//!
//! A rejection counts against a token only if nothing speaks for the token. An endpoint that responds with 401 to everything must
//! not cost a refresh per request, and must not keep a revoked token from being replaced.
//!
//! A *suspect* is a target that rejected a token, so that a refresh was made. A *budget* limits the refreshes that the rejections
//! of one origin start. Invariants:
//!
//! - If a suspect also rejects the new token, it backs off: its rejections start no refresh until the backoff is over, and then
//!   only if no response has accepted the current token since, or about once an hour.
//! - A rejection by any other target starts a refresh at once, unless the budget of its origin is used up. The refresh takes one
//!   from the budget, and gives it back once it has proved useful at its target, at a bounded rate.
//! - A target whose last refresh did not help leaves the last refresh of the budget to others.
//! - If a refresh fails, its target starts another only if no response has accepted the token since.
//! - The budgets of two origins are independent.
//! - Only responses count. A retry that was not sent proves nothing and ends no backoff.

mod budget;
mod suspect;
#[cfg(test)]
mod tests;
mod witness;

use std::sync::Arc;
use std::time::Duration;

use self::budget::{Budgets, Share};
use self::suspect::Suspect;
use self::witness::SUSPECTS;
pub(super) use self::witness::Witness;
use super::generation::Generation;
use super::policy::{Backoff, Timing};
use crate::clock::Timestamp;
use crate::target::Target;

/// The evidence for and against the current token.
#[derive(Debug)]
pub(super) struct Evidence {
    /// The times of the policy, which the state shares.
    pub(super) timing: Arc<Timing>,
    witness: Arc<Witness>,
    /// The number of acceptances that were heard. Most are not: see [`Witness`].
    acceptances: u32,
    /// True if a response has accepted the current token.
    is_accepted: bool,
    /// True if the next acceptance matters, wherever it comes from.
    is_awaited: bool,
    /// The generation whose last known verdict is a rejection, wherever it came from, or 0, which no token set has.
    rejected: Generation,
    /// Since when responses reject the current token and none accepts it, on the monotonic clock. A target that is known to reject
    /// every token raises no doubt about one that others accept.
    doubted: Option<Duration>,
    /// The number of acceptances when the last refresh failed.
    failed_after: u32,
    /// Made for the first refresh that a rejection starts.
    rejections: Option<Box<Rejections>>,
}

/// The targets that have rejected a token, and their origins.
#[derive(Debug, Default)]
struct Rejections {
    /// Oldest first.
    suspects: Vec<Suspect>,
    budgets: Budgets,
}

/// The verdict on a rejection of the current token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It starts a refresh.
    Counts,
    /// It starts no refresh.
    Ignored {
        left: Duration,
        /// True if the backoff starts with it.
        begins: bool,
    },
}

impl Evidence {
    pub(super) fn new(timing: Arc<Timing>) -> Self {
        Self {
            timing,
            witness: Arc::default(),
            acceptances: 0,
            is_accepted: false,
            is_awaited: true,
            rejected: Generation(0),
            doubted: None,
            failed_after: 0,
            rejections: None,
        }
    }

    /// Forgets everything but the last verdict on the token. Requests go on to report to the same witness.
    pub(super) fn forget(&mut self) {
        let (timing, witness) = (Arc::clone(&self.timing), Arc::clone(&self.witness));
        *self = Self { witness, rejected: self.rejected, ..Self::new(timing) };
    }

    /// Returns the witness that requests report the acceptances to.
    pub(super) fn witness(&self) -> Arc<Witness> {
        Arc::clone(&self.witness)
    }

    /// Takes in that there is a new token, of which nothing is known.
    pub(super) fn token_issued(&mut self, generation: Generation) {
        self.is_accepted = false;
        self.is_awaited = true;
        self.doubted = None;
        let acceptances = self.acceptances;
        for suspect in self.suspects_mut() {
            suspect.token_issued(acceptances);
        }
        self.ask(generation);
    }

    /// Judges a rejection of the current token by a target.
    pub(super) fn judge(
        &mut self,
        now: Timestamp,
        current: Generation,
        target: Target,
    ) -> Judgement {
        self.note_rejection(current);
        self.refund_useful(now);
        let share = self.share_of(now, target);
        let acceptances = self.acceptances;
        let mut suspects = self.suspects_mut().iter_mut();
        if let Some(suspect) = suspects.find(|suspect| suspect.target == target) {
            // A rejection so soon: the refresh has not proved useful.
            suspect.is_charged = false;
            suspect.heard = now.monotonic();
            suspect.cleared = suspect.cleared.map(|_| now.monotonic());
            let left = match suspect.held_for(now) {
                _ if suspect.cleared.is_some() => None,
                Some(left) => Some((left, false)),
                None if suspect.backs_off_again(current, acceptances) => {
                    Some((suspect.back_off(now, current, acceptances), true))
                }
                None => None,
            };
            if let Some((left, begins)) = left {
                self.doubt_unless_accepted(now);
                return Judgement::Ignored { left, begins };
            }
        }
        self.doubted.get_or_insert(now.monotonic());
        let interval = self.rejection_backoff().max;
        let exhausted_for = |rejections: &Rejections| {
            rejections.budgets.exhausted_for(now, target.origin(), share, interval)
        };
        match self.rejections.as_deref().and_then(exhausted_for) {
            None => Judgement::Counts,
            Some(left) => Judgement::Ignored { left, begins: false },
        }
    }

    /// Takes in a rejection of the current token. The next acceptance matters, wherever it comes from.
    pub(super) fn note_rejection(&mut self, current: Generation) {
        self.rejected = current;
        self.is_awaited = true;
    }

    /// Takes in a refresh that was made because a target rejected this generation.
    pub(super) fn refreshed(&mut self, now: Timestamp, target: Target, rejected: Generation) {
        self.suspect(now, target).refreshed(rejected);
        let interval = self.rejection_backoff().max;
        self.rejections().budgets.charge(now, target.origin(), interval);
    }

    /// Takes in a failed refresh, and the target whose rejection of the current token started it, if any.
    pub(super) fn refresh_failed(
        &mut self,
        now: Timestamp,
        current: Generation,
        target: Option<Target>,
    ) {
        self.is_awaited = true;
        self.failed_after = self.acceptances;
        let acceptances = self.acceptances;
        if let Some(target) = target {
            self.suspect(now, target).refresh_failed(now, current, acceptances);
        }
    }

    /// Returns whether responses have accepted the current token since the last refresh failed, and were not followed by
    /// rejections alone for the longest backoff.
    pub(super) fn speaks_for_the_token(&self, now: Timestamp) -> bool {
        self.acceptances > self.failed_after
            && !self.is_doubted_for(now, self.rejection_backoff().max)
    }

    /// Takes in the acceptances of the current token, which are noted without the lock.
    pub(super) fn hear(&mut self, current: Generation) {
        if self.is_awaited && self.witness.has_accepted(current) {
            self.acceptances = self.acceptances.saturating_add(1);
            self.is_accepted = true;
            self.is_awaited = false;
            self.rejected = Generation(0);
            self.doubted = None;
        }
    }

    /// Takes in that a suspect accepted the current token. Returns whether it had backed off.
    pub(super) fn accepted(&mut self, now: Timestamp, target: Target) -> bool {
        let is_it = |suspect: &&mut Suspect| suspect.target == target && suspect.cleared.is_none();
        self.suspects_mut().iter_mut().find(is_it).is_some_and(|suspect| suspect.clear(now))
    }

    /// Takes in that a rejected request was accepted with a newer token: its refresh was useful. Returns whether the target had
    /// backed off.
    pub(super) fn retry_accepted(&mut self, now: Timestamp, target: Target) -> bool {
        let Some(at) = self.suspects().iter().position(|suspect| suspect.target == target) else {
            return false;
        };
        let Rejections { suspects, budgets } = self.rejections();
        let suspect = suspects.remove(at);
        if suspect.is_charged {
            budgets.refund(now, target.origin());
        }
        suspect.has_backed_off()
    }

    /// Takes in that a rejected request was also rejected with this newer generation. Returns the backoff that starts with it.
    pub(super) fn retry_rejected(
        &mut self,
        now: Timestamp,
        target: Target,
        generation: Generation,
    ) -> Option<Duration> {
        self.note_rejection(generation);
        self.doubt_unless_accepted(now);
        let acceptances = self.acceptances;
        let suspect = self.suspect(now, target);
        let is_known = suspect.cleared.is_none() && suspect.rejected >= generation;
        let is_new = !is_known && suspect.held_for(now).is_none();
        is_new.then(|| suspect.back_off(now, generation, acceptances))
    }

    /// Has the witness note the acceptances that matter.
    pub(super) fn ask(&self, current: Generation) {
        let suspects = self.uncleared().map(|suspect| suspect.target);
        self.witness.ask(current, self.is_awaited, suspects);
    }

    /// Returns whether the current token was rejected and not accepted since.
    pub(super) fn is_rejected(&self, current: Generation) -> bool {
        self.rejected == current && !self.witness.has_accepted(current)
    }

    /// Returns the longest time for which the rejections of some target start no refresh.
    pub(super) fn longest_left(&self, now: Timestamp) -> Option<Duration> {
        let held = self.uncleared().filter_map(|suspect| suspect.held_for(now));
        let budgets = self.rejections.as_deref().map(|rejections| &rejections.budgets);
        held.chain(budgets.and_then(|budgets| budgets.longest_exhausted(now))).max()
    }

    /// Returns whether some target backs off, or has backed off and accepted no token since.
    pub(super) fn is_backing_off(&self) -> bool {
        self.uncleared().any(Suspect::has_backed_off)
    }

    /// Forgets the suspicion against the application if it has reported no rejection for the longest backoff. It need not report
    /// acceptances. Returns whether it had backed off.
    pub(super) fn acquit_silent(&mut self, now: Timestamp) -> bool {
        let (application, longest) = (Target::APPLICATION, self.rejection_backoff().max);
        let is_silent = |suspect: &Suspect| {
            let silence = now.monotonic().saturating_sub(suspect.heard);
            suspect.target == application && silence >= longest
        };
        self.suspects().iter().any(is_silent) && self.retry_accepted(now, application)
    }

    /// Returns the suspect of a target that has just rejected a token, or adds one. If there are too many, the oldest is forgotten.
    fn suspect(&mut self, now: Timestamp, target: Target) -> &mut Suspect {
        let backoff = self.rejection_backoff();
        let suspects = &mut self.rejections().suspects;
        let at = suspects.iter().position(|suspect| suspect.target == target);
        let at = at.unwrap_or_else(|| {
            if suspects.len() >= SUSPECTS {
                let cleared = suspects.iter().position(|suspect| suspect.cleared.is_some());
                suspects.remove(cleared.unwrap_or(0));
            }
            suspects.push(Suspect::new(target, backoff));
            suspects.len() - 1
        });
        suspects[at].heard = now.monotonic();
        &mut suspects[at]
    }

    fn suspects(&self) -> &[Suspect] {
        self.rejections.as_deref().map_or(&[], |rejections| &rejections.suspects)
    }

    fn suspects_mut(&mut self) -> &mut [Suspect] {
        self.rejections.as_deref_mut().map_or(&mut [], |rejections| &mut rejections.suspects)
    }

    fn rejections(&mut self) -> &mut Rejections {
        self.rejections.get_or_insert_default()
    }

    fn rejection_backoff(&self) -> Backoff {
        self.timing.rejection_backoff
    }

    fn uncleared(&self) -> impl Iterator<Item = &Suspect> {
        self.suspects().iter().filter(|suspect| suspect.cleared.is_none())
    }

    /// Returns how much of its origin's budget the rejection of a target may use.
    fn share_of(&self, now: Timestamp, target: Target) -> Share {
        let is_dead = self.is_accepted && self.is_doubted_for(now, self.rejection_backoff().first);
        match self.suspects().iter().find(|suspect| suspect.target == target) {
            Some(suspect) if suspect.cleared.is_none() && suspect.has_backed_off() => {
                Share::AllButOne
            }
            _ if is_dead => Share::Spare,
            // The target accepts some requests and rejects others.
            Some(suspect) if suspect.was_cleared_just_now(now) => Share::AllButOne,
            _ => Share::All,
        }
    }

    /// Gives the refreshes that have proved useful by now back to their budgets.
    fn refund_useful(&mut self, now: Timestamp) {
        let Some(rejections) = &mut self.rejections else { return };
        let Rejections { suspects, budgets } = &mut **rejections;
        for suspect in suspects.iter_mut().filter(|suspect| suspect.has_proved_useful(now)) {
            suspect.is_charged = false;
            budgets.refund(now, suspect.target.origin());
        }
    }

    fn doubt_unless_accepted(&mut self, now: Timestamp) {
        if !self.is_accepted {
            self.doubted.get_or_insert(now.monotonic());
        }
    }

    fn is_doubted_for(&self, now: Timestamp, duration: Duration) -> bool {
        self.doubted.is_some_and(|since| now.monotonic().saturating_sub(since) >= duration)
    }
}
