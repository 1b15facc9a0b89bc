//! Every decision about the token: pure, without a clock, a lock, a runtime or I/O. `now` is an argument.

mod flights;
mod requests;
#[cfg(test)]
mod tests;

use std::cmp::{max, min};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::backoff::{Failure, Setup};
use super::event::Event;
use super::evidence::{Evidence, Witness};
use super::flight::{Adoption, Departure, Flight, FlightKind, Landing, Outcome, Turn};
use super::generation::Generation;
use super::issued::Issued;
use super::jitter::Dice;
use super::policy::Timing;
use super::session::Session;
use super::status::{Status, TokenStatus};
use crate::clock::{Deadline, Timestamp};
use crate::error::TokenError;
use crate::grant::SetId;
use crate::metrics::Troubles;
use crate::token::TokenSet;

/// The current token, the flight that obtains the next one, and what the last refresh and the last responses have shown.
///
/// Invariants:
///
/// - At most one flight is waited for. A token set is issued only if its flight departed in this epoch, and if the ledger handed it
///   out after the current one. Any other landing changes nothing.
/// - Generations only grow, also over a log-in and a log-out.
/// - Either clock can end a token. Durations are measured by the monotonic clock alone: if a step of the wall clock made a flight
///   look lost, another one would send the refresh token again.
/// - A failure never displaces a token that still works.
/// - While the outcome of a refresh is unknown, the refresh token is not sent again before the current token has expired, or
///   rejections alone were seen for the longest rejection backoff.
#[derive(Debug)]
pub(super) struct State {
    setup: Setup,
    dice: Dice,
    /// The share of the jitter of this instance, drawn once.
    share: f32,
    /// Grows with each log-in and log-out of the application.
    pub(super) epoch: u64,
    /// The last session that began.
    pub(super) session: Session,
    /// The first generation of the session.
    session_began: Generation,
    /// The newest generation. `current` has this one, if there is a current set.
    pub(super) generation: Generation,
    /// Kept when it has expired.
    current: Option<Arc<Issued>>,
    /// The number that the ledger gave the last token set.
    set: Option<SetId>,
    flight: Option<Box<Flight>>,
    flights: u64,
    /// The turn at the ledger, while a flight or an adoption has it or waits for it.
    turn: Option<Turn>,
    failure: Option<Box<Failure>>,
    evidence: Evidence,
    /// Boxed, since few credentials need the store between two refreshes.
    store_times: Option<Box<StoreTimes>>,
    /// True if the last token had expired on arrival. That is reported once.
    is_over_on_arrival: bool,
    /// `None` between two decisions.
    effects: Option<Box<Effects>>,
}

/// When the store is needed besides a refresh.
#[derive(Debug)]
struct StoreTimes {
    /// When to try again to save the current token set, which is only in memory. `NEVER` if it is not.
    unsaved: Deadline,
    /// The time of the next look at the store while rejections start no refresh.
    look_again: Deadline,
}

impl Default for StoreTimes {
    fn default() -> Self {
        Self { unsaved: Deadline::NEVER, look_again: Deadline::PAST }
    }
}

/// The effects of a decision, for after the lock is released.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// The flights that have ended, and their outcomes. Without one, the waiters ask again.
    pub(super) ended: Vec<(oneshot::Sender<Outcome>, Option<Outcome>)>,
    pub(super) news: Vec<Event>,
    /// Errors that are no longer needed: dropping what a source put into them runs code of others.
    pub(super) discarded: Vec<TokenError>,
}

/// The answer to one request for a token.
#[derive(Debug)]
pub(super) enum Decision {
    /// Use this token, and perhaps start a flight that no request waits for.
    Use(Arc<Issued>, Option<Departure>),
    /// Wait for the flight. Start it unless it is under way.
    Wait(Landing, Option<Departure>),
    /// No token is available now.
    Refuse(TokenError),
}

impl State {
    pub(super) fn new(timing: Arc<Timing>, seed: u64, setup: Setup) -> Self {
        let mut dice = Dice::new(seed);
        let share = dice.roll() as f32;
        Self {
            evidence: Evidence::new(timing),
            setup,
            dice,
            share,
            epoch: 0,
            session: Session::default(),
            session_began: Generation(0),
            generation: Generation(0),
            current: None,
            set: None,
            flight: None,
            flights: 0,
            turn: None,
            failure: None,
            store_times: None,
            is_over_on_arrival: false,
            effects: None,
        }
    }

    /// Returns the witness that requests report the acceptances to, without the lock.
    pub(super) fn witness(&self) -> Arc<Witness> {
        self.evidence.witness()
    }

    pub(super) fn timing(&self) -> &Arc<Timing> {
        &self.evidence.timing
    }

    // ===== sessions =====

    /// The application logs in, or out if there are no tokens. It takes effect at once.
    pub(super) fn adopt(
        &mut self,
        now: Timestamp,
        set: SetId,
        tokens: Option<TokenSet>,
    ) -> Adoption {
        // It would wait for the turn of a lost flight.
        self.give_up_on_lost(now);
        self.epoch += 1;
        self.set = Some(set);
        self.clear_unsaved();
        self.clear_failure();
        self.evidence.forget();
        if let Some(tokens) = tokens {
            self.begin_session();
            let issued = self.issue(now, now, tokens, false);
            let (generation, usable_for) = (issued.generation.0, issued.expired.left(now));
            self.tell(Event::LoggedIn { generation, usable_for });
        } else {
            self.session = self.session.end();
            self.generation.0 += 1;
            self.session_began = self.generation;
            self.current = None;
            self.tell(Event::LoggedOut);
        }
        let id = self.occupy(now, FlightKind::Adopting, false).id;
        Adoption { id, set, epoch: self.epoch, turn: self.turn() }
    }

    fn store_times(&mut self) -> &mut StoreTimes {
        self.store_times.get_or_insert_default()
    }

    fn unsaved(&self) -> Deadline {
        self.store_times.as_ref().map_or(Deadline::NEVER, |times| times.unsaved)
    }

    /// Notes that nothing is unsaved.
    fn clear_unsaved(&mut self) {
        if let Some(times) = &mut self.store_times {
            times.unsaved = Deadline::NEVER;
        }
    }

    /// Begins a session with the token set that is issued next.
    fn begin_session(&mut self) {
        self.session = self.session.next();
        self.session_began = Generation(self.generation.0 + 1);
    }

    /// An adoption is recorded. If it could not be saved, the requests that follow save it.
    pub(super) fn adopted(&mut self, now: Timestamp, adoption: &Adoption, is_saved: bool) {
        if self.setup.has_store && !is_saved && adoption.epoch == self.epoch {
            self.store_times().unsaved = Deadline::monotonic(now, flights::SAVE_FIRST);
        }
        if self.wants(adoption.id) {
            self.end_flight(None);
        }
    }

    /// Issues a token set: one that the source has just issued, or one that the application provides, which may have expired.
    fn issue(
        &mut self,
        now: Timestamp,
        asked: Timestamp,
        tokens: TokenSet,
        is_obtained: bool,
    ) -> Arc<Issued> {
        self.generation.0 += 1;
        let (generation, session) = (self.generation, self.session);
        let mut issued =
            Issued::new(now, asked, tokens, self.timing(), self.share.into(), generation, session);
        if is_obtained {
            let reason = issued.over_on_arrival(now);
            if let Some(reason) = reason {
                issued.use_until_rejected(now);
                if !self.is_over_on_arrival {
                    self.tell(Event::ExpiredOnArrival { reason });
                }
            }
            self.is_over_on_arrival = reason.is_some();
        }
        self.evidence.token_issued(generation);
        Arc::clone(self.current.insert(Arc::new(issued)))
    }

    // ===== queries =====

    /// Returns the session of a request that is made now: the next one if there is no usable token, and none without a log-in.
    pub(super) fn session_of_new_request(&self, now: Timestamp) -> Session {
        match self.session.has_begun() && !self.is_logged_out(now) {
            true => self.session,
            false => self.session.next(),
        }
    }

    /// Returns whether a token of this generation is from before the current session.
    pub(super) fn is_of_earlier_session(&self, generation: Generation) -> bool {
        generation < self.session_began
    }

    /// Returns whether the session has ended: the token cannot be used, and the grant is denied.
    fn is_logged_out(&self, now: Timestamp) -> bool {
        self.is_denied() && self.usable(now).is_none()
    }

    /// Returns the current token unless it has expired, also if a refresh is due.
    pub(super) fn usable(&self, now: Timestamp) -> Option<Arc<Issued>> {
        self.current.clone().filter(|current| !self.end_of(current).has_come(now))
    }

    /// Returns when a token is not used any more. After a failed refresh the leeway does not count: a token that may still work is
    /// better than none.
    fn end_of(&self, current: &Issued) -> Deadline {
        let is_until_rejected = current.expired == Deadline::NEVER;
        match &self.failure {
            Some(failure) if failure.error.is_refusal() || !is_until_rejected => current.ends,
            _ => current.expired,
        }
    }

    /// Returns the token that a request would use now without waiting, fresh or stale.
    pub(super) fn current(&self, now: Timestamp) -> Option<Arc<Issued>> {
        self.published(now).and_then(|_| self.usable(now))
    }

    /// Returns the token that requests may use without asking, and until when there is nothing to decide.
    pub(super) fn published(&self, now: Timestamp) -> Option<(&Arc<Issued>, Deadline)> {
        let current = self.current.as_ref()?;
        let quiet_until = match &self.flight {
            // New requests wait instead of being rejected too, but not forever: the token may be good elsewhere.
            Some(it) if it.kind == FlightKind::Replacing && !it.patience.has_come(now) => {
                return None;
            }
            Some(flight) => flight.lost,
            None => self.next_refresh(current, now).or_earlier(self.unsaved()),
        };
        Some((current, quiet_until.or_earlier(self.end_of(current))))
    }

    /// Returns when the next refresh in the background is due.
    fn next_refresh(&self, current: &Issued, now: Timestamp) -> Deadline {
        match &self.failure {
            Some(_) if self.holds_back(now) => self.held_back_until(current),
            Some(failure) if !failure.until.has_come(now) => failure.until,
            _ => current.stale,
        }
    }

    /// Returns the time until requests have the source asked again, or `None` if not before the credentials change.
    fn asked_again_in(&self, now: Timestamp) -> Option<Duration> {
        let failure = self.failure.as_ref()?;
        let if_needed = failure.until_if_needed.left(now);
        let Some(current) = self.usable(now) else {
            return if_needed;
        };
        // Requests need another token once this one has expired.
        let end = match self.is_ambiguous() {
            true => self.held_back_until(&current),
            false => current.expired,
        };
        let once_expired = end.left(now).zip(if_needed).map(|(end, needed)| max(end, needed));
        match failure.until.left(now) {
            Some(behind) if !self.holds_back(now) => {
                Some(once_expired.map_or(behind, |expired| min(behind, expired)))
            }
            _ => once_expired,
        }
    }

    /// Returns the time until requests have the source asked, if no server rejects the token before that. `None` if not before the
    /// credentials change.
    fn source_asked_in(&self, now: Timestamp) -> Option<Duration> {
        if self.flight.as_ref().is_some_and(|flight| flight.asks) {
            return Some(Duration::ZERO);
        }
        let usable = self.usable(now);
        let Some(failure) = &self.failure else {
            return usable.map_or(Some(Duration::ZERO), |current| current.stale.left(now));
        };
        let if_needed = failure.asked_in(now, failure.until_if_needed);
        let Some(current) = usable else { return if_needed };
        let behind = match self.holds_back(now) {
            true => self.held_back_until(&current).left(now),
            false => failure
                .asked_in(now, failure.until)
                .zip(current.stale.left(now))
                .map(|(behind, stale)| max(behind, stale)),
        };
        let end = self.end_of(&current).left(now);
        let once_ended = end.zip(if_needed).map(|(end, needed)| max(end, needed));
        behind.into_iter().chain(once_ended).min()
    }

    /// Returns the status. The ledger knows what is unsaved.
    pub(super) fn status(&self, now: Timestamp) -> Status {
        let current = self.current.as_ref();
        let is_replaced =
            self.flight.as_ref().is_some_and(|flight| flight.kind == FlightKind::Replacing);
        Status {
            token: match current {
                None => TokenStatus::Missing,
                Some(current) if self.end_of(current).has_come(now) => TokenStatus::Expired,
                Some(current) if is_replaced || self.evidence.is_rejected(current.generation) => {
                    TokenStatus::Rejected
                }
                Some(current) if current.is_stale(now) => TokenStatus::Stale,
                Some(_) => TokenStatus::Fresh,
            },
            generation: current.map(|current| current.generation.0),
            usable_for: current.and_then(|current| current.expired.left(now)),
            refresh_token_expires_at: current
                .and_then(|current| current.tokens.refresh_token_expires_at()),
            refreshing: self.flight.is_some(),
            next_refresh: self.source_asked_in(now),
            unsaved: false,
            error: self.failure.as_ref().map(|failure| failure.error.clone()),
            backoff: self.asked_again_in(now).filter(|left| !left.is_zero()),
            rejection_backoff: self.usable(now).and_then(|_| self.evidence.longest_left(now)),
        }
    }

    pub(super) fn troubles(&self) -> Troubles {
        Troubles {
            failed: self.failure.as_ref().map(|failure| failure.error.kind()),
            is_rejected: self.current.is_some() && self.evidence.is_backing_off(),
            is_unsaved: self.unsaved() != Deadline::NEVER,
        }
    }

    /// Returns the effects of the decisions since the last call.
    pub(super) fn take_effects(&mut self) -> Box<Effects> {
        self.effects.take().unwrap_or_default()
    }

    fn tell(&mut self, event: Event) {
        self.effects.get_or_insert_default().news.push(event);
    }

    /// Returns whether the last refresh failed.
    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Returns whether the user must log in again, as far as is known.
    fn is_denied(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.error.is_refusal())
    }

    fn clear_failure(&mut self) {
        self.effects
            .get_or_insert_default()
            .discarded
            .extend(self.failure.take().map(|failure| failure.error));
    }

    /// Changes the evidence, after it has taken in the acceptances so far.
    fn with_evidence<T>(&mut self, change: impl FnOnce(&mut Evidence) -> T) -> T {
        let Some(Issued { generation, .. }) = self.current.as_deref() else {
            return change(&mut self.evidence);
        };
        self.evidence.hear(*generation);
        let changed = change(&mut self.evidence);
        self.evidence.ask(*generation);
        changed
    }

    // ===== unknown outcomes =====

    fn is_ambiguous(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.error.is_ambiguous())
    }

    /// Returns whether a refresh token with an unknown outcome is not sent again yet, because the access token works.
    fn holds_back(&self, now: Timestamp) -> bool {
        self.is_ambiguous() && !self.may_risk(now)
    }

    /// Returns whether a refresh token with an unknown outcome may be sent again. A token that does not end is no reason to wait.
    fn may_risk(&self, now: Timestamp) -> bool {
        let end = self.current.as_ref().map(|current| self.held_back_until(current));
        end.is_none_or(|end| end == Deadline::NEVER || end.has_come(now))
    }

    /// Returns when a refresh token with an unknown outcome may be sent again.
    ///
    /// In a store it is shared, so that the leeway of one process is no reason to risk it.
    fn held_back_until(&self, current: &Issued) -> Deadline {
        match self.setup.has_store && current.expired != Deadline::NEVER {
            true => current.ends,
            false => current.expired,
        }
    }
}
