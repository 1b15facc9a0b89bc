//! The records with which sessions begin.

use std::time::SystemTime;

use super::ledger::Begun;
use super::plan::{Setup, first};
use super::record::{Current, Fate, Record, milliseconds_at};
use crate::token::TokenSet;

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
pub(super) fn begin_session(
    record: Option<&Record>,
    session: &Record,
    begun: Begun,
    setup: &Setup,
) -> Record {
    let mut next = record.map_or_else(|| first(setup), Record::next);
    // A refresh without the store belongs to the session of the configured refresh token, if that is still the stored one.
    let goes_on = begun == Begun::Configured
        && next.login_ms == 0
        && setup.configured.as_ref().is_none_or(|token| next.is_latest_configured(token));
    if let Some(configured) = &setup.configured {
        next.see(configured);
    }
    let (epoch, login_epoch) = (next.epoch, next.login_epoch);
    let (sent, refused) = (next.sent.clone(), next.refused.clone());
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
        next.refused = refused.filter(|refused| **refused == token);
        if next.sent.is_some() || next.refused.is_some() {
            next.reissue(token);
        }
        next.see_before_latest(&brought);
    }
    next
}

/// Returns the record after a fallback source has logged in. The first token set of a grant begins no other session.
pub(super) fn log_in_by_source(record: &Record, current: Current) -> Record {
    let mut next = record.succeed(current, record.revision.saturating_add(1));
    let brought = next.refresh_token().map(|token| next.key.of(token));
    let sent = record.sent.as_ref().map(|sent| sent.token);
    let last = record.refresh_token().map(|token| next.key.of(token));
    // The first source was denied with it. It must not be sent if a log-in brings it back.
    let denied = sent.or(last).filter(|denied| Some(*denied) != brought);
    for denied in denied.into_iter().chain(record.refused.as_deref().copied()) {
        next.supersede(denied);
    }
    if record.revision == 0 {
        return next;
    }
    next.epoch = next.epoch.saturating_add(1);
    if let Some(token) = next.refresh_token().cloned() {
        next.see_before_latest(&token);
    }
    next
}
