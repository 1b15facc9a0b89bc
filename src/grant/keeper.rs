//! Carries out the decisions of [`plan`](super::plan). Only the keeper and its refreshes call a source or a store.
//!
//! Each refresh makes the same steps, with a store and without one:
//!
//! lock → load → use what is newer, or write the attempt → check the lock → send → write the outcome → hand it out
//!
//! Without a store, the ledger in memory is the record, and a write is a compare-and-swap on it. The answer of a source is
//! decided on and recorded under its lock. While a store is unavailable and the program is configured to continue, the steps are
//! made on the ledger too, and it is written to the store later.
//!
//! Invariants:
//!
//! - A token set that the source has returned is in the ledger before anything is awaited, and stays there until it is
//!   saved.
//! - Nothing is sent unless the attempt is written and the lock was still held after that. A process that is suspended between that
//!   check and the sending can outlive its lease. That gap cannot be closed.
//! - The ledger's lock is held for a moment and never across an await. A future that is dropped in the middle leaves an attempt
//!   with an unknown outcome or an unsaved set in the ledger, where the next refresh finds it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::backing::{Backing, BackingLock, Failure};
use super::due;
use super::ledger::{Due, Ledger, Set, SetId};
use super::plan::{self, Plan, Setup, Wish};
#[cfg(feature = "pool")]
use super::record::Fate;
use super::record::{Binding, Record, WriteId};
use super::session;
use crate::clock::{Clock, Timestamp};
use crate::error::TokenError;
use crate::limit::Limit;
use crate::lock::Lock;
#[cfg(feature = "pool")]
use crate::source::SourceInfo;
use crate::source::{BoxTokenSource, TokenSource as _};
#[cfg(feature = "pool")]
use crate::token::RefreshToken;
use crate::token::TokenSet;
use crate::token::characters::{self, is_invisible};

/// The ledger of one grant, and the ways to change it.
pub(crate) struct Keeper {
    pub(super) source: BoxTokenSource,
    /// Boxed, since most credentials have none.
    pub(super) store: Option<Box<Store>>,
    pub(crate) clock: Arc<dyn Clock>,
    ledger: Lock<Ledger>,
}

/// How a source begins a session. A source is code of others, and is not asked while a part of a pool is locked.
#[cfg(feature = "pool")]
pub(crate) struct Beginning {
    configured: Option<RefreshToken>,
    /// True if a log-out leaves the source nothing to send. A source that does not name its endpoint may have a refresh token of its
    /// own, which a log-out ends.
    has_nothing_to_end: bool,
    sends_no_refresh_token: bool,
}

#[cfg(feature = "pool")]
impl Beginning {
    pub(crate) fn of(info: SourceInfo) -> Self {
        Self {
            has_nothing_to_end: info.token_endpoint.is_some() && info.refresh_token.is_none(),
            sends_no_refresh_token: info.sends_no_refresh_token,
            configured: info.refresh_token,
        }
    }
}

/// A store and how to use it.
pub(crate) struct Store {
    pub(crate) backing: Box<dyn Backing>,
    pub(crate) name: Arc<str>,
    pub(crate) lock_timeout: Duration,
    /// True to go on without the store while it is unavailable, `None` to decide by whether the server rotates.
    pub(crate) goes_on: Option<bool>,
}

/// A token set for the credentials.
#[derive(Clone, Debug)]
pub(crate) struct Obtained {
    pub(crate) id: SetId,
    pub(crate) tokens: TokenSet,
    /// When it was asked for.
    pub(crate) asked: Timestamp,
    /// True if it was found in the store.
    pub(crate) is_adopted: bool,
    /// True if the application has logged in or out, here or elsewhere, since the set that the credentials have.
    pub(crate) is_of_other_login: bool,
}

/// The report of a refresh, besides its result.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// The token set could not be saved.
    pub(crate) unsaved: Option<TokenError>,
    /// A change that was unsaved before is saved.
    pub(crate) is_saved: bool,
}

/// The result of a look at the store.
#[derive(Debug)]
pub(crate) enum Look {
    Newer(Obtained),
    /// The record has changed since the source last refused. If it has, a refresh may succeed now.
    Changed,
    Nothing,
}

/// A record that was loaded, or the first one.
pub(super) struct Base {
    pub(super) record: Record,
    /// The write that the next one replaces.
    pub(super) replaces: Option<WriteId>,
}

impl Base {
    pub(super) fn of(record: Record) -> Self {
        Self { replaces: Some(record.write_id), record }
    }
}

/// How the record is read and written.
#[derive(Clone, Copy)]
pub(super) enum Access<'a> {
    /// In memory: there is no store.
    Memory,
    /// In memory, because the store is unavailable.
    Offline(&'a TokenError),
    /// In the store, with its lock if anything may be sent.
    Stored(&'a Store, Option<&'a dyn BackingLock>),
}

impl Keeper {
    pub(crate) fn new(source: BoxTokenSource, store: Option<Store>, clock: Arc<dyn Clock>) -> Self {
        Self { source, store: store.map(Box::new), clock, ledger: Lock::default() }
    }

    /// Returns whether other processes can store tokens.
    pub(crate) fn has_store(&self) -> bool {
        self.store.is_some()
    }

    /// Returns whether there is nothing to save.
    pub(crate) fn is_saved(&self) -> bool {
        let is_saved = |ledger: &mut Ledger| ledger.unsaved.is_none() && ledger.not_made.is_none();
        self.store.is_none() || self.with(is_saved)
    }

    /// Returns whether nothing would be lost with the ledger: the store has it, or the source can begin anew.
    #[cfg(feature = "pool")]
    pub(crate) fn is_disposable(&self, source: &Beginning) -> bool {
        if self.store.as_ref().is_some_and(|store| store.backing.survives_drop()) {
            return self.is_saved();
        }
        let configured = source.configured.as_ref();
        self.with(|ledger| {
            let Some(record) = &ledger.record else { return true };
            if source.sends_no_refresh_token {
                // It asks with a proof of its own, also after a log-out.
                return !ledger.has_logged_in;
            }
            let is_configured = match record.refresh_token() {
                Some(token) => configured
                    .is_some_and(|configured| configured.expose_secret() == token.expose_secret()),
                // The one that the source would begin with may be spent.
                None => {
                    configured.is_none_or(|configured| record.fate(configured) != Fate::Superseded)
                }
            };
            let is_over = record.is_logged_out && source.has_nothing_to_end;
            is_configured && record.sent.is_none() && (!ledger.has_logged || is_over)
        })
    }

    pub(crate) fn new_id(&self) -> SetId {
        self.with(Ledger::new_id)
    }

    // ===== requests of the credentials =====

    /// Looks for a newer record in the store. Sends nothing.
    pub(crate) async fn look(&self, wish: Wish) -> (Look, Notes) {
        let mut notes = Notes::default();
        let Some(store) = &self.store else { return (Look::Nothing, notes) };
        let setup = self.setup();
        let Ok(base) = self.load(Access::Stored(store, None), &setup, &mut notes).await else {
            return (Look::Nothing, notes);
        };
        let refused_at = self.with(|ledger| ledger.refused_at.as_deref().copied());
        let look = match self.plan(&base.record, &wish, &setup) {
            Plan::Use(set) => Look::Newer(self.hand_out(set, None, &wish)),
            _ if refused_at != Some(base.record.position()) => Look::Changed,
            _ => Look::Nothing,
        };
        (look, notes)
    }

    /// Saves the unsaved change. Returns whether that was a token set.
    pub(crate) async fn save(&self) -> Result<bool, TokenError> {
        let is_due = self.with(|ledger| ledger.unsaved.is_some() || ledger.not_made.is_some());
        let Some(store) = self.store.as_deref().filter(|_| is_due) else { return Ok(false) };
        let mut notes = Notes::default();
        let access = Access::Stored(store, None);
        self.load(access, &self.setup(), &mut notes).await.map_err(Failure::into_error)?;
        Ok(notes.is_saved)
    }

    /// Begins a new session with these tokens, or without any.
    ///
    /// # Errors
    ///
    /// [Denied](TokenError::is_denied) if a store has the successor of the refresh token. Otherwise the session has begun, and could
    /// not be saved, or has a refresh token that cannot be sent.
    pub(crate) async fn log_in(
        &self,
        id: SetId,
        tokens: Option<TokenSet>,
    ) -> Result<(), TokenError> {
        let setup = self.setup();
        let refresh_token = tokens.as_ref().and_then(TokenSet::refresh_token).cloned();
        self.begin_session(id, tokens, &setup);
        let is_overtaken = || self.with(|ledger| ledger.is_overtaken(id));
        if let Some(store) = self.store.as_deref().filter(|_| !is_overtaken()) {
            let (access, mut notes) = (Access::Stored(store, None), Notes::default());
            self.load(access, &setup, &mut notes).await.map_err(Failure::into_error)?;
        }
        match is_overtaken() {
            // It would be an error when the token is sent, perhaps an hour later.
            false => refresh_token.map_or(Ok(()), |token| {
                characters::check("refresh_token", token.expose_secret(), is_invisible)
            }),
            true => Err(TokenError::denied(
                "the server has replaced this refresh token before, so that it was not stored; the user must log in again",
            )),
        }
    }

    /// Begins a new session, which is saved with the next refresh.
    pub(crate) fn log_in_unsaved(&self, id: SetId, tokens: Option<TokenSet>) {
        self.begin_session(id, tokens, &self.setup());
    }

    /// Notes that a log-in has ended without being saved, so that a later one elsewhere counts.
    pub(crate) fn session_is_late(&self) {
        self.with(Ledger::session_is_late);
    }

    fn begin_session(&self, id: SetId, tokens: Option<TokenSet>, setup: &Setup) {
        let now = self.now().wall();
        self.with(|ledger| {
            let record = ledger.record.as_ref();
            // A store may have the successor of such a token, and it must not be lost.
            let is_saved =
                self.store.is_some() && session::is_brought_back(record, tokens.as_ref());
            let next = (!is_saved).then(|| session::log_in(record, tokens, now, setup));
            ledger.begin_session(id, next);
            if self.store.is_none() {
                ledger.unsaved = None;
            }
        });
    }

    // ===== the record =====

    /// Loads the record, once it contains what this process knows.
    pub(super) async fn load(
        &self,
        access: Access<'_>,
        setup: &Setup,
        notes: &mut Notes,
    ) -> Result<Base, Failure> {
        for _ in 0..ROUNDS {
            let record = self.read(access).await?;
            // Under the same lock as the decision, so that the ledger has not changed since.
            let (due, of) = self.with(|ledger| {
                let due = match (access, &record) {
                    (Access::Stored(..), _) => {
                        let due = due::due(record.as_ref(), ledger, setup)?;
                        if ledger.record.is_none() {
                            // The write that is due may fail, and the record must be known nevertheless.
                            ledger.record = record
                                .clone()
                                .map(|record| Record { binding: setup.binding.clone(), ..record });
                        }
                        notes.is_saved |= ledger.settle(&due, record.as_ref());
                        due
                    }
                    (_, Some(record)) => due::upkeep(record, ledger, setup),
                    (_, None) => Due::Nothing,
                };
                Ok::<_, Failure>((due, ledger.write_id()))
            })?;
            let (next, is_save) = match due {
                Due::Nothing => {
                    return Ok(match record {
                        Some(record) => Base::of(record),
                        None => Base { record: plan::first(setup), replaces: None },
                    });
                }
                Due::Saved | Due::Overtaken => continue,
                Due::Save(next) => (next, true),
                Due::Write(next) => (next, false),
            };
            match self.write(access, &next, record.map(|record| record.write_id)).await {
                Ok(()) => notes.is_saved |= self.with(|ledger| ledger.written(&next, is_save, of)),
                Err(Failure::Conflict) => {}
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::Conflict)
    }

    /// Replaces the record with the write id `replaces` by another one.
    pub(super) async fn write(
        &self,
        access: Access<'_>,
        record: &Record,
        replaces: Option<WriteId>,
    ) -> Result<(), Failure> {
        if let Access::Stored(store, _) = access {
            return answered(store.backing.save(record, replaces)).await;
        }
        self.with(|ledger| match ledger.write_id() == replaces {
            true => {
                ledger.record = Some(record.clone());
                Ok(())
            }
            false => Err(Failure::Conflict),
        })
    }

    /// Reads the record.
    pub(super) async fn read(&self, access: Access<'_>) -> Result<Option<Record>, Failure> {
        match access {
            Access::Stored(store, _) => answered(store.backing.load()).await,
            Access::Memory | Access::Offline(_) => Ok(self.with(|ledger| ledger.record.clone())),
        }
    }

    pub(super) fn plan(&self, record: &Record, wish: &Wish, setup: &Setup) -> Plan {
        let now = self.now();
        self.with(|ledger| plan::plan(record, ledger, wish, setup, now))
    }

    /// Hands out a set to the credentials. `asked` if it was obtained just now.
    pub(super) fn hand_out(&self, set: Set, asked: Option<Timestamp>, wish: &Wish) -> Obtained {
        let is_adopted = asked.is_none();
        let (id, is_of_other_login) = self.with(|ledger| {
            let last = ledger.held.filter(|held| wish.has == Some(held.id));
            let is_of_other_login =
                last.is_some_and(|last| last.place.login_epoch != set.place.login_epoch);
            (ledger.hand_out(&set, is_adopted), is_of_other_login)
        });
        let asked = asked.unwrap_or_else(|| self.now());
        Obtained { id, tokens: set.tokens, asked, is_adopted, is_of_other_login }
    }

    pub(super) fn setup(&self) -> Setup {
        let info = self.source.info();
        let name = self.store.as_ref().map(|store| String::from(&*store.name));
        Setup {
            binding: Binding {
                token_endpoint: info.token_endpoint.unwrap_or_default(),
                client_id: info.client_id.unwrap_or_default(),
                name: name.unwrap_or_default(),
            }
            .shared(),
            configured: info.refresh_token,
            rotates: !info.keeps_refresh_token,
            reuse_grace: info.reuse_grace,
            store: self.store.as_ref().map(|store| store.backing.describe()).unwrap_or_default(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Returns the origin of the token endpoint, if the source names one.
    #[cfg_attr(not(feature = "tracing"), allow(dead_code, reason = "only logs show it"))]
    pub(crate) fn token_endpoint(&self) -> Option<String> {
        self.source.info().token_endpoint
    }

    /// Returns the description of the store.
    #[cfg_attr(not(feature = "tracing"), allow(dead_code, reason = "only logs show it"))]
    pub(crate) fn store_name(&self) -> Option<String> {
        self.store.as_ref().map(|store| store.backing.describe())
    }

    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Ledger) -> T) -> T {
        f(&mut self.ledger.lock())
    }
}

/// Awaits the store. One that does not answer is unavailable, and the step may be made nevertheless.
pub(super) async fn answered<T>(
    step: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    Limit::after(STORE_LIMIT).run(step).await.unwrap_or_else(|| Err(no_answer()))
}

pub(super) fn no_answer() -> Failure {
    Failure::Unavailable(TokenError::unsent(format!(
        "the store did not answer within {STORE_LIMIT:?}: check its storage, or set a shorter limit in it"
    )))
}

/// How long the store may take for one step, the wait for the lock not counted.
pub(super) const STORE_LIMIT: Duration = Duration::from_secs(10);

/// How often the record may change during one refresh.
pub(super) const ROUNDS: usize = 16;
