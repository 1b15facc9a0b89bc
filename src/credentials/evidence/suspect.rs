//! A target that rejects tokens, and its rejection backoff.

use std::mem;
use std::time::Duration;

use crate::clock::{Deadline, Timestamp};
use crate::credentials::generation::Generation;
use crate::credentials::policy::Backoff;
use crate::target::Target;

/// A target that has rejected a token, so that a refresh was made.
#[derive(Debug)]
pub(super) struct Suspect {
    pub(super) target: Target,
    backoff: Backoff,
    /// The newest generation that it is known to have rejected.
    pub(super) rejected: Generation,
    /// When it last rejected a token, on the monotonic clock.
    pub(super) heard: Duration,
    /// The number of refreshes in a row that did not help here, or were not made for that reason.
    failures: u32,
    hold: Option<Hold>,
    /// True if its refresh may still prove useful and be given back to the budget.
    pub(super) is_charged: bool,
    /// When it accepted a newer token, on the monotonic clock. It is not a suspect then.
    pub(super) cleared: Option<Duration>,
}

/// A running backoff.
#[derive(Clone, Copy, Debug)]
struct Hold {
    until: Deadline,
    /// The number of acceptances when it began.
    acceptances: u32,
}

impl Suspect {
    pub(super) fn new(target: Target, backoff: Backoff) -> Self {
        Self {
            target,
            backoff,
            rejected: Generation(0),
            heard: Duration::ZERO,
            failures: 0,
            hold: None,
            is_charged: false,
            cleared: None,
        }
    }

    /// A refresh was made because the target rejected this generation.
    pub(super) fn refreshed(&mut self, rejected: Generation) {
        self.rejected = rejected;
        self.hold = None;
        self.is_charged = true;
        self.cleared = None;
    }

    /// The current token is a new one: acceptances of the last one do not count for it.
    pub(super) fn token_issued(&mut self, acceptances: u32) {
        if let Some(hold) = &mut self.hold {
            hold.acceptances = acceptances;
        }
    }

    /// Returns whether a rejection of the current token starts the next backoff instead of a refresh.
    pub(super) fn backs_off_again(&self, current: Generation, acceptances: u32) -> bool {
        match &self.hold {
            None => current > self.rejected,
            Some(hold) => acceptances > hold.acceptances && !self.is_due(),
        }
    }

    /// Starts the next backoff, because the last refresh did not help here or would not. Returns its length.
    pub(super) fn back_off(
        &mut self,
        now: Timestamp,
        rejected: Generation,
        acceptances: u32,
    ) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.rejected = rejected;
        self.is_charged = false;
        self.cleared = None;
        let pause = self.backoff.after(self.failures);
        self.hold(now, pause, acceptances);
        pause
    }

    /// The refresh that its rejection of this generation started has failed.
    pub(super) fn refresh_failed(
        &mut self,
        now: Timestamp,
        rejected: Generation,
        acceptances: u32,
    ) {
        self.rejected = rejected;
        self.cleared = None;
        if self.is_due() {
            self.back_off(now, rejected, acceptances);
        } else {
            // The backoff after the failure is enough. This one continues only if a response accepts the token.
            self.hold(now, Duration::ZERO, acceptances);
        }
    }

    fn hold(&mut self, now: Timestamp, pause: Duration, acceptances: u32) {
        self.hold = Some(Hold { until: Deadline::monotonic(now, pause), acceptances });
    }

    /// Returns the time left of the backoff.
    pub(super) fn held_for(&self, now: Timestamp) -> Option<Duration> {
        self.hold?.until.left(now).filter(|left| !left.is_zero())
    }

    /// Returns whether the target has backed off since it last accepted a token.
    pub(super) fn has_backed_off(&self) -> bool {
        self.failures > 0
    }

    /// Returns whether the current backoff ends with a refresh, even if other responses accept the token.
    fn is_due(&self) -> bool {
        self.failures % DOUBT_OTHERS == DOUBT_OTHERS - 1
    }

    /// Notes that it accepted the current token. Returns whether it had backed off.
    pub(super) fn clear(&mut self, now: Timestamp) -> bool {
        self.cleared = Some(now.monotonic());
        self.hold = None;
        mem::take(&mut self.failures) > 0
    }

    /// Returns whether its refresh has proved useful by now, because it has accepted the token for a while.
    pub(super) fn has_proved_useful(&self, now: Timestamp) -> bool {
        self.is_charged && self.cleared.is_some() && !self.was_cleared_just_now(now)
    }

    /// Returns whether it accepted the token such a short time ago that its refresh has not proved useful.
    pub(super) fn was_cleared_just_now(&self, now: Timestamp) -> bool {
        self.cleared.is_some_and(|at| now.monotonic().saturating_sub(at) < USEFUL_AFTER)
    }
}

/// One in so many backoffs ends with a refresh although others accept the token, since they may accept any token.
const DOUBT_OTHERS: u32 = 12;
/// The time for which a target must accept the new token before its refresh counts as useful, unless a retry has shown it.
const USEFUL_AFTER: Duration = Duration::from_secs(30);
