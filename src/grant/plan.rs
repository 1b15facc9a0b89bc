//! Decides what may be sent and what must be written.
//!
//! It is pure: from a record, the ledger of this process, a wish and the time of day it computes the next step.
//!
//! Invariants:
//!
//! - A refresh token that may rotate is sent only after the record contains the attempt ([`Sent`]), and the attempt stays in the record
//!   until its outcome is known.
//! - A token set replaces only its parent: the set whose refresh token was spent for it. If one parent has two successors, the
//!   record keeps the one that was asked for later.
//! - Nothing of an earlier epoch is recorded, and nothing of a lower revision is used.
//! - A refresh token that the server has refused or replaced is never sent again. A configured one has its turn once.

use std::time::{Duration, SystemTime};

use super::ledger::{Begun, Due, Ledger, Set, SetId, Unsaved};
use super::record::{Binding, Current, Fate, Position, Record, Sent, milliseconds_at, time_of_day};
use crate::error::TokenError;
use crate::source::{Cause, Missing};
use crate::token::{RefreshToken, TokenSet};

/// The facts that do not change during a refresh.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) binding: Binding,
    pub(super) configured: Option<RefreshToken>,
    pub(super) rotates: bool,
    pub(super) reuse_grace: Option<Duration>,
    pub(super) leeway: Leeway,
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
    pub(super) before: Option<Sent>,
}

// ===== what must be written first =====

pub(super) fn due(
    stored: Option<&Record>,
    ledger: &Ledger,
    setup: &Setup,
) -> Result<Due, TokenError> {
    let known = ledger.record.as_ref();
    let Some(stored) = stored else {
        return Ok(match known {
            Some(known) if matches!(ledger.unsaved, Some(Unsaved::Session(_))) => {
                Due::Save(known.next())
            }
            Some(known) if ledger.unsaved.is_some() => Due::Save(restore(known, setup)),
            Some(known) => Due::Write(restore(known, setup)),
            None => Due::Nothing,
        });
    };
    if !is_bound(stored, setup)? {
        let mut next = stored.next();
        next.binding = setup.binding.clone();
        return Ok(Due::Write(next));
    }
    if let Some(known) = known {
        match due_unsaved(stored, known, ledger, setup) {
            Due::Nothing => {}
            due => return Ok(due),
        }
    }
    Ok(upkeep(stored, ledger, setup))
}

/// Decides what a record must contain besides the changes that are unsaved.
pub(super) fn upkeep(stored: &Record, ledger: &Ledger, setup: &Setup) -> Due {
    let known = ledger.record.as_ref();
    if let Some((by, before)) = &ledger.not_made
        && stored.sent.as_ref().is_some_and(|sent| sent.by == *by)
    {
        let mut next = stored.next();
        next.sent.clone_from(before);
        return Due::Write(still_doubted(next, stored, setup));
    }
    let sendable = sendable(stored, setup);
    if let (Some(token), Some(known)) = (sendable, known)
        && known.fate(token) == Fate::Refused
        && stored.fate(token) != Fate::Refused
    {
        return Due::Write(stored.refuse(token));
    }
    if let Some(configured) = setup.configured.as_ref().filter(|token| !stored.has_seen(token)) {
        let mut next = stored.next();
        if ledger.has_logged || known.is_some_and(|known| known.has_seen(configured)) {
            next.see_before_latest(configured);
            next = still_doubted(next, stored, setup);
        } else {
            // The user has logged in again, and the new refresh token is in the configuration.
            next.end_session();
            next.see(configured);
        }
        return Due::Write(next);
    }
    if stored.is_doubted && setup.rotates && stored.sent.is_none() && sendable.is_some() {
        return Due::Write(still_doubted(stored.next(), stored, setup));
    }
    Due::Nothing
}

fn due_unsaved(stored: &Record, known: &Record, ledger: &Ledger, setup: &Setup) -> Due {
    let is_spent = |token| stored.fate(token) == Fate::Superseded;
    let is_followed = known.refresh_token().is_some_and(is_spent);
    let is_stored = match (&known.current, &stored.current) {
        (Some(known), Some(stored)) => known.is(stored),
        (None, None) => known.is_logged_out == stored.is_logged_out,
        _ => false,
    };
    match ledger.unsaved {
        Some(Unsaved::Session(begun)) => {
            let is_overtaken = match begun {
                Begun::Now => false,
                Begun::Late => stored.login_ms > known.login_ms,
                Begun::Configured => {
                    // The application logged in or out since, or logged out of what is configured.
                    let received = known.current.as_ref().map_or(0, |current| current.received_ms);
                    stored.login_ms > received
                        || stored.is_logged_out
                            && setup.configured.as_ref().is_some_and(|token| stored.has_seen(token))
                }
            };
            let is_known = begun == Begun::Late && stored.login_ms >= known.login_ms;
            if is_known && (is_stored || is_followed && !is_overtaken) {
                // The save has counted, although the store returned an error.
                Due::Saved
            } else if is_overtaken || is_followed {
                Due::Overtaken
            } else {
                Due::Save(with_fates(begin_session(Some(stored), known, begun, setup), known))
            }
        }
        Some(Unsaved::Successor { of }) if known.position() > stored.position() => {
            let is_parent = stored.revision == of;
            Due::Save(match &known.current {
                Some(current) if is_parent && stored.epoch == known.epoch => {
                    with_fates(succeed(stored, current.clone(), known.revision), known)
                }
                Some(current) if is_parent && stored.epoch.saturating_add(1) == known.epoch => {
                    with_fates(log_in_by_source(stored, current.clone()), known)
                }
                _ => restore(known, setup),
            })
        }
        Some(Unsaved::Successor { .. }) => {
            match is_followed || is_stored && known.position() == stored.position() {
                true => Due::Saved,
                false => Due::Overtaken,
            }
        }
        // The store was rolled back.
        Some(Unsaved::Attempt) if known.position() > stored.position() => {
            Due::Save(restore(known, setup))
        }
        Some(Unsaved::Attempt) => match (&known.sent, sendable(stored, setup)) {
            (Some(sent), Some(token))
                if known.fate(token) == Fate::Sent(sent) && stored.fate(token) == Fate::Unused =>
            {
                let mut next = stored.next();
                next.sent = Some(Sent { token: stored.key.of(token), ..sent.clone() });
                Due::Save(next)
            }
            _ => Due::Saved,
        },
        None if known.position() > stored.position() => Due::Write(restore(known, setup)),
        None => Due::Nothing,
    }
}

/// Returns whether a record belongs to the configuration. If not, it was never used.
///
/// It is an error if it belongs to another configuration, so that no server gets the refresh token of another.
fn is_bound(record: &Record, setup: &Setup) -> Result<bool, TokenError> {
    let (stored, ours) = (&record.binding, &setup.binding);
    if stored == ours {
        return Ok(true);
    }
    let is_used = record.current.is_some()
        || record.sent.is_some()
        || record.refused.is_some()
        || record.is_logged_out;
    if !is_used {
        return Ok(false);
    }
    let describe = |binding: &Binding| {
        format!(
            "token endpoint `{}`, client `{}`, name `{}`",
            binding.token_endpoint, binding.client_id, binding.name
        )
    };
    Err(TokenError::misconfigured(format!(
        "{} contains the tokens of other credentials ({}) than those that are configured ({}); they were neither used nor changed: configure another store, or move this one away",
        setup.store,
        describe(stored),
        describe(ours),
    )))
}

/// Keeps the doubt that a store has reported about a record, because the store does not report it again after the next save.
fn still_doubted(mut next: Record, stored: &Record, setup: &Setup) -> Record {
    if stored.is_doubted
        && setup.rotates
        && next.sent.is_none()
        && let Some(token) = sendable(&next, setup).cloned()
    {
        next.doubt(&token);
    }
    next
}

/// Returns a record with the token set of another one, and with the fates of refresh tokens in it.
fn with_fates(mut next: Record, known: &Record) -> Record {
    // Fingerprints with another key cannot be compared.
    if next.key == known.key {
        next.know(&known.firsts, &known.superseded);
    }
    if let Some(token) = next.refresh_token().cloned() {
        match known.fate(&token) {
            Fate::Sent(sent) => {
                next.sent = Some(Sent { token: next.key.of(&token), ..sent.clone() });
            }
            Fate::Refused => return next.refuse(&token),
            Fate::Unused | Fate::Superseded => {}
        }
    }
    next
}

/// Returns a record to write if the store has lost it. Other processes may have refreshed since, so that the refresh token may be
/// spent.
fn restore(known: &Record, setup: &Setup) -> Record {
    let mut next = known.next();
    if let Some(token) = next.refresh_token().cloned()
        && setup.rotates
        && next.fate(&token) == Fate::Unused
    {
        next.doubt(&token);
    }
    next
}

/// Returns the first record of all: the configured refresh token has its turn.
pub(super) fn first(setup: &Setup) -> Record {
    let mut first = Record::new(setup.binding.clone());
    if let Some(configured) = &setup.configured {
        first.see(configured);
    }
    first
}

// ===== sessions =====

/// Returns the record after the application has logged in (with tokens) or out (with none) at this time.
pub(super) fn log_in(
    record: Option<&Record>,
    tokens: Option<TokenSet>,
    now: SystemTime,
    setup: &Setup,
) -> Record {
    let mut session = Record::new(setup.binding.clone());
    session.login_ms = milliseconds_at(now);
    session.is_logged_out = tokens.is_none();
    session.current = tokens.map(|tokens| Current::new(tokens, now));
    begin_session(record, &session, Begun::Now, setup)
}

/// Returns whether these tokens bring back a refresh token that the server has replaced or refused before.
pub(super) fn is_brought_back(record: Option<&Record>, tokens: Option<&TokenSet>) -> bool {
    let token = tokens.and_then(TokenSet::refresh_token);
    record.zip(token).is_some_and(|(record, token)| record.fate(token) == Fate::Superseded)
}

/// Returns the record with the session of another one.
fn begin_session(record: Option<&Record>, session: &Record, begun: Begun, setup: &Setup) -> Record {
    let mut next = record.map_or_else(|| first(setup), Record::next);
    // A refresh without the store belongs to the session of the configured refresh token, if that is still the stored one.
    let goes_on = begun == Begun::Configured
        && next.login_ms == 0
        && setup.configured.as_ref().is_none_or(|token| next.is_latest_configured(token));
    if let Some(configured) = &setup.configured {
        next.see(configured);
    }
    let (epoch, login_epoch) = (next.epoch, next.login_epoch);
    let (sent, refused) = (next.sent.clone(), next.refused);
    next.end_session();
    if goes_on {
        (next.epoch, next.login_epoch) = (epoch, login_epoch);
        let spent = record.and_then(Record::refresh_token).map(|token| next.key.of(token));
        let brought = session.refresh_token().map(|token| next.key.of(token));
        if let Some(spent) = spent.filter(|spent| Some(*spent) != brought) {
            next.supersede(spent);
        }
    } else {
        next.login_ms = session.login_ms.max(next.login_ms.saturating_add(1));
    }
    next.revision = next.revision.saturating_add(1);
    next.is_logged_out = session.is_logged_out;
    next.current.clone_from(&session.current);
    if let Some(brought) = next.refresh_token().cloned() {
        // A new log-in does not change the fate of a refresh token.
        let token = next.key.of(&brought);
        next.sent = sent.filter(|sent| sent.token == token);
        next.refused = refused.filter(|refused| *refused == token);
        if next.sent.is_some() || next.refused.is_some() {
            next.superseded.retain(|superseded| *superseded != token);
        }
        next.see_before_latest(&brought);
    }
    next
}

/// Returns the record after a fallback source has logged in.
pub(super) fn log_in_by_source(record: &Record, current: Current) -> Record {
    let mut next = succeed(record, current, record.revision.saturating_add(1));
    next.epoch = next.epoch.saturating_add(1);
    if let Some(refused) = record.refused {
        next.supersede(refused);
    }
    if let Some(token) = next.refresh_token().cloned() {
        next.see_before_latest(&token);
    }
    next
}

// ===== what to do for a refresh =====

/// Decides about a refresh. Nothing is [due].
pub(super) fn plan(
    record: &Record,
    ledger: &Ledger,
    wish: &Wish,
    setup: &Setup,
    now: SystemTime,
) -> Plan {
    let has = ledger.held.filter(|held| wish.has == Some(held.id));
    let is_newer = has.is_none_or(|has| record.access_position() > has.position);
    let token = sendable(record, setup);
    let fate = token.map_or(Fate::Unused, |token| record.fate(token));
    let previous = record.current.as_ref().map(|current| current.tokens_at(now));
    if let Some(tokens) = &previous
        && is_newer
        && works(record, setup, now)
    {
        return Plan::Use(Set::of(record, tokens.clone()));
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
    let open = match fate {
        Fate::Refused => return ask_without(Missing::Refused),
        Fate::Superseded => return ask_without(Missing::Superseded),
        _ if !setup.rotates => return ask(previous, Ok(token.clone())),
        Fate::Unused => return send(record, previous, token, None, now),
        Fate::Sent(open) => open,
    };
    if ledger.sending == Some(open.by)
        && is_within(LONGEST_FETCH, open.last_ms, now, Duration::ZERO)
    {
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
    if is_left_alone(open, now) {
        return Plan::Fail(TokenError::ambiguous(format!(
            "{}; it may be sent once more at {}",
            open.describe(),
            http_date(open.left_alone_until_ms())
        )));
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
    let (write, before) = (Some(next), before.cloned());
    Plan::Ask(Box::new(Attempt { write, previous, refresh_token: Ok(token.clone()), before }))
}

/// Returns whether the access token may still be used.
fn works(record: &Record, setup: &Setup, now: SystemTime) -> bool {
    let Some(current) = &record.current else { return false };
    match (current.left(now), current.lifetime()) {
        (Some(left), Some(lifetime)) => left > setup.leeway.of(lifetime),
        _ => true,
    }
}

/// Returns whether a refresh token with an unknown outcome was sent too recently to be sent again.
fn is_left_alone(open: &Sent, now: SystemTime) -> bool {
    let sent = Duration::from_millis(open.last_ms);
    let now = Duration::from_millis(milliseconds_at(now));
    // A clock that was further ahead than the longest pause was wrong.
    sent <= now + LONGEST_PAUSE && now.saturating_sub(sent) < pause_after(open.attempts)
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

/// Returns the record with the successor of its token set.
pub(super) fn succeed(record: &Record, current: Current, revision: u64) -> Record {
    let mut next = record.next();
    next.succeed(current, revision);
    next
}

/// Returns the record after an answer that is useless except for its refresh token.
pub(super) fn replace_refresh_token(
    record: &Record,
    successor: &RefreshToken,
    now: SystemTime,
) -> Result<Record, TokenError> {
    let alone = TokenSet::bearer("none")?
        .with_expires_in(Duration::ZERO)
        .with_refresh_token(successor.clone());
    let mut next = record.next();
    next.replace_refresh_token(successor, Current::new(alone, now));
    Ok(next)
}

/// The decision whether a token set may still be recorded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Succession {
    /// It follows what is stored: its parent, or another successor of it that was asked for earlier.
    Write,
    /// The session has ended.
    Ended,
    /// Another successor is stored.
    Forked,
}

pub(super) fn succession(stored: &Record, parent: Position, asked: SystemTime) -> Succession {
    let is_sibling = stored.revision == parent.revision.saturating_add(1);
    let asked_before = |current: &Current| current.received_ms < milliseconds_at(asked);
    if stored.epoch > parent.epoch {
        Succession::Ended
    } else if stored.position() <= parent
        || is_sibling && stored.current.as_ref().is_some_and(asked_before)
    {
        Succession::Write
    } else {
        Succession::Forked
    }
}

impl Succession {
    /// Returns the error for a set that was not recorded, if the record has none that works.
    pub(super) fn into_error(self) -> TokenError {
        match self {
            Self::Ended => TokenError::denied(
                "the application has logged out meanwhile, here or in another process that shares the store",
            ),
            Self::Write | Self::Forked => {
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
