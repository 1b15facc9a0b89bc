//! A source around a source: what it obtains is saved before anybody uses it.
//!
//! The decisions are in `plan.rs`. This file carries them out, one step after the other, and knows what to do when a step
//! fails:
//!
//! lock → load → adopt what a sibling renewed, or write down the intent → look at the lock once more → fetch → save → return
//!
//! What always holds:
//!
//! - A token set that the source has returned is in the memory of this process before anything is awaited, and stays there
//!   until it is saved.
//! - Nothing is sent unless the intent is saved and the lock was still held after that. Between that look and the sending is
//!   the one gap that nobody can close.
//! - The memory's lock is held for a moment and never across an await. Whoever is dropped in the middle leaves an open intent
//!   or an unsaved set behind, and whoever comes next finds it.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::{sleep, timeout};

use super::plan::{
    self, Begun, Due, Held, Plan, Saved, Session, Setup, Spending, Succession, Wish,
};
use super::recollection::Recollection;
use super::record::{Binding, Intent, StoredSet, StoredTokens, WriteId};
use super::{StoreError, StoreLock, TokenStore};
use crate::clock::{Clock, SystemClock};
use crate::error::TokenError;
use crate::limit::Limit;
use crate::source::{Cause, FallbackError, Notice, Renewal, SourceInfo, TokenSource};
use crate::token::{RefreshToken, StoredAs, TokenSet};

/// A [`TokenSource`] around another one, which keeps its tokens in a [`TokenStore`].
///
/// What the inner source obtains is saved before anybody uses it; what others who share the store have obtained is used
/// without asking anybody. See the [module](super) for the whole, and for what is promised.
///
/// ```
/// use tower_refresh::store::{MemoryStore, Stored};
/// use tower_refresh::{Credentials, TokenError, TokenSet, source_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), TokenError> {
/// // Most programs have a `RefreshTokenGrant` here, and a `FileStore` or a `RedisStore` there.
/// let source = source_fn(|_| async { TokenSet::bearer("sesame") });
/// let store = MemoryStore::new();
///
/// let credentials = Credentials::new(Stored::new(source, store.clone()).name("compass"));
/// assert_eq!(credentials.token().await?.access_token().expose_secret(), "sesame");
/// # Ok(())
/// # }
/// ```
///
/// Another way to log in goes inside, `Stored::new(refresh.or_else(log_in), store)`, so that what it obtains is saved as well.
///
/// # Limits
///
/// A store that does not answer within 10 seconds is down, the [wait for the lock](Self::lock_wait) not counted. To save what
/// the source has brought takes at most 15 seconds; then it is used unsaved. A source that does not answer within 5 minutes is
/// dropped, and the outcome is [ambiguous](TokenError::is_ambiguous).
pub struct Stored<S, T> {
    source: S,
    store: T,
    name: String,
    lock_wait: Duration,
    store_down: Option<StoreDown>,
    clock: Arc<dyn Clock>,
    #[expect(clippy::disallowed_types, reason = "held for a moment, and never across an await")]
    memory: std::sync::Mutex<Recollection>,
}

/// What a [`Stored`] source does while its store is down.
///
/// A lock that somebody else holds is not a store that is down: then nothing is ever sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreDown {
    /// Sends nothing, and fails: an access token that still works is used while it does. The default if the refresh token may
    /// rotate, since a rotated one that is only in memory is lost with the process, and one that two processes send ends the
    /// session.
    Fail,
    /// Goes on with what is in memory, and saves it when the store is back. The default if the server does not rotate.
    ///
    /// A process that starts while the store is down has nothing in memory, and sends the configured refresh token; if that was
    /// spent before, the server ends the session. Nobody counts how often a refresh token is sent meanwhile, so that one whose
    /// answer was lost is sent again as if there were no store.
    Serve,
}

impl<S: TokenSource, T: TokenStore> Stored<S, T> {
    /// Makes a source of a source and the store that keeps its tokens.
    pub fn new(source: S, store: T) -> Self {
        Self {
            source,
            store,
            name: String::new(),
            lock_wait: LOCK_WAIT,
            store_down: None,
            clock: Arc::new(SystemClock),
            #[expect(clippy::disallowed_types, reason = "see the field")]
            memory: std::sync::Mutex::default(),
        }
    }

    /// Sets the name of the credential, which what is stored is bound to; empty by default.
    ///
    /// Together with the token endpoint and the client id it keeps two credentials that are given the same store by mistake
    /// from using each other's tokens.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets what is done while the store is down.
    ///
    /// [`StoreDown::Fail`] by default if the source's refresh token may rotate, and else [`StoreDown::Serve`].
    #[must_use]
    pub fn store_down(mut self, store_down: StoreDown) -> Self {
        self.store_down = Some(store_down);
        self
    }

    /// Sets how long a refresh waits for the lock before it fails; 60 seconds by default.
    ///
    /// Requests do not wait longer for it than the policy's [`timeout`](crate::RefreshPolicy::timeout).
    #[must_use]
    pub fn lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self
    }

    /// Sets the clock, in place of the operating system's. Its time of day is compared with what others have stored.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Returns the source.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Returns the store.
    pub fn store(&self) -> &T {
        &self.store
    }

    // ===== what the source is asked =====

    async fn fetch_stored(&self, renewal: &Renewal, setup: &Setup) -> Result<TokenSet, TokenError> {
        if renewal.is_probe() {
            self.remember(|all| all.refused = None);
        }
        self.take_in(renewal);
        // ## Without the lock: what others have stored is there for everybody. An open intent says nothing here, since
        // whoever wrote it may be at it.
        let (record, wish) = self.load(renewal, setup).await?;
        match self.plan(record.as_ref(), &wish, setup)? {
            Plan::Adopt(tokens) => return Ok(self.adopted(renewal, &wish, tokens)),
            _ if renewal.only_looks() => {
                return Err(TokenError::transient("nobody else has brought a newer token"));
            }
            Plan::Ask { .. } | Plan::AskWithout => {
                if let Some(error) = self.remember(|all| all.refused(record.as_ref())) {
                    return Err(error);
                }
            }
            _ => {}
        }

        let lock =
            timeout(self.lock_wait.saturating_add(STORE_LIMIT), self.store.lock(self.lock_wait));
        let lock = lock.await.unwrap_or_else(|_| Err(no_answer()))?;
        let outcome = self.fetch_locked(renewal, setup, &lock).await;
        // One that does not answer lets go of it in its own time.
        let _ = timeout(STORE_LIMIT, lock.release()).await;
        outcome
    }

    async fn fetch_locked(
        &self,
        renewal: &Renewal,
        setup: &Setup,
        lock: &T::Lock,
    ) -> Result<TokenSet, TokenError> {
        for _ in 0..ROUNDS {
            let (record, wish) = self.load(renewal, setup).await?;
            self.tell_of_others(record.as_ref(), renewal);
            let step = match self.plan(record.as_ref(), &wish, setup)? {
                Plan::Adopt(tokens) => return Ok(self.adopted(renewal, &wish, tokens)),
                Plan::Refuse(error) => return Err(error),
                Plan::Ask { previous } => {
                    let renewal = renewal.clone().with_previous(previous).counted();
                    self.ask(record, renewal, setup).await?
                }
                Plan::AskWithout => {
                    let renewal = renewal.clone().with_previous(None).with_seed_spent().counted();
                    self.ask(record, renewal, setup).await?
                }
                Plan::Spend(spending) => {
                    self.spend(record, *spending, renewal, setup, lock).await?
                }
            };
            if let Step::Done(tokens) = step {
                return Ok(tokens);
            }
        }
        Err(changes_all_the_time(setup))
    }

    /// Asks a source that spends nothing, and after a refusal not again for what is stored: to log in with a wrong password
    /// again and again helps nobody.
    async fn ask(
        &self,
        record: Option<StoredTokens>,
        renewal: Renewal,
        setup: &Setup,
    ) -> Result<Step, TokenError> {
        if let Some(error) = self.remember(|all| all.refused(record.as_ref())) {
            return Err(error);
        }
        let asked = self.now();
        match limited(self.source.fetch(renewal.clone())).await {
            Ok(tokens) => self.keep(record, tokens, asked, &renewal, setup).await,
            Err(error) if is_denial(&error) => {
                let sent = match renewal.is_seed_spent() {
                    true => None,
                    false => sent(renewal.previous(), setup),
                };
                self.denied(record.as_ref(), sent, None, error, setup).await
            }
            Err(error) => Err(error),
        }
    }

    /// Spends the refresh token.
    async fn spend(
        &self,
        record: Option<StoredTokens>,
        spending: Spending,
        renewal: &Renewal,
        setup: &Setup,
        lock: &T::Lock,
    ) -> Result<Step, TokenError> {
        let Spending { intent, before, previous } = spending;
        let replaces = record.as_ref().map(StoredTokens::write_id);

        // ## Not sent yet: whatever fails now is harmless.
        match self.write(&intent, replaces).await {
            Ok(()) => {}
            Err(error) if error.is_conflict() => return Ok(Step::Again),
            Err(error) => {
                // It may have been saved all the same.
                self.remember(|all| all.memory.not_sent = Some((intent.write_id(), before)));
                return Err(error.into());
            }
        }
        self.remember(|all| all.ours = Some(intent.write_id()));
        let held = answered(lock.is_held()).await;
        if !matches!(held, Ok(true)) {
            self.take_back(&intent, before, setup).await;
            let why = held.err().map_or_else(String::new, |error| format!(" ({error})"));
            return self.adopt_instead(renewal, setup).await?.ok_or_else(|| {
                TokenError::transient(format!(
                    "the lock was lost before the refresh token was sent, so that it was not sent{why}"
                ))
            });
        }

        // ## Sent: from here the refresh token may be spent.
        let asked = self.now();
        let token = sent(previous.as_ref(), setup);
        let asking = renewal.clone().with_previous(previous).counted();
        let outcome = limited(self.source.fetch(asking)).await;
        let error = match outcome {
            Ok(tokens) => return self.keep(Some(intent), tokens, asked, renewal, setup).await,
            Err(error) => error,
        };
        if let Some(successor) = error.successor() {
            self.keep_successor(&intent, successor, renewal).await;
            return Err(error);
        }
        if is_denial(&error) && !is_for_now(&error) {
            return self.denied(Some(&intent), token, before, error, setup).await;
        }
        if error.is_ambiguous() {
            // A server that is known to bear it is asked again at once, one time.
            let elapsed = self.now().duration_since(asked).unwrap_or_default();
            let is_borne = setup.reuse_grace.is_some_and(|grace| elapsed < grace);
            return if is_borne && before.is_none() { Ok(Step::Again) } else { Err(error) };
        }
        self.take_back(&intent, before, setup).await;
        Err(error)
    }

    // ===== what became of it =====

    /// Saves what the source has returned, and only then returns it.
    async fn keep(
        &self,
        record: Option<StoredTokens>,
        tokens: TokenSet,
        asked: SystemTime,
        renewal: &Renewal,
        setup: &Setup,
    ) -> Result<Step, TokenError> {
        let parent = stored_as(record.as_ref());
        let stored_as = StoredAs { revision: parent.revision.saturating_add(1), ..parent };
        let tokens = tokens.clone().with_stored_as(stored_as);
        let held =
            Held { stored_as, tokens: tokens.clone(), asked, saved: Saved::After(parent.revision) };
        self.remember(|all| all.hold(held));

        let saving = self.save_successor(record, parent, &tokens, asked, setup);
        match timeout(SAVE_LIMIT, saving).await.unwrap_or_else(|_| Err(no_answer())) {
            Ok(Succession::Write) => {
                self.remember(|all| all.saved(stored_as));
                Ok(Step::Done(tokens))
            }
            // Others in this process found it unsaved, and were faster to save it.
            Ok(_) if self.is_saved(stored_as) => Ok(Step::Done(tokens)),
            Ok(overtaken) => {
                // What is newer may be unsaved.
                self.remember(|all| all.memory.held.take_if(|held| held.stored_as == stored_as));
                match self.adopt_instead(renewal, setup).await? {
                    Some(step) => Ok(step),
                    None if overtaken == Succession::Ended => Err(TokenError::denied(
                        "somebody else who shares the store logged out meanwhile",
                    )),
                    None => Err(TokenError::transient(
                        "somebody else who shares the store was faster, and what they stored has expired",
                    )),
                }
            }
            Err(error) => {
                self.tell_unsaved(renewal, error.into());
                Ok(Step::Done(self.hurry(&tokens, Duration::ZERO)))
            }
        }
    }

    /// Saves the successor of what was stored, unless something better is stored meanwhile.
    async fn save_successor(
        &self,
        mut record: Option<StoredTokens>,
        parent: StoredAs,
        tokens: &TokenSet,
        asked: SystemTime,
        setup: &Setup,
    ) -> Result<Succession, StoreError> {
        let mut pauses = SAVE_PAUSES.iter();
        for _ in 0..ROUNDS {
            let base = match &record {
                Some(record) => record.clone(),
                None => plan::first(setup)?,
            };
            let mut next = plan::succeed(&base, tokens, asked, parent.revision.saturating_add(1))?;
            next.epoch = parent.epoch;
            let replaces = record.as_ref().map(StoredTokens::write_id);
            let failure = loop {
                match self.write(&next, replaces).await {
                    Ok(()) => return Ok(Succession::Write),
                    Err(error) if error.is_conflict() => break None,
                    // Nobody knows whether it counted; to save the same again is harmless.
                    Err(error) => match pauses.next() {
                        Some(pause) => sleep(*pause).await,
                        None => break Some(error),
                    },
                }
            };
            if let Some(error) = failure {
                return Err(error);
            }
            record = loop {
                match self.read().await {
                    Ok(record) => break record,
                    Err(error) => match pauses.next() {
                        Some(pause) => sleep(*pause).await,
                        None => return Err(error),
                    },
                }
            };
            match plan::succession(record.as_ref(), parent) {
                Succession::Write => {}
                overtaken => return Ok(overtaken),
            }
        }
        Err(StoreError::unavailable(format!("{} changes all the time", setup.store)))
    }

    /// Saves the refresh token of an answer that was of no other use.
    async fn keep_successor(
        &self,
        intent: &StoredTokens,
        successor: &RefreshToken,
        renewal: &Renewal,
    ) {
        let now = self.now();
        let parent = intent.stored_as();
        let Ok(next) = plan::replace_refresh_token(intent, successor, now) else {
            return;
        };
        if let Ok(Some(tokens)) = next.tokens(now) {
            let saved = Saved::After(parent.revision);
            let held = Held { stored_as: next.stored_as(), tokens, asked: now, saved };
            self.remember(|all| all.hold(held));
        }
        match self.write(&next, Some(intent.write_id())).await {
            Ok(()) => self.remember(|all| all.saved(next.stored_as())),
            Err(error) => self.tell_unsaved(renewal, error.into()),
        }
    }

    /// The token endpoint refused what was sent: that says something about what was sent, and nothing about what is stored.
    async fn denied(
        &self,
        record: Option<&StoredTokens>,
        sent: Option<RefreshToken>,
        before: Option<Intent>,
        error: TokenError,
        setup: &Setup,
    ) -> Result<Step, TokenError> {
        if sent.is_some() && !is_for_now(&error) {
            self.remember(|all| all.memory.denied = sent);
        }
        if let Ok((stored, _)) = self.write_due(setup).await {
            if stored_as(stored.as_ref()) != stored_as(record) {
                return Ok(Step::Again);
            }
            if error.is_denied() {
                let of = stored.as_ref().map(StoredTokens::write_id);
                self.remember(|all| all.refused = Some((of, error.clone())));
            }
        }
        Err(match before.filter(|_| error.is_denied()) {
            None => error,
            Some(before) => {
                let refused =
                    format!("{}; refused afterwards: {}", before.describe(), error.get_ref());
                error.wrapped_as(refused)
            }
        })
    }

    /// Says that what was written down did not happen.
    async fn take_back(&self, intent: &StoredTokens, before: Option<Intent>, setup: &Setup) {
        let by = intent.write_id();
        self.remember(|all| all.memory.not_sent = Some((by, before)));
        // If it cannot be done now, it is done before anything else the next time.
        if self.write_due(setup).await.is_ok() {
            self.remember(|all| all.memory.not_sent = None);
        }
    }

    /// Returns what somebody else has stored meanwhile, if it is newer than what the asker has.
    async fn adopt_instead(
        &self,
        renewal: &Renewal,
        setup: &Setup,
    ) -> Result<Option<Step>, TokenError> {
        let wish = self.wish(renewal);
        let Ok(record) = self.read().await else {
            return Ok(None);
        };
        Ok(match self.plan(record.as_ref(), &wish, setup) {
            Ok(Plan::Adopt(tokens)) => Some(Step::Done(self.adopted(renewal, &wish, tokens))),
            _ => None,
        })
    }

    /// The store is down, and the policy is to go on.
    async fn serve(&self, renewal: &Renewal, down: TokenError) -> Result<TokenSet, TokenError> {
        let (held, session, has_seen_a_record) = self.remember(|all| {
            (all.memory.held.clone(), all.memory.session.clone(), all.has_seen_a_record)
        });
        let newest = match (&session, &held) {
            (Some(session), _) => session.tokens.as_ref().map(|tokens| (tokens, session.at)),
            (None, Some(held)) => Some((&held.tokens, held.asked)),
            // What was stored is not known by heart, or there was nothing to know.
            (None, None) if has_seen_a_record => return Err(down),
            (None, None) => None,
        };
        if let Some((_, error)) = self.remember(|all| all.refused.clone()) {
            return Err(error);
        }
        if let Some((tokens, asked)) = newest {
            let set = StoredSet::new(tokens, asked);
            let is_unsaved =
                session.is_some() || held.as_ref().is_some_and(|held| held.saved != Saved::Yes);
            // It was to be saved, and not to be renewed. No failure, or else it would not be renewed when it has to be.
            if is_unsaved
                && renewal.cause() == Cause::Expiring
                && self.is_hurried(renewal)
                && set.is_young(self.now())
            {
                return self.serve_again(&set);
            }
        }

        let mut asking = renewal.clone();
        match newest {
            Some((tokens, _)) => asking = asking.with_previous(tokens.clone()),
            None if session.is_some() => asking = asking.with_previous(None).with_seed_spent(),
            None => {}
        }
        self.remember(|all| all.memory.not_sent = None);
        let asked = self.now();
        let tokens = limited(self.source.fetch(asking)).await.inspect_err(|error| {
            if error.is_refusal() {
                self.remember(|all| all.refused = Some((None, error.clone())));
            }
        })?;
        let tokens = match (session, held) {
            (None, Some(held)) => {
                let revision = held.stored_as.revision.saturating_add(1);
                let stored_as = StoredAs { revision, ..held.stored_as };
                let saved = match held.saved {
                    Saved::Yes => Saved::After(held.stored_as.revision),
                    after @ Saved::After(_) => after,
                };
                let tokens = tokens.clone().with_stored_as(stored_as);
                self.remember(|all| {
                    all.hold(Held { stored_as, tokens: tokens.clone(), asked, saved })
                });
                self.hurry(&tokens, Duration::ZERO)
            }
            (session, _) => {
                let (at, begun) = match session {
                    None => (asked, Begun::WithoutStore),
                    Some(Session { at, begun: Begun::WithoutStore, .. }) => {
                        (at, Begun::WithoutStore)
                    }
                    Some(session) => (session.at, Begun::Late),
                };
                self.remember(|all| all.begin_session(Some(tokens.clone()), at, begun));
                let served = self.hurry(&tokens, Duration::ZERO);
                self.remember(|all| all.brought = Some((served.clone(), None)));
                served
            }
        };
        self.tell_unsaved(renewal, down);
        Ok(tokens)
    }

    /// Hands out once more what still cannot be saved.
    fn serve_again(&self, set: &StoredSet) -> Result<TokenSet, TokenError> {
        let tokens = set.tokens(self.now())?;
        let (held, is_session) = self.remember(|all| {
            (all.memory.held.as_ref().map(|held| held.stored_as), all.memory.session.is_some())
        });
        let tokens = match held.filter(|_| !is_session) {
            Some(stored_as) => tokens.clone().with_stored_as(stored_as),
            None => tokens,
        };
        let served = self.hurry(&tokens, SAVE_AGAIN);
        if is_session {
            self.remember(|all| all.brought = Some((served.clone(), None)));
        }
        Ok(served)
    }

    /// Returns an unsaved set as it is to be used: soon stale, so that the next requests have it saved.
    fn hurry(&self, tokens: &TokenSet, after: Duration) -> TokenSet {
        let served = tokens.clone().with_refresh_in(after);
        self.remember(|all| all.hurried = Some(served.clone()));
        served
    }

    fn is_hurried(&self, renewal: &Renewal) -> bool {
        self.remember(|all| match (&all.hurried, renewal.previous()) {
            (Some(hurried), Some(previous)) => hurried.is_clone_of(previous),
            _ => false,
        })
    }

    // ===== the store =====

    /// Loads what is stored, once the store knows what this process knows. Also returns what is wanted of it.
    async fn load(
        &self,
        renewal: &Renewal,
        setup: &Setup,
    ) -> Result<(Option<StoredTokens>, Wish), TokenError> {
        let (record, was_unsaved) = self.write_due(setup).await?;
        if was_unsaved {
            self.tell_saved(Some(renewal));
        }
        Ok((record, self.wish(renewal)))
    }

    /// Loads what is stored, and writes what is due. Also returns whether a token set was.
    async fn write_due(&self, setup: &Setup) -> Result<(Option<StoredTokens>, bool), TokenError> {
        let mut was_unsaved = false;
        for _ in 0..ROUNDS {
            let record = self.read().await?;
            let (due, session) = self.remember(|all| {
                all.has_seen_a_record |= record.is_some();
                let write_id = record.as_ref().map(StoredTokens::write_id);
                all.refused.take_if(|(of, _)| *of != write_id);
                all.memory.had_turn |= plan::has_had_turn(record.as_ref(), setup)?;
                let due = plan::due(record.as_ref(), &all.memory, setup)?;
                let session = all.memory.session.as_ref().map(|session| session.number);
                // At once, while what it was decided about is still what is remembered.
                match &due {
                    Due::Found => all.found(stored_as(record.as_ref())),
                    Due::Drop => all.overtaken(),
                    Due::Nothing | Due::Write(_) => {}
                }
                Ok::<_, TokenError>((due, session))
            })?;
            match due {
                Due::Nothing => return Ok((record, was_unsaved)),
                Due::Found => was_unsaved = true,
                Due::Drop => {}
                Due::Write(next) => {
                    let replaces = record.as_ref().map(StoredTokens::write_id);
                    match self.write(&next, replaces).await {
                        Ok(()) => was_unsaved |= self.remember(|all| all.written(&next, session)),
                        Err(error) if error.is_conflict() => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
        Err(changes_all_the_time(setup))
    }

    async fn read(&self) -> Result<Option<StoredTokens>, StoreError> {
        answered(self.store.load()).await
    }

    async fn write(
        &self,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> Result<(), StoreError> {
        answered(self.store.save(record, replaces)).await
    }

    fn is_saved(&self, stored_as: StoredAs) -> bool {
        self.remember(|all| {
            let held = all.memory.held.as_ref();
            held.is_some_and(|held| held.stored_as == stored_as && held.saved == Saved::Yes)
        })
    }

    fn tell_unsaved(&self, renewal: &Renewal, error: TokenError) {
        renewal.tell(Notice::Unsaved(error));
        self.remember(|all| all.owed = Some(renewal.clone().with_previous(None)));
    }

    /// Tells those who were told that something is unsaved, or else whoever asks.
    fn tell_saved(&self, renewal: Option<&Renewal>) {
        if let Some(told) = self.remember(|all| all.owed.take()).as_ref().or(renewal) {
            told.tell(Notice::Saved);
        }
    }

    /// Tells of an intent that somebody else has left open, once.
    fn tell_of_others(&self, record: Option<&StoredTokens>, renewal: &Renewal) {
        let Some(intent) = record.and_then(|record| record.content().ok()?.intent.as_ref()) else {
            return;
        };
        let is_news = self.remember(|all| {
            let is_news = all.ours != Some(intent.by) && all.told != Some(intent.by);
            all.told = Some(intent.by);
            is_news
        });
        if is_news {
            renewal.tell(Notice::Unanswered(TokenError::ambiguous(intent.describe())));
        }
    }

    fn adopted(&self, renewal: &Renewal, wish: &Wish, tokens: TokenSet) -> TokenSet {
        if let Some(stored_as) = tokens.stored_as() {
            let asked = self.now();
            self.remember(|all| {
                all.hold(Held { stored_as, tokens: tokens.clone(), asked, saved: Saved::Yes })
            });
        }
        if !wish.is_hurried {
            renewal.tell(Notice::Adopted);
        }
        tokens
    }

    // ===== what is known =====

    fn plan(
        &self,
        record: Option<&StoredTokens>,
        wish: &Wish,
        setup: &Setup,
    ) -> Result<Plan, TokenError> {
        let now = self.now();
        self.remember(|all| plan::plan(record, &all.memory, wish, setup, now))
    }

    fn wish(&self, renewal: &Renewal) -> Wish {
        Wish {
            cause: renewal.cause(),
            has: self.what_the_asker_has(renewal),
            is_hurried: self.is_hurried(renewal),
        }
    }

    /// Returns which of the stored sets the asker has, if it is one of them.
    fn what_the_asker_has(&self, renewal: &Renewal) -> Option<StoredAs> {
        let previous = renewal.previous()?;
        previous.stored_as().or_else(|| {
            let held = self.remember(|all| {
                let held = all.memory.held.as_ref()?;
                is_made_of(previous, &held.tokens).then_some(held.stored_as)
            });
            held.or_else(|| self.brought(previous)?)
        })
    }

    /// Returns what a token set is stored as, if it is the one that the last log-in brought.
    fn brought(&self, tokens: &TokenSet) -> Option<Option<StoredAs>> {
        self.remember(|all| {
            let (brought, stored_as) = all.brought.as_ref()?;
            brought.is_clone_of(tokens).then_some(*stored_as)
        })
    }

    /// Marks a set as that of another session than the asker's, where a comparison of the two does not show it: a set that the
    /// application brought does not remember as which it was stored.
    fn of_its_session(&self, tokens: TokenSet, renewal: &Renewal) -> TokenSet {
        let (Some(previous), Some(stored_as)) = (renewal.previous(), tokens.stored_as()) else {
            return tokens;
        };
        let is_of_another = match self.brought(previous) {
            Some(Some(brought_as)) => brought_as.epoch != stored_as.epoch,
            Some(None) => self.remember(|all| all.is_login_overtaken),
            None => false,
        };
        if !is_of_another {
            return tokens;
        }
        let marked = tokens.clone().beginning_session();
        self.remember(|all| {
            if let Some(hurried) = &mut all.hurried
                && hurried.is_clone_of(&tokens)
            {
                *hurried = marked.clone();
            }
        });
        marked
    }

    /// A set that did not come through here was obtained by a source around this one: that is a log-in.
    fn take_in(&self, renewal: &Renewal) {
        let Some(previous) = renewal.previous() else {
            return;
        };
        // Once: it may have been overtaken since, and must not take the place of what came after it.
        if previous.refresh_token().is_some()
            && self.brought(previous).is_none()
            && self.what_the_asker_has(renewal).is_none()
        {
            let now = self.now();
            self.remember(|all| all.begin_session(Some(previous.clone()), now, Begun::Late));
        }
    }

    fn setup(&self) -> Setup {
        let info = self.source.info();
        Setup {
            binding: Binding {
                token_endpoint: info.token_endpoint.unwrap_or_default(),
                client_id: info.client_id.unwrap_or_default(),
                name: self.name.clone(),
            },
            configured: info.refresh_token,
            rotates: info.rotates,
            reuse_grace: info.reuse_grace,
            store: self.store.describe(),
        }
    }

    fn now(&self) -> SystemTime {
        self.clock.now().wall()
    }

    fn remember<R>(&self, f: impl FnOnce(&mut Recollection) -> R) -> R {
        // Each use leaves it whole.
        f(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<S: TokenSource, T: TokenStore> TokenSource for Stored<S, T> {
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        let setup = self.setup();
        match self.fetch_stored(&renewal, &setup).await {
            Err(error) if self.serves(&setup, &error) && !renewal.only_looks() => {
                self.serve(&renewal, error).await
            }
            outcome => outcome.map(|tokens| self.of_its_session(tokens, &renewal)),
        }
    }

    /// Writes it to the store as a new session: what a refresh of somebody else brings afterwards is of the last one, and not
    /// stored.
    async fn adopt(&self, tokens: Option<&TokenSet>) -> Result<(), TokenError> {
        let setup = self.setup();
        // Before the first await: whoever fetches meanwhile stores it first.
        let now = self.now();
        self.remember(|all| all.begin_session(tokens.cloned(), now, Begun::Now));
        let inner = self.source.adopt(tokens).await;
        match self.write_due(&setup).await {
            // Nothing that is not late is overtaken; so it was spent before.
            Ok(_) if tokens.and_then(|tokens| self.brought(tokens)) == Some(None) => {
                Err(TokenError::denied(
                    "another refresh token took the place of this one before, so that it was not stored; somebody must log in again",
                ))
            }
            Ok(_) => inner,
            Err(error) => {
                self.remember(|all| {
                    if let Some(session) = &mut all.memory.session
                        && session.begun == Begun::Now
                    {
                        session.begun = Begun::Late;
                    }
                });
                Err(error)
            }
        }
    }

    async fn settle(&self) -> Result<(), TokenError> {
        let inner = self.source.settle().await;
        let is_unsaved = self.remember(|all| {
            let held = all.memory.held.as_ref();
            all.memory.session.is_some()
                || all.memory.not_sent.is_some()
                || held.is_some_and(|held| held.saved != Saved::Yes)
        });
        if is_unsaved && self.write_due(&self.setup()).await?.1 {
            self.tell_saved(None);
        }
        inner
    }

    fn info(&self) -> SourceInfo {
        self.source.info().keeping()
    }
}

impl<S, T> Stored<S, T> {
    fn serves(&self, setup: &Setup, error: &TokenError) -> bool {
        let default = if setup.rotates { StoreDown::Fail } else { StoreDown::Serve };
        let is_down =
            error.get_ref().downcast_ref::<StoreError>().is_some_and(StoreError::is_unavailable);
        is_down && self.store_down.unwrap_or(default) == StoreDown::Serve
    }
}

impl<S: fmt::Debug, T: fmt::Debug> fmt::Debug for Stored<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("source", &self.source)
            .field("store", &self.store)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

enum Step {
    Done(TokenSet),
    /// The store has changed.
    Again,
}

/// Waits for a source, for so long that whoever waits has given up.
async fn limited(
    fetch: impl Future<Output = Result<TokenSet, TokenError>>,
) -> Result<TokenSet, TokenError> {
    Limit::after(FETCH_LIMIT).run(fetch).await.unwrap_or_else(|| {
        Err(TokenError::ambiguous(format!("the source did not answer within {FETCH_LIMIT:?}")))
    })
}

/// Returns whether one set is the other, perhaps as a source around this one made it anew, without the refresh token.
fn is_made_of(tokens: &TokenSet, held: &TokenSet) -> bool {
    let [token, held_token] =
        [tokens, held].map(|set| set.refresh_token().map(RefreshToken::expose_secret));
    tokens.access_token().expose_secret() == held.access_token().expose_secret()
        && (token.is_none() || token == held_token)
}

/// Returns what a source sends that is given this set.
fn sent(previous: Option<&TokenSet>, setup: &Setup) -> Option<RefreshToken> {
    previous.and_then(TokenSet::refresh_token).or(setup.configured.as_ref()).cloned()
}

/// Returns whether the refresh token was refused, whatever another way to log in then came to.
fn is_denial(error: &TokenError) -> bool {
    error.is_refusal() || error.get_ref().is::<FallbackError>()
}

/// Returns whether the refresh token still stands after this denial. After a fallback the code is that of the other way to log in.
fn is_for_now(error: &TokenError) -> bool {
    error.is_conditional_denial() && !error.get_ref().is::<FallbackError>()
}

/// Returns which set is stored; before the first, which it comes after.
fn stored_as(record: Option<&StoredTokens>) -> StoredAs {
    record.map_or(StoredAs { epoch: 1, revision: 0 }, StoredTokens::stored_as)
}

/// Waits for the store. One that does not answer is down; what it was asked may still be done.
async fn answered<T>(asked: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    Limit::after(STORE_LIMIT).run(asked).await.unwrap_or_else(|| Err(no_answer()))
}

fn no_answer() -> StoreError {
    StoreError::unavailable("it does not answer")
}

fn changes_all_the_time(setup: &Setup) -> TokenError {
    TokenError::transient(format!("{} changes all the time", setup.store))
}

/// How long a source may take, so that one that never answers does not hold the lock for ever. A token endpoint's own limit is
/// shorter.
const FETCH_LIMIT: Duration = Duration::from_secs(5 * 60);

/// Longer than most token endpoints take, for whoever comes second.
const LOCK_WAIT: Duration = Duration::from_secs(60);

/// How long the store may take for one thing, the wait for the lock not counted.
const STORE_LIMIT: Duration = Duration::from_secs(10);

/// How long to try to save what is there, before it is used unsaved: those who wait for it have not given up yet.
const SAVE_LIMIT: Duration = Duration::from_secs(15);

/// After how long it is tried again to save what is used unsaved.
const SAVE_AGAIN: Duration = Duration::from_secs(30);

/// How often what is stored may change under our eyes.
const ROUNDS: usize = 16;

/// After which pauses a save is tried again.
const SAVE_PAUSES: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(400), Duration::from_millis(1500)];
