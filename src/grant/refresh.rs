//! One refresh, step by step.

use std::borrow::Cow;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::backing::Failure;
use super::keeper::{
    Access, Keeper, Notes, Obtained, ROUNDS, STORE_LIMIT, Store, answered, no_answer,
};
use super::ledger::{Set, Unsaved};
use super::plan::{self, Attempt, LONGEST_FETCH, Plan, Setup, Succession, Wish};
use super::record::{Current, Position, Record, Sent, WriteId};
use crate::clock::Timestamp;
use crate::error::TokenError;
use crate::limit::Limit;
use crate::source::{FallbackError, Missing, Renewal};
use crate::token::{RefreshToken, TokenSet};

pub(super) struct Refresh<'a> {
    pub(super) keeper: &'a Keeper,
    pub(super) setup: Setup,
    pub(super) wish: Wish,
    /// The cause, the challenge, and nothing else.
    pub(super) renewal: Renewal,
    pub(super) on_unknown: &'a (dyn Fn(TokenError) + Sync),
}

/// A token set that the source has returned.
struct Fetched {
    current: Current,
    asked: Timestamp,
    /// The position of the record that it was asked for.
    parent: Position,
    is_login: bool,
}

enum Step {
    Done(Obtained),
    /// The record has changed, or the answer was lost and the refresh token may be sent again at once.
    Again(Option<TokenError>),
}

impl Refresh<'_> {
    pub(super) async fn run(
        &self,
        store: Option<&Store>,
        notes: &mut Notes,
    ) -> Result<Obtained, Failure> {
        let Some(store) = store else { return self.steps(Access::Memory, notes).await };
        match self.run_stored(store, notes).await {
            Err(Failure::Unavailable(error)) if store.goes_on.unwrap_or(!self.setup.rotates) => {
                self.steps(Access::Offline(&error), notes).await
            }
            result => result,
        }
    }

    async fn run_stored(&self, store: &Store, notes: &mut Notes) -> Result<Obtained, Failure> {
        // ## Without the lock: what others have stored may be used by all. An attempt proves nothing here, since its process may be
        // waiting for the answer.
        let record = self.keeper.load(Access::Stored(store, None), &self.setup, notes).await?;
        if let Plan::Use(set) = self.keeper.plan(record.as_ref(), &self.wish, &self.setup) {
            return Ok(self.keeper.hand_out(set, None, &self.wish));
        }
        let wait = store.lock_timeout;
        let lock = timeout(wait.saturating_add(STORE_LIMIT), store.backing.lock(wait));
        let lock = lock.await.unwrap_or_else(|_| Err(no_answer()))?;
        let result = self.steps(Access::Stored(store, Some(&*lock)), notes).await;
        // A store that does not answer releases it in its own time.
        let _ = timeout(STORE_LIMIT, lock.release()).await;
        result
    }

    async fn steps(&self, access: Access<'_>, notes: &mut Notes) -> Result<Obtained, Failure> {
        let mut lost = None;
        for _ in 0..ROUNDS {
            let record = self.keeper.load(access, &self.setup, notes).await?;
            self.report_unknown(record.as_ref());
            let step = match self.keeper.plan(record.as_ref(), &self.wish, &self.setup) {
                Plan::Use(set) => return Ok(self.keeper.hand_out(set, None, &self.wish)),
                Plan::Fail(error) => return Err(error.into()),
                Plan::Ask { previous, refresh_token } => {
                    self.ask(access, record, previous, refresh_token, notes).await?
                }
                Plan::Send(attempt) => {
                    self.send(access, record, *attempt, lost.take(), notes).await?
                }
            };
            match step {
                Step::Done(obtained) => return Ok(obtained),
                Step::Again(error) => lost = error,
            }
        }
        Err(Failure::Conflict)
    }

    /// Reports an attempt that another process has left without a known outcome, once.
    fn report_unknown(&self, record: Option<&Record>) {
        let Some(sent) = record.and_then(|record| record.sent.as_ref()) else { return };
        let is_news = self.keeper.with(|ledger| {
            let is_news = ledger.ours != Some(sent.by) && ledger.reported != Some(sent.by);
            ledger.reported = Some(sent.by);
            is_news
        });
        if is_news {
            (self.on_unknown)(TokenError::ambiguous(sent.describe()));
        }
    }

    /// Asks the source, and spends nothing.
    async fn ask(
        &self,
        access: Access<'_>,
        record: Option<Record>,
        previous: Option<TokenSet>,
        refresh_token: Result<RefreshToken, Missing>,
        notes: &mut Notes,
    ) -> Result<Step, Failure> {
        let asked = self.keeper.now();
        let renewal = self.renewal.clone().of(previous, refresh_token);
        let error = match self.fetch(access, renewal.clone()).await {
            Ok(tokens) => return self.keep(access, record, tokens, asked, notes).await,
            Err(error) => error,
        };
        if let Some(record) = record.as_ref().filter(|_| renewal.successor().is_some()) {
            return Err(self.keep_successor(access, record, &renewal, error, notes).await.into());
        }
        if is_denial(&error) {
            return self
                .refused(access, record.as_ref(), renewal.refresh_token().ok(), None, error)
                .await;
        }
        Err(error.into())
    }

    /// Spends a refresh token. `lost` is the error of the attempt before this one, if it was made in this refresh.
    async fn send(
        &self,
        access: Access<'_>,
        record: Option<Record>,
        attempt: Attempt,
        lost: Option<TokenError>,
        notes: &mut Notes,
    ) -> Result<Step, Failure> {
        let Attempt { record: next, previous, refresh_token, before } = attempt;

        // ## Not sent yet: an error is harmless.
        match self.keeper.write(access, &next, record.map(|record| record.write_id)).await {
            Ok(()) => {}
            Err(Failure::Conflict) => return Ok(Step::Again(None)),
            Err(failure) => {
                // It may have been saved nevertheless.
                self.keeper.with(|ledger| ledger.not_made = Some((next.write_id, before)));
                return Err(failure);
            }
        }
        let sending = Sending::begin(self.keeper, access, &next);
        if let Access::Stored(_, Some(lock)) = access {
            let held = answered(lock.is_held()).await;
            if !matches!(held, Ok(true)) {
                self.take_back(access, &next, before).await;
                return match self.use_stored(access).await {
                    Some(step) => Ok(step),
                    None => Err(lock_lost(held.err()).into()),
                };
            }
        }

        // ## Sent: from here on the refresh token may be spent.
        let asked = self.keeper.now();
        let renewal = self.renewal.clone().of(previous, Ok(refresh_token.clone()));
        let result = self.fetch(access, renewal.clone()).await;
        drop(sending);
        let error = match result {
            Ok(tokens) => return self.keep(access, Some(next), tokens, asked, notes).await,
            Err(error) => error,
        };
        if renewal.successor().is_some() {
            return Err(self.keep_successor(access, &next, &renewal, error, notes).await.into());
        }
        if is_denial(&error) && !is_for_now(&error) {
            return self.refused(access, Some(&next), Some(&refresh_token), before, error).await;
        }
        if error.is_ambiguous() {
            // A server that accepts a refresh token again is asked again at once, one time.
            let elapsed = self.keeper.now().monotonic().saturating_sub(asked.monotonic());
            let is_accepted = self.setup.reuse_grace.is_some_and(|grace| elapsed < grace);
            return match is_accepted && before.is_none() {
                true => Ok(Step::Again(Some(error))),
                false => Err(error.into()),
            };
        }
        self.take_back(access, &next, before).await;
        Err(match lost.filter(|_| !error.is_refusal()) {
            // This attempt was not counted, and the outcome of the one before is still unknown.
            Some(lost) => {
                let both = format!("{}; when sent again, {}", lost.get_ref(), error.get_ref());
                error.into_ambiguous().wrapped_as(both).into()
            }
            None => error.into(),
        })
    }

    async fn fetch(&self, access: Access<'_>, renewal: Renewal) -> Result<TokenSet, TokenError> {
        let fetch = self.keeper.fetch(renewal);
        match access {
            // A source that never answers must not hold the lock forever.
            Access::Stored(..) => {
                Limit::after(LONGEST_FETCH).run(fetch).await.unwrap_or_else(|| {
                    Err(TokenError::ambiguous(format!(
                        "the source did not answer within {LONGEST_FETCH:?}"
                    )))
                })
            }
            Access::Memory | Access::Offline(_) => fetch.await,
        }
    }

    // ===== the outcome =====

    /// Records what the source has returned, and only then hands it out.
    async fn keep(
        &self,
        access: Access<'_>,
        record: Option<Record>,
        mut tokens: TokenSet,
        asked: Timestamp,
        notes: &mut Notes,
    ) -> Result<Step, Failure> {
        let parent = record.as_ref().map_or(FIRST, Record::position);
        let is_login = tokens.take_begins_session();
        let fetched = Fetched {
            current: Current::new(tokens.clone(), asked.wall()),
            asked,
            parent,
            is_login,
        };
        let next = self.follow(record.as_ref(), &fetched);
        if !matches!(access, Access::Memory) {
            self.keeper.with(|ledger| ledger.hold(&next, parent));
        }
        let set = |record: &Record| Set::of(record, tokens.clone());
        if let Access::Offline(error) = access {
            notes.unsaved = Some(error.clone());
            return Ok(Step::Done(self.keeper.hand_out(set(&next), Some(asked), &self.wish)));
        }
        let replaces = record.map(|record| record.write_id);
        let saving = self.save_successor(access, replaces, next.clone(), &fetched);
        let saved = match access {
            Access::Stored(..) => {
                timeout(SAVE_LIMIT, saving).await.unwrap_or_else(|_| Err(no_answer()))
            }
            Access::Memory | Access::Offline(_) => saving.await,
        };
        match saved {
            Ok(Ok(saved)) => {
                self.keeper.with(|ledger| ledger.saved(&saved));
                Ok(Step::Done(self.keeper.hand_out(set(&saved), Some(asked), &self.wish)))
            }
            Ok(Err(overtaken)) => {
                self.keeper.with(|ledger| ledger.give_up(&next));
                match self.use_stored(access).await {
                    Some(step) => Ok(step),
                    None if overtaken == Succession::Ended => Err(TokenError::denied(
                        "the application has logged out meanwhile, here or in another process that shares the store",
                    )
                    .into()),
                    None => Err(TokenError::transient(
                        "another refresh was faster, and its token has expired",
                    )
                    .into()),
                }
            }
            Err(failure) => {
                notes.unsaved = Some(failure.into_error());
                Ok(Step::Done(self.keeper.hand_out(set(&next), Some(asked), &self.wish)))
            }
        }
    }

    /// Returns the record that follows this one.
    fn follow(&self, record: Option<&Record>, fetched: &Fetched) -> Record {
        let record = record.map_or_else(|| Cow::Owned(plan::first(&self.setup)), Cow::Borrowed);
        let current = fetched.current.clone();
        match fetched.is_login && record.revision > 0 {
            true => plan::log_in_by_source(&record, current),
            false => plan::succeed(&record, current, record.revision.saturating_add(1)),
        }
    }

    /// Saves the successor of what was stored, unless something better is stored meanwhile. Returns what was saved.
    async fn save_successor(
        &self,
        access: Access<'_>,
        mut replaces: Option<WriteId>,
        mut next: Record,
        fetched: &Fetched,
    ) -> Result<Result<Record, Succession>, Failure> {
        let mut pauses = SAVE_PAUSES.iter();
        for _ in 0..ROUNDS {
            loop {
                match self.keeper.write(access, &next, replaces).await {
                    Ok(()) => return Ok(Ok(next)),
                    Err(Failure::Conflict) => break,
                    // It may have been saved nevertheless; to save the same record again is harmless.
                    Err(failure) => sleep(*pauses.next().ok_or(failure)?).await,
                }
            }
            let stored = loop {
                match self.keeper.read(access).await {
                    Ok(stored) => break stored,
                    Err(failure) => sleep(*pauses.next().ok_or(failure)?).await,
                }
            };
            if let Some(stored) = &stored
                && stored.current.as_ref().is_some_and(|stored| stored.is(&fetched.current))
            {
                // Another task of this process found it unsaved and has saved it.
                return Ok(Ok(stored.clone()));
            }
            match plan::succession(stored.as_ref(), fetched.parent, fetched.asked.wall()) {
                Succession::Write => {}
                overtaken => return Ok(Err(overtaken)),
            }
            replaces = stored.as_ref().map(|stored| stored.write_id);
            next = match stored {
                // The store has lost the parent.
                None => next.next(),
                Some(stored) => self.follow(Some(&stored), fetched),
            };
        }
        Err(Failure::Conflict)
    }

    /// Records the refresh token of an answer that is of no other use. Returns the error to report.
    async fn keep_successor(
        &self,
        access: Access<'_>,
        record: &Record,
        renewal: &Renewal,
        error: TokenError,
        notes: &mut Notes,
    ) -> TokenError {
        // The outcome for the refresh token is known, although the answer is of no use.
        let error = if error.is_ambiguous() { error.into_transient() } else { error };
        let now = self.keeper.now().wall();
        let next = renewal
            .successor()
            .map(|successor| plan::replace_refresh_token(record, successor, now));
        let Some(Ok(next)) = next else { return error };
        if !matches!(access, Access::Memory) {
            self.keeper.with(|ledger| ledger.hold(&next, record.position()));
        }
        match self.keeper.write(access, &next, Some(record.write_id)).await {
            Ok(()) => self.keeper.with(|ledger| ledger.saved(&next)),
            Err(failure) => notes.unsaved = Some(failure.into_error()),
        }
        error
    }

    /// Records a refusal. It is about what was sent, and not about what is stored now.
    async fn refused(
        &self,
        access: Access<'_>,
        record: Option<&Record>,
        token: Option<&RefreshToken>,
        before: Option<Sent>,
        error: TokenError,
    ) -> Result<Step, Failure> {
        let position = record.map_or(FIRST, Record::position);
        if let Some(token) = token.filter(|_| !is_for_now(&error)) {
            let record = record.map_or_else(|| Cow::Owned(plan::first(&self.setup)), Cow::Borrowed);
            self.keeper.with(|ledger| ledger.refused(&record, token));
        }
        if let Ok(stored) = self.keeper.load(access, &self.setup, &mut Notes::default()).await {
            if stored.as_ref().map_or(FIRST, Record::position) != position {
                return Ok(Step::Again(None));
            }
        }
        Err(match before.filter(|_| error.is_denied()) {
            None => error.into(),
            Some(before) => {
                let both =
                    format!("{}; refused afterwards: {}", before.describe(), error.get_ref());
                error.wrapped_as(both).into()
            }
        })
    }

    /// Records that an attempt was not made, or was not counted.
    async fn take_back(&self, access: Access<'_>, attempt: &Record, before: Option<Sent>) {
        self.keeper.with(|ledger| ledger.take_back(attempt.write_id, before));
        // If that cannot be written now, the next load writes it first.
        let _ = self.keeper.load(access, &self.setup, &mut Notes::default()).await;
    }

    /// Returns what another refresh has stored meanwhile, if it is newer than what the credentials have.
    async fn use_stored(&self, access: Access<'_>) -> Option<Step> {
        let record = self.keeper.read(access).await.ok()?;
        match self.keeper.plan(record.as_ref(), &self.wish, &self.setup) {
            Plan::Use(set) => Some(Step::Done(self.keeper.hand_out(set, None, &self.wish))),
            _ => None,
        }
    }
}

/// An attempt that this process is making, until dropped: a refresh that was declared lost may still be at it.
struct Sending<'a> {
    keeper: &'a Keeper,
    by: WriteId,
}

impl<'a> Sending<'a> {
    fn begin(keeper: &'a Keeper, access: Access<'_>, attempt: &Record) -> Self {
        let by = attempt.write_id;
        keeper.with(|ledger| {
            (ledger.sending, ledger.ours, ledger.not_made) = (Some(by), Some(by), None);
            match access {
                Access::Offline(_) => {
                    ledger.unsaved.get_or_insert(Unsaved::Attempt);
                }
                Access::Stored(..) => ledger.attempted(attempt),
                Access::Memory => {}
            }
        });
        Self { keeper, by }
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.keeper.with(|ledger| ledger.sending.take_if(|by| *by == self.by));
    }
}

/// The position before the first token set.
const FIRST: Position = Position { epoch: 1, revision: 0 };

/// Returns whether the refresh token was refused, however another way to log in then ended.
fn is_denial(error: &TokenError) -> bool {
    error.is_refusal() || error.get_ref().is::<FallbackError>()
}

/// Returns whether the refresh token stays valid after this denial. After a fallback the code is that of the other way to log in.
fn is_for_now(error: &TokenError) -> bool {
    error.is_conditional_denial() && !error.get_ref().is::<FallbackError>()
}

fn lock_lost(failure: Option<Failure>) -> TokenError {
    let why = failure.map_or_else(String::new, |failure| format!(" ({})", failure.into_error()));
    TokenError::transient(format!(
        "the lock of the store was lost before the refresh token was sent, so that it was not sent{why}"
    ))
}

/// How long to try to save a token set before it is used unsaved: the requests that wait for it have not timed out yet.
const SAVE_LIMIT: Duration = Duration::from_secs(15);

/// The pauses before a save is tried again.
const SAVE_PAUSES: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(400), Duration::from_millis(1500)];
