//! What one process remembers of a grant, besides what is stored.
//!
//! Under a lock that is held for a moment: each method leaves it whole.

use std::time::SystemTime;

use super::plan::{Begun, Held, Memory, Saved, Session};
use super::record::{StoredTokens, WriteId};
use crate::error::TokenError;
use crate::source::Renewal;
use crate::token::{StoredAs, TokenSet};

/// What one process remembers.
#[derive(Default)]
pub(super) struct Recollection {
    pub(super) memory: Memory,
    /// Whether anything was ever stored, as far as this process has seen.
    pub(super) has_seen_a_record: bool,
    /// What the source said when it last refused, and what was stored then, as far as is known.
    pub(super) refused: Option<(Option<WriteId>, TokenError)>,
    /// The intent of somebody else that was told of last.
    pub(super) told: Option<WriteId>,
    /// The last intent of our own.
    pub(super) ours: Option<WriteId>,
    /// Who was told that something is unsaved, and is to be told when it is saved.
    pub(super) owed: Option<Renewal>,
    /// How many log-ins and log-outs there were.
    pub(super) sessions: u64,
    /// The token set of the last log-in as the credentials have it, and which of the stored sets it is, once it is one.
    pub(super) brought: Option<(TokenSet, Option<StoredAs>)>,
    /// Whether the last log-in was not stored, because one elsewhere had come after it.
    pub(super) is_login_overtaken: bool,
    /// The unsaved set that was handed out last, to be stale soon.
    pub(super) hurried: Option<TokenSet>,
}

impl Recollection {
    /// Remembers a log-in or a log-out, to be stored.
    pub(super) fn begin_session(&mut self, tokens: Option<TokenSet>, at: SystemTime, begun: Begun) {
        self.sessions += 1;
        self.brought = tokens.clone().map(|tokens| (tokens, None));
        self.memory.session = Some(Session { number: self.sessions, tokens, at, begun });
        self.memory.is_configured_past = true;
        self.is_login_overtaken = false;
        self.memory.held = None;
        self.owed = None;
        self.hurried = None;
        self.refused = None;
    }

    /// Remembers a set, unless a newer one is remembered.
    pub(super) fn hold(&mut self, held: Held) {
        let newest = self.memory.held.as_ref().map(|held| held.stored_as);
        if newest.is_none_or(|newest| held.stored_as >= newest) {
            self.memory.held = Some(held);
            self.refused = None;
        }
    }

    /// A set was saved, by whoever obtained it.
    pub(super) fn saved(&mut self, stored_as: StoredAs) {
        if let Some(held) = &mut self.memory.held
            && held.stored_as == stored_as
        {
            held.saved = Saved::Yes;
        }
    }

    /// Returns what the source said when it refused, if what is stored has not changed since.
    pub(super) fn refused(&self, record: Option<&StoredTokens>) -> Option<TokenError> {
        let (of, error) = self.refused.as_ref()?;
        (*of == record.map(StoredTokens::write_id)).then(|| error.clone())
    }

    /// What was due is written: the store knows what this process knows. Returns whether that was a token set.
    pub(super) fn written(&mut self, record: &StoredTokens, session: Option<u64>) -> bool {
        let stored_as = record.stored_as();
        self.has_seen_a_record = true;
        self.memory.not_sent = None;
        if session.is_some() {
            if let Some(begun) = self.memory.session.take_if(|begun| Some(begun.number) == session)
            {
                if let Some((_, brought_as)) = &mut self.brought {
                    *brought_as = Some(stored_as);
                }
                self.memory.held = begun.tokens.map(|tokens| Held {
                    stored_as,
                    tokens,
                    asked: begun.at,
                    saved: Saved::Yes,
                });
            }
            return true;
        }
        match &mut self.memory.held {
            Some(held) if held.stored_as == stored_as => {
                let was_unsaved = held.saved != Saved::Yes;
                held.saved = Saved::Yes;
                was_unsaved
            }
            Some(held) if held.stored_as < stored_as => {
                self.memory.held = None;
                false
            }
            _ => false,
        }
    }

    /// What is held was saved, although nobody said so. It is of no more use if something newer is stored since.
    pub(super) fn found(&mut self, stored: StoredAs) {
        self.memory.held.take_if(|held| held.stored_as != stored);
        if let Some(held) = &mut self.memory.held {
            held.saved = Saved::Yes;
        }
    }

    /// What was to be stored first was overtaken.
    pub(super) fn overtaken(&mut self) {
        match self.memory.session.take() {
            Some(session) => self.is_login_overtaken = session.begun != Begun::WithoutStore,
            None => self.memory.held = None,
        }
    }
}
