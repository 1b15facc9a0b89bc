//! Requests for a token, and the verdicts of responses on it.

use std::sync::Arc;
use std::time::Duration;

use super::{Decision, State};
use crate::clock::{Deadline, Timestamp};
use crate::credentials::backoff::LOOK_AGAIN;
use crate::credentials::event::Event;
use crate::credentials::evidence::Judgement;
use crate::credentials::flight::{Errand, FlightKind};
use crate::credentials::generation::Generation;
use crate::error::TokenError;
use crate::source::Cause;
use crate::target::Target;
use crate::token::TokenSet;

impl State {
    /// A request asks for a token.
    pub(in crate::credentials) fn token(&mut self, now: Timestamp) -> Decision {
        self.give_up_on_lost(now);
        if let Some((current, until)) = self.published(now)
            && !until.has_come(now)
        {
            return Decision::Use(Arc::clone(current), None);
        }
        let Some(current) = self.usable(now) else {
            let is_missing = self.current.is_none();
            return self.need(now, if is_missing { Cause::Missing } else { Cause::Expired });
        };
        // It is being replaced.
        if let Some(flight) = &self.flight {
            return Decision::Wait(flight.landing.clone(), None);
        }
        let is_refresh_due = self.next_refresh(&current, now).has_come(now);
        let departure = match (is_refresh_due, current.is_expired(now)) {
            (true, true) => self.refresh(now, Cause::Expired),
            (true, false) => self.refresh(now, Cause::Expiring),
            (false, _) => self.depart(now, FlightKind::Refreshing, Errand::Save, Cause::Expiring),
        };
        Decision::Use(current, Some(departure))
    }

    /// The application asks for a token. Within the leeway it waits for a refresh, also after one that failed.
    pub(in crate::credentials) fn token_for_application(&mut self, now: Timestamp) -> Decision {
        self.give_up_on_lost(now);
        let is_expired = self.current.as_ref().is_some_and(|current| current.is_expired(now));
        let is_asked = self.flight.is_some() || self.blocked(now, Cause::Expired).is_none();
        if is_expired && is_asked && !self.holds_back(now) {
            return self.need(now, Cause::Expired);
        }
        self.token(now)
    }

    /// A resource server rejected the token of this generation, and the request asks for a newer one.
    pub(in crate::credentials) fn rejected(
        &mut self,
        now: Timestamp,
        generation: Generation,
        target: Target,
    ) -> Decision {
        self.give_up_on_lost(now);
        if generation < self.generation {
            // A thousand late rejections of one token cost one refresh.
            return self.token(now);
        }
        // Once the token has expired there is nothing left to judge.
        let is_usable = self.usable(now).is_some();
        let ignored = if is_usable {
            self.ignores_rejection(now, target)
        } else {
            self.with_evidence(|evidence| evidence.note_rejection(generation));
            None
        };
        if let Some(flight) = &mut self.flight {
            if flight.kind == FlightKind::Refreshing && ignored.is_none() {
                flight.kind = FlightKind::Replacing;
            }
        } else if let Some(left) = ignored
            && self.blocked(now, Cause::Rejected).is_none()
        {
            let error = TokenError::transient(format!(
                "token rejected again right after a refresh, so check its audience, scope and issuer; not refreshing for another {left:.1?}"
            ));
            return self.look_or_refuse(now, Cause::Rejected, error);
        } else if is_usable && self.evidence.speaks_for_the_token(now)
            // The refresh token may be spent, and is not risked while the token works elsewhere.
            && let Some(error) = self.unknown_outcome(now)
        {
            return self.look_or_refuse(now, Cause::Rejected, error);
        }
        let mut decision = self.need(now, Cause::Rejected);
        if let Decision::Wait(_, Some(departure)) = &mut decision {
            departure.target = Some(target);
        }
        decision
    }

    /// The application asks for a token that is newer than this generation.
    pub(in crate::credentials) fn forced(
        &mut self,
        now: Timestamp,
        generation: Generation,
    ) -> Decision {
        self.give_up_on_lost(now);
        if generation < self.generation {
            return self.token(now);
        }
        if self.flight.is_none()
            && self.holds_back(now)
            && let Some(error) = self.unknown_outcome(now)
        {
            return self.look_or_refuse(now, Cause::Forced, error);
        }
        self.need(now, Cause::Forced)
    }

    /// The application asks for a token that is newer than this generation, and has removed the cause of the last failure.
    pub(in crate::credentials) fn forced_at_once(
        &mut self,
        now: Timestamp,
        generation: Generation,
    ) -> Decision {
        self.give_up_on_lost(now);
        // To know the cause of an unknown outcome is not to know the outcome.
        let is_risky = self.setup.spends && self.is_ambiguous() && self.usable(now).is_some();
        if generation < self.generation || self.flight.is_some() || is_risky {
            return self.forced(now, generation);
        }
        self.tell(Event::RefreshStarted { cause: Cause::Forced });
        let mut departure =
            self.depart(now, FlightKind::Refreshing, Errand::Refresh, Cause::Forced);
        departure.at_once = true;
        Decision::Wait(departure.landing.clone(), Some(departure))
    }

    /// Sends nothing. Other processes may have stored a token meanwhile.
    fn look_or_refuse(&mut self, now: Timestamp, cause: Cause, error: TokenError) -> Decision {
        if !self.setup.has_store || !self.store_times().look_again.has_come(now) {
            return Decision::Refuse(error);
        }
        self.store_times().look_again = Deadline::monotonic(now, LOOK_AGAIN);
        let departure = self.depart(now, FlightKind::Refreshing, Errand::Look, cause);
        Decision::Wait(departure.landing.clone(), Some(departure))
    }

    /// Waits for a newer token.
    fn need(&mut self, now: Timestamp, cause: Cause) -> Decision {
        if let Some(flight) = &self.flight {
            return Decision::Wait(flight.landing.clone(), None);
        }
        if let Some(error) = self.blocked(now, cause) {
            return Decision::Refuse(error);
        }
        let departure = self.refresh(now, cause);
        Decision::Wait(departure.landing.clone(), Some(departure))
    }

    /// Returns the error to return instead of asking the source.
    fn blocked(&self, now: Timestamp, cause: Cause) -> Option<TokenError> {
        let failure = self.failure.as_ref()?;
        let is_forced = cause == Cause::Forced;
        let until = match is_forced && self.usable(now).is_some() {
            true => failure.until,
            false => failure.until_if_needed,
        };
        let is_asked = is_forced && failure.is_probed() || failure.is_over(now, until);
        (!is_asked).then(|| failure.error(now, true, until.left(now)))
    }

    /// Returns the error to return while the outcome of a refresh is unknown.
    fn unknown_outcome(&self, now: Timestamp) -> Option<TokenError> {
        let failure = self.failure.as_ref().filter(|_| self.is_ambiguous())?;
        Some(failure.error(now, true, self.asked_again_in(now)))
    }

    // ===== verdicts =====

    /// Returns the generation of these tokens if they are the current ones.
    pub(in crate::credentials) fn generation_of(&self, tokens: &TokenSet) -> Option<Generation> {
        let current = self.current.as_ref()?;
        let is_current = current.tokens.access_token().is_same(tokens.access_token());
        is_current.then_some(current.generation)
    }

    /// Returns for how long the rejections by a target start no refresh, or `None` if this one does.
    fn ignores_rejection(&mut self, now: Timestamp, target: Target) -> Option<Duration> {
        self.acquit_silent(now);
        let generation = self.generation;
        match self.with_evidence(|evidence| evidence.judge(now, generation, target)) {
            Judgement::Counts => None,
            Judgement::Ignored { left, begins } => {
                if begins {
                    self.tell(Event::backoff_started(left));
                }
                Some(left)
            }
        }
    }

    /// Ends the rejection backoff of an application that has reported no rejection for long.
    pub(super) fn acquit_silent(&mut self, now: Timestamp) {
        if self.with_evidence(|evidence| evidence.acquit_silent(now)) {
            self.tell(Event::RejectionBackoffEnded);
        }
    }

    /// A token endpoint refused the token of this generation as the proof of a grant. Returns whether another token is worth a
    /// refresh.
    #[cfg(feature = "oauth2")]
    pub(in crate::credentials) fn refused_as_proof(
        &mut self,
        now: Timestamp,
        generation: Generation,
        target: Target,
    ) -> bool {
        // Once the token has expired there is nothing left to judge.
        let is_current = generation == self.generation && self.usable(now).is_some();
        !is_current || self.ignores_rejection(now, target).is_none()
    }

    /// A refresh was made because a token endpoint refused the token of this generation.
    #[cfg(feature = "oauth2")]
    pub(in crate::credentials) fn replaced_as_proof(
        &mut self,
        now: Timestamp,
        generation: Generation,
        target: Target,
    ) {
        self.with_evidence(|evidence| evidence.refreshed(now, target, generation));
    }

    /// A target that may be a suspect accepted the token of this generation.
    pub(in crate::credentials) fn accepted(
        &mut self,
        now: Timestamp,
        generation: Generation,
        target: Target,
    ) {
        // Acceptance of an older token is no evidence for the current one.
        if generation == self.generation
            && self.with_evidence(|evidence| evidence.accepted(now, target))
        {
            self.tell(Event::RejectionBackoffEnded);
        }
    }

    /// A request that was rejected with an older token was accepted with a newer one.
    pub(in crate::credentials) fn retry_accepted(&mut self, now: Timestamp, target: Target) {
        if self.with_evidence(|evidence| evidence.retry_accepted(now, target)) {
            self.tell(Event::RejectionBackoffEnded);
        }
    }

    /// A request that was rejected with an older token was rejected with this one too.
    pub(in crate::credentials) fn retry_rejected(
        &mut self,
        now: Timestamp,
        generation: Generation,
        target: Target,
    ) {
        if generation != self.generation {
            return;
        }
        let begun = self.with_evidence(|evidence| evidence.retry_rejected(now, target, generation));
        self.effects.get_or_insert_default().news.extend(begun.map(Event::backoff_started));
    }
}
