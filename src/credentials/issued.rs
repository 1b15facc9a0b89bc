//! A token set as requests use it, and the times at which it becomes stale, expires and ends.

use std::cmp::min;
use std::time::Duration;

use super::generation::Generation;
use super::policy::{LIFETIME_MAX, Timing};
use super::session::Session;
use crate::clock::{AtomicDeadline, Deadline, Timestamp};
use crate::token::{Expiry, TokenSet};

/// A token set that was issued to requests.
///
/// It becomes stale, expires (earlier than it ends, by the leeway) and ends, in this order. A token set that has expired on arrival
/// never expires: it is used until a server rejects it.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) tokens: TokenSet,
    pub(crate) generation: Generation,
    pub(super) session: Session,
    pub(super) stale: Deadline,
    pub(super) expired: Deadline,
    pub(super) ends: Deadline,
    /// Until when requests use it without the lock, if it is published: there is nothing to decide before.
    pub(super) quiet_until: AtomicDeadline,
}

impl Issued {
    /// Creates a token set that was asked for at `asked`, for an instance whose share of the jitter is `share`.
    pub(super) fn new(
        now: Timestamp,
        asked: Timestamp,
        tokens: TokenSet,
        timing: &Timing,
        share: f64,
        generation: Generation,
        session: Session,
    ) -> Self {
        let (lifetime, from) = match tokens.expiry() {
            None => (None, now),
            Some(Expiry::In(lifetime)) => (Some(lifetime), asked),
            Some(Expiry::At(at)) => (Some(at.saturating_sub(now.since_epoch())), now),
        };
        let lifetime = lifetime.map(|lifetime| min(lifetime, LIFETIME_MAX));
        let ends = lifetime.map_or(Deadline::NEVER, |lifetime| Deadline::after(from, lifetime));
        let expired = ends.before(timing.leeway().of(lifetime.unwrap_or_default()));
        let stale = match (tokens.refresh_in(), lifetime) {
            // A server that asks for it does not want to be asked again at once.
            (Some(after), _) => {
                let least = lifetime.map_or(REFRESH_IN_MIN, |life| REFRESH_IN_MIN.min(life / 10));
                Deadline::after(asked, after.clamp(least, LIFETIME_MAX))
            }
            (None, Some(lifetime)) => ends.before(timing.refresh_ahead_of(lifetime, share)),
            (None, None) => Deadline::NEVER,
        };
        let stale = stale.or_earlier(expired);
        let quiet_until = AtomicDeadline::new(Deadline::PAST);
        Self { tokens, generation, session, stale, expired, ends, quiet_until }
    }

    /// Returns the reason if a token set that was just obtained has expired already.
    pub(super) fn over_on_arrival(&self, now: Timestamp) -> Option<&'static str> {
        let left = self.expired.left(now)?;
        match self.tokens.expiry()? {
            Expiry::In(Duration::ZERO) => Some("the source gave it a lifetime of zero"),
            Expiry::In(_) => (left < USABLE_MIN).then_some(
                "it arrived when its lifetime was over: the lifetime is too short, or the token endpoint too slow",
            ),
            Expiry::At(_) => self.expired.has_come(now).then_some(
                "it expires at a time in the past: the clock of this machine or of the server is wrong",
            ),
        }
    }

    /// Has the token set used until a server rejects it: another one would also have expired on arrival.
    pub(super) fn use_until_rejected(&mut self, now: Timestamp) {
        let after = self.tokens.refresh_in().unwrap_or_default();
        self.stale = Deadline::monotonic(now, after.clamp(REFRESH_IN_MIN, LIFETIME_MAX));
        self.expired = Deadline::NEVER;
    }

    pub(super) fn is_stale(&self, now: Timestamp) -> bool {
        self.stale.has_come(now)
    }

    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        self.expired.has_come(now)
    }
}

/// The shortest time after which a token is refreshed because its source asked for it, unless it lives for less than ten times as
/// long.
const REFRESH_IN_MIN: Duration = Duration::from_secs(5);

/// A lifetime that leaves less than this when the token arrives counts as none.
const USABLE_MIN: Duration = Duration::from_millis(50);
