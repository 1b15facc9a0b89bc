//! One refresh, step by step, with the [keeper](super::keeper)'s source, store and ledger.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::backing::Failure;
use super::keeper::{
    Access, Base, Keeper, Notes, Obtained, ROUNDS, STORE_LIMIT, Store, answered, no_answer,
};
use super::ledger::{Set, Unsaved};
use super::plan::{self, Attempt, LONGEST_FETCH, Plan, Setup, Succession, Wish};
use super::record::{Current, Position, Record, Sent, WriteId};
use super::session;
use crate::clock::{Deadline, Timestamp};
use crate::error::TokenError;
use crate::limit::Limit;
use crate::source::{FallbackError, Renewal};
use crate::token::{RefreshToken, TokenSet};

impl Keeper {
    /// Obtains a newer token set than the credentials have.
    ///
    /// `renewal` has the cause and the challenge. The plan decides what is sent.
    ///
    /// `on_unknown` is called before anything is sent if another process has left an attempt with an unknown outcome.
    pub(crate) async fn refresh(
        &self,
        wish: Wish,
        renewal: Renewal,
        on_unknown: &(dyn Fn(TokenError) + Sync),
    ) -> (Result<Obtained, TokenError>, Notes) {
        let mut notes = Notes::default();
        let refresh = Refresh { keeper: self, setup: self.setup(), wish, renewal, on_unknown };
        let result =
            refresh.run(self.store.as_ref(), &mut notes).await.map_err(Failure::into_error);
        if result.as_ref().is_err_and(TokenError::is_denied) {
            self.with(|ledger| ledger.refused_at = Some(ledger.position()));
        }
        (result, notes)
    }
}

struct Refresh<'a> {
    keeper: &'a Keeper,
    setup: Setup,
    wish: Wish,
    /// The cause, the challenge, and nothing else.
    renewal: Renewal,
    on_unknown: &'a (dyn Fn(TokenError) + Sync),
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
    async fn run(&self, store: Option<&Store>, notes: &mut Notes) -> Result<Obtained, Failure> {
        let Some(store) = store else { return self.steps(Access::Memory, notes).await };
        match self.run_stored(store, notes).await {
            Err(Failure::Unavailable(error)) if store.goes_on.unwrap_or(!self.setup.rotates) => {
                self.steps(Access::Offline(&error), notes).await
            }
            result => result,
        }
    }

    async fn run_stored(&self, store: &Store, notes: &mut Notes) -> Result<Obtained, Failure> {
        let limit = Limit::after(store.lock_timeout);
        let mut wait = store.lock_timeout;
        let mut pauses = Pauses::default();
        let lock = loop {
            // ## Without the lock: a stored set may be used by all processes. An attempt proves nothing here, since its process may
            // be waiting for the answer. The same after each wait: the last holder has usually stored what all the others wait for.
            let base = self.keeper.load(Access::Stored(store, None), &self.setup, notes).await?;
            if let Plan::Use(set) = self.keeper.plan(&base.record, &self.wish, &self.setup) {
                return Ok(self.keeper.hand_out(set, None, &self.wish));
            }
            let lock = timeout(wait.saturating_add(STORE_LIMIT), store.backing.lock_or_wait(wait));
            match lock.await.unwrap_or_else(|_| Err(no_answer()))? {
                Some(lock) => break lock,
                None if wait.is_zero() => return Err(still_locked(store, &self.setup).into()),
                None => wait = limit.left(),
            }
            sleep(pauses.next().min(wait)).await;
        };
        let result = self.steps(Access::Stored(store, Some(&*lock)), notes).await;
        // A store that does not answer releases it in its own time.
        let _ = timeout(STORE_LIMIT, lock.release()).await;
        result
    }

    async fn steps(&self, access: Access<'_>, notes: &mut Notes) -> Result<Obtained, Failure> {
        let mut lost = None;
        for _ in 0..ROUNDS {
            let base = self.keeper.load(access, &self.setup, notes).await?;
            self.report_unknown(&base.record);
            let step = match self.keeper.plan(&base.record, &self.wish, &self.setup) {
                Plan::Use(set) => return Ok(self.keeper.hand_out(set, None, &self.wish)),
                Plan::Fail(error) => return Err(error.into()),
                Plan::Ask(attempt) => {
                    self.attempt(access, base, *attempt, lost.take(), notes).await?
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
    fn report_unknown(&self, record: &Record) {
        let Some(sent) = &record.sent else { return };
        let is_news = self.keeper.with(|ledger| {
            let last = ledger.reported.replace(sent.by);
            ledger.ours != Some(sent.by) && last != Some(sent.by)
        });
        if is_news {
            (self.on_unknown)(TokenError::ambiguous(sent.describe()));
        }
    }

    /// Asks the source. `lost` is the error of the attempt before this one, if it was made in this refresh.
    async fn attempt(
        &self,
        access: Access<'_>,
        mut base: Base,
        attempt: Attempt,
        lost: Option<TokenError>,
        notes: &mut Notes,
    ) -> Result<Step, Failure> {
        let Attempt { write, previous, refresh_token, before } = attempt;
        let mut sending = None;
        if let Some(next) = write {
            // ## Not sent yet: an error is harmless.
            let attempting = Sending::begin(self.keeper, next.write_id);
            match self.keeper.write(access, &next, base.replaces).await {
                Ok(()) => {}
                Err(Failure::Conflict) => return Ok(Step::Again(None)),
                Err(failure) => {
                    // It may have been saved nevertheless.
                    self.keeper.with(|ledger| ledger.not_made = Some((next.write_id, before)));
                    return Err(failure);
                }
            }
            attempting.record(access, &next);
            sending = Some(attempting);
            base = Base::of(next);
            if let Access::Stored(_, Some(lock)) = access
                && let held = answered(lock.is_held()).await
                && !matches!(held, Ok(true))
            {
                self.take_back(access, &base.record, before).await;
                return self.use_stored(access).await.ok_or_else(|| lock_lost(held.err()).into());
            }
        }
        let is_counted = sending.is_some();

        // ## Sent: from here on the refresh token may be spent.
        let asked = self.keeper.now();
        let renewal = self.renewal.clone().of(previous, refresh_token);
        let result = self.fetch(access, renewal.clone()).await;
        drop(sending);
        let error = match result {
            Ok(tokens) => return self.keep(access, base, tokens, asked, notes).await,
            Err(error) => error,
        };
        if let Some(successor) = renewal.successor() {
            self.keep_successor(access, base, successor, notes).await;
            // The outcome for the refresh token is known, although the answer is of no use.
            let is_unknown = error.is_ambiguous();
            return Err(if is_unknown { error.into_transient() } else { error }.into());
        }
        if is_denial(&error) && !(is_counted && is_for_now(&error)) {
            let token = renewal.refresh_token().ok();
            return self.refused(access, &base.record, token, before, error).await;
        }
        if !is_counted {
            return Err(error.into());
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
        self.take_back(access, &base.record, before).await;
        Err(match lost.filter(|_| !error.is_refusal()) {
            // This attempt was not counted, and the outcome of the one before is still unknown.
            Some(lost) => {
                let both = format!("{}; when sent again, {}", lost.get_ref(), error.get_ref());
                error.into_ambiguous().wrapped_as(both)
            }
            None => error,
        }
        .into())
    }

    async fn fetch(&self, access: Access<'_>, renewal: Renewal) -> Result<TokenSet, TokenError> {
        let fetch = self.keeper.fetch(renewal);
        if !matches!(access, Access::Stored(..)) {
            return fetch.await;
        }
        // A source that never answers must not hold the lock forever.
        Limit::after(LONGEST_FETCH).run(fetch).await.unwrap_or_else(|| {
            let limit = format!("the source did not answer within {LONGEST_FETCH:?}");
            Err(TokenError::ambiguous(limit))
        })
    }

    // ===== the outcome =====

    /// Records the token set of the source, and only then hands it out.
    async fn keep(
        &self,
        access: Access<'_>,
        base: Base,
        mut tokens: TokenSet,
        asked: Timestamp,
        notes: &mut Notes,
    ) -> Result<Step, Failure> {
        let is_login = tokens.take_begins_session();
        let current = Current::new(tokens.clone(), asked.wall());
        let fetched = Fetched { current, asked, parent: base.record.position(), is_login };
        let mut next = fetched.after(&base.record);
        let saved = match access {
            Access::Offline(error) => match self.hold(&mut next, &fetched) {
                Succession::Write => Err(Failure::Unavailable(error.clone())),
                overtaken => Ok(overtaken),
            },
            Access::Memory => self.save_successor(access, base.replaces, &mut next, &fetched).await,
            Access::Stored(..) => {
                self.keeper.with(|ledger| ledger.hold(&next, fetched.parent));
                let saving = self.save_successor(access, base.replaces, &mut next, &fetched);
                timeout(SAVE_LIMIT, saving).await.unwrap_or_else(|_| Err(no_answer()))
            }
        };
        match saved {
            Ok(Succession::Write) => self.keeper.with(|ledger| ledger.saved(&next)),
            Ok(overtaken) => {
                self.keeper.with(|ledger| ledger.give_up(&next));
                return self.use_stored(access).await.ok_or_else(|| overtaken.into_error().into());
            }
            Err(failure) => notes.unsaved = Some(failure.into_error()),
        }
        Ok(Step::Done(self.keeper.hand_out(
            Set { tokens, place: next.place() },
            Some(asked),
            &self.wish,
        )))
    }

    /// Keeps an unsaved record in memory, unless a newer one is known.
    fn hold(&self, next: &mut Record, fetched: &Fetched) -> Succession {
        self.keeper.with(|ledger| {
            if let Some(known) = &ledger.record {
                match plan::succession(known, fetched.parent, fetched.asked.wall()) {
                    Succession::Write => *next = fetched.after(known),
                    overtaken => return overtaken,
                }
            }
            ledger.hold(next, fetched.parent);
            Succession::Write
        })
    }

    /// Saves the successor of the stored set, unless a newer set is stored meanwhile. `next` is then the saved record.
    async fn save_successor(
        &self,
        access: Access<'_>,
        mut replaces: Option<WriteId>,
        next: &mut Record,
        fetched: &Fetched,
    ) -> Result<Succession, Failure> {
        let mut pauses = SAVE_PAUSES.iter();
        for _ in 0..ROUNDS {
            loop {
                match self.keeper.write(access, next, replaces).await {
                    Ok(()) => return Ok(Succession::Write),
                    Err(Failure::Conflict) => break,
                    // It may have been saved nevertheless. Saving the same record again is harmless.
                    Err(failure) => sleep(*pauses.next().ok_or(failure)?).await,
                }
            }
            let stored = loop {
                match self.keeper.read(access).await {
                    Ok(stored) => break stored,
                    Err(failure) => sleep(*pauses.next().ok_or(failure)?).await,
                }
            };
            replaces = stored.as_ref().map(|stored| stored.write_id);
            *next = match stored {
                // The store has lost the parent.
                None => next.next(),
                // Another task of this process found it unsaved and has saved it.
                Some(stored)
                    if stored.current.as_ref().is_some_and(|it| it.is(&fetched.current)) =>
                {
                    *next = stored;
                    return Ok(Succession::Write);
                }
                Some(stored) => {
                    let now = fetched.asked.wall();
                    match plan::succession(&stored, fetched.parent, now) {
                        Succession::Write => fetched.after(&stored),
                        overtaken => return Ok(overtaken),
                    }
                }
            };
        }
        Err(Failure::Conflict)
    }

    /// Records the refresh token of an answer that is of no other use.
    async fn keep_successor(
        &self,
        access: Access<'_>,
        mut base: Base,
        successor: &RefreshToken,
        notes: &mut Notes,
    ) {
        let parent = base.record.position();
        let Ok(alone) = TokenSet::bearer("none") else { return };
        let alone = alone.with_expires_in(Duration::ZERO).with_refresh_token(successor.clone());
        let alone = Current::new(alone, self.keeper.now().wall());
        for _ in 0..ROUNDS {
            let next = base.record.replace_refresh_token(alone.clone());
            if !matches!(access, Access::Memory) {
                self.keeper.with(|ledger| ledger.hold(&next, parent));
            }
            if let Access::Offline(error) = access {
                notes.unsaved = Some(error.clone());
                return;
            }
            match self.keeper.write(access, &next, base.replaces).await {
                Ok(()) => return self.keeper.with(|ledger| ledger.saved(&next)),
                // Another refresh may be sending the refresh token that is replaced.
                Err(Failure::Conflict) => match (access, self.keeper.read(access).await) {
                    (_, Ok(Some(now))) if now.position() == parent => base = Base::of(now),
                    (Access::Memory, _) => return,
                    _ => return notes.unsaved = Some(Failure::Conflict.into_error()),
                },
                Err(failure) => return notes.unsaved = Some(failure.into_error()),
            }
        }
    }

    /// Records a refusal. It is about the refresh token that was sent, not about the one that is stored now.
    async fn refused(
        &self,
        access: Access<'_>,
        record: &Record,
        token: Option<&RefreshToken>,
        before: Option<Sent>,
        error: TokenError,
    ) -> Result<Step, Failure> {
        if let Some(token) = token.filter(|_| !is_for_now(&error)) {
            self.keeper.with(|ledger| ledger.refused(record, token));
        }
        if let Ok(now) = self.keeper.load(access, &self.setup, &mut Notes::default()).await
            && now.record.position() != record.position()
        {
            return Ok(Step::Again(None));
        }
        Err(match before.filter(|_| error.is_denied()) {
            None => error,
            Some(before) => {
                let before = before.describe();
                let both = format!("{before}; refused afterwards: {}", error.get_ref());
                error.wrapped_as(both)
            }
        }
        .into())
    }

    /// Records that an attempt was not made, or was not counted.
    async fn take_back(&self, access: Access<'_>, attempt: &Record, before: Option<Sent>) {
        self.keeper.with(|ledger| ledger.take_back(attempt.write_id, before));
        // If that cannot be written now, the next load writes it first.
        let _ = self.keeper.load(access, &self.setup, &mut Notes::default()).await;
    }

    /// Returns the set that another refresh has stored meanwhile, if it is newer than that of the credentials.
    async fn use_stored(&self, access: Access<'_>) -> Option<Step> {
        let record = self.keeper.read(access).await.ok()??;
        match self.keeper.plan(&record, &self.wish, &self.setup) {
            Plan::Use(set) => Some(Step::Done(self.keeper.hand_out(set, None, &self.wish))),
            _ => None,
        }
    }
}

impl Fetched {
    /// Returns the record that follows this one.
    fn after(&self, record: &Record) -> Record {
        match self.is_login {
            true => session::log_in_by_source(record, self.current.clone()),
            false => record.succeed(self.current.clone(), record.revision.saturating_add(1)),
        }
    }
}

/// An attempt that this process is making, until dropped. A refresh that was declared lost may still be making it.
struct Sending<'a> {
    keeper: &'a Keeper,
    by: WriteId,
}

impl<'a> Sending<'a> {
    /// Begins before the attempt is written, so that there is no moment in which it is written and not known to be made.
    fn begin(keeper: &'a Keeper, by: WriteId) -> Self {
        // A step of the wall clock must not make it look ended.
        let until = Deadline::monotonic(keeper.now(), LONGEST_FETCH);
        keeper.with(|ledger| ledger.sending = Some((by, until)));
        Self { keeper, by }
    }

    fn record(&self, access: Access<'_>, attempt: &Record) {
        self.keeper.with(|ledger| {
            ledger.ours = Some(self.by);
            match access {
                // The store may have an earlier attempt, which is still to be taken back.
                Access::Offline(_) => {
                    ledger.unsaved.get_or_insert(Unsaved::Attempt);
                }
                Access::Stored(..) => {
                    ledger.not_made = None;
                    ledger.attempted(attempt);
                }
                Access::Memory => ledger.not_made = None,
            }
        });
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.keeper.with(|ledger| ledger.sending.take_if(|(by, _)| *by == self.by));
    }
}

/// Returns whether the refresh token was refused, however another way to log in then ended.
fn is_denial(error: &TokenError) -> bool {
    error.is_refusal() || error.get_ref().is::<FallbackError>()
}

/// Returns whether the refresh token stays valid after this denial. After a fallback the code is that of the other way to log in.
fn is_for_now(error: &TokenError) -> bool {
    error.is_conditional_denial() && !error.get_ref().is::<FallbackError>()
}

/// The pauses of a waiter for the lock that is woken together with others: none after the first wait, then random ones.
///
/// If the refresh of the last holder has failed, all of them still need the lock, and only one can have it. Without pauses each
/// release would lead to as many requests to the store as there are waiters.
#[derive(Default)]
struct Pauses {
    longest: Duration,
}

impl Pauses {
    fn next(&mut self) -> Duration {
        let share = RandomState::new().hash_one(()) as f64 / u64::MAX as f64;
        let pause = self.longest.mul_f64(share);
        self.longest = (self.longest * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        pause
    }
}

fn still_locked(store: &Store, setup: &Setup) -> TokenError {
    let (store, wait) = (&setup.store, store.lock_timeout);
    TokenError::transient(format!("the store is locked: {store} was not released within {wait:?}"))
}

fn lock_lost(failure: Option<Failure>) -> TokenError {
    let why = failure.map_or_else(String::new, |failure| format!(" ({})", failure.into_error()));
    TokenError::transient(format!(
        "the lock of the store was lost before the refresh token was sent, so that it was not sent{why}"
    ))
}

/// How long to try to save a token set before it is used unsaved: the requests that wait for it have not timed out yet.
const SAVE_LIMIT: Duration = Duration::from_secs(15);

/// About the duration of a failed refresh.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);

/// Short for a request that waits for a token.
const LONGEST_PAUSE: Duration = Duration::from_millis(320);

/// The pauses before a save is tried again.
const SAVE_PAUSES: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(400), Duration::from_millis(1500)];
