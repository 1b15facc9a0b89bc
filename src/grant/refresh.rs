//! One refresh, step by step, with the [keeper](super::keeper)'s source, store and ledger.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, SystemTime};

use tokio::time::{sleep, timeout};

use super::backing::Failure;
use super::keeper::{
    Access, Base, Keeper, Notes, Obtained, ROUNDS, STORE_LIMIT, Store, answered, no_answer,
};
use super::ledger::{Set, Unsaved};
use super::plan::{self, Attempt, LONGEST_FETCH, Overtaken, Plan, Setup, Wish};
use super::record::{Current, Place, Position, Record, Sent, WriteId};
use super::session;
use crate::clock::{Deadline, Timestamp};
use crate::error::TokenError;
use crate::limit::Limit;
use crate::source::{FallbackError, Renewal, TokenSource as _};
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
        let (mut lost, mut notes) = (None, Notes::default());
        let mut refresh = Refresh {
            keeper: self,
            setup: &self.setup(),
            wish: &wish,
            renewal: &renewal,
            on_unknown,
            access: self
                .store
                .as_deref()
                .map_or(Access::Memory, |store| Access::Stored(store, None)),
            lost: &mut lost,
            notes: &mut notes,
        };
        let result = refresh.run().await.map_err(Failure::into_error);
        let result = result.map_err(|error| match lost.filter(|_| !error.is_ambiguous()) {
            // Nothing was sent since, or nothing that counted.
            Some(lost) => {
                let both = format!("{}; when sent again, {}", lost.get_ref(), error.get_ref());
                error.into_ambiguous().wrapped_as(both)
            }
            None => error,
        });
        if result.as_ref().is_err_and(TokenError::is_denied) {
            self.with(|ledger| ledger.refused_at = Some(Box::new(ledger.position())));
        }
        (result, notes)
    }
}

struct Refresh<'a> {
    keeper: &'a Keeper,
    setup: &'a Setup,
    wish: &'a Wish,
    /// The cause, the challenge, and nothing else.
    renewal: &'a Renewal,
    on_unknown: &'a (dyn Fn(TokenError) + Sync),
    access: Access<'a>,
    /// The error of an attempt with an unknown outcome, until the refresh token is sent again.
    lost: &'a mut Option<TokenError>,
    notes: &'a mut Notes,
}

/// The answer of the source.
struct Fetched {
    current: Current,
    /// Returns the record that follows another one.
    change: fn(&Record, Current) -> Record,
    asked: SystemTime,
    /// The position of the record that it was asked for.
    parent: Position,
}

impl Refresh<'_> {
    async fn run(&mut self) -> Result<Obtained, Failure> {
        let Access::Stored(store, _) = self.access else { return self.steps().await };
        match self.run_stored(store).await {
            Err(Failure::Unavailable(error)) if store.goes_on.unwrap_or(!self.setup.rotates) => {
                self.over(Access::Offline(&error)).steps().await
            }
            result => result,
        }
    }

    async fn run_stored(&mut self, store: &Store) -> Result<Obtained, Failure> {
        let limit = Limit::after(store.lock_timeout);
        let mut wait = store.lock_timeout;
        let mut pauses = Pauses::default();
        let lock = loop {
            // ## Without the lock: a stored set may be used by all processes. An attempt proves nothing here, since its process may
            // be waiting for the answer. The same after each wait: the last holder has usually stored what all the others wait for.
            let base = self.load().await?;
            if let Plan::Use(set) = self.keeper.plan(&base.record, self.wish, self.setup) {
                return Ok(self.keeper.hand_out(set, None, self.wish));
            }
            let lock = timeout(wait.saturating_add(STORE_LIMIT), store.backing.lock_or_wait(wait));
            match lock.await.unwrap_or_else(|_| Err(no_answer()))? {
                Some(lock) => break lock,
                None if wait.is_zero() => return Err(still_locked(store, self.setup).into()),
                None => wait = limit.left(),
            }
            sleep(pauses.next().min(wait)).await;
        };
        let result = self.over(Access::Stored(store, Some(&*lock))).steps().await;
        // A store that does not answer releases it in its own time.
        let _ = timeout(STORE_LIMIT, lock.release()).await;
        result
    }

    /// Returns the same refresh with another access to the record.
    fn over<'a>(&'a mut self, access: Access<'a>) -> Refresh<'a> {
        Refresh { access, lost: self.lost, notes: self.notes, ..*self }
    }

    async fn steps(&mut self) -> Result<Obtained, Failure> {
        for _ in 0..ROUNDS {
            let base = self.load().await?;
            self.report_unknown(&base.record);
            let obtained = match self.keeper.plan(&base.record, self.wish, self.setup) {
                Plan::Use(set) => return Ok(self.keeper.hand_out(set, None, self.wish)),
                Plan::Fail(error) => return Err(error.into()),
                Plan::Ask(attempt) => self.attempt(base, *attempt).await?,
            };
            if let Some(obtained) = obtained {
                return Ok(obtained);
            }
        }
        Err(Failure::Conflict)
    }

    async fn load(&mut self) -> Result<Base, Failure> {
        self.keeper.load(self.access, self.setup, self.notes).await
    }

    /// Reports an attempt that another process has left without a known outcome, once.
    fn report_unknown(&self, record: &Record) {
        let Some(sent) = &record.sent else { return };
        let is_news = self.keeper.with(|ledger| {
            let last = ledger.reported.replace(Box::new(sent.by));
            ledger.ours != Some(sent.by) && last.as_deref() != Some(&sent.by)
        });
        if is_news {
            (self.on_unknown)(TokenError::ambiguous(sent.describe()));
        }
    }

    /// Asks the source. Returns `None` if the record has changed, or the answer was lost and the refresh token may be sent again at
    /// once.
    async fn attempt(
        &mut self,
        mut base: Base,
        attempt: Attempt,
    ) -> Result<Option<Obtained>, Failure> {
        let Attempt { write, previous, refresh_token, before } = attempt;
        let mut sending = None;
        if let Some(next) = write {
            // ## Not sent yet: an error is harmless.
            let attempting = Sending::begin(self.keeper, next.write_id);
            match self.keeper.write(self.access, &next, base.replaces).await {
                Ok(()) => {}
                Err(Failure::Conflict) => return Ok(None),
                Err(failure) => {
                    // It may have been saved nevertheless.
                    self.keeper
                        .with(|ledger| ledger.not_made = Some(Box::new((next.write_id, before))));
                    return Err(failure);
                }
            }
            attempting.record(self.access, &next);
            sending = Some(attempting);
            base = Base::of(next);
            if let Access::Stored(_, Some(lock)) = self.access
                && let held = answered(lock.is_held()).await
                && !matches!(held, Ok(true))
            {
                self.take_back(&base.record, before).await;
                return self.use_stored(|| lock_lost(held.err())).await;
            }
        }
        let is_counted = sending.is_some();

        // ## Sent: from here on the refresh token may be spent.
        let lost = self.lost.take();
        let asked = self.keeper.now();
        let renewal = self.renewal.clone().of(previous, refresh_token);
        let result = self.fetch(renewal.clone()).await;
        drop(sending);
        let error = match result {
            Ok(tokens) => return self.keep(base, tokens, asked).await,
            Err(error) => error,
        };
        if let Some(successor) = renewal.successor() {
            let alone = TokenSet::bearer("none")?
                .with_expires_in(Duration::ZERO)
                .with_refresh_token(successor.clone());
            let _ = self.record(base, alone, Record::replace_refresh_token, asked).await;
            // The outcome for the refresh token is known, although the answer is of no use.
            let is_unknown = error.is_ambiguous();
            return Err(if is_unknown { error.into_transient() } else { error }.into());
        }
        if is_denial(&error) && !(is_counted && is_for_now(&error)) {
            let token = renewal.refresh_token().ok();
            return self.refused(&base.record, token, before, error).await;
        }
        if is_counted && error.is_ambiguous() {
            // A server that accepts a refresh token again is asked again at once, one time.
            let elapsed = self.keeper.now().monotonic().saturating_sub(asked.monotonic());
            if self.setup.reuse_grace.is_some_and(|grace| elapsed < grace) && before.is_none() {
                *self.lost = Some(error);
                return Ok(None);
            }
            let open = base.record.sent.as_deref();
            if let Some(left) =
                open.and_then(|open| plan::left_alone_for(open, self.keeper.now().wall()))
            {
                return Err(error.held_back(left).into());
            }
        } else if is_counted {
            self.take_back(&base.record, before).await;
            // This attempt was not counted. Only a refusal shows that the one before was not either.
            *self.lost = lost.filter(|_| !error.is_refusal());
        }
        Err(error.into())
    }

    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        let fetch = self.keeper.source.fetch(renewal);
        if !matches!(self.access, Access::Stored(..)) {
            return fetch.await;
        }
        // A source that never answers must not hold the lock forever.
        Limit::after(LONGEST_FETCH).run(fetch).await.unwrap_or_else(|| {
            let limit = format!("the source did not answer within {LONGEST_FETCH:?}: set a time limit in its HTTP client");
            Err(TokenError::ambiguous(limit))
        })
    }

    // ===== the outcome =====

    /// Records the token set of the source, and only then hands it out.
    async fn keep(
        &mut self,
        base: Base,
        mut tokens: TokenSet,
        asked: Timestamp,
    ) -> Result<Option<Obtained>, Failure> {
        let change = match tokens.take_begins_session() {
            true => session::log_in_by_source,
            false => |record: &Record, current| {
                record.succeed(current, record.revision.saturating_add(1))
            },
        };
        match self.record(base, tokens.clone(), change, asked).await {
            Ok(place) => {
                let set = Set { tokens, place };
                Ok(Some(self.keeper.hand_out(set, Some(asked), self.wish)))
            }
            Err(overtaken) => self.use_stored(|| overtaken.into_error()).await,
        }
    }

    /// Records the answer of the source, unless a newer one is recorded meanwhile. One that cannot be saved stays in the ledger.
    async fn record(
        &mut self,
        base: Base,
        tokens: TokenSet,
        change: fn(&Record, Current) -> Record,
        asked: Timestamp,
    ) -> Result<Place, Overtaken> {
        let asked = asked.wall();
        let current = Current::new(tokens, asked);
        let fetched = Fetched { current, change, asked, parent: base.record.position() };
        let mut next = fetched.after(&base.record)?;
        let saved = match self.access {
            Access::Memory | Access::Offline(_) => Ok(self.keeper.with(|ledger| {
                if let Some(known) = &ledger.record {
                    next = fetched.after(known)?;
                }
                ledger.hold(&next, fetched.parent);
                Ok(())
            })),
            Access::Stored(..) => {
                self.keeper.with(|ledger| ledger.hold(&next, fetched.parent));
                let saving = self.save(base.replaces, &mut next, &fetched);
                timeout(SAVE_LIMIT, saving).await.unwrap_or_else(|_| Err(no_answer()))
            }
        };
        match (saved, self.access) {
            (Ok(Ok(())), Access::Offline(error)) => self.notes.unsaved = Some(error.clone()),
            (Ok(Ok(())), _) => self.keeper.with(|ledger| ledger.saved(&next)),
            (Ok(Err(overtaken)), _) => {
                self.keeper.with(|ledger| ledger.give_up(&next));
                return Err(overtaken);
            }
            (Err(failure), _) => self.notes.unsaved = Some(failure.into_error()),
        }
        Ok(next.place())
    }

    /// Saves the successor of the stored set, unless a newer set is stored meanwhile. `next` is then the saved record.
    async fn save(
        &self,
        mut replaces: Option<WriteId>,
        next: &mut Record,
        fetched: &Fetched,
    ) -> Result<Result<(), Overtaken>, Failure> {
        let mut pauses = SAVE_PAUSES.iter();
        for _ in 0..ROUNDS {
            let step = match self.keeper.write(self.access, next, replaces).await {
                Err(Failure::Conflict) => self.keeper.read(self.access).await,
                Err(failure) => Err(failure),
                Ok(()) => return Ok(Ok(())),
            };
            let stored = match step {
                Ok(stored) => stored,
                // It may have been saved nevertheless. Saving the same record again is harmless.
                Err(failure) => {
                    sleep(*pauses.next().ok_or(failure)?).await;
                    continue;
                }
            };
            replaces = stored.as_ref().map(|stored| stored.write_id);
            *next = match stored {
                // The store has lost the parent.
                None => next.next(),
                // The save has counted, and another process has written the record since.
                Some(stored)
                    if stored.current.as_ref().is_some_and(|it| it.is(&fetched.current)) =>
                {
                    *next = stored;
                    return Ok(Ok(()));
                }
                Some(stored) => match fetched.after(&stored) {
                    Ok(after) => after,
                    Err(overtaken) => return Ok(Err(overtaken)),
                },
            };
        }
        Err(Failure::Conflict)
    }

    /// Records a refusal. It is about the refresh token that was sent, not about the one that is stored now.
    async fn refused(
        &mut self,
        record: &Record,
        token: Option<&RefreshToken>,
        before: Option<Box<Sent>>,
        error: TokenError,
    ) -> Result<Option<Obtained>, Failure> {
        if let Some(token) = token.filter(|_| !is_for_now(&error)) {
            self.keeper.with(|ledger| ledger.refused(record, token));
        }
        if let Ok(now) = self.load().await
            && now.record.position() != record.position()
        {
            return Ok(None);
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
    async fn take_back(&mut self, attempt: &Record, before: Option<Box<Sent>>) {
        self.keeper.with(|ledger| ledger.take_back(attempt.write_id, before));
        // If that cannot be written now, the next load writes it first.
        let _ = self.load().await;
    }

    /// Returns the set that another refresh has stored meanwhile. It is an error if that is no newer than that of the credentials.
    async fn use_stored(
        &self,
        error: impl FnOnce() -> TokenError,
    ) -> Result<Option<Obtained>, Failure> {
        if let Ok(Some(record)) = self.keeper.read(self.access).await
            && let Plan::Use(set) = self.keeper.plan(&record, self.wish, self.setup)
        {
            return Ok(Some(self.keeper.hand_out(set, None, self.wish)));
        }
        Err(error().into())
    }
}

impl Fetched {
    /// Returns the record that follows this one, unless this one is newer.
    fn after(&self, record: &Record) -> Result<Record, Overtaken> {
        plan::succession(record, self.parent, self.asked)?;
        Ok((self.change)(record, self.current.clone()))
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
        keeper.with(|ledger| ledger.sending = Some(Box::new((by, until))));
        Self { keeper, by }
    }

    fn record(&self, access: Access<'_>, attempt: &Record) {
        self.keeper.with(|ledger| {
            ledger.ours = Some(self.by);
            match access {
                // The store may have an earlier attempt, which is still to be taken back.
                Access::Offline(_) => {
                    ledger.unsaved.get_or_insert(Unsaved::Fate);
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
        self.keeper.with(|ledger| ledger.sending.take_if(|sending| sending.0 == self.by));
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
    TokenError::transient(format!(
        "the store is locked: {store} was not released within {wait:?}: if refreshes take that long, raise `CredentialsBuilder::lock_timeout`"
    ))
}

fn lock_lost(failure: Option<Failure>) -> TokenError {
    let why = failure.map_or_else(String::new, |failure| format!(" ({})", failure.into_error()));
    TokenError::transient(format!(
        "the lock of the store was lost before the refresh token was sent, so that it was not sent{why}: if that happens often, set a longer `lease`"
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
