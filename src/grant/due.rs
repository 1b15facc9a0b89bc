//! Decides what a store must be given before anything else, so that it has what this process knows.

use super::ledger::{Begun, Due, Ledger, Unsaved};
use super::plan::{Setup, sendable};
use super::record::{Binding, Fate, Record, Sent};
use super::session::{begin_session, log_in_by_source};
use crate::error::TokenError;

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
            Some(known) => Due::Save(restore(known, setup)),
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
    if let Some((by, before)) = ledger.not_made.as_deref()
        && stored.sent.as_ref().is_some_and(|sent| sent.by == *by)
    {
        let mut next = stored.next();
        next.sent.clone_from(before);
        return Due::Write(still_doubted(next, stored, setup));
    }
    if let Some(configured) = setup.configured.as_ref().filter(|token| !stored.has_seen(token)) {
        let mut next = stored.next();
        let known = ledger.record.as_ref();
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
    if stored.is_doubted
        && setup.rotates
        && stored.sent.is_none()
        && sendable(stored, setup).is_some()
    {
        return Due::Write(still_doubted(stored.next(), stored, setup));
    }
    Due::Nothing
}

fn due_unsaved(stored: &Record, known: &Record, ledger: &Ledger, setup: &Setup) -> Due {
    let is_spent = |token| stored.fate(token) == Fate::Superseded;
    let is_followed = known.refresh_token().is_some_and(is_spent);
    let is_stored = known.has_set_of(stored);
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
                    with_fates(stored.succeed(current.clone(), known.revision), known)
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
        Some(Unsaved::Fate) | None if known.position() > stored.position() => {
            Due::Save(restore(known, setup))
        }
        unsaved @ (Some(Unsaved::Fate) | None) => {
            let token = sendable(stored, setup);
            match token.map(|token| (token, known.fate(token), stored.fate(token))) {
                Some((token, Fate::Refused, fate)) if fate != Fate::Refused => {
                    Due::Save(stored.refuse(token))
                }
                Some((token, Fate::Sent(sent), Fate::Unused)) if unsaved.is_some() => {
                    let mut next = stored.next();
                    next.sent =
                        Some(Box::new(Sent { token: stored.key.of(token), ..sent.clone() }));
                    Due::Save(next)
                }
                _ if unsaved.is_some() => Due::Saved,
                _ => Due::Nothing,
            }
        }
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
        "{} contains the tokens of other credentials ({}) than those that are configured ({}); they were neither used nor changed: use another file, key, row or table, or remove this record",
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
    next.know(known);
    if let Some(token) = next.refresh_token().cloned() {
        match known.fate(&token) {
            Fate::Sent(sent) => {
                next.sent = Some(Box::new(Sent { token: next.key.of(&token), ..sent.clone() }));
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
