//! Every decision about the token, and nothing else: no clock, no lock, no runtime, no I/O. `now` is an argument.
//!
//! What always holds:
//!
//! - There is at most one flight whose landing is waited for, and a token set is issued only in place of the generation
//!   that its flight departed from. Whatever lands otherwise changes nothing.
//! - Generations only grow, over `log_in` and `log_out` too, so that "newer than" needs no second thought.
//! - Whether a token has expired is for either clock to say. How long something takes is for the monotonic clock alone:
//!   a step of the wall clock must not make a flight look lost, and a second one spend the refresh token again.
//! - A failure never displaces a token that still works.

use std::cmp::{max, min};
use std::sync::Arc;
use std::time::Duration;

use super::event::Event;
use super::evidence::{Evidence, Judgement, Witness};
use super::generation::Generation;
use super::jitter::Dice;
use super::policy::{Backoff, LIFETIME_MAX, Timing};
use super::session::Session;
use crate::clock::{Deadline, Timestamp};
use crate::error::{NextAttempt, TokenError};
use crate::grant::{Look, Notes, Obtained, SetId, Wish};
use crate::source::Cause;
use crate::target::Target;
use crate::token::{Expiry, TokenSet};

/// No server is left alone for longer because it asked for it.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);
/// While requests have no usable token, an outage of the token endpoint costs them no more than this after its end.
const OUTAGE_PAUSE: Duration = Duration::from_secs(5);
/// No token is renewed sooner than this because its source said so, unless it lives for less than ten times as long.
const REFRESH_IN_MIN: Duration = Duration::from_secs(5);
/// A lifetime that leaves less than this when the token arrives leaves none.
const USABLE_MIN: Duration = Duration::from_millis(50);
/// How often a source is asked again whose configuration must be corrected, or whose proof was refused.
const PROBE: Duration = Duration::from_secs(5 * 60);
/// How often a store is looked at for what others may have brought.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// When it is first tried again to save a token set that is used unsaved, and how often after that.
const SAVE_FIRST: Duration = Duration::from_secs(5);
const SAVE_AGAIN: Duration = Duration::from_secs(30);
/// After how many timeouts a flight is taken for lost.
pub(super) const LOST_AFTER: u32 = 10;

/// Who holds the token, and who fetches the next.
#[derive(Debug)]
pub(super) struct State {
    timing: Timing,
    dice: Dice,
    /// This instance's share of the refresh-ahead's jitter, drawn once.
    share: f64,
    /// Begun anew by `log_in` and `log_out`.
    epoch: u64,
    session: Session,
    /// The first generation of the session.
    session_began: Generation,
    /// The newest number given out; that of `current`, if there is one.
    generation: Generation,
    /// Kept when it has expired: its refresh token is what renews it.
    current: Option<Arc<Issued>>,
    flight: Option<Flight>,
    flights: u64,
    failure: Option<Failure>,
    evidence: Evidence,
    /// A flight was declared lost, and still occupies the source.
    lost: bool,
    /// Whether others may store a token, so that it is worth to look while nothing may be sent.
    has_store: bool,
    /// The token set of the last generation, as the ledger knows it.
    set: Option<SetId>,
    /// When it is next tried to save the current token set, which is in memory only.
    unsaved: Option<Deadline>,
    /// Whether the source makes its proof anew for each attempt, so that a refusal is not the last word.
    fresh_proof: bool,
    /// Whether the last token was over on arrival, and that was reported.
    is_over_on_arrival: bool,
    /// When it is next looked at while rejections start no refresh.
    look_again: Deadline,
    news: Vec<Event>,
    /// Errors that are no longer needed. They are dropped outside the lock, since what a source put into them is not ours.
    discarded: Vec<TokenError>,
}

/// A token set that was issued to requests.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) tokens: TokenSet,
    pub(crate) generation: Generation,
    session: Session,
    stale: Deadline,
    /// Its expiry, earlier by the leeway.
    expired: Deadline,
    ends: Deadline,
    witness: Witness,
}

/// A flight that was decided on and is now to be started.
#[derive(Clone, Debug)]
pub(super) struct Departure {
    pub(super) id: FlightId,
    pub(super) errand: Errand,
    pub(super) wish: Wish,
    parent: Generation,
    epoch: u64,
    /// The target whose rejection started it.
    target: Option<Target>,
    is_probe: bool,
}

/// What a flight is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// To obtain a token set.
    Refresh,
    /// To look for what others have stored: a rejection starts no refresh, an outcome is unknown, or the grant is denied.
    Look,
    /// To save what is in memory only.
    Save,
}

/// How a flight ended.
#[derive(Debug)]
pub(super) enum Landed {
    Refreshed(Result<Obtained, TokenError>),
    Looked(Look),
    Saved(Result<bool, TokenError>),
}

/// A log-in or log-out that the ledger is now to be given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adoption {
    pub(super) id: FlightId,
    pub(super) set: SetId,
    epoch: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlightId(u64);

/// What occupies the source, or waits for its turn to.
#[derive(Debug)]
struct Flight {
    id: FlightId,
    kind: FlightKind,
    /// Until when requests wait for it although the token at hand has not expired.
    patience: Deadline,
    lost: Deadline,
    /// Whether it was overdue for long when that was first seen, and was given more time.
    was_overdue: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum FlightKind {
    /// Fetches while the token at hand is used.
    Renewing,
    /// Fetches because the token at hand was rejected: new requests wait rather than be sent to certain failure.
    Replacing,
    /// Tells the source of what the application did itself.
    Adopting,
}

/// The last failure, remembered until something better happens.
#[derive(Debug)]
struct Failure {
    error: TokenError,
    /// How many in a row.
    streak: u32,
    /// When the source may be asked again behind a token that works; if denied, never, unless others may bring it something.
    until: Deadline,
    /// When it may be asked for a token that requests wait for: the same, or earlier if nothing counted.
    until_if_needed: Deadline,
    /// How long `until` was when it was set.
    pause: Duration,
    /// When a refusal is next put to the test.
    probe: Deadline,
}

/// What is to be done about one request's wish for a token.
#[derive(Debug)]
pub(super) enum Decision {
    /// Use this one.
    Use(Arc<Issued>),
    /// Use this one, and start a flight that nobody waits for.
    UseAndStart(Arc<Issued>, Departure),
    /// Start a flight, and wait for it.
    Start(Departure),
    /// Wait for the flight that is under way.
    Join,
    /// There is none to be had now.
    Refuse(TokenError),
}

/// What the state looks like from outside.
#[derive(Debug)]
pub(super) struct View {
    pub(super) current: Option<Arc<Issued>>,
    pub(super) in_flight: bool,
    pub(super) rejected: bool,
    pub(super) error: Option<TokenError>,
    pub(super) backoff: Option<Duration>,
    pub(super) rejection_backoff: Option<Duration>,
}

impl State {
    /// Nothing has happened yet. `has_store` if others may store a token.
    pub(super) fn new(timing: Timing, seed: u64, has_store: bool) -> Self {
        let mut dice = Dice::new(seed);
        let share = dice.roll();
        Self {
            timing,
            dice,
            share,
            epoch: 0,
            session: Session::default(),
            session_began: Generation(0),
            generation: Generation(0),
            current: None,
            flight: None,
            flights: 0,
            failure: None,
            evidence: Evidence::new(timing.rejection_backoff),
            lost: false,
            has_store,
            set: None,
            unsaved: None,
            fresh_proof: false,
            is_over_on_arrival: false,
            look_again: Deadline::PAST,
            news: Vec::new(),
            discarded: Vec::new(),
        }
    }

    /// Sets whether the source makes its proof anew for each attempt.
    pub(super) fn with_fresh_proof(mut self, fresh_proof: bool) -> Self {
        self.fresh_proof = fresh_proof;
        self
    }

    // ===== what requests ask =====

    /// A request wants a token.
    pub(super) fn token(&mut self, now: Timestamp) -> Decision {
        self.give_up_on_lost(now);
        if let Some((current, until)) = self.published(now)
            && !until.has_come(now)
        {
            return Decision::Use(Arc::clone(current));
        }
        match &self.current {
            None => self.need(now, Cause::Missing),
            Some(current) if self.is_used_up(current, now) => self.need(now, Cause::Expired),
            // It is being replaced.
            Some(_) if self.flight.is_some() => Decision::Join,
            Some(current) => {
                let is_refresh_due = self.next_refresh(current, now).has_come(now);
                let current = Arc::clone(current);
                let departure = match is_refresh_due {
                    true if current.is_expired(now) => self.depart(now, Cause::Expired),
                    true => self.depart(now, Cause::Expiring),
                    false => self.depart_for(now, Errand::Save, Cause::Expiring),
                };
                Decision::UseAndStart(current, departure)
            }
        }
    }

    /// The application wants a token. Within the leeway it waits for a refresh, also after one that failed.
    pub(super) fn token_for_application(&mut self, now: Timestamp) -> Decision {
        self.give_up_on_lost(now);
        let is_expired = self.current.as_ref().is_some_and(|current| current.is_expired(now));
        let is_asked = self.flight.is_some() || self.blocked(now, Cause::Expired).is_none();
        if is_expired && is_asked && !self.holds_back(now) {
            return self.need(now, Cause::Expired);
        }
        self.token(now)
    }

    /// A resource server rejected the token of this generation; the request wants a newer one.
    pub(super) fn rejected(
        &mut self,
        now: Timestamp,
        generation: Generation,
        target: Target,
    ) -> Decision {
        self.give_up_on_lost(now);
        if generation < self.generation {
            // Somebody was faster. A thousand late rejections of one token cost one refresh.
            return self.token(now);
        }
        // Once the token has expired there is nothing left to judge.
        let is_usable = self.usable(now).is_some();
        let ignored = if is_usable { self.ignores_rejection(now, target) } else { None };
        if let Some(flight) = &mut self.flight
            && flight.kind == FlightKind::Renewing
            && ignored.is_none()
        {
            flight.kind = FlightKind::Replacing;
        }
        if self.flight.is_none()
            && let Some(left) = ignored
            && self.blocked(now, Cause::Rejected).is_none()
        {
            if self.has_store && self.look_again.has_come(now) {
                return Decision::Start(self.look(now, Cause::Rejected));
            }
            return Decision::Refuse(TokenError::transient(format!(
                "token rejected again right after a refresh; not refreshing for another {left:.1?}"
            )));
        }
        // The refresh token may be spent, and is not risked while the token works elsewhere.
        let is_risky = self.is_ambiguous();
        if self.flight.is_none() && is_usable && is_risky && self.evidence.speaks_for_the_token(now)
        {
            return self.hold_back(now, Cause::Rejected);
        }
        match self.need(now, Cause::Rejected) {
            Decision::Start(departure) => {
                Decision::Start(Departure { target: Some(target), ..departure })
            }
            decision => decision,
        }
    }

    /// The application wants a token newer than this generation.
    pub(super) fn forced(&mut self, now: Timestamp, generation: Generation) -> Decision {
        self.give_up_on_lost(now);
        if generation < self.generation {
            return self.token(now);
        }
        if self.flight.is_none() && self.holds_back(now) {
            return self.hold_back(now, Cause::Forced);
        }
        self.need(now, Cause::Forced)
    }

    /// Sends no refresh token whose fate is unknown; others may have brought a token meanwhile.
    fn hold_back(&mut self, now: Timestamp, cause: Cause) -> Decision {
        match &self.failure {
            Some(_) if self.has_store && self.look_again.has_come(now) => {
                Decision::Start(self.look(now, cause))
            }
            Some(failure) => {
                Decision::Refuse(self.remembered(now, failure, self.asked_again_in(now)))
            }
            None => self.need(now, cause),
        }
    }

    /// Wants a newer token, and waits for it.
    fn need(&mut self, now: Timestamp, cause: Cause) -> Decision {
        if self.flight.is_some() {
            return Decision::Join;
        }
        if let Some(error) = self.blocked(now, cause) {
            return Decision::Refuse(error);
        }
        Decision::Start(self.depart(now, cause))
    }

    /// The error that is handed out instead of asking the source.
    fn blocked(&self, now: Timestamp, cause: Cause) -> Option<TokenError> {
        let failure = self.failure.as_ref()?;
        let is_forced = cause == Cause::Forced;
        if is_forced && self.is_probed(&failure.error) {
            return None;
        }
        let until = match is_forced && self.usable(now).is_some() {
            true => failure.until,
            false => failure.until_if_needed,
        };
        if until.has_come(now) {
            return None;
        }
        let left = until.left(now);
        // A clock that went back: the pause would last for as long as it went.
        if left.is_some_and(|left| left > failure.pause.saturating_mul(2)) {
            return None;
        }
        Some(self.remembered(now, failure, left))
    }

    fn remembered(
        &self,
        now: Timestamp,
        failure: &Failure,
        mut after: Option<Duration>,
    ) -> TokenError {
        // To look at the store is not to ask.
        if self.has_store && failure.error.is_denied() {
            after = failure.probe.left(now);
        }
        failure.error.clone().with_next(NextAttempt { is_remembered: true, after })
    }

    /// Returns whether the source is asked again for what it refused, now and then and whenever the application wants.
    fn is_probed(&self, error: &TokenError) -> bool {
        let may_change = self.fresh_proof || error.is_conditional_denial();
        error.is_misconfigured() || (error.is_refusal() && may_change)
    }

    /// Returns whether a refresh token with an unknown outcome is not sent again yet, because the access token works.
    fn holds_back(&self, now: Timestamp) -> bool {
        self.is_ambiguous()
            && self.current.as_ref().is_some_and(|current| !self.may_risk(current, now))
    }

    /// Returns whether a refresh token with an unknown outcome may be sent again.
    fn may_risk(&self, current: &Issued, now: Timestamp) -> bool {
        let end = self.held_back_until(current);
        // An access token without an end gives no reason to wait.
        end == Deadline::NEVER || end.has_come(now)
    }

    /// Returns when a refresh token with an unknown outcome may be sent again.
    ///
    /// In a store it is shared, so that the leeway of one process is no reason to risk it.
    fn held_back_until(&self, current: &Issued) -> Deadline {
        match self.has_store && current.expired != Deadline::NEVER {
            true => current.ends,
            false => current.expired,
        }
    }

    fn is_ambiguous(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.error.is_ambiguous())
    }

    /// Returns whether a token is not to be used any more.
    ///
    /// After a failed refresh the leeway does not count: a token that may still work is better than none.
    fn is_used_up(&self, current: &Issued, now: Timestamp) -> bool {
        self.end_of(current).has_come(now)
    }

    fn end_of(&self, current: &Issued) -> Deadline {
        match &self.failure {
            None => current.expired,
            // One that had expired on arrival was used until now, since a server may accept it.
            Some(failure) if failure.error.is_refusal() => current.ends,
            Some(_) if current.expired == Deadline::NEVER => Deadline::NEVER,
            Some(_) => current.ends,
        }
    }

    // ===== flights =====

    fn depart(&mut self, now: Timestamp, cause: Cause) -> Departure {
        let kind = match cause {
            Cause::Rejected => FlightKind::Replacing,
            _ => FlightKind::Renewing,
        };
        let id = self.occupy(now, kind);
        let is_probe = self.failure.as_ref().is_some_and(|failure| {
            let is_due = cause == Cause::Forced || failure.probe.has_come(now);
            self.is_probed(&failure.error) && is_due
        });
        let is_look = self.has_store && self.is_denied() && !is_probe;
        let errand = if is_look { Errand::Look } else { Errand::Refresh };
        if !is_look {
            self.news.push(Event::RefreshStarted { cause });
        } else if let Some(failure) = &mut self.failure {
            // A look that finds nothing is no failure, and sets no pause.
            failure.until = Deadline::monotonic(now, LOOK_AGAIN);
            failure.until_if_needed = failure.until;
        }
        Departure { is_probe, ..self.departure(now, id, errand, cause) }
    }

    /// Departs to look for what others have stored.
    fn look(&mut self, now: Timestamp, cause: Cause) -> Departure {
        self.look_again = Deadline::monotonic(now, LOOK_AGAIN);
        self.depart_for(now, Errand::Look, cause)
    }

    fn depart_for(&mut self, now: Timestamp, errand: Errand, cause: Cause) -> Departure {
        let id = self.occupy(now, FlightKind::Renewing);
        self.departure(now, id, errand, cause)
    }

    fn departure(
        &mut self,
        now: Timestamp,
        id: FlightId,
        errand: Errand,
        cause: Cause,
    ) -> Departure {
        let is_over = self.current.as_ref().is_none_or(|current| self.may_risk(current, now));
        let is_good_elsewhere =
            || self.usable(now).is_some() && self.evidence.speaks_for_the_token(now);
        let may_risk = is_over || cause == Cause::Rejected && !is_good_elsewhere();
        Departure {
            id,
            errand,
            wish: Wish { cause, has: self.set, may_risk },
            parent: self.generation,
            epoch: self.epoch,
            target: None,
            is_probe: false,
        }
    }

    fn occupy(&mut self, now: Timestamp, kind: FlightKind) -> FlightId {
        self.flights += 1;
        let id = FlightId(self.flights);
        // An adoption may first have to wait until the flight before it is lost.
        let times = if kind == FlightKind::Adopting { 2 * LOST_AFTER } else { LOST_AFTER };
        self.flight = Some(Flight {
            id,
            kind,
            patience: Deadline::monotonic(now, self.timing.timeout),
            lost: Deadline::monotonic(now, self.timing.timeout.saturating_mul(times)),
            was_overdue: false,
        });
        id
    }

    fn give_up_on_lost(&mut self, now: Timestamp) {
        if let Some(flight) = &mut self.flight
            && flight.lost.has_come(now)
            && !flight.was_overdue
        {
            flight.was_overdue = true;
            // The process may have been stopped, and the answer lie in a socket that no task has read yet. To start another
            // flight would send the refresh token again.
            let overdue = now.monotonic().saturating_sub(flight.lost.monotonic);
            if overdue >= self.timing.timeout {
                flight.lost = Deadline::monotonic(now, self.timing.timeout);
            }
        }
        let Some(flight) = self.flight.take_if(|flight| flight.lost.has_come(now)) else {
            return;
        };
        self.lost = true;
        self.news.push(Event::RefreshLost);
        if flight.kind == FlightKind::Adopting {
            // Nothing was sent. It stays on its way, and the source will be told.
            return;
        }
        let streak = self.streak();
        self.set_failure(Some(Failure {
            error: TokenError::ambiguous("a refresh did not end, and is no longer waited for"),
            streak,
            // Nothing more is to be had from waiting: if the token is used up, the next one asks at once.
            until: Deadline::PAST,
            until_if_needed: Deadline::PAST,
            pause: Duration::ZERO,
            probe: Deadline::NEVER,
        }));
        let current = self.generation;
        self.with_evidence(|evidence| evidence.refresh_failed(now, current, None));
    }

    /// Takes back a departure that could not be started.
    pub(super) fn call_off(&mut self, departure: &Departure) {
        if self.wants(departure.id) {
            self.flight = None;
            self.news.retain(|event| !matches!(event, Event::RefreshStarted { .. }));
        }
    }

    /// Returns whether a flight that now has its turn is still wanted.
    pub(super) fn wants(&self, id: FlightId) -> bool {
        self.flight_id() == Some(id)
    }

    /// A flight ends. Returns the outcome for those who wait; nothing if they are to ask again, or if it concerns nobody any more.
    pub(super) fn land(
        &mut self,
        now: Timestamp,
        departure: &Departure,
        landed: Landed,
        notes: Notes,
    ) -> Option<Result<Arc<Issued>, TokenError>> {
        let waited_for = self.wants(departure.id);
        self.note(now, notes);
        let result = match landed {
            Landed::Refreshed(result) => result,
            Landed::Looked(Look::Newer(obtained)) => Ok(obtained),
            Landed::Looked(look) => {
                if matches!(look, Look::Changed) && self.is_denied() {
                    // The failure was about another record.
                    self.set_failure(None);
                }
                self.flight.take_if(|flight| flight.id == departure.id);
                return None;
            }
            Landed::Saved(result) => {
                self.saved(now, result);
                self.flight.take_if(|flight| flight.id == departure.id);
                return None;
            }
        };
        // A flight that was given up on may still bring the only copy of the next refresh token, but not once something newer
        // was issued, and not for another session.
        let result = match result {
            Ok(obtained) if departure.epoch == self.epoch && Some(obtained.id) > self.set => {
                Ok(obtained)
            }
            Err(error) if waited_for => Err(error),
            superseded => {
                self.discarded.extend(superseded.err());
                self.news.push(Event::RefreshSuperseded);
                return None;
            }
        };
        self.flight = None;
        match result {
            Ok(obtained) => {
                let is_of_another = self.current.is_some()
                    && (obtained.is_of_other_login || self.is_logged_out(now));
                if is_of_another || !self.session.has_begun() {
                    self.begin_session();
                }
                self.set_failure(None);
                if obtained.is_adopted {
                    self.news.push(Event::FoundInStore);
                }
                let Obtained { id, tokens, asked, .. } = obtained;
                let issued = self.issue(now, asked, tokens, true);
                self.set = Some(id);
                self.news.push(Event::Refreshed {
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
            Err(error) => {
                let error = self.fail(now, error, departure.is_probe);
                let (current, target) = (self.generation, departure.target);
                self.with_evidence(|evidence| evidence.refresh_failed(now, current, target));
                Some(Err(error))
            }
        }
    }

    /// Notes what a flight has to report besides its result.
    fn note(&mut self, now: Timestamp, notes: Notes) {
        if notes.is_saved {
            self.saved(now, Ok(true));
        }
        if let Some(error) = notes.unsaved {
            self.unsaved = Some(Deadline::monotonic(now, SAVE_FIRST));
            self.news.push(Event::Unsaved { error });
        }
    }

    pub(super) fn saved(&mut self, now: Timestamp, result: Result<bool, TokenError>) {
        match result {
            Ok(is_saved) => {
                if is_saved {
                    self.news.push(Event::Saved);
                }
                self.unsaved = None;
            }
            Err(error) => {
                self.unsaved = Some(Deadline::monotonic(now, SAVE_AGAIN));
                self.discarded.push(error);
            }
        }
    }

    /// `is_obtained` if the source has just issued it, and not the application, which may bring one that is used up.
    fn issue(
        &mut self,
        now: Timestamp,
        asked: Timestamp,
        tokens: TokenSet,
        is_obtained: bool,
    ) -> Arc<Issued> {
        self.generation.0 += 1;
        let (lifetime, expiry) = match tokens.expiry() {
            None => (None, Deadline::NEVER),
            Some(Expiry::In(lifetime)) => {
                let lifetime = min(lifetime, LIFETIME_MAX);
                (Some(lifetime), Deadline::after(asked, lifetime))
            }
            Some(Expiry::At(at)) => {
                let lifetime = min(at.saturating_sub(now.since_epoch()), LIFETIME_MAX);
                (Some(lifetime), Deadline::after(now, lifetime))
            }
        };
        let expired = expiry
            .before(lifetime.map_or(Duration::ZERO, |lifetime| self.timing.leeway().of(lifetime)));
        let stale = match (tokens.refresh_in(), lifetime) {
            // Whatever a server says, it does not want to be asked again at once.
            (Some(after), _) => {
                let least = lifetime.map_or(REFRESH_IN_MIN, |life| REFRESH_IN_MIN.min(life / 10));
                Deadline::after(asked, after.clamp(least, LIFETIME_MAX))
            }
            (None, Some(lifetime)) => {
                expiry.before(self.timing.refresh_ahead_of(lifetime, self.share))
            }
            (None, None) => Deadline::NEVER,
        };
        let (stale, expired, ends) = match is_obtained && self.is_over(now, &tokens, expired) {
            // To obtain another would bring one like it. A server that rejects it is the judge.
            true => {
                let after = tokens.refresh_in().unwrap_or_default();
                let after = after.clamp(REFRESH_IN_MIN, LIFETIME_MAX);
                (Deadline::monotonic(now, after), Deadline::NEVER, expiry)
            }
            false => (stale, expired, expiry),
        };
        let issued = Arc::new(Issued {
            tokens,
            generation: self.generation,
            session: self.session,
            stale: stale.or_earlier(expired),
            expired,
            ends,
            witness: Witness::new(),
        });
        self.evidence.token_issued();
        self.current = Some(Arc::clone(&issued));
        issued
    }

    /// Returns whether a token that was just obtained is over already, and reports the first of several.
    fn is_over(&mut self, now: Timestamp, tokens: &TokenSet, expired: Deadline) -> bool {
        let left = expired.left(now);
        let (is_over, reason) = match tokens.expiry() {
            None => (false, ""),
            Some(Expiry::In(Duration::ZERO)) => (true, "the source gave it a lifetime of zero"),
            Some(Expiry::In(_)) => (
                left.is_some_and(|left| left < USABLE_MIN),
                "it arrived when its lifetime was over: the lifetime is too short, or the token endpoint too slow",
            ),
            Some(Expiry::At(_)) => (
                expired.has_come(now),
                "it expires at a time in the past: the clock of this machine or of the server is wrong",
            ),
        };
        if is_over && !std::mem::replace(&mut self.is_over_on_arrival, is_over) {
            self.news.push(Event::ExpiredOnArrival { reason });
        }
        self.is_over_on_arrival = is_over;
        is_over
    }

    /// Remembers a failure. Returns the error for those who waited.
    fn fail(&mut self, now: Timestamp, error: TokenError, was_probe: bool) -> TokenError {
        let error = error.without_next();
        let streak = self.streak();
        let is_probed = self.is_probed(&error);
        let (pause, pause_if_needed) = self.pauses(&error, streak);
        let after = |pause: Option<Duration>| {
            pause.map_or(Deadline::NEVER, |pause| Deadline::monotonic(now, pause))
        };
        // A look at the store puts off no probe.
        let probe = match &self.failure {
            Some(last) if last.probe != Deadline::NEVER && !was_probe => last.probe,
            _ if is_probed => Deadline::monotonic(now, PROBE),
            _ => Deadline::NEVER,
        };
        // Each look at a store that has nothing new is no news.
        let is_news = was_probe || !(self.has_store && error.is_refusal() && self.is_denied());
        self.set_failure(Some(Failure {
            error: error.clone(),
            streak,
            until: after(pause),
            until_if_needed: after(pause_if_needed),
            pause: pause.unwrap_or(Duration::MAX),
            probe,
        }));
        let mut retry_in = self.asked_again_in(now);
        if is_news {
            self.news.push(Event::RefreshFailed { error: error.clone(), retry_in });
        }
        if !is_probed {
            return error;
        }
        if self.has_store && error.is_denied() {
            retry_in = probe.left(now);
        }
        error.with_next(NextAttempt { is_remembered: false, after: retry_in })
    }

    /// How long the source is left alone behind a token that works, and if requests need one.
    fn pauses(&mut self, error: &TokenError, streak: u32) -> (Option<Duration>, Option<Duration>) {
        if error.is_refusal() {
            let pause = match self.has_store {
                true => Some(LOOK_AGAIN),
                false => self.is_probed(error).then_some(PROBE),
            };
            return (pause, pause);
        }
        if error.is_misconfigured() {
            return (Some(PROBE), Some(PROBE));
        }
        let Backoff { first, max: most } = self.timing.backoff;
        let pause = self.timing.backoff.after(streak);
        // A transient error means that nothing counted, and an unsent one costs the server nothing.
        let most_if_needed = match (error.is_transient(), error.is_unsent()) {
            (true, true) => first,
            (true, false) => max(first, OUTAGE_PAUSE),
            _ => most,
        };
        // Between half of it and all of it, so that a fleet does not come back in step.
        let jitter = 0.5 + self.dice.roll() / 2.0;
        let asked_for = min(error.retry_after().unwrap_or_default(), RETRY_AFTER_MAX);
        let jittered = |pause: Duration| Some(max(pause.mul_f64(jitter), asked_for));
        (jittered(pause), jittered(min(pause, most_if_needed)))
    }

    /// Returns whether the last refresh failed.
    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Ends the backoffs: the input of the source has changed, so that its last answer proves nothing.
    pub(super) fn source_changed(&mut self) {
        self.ask_at_once();
        let backoff = self.timing.rejection_backoff;
        self.with_evidence(|evidence| *evidence = Evidence::new(backoff));
    }

    fn ask_at_once(&mut self) {
        if let Some(failure) = &mut self.failure {
            failure.until = Deadline::PAST;
            failure.until_if_needed = Deadline::PAST;
            failure.probe = Deadline::PAST;
        }
        let backoff = self.timing.rejection_backoff;
        self.with_evidence(|evidence| *evidence = Evidence::new(backoff));
    }

    /// Returns whether somebody must log in again, as far as is known.
    fn is_denied(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.error.is_refusal())
    }

    /// How many failures in a row the next one makes.
    fn streak(&self) -> u32 {
        self.failure.as_ref().map_or(1, |failure| failure.streak.saturating_add(1))
    }

    fn set_failure(&mut self, failure: Option<Failure>) {
        let last = std::mem::replace(&mut self.failure, failure);
        self.discarded.extend(last.map(|failure| failure.error));
    }

    // ===== what the application does itself =====

    /// The application logs in (with tokens) or out (with none): seen at once, by everybody.
    pub(super) fn adopt(
        &mut self,
        now: Timestamp,
        set: SetId,
        tokens: Option<TokenSet>,
    ) -> Adoption {
        // What it would wait for must not be lost already.
        self.give_up_on_lost(now);
        self.epoch += 1;
        self.set = Some(set);
        self.unsaved = None;
        self.set_failure(None);
        self.evidence = Evidence::new(self.timing.rejection_backoff);
        if let Some(tokens) = tokens {
            self.begin_session();
            let generation = self.issue(now, now, tokens, false).generation.0;
            self.news.push(Event::LoggedIn { generation });
        } else {
            self.session = self.session.end();
            self.generation.0 += 1;
            self.session_began = self.generation;
            self.current = None;
            self.news.push(Event::LoggedOut);
        }
        Adoption { id: self.occupy(now, FlightKind::Adopting), set, epoch: self.epoch }
    }

    /// The token set that is issued next is the first of its session.
    fn begin_session(&mut self) {
        self.session = self.session.next();
        self.session_began = Generation(self.generation.0 + 1);
    }

    /// Returns whether an adoption that now has its turn is the last of its kind; a later one has the last word.
    pub(super) fn has_last_word(&self, adoption: Adoption) -> bool {
        adoption.epoch == self.epoch
    }

    /// An adoption has waited long enough for its turn: the flight that holds it is lost.
    pub(super) fn give_up_on_turn(&mut self) {
        self.lost = true;
    }

    /// The source was told.
    pub(super) fn adopted(&mut self, adoption: Adoption) {
        if self.wants(adoption.id) {
            self.flight = None;
        }
    }

    // ===== evidence =====

    /// Returns for how long a target's rejections of the current token start no refresh; none if this one does.
    fn ignores_rejection(&mut self, now: Timestamp, target: Target) -> Option<Duration> {
        let generation = self.generation;
        let judgement = self.with_evidence(|evidence| evidence.judge(now, generation, target));
        match judgement {
            Judgement::Counts => None,
            Judgement::Ignored { left, begins } => {
                if begins {
                    self.news.push(Event::RejectionBackoffStarted { duration: left });
                }
                Some(left)
            }
        }
    }

    /// A target that [may be a suspect](Issued::accepted) accepted the token of this generation.
    pub(super) fn accepted(&mut self, now: Timestamp, generation: Generation, target: Target) {
        // Acceptance of an older token is no evidence for the current one.
        if generation == self.generation
            && self.with_evidence(|evidence| evidence.accepted(now, target))
        {
            self.news.push(Event::RejectionBackoffEnded);
        }
    }

    /// A request that was rejected with an older token was accepted with a newer one.
    pub(super) fn retry_accepted(&mut self, now: Timestamp, target: Target) {
        if self.with_evidence(|evidence| evidence.retry_accepted(now, target)) {
            self.news.push(Event::RejectionBackoffEnded);
        }
    }

    /// A request that was rejected with an older token was rejected with this one too.
    pub(super) fn retry_rejected(
        &mut self,
        now: Timestamp,
        generation: Generation,
        target: Target,
    ) {
        if generation != self.generation {
            return;
        }
        let hold = self.with_evidence(|evidence| evidence.retry_rejected(now, target, generation));
        if let Some(duration) = hold {
            self.news.push(Event::RejectionBackoffStarted { duration });
        }
    }

    /// Changes the evidence, in the light of what the responses have shown so far.
    fn with_evidence<T>(&mut self, change: impl FnOnce(&mut Evidence) -> T) -> T {
        let Some(current) = &self.current else {
            return change(&mut self.evidence);
        };
        self.evidence.hear(&current.witness);
        let changed = change(&mut self.evidence);
        self.evidence.ask(&current.witness);
        changed
    }

    // ===== what others may know =====

    pub(super) fn generation(&self) -> Generation {
        self.generation
    }

    /// Returns the current token unless it has expired, also if a refresh is due.
    pub(super) fn usable(&self, now: Timestamp) -> Option<Arc<Issued>> {
        self.current.clone().filter(|current| !self.is_used_up(current, now))
    }

    /// Returns the token that a request would use now without waiting, fresh or stale.
    pub(super) fn current(&self, now: Timestamp) -> Option<Arc<Issued>> {
        let (current, _) = self.published(now)?;
        (!self.is_used_up(current, now)).then(|| Arc::clone(current))
    }

    pub(super) fn flight_id(&self) -> Option<FlightId> {
        self.flight.as_ref().map(|flight| flight.id)
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns the last session that began.
    pub(super) fn session(&self) -> Session {
        self.session
    }

    /// Returns the session that a request made now belongs to: the next one if there is no usable token and there will be
    /// none before a log-in.
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

    /// Returns whether there is nothing left of the session: the token is used up, and the grant is gone.
    fn is_logged_out(&self, now: Timestamp) -> bool {
        let current = self.current.as_ref();
        self.is_denied() && current.is_none_or(|current| self.is_used_up(current, now))
    }

    /// The token that requests may use without asking, and until when there is nothing to decide.
    pub(super) fn published(&self, now: Timestamp) -> Option<(&Arc<Issued>, Deadline)> {
        let current = self.current.as_ref()?;
        let quiet_until = match (&self.flight, &self.failure) {
            // New requests wait rather than be sent to certain failure, but not for ever: it may be good elsewhere.
            (Some(flight), _)
                if flight.kind == FlightKind::Replacing && !flight.patience.has_come(now) =>
            {
                return None;
            }
            (Some(flight), _) => flight.lost,
            (None, _) => {
                let refresh = self.next_refresh(current, now);
                self.unsaved.map_or(refresh, |unsaved| refresh.or_earlier(unsaved))
            }
        };
        Some((current, quiet_until.or_earlier(self.end_of(current))))
    }

    /// Returns when the next refresh behind the requests is due.
    fn next_refresh(&self, current: &Issued, now: Timestamp) -> Deadline {
        match &self.failure {
            Some(_) if self.holds_back(now) => self.held_back_until(current),
            Some(failure) if !failure.until.has_come(now) => failure.until,
            _ => current.stale,
        }
    }

    /// Returns whether a flight was declared lost since the last call.
    pub(super) fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }

    /// Returns what is to be dropped outside the lock.
    pub(super) fn take_discarded(&mut self) -> Vec<TokenError> {
        std::mem::take(&mut self.discarded)
    }

    /// Returns what happened since the last call.
    pub(super) fn take_news(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.news)
    }

    /// How long it is until the source is asked again, if there are requests; none if not before the credentials change.
    fn asked_again_in(&self, now: Timestamp) -> Option<Duration> {
        let failure = self.failure.as_ref()?;
        let if_needed = failure.until_if_needed.left(now);
        let Some(current) = self.current.as_ref().filter(|current| !self.is_used_up(current, now))
        else {
            return if_needed;
        };
        // Requests need another token once this one has expired.
        let end = if self.is_ambiguous() { self.held_back_until(current) } else { current.expired };
        let once_expired = match (end.left(now), if_needed) {
            (Some(expired), Some(if_needed)) => Some(max(expired, if_needed)),
            _ => None,
        };
        if self.holds_back(now) {
            return once_expired;
        }
        match (failure.until.left(now), once_expired) {
            (Some(behind), Some(once_expired)) => Some(min(behind, once_expired)),
            (behind, once_expired) => behind.or(once_expired),
        }
    }

    pub(super) fn view(&self, now: Timestamp) -> View {
        View {
            current: self.current.clone(),
            in_flight: self.flight.is_some(),
            rejected: self
                .current
                .as_ref()
                .is_some_and(|current| self.evidence.is_doubted(&current.witness))
                || self.flight.as_ref().is_some_and(|flight| flight.kind == FlightKind::Replacing),
            error: self.failure.as_ref().map(|failure| failure.error.clone()),
            backoff: self.asked_again_in(now).filter(|left| !left.is_zero()),
            rejection_backoff: self
                .current
                .as_ref()
                .filter(|current| !self.is_used_up(current, now))
                .and_then(|_| self.evidence.longest_left(now)),
        }
    }
}

impl Issued {
    /// Returns the session that it was issued in: after a log-in or a log-out it is not to be sent any more.
    pub(super) fn session(&self) -> Session {
        self.session
    }

    pub(super) fn is_stale(&self, now: Timestamp) -> bool {
        self.stale.has_come(now)
    }

    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        self.expired.has_come(now)
    }

    /// A response accepted this token. Returns whether the state must know, since it may come from a suspect.
    ///
    /// Takes no lock. For a token that is known to be good it costs one relaxed load.
    pub(super) fn accepted(&self, target: Target) -> bool {
        self.witness.accepted(target)
    }

    pub(super) fn usable_for(&self, now: Timestamp) -> Option<Duration> {
        self.expired.left(now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::super::policy::RefreshPolicy;
    use super::*;
    use crate::clock::SystemClock;
    use crate::grant::{Keeper, Leeway};
    use crate::source::{StaticToken, TokenSource as _};
    use crate::token::TokenSet;

    /// What can happen to the credentials.
    #[derive(Clone, Debug)]
    enum Step {
        Token,
        Rejected { age: u64, target: u32 },
        Accepted { age: u64, target: u32 },
        Retried { age: u64, target: u32, is_accepted: bool },
        Forced { age: u64 },
        Land { which: usize, result: Landing },
        Replace { lifetime: Option<u64> },
        Forget,
        Adopted { which: usize },
        Pass { milliseconds: u64 },
        UntilStale,
        Suspend { milliseconds: u64 },
        SetBack { milliseconds: u64 },
    }

    #[derive(Clone, Copy, Debug)]
    enum Landing {
        Tokens { lifetime: Option<u64>, is_of_other_login: bool },
        Transient,
        Ambiguous,
        Denied,
        Misconfigured,
    }

    fn step() -> impl Strategy<Value = Step> {
        let lifetime = || {
            proptest::option::of(prop_oneof![
                Just(0),
                1..5000_u64,
                5000..4_000_000_u64,
                Just(u64::MAX)
            ])
        };
        let landing = prop_oneof![
            4 => (lifetime(), proptest::bool::weighted(0.1)).prop_map(
                |(lifetime, is_of_other_login)| Landing::Tokens { lifetime, is_of_other_login }
            ),
            1 => Just(Landing::Transient),
            1 => Just(Landing::Ambiguous),
            1 => Just(Landing::Denied),
            1 => Just(Landing::Misconfigured),
        ];
        let milliseconds = || prop_oneof![0..50_u64, 0..5000_u64, 0..400_000_u64];
        prop_oneof![
            6 => Just(Step::Token),
            3 => (0..3_u64, 0..3_u32).prop_map(|(age, target)| Step::Rejected { age, target }),
            2 => (0..2_u64, 0..3_u32).prop_map(|(age, target)| Step::Accepted { age, target }),
            2 => (0..2_u64, 0..3_u32, any::<bool>())
                .prop_map(|(age, target, is_accepted)| Step::Retried { age, target, is_accepted }),
            1 => (0..2_u64).prop_map(|age| Step::Forced { age }),
            6 => (0..4_usize, landing).prop_map(|(which, result)| Step::Land { which, result }),
            1 => lifetime().prop_map(|lifetime| Step::Replace { lifetime }),
            1 => Just(Step::Forget),
            2 => (0..4_usize).prop_map(|which| Step::Adopted { which }),
            4 => milliseconds().prop_map(|milliseconds| Step::Pass { milliseconds }),
            1 => Just(Step::UntilStale),
            1 => milliseconds().prop_map(|milliseconds| Step::Suspend { milliseconds }),
            1 => milliseconds().prop_map(|milliseconds| Step::SetBack { milliseconds }),
        ]
    }

    /// Drives a state through steps, and checks after each what must always hold.
    struct Model {
        state: State,
        /// Numbers the token sets.
        keeper: Keeper,
        monotonic: Duration,
        wall: Duration,
        flying: Vec<(Departure, Timestamp)>,
        adopting: Vec<Adoption>,
        /// When on the monotonic clock each flight and each adoption was decided on.
        occupied: Vec<(FlightId, Duration)>,
        newest: Generation,
        newest_session: Session,
    }

    impl Model {
        fn new(seed: u64) -> Self {
            Self::with_policy(&RefreshPolicy::default(), seed)
        }

        fn with_policy(policy: &RefreshPolicy, seed: u64) -> Self {
            Self {
                // Half of the cases have a store.
                state: State::new(policy.timing, seed, seed.is_multiple_of(2)),
                keeper: Keeper::new(
                    StaticToken::new("t".parse().unwrap()).boxed(),
                    None,
                    Leeway(Duration::ZERO),
                    Arc::new(SystemClock),
                ),
                monotonic: Duration::from_secs(1000),
                wall: Duration::from_secs(1_700_000_000),
                flying: Vec::new(),
                adopting: Vec::new(),
                occupied: Vec::new(),
                newest: Generation(0),
                newest_session: Session::default(),
            }
        }

        fn now(&self) -> Timestamp {
            Timestamp::new(self.monotonic, SystemTime::UNIX_EPOCH + self.wall)
        }

        fn tokens(lifetime: Option<u64>) -> TokenSet {
            let tokens = TokenSet::bearer("t").unwrap();
            match lifetime {
                Some(lifetime) => tokens.with_expires_in(Duration::from_millis(lifetime)),
                None => tokens,
            }
        }

        fn decided(&mut self, decision: Decision, newer_than: Option<Generation>) {
            let now = self.now();
            match decision {
                Decision::Use(issued) => self.usable(&issued, newer_than),
                Decision::UseAndStart(issued, departure) => {
                    self.usable(&issued, newer_than);
                    let is_refresh = departure.errand == Errand::Refresh;
                    assert!(!is_refresh || issued.is_stale(now), "refreshed before it was stale");
                    self.departed(departure);
                }
                Decision::Start(departure) => self.departed(departure),
                Decision::Join => assert!(self.state.flight.is_some(), "nobody to wait for"),
                Decision::Refuse(_) => {
                    assert!(
                        self.state.flight.is_none(),
                        "refused although there is something to wait for"
                    );
                }
            }
        }

        fn usable(&self, issued: &Issued, newer_than: Option<Generation>) {
            // One that had expired on arrival is used until a server rejects it.
            let has_ended = issued.expired != Deadline::NEVER && issued.ends.has_come(self.now());
            assert!(!has_ended, "a token that has ended is used");
            assert!(
                self.state.has_failed() || !issued.is_expired(self.now()),
                "an expired token is used although no refresh has failed"
            );
            assert_eq!(issued.generation, self.newest, "an old token is used");
            assert!(
                newer_than.is_none_or(|old| issued.generation > old),
                "the rejected token is used again"
            );
        }

        fn departed(&mut self, departure: Departure) {
            assert_eq!(self.state.flight_id(), Some(departure.id));
            assert_eq!(departure.parent, self.newest);
            self.occupied.push((departure.id, self.monotonic));
            self.flying.push((departure, self.now()));
        }

        /// Returns what the ledger hands out.
        fn obtained(&self, tokens: TokenSet, asked: Timestamp) -> Obtained {
            let id = self.keeper.new_id();
            Obtained { id, tokens, asked, is_adopted: false, is_of_other_login: false }
        }

        /// Ends a flight, with the result that its errand has.
        fn land_at(
            &mut self,
            departure: &Departure,
            result: Result<Obtained, TokenError>,
        ) -> Option<Result<Arc<Issued>, TokenError>> {
            let landed = match (departure.errand, result) {
                (Errand::Refresh, result) => Landed::Refreshed(result),
                (Errand::Look, Ok(obtained)) => Landed::Looked(Look::Newer(obtained)),
                (Errand::Look, Err(_)) => Landed::Looked(Look::Nothing),
                (Errand::Save, result) => Landed::Saved(result.map(|_| true)),
            };
            self.state.land(self.now(), departure, landed, Notes::default())
        }

        fn log_in(&mut self, tokens: Option<TokenSet>) -> Adoption {
            let id = self.keeper.new_id();
            self.state.adopt(self.now(), id, tokens)
        }

        fn apply(&mut self, step: Step) {
            let now = self.now();
            let before = self.state.flight_id();
            match step {
                Step::Token => {
                    let decision = self.state.token(now);
                    if let Decision::Use(issued) = &decision
                        && issued.is_stale(now)
                    {
                        let view = self.state.view(now);
                        let left_alone = view.backoff.is_some()
                            || view.error.is_some_and(|error| error.is_denied());
                        assert!(view.in_flight || left_alone, "a stale token is not renewed");
                    }
                    if let Some((_, until)) = self.state.published(now)
                        && !until.has_come(now)
                    {
                        assert!(
                            matches!(decision, Decision::Use(_) | Decision::UseAndStart(..)),
                            "what is published is not what is decided: {decision:?}"
                        );
                    }
                    if let Decision::Refuse(error) = &decision {
                        assert!(error.is_remembered());
                        let only_looks = self.state.has_store && error.is_denied();
                        let backoff = self.state.view(now).backoff;
                        assert!(only_looks || error.asked_again_in() == backoff);
                        let is_short = error.asked_again_in().is_some_and(|it| it <= OUTAGE_PAUSE);
                        assert!(is_short || !error.is_transient(), "an outage that does not end");
                    }
                    self.decided(decision, None);
                }
                Step::Rejected { age, target } => {
                    let generation = Generation(self.newest.0.saturating_sub(age));
                    let decision = self.state.rejected(now, generation, of(target));
                    self.decided(decision, Some(generation));
                }
                Step::Accepted { age, target } => {
                    let generation = Generation(self.newest.0.saturating_sub(age));
                    self.state.accepted(now, generation, of(target));
                }
                Step::Retried { age, target, is_accepted } => {
                    let generation = Generation(self.newest.0.saturating_sub(age));
                    if is_accepted {
                        self.state.retry_accepted(now, of(target));
                    } else {
                        self.state.retry_rejected(now, generation, of(target));
                    }
                }
                Step::Forced { age } => {
                    let generation = Generation(self.newest.0.saturating_sub(age));
                    let decision = self.state.forced(now, generation);
                    self.decided(decision, Some(generation));
                }
                Step::Land { which, result } if which < self.flying.len() => {
                    let (departure, asked) = self.flying.remove(which);
                    let result = match result {
                        Landing::Tokens { lifetime, is_of_other_login } => Ok(Obtained {
                            is_of_other_login,
                            ..self.obtained(Self::tokens(lifetime), asked)
                        }),
                        Landing::Transient => Err(TokenError::transient("x")),
                        Landing::Ambiguous => Err(TokenError::ambiguous("x")),
                        Landing::Denied => Err(TokenError::denied("x")),
                        Landing::Misconfigured => Err(TokenError::misconfigured("x")),
                    };
                    let landed = self.land_at(&departure, result);
                    match landed {
                        Some(Ok(issued)) => {
                            assert!(
                                departure.epoch == self.state.epoch,
                                "a flight from before a log-in was published"
                            );
                            assert!(issued.generation > self.newest);
                            assert!(!issued.is_expired(now), "over on arrival, and not used");
                            self.newest = issued.generation;
                        }
                        Some(Err(_)) => {
                            assert_eq!(departure.parent, self.newest);
                            assert_eq!(before, Some(departure.id));
                        }
                        None if departure.errand != Errand::Refresh => {
                            assert!(!self.state.wants(departure.id));
                        }
                        None => assert_eq!(
                            self.state.flight_id(),
                            before,
                            "a late landing changed the flight"
                        ),
                    }
                }
                Step::Replace { lifetime } => {
                    let waits = self.state.session_of_new_request(now);
                    let adoption = self.log_in(Some(Self::tokens(lifetime)));
                    self.adopted(adoption);
                    assert!(self.state.current.is_some());
                    // A request of the last user is not sent for the next one.
                    let is_of_last = waits == self.newest_session;
                    assert_eq!(self.state.session() > waits, is_of_last);
                }
                Step::Forget => {
                    let adoption = self.log_in(None);
                    self.adopted(adoption);
                    assert!(self.state.current.is_none());
                }
                Step::Adopted { which } if which < self.adopting.len() => {
                    let adoption = self.adopting.remove(which);
                    self.state.adopted(adoption);
                    assert_ne!(self.state.flight_id(), Some(adoption.id));
                }
                Step::Pass { milliseconds } => self.pass(Duration::from_millis(milliseconds)),
                Step::UntilStale => {
                    let current = self.state.current.as_ref();
                    let left = current.and_then(|current| current.stale.left(now));
                    self.pass(left.unwrap_or_default());
                }
                Step::Suspend { milliseconds } => self.wall += Duration::from_millis(milliseconds),
                Step::SetBack { milliseconds } => self.wall -= Duration::from_millis(milliseconds),
                Step::Land { .. } | Step::Adopted { .. } => {}
            }
            self.state.take_lost();
            if self.state.take_news().iter().any(|event| matches!(event, Event::RefreshLost)) {
                let (_, since) = self
                    .occupied
                    .iter()
                    .find(|(id, _)| Some(*id) == before)
                    .expect("what is lost was under way");
                let patience = self.state.timing.timeout * LOST_AFTER;
                assert!(self.monotonic - *since >= patience, "declared lost too early");
            }
            self.state.take_discarded();
            assert!(self.state.session() >= self.newest_session, "a session comes back");
            self.newest_session = self.state.session();
            self.holds();
        }

        fn adopted(&mut self, adoption: Adoption) {
            self.adopting.push(adoption);
            self.occupied.push((adoption.id, self.monotonic));
            assert!(self.state.generation() > self.newest);
            self.newest = self.state.generation();
        }

        fn holds(&self) {
            let now = self.now();
            assert_eq!(self.state.generation(), self.newest);
            if let Some((issued, until)) = self.state.published(now) {
                assert_eq!(issued.generation, self.newest);
                assert!(
                    until.has_come(now) || !self.state.is_used_up(issued, now),
                    "a token that is used up is published"
                );
            }
            let session = self.state.session();
            assert!(self.state.session_of_new_request(now) >= session);
            assert_eq!(session.has_begun(), self.state.current.is_some());
            if let Some(current) = &self.state.current {
                assert_eq!(current.session, session, "the token of another session is current");
                assert!(!self.state.is_of_earlier_session(current.generation));
            }
            let view = self.state.view(now);
            assert!(
                view.rejection_backoff.is_none()
                    || view.current.is_some_and(|current| !self.state.is_used_up(&current, now))
            );
            // Whoever is told to wait is waiting for something that somebody will end.
            if let Some(id) = self.state.flight_id() {
                let flying = self.flying.iter().any(|(departure, _)| departure.id == id);
                let adopting = self.adopting.iter().any(|adoption| adoption.id == id);
                assert!(flying || adopting, "a flight that nobody flies");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_happens_the_invariants_hold(seed: u64, steps in proptest::collection::vec(step(), 1..120)) {
            let mut model = Model::new(seed);
            for step in steps {
                model.apply(step);
            }
        }

        #[test]
        fn whatever_happened_a_client_that_logs_in_works_again(
            seed: u64,
            steps in proptest::collection::vec(step(), 1..60),
        ) {
            let mut model = Model::new(seed);
            for step in steps {
                model.apply(step);
            }
            model.log_in(Some(Model::tokens(Some(3_600_000))));
            prop_assert!(matches!(model.token(), Decision::Use(_)));
        }

        #[test]
        fn an_outage_never_ends_in_silence(seed: u64, failures in 1..100_u32) {
            // However many failures in a row, the source is asked again within the longest pause of an outage.
            let mut model = Model::new(seed);
            for _ in 0..failures {
                let now = model.now();
                let Decision::Start(departure) = model.state.token(now) else {
                    panic!("not asked again");
                };
                model.land(&departure, Err(TokenError::transient("x")));
                model.apply(Step::Pass { milliseconds: 5000 });
            }
        }
    }

    // ===== one promise at a time =====

    impl Model {
        /// Windows that a test can reckon with.
        fn steady() -> Self {
            Self::with_policy(&RefreshPolicy::default().jitter(Duration::ZERO), 1)
        }

        /// Holds a token of an hour: stale after 3300 seconds, and expired after 3590.
        fn logged_in(tokens: impl Into<TokenSet>, timeout: Duration) -> Self {
            let policy = RefreshPolicy::default().jitter(Duration::ZERO).timeout(timeout);
            let mut model = Self::with_policy(&policy, 1);
            let adoption = model.log_in(Some(tokens.into()));
            model.state.adopted(adoption);
            model.state.take_news();
            model
        }

        fn pass(&mut self, time: Duration) {
            self.monotonic += time;
            self.wall += time;
        }

        fn token(&mut self) -> Decision {
            self.state.token(self.now())
        }

        /// Rejects the current token.
        fn reject(&mut self) -> Departure {
            let decision = self.state.rejected(self.now(), self.state.generation(), of(1));
            let Decision::Start(departure) = decision else { panic!("{decision:?}") };
            departure
        }

        fn land(&mut self, departure: &Departure, result: Result<TokenSet, TokenError>) {
            let result = result.map(|tokens| self.obtained(tokens, self.now()));
            self.land_at(departure, result);
        }

        /// Rejects the current token, refreshes it, and rejects the new one too. Returns the backoff.
        fn reject_twice(&mut self) -> Option<Duration> {
            let departure = self.reject();
            self.land(&departure, Ok(of_an_hour()));
            self.state.retry_rejected(self.now(), self.state.generation(), of(1));
            self.rejection_backoff()
        }

        /// Asks for the first token, and fails. Returns the backoff.
        fn fail(&mut self, error: TokenError) -> Duration {
            let decision = self.token();
            let Decision::Start(departure) = decision else { panic!("{decision:?}") };
            self.land(&departure, Err(error));
            self.state.view(self.now()).backoff.unwrap()
        }

        fn rejection_backoff(&self) -> Option<Duration> {
            self.state.view(self.now()).rejection_backoff
        }

        fn published_until(&self) -> Deadline {
            self.state.published(self.now()).unwrap().1
        }

        fn has_news(&mut self, is_it: impl Fn(&Event) -> bool) -> bool {
            self.state.take_news().iter().any(is_it)
        }
    }

    fn of(path: u32) -> Target {
        Target::new(1, path)
    }

    fn of_an_hour() -> TokenSet {
        TokenSet::bearer("t").unwrap().with_expires_in(Duration::from_secs(3600))
    }

    const TIMEOUT: Duration = Duration::from_secs(5);
    const STALE: Duration = Duration::from_secs(3300);

    #[test]
    fn a_token_is_stale_at_its_expiry_at_the_latest() {
        let model =
            Model::logged_in(of_an_hour().with_refresh_in(Duration::from_secs(7200)), TIMEOUT);
        let current = model.state.current.as_ref().unwrap();
        assert_eq!(current.stale, current.expired);
    }

    #[test]
    fn refresh_in_counts_from_before_the_token_was_asked_for() {
        let mut model = Model::steady();
        let asked = model.now();
        let Decision::Start(departure) = model.token() else { panic!("there is a token") };
        model.pass(Duration::from_secs(20));
        let tokens = of_an_hour().with_refresh_in(Duration::from_secs(60));
        let obtained = model.obtained(tokens, asked);
        model.land_at(&departure, Ok(obtained));
        model.pass(Duration::from_secs(39));
        assert!(matches!(model.token(), Decision::Use(_)));
        model.pass(Duration::from_secs(1));
        assert!(matches!(model.token(), Decision::UseAndStart(..)));
    }

    #[test]
    fn after_an_unknown_outcome_a_token_that_expires_is_used_to_its_end_and_asks_nothing() {
        let mut model = Model::logged_in(of_an_hour(), TIMEOUT);
        model.pass(STALE);
        let Decision::UseAndStart(issued, departure) = model.token() else { panic!("not stale") };
        model.land(&departure, Err(TokenError::ambiguous("cut")));
        assert!(!model.published_until().or_earlier(issued.expired).has_come(model.now()));
        while !issued.is_expired(model.now()) {
            assert!(matches!(model.token(), Decision::Use(_)));
            model.pass(Duration::from_secs(10));
        }
        model.pass(issued.ends.left(model.now()).unwrap());
        assert!(matches!(model.token(), Decision::Start(_)));
    }

    #[test]
    fn after_an_unknown_outcome_the_leeway_does_not_count() {
        for has_store in [false, true] {
            let policy = RefreshPolicy::default()
                .jitter(Duration::ZERO)
                .refresh_ahead(Duration::from_secs(100))
                .leeway(Duration::from_secs(60));
            let mut model = Model::with_policy(&policy, 1);
            model.state.has_store = has_store;
            let tokens = TokenSet::bearer("t").unwrap().with_expires_in(Duration::from_secs(600));
            let adoption = model.log_in(Some(tokens));
            model.state.adopted(adoption);

            model.pass(Duration::from_secs(500));
            let Decision::UseAndStart(_, lost) = model.token() else { panic!("not stale") };
            model.land(&lost, Err(TokenError::ambiguous("cut")));
            assert!(!lost.wish.may_risk);
            for second in 500..600 {
                // In the leeway requests go on with the token, and a refresh behind them may send again if no store shares it.
                match model.token() {
                    Decision::Use(_) => {}
                    Decision::UseAndStart(_, again) => {
                        assert!(second >= 540 && again.wish.may_risk && !has_store, "{second}");
                        model.land(&again, Err(TokenError::ambiguous("cut")));
                    }
                    decision => panic!("{has_store} {second}: {decision:?}"),
                }
                model.pass(Duration::from_secs(1));
            }
            model.pass(Duration::from_secs(60));
            let decision = model.token();
            assert!(matches!(decision, Decision::Start(again) if again.wish.may_risk));
        }
    }

    /// S15
    #[test]
    fn refresh_that_was_given_up_on_is_used_until_the_later_one_lands() {
        for is_first_first in [true, false] {
            let mut model = Model::steady();
            let Decision::Start(first) = model.token() else { panic!("there is a token") };
            model.pass(RefreshPolicy::default().timing.timeout * LOST_AFTER);
            let Decision::Start(second) = model.token() else { panic!("not given up on") };
            let tokens =
                |name| TokenSet::bearer(name).unwrap().with_expires_in(Duration::from_secs(3600));
            if is_first_first {
                model.land(&first, Ok(tokens("first")));
                assert!(matches!(model.token(), Decision::Use(_)));
            }
            model.land(&second, Ok(tokens("second")));
            let Decision::Use(issued) = model.token() else { panic!("no token") };
            assert_eq!(issued.tokens.access_token().expose_secret(), "second");
        }
    }

    #[test]
    fn set_that_the_ledger_handed_out_before_the_current_one_is_not_used() {
        let mut model = Model::steady();
        let Decision::Start(departure) = model.token() else { panic!("there is a token") };
        let earlier = model.obtained(of_an_hour(), model.now());
        let later = model.obtained(of_an_hour(), model.now());
        assert!(model.land_at(&departure, Ok(later)).is_some());
        assert!(model.land_at(&departure, Ok(earlier)).is_none());
    }

    #[test]
    fn after_an_unknown_outcome_a_token_without_expiry_is_renewed_after_the_backoff() {
        let tokens = TokenSet::bearer("t").unwrap().with_refresh_in(Duration::from_secs(60));
        let mut model = Model::logged_in(tokens, TIMEOUT);
        model.pass(Duration::from_secs(60));
        let Decision::UseAndStart(_, departure) = model.token() else { panic!("not stale") };
        model.land(&departure, Err(TokenError::ambiguous("cut")));
        let backoff = model.state.view(model.now()).backoff.unwrap();
        assert!(matches!(model.token(), Decision::Use(_)));
        model.pass(backoff);
        assert!(matches!(model.token(), Decision::UseAndStart(..)));
    }

    #[test]
    fn token_rejected_during_its_renewal_is_shown_as_rejected_until_it_is_accepted() {
        let mut model = Model::logged_in(of_an_hour(), TIMEOUT);
        model.pass(STALE);
        let Decision::UseAndStart(issued, departure) = model.token() else { panic!("not stale") };
        let is_rejected = |model: &Model| model.state.view(model.now()).rejected;
        let rejected = model.state.rejected(model.now(), issued.generation, of(1));
        assert!(matches!(rejected, Decision::Join) && is_rejected(&model));
        model.land(&departure, Err(TokenError::transient("down")));
        assert!(is_rejected(&model));
        issued.accepted(of(2));
        assert!(!is_rejected(&model));
    }

    /// E2
    #[test]
    fn target_that_rejects_every_token_has_no_request_wait_for_a_renewal() {
        let mut model = Model::logged_in(of_an_hour(), TIMEOUT);
        assert!(model.reject_twice().is_some());
        model.state.current.as_ref().unwrap().accepted(of(2));
        model.pass(STALE);
        let Decision::UseAndStart(issued, _) = model.token() else { panic!("not stale") };
        let reject = |model: &mut Model, path| {
            let rejected = model.state.rejected(model.now(), issued.generation, of(path));
            assert!(matches!(rejected, Decision::Join));
        };
        reject(&mut model, 1);
        assert!(matches!(model.token(), Decision::Use(_)));
        assert!(!model.state.view(model.now()).rejected);
        reject(&mut model, 2);
        assert!(matches!(model.token(), Decision::Join));
    }

    #[test]
    fn session_of_other_credentials_that_ended_denies_nothing_for_good() {
        let mut model = Model::steady();
        let backoff = model.fail(super::super::session::is_over());
        model.pass(backoff);
        assert!(matches!(model.token(), Decision::Start(_)));
    }

    #[test]
    fn a_departure_that_is_called_off_is_no_news() {
        let mut model = Model::logged_in(of_an_hour(), TIMEOUT);
        model.pass(STALE);
        let Decision::UseAndStart(_, departure) = model.token() else { panic!("not stale") };
        model.state.call_off(&departure);
        assert!(!model.has_news(|_| true));
    }

    #[test]
    fn after_a_lost_flight_nothing_is_sent_while_the_token_works() {
        let mut model = Model::logged_in(of_an_hour(), TIMEOUT);
        model.pass(STALE);
        let Decision::UseAndStart(issued, _) = model.token() else { panic!("not stale") };
        model.pass(TIMEOUT * LOST_AFTER);
        while !issued.is_expired(model.now()) {
            assert!(matches!(model.token(), Decision::Use(_)));
            let forced = model.state.forced(model.now(), issued.generation);
            assert!(matches!(forced, Decision::Refuse(error) if error.is_ambiguous()));
            model.pass(Duration::from_secs(10));
        }
        model.pass(issued.ends.left(model.now()).unwrap());
        assert!(matches!(model.token(), Decision::Start(_)));
    }

    #[test]
    fn an_early_renewal_that_hangs_is_declared_lost_by_the_first_request_after_ten_timeouts() {
        let mut model = Model::logged_in(of_an_hour(), TIMEOUT);
        model.pass(STALE);
        assert!(matches!(model.token(), Decision::UseAndStart(..)));
        let tick = Duration::from_millis(1);
        model.pass(TIMEOUT * LOST_AFTER - tick);
        assert!(!model.published_until().has_come(model.now()));
        model.token();
        assert!(!model.has_news(|event| matches!(event, Event::RefreshLost)));

        model.pass(tick);
        // Otherwise no request would come by here and notice.
        assert!(model.published_until().has_come(model.now()));
        model.token();
        assert!(model.has_news(|event| matches!(event, Event::RefreshLost)));
        assert!(model.state.take_lost());
    }

    #[test]
    fn the_wall_clock_makes_no_flight_look_lost() {
        let mut model = Model::steady();
        let Decision::Start(departure) = model.token() else { panic!("there is a token") };
        model.wall += LIFETIME_MAX;
        assert!(matches!(model.token(), Decision::Join));
        assert!(model.state.wants(departure.id));
    }

    #[test]
    fn the_backoff_starts_anew_after_a_success() {
        let mut model = Model::steady();
        for _ in 0..3 {
            let backoff = model.fail(TokenError::transient("down"));
            model.pass(backoff);
        }
        let Decision::Start(departure) = model.token() else { panic!("there is a token") };
        model.land(&departure, Ok(of_an_hour()));
        model.pass(Duration::from_secs(3600));
        assert!(model.fail(TokenError::transient("down")) <= Duration::from_secs(1));
    }

    fn with_a_store() -> Model {
        let mut model = Model::logged_in(of_an_hour(), TIMEOUT);
        model.state.has_store = true;
        model
    }

    #[test]
    fn while_denied_a_store_is_looked_at_now_and_then_and_nothing_else_is_asked() {
        let denied_and_looks_again = |mut model: Model| {
            model.pass(STALE * 2);
            let decision = model.token();
            let Decision::Start(departure) = decision else { panic!("{decision:?}") };
            model.land(&departure, Err(TokenError::denied("gone")));
            assert!(matches!(model.token(), Decision::Refuse(error) if error.is_denied()));
            model.pass(LOOK_AGAIN);
            matches!(model.token(), Decision::Start(_))
        };
        assert!(denied_and_looks_again(with_a_store()));
        assert!(!denied_and_looks_again(Model::logged_in(of_an_hour(), TIMEOUT)));
    }

    #[test]
    fn a_rejection_backoff_does_not_stop_a_look_at_the_store() {
        let mut model = with_a_store();
        let rejection_backoff = model.reject_twice();
        assert!(rejection_backoff.is_some());

        let look = model.reject();
        assert_eq!(look.errand, Errand::Look);
        model.land(&look, Err(TokenError::transient("nothing newer")));
        assert_eq!(model.rejection_backoff(), rejection_backoff);
        assert!(model.state.view(model.now()).error.is_none());
        // Not for each rejection.
        let rejected = model.state.rejected(model.now(), model.state.generation(), of(1));
        assert!(matches!(rejected, Decision::Refuse(_)), "{rejected:?}");

        // A response accepts the token, so that the backoff goes on after its end.
        model.state.current.as_ref().unwrap().accepted(of(2));
        model.pass(LOOK_AGAIN);
        let look = model.reject();
        assert_eq!(look.errand, Errand::Look);
        model.land(&look, Ok(of_an_hour()));
        model.state.retry_accepted(model.now(), of(1));
        assert_eq!(model.rejection_backoff(), None);
    }

    #[test]
    fn after_an_unknown_outcome_the_application_may_have_the_store_looked_at() {
        let mut model = with_a_store();
        model.pass(STALE);
        let Decision::UseAndStart(_, departure) = model.token() else { panic!("not stale") };
        model.land(&departure, Err(TokenError::ambiguous("cut")));

        let forced = |model: &mut Model| model.state.forced(model.now(), model.state.generation());
        let Decision::Start(look) = forced(&mut model) else { panic!("not looked at") };
        assert_eq!(look.errand, Errand::Look);
        model.land(&look, Err(TokenError::transient("nothing newer")));
        // What is known is what it was.
        let refused = forced(&mut model);
        assert!(matches!(&refused, Decision::Refuse(error) if error.is_ambiguous()), "{refused:?}");

        model.pass(LOOK_AGAIN);
        let Decision::Start(look) = forced(&mut model) else { panic!("not looked at") };
        model.land(&look, Ok(of_an_hour()));
        assert!(matches!(model.token(), Decision::Use(_)));
    }

    #[test]
    fn without_a_store_a_rejection_backoff_refuses_at_once() {
        let mut model = Model::logged_in(of_an_hour(), TIMEOUT);
        assert!(model.reject_twice().is_some());
        let rejected = model.state.rejected(model.now(), model.state.generation(), of(1));
        assert!(matches!(rejected, Decision::Refuse(_)), "{rejected:?}");
    }

    #[test]
    fn two_instances_do_not_come_back_in_step() {
        let [one, other] = [2, 4].map(|seed| Model::new(seed).fail(TokenError::transient("down")));
        assert_ne!(one, other);
    }

    #[test]
    fn a_set_up_to_be_mended_is_tried_again_after_five_minutes_and_not_before() {
        let mut model = Model::steady();
        model.fail(TokenError::misconfigured("mend me"));
        let tick = Duration::from_millis(1);
        model.pass(Duration::from_secs(300) - tick);
        assert!(matches!(model.token(), Decision::Refuse(error) if error.is_misconfigured()));
        model.pass(tick);
        assert!(matches!(model.token(), Decision::Start(_)));
    }
}
