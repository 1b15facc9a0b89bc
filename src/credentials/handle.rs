//! The handle that all users of one grant share.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::Extensions;
use tokio::runtime::Handle;
use tokio::sync::{broadcast, watch};
use tokio::time::Sleep;

use super::builder::CredentialsBuilder;
use super::event::{self, Event, Events};
use super::flight::{self, Answer, Gate, Outcome, Turn, Waiting, Want};
use super::policy::RefreshPolicy;
use super::session;
use super::state::{Adoption, Decision, Departure, FlightId, Issued, Landed, State};
use super::status::{Status, TokenStatus};
use crate::clock::{Deadline, Timestamp};
use crate::error::TokenError;
use crate::grant::{Keeper, Notes, Store};
use crate::source::{BoxTokenSource, Cause, FetchedFor, TokenSource, Watch};
use crate::target::Target;
use crate::token::TokenSet;

/// The shared handle to one grant: the current token set, and the refresh in flight.
///
/// A [`RefreshLayer`](crate::RefreshLayer) makes its own credentials from a source. Create them yourself to share one token among
/// several layers and clients, to log in and out, or to watch events. Clones share everything.
///
/// # Examples
///
/// ```
/// use tower_refresh::{Credentials, RefreshLayer, StaticToken};
///
/// let credentials = Credentials::new(StaticToken::new("sesame".parse()?));
/// let api = RefreshLayer::new(credentials.clone()).origin("https://api.example.com")?;
/// let files = RefreshLayer::new(credentials.clone()).origin("https://files.example.com")?;
/// # Ok::<(), tower_refresh::BoxError>(())
/// ```
///
/// # Guarantees
///
/// - There is one refresh at a time. Concurrent requests wait for the same refresh and share its result, success or error. A
///   refresh that has not ended after ten timeouts is considered lost, and another can start. If its result arrives later, it is
///   used.
/// - A refresh runs in a task of its own. Dropping the futures that wait for it does not stop it, and its result is used.
/// - A token that still works is used until it expires, also if its refresh fails.
/// - A request belongs to one session. After a [log-in](Self::log_in) or a [log-out](Self::log_out), no request of the session
///   before is sent, or sent again, with the new token. It returns the rejection, or a [denied](TokenError::is_denied) error if it
///   was never sent. A request that is made while there is no session waits for the next one. There is no session before the first
///   token, after a log-out, and after the token has expired and the grant is denied.
/// - An idle program refreshes nothing: there is no background loop.
///
/// # Before the runtime ends
///
/// Await [`flush`](Self::flush): the response of a refresh in flight is the only copy of the next refresh token.
///
/// # Fork
///
/// A process must not fork after the first refresh: both processes would own one refresh token.
#[derive(Clone)]
pub struct Credentials {
    shared: Arc<Shared>,
}

/// Readers of a fresh token read `published` and nothing else. The state decides everything else under the lock, and it is carried
/// out after the lock is released: no await, spawn, send, wake, clock or user code while it is held.
struct Shared {
    id: u64,
    keeper: Keeper,
    policy: RefreshPolicy,
    /// Detects a change of the source's input. Must not be called under the lock.
    watch: Option<Watch>,
    /// Written only under the lock, so that it never becomes older.
    published: ArcSwapOption<Published>,
    #[expect(clippy::disallowed_types, reason = "the one lock that guards the state")]
    inner: std::sync::Mutex<Inner>,
    events: broadcast::Sender<Event>,
    /// The number of flights and adoptions, also of those without a waiter.
    working: watch::Sender<usize>,
}

pub(super) struct Inner {
    state: State,
    /// Present exactly while the state has a flight or an adoption, and of the same id.
    gate: Option<Gate>,
    turn: Turn,
}

/// The token that requests use without the lock.
struct Published {
    issued: Arc<Issued>,
    until: Deadline,
}

impl Credentials {
    /// Creates credentials that obtain their tokens from `source`, with the default policy and no store.
    ///
    /// No token is requested until one is needed.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::{Credentials, StaticToken};
    ///
    /// let credentials = Credentials::new(StaticToken::new("sesame".parse()?));
    /// # Ok::<(), tower_refresh::TokenError>(())
    /// ```
    pub fn new(source: impl TokenSource) -> Self {
        Self::builder(source).build()
    }

    /// Creates credentials that obtain their tokens from `source`, with a policy.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_refresh::{Credentials, RefreshPolicy, StaticToken};
    ///
    /// let policy = RefreshPolicy::default().timeout(Duration::from_secs(5));
    /// let credentials = Credentials::with_policy(StaticToken::new("sesame".parse()?), policy);
    /// # Ok::<(), tower_refresh::TokenError>(())
    /// ```
    pub fn with_policy(source: impl TokenSource, policy: RefreshPolicy) -> Self {
        Self::builder(source).policy(policy).build()
    }

    /// Begins credentials that obtain their tokens from `source`.
    pub fn builder(source: impl TokenSource) -> CredentialsBuilder {
        CredentialsBuilder::new(source.boxed())
    }

    pub(super) fn from_parts(
        source: BoxTokenSource,
        store: Option<Store>,
        policy: RefreshPolicy,
    ) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(0);

        let id = IDS.fetch_add(1, Ordering::Relaxed);
        let seed = RandomState::new().hash_one(id);
        let info = source.info();
        let state =
            State::new(policy.timing, seed, store.is_some()).with_fresh_proof(info.fresh_proof);
        Self {
            shared: Arc::new(Shared {
                id,
                keeper: Keeper::new(
                    source,
                    store,
                    policy.timing.leeway(),
                    Arc::clone(&policy.clock),
                ),
                published: ArcSwapOption::empty(),
                #[expect(clippy::disallowed_types, reason = "the one lock that guards the state")]
                inner: std::sync::Mutex::new(Inner { state, gate: None, turn: Turn::default() }),
                policy,
                watch: info.watch,
                events: broadcast::Sender::new(event::CAPACITY),
                working: watch::Sender::new(0),
            }),
        }
    }

    /// Returns a valid token set. Obtains one first if necessary.
    ///
    /// The call belongs to no session: after a log-in or a log-out while it waits, it returns the tokens of the new session.
    ///
    /// # Errors
    ///
    /// The [`TokenError`] of the refresh. Also:
    ///
    /// - A [transient](TokenError::is_transient) error if no token set arrives within the policy's timeout.
    /// - A [misconfigured](TokenError::is_misconfigured) error if a refresh is needed and there is no tokio runtime, or if the source
    ///   itself calls this.
    ///
    /// # Panics
    ///
    /// If a refresh is needed and the runtime has no time driver (`enable_time`), like tokio's own timers.
    ///
    /// # Cancel safety
    ///
    /// Dropping this future does not stop the refresh. Its result is used.
    #[doc(alias = "token")]
    pub async fn tokens(&self) -> Result<TokenSet, TokenError> {
        if let Some(issued) = self.fresh() {
            return Ok(issued.tokens.clone());
        }
        self.wait_for(Want::Token).await
    }

    /// Returns the current token set without waiting and without starting a refresh.
    ///
    /// `None` if there is no token set, if it has expired, or if a server has rejected it and its replacement is in flight. A
    /// fresh token set is returned without taking a lock.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_refresh::TokenError> {
    /// use tower_refresh::{Credentials, StaticToken};
    ///
    /// let credentials = Credentials::new(StaticToken::new("sesame".parse()?));
    /// assert!(credentials.current().is_none());
    /// credentials.warm_up().await?;
    /// assert!(credentials.current().is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn current(&self) -> Option<TokenSet> {
        let issued = self.fresh().or_else(|| {
            let now = self.now();
            self.lock().state.current(now)
        });
        issued.map(|issued| issued.tokens.clone())
    }

    /// Obtains a newer token set than the current one.
    ///
    /// Joins a refresh that is in flight. A log-in while it waits counts as the newer token set. During the backoff after a failure,
    /// it returns the [remembered](TokenError::is_remembered) error and asks no source, with two exceptions: a source that is
    /// [misconfigured](TokenError::is_misconfigured), and a denied source that is asked again every five minutes ([`TokenError`]), are
    /// asked at once.
    ///
    /// # Errors
    ///
    /// As [`tokens`](Self::tokens).
    ///
    /// # Cancel safety
    ///
    /// As [`tokens`](Self::tokens).
    #[doc(alias("renew", "force"))]
    pub async fn refresh(&self) -> Result<TokenSet, TokenError> {
        let generation = self.lock().state.generation();
        self.wait_for(Want::NewerThan(generation)).await
    }

    pub(super) async fn wait_for(&self, want: Want) -> Result<TokenSet, TokenError> {
        match self.ask(want) {
            Answer::Use(issued) => Ok(issued.tokens.clone()),
            Answer::Wait(waiting) => waiting.await.map(|issued| issued.tokens.clone()),
            Answer::Refuse(error) => Err(error),
        }
    }

    /// Obtains the first token, for example at start-up rather than for the first request.
    ///
    /// Does nothing if there is a valid token.
    ///
    /// # Errors
    ///
    /// As [`tokens`](Self::tokens).
    ///
    /// # Cancel safety
    ///
    /// As [`tokens`](Self::tokens).
    #[doc(alias("prime", "preload"))]
    pub async fn warm_up(&self) -> Result<(), TokenError> {
        self.tokens().await.map(drop)
    }

    /// Replaces the current tokens, for example after the user has logged in.
    ///
    /// New requests use the token set. Requests of the session before are not sent with it: see [`Credentials`]. The result of a
    /// refresh in flight is not used, and remembered failures are forgotten. The log-in is recorded when that refresh has ended.
    ///
    /// # Errors
    ///
    /// - With a store, a [denied](TokenError::is_denied) error if the server has replaced this refresh token before. It is not stored,
    ///   because the store has its successor. The access token is used nevertheless. (A spent refresh token is not sent without
    ///   a store either: the next refresh is denied.)
    /// - With a store, the error of the store. The token set is used nevertheless, and saved later.
    /// - A [misconfigured](TokenError::is_misconfigured) error if there is no tokio runtime, or if the source itself calls this.
    ///   Nothing is replaced.
    /// - An [ambiguous](TokenError::is_ambiguous) error if the source panicked, or if the runtime was shut down or has no time
    ///   driver.
    ///
    /// # Cancel safety
    ///
    /// After the first poll, dropping this future does not stop it.
    #[doc(alias("replace", "set", "login"))]
    pub async fn log_in(&self, tokens: TokenSet) -> Result<(), TokenError> {
        self.adopt(Some(tokens)).await
    }

    /// Removes the tokens, for example after the user has logged out.
    ///
    /// Requests of this session that wait for a token fail. The result of a refresh in flight is not used. The log-out is recorded
    /// when that refresh has ended. A later request asks the source again: a source that has only a refresh token denies it.
    ///
    /// # Errors
    ///
    /// As [`log_in`](Self::log_in).
    ///
    /// # Cancel safety
    ///
    /// As [`log_in`](Self::log_in).
    #[doc(alias("forget", "clear", "logout"))]
    pub async fn log_out(&self) -> Result<(), TokenError> {
        self.adopt(None).await
    }

    async fn adopt(&self, tokens: Option<TokenSet>) -> Result<(), TokenError> {
        let runtime = self.runtime()?;
        self.refuse_recursion()?;
        let set = self.keeper().new_id();
        let (adoption, turn) = self.decide(
            |state, now| (state.adopt(now, set, tokens.clone()), None),
            |inner, adoption| (adoption, Arc::clone(&inner.turn)),
        );
        let told = flight::start_adoption(self, adoption, tokens, turn, &runtime);
        told.await.unwrap_or_else(|_| {
            Err(TokenError::ambiguous(
                "the source panicked or its runtime was shut down while it was notified of a log-in or log-out",
            ))
        })
    }

    /// Returns a snapshot of the current state.
    pub fn status(&self) -> Status {
        let now = self.now();
        let view = self.lock().state.view(now);
        let token = match &view.current {
            None => TokenStatus::Missing,
            Some(current) if current.is_expired(now) => TokenStatus::Expired,
            Some(_) if view.rejected => TokenStatus::Rejected,
            Some(current) if current.is_stale(now) => TokenStatus::Stale,
            Some(_) => TokenStatus::Fresh,
        };
        Status {
            token,
            generation: view.current.as_ref().map(|current| current.generation.0),
            usable_for: view.current.as_ref().and_then(|current| current.usable_for(now)),
            refresh_token_expires_at: view
                .current
                .as_ref()
                .and_then(|current| current.tokens.refresh_token_expires_at()),
            refreshing: view.in_flight,
            error: view.error,
            backoff: view.backoff,
            rejection_backoff: view.rejection_backoff,
        }
    }

    /// Subscribes to the events that follow.
    pub fn subscribe(&self) -> Events {
        Events::new(self.shared.events.subscribe())
    }

    /// Waits until no refresh is in flight and each log-in and log-out is recorded, and then saves unsaved tokens.
    ///
    /// Await it before the runtime ends, with a time limit of your own.
    ///
    /// # Errors
    ///
    /// - With a store, the error of a token set that still cannot be saved. It exists in memory only and is lost
    ///   when the program ends.
    /// - A [misconfigured](TokenError::is_misconfigured) error if a token source calls this, of these credentials or of others: it
    ///   would wait for its own end.
    /// - With a store, a misconfigured error if there is no tokio runtime, and an [ambiguous](TokenError::is_ambiguous) error if the
    ///   source panicked or the runtime was shut down.
    ///
    /// # Cancel safety
    ///
    /// Dropping this future changes nothing. A save that has begun is not stopped.
    pub async fn flush(&self) -> Result<(), TokenError> {
        // Also for other credentials: two sources that flush each other's credentials would wait forever.
        if FetchedFor::current().is_some() {
            return Err(TokenError::misconfigured(
                "`Credentials::flush` was called from within a token source, and would wait for its own end: call it where the program ends",
            ));
        }
        // The sender lives as long as `self`.
        let _ = self.shared.working.subscribe().wait_for(|working| *working == 0).await;
        if !self.keeper().has_store() {
            return Ok(());
        }
        let saved = flight::start_settling(self, &self.runtime()?);
        saved.await.unwrap_or_else(|_| {
            Err(TokenError::ambiguous(
                "the source panicked or its runtime was shut down while it saved tokens",
            ))
        })
    }

    // ===== for requests =====

    /// Returns the fresh token, if there is one. Takes no lock and allocates nothing.
    pub(crate) fn fresh(&self) -> Option<Arc<Issued>> {
        let published = self.shared.published.load();
        let published = published.as_ref()?;
        (!published.until.has_come(self.now())).then(|| Arc::clone(&published.issued))
    }

    /// Returns the current token unless it has expired, fresh or stale.
    pub(super) fn usable(&self) -> Option<Arc<Issued>> {
        let now = self.now();
        self.lock().state.usable(now)
    }

    /// Returns whether a token and its waiter are of the current session.
    pub(crate) fn is_for(&self, token: &Issued, want: &Want) -> bool {
        let state = &self.lock().state;
        token.session() == state.session() && !want.is_over(state)
    }

    /// Returns the number of the current session.
    pub(super) fn epoch(&self) -> u64 {
        self.lock().state.epoch()
    }

    /// Answers a request that obtained a token, and then readied its service, perhaps for a long time.
    ///
    /// With `may_have_expired`, a token is used although it has expired meanwhile: a token without a lifetime serves the requests that
    /// waited for it.
    pub(crate) fn recheck(&self, token: Arc<Issued>, may_have_expired: bool) -> Answer {
        if let Some(fresh) = self.fresh().filter(|fresh| fresh.session() == token.session()) {
            return Answer::Use(fresh);
        }
        let want = Want::TokenOf(Some(token.session()));
        let may_be_sent = may_have_expired || !token.is_expired(self.now());
        if may_be_sent && self.is_for(&token, &want) {
            return Answer::Use(token);
        }
        self.ask(want)
    }

    /// Answers a wish for a token, and starts a flight if one is needed.
    pub(crate) fn ask(&self, mut want: Want) -> Answer {
        self.notice_change(&want);
        let runtime = self.runtime().and_then(|runtime| self.refuse_recursion().map(|()| runtime));
        let (decision, gate, turn) = self.decide(
            |state, now| {
                if let Want::TokenOf(session @ None) = &mut want {
                    *session = Some(state.session_of_new_request(now));
                }
                let decision = match &want {
                    want if want.is_over(state) => Decision::Refuse(session::is_over()),
                    Want::Token => state.token_for_application(now),
                    Want::TokenOf(_) => state.token(now),
                    Want::NewerThanRejected { generation, target, .. } => {
                        state.rejected(now, *generation, *target)
                    }
                    Want::NewerThan(generation) => state.forced(now, *generation),
                };
                let decision = match (decision, &runtime) {
                    (Decision::Start(departure), Err(error)) => {
                        state.call_off(&departure);
                        Decision::Refuse(error.clone())
                    }
                    // The token is used while it lasts.
                    (Decision::UseAndStart(issued, departure), Err(_)) => {
                        state.call_off(&departure);
                        Decision::Use(issued)
                    }
                    (decision, _) => decision,
                };
                (decision, None)
            },
            |inner, decision| {
                (decision, inner.gate.as_ref().map(Gate::join), Arc::clone(&inner.turn))
            },
        );

        let (departure, answer) = match decision {
            Decision::Use(issued) => return Answer::Use(issued),
            Decision::Refuse(error) => return Answer::Refuse(error),
            Decision::UseAndStart(issued, departure) => (Some(departure), Some(issued)),
            Decision::Start(departure) => (Some(departure), None),
            Decision::Join => (None, None),
        };
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return Answer::Refuse(error),
        };
        if let Some(departure) = departure {
            let challenge = match &want {
                Want::NewerThanRejected { challenge, .. } => {
                    // Only for the token that is refreshed now, not for the rejection of an older one.
                    challenge.clone().filter(|_| departure.wish.cause == Cause::Rejected)
                }
                _ => None,
            };
            flight::start(self, departure, challenge, turn, &runtime);
        }
        match (answer, gate) {
            (Some(issued), _) => Answer::Use(issued),
            (None, Some(gate)) => Answer::Wait(Waiting::new(self.clone(), want, gate)),
            // There is a gate whenever there is a flight.
            (None, None) => Answer::Refuse(TokenError::transient("the refresh is gone")),
        }
    }

    /// Ends the backoffs if the source's input has changed since a refresh failed, or since its token was rejected.
    fn notice_change(&self, want: &Want) {
        if let Some(watch) = &self.shared.watch
            && (matches!(want, Want::NewerThanRejected { .. }) || self.lock().state.has_failed())
            && watch.has_changed()
        {
            self.decide(|state, _| (state.source_changed(), None), |_, ()| ());
        }
    }

    /// Returns a timer, or none if there is no runtime. The caller's runtime comes before the policy's, since it is being polled.
    pub(crate) fn sleep(&self, duration: Duration) -> Option<Pin<Box<Sleep>>> {
        self.timer(duration).map(Box::pin)
    }

    pub(super) fn timer(&self, duration: Duration) -> Option<Sleep> {
        let runtime = Handle::try_current().or_else(|_| self.runtime()).ok()?;
        let _context = runtime.enter();
        Some(tokio::time::sleep(duration))
    }

    /// A response accepted the token.
    pub(crate) fn accepted(&self, token: &Issued, target: Target) {
        if token.accepted(target) {
            self.decide(
                |state, now| (state.accepted(now, token.generation, target), None),
                |_, ()| (),
            );
        }
    }

    /// The response to a second attempt accepted the token.
    pub(crate) fn retry_accepted(&self, token: &Issued, target: Target) {
        token.accepted(target);
        self.decide(|state, now| (state.retry_accepted(now, target), None), |_, ()| ());
    }

    /// The response to a second attempt rejected the token as well.
    pub(crate) fn retry_rejected(&self, token: &Issued, target: Target) {
        self.decide(
            |state, now| (state.retry_rejected(now, token.generation, target), None),
            |_, ()| (),
        );
    }

    // ===== for flights =====

    pub(super) fn wants(&self, id: FlightId) -> bool {
        self.lock().state.wants(id)
    }

    pub(super) fn land(&self, departure: &Departure, landed: Landed, notes: Notes) {
        self.decide(
            |state, now| {
                let outcome = state.land(now, departure, landed, notes);
                ((), outcome.map(Outcome::Landed))
            },
            |_, ()| (),
        );
    }

    pub(super) fn report(&self, event: Event) {
        event.trace();
        // To have no subscriber is not an error.
        let _ = self.shared.events.send(event);
    }

    /// Saves what is in memory only, and reports that it is saved.
    pub(super) async fn save(&self) -> Result<(), TokenError> {
        let is_saved = self.keeper().save().await?;
        self.decide(|state, now| (state.saved(now, Ok(is_saved)), None), |_, ()| ());
        Ok(())
    }

    pub(super) fn has_last_word(&self, adoption: Adoption) -> bool {
        self.lock().state.has_last_word(adoption)
    }

    /// Takes the source from a flight that has held it for too long.
    pub(super) fn take_turn(&self) -> Turn {
        self.decide(|state, _| (state.give_up_on_turn(), None), |inner, ()| Arc::clone(&inner.turn))
    }

    pub(super) fn adopted(&self, adoption: Adoption) {
        self.decide(|state, _| (state.adopted(adoption), None), |_, ()| ());
    }

    pub(super) fn working(&self, change: isize) {
        self.shared.working.send_modify(|working| *working = working.saturating_add_signed(change));
    }

    // ===== the lock =====

    /// Decides under the lock, and acts after it.
    ///
    /// `decide` also returns the outcome for the waiters of a flight that is over. `take` then picks the values that the caller needs
    /// from the new state.
    pub(super) fn decide<T, U>(
        &self,
        decide: impl FnOnce(&mut State, Timestamp) -> (T, Option<Outcome>),
        take: impl FnOnce(&Inner, T) -> U,
    ) -> U {
        let now = self.now();
        let (taken, gate, outcome, news, discarded) = {
            let mut inner = self.lock();
            let (decision, outcome) = decide(&mut inner.state, now);
            if inner.state.take_lost() {
                // The lost flight keeps the old turn, and no other flight waits for it.
                inner.turn = Turn::default();
            }
            let id = inner.state.flight_id();
            let gate = if inner.gate.as_ref().map(|gate| gate.id) == id {
                None
            } else {
                std::mem::replace(&mut inner.gate, id.map(Gate::new))
            };
            self.publish(&inner.state, now);
            let (news, discarded) = (inner.state.take_news(), inner.state.take_discarded());
            (take(&inner, decision), gate, outcome, news, discarded)
        };
        drop(discarded);
        // Before the waiters are woken: a request that continues finds the events of the flight that it waited for.
        for event in &news {
            // To have no subscriber is not an error.
            let _ = self.shared.events.send(event.clone());
        }
        if let Some(gate) = gate {
            gate.open(outcome.unwrap_or(Outcome::AskAgain));
        }
        // Last: a `tracing` subscriber is code of others, and may be slow or panic.
        for event in news {
            event.trace();
        }
        taken
    }

    pub(super) fn publish(&self, state: &State, now: Timestamp) {
        let published = self.shared.published.load();
        // After a failure, each request checks the source's input for a change.
        let watches = self.shared.watch.is_some() && state.has_failed();
        let next = state.published(now).filter(|_| !watches);
        let unchanged = match (&*published, &next) {
            (None, None) => true,
            (Some(old), Some((issued, until))) => {
                Arc::ptr_eq(&old.issued, issued) && old.until == *until
            }
            _ => false,
        };
        if !unchanged {
            let next = next
                .map(|(issued, until)| Arc::new(Published { issued: Arc::clone(issued), until }));
            self.shared.published.store(next);
        }
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // Nothing that can panic runs under the lock, and the state is consistent between two decisions.
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.shared.policy.clock.now().bounded()
    }

    pub(super) fn id(&self) -> u64 {
        self.shared.id
    }

    pub(super) fn keeper(&self) -> &Keeper {
        &self.shared.keeper
    }

    pub(super) fn timeout(&self) -> Duration {
        self.shared.policy.timing.timeout
    }

    /// Returns the runtime that refreshes run on.
    pub(super) fn runtime(&self) -> Result<Handle, TokenError> {
        if let Some(runtime) = &self.shared.policy.runtime {
            return Ok(runtime.clone());
        }
        Handle::try_current().map_err(|_| {
            TokenError::misconfigured(
                "a refresh needs a tokio runtime: call from within one, or name one with RefreshPolicy::runtime",
            )
        })
    }

    pub(super) fn refuse_recursion(&self) -> Result<(), TokenError> {
        match FetchedFor::current_includes(self.shared.id) {
            true => Err(recursion()),
            false => Ok(()),
        }
    }

    /// Returns whether these are the extensions of a token request for these credentials, in any task.
    pub(crate) fn is_own_request(&self, extensions: &Extensions) -> bool {
        extensions.get::<FetchedFor>().is_some_and(|ids| ids.includes(self.shared.id))
    }
}

/// Returns the error for a token request that would wait for the token that it is to fetch.
pub(crate) fn recursion() -> TokenError {
    TokenError::misconfigured(
        "the token source waits for its own token: its HTTP client must not pass through the RefreshLayer that it feeds",
    )
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("policy", &self.shared.policy).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::mpsc;
    use std::thread;

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::Full;
    use tower::{ServiceBuilder, ServiceExt as _};

    use super::*;
    use crate::{RefreshLayer, Renewal};

    /// E2: nor does its acceptance.
    #[test]
    fn request_with_a_fresh_token_takes_no_lock() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let credentials = Credentials::new(|_: Renewal| async { TokenSet::bearer("t") });
        runtime.block_on(credentials.warm_up()).unwrap();
        let layer = RefreshLayer::new(credentials.clone()).origin("https://api.test").unwrap();
        let client =
            ServiceBuilder::new().layer(layer).service_fn(|_: Request<Full<Bytes>>| async {
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
            });

        let locked = credentials.lock();
        let (done, is_done) = mpsc::channel();
        let sender = thread::spawn(move || {
            let request = Request::get("https://api.test/").body(Full::default()).unwrap();
            let answer = runtime.block_on(client.oneshot(request));
            done.send(answer.is_ok())
        });
        assert_eq!(is_done.recv_timeout(Duration::from_secs(10)), Ok(true));
        drop(locked);
        sender.join().unwrap().unwrap();
    }

    #[test]
    fn gate_exists_exactly_while_a_flight_does() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let credentials = Credentials::new(|_: Renewal| async { TokenSet::bearer("t") });
        let gate_is_right = || {
            let inner = credentials.lock();
            assert_eq!(inner.gate.as_ref().map(|gate| gate.id), inner.state.flight_id());
            inner.gate.is_some()
        };
        runtime.block_on(async {
            assert!(!gate_is_right());
            let Answer::Wait(waiting) = credentials.ask(Want::Token) else {
                panic!("no token was requested before")
            };
            assert!(gate_is_right());
            waiting.await.unwrap();
            assert!(!gate_is_right());
            credentials.log_out().await.unwrap();
            assert!(!gate_is_right());
        });
    }
}
