//! Flights: departures, landings and losses.

use std::sync::Arc;
use std::time::Duration;

use super::State;
use crate::clock::{Deadline, Timestamp};
use crate::credentials::backoff::Failure;
use crate::credentials::event::Event;
use crate::credentials::evidence::Evidence;
use crate::credentials::flight::{
    Departure, Errand, Flight, FlightId, FlightKind, LOST_AFTER, Landed, Outcome, Turn,
};
use crate::error::TokenError;
use crate::grant::{Look, Notes, Obtained, Wish};
use crate::source::Cause;
use crate::target::Target;

impl State {
    /// Starts a refresh, or a look at the store if the grant is denied.
    pub(super) fn refresh(&mut self, now: Timestamp, cause: Cause) -> Departure {
        let kind = match cause {
            Cause::Rejected => FlightKind::Replacing,
            _ => FlightKind::Refreshing,
        };
        if let Some(failure) = &mut self.failure
            && self.setup.has_store
            && failure.error.is_refusal()
            && !failure.is_probe_due(now, cause == Cause::Forced)
        {
            failure.has_looked(now);
            return self.depart(now, kind, Errand::Look, cause);
        }
        self.tell(Event::RefreshStarted { cause });
        self.depart(now, kind, Errand::Refresh, cause)
    }

    pub(super) fn depart(
        &mut self,
        now: Timestamp,
        kind: FlightKind,
        errand: Errand,
        cause: Cause,
    ) -> Departure {
        let is_good_elsewhere =
            || self.usable(now).is_some() && self.evidence.speaks_for_the_token(now);
        let may_risk = self.may_risk(now) || cause == Cause::Rejected && !is_good_elsewhere();
        let flight = self.occupy(now, kind, errand == Errand::Refresh);
        let (id, landing) = (flight.id, flight.landing.clone());
        Departure {
            id,
            errand,
            wish: Wish { cause, has: self.set, may_risk, leeway: self.evidence.timing.leeway() },
            parent: self.generation,
            epoch: self.epoch,
            target: None,
            at_once: false,
            turn: self.turn(),
            landing,
        }
    }

    pub(super) fn occupy(&mut self, now: Timestamp, kind: FlightKind, asks: bool) -> &Flight {
        self.end_flight(None);
        self.flights += 1;
        let id = FlightId(self.flights);
        self.flight.insert(Box::new(Flight::new(now, id, kind, asks, &self.evidence.timing)))
    }

    pub(super) fn end_flight(&mut self, outcome: Option<Outcome>) {
        self.effects
            .get_or_insert_default()
            .ended
            .extend(self.flight.take().map(|flight| (flight.sender, outcome)));
    }

    pub(super) fn give_up_on_lost(&mut self, now: Timestamp) {
        let Some(flight) = &mut self.flight else { return };
        if !flight.is_lost(now, &self.evidence.timing) {
            return;
        }
        let asks = flight.asks;
        self.end_flight(None);
        self.give_up_on_turn();
        self.tell(Event::RefreshLost);
        if asks {
            let error = "a refresh did not end, and is no longer waited for: set a time limit in the token source or its HTTP client";
            self.remember(now, TokenError::ambiguous(error)).ask_at_once();
            let current = self.generation;
            self.with_evidence(|evidence| evidence.refresh_failed(now, current, None));
        }
    }

    /// Leaves the turn to the lost flight that holds it. No other flight waits for it.
    pub(in crate::credentials) fn give_up_on_turn(&mut self) -> Turn {
        self.turn = None;
        self.turn()
    }

    pub(super) fn turn(&mut self) -> Turn {
        Arc::clone(self.turn.get_or_insert_default())
    }

    /// Frees the memory that only flights and adoptions need, after the last of them.
    pub(in crate::credentials) fn rest(&mut self) {
        self.turn.take_if(|turn| Arc::strong_count(turn) == 1);
    }

    /// A flight still waits for its turn among those of a pool. It has its whole time after that.
    pub(in crate::credentials) fn waits(&mut self, now: Timestamp, id: FlightId) {
        let lost = Deadline::monotonic(now, self.timing().timeout.saturating_mul(LOST_AFTER));
        if let Some(flight) = self.flight.as_mut().filter(|flight| flight.id == id) {
            flight.lost = lost;
        }
    }

    /// Takes back a departure that could not be started.
    pub(in crate::credentials) fn call_off(&mut self, departure: &Departure) {
        if self.wants(departure.id) {
            self.end_flight(None);
            self.effects
                .get_or_insert_default()
                .news
                .retain(|event| !matches!(event, Event::RefreshStarted { .. }));
        }
    }

    /// Returns the flight or adoption that is waited for.
    pub(in crate::credentials) fn flight_id(&self) -> Option<FlightId> {
        self.flight.as_ref().map(|flight| flight.id)
    }

    /// Returns whether the result of this flight or adoption is still waited for.
    pub(in crate::credentials) fn wants(&self, id: FlightId) -> bool {
        self.flight_id() == Some(id)
    }

    /// A flight ends. Returns the outcome, or `None` if the waiters ask again.
    pub(in crate::credentials) fn land(
        &mut self,
        now: Timestamp,
        departure: &Departure,
        landed: Landed,
        notes: Notes,
    ) -> Option<Outcome> {
        if notes.is_saved {
            self.saved(now, Ok(true));
        }
        if let Some(error) = notes.unsaved {
            self.store_times().unsaved = Deadline::monotonic(now, SAVE_FIRST);
            self.tell(Event::Unsaved { error });
        }
        let outcome = match landed {
            Landed::Refreshed(result) => self.refreshed(now, departure, result),
            Landed::Looked(Look::Newer(obtained)) => self.refreshed(now, departure, Ok(obtained)),
            Landed::Looked(look) => {
                if matches!(look, Look::Changed) && self.is_denied() {
                    // The failure was about another record.
                    self.clear_failure();
                }
                None
            }
            Landed::Saved(result) => {
                self.saved(now, result);
                None
            }
        };
        if outcome.is_some() || self.wants(departure.id) {
            self.end_flight(outcome.clone());
        }
        outcome
    }

    fn refreshed(
        &mut self,
        now: Timestamp,
        departure: &Departure,
        result: Result<Obtained, TokenError>,
    ) -> Option<Outcome> {
        match result {
            // A lost flight may still bring the only copy of the next refresh token.
            Ok(obtained) if departure.epoch == self.epoch && Some(obtained.id) > self.set => {
                let is_of_another = self.current.is_some()
                    && (obtained.is_of_other_login || self.is_logged_out(now));
                if is_of_another || !self.session.has_begun() {
                    self.begin_session();
                }
                self.clear_failure();
                // A source may take longer than the application must be silent.
                if departure.target != Some(Target::APPLICATION) {
                    self.acquit_silent(now);
                }
                if obtained.is_adopted {
                    self.tell(Event::FoundInStore);
                }
                self.set = Some(obtained.id);
                let issued = self.issue(now, obtained.asked, obtained.tokens, true);
                self.tell(Event::Refreshed {
                    generation: issued.generation.0,
                    usable_for: issued.expired.left(now),
                });
                if let Some(target) = departure.target {
                    self.with_evidence(|evidence| {
                        evidence.refreshed(now, target, departure.parent);
                    });
                }
                Some(Ok(issued))
            }
            Err(error) if self.wants(departure.id) => {
                let error = self.fail(now, error);
                let (current, target) = (self.generation, departure.target);
                self.with_evidence(|evidence| evidence.refresh_failed(now, current, target));
                Some(Err(error))
            }
            superseded => {
                self.effects.get_or_insert_default().discarded.extend(superseded.err());
                self.tell(Event::RefreshSuperseded);
                None
            }
        }
    }

    /// An attempt to save the current token set ends. `Ok(false)` if there was nothing to save.
    pub(in crate::credentials) fn saved(
        &mut self,
        now: Timestamp,
        result: Result<bool, TokenError>,
    ) {
        match result {
            Ok(_) => self.clear_unsaved(),
            Err(_) => self.store_times().unsaved = Deadline::monotonic(now, SAVE_AGAIN),
        }
        match result {
            Ok(true) => self.tell(Event::Saved),
            Ok(false) => {}
            Err(error) => self.effects.get_or_insert_default().discarded.push(error),
        }
    }

    // ===== failures =====

    /// Takes in a failed refresh. Returns the error for those who waited.
    fn fail(&mut self, now: Timestamp, error: TokenError) -> TokenError {
        let error = self.remember(now, error).error.clone();
        let retry_in = self.asked_again_in(now);
        let usable_for = match &self.current {
            Some(current) => self.end_of(current).left(now),
            None => Some(Duration::ZERO),
        };
        self.tell(Event::RefreshFailed { error: error.clone(), retry_in, usable_for });
        match &self.failure {
            Some(failure) if failure.is_probed() => failure.error(now, false, retry_in),
            _ => error,
        }
    }

    fn remember(&mut self, now: Timestamp, error: TokenError) -> &mut Failure {
        let last = self.failure.take();
        let (setup, backoff) = (self.setup, self.evidence.timing.backoff);
        let failure = Failure::new(now, error, last.as_deref(), setup, backoff, &mut self.dice);
        self.effects.get_or_insert_default().discarded.extend(last.map(|failure| failure.error));
        self.failure.insert(Box::new(failure))
    }

    /// Ends the backoffs: the input of the source has changed, so that its last answer proves nothing.
    pub(in crate::credentials) fn source_changed(&mut self) {
        if let Some(failure) = &mut self.failure {
            failure.ask_at_once();
        }
        self.with_evidence(Evidence::forget);
    }
}

/// The time until the first attempt to save a token set that is used unsaved, and between the next ones.
pub(super) const SAVE_FIRST: Duration = Duration::from_secs(5);
const SAVE_AGAIN: Duration = Duration::from_secs(30);
