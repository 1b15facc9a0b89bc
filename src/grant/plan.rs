//! Decides what may be sent and what must be written.
//!
//! It is pure: from a record, the ledger of this process, a wish and the time it computes the next step.
//!
//! Invariants:
//!
//! - A refresh token that may rotate is sent only after the record contains the attempt ([`Sent`]), and the attempt stays in the record
//!   until its outcome is known.
//! - A token set replaces only its parent: the set whose refresh token was spent for it. If one parent has two successors, the
//!   record keeps the one that was asked for later.
//! - Nothing of an earlier epoch is recorded, and nothing of a lower revision is used.
//! - A refresh token that the server has refused or replaced is never sent again. A configured one has its turn once.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::ledger::{Ledger, Set, SetId};
use super::record::{Binding, Current, Fate, Position, Record, Sent, milliseconds_at, time_of_day};
use crate::clock::Timestamp;
use crate::error::TokenError;
use crate::source::{Cause, Missing};
use crate::token::{RefreshToken, TokenSet};

/// The facts that do not change during a refresh.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) binding: Arc<Binding>,
    pub(super) configured: Option<RefreshToken>,
    pub(super) rotates: bool,
    pub(super) reuse_grace: Option<Duration>,
    /// The name of the store in messages.
    pub(super) store: String,
}

/// How much earlier than its expiry a token counts as expired.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leeway(pub(crate) Duration);

impl Leeway {
    pub(crate) fn of(self, lifetime: Duration) -> Duration {
        self.0.min(lifetime / 10)
    }
}

/// The request of a refresh.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) cause: Cause,
    /// The token set that the credentials have.
    pub(crate) has: Option<SetId>,
    /// True if that set is of no more use, so that a refresh token with an unknown outcome may be sent again.
    pub(crate) may_risk: bool,
    pub(crate) leeway: Leeway,
}

/// The next step.
#[derive(Debug)]
pub(super) enum Plan {
    /// Use the current token set.
    Use(Set),
    /// Ask the source.
    Ask(Box<Attempt>),
    /// Fail: no token can be obtained now.
    Fail(TokenError),
}

/// The request to the source.
#[derive(Debug)]
pub(super) struct Attempt {
    /// The record to write first, if the source spends a refresh token.
    pub(super) write: Option<Record>,
    pub(super) previous: Option<TokenSet>,
    /// The refresh token to send, or the reason for having none.
    pub(super) refresh_token: Result<RefreshToken, Missing>,
    /// The attempts before this one.
    pub(super) before: Option<Box<Sent>>,
}

/// Returns the first record of all: the configured refresh token has its turn.
pub(super) fn first(setup: &Setup) -> Record {
    let mut first = Record::new(setup.binding.clone());
    if let Some(configured) = &setup.configured {
        first.see(configured);
    }
    first
}

// ===== what to do for a refresh =====

/// Decides about a refresh. Nothing is [due].
pub(super) fn plan(
    record: &Record,
    ledger: &Ledger,
    wish: &Wish,
    setup: &Setup,
    at: Timestamp,
) -> Plan {
    let now = at.wall();
    let has = ledger.held.filter(|held| wish.has == Some(held.id));
    let is_newer = has.is_none_or(|has| record.access_position() > has.place.position);
    let token = sendable(record, setup);
    let previous = record.current.as_ref().map(|current| current.tokens_at(now));
    if let Some(tokens) = &previous
        && is_newer
        && works(record, wish, now)
    {
        return Plan::Use(Set { tokens: tokens.clone(), place: record.place() });
    }
    // The configured refresh token that this process has logged out of may still be there for others.
    let Some(token) = token.filter(|_| record.current.is_some() || !ledger.has_logged) else {
        return match (&setup.configured, record.is_logged_out) {
            (_, true) => ask_without(Missing::LoggedOut),
            // It has had its turn: another one is being redeemed elsewhere, or the user logged in without any.
            (Some(_), false) => ask_without(Missing::Superseded),
            (None, false) => ask(previous, Err(Missing::None)),
        };
    };
    let open = match record.fate(token) {
        Fate::Refused => return ask_without(Missing::Refused),
        Fate::Superseded => return ask_without(Missing::Superseded),
        _ if !setup.rotates => return ask(previous, Ok(token.clone())),
        Fate::Unused => return send(record, previous, token, None, now),
        Fate::Sent(open) => open,
    };
    if ledger.sending.as_deref().is_some_and(|(by, until)| *by == open.by && !until.has_come(at)) {
        return Plan::Fail(TokenError::ambiguous(
            "this refresh token is being sent already, and the answer is still to come",
        ));
    }
    // Within this process there is one clock.
    let skew = if ledger.ours == Some(open.by) { Duration::ZERO } else { SKEW };
    if open.attempts == 1
        && setup.reuse_grace.is_some_and(|grace| is_within(grace, open.first_ms, now, skew))
    {
        return send(record, previous, token, Some(open), now);
    }
    // Without an expiry, waiting has no end.
    let ends = record.current.as_ref().is_some_and(|current| current.lifetime().is_some());
    if ends && !is_newer && !wish.may_risk {
        return Plan::Fail(TokenError::ambiguous(format!(
            "{}; the access token is used until it expires",
            open.describe()
        )));
    }
    if let Some(left) = left_alone_for(open, now) {
        let error = TokenError::ambiguous(format!(
            "{}; it may be sent once more at {}",
            open.describe(),
            http_date(open.left_alone_until_ms())
        ));
        return Plan::Fail(error.held_back(left));
    }
    send(record, previous, token, Some(open), now)
}

fn ask_without(why: Missing) -> Plan {
    ask(None, Err(why))
}

fn ask(previous: Option<TokenSet>, refresh_token: Result<RefreshToken, Missing>) -> Plan {
    Plan::Ask(Box::new(Attempt { write: None, previous, refresh_token, before: None }))
}

/// Returns the refresh token to send next: that of the current set, or at first the configured one.
pub(super) fn sendable<'a>(record: &'a Record, setup: &'a Setup) -> Option<&'a RefreshToken> {
    match &record.current {
        Some(current) => current.tokens.refresh_token(),
        None => setup
            .configured
            .as_ref()
            .filter(|configured| record.is_latest_configured(configured) && !record.is_logged_out),
    }
}

fn send(
    record: &Record,
    previous: Option<TokenSet>,
    token: &RefreshToken,
    before: Option<&Sent>,
    now: SystemTime,
) -> Plan {
    let mut next = record.next();
    next.send(token, now);
    let (write, before) = (Some(next), before.cloned().map(Box::new));
    Plan::Ask(Box::new(Attempt { write, previous, refresh_token: Ok(token.clone()), before }))
}

/// Returns whether the access token may still be used.
fn works(record: &Record, wish: &Wish, now: SystemTime) -> bool {
    let Some(current) = &record.current else { return false };
    match (current.left(now), current.lifetime()) {
        (Some(left), Some(lifetime)) => left > wish.leeway.of(lifetime),
        _ => true,
    }
}

/// Returns for how long a refresh token with an unknown outcome is not sent again, because it was sent too recently.
pub(super) fn left_alone_for(open: &Sent, now: SystemTime) -> Option<Duration> {
    let sent = Duration::from_millis(open.last_ms);
    let now = Duration::from_millis(milliseconds_at(now));
    // A clock that was further ahead than the longest pause was wrong.
    let is_possible = sent <= now + LONGEST_PAUSE;
    let left = (sent + pause_after(open.attempts)).saturating_sub(now);
    (is_possible && !left.is_zero()).then_some(left)
}

/// Returns the pause before a refresh token with an unknown outcome is sent again, for all processes that share it.
fn pause_after(attempts: u32) -> Duration {
    match attempts {
        0 | 1 => Duration::ZERO,
        more @ 2.. => FIRST_PAUSE.saturating_mul(1 << (more - 2).min(10)).min(LONGEST_PAUSE),
    }
}

const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// Returns whether a period has certainly not ended, by clocks that differ by at most `skew`.
fn is_within(window: Duration, began_ms: u64, now: SystemTime, skew: Duration) -> bool {
    let margin = skew.min(window / 2);
    let began = Duration::from_millis(began_ms);
    let now = Duration::from_millis(milliseconds_at(now));
    began <= now + margin && now.saturating_sub(began) + margin < window
}

/// The largest difference that is expected between the clocks of two machines.
const SKEW: Duration = Duration::from_secs(5);

/// How long a source may take.
pub(super) const LONGEST_FETCH: Duration = Duration::from_secs(5 * 60);

/// The latest time that httpdate can write.
const LAST_HTTP_DATE: Duration = Duration::from_secs(253_402_300_799);

fn http_date(ms: u64) -> String {
    httpdate::fmt_http_date(time_of_day(ms).min(SystemTime::UNIX_EPOCH + LAST_HTTP_DATE))
}

// ===== the outcome =====

/// Why a token set is not recorded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Overtaken {
    /// The session has ended.
    Ended,
    /// Another successor is stored.
    Forked,
}

/// Decides whether a token set may still be recorded: it follows its parent, or another successor of it that was asked for earlier.
pub(super) fn succession(
    stored: &Record,
    parent: Position,
    asked: SystemTime,
) -> Result<(), Overtaken> {
    let is_sibling = stored.revision == parent.revision.saturating_add(1);
    let asked_before = |current: &Current| current.received_ms < milliseconds_at(asked);
    if stored.epoch > parent.epoch {
        Err(Overtaken::Ended)
    } else if stored.position() <= parent
        || is_sibling && stored.current.as_ref().is_some_and(asked_before)
    {
        Ok(())
    } else {
        Err(Overtaken::Forked)
    }
}

impl Overtaken {
    /// Returns the error for a set that was not recorded, if the record has none that works.
    pub(super) fn into_error(self) -> TokenError {
        match self {
            Self::Ended => TokenError::denied(
                "the application has logged out meanwhile, here or in another process that shares the store",
            ),
            Self::Forked => {
                TokenError::transient("another refresh was faster, and its token has expired")
            }
        }
    }
}

impl Sent {
    /// Returns when the refresh token may be sent again.
    fn left_alone_until_ms(&self) -> u64 {
        let pause = pause_after(self.attempts).as_millis();
        self.last_ms.saturating_add(pause.try_into().unwrap_or(u64::MAX))
    }

    /// Returns the beginning of a message about the attempts.
    pub(super) fn describe(&self) -> String {
        match self.attempts {
            0 => {
                "the store has lost its last changes, so that the refresh token may be spent".into()
            }
            1 => format!(
                "the refresh token was sent at {}, and the outcome is unknown",
                http_date(self.first_ms)
            ),
            times => format!(
                "the refresh token was sent {times} times, first at {}, last at {}, and the outcome is unknown",
                http_date(self.first_ms),
                http_date(self.last_ms)
            ),
        }
    }
}

#[cfg(test)]
mod tests;
