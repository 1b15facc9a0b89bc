//! The last failure, and for how long the source is not asked because of it.

use std::cmp::{max, min};
use std::time::Duration;

use super::jitter::Dice;
use super::policy::Backoff;
use crate::clock::{Deadline, Timestamp};
use crate::error::{NextAttempt, TokenError};

/// The last failure, remembered until a refresh or a log-in succeeds.
///
/// A refusal is final, with two exceptions. A source whose answer may change is asked again every five minutes (a *probe*), and
/// whenever the application asks for it. With a store, other processes may have brought a token set: the store is looked at every
/// five seconds. A refresh token that is held back, because its outcome is unknown, is sent by the probe that is due then.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: TokenError,
    /// The number of failures in a row.
    streak: u32,
    /// When the source may be asked while the current token works.
    pub(super) until: Deadline,
    /// When the source may be asked for a token that requests wait for: not later than `until`.
    pub(super) until_if_needed: Deadline,
    /// The time from the failure to `until`.
    pause: Duration,
    /// The time of the next probe, or `NEVER`.
    probe: Deadline,
    has_store: bool,
}

/// The properties of the source and its store that decide how long a failure counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Setup {
    /// True if other processes may store a token.
    pub(super) has_store: bool,
    /// True if the source makes a new proof for each attempt, so that a refusal is not final.
    pub(super) has_fresh_proof: bool,
    /// True if the source may spend a refresh token, which must not be sent twice.
    pub(super) spends: bool,
}

impl Failure {
    /// Creates the failure that follows `last`.
    pub(super) fn new(
        now: Timestamp,
        error: TokenError,
        last: Option<&Self>,
        setup: Setup,
        backoff: Backoff,
        dice: &mut Dice,
    ) -> Self {
        let error = error.without_next();
        let held_back = error.held_back_for();
        // Nothing was asked during an outage that others noticed, or before the refresh token may be sent again.
        let failures = u32::from(!error.is_of_outage() && held_back.is_none());
        let streak = last.map_or(1, |last| last.streak.saturating_add(failures));
        let may_change = setup.has_fresh_proof || error.is_conditional_denial();
        let is_probed = error.is_misconfigured() || error.is_refusal() && may_change;
        let probe = held_back.or(is_probed.then_some(PROBE));
        let (pause, pause_if_needed) = if only_looks(setup.has_store, &error) {
            let pause = Some(held_back.map_or(LOOK_AGAIN, |left| min(left, LOOK_AGAIN)));
            (pause, pause)
        } else if error.is_refusal() || error.is_misconfigured() || held_back.is_some() {
            (probe, probe)
        } else {
            // A transient error means that nothing was spent, and an unsent request costs the server nothing.
            let most_if_needed = match (error.is_transient(), error.is_unsent()) {
                (true, true) => backoff.first,
                (true, false) => max(backoff.first, OUTAGE_PAUSE),
                _ => backoff.max,
            };
            // Between half and all of the pause, so that a fleet does not return at once.
            let jitter = 0.5 + dice.roll() / 2.0;
            // An outage may end at any time. Asking the pool about it costs the endpoint nothing.
            let most = if error.is_of_outage() { OUTAGE_PAUSE } else { RETRY_AFTER_MAX };
            let asked_for = min(error.retry_after().unwrap_or_default(), most);
            let jittered = |pause: Duration| Some(max(pause.mul_f64(jitter), asked_for));
            let pause = backoff.after(streak);
            (jittered(pause), jittered(min(pause, most_if_needed)))
        };
        let after = |pause| Deadline::monotonic(now, pause);
        Self {
            error,
            streak,
            until: pause.map_or(Deadline::NEVER, after),
            until_if_needed: pause_if_needed.map_or(Deadline::NEVER, after),
            pause: pause.unwrap_or(Duration::MAX),
            probe: probe.map_or(Deadline::NEVER, after),
            has_store: setup.has_store,
        }
    }

    /// Returns whether the source may be asked at this time, one of the two.
    pub(super) fn is_over(&self, now: Timestamp, until: Deadline) -> bool {
        // A monotonic clock that went back would extend the pause by as much.
        let is_too_long = |left| left > self.pause.saturating_mul(2);
        until.has_come(now) || until.left(now).is_some_and(is_too_long)
    }

    /// Returns whether the store is looked at, and the source not asked, until the next probe.
    pub(super) fn only_looks(&self) -> bool {
        only_looks(self.has_store, &self.error)
    }

    /// Returns the error for a request that the source is next asked for `after` this time, or never if it is `None`.
    pub(super) fn error(
        &self,
        now: Timestamp,
        is_remembered: bool,
        after: Option<Duration>,
    ) -> TokenError {
        let after = if self.only_looks() { self.probe.left(now) } else { after };
        self.error.clone().with_next(NextAttempt { is_remembered, after })
    }

    /// Returns the time until the source is asked, at one of the two times at the earliest.
    pub(super) fn asked_in(&self, now: Timestamp, until: Deadline) -> Option<Duration> {
        let probe = if self.only_looks() { self.probe.left(now)? } else { Duration::ZERO };
        Some(max(until.left(now)?, probe))
    }

    /// Returns whether there is a probe. The application that asks for one need not wait for its time.
    pub(super) fn is_probed(&self) -> bool {
        self.probe != Deadline::NEVER
    }

    pub(super) fn is_probe_due(&self, now: Timestamp, is_forced: bool) -> bool {
        self.is_probed() && (is_forced || self.probe.has_come(now))
    }

    /// Delays the next look at the store: one that finds nothing is not a failure, and sets no pause.
    pub(super) fn has_looked(&mut self, now: Timestamp) {
        self.until = Deadline::monotonic(now, LOOK_AGAIN);
        self.until_if_needed = self.until;
    }

    /// Ends the pauses.
    pub(super) fn ask_at_once(&mut self) {
        self.until = Deadline::PAST;
        self.until_if_needed = Deadline::PAST;
        if self.is_probed() {
            self.probe = Deadline::PAST;
        }
    }
}

/// Returns whether the store is looked at after this error, and the source not asked before a probe.
fn only_looks(has_store: bool, error: &TokenError) -> bool {
    has_store && (error.is_refusal() || error.held_back_for().is_some())
}

/// The longest pause that a server can ask for.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);

/// The longest pause during an outage of the token endpoint, while requests have no usable token.
pub(super) const OUTAGE_PAUSE: Duration = Duration::from_secs(5);

/// The time between two attempts while the configuration of a source must be corrected, or after its proof was refused.
const PROBE: Duration = Duration::from_secs(5 * 60);

/// The time between two looks at a store.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(5);
