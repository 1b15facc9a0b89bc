//! The knowledge of one process about a grant.
//!
//! It is behind a lock that is held for a moment, and each method leaves it consistent.

use std::num::NonZeroU64;

use super::record::{Place, Position, Record, Sent, WriteId};
use crate::clock::Deadline;
use crate::token::{RefreshToken, TokenSet};

/// The knowledge of one process about the grant. Without a store, nothing else is kept.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The newest record that this process has read or made, unsaved changes included.
    pub(super) record: Option<Record>,
    pub(super) unsaved: Option<Unsaved>,
    /// An attempt that was recorded and not made, and the attempts before it: to be taken back.
    pub(super) not_made: Option<Box<(WriteId, Option<Box<Sent>>)>>,
    /// The attempt that this process is making, and until when it counts as under way.
    pub(super) sending: Option<Box<(WriteId, Deadline)>>,
    /// The last attempt that this process has recorded.
    pub(super) ours: Option<WriteId>,
    /// The token set that the credentials have.
    pub(super) held: Option<Held>,
    pub(super) last_id: Option<SetId>,
    /// The position of the record after the source has refused.
    pub(super) refused_at: Option<Box<Position>>,
    /// The attempt of another process that was reported last.
    pub(super) reported: Option<Box<WriteId>>,
    /// True if the application has logged in or out in this process, so that the configured refresh token is out of date.
    pub(super) has_logged: bool,
    /// True if the last of them was a log-in.
    pub(super) has_logged_in: bool,
}

/// A change that the store does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsaved {
    /// The current token set is a successor of the one with this revision, which was saved.
    Successor { of: u64 },
    /// The session.
    Session(Begun),
    /// An attempt to spend the refresh token, or its refusal.
    Fate,
}

/// How an unsaved session began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// The application logs in or out at this moment.
    Now,
    /// The application logged in or out, and that could not be saved then. Others may have done so since.
    Late,
    /// The configured refresh token was sent while the store was unavailable.
    Configured,
}

/// Identifies a token set within this process. Later ones have higher ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SetId(pub(super) NonZeroU64);

/// The token set that the credentials have, by its id and its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) id: SetId,
    pub(super) place: Place,
}

/// The write that the store needs before anything else, so that it contains what this process knows.
#[derive(Debug)]
pub(super) enum Due {
    Nothing,
    /// The change that is unsaved.
    Save(Record),
    Write(Record),
    /// Nothing: the unsaved change was saved after all, although the store returned an error.
    Saved,
    /// Nothing: a newer change has overtaken the unsaved one.
    Overtaken,
}

/// A token set and its place in the ledger.
#[derive(Clone, Debug)]
pub(super) struct Set {
    pub(super) tokens: TokenSet,
    pub(super) place: Place,
}

impl Ledger {
    pub(super) fn new_id(&mut self) -> SetId {
        let next = |SetId(last): SetId| SetId(last.saturating_add(1));
        *self.last_id.insert(self.last_id.map_or(SetId(NonZeroU64::MIN), next))
    }

    /// Begins the session of a log-in or log-out with this record, or with `None` if the refresh token is superseded.
    pub(super) fn begin_session(&mut self, id: SetId, next: Option<Record>) {
        self.has_logged = true;
        self.has_logged_in = next.as_ref().is_none_or(|next| next.current.is_some());
        self.held = Some(Held { id, place: next.as_ref().map_or(OVERTAKEN, Record::place) });
        if let Some(next) = next {
            self.record = Some(next);
            self.unsaved = Some(Unsaved::Session(Begun::Now));
            self.refused_at = None;
        }
    }

    /// Notes that the session could not be saved when it began.
    pub(super) fn session_is_late(&mut self) {
        if self.unsaved == Some(Unsaved::Session(Begun::Now)) {
            self.unsaved = Some(Unsaved::Session(Begun::Late));
        }
    }

    pub(super) fn position(&self) -> Position {
        self.record.as_ref().map_or(Position { epoch: 1, revision: 0 }, Record::position)
    }

    pub(super) fn write_id(&self) -> Option<WriteId> {
        self.record.as_ref().map(|record| record.write_id)
    }

    /// Returns whether a newer set was stored instead of this one.
    pub(super) fn is_overtaken(&self, id: SetId) -> bool {
        self.held.is_some_and(|held| held.id == id && held.place == OVERTAKEN)
    }

    /// Hands out a set: the credentials have it from now on.
    pub(super) fn hand_out(&mut self, set: &Set, is_adopted: bool) -> SetId {
        let id = match self.held {
            Some(held) if is_adopted && held.place.position == set.place.position => held.id,
            _ => self.new_id(),
        };
        self.held = Some(Held { id, place: set.place });
        id
    }

    /// Remembers a record with a set that is not saved yet, unless a newer one is known.
    pub(super) fn hold(&mut self, next: &Record, parent: Position) {
        if self.record.as_ref().is_none_or(|known| known.position() < next.position()) {
            self.record = Some(next.clone());
            self.unsaved = Some(match self.unsaved {
                Some(unsaved @ (Unsaved::Session(_) | Unsaved::Successor { .. })) => unsaved,
                _ if parent.revision == 0 => Unsaved::Session(Begun::Configured),
                _ => Unsaved::Successor { of: parent.revision },
            });
            self.refused_at = None;
        }
    }

    /// Notes that this record is saved, with its token set.
    pub(super) fn saved(&mut self, record: &Record) {
        if self.record.as_ref().is_none_or(|known| known.position() <= record.position()) {
            self.record = Some(record.clone());
            self.unsaved = None;
            self.refused_at = None;
        }
    }

    /// Gives up the set of a record, because another one was stored instead.
    pub(super) fn give_up(&mut self, record: &Record) {
        if self.write_id() == Some(record.write_id) {
            self.unsaved = None;
        }
    }

    /// Notes an attempt that is written to the store.
    pub(super) fn attempted(&mut self, record: &Record) {
        if self.record.as_ref().is_none_or(|known| known.position() == record.position()) {
            self.record = Some(record.clone());
        }
    }

    /// Notes that an attempt was not made, or was not counted.
    pub(super) fn take_back(&mut self, by: WriteId, before: Option<Box<Sent>>) {
        if let Some(record) = &self.record
            && record.sent.as_ref().is_some_and(|sent| sent.by == by)
        {
            let mut next = record.next();
            next.sent.clone_from(&before);
            self.record = Some(next);
            self.unsaved.take_if(|unsaved| *unsaved == Unsaved::Fate);
        }
        // One that the store may have comes first: this attempt was then made without the store.
        self.not_made.get_or_insert_with(|| Box::new((by, before)));
    }

    /// Notes that the server has refused the refresh token of this record.
    pub(super) fn refused(&mut self, record: &Record, token: &RefreshToken) {
        let known = self.record.as_ref().unwrap_or(record);
        if known.position() == record.position() {
            self.record = Some(known.refuse(token));
            self.unsaved.get_or_insert(Unsaved::Fate);
        }
    }

    /// Notes the decision about a record that was loaded. Returns whether an unsaved change is now known to be saved.
    pub(super) fn settle(&mut self, due: &Due, stored: Option<&Record>) -> bool {
        if matches!(due, Due::Save(_) | Due::Write(_)) {
            return false;
        }
        if let (Some(held), Some(known)) = (&mut self.held, &self.record)
            && held.place.position == known.position()
        {
            match (due, stored) {
                (Due::Overtaken, _) => held.place = OVERTAKEN,
                (Due::Saved, Some(stored)) => held.place = stored.place_of(known),
                _ => {}
            }
        }
        let unsaved = self.unsaved.take();
        self.not_made = None;
        self.record = stored.cloned();
        // A fate is no token set.
        matches!(due, Due::Saved) && unsaved != Some(Unsaved::Fate)
    }

    /// Notes that a record was written. `of` is the write id of the ledger's record when that was decided.
    pub(super) fn written(&mut self, next: &Record, is_save: bool, of: Option<WriteId>) -> bool {
        let known = self.record.as_ref();
        if known.map(|known| known.write_id) != of || !is_save && self.unsaved.is_some() {
            // The ledger has changed meanwhile, or still has something to save.
            return false;
        }
        if let (true, Some(held), Some(known)) = (is_save, &mut self.held, known)
            && held.place.position == known.position()
        {
            held.place = next.place();
        }
        self.record = Some(next.clone());
        self.not_made = None;
        matches!(self.unsaved.take(), Some(Unsaved::Session(_) | Unsaved::Successor { .. }))
    }
}

/// The place of a set that is not stored, because another one was stored instead.
const OVERTAKEN: Place = Place { position: Position { epoch: 0, revision: 0 }, login_epoch: 0 };
