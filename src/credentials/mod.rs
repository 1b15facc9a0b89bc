//! Who holds the token, and who fetches the next.

mod event;
mod evidence;
mod flight;
mod generation;
mod jitter;
mod policy;
#[cfg(feature = "serde")]
mod seconds;
mod session;
mod state;
mod status;

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

pub use self::event::{Event, Events};
pub(crate) use self::flight::{Answer, Waiting, Want};
use self::flight::{Gate, Outcome, Turn};
pub use self::policy::RefreshPolicy;
pub(crate) use self::state::Issued;
use self::state::{Adoption, Decision, Departure, FlightId, State};
pub use self::status::{Status, TokenStatus};
use crate::clock::{Deadline, Timestamp};
use crate::error::TokenError;
use crate::source::{BoxTokenSource, Cause, FetchedFor, Notice, TokenSource, Watch};
use crate::target::Target;
use crate::token::TokenSet;

/// The shared handle: the current token set, and who is fetching the next.
///
/// Clones share everything. One of them can serve several layers and clients, so that all of them together renew once:
///
/// ```
/// use tower_refresh::{Credentials, RefreshLayer, StaticToken};
///
/// let credentials = Credentials::new(StaticToken::new("sesame".parse()?));
/// let api = RefreshLayer::with_credentials(credentials.clone()).origin("https://api.example.com");
/// let files = RefreshLayer::with_credentials(credentials.clone()).origin("https://files.example.com");
/// # Ok::<(), tower_refresh::TokenError>(())
/// ```
///
/// # What is promised
///
/// - One refresh at a time, however many requests want one. All who wait share its outcome, be it a token or an error.
///   Only one that has not ended after ten timeouts is given up on; if its answer comes after all, it is used.
/// - A refresh runs in a task of its own. Dropping those who wait does not stop it, and its answer is used.
/// - A token that still works is used until it expires, whatever happens to its renewal.
/// - A request belongs to one session. After a [log-in](Self::replace) or a [log-out](Self::forget) it is not sent, or sent
///   again, with the token of the next session: the answer is the rejection, or a [denied](TokenError::is_denied) error if the
///   request was never sent. A request that is made while there is no session, because nothing has been obtained since the
///   start or the last log-out, or because the token has expired and the grant is denied, waits for the next one.
/// - An idle program refreshes nothing: there is no background loop.
///
/// # Before the runtime ends
///
/// Await [`flush`](Self::flush): a refresh that is under way carries the only copy of the next refresh token.
///
/// # Fork
///
/// A process that forks after the first refresh has two owners of one refresh token; that is not supported.
pub struct Credentials<S = BoxTokenSource> {
    shared: Arc<Shared<S>>,
}

/// Readers of a fresh token look at `published` and nothing else. Everything else is decided by the state, under the
/// lock, and done after it: no await, spawn, send, wake, clock or user code while it is held.
struct Shared<S> {
    id: u64,
    source: S,
    policy: RefreshPolicy,
    /// Whether the source keeps tokens, some of which it may have been unable to save.
    keeps: bool,
    /// Notices a change of the source's input. Not to be called under the lock.
    watch: Option<Watch>,
    /// Written only under the lock, so that it never goes back in time.
    published: ArcSwapOption<Published>,
    #[expect(clippy::disallowed_types, reason = "the one lock that guards the state")]
    inner: std::sync::Mutex<Inner>,
    events: broadcast::Sender<Event>,
    /// How many flights and adoptions are under way, those that nobody waits for included.
    working: watch::Sender<usize>,
}

struct Inner {
    state: State,
    /// There is a gate exactly while the state has a flight or an adoption, and it is of the same id.
    gate: Option<Gate>,
    turn: Turn,
}

/// The token that requests use without asking.
struct Published {
    issued: Arc<Issued>,
    until: Deadline,
}

impl<S: TokenSource> Credentials<S> {
    /// Makes credentials that obtain their tokens from `source`, with the default policy.
    ///
    /// Nothing is fetched until the first token is wanted.
    pub fn new(source: S) -> Self {
        Self::with_policy(source, RefreshPolicy::default())
    }

    /// Makes credentials that obtain their tokens from `source`.
    pub fn with_policy(source: S, policy: RefreshPolicy) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(0);

        let id = IDS.fetch_add(1, Ordering::Relaxed);
        let seed = RandomState::new().hash_one(id);
        let info = source.info();
        let keeps = info.keeps;
        Self {
            shared: Arc::new(Shared {
                id,
                source,
                published: ArcSwapOption::empty(),
                #[expect(clippy::disallowed_types, reason = "the one lock that guards the state")]
                inner: std::sync::Mutex::new(Inner {
                    state: State::new(policy.timing, seed, keeps)
                        .with_fresh_proof(info.fresh_proof),
                    gate: None,
                    turn: Turn::default(),
                }),
                policy,
                keeps,
                watch: info.watch,
                events: broadcast::Sender::new(event::CAPACITY),
                working: watch::Sender::new(0),
            }),
        }
    }

    /// Returns the source.
    pub fn source(&self) -> &S {
        &self.shared.source
    }

    /// Returns a token set that may be used now, and obtains one if there is none.
    ///
    /// This is the application's own call, which belongs to no session: if there is a log-in or a log-out while it waits, it
    /// returns the tokens of the new session.
    ///
    /// # Errors
    ///
    /// Why there is none; see [`TokenError`]. A [transient](TokenError::is_transient) error if there is none within the
    /// policy's timeout. A [misconfigured](TokenError::is_misconfigured) one if a refresh is needed and there is no
    /// tokio runtime, or if it is called from within the source itself.
    ///
    /// # Panics
    ///
    /// If a refresh is needed and the runtime has no time driver (`enable_time`), as tokio's own timers do.
    ///
    /// # Cancel safety
    ///
    /// Dropping this future does not stop the refresh; its answer is used.
    pub async fn token(&self) -> Result<TokenSet, TokenError> {
        if let Some(issued) = self.fresh() {
            return Ok(issued.tokens.clone());
        }
        self.wait_for(Want::Token).await
    }

    /// Obtains a newer token set than the current one.
    ///
    /// A refresh that is under way is joined, and a log-in meanwhile brings the newer token set. After a failure the source is
    /// left alone for the backoff of the policy, and the [remembered](TokenError::is_remembered) error is returned. A source that is
    /// [misconfigured](TokenError::is_misconfigured) is asked at once, and so is one that was denied and is
    /// asked again every five minutes ([`TokenError`]).
    ///
    /// # Errors
    ///
    /// As [`token`](Self::token).
    ///
    /// # Cancel safety
    ///
    /// As [`token`](Self::token).
    pub async fn renew(&self) -> Result<TokenSet, TokenError> {
        let generation = self.lock().state.generation();
        self.wait_for(Want::NewerThan(generation)).await
    }

    async fn wait_for(&self, want: Want) -> Result<TokenSet, TokenError> {
        match self.ask(want) {
            Answer::Use(issued) => Ok(issued.tokens.clone()),
            Answer::Wait(waiting) => waiting.await.map(|issued| issued.tokens.clone()),
            Answer::Refuse(error) => Err(error),
        }
    }

    /// Obtains the first token, at start-up rather than at the first request.
    ///
    /// Does nothing if there is a token that may be used.
    ///
    /// # Errors
    ///
    /// As [`token`](Self::token).
    ///
    /// # Cancel safety
    ///
    /// As [`token`](Self::token).
    pub async fn prime(&self) -> Result<(), TokenError> {
        self.token().await.map(drop)
    }

    /// Uses this token set from now on: the application has logged in itself.
    ///
    /// Requests made from now on use it. Those of the last session are not sent with it: see [`Credentials`]. The result of a
    /// refresh that is under way is not used, and remembered failures are forgotten. The source is notified once
    /// the refresh has ended.
    ///
    /// # Errors
    ///
    /// What the source's [`adopt`](TokenSource::adopt) says; the token set is used all the same. A
    /// [misconfigured](TokenError::is_misconfigured) error, and nothing happens, if there is no tokio runtime or if it
    /// is called from within the source itself. An [ambiguous](TokenError::is_ambiguous) one if the source panicked, or the
    /// runtime was shut down or has no time driver.
    ///
    /// # Cancel safety
    ///
    /// Once polled, dropping this future does not stop it.
    pub async fn replace(&self, tokens: impl Into<TokenSet>) -> Result<(), TokenError> {
        self.adopt(Some(tokens.into().brought())).await
    }

    /// Forgets the tokens: the application has logged out.
    ///
    /// The requests of this session that have no token yet fail. The result of a refresh that is under way is not used. The
    /// source is notified once the refresh has ended. A request that is made afterwards asks the source anew: one that has
    /// nothing but a refresh token denies it.
    ///
    /// # Errors
    ///
    /// As [`replace`](Self::replace).
    ///
    /// # Cancel safety
    ///
    /// As [`replace`](Self::replace).
    pub async fn forget(&self) -> Result<(), TokenError> {
        self.adopt(None).await
    }

    async fn adopt(&self, tokens: Option<TokenSet>) -> Result<(), TokenError> {
        let runtime = self.runtime()?;
        self.refuse_recursion()?;
        let (adoption, turn) = self.decide(
            |state, now| (state.adopt(now, tokens.clone()), None),
            |inner, adoption| (adoption, Arc::clone(&inner.turn)),
        );
        let told = flight::start_adoption(self, adoption, tokens, turn, &runtime);
        told.await.unwrap_or_else(|_| {
            Err(TokenError::ambiguous(
                "the source panicked or its runtime was shut down while it was told",
            ))
        })
    }

    /// Returns what the credentials are up to.
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

    /// Returns the events from now on.
    pub fn subscribe(&self) -> Events {
        Events::new(self.shared.events.subscribe())
    }

    /// Waits until no refresh is under way, the source was told everything, and what could not be saved before is saved.
    ///
    /// Await it before the runtime ends, within a time limit of your own.
    ///
    /// # Errors
    ///
    /// What a [store](TokenSource::settle) cannot save even now, and will be lost with the program: it is in memory only. A
    /// source without a store saves nothing. A [misconfigured](TokenError::is_misconfigured) error if it is called from within
    /// a token source, of these credentials or of others: it would wait for its own end. With a store, also a misconfigured
    /// error if there is no tokio runtime, and an [ambiguous](TokenError::is_ambiguous) one if the source panicked or the
    /// runtime was shut down.
    ///
    /// # Cancel safety
    ///
    /// Dropping this future changes nothing. A save that it has begun goes on.
    pub async fn flush(&self) -> Result<(), TokenError> {
        // For any credentials: two sources that flush each other's would wait forever, and neither started the other.
        if FetchedFor::current().is_some() {
            return Err(TokenError::misconfigured(
                "`Credentials::flush` was called from within a token source, and would wait for its own end: call it where the program ends",
            ));
        }
        // The sender lives as long as `self`.
        let _ = self.shared.working.subscribe().wait_for(|working| *working == 0).await;
        if !self.shared.keeps {
            return Ok(());
        }
        let saved = flight::start_settling(self, &self.runtime()?);
        saved.await.unwrap_or_else(|_| {
            Err(TokenError::ambiguous(
                "the source panicked or its runtime was shut down while it saved what was unsaved",
            ))
        })
    }

    // ===== for requests =====

    /// Returns the token that may be used without asking. Takes no lock and allocates nothing.
    pub(crate) fn fresh(&self) -> Option<Arc<Issued>> {
        let published = self.shared.published.load();
        let published = published.as_ref()?;
        (!published.until.has_come(self.now())).then(|| Arc::clone(&published.issued))
    }

    /// Returns the current token unless it has expired, also if a refresh is due.
    fn usable(&self) -> Option<Arc<Issued>> {
        let now = self.now();
        self.lock().state.usable(now)
    }

    /// Returns whether a token is of the current session, and its waiter is as well.
    pub(crate) fn is_for(&self, token: &Issued, want: &Want) -> bool {
        let state = &self.lock().state;
        token.session() == state.session() && !want.is_over(state)
    }

    /// Returns the number of the current session.
    fn epoch(&self) -> u64 {
        self.lock().state.epoch()
    }

    /// Answers a request that obtained a token, and then readied its service, perhaps for a long time.
    ///
    /// A token that has expired since may be sent all the same: one of no lifetime serves those who waited for it.
    pub(crate) fn recheck(&self, token: Arc<Issued>, may_have_expired: bool) -> Answer<S> {
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

    /// Answers somebody who wants a token, and starts a flight if that is what it takes.
    pub(crate) fn ask(&self, mut want: Want) -> Answer<S> {
        self.notice_change(&want);
        let runtime = self.runtime().and_then(|runtime| self.refuse_recursion().map(|()| runtime));
        let (decision, gate, turn) = self.decide(
            |state, now| {
                if let Want::TokenOf(session @ None) = &mut want {
                    *session = Some(state.session_of_new_request(now));
                }
                let decision = match &want {
                    want if want.is_over(state) => Decision::Refuse(session::is_over()),
                    Want::Token | Want::TokenOf(_) => state.token(now),
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
                    // The token is used all the same, while it lasts.
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
                    // An older token's rejection says nothing about the one that is renewed now.
                    challenge.clone().filter(|_| departure.cause == Cause::Rejected)
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

    /// Returns a timer, on the runtime of whoever asks, which is polled since it asks, or else on the policy's; none if
    /// there is no runtime.
    pub(crate) fn sleep(&self, duration: Duration) -> Option<Pin<Box<Sleep>>> {
        self.timer(duration).map(Box::pin)
    }

    fn timer(&self, duration: Duration) -> Option<Sleep> {
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

    fn wants(&self, id: FlightId) -> bool {
        self.lock().state.wants(id)
    }

    fn land(&self, departure: &Departure, asked: Timestamp, result: Result<TokenSet, TokenError>) {
        self.decide(
            |state, now| {
                let outcome = state.land(now, departure, asked, result);
                ((), outcome.map(Outcome::Landed))
            },
            |_, ()| (),
        );
    }

    /// Tells those who watch what a source has to say besides its answer.
    fn tell(&self, notice: Notice) {
        let event = Event::from(notice);
        event.trace();
        // That nobody listens is not an error.
        let _ = self.shared.events.send(event);
    }

    fn has_last_word(&self, adoption: Adoption) -> bool {
        self.lock().state.has_last_word(adoption)
    }

    /// Takes the source from whoever has held it for too long.
    fn take_turn(&self) -> Turn {
        self.decide(|state, _| (state.give_up_on_turn(), None), |inner, ()| Arc::clone(&inner.turn))
    }

    fn adopted(&self, adoption: Adoption) {
        self.decide(|state, _| (state.adopted(adoption), None), |_, ()| ());
    }

    fn working(&self, change: isize) {
        self.shared.working.send_modify(|working| *working = working.saturating_add_signed(change));
    }

    // ===== the lock =====

    /// Decides under the lock, and acts after it.
    ///
    /// `decide` also returns what those who waited so far are told, if the flight that they joined is over.
    /// `take` then picks what the caller needs from what the decision led to.
    fn decide<T, U>(
        &self,
        decide: impl FnOnce(&mut State, Timestamp) -> (T, Option<Outcome>),
        take: impl FnOnce(&Inner, T) -> U,
    ) -> U {
        let now = self.now();
        let (taken, gate, outcome, news, discarded) = {
            let mut inner = self.lock();
            let (decision, outcome) = decide(&mut inner.state, now);
            if inner.state.take_lost() {
                // The lost flight keeps the old turn; nobody is to wait for that.
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
        // Before the waiters: the requests that continue find the events of what they waited for.
        for event in &news {
            // To have no subscriber is not an error.
            let _ = self.shared.events.send(event.clone());
        }
        if let Some(gate) = gate {
            gate.open(outcome.unwrap_or(Outcome::AskAgain));
        }
        // Last, since a `tracing` subscriber is code of others that may be slow or panic.
        for event in news {
            event.trace();
        }
        taken
    }

    fn publish(&self, state: &State, now: Timestamp) {
        let published = self.shared.published.load();
        // After a failure, requests check the source's input for a change.
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

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // Nothing that can panic runs under it; were it so, the state would still be whole between two decisions.
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        self.shared.policy.clock.now().bounded()
    }

    fn id(&self) -> u64 {
        self.shared.id
    }

    fn timeout(&self) -> Duration {
        self.shared.policy.timing.timeout
    }

    /// The runtime that refreshes run on.
    fn runtime(&self) -> Result<Handle, TokenError> {
        if let Some(runtime) = &self.shared.policy.runtime {
            return Ok(runtime.clone());
        }
        Handle::try_current().map_err(|_| {
            TokenError::misconfigured(
                "a refresh needs a tokio runtime: call from within one, or name one with RefreshPolicy::runtime",
            )
        })
    }

    fn refuse_recursion(&self) -> Result<(), TokenError> {
        match FetchedFor::current_includes(self.shared.id) {
            true => Err(recursion()),
            false => Ok(()),
        }
    }

    /// Returns whether these are the extensions of a token request that is made for these credentials, in any task.
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

impl<S> Clone for Credentials<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<S> fmt::Debug for Credentials<S> {
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
    fn a_request_with_a_fresh_token_takes_no_lock() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let credentials = Credentials::new(|_: Renewal| async { TokenSet::bearer("t") });
        runtime.block_on(credentials.prime()).unwrap();
        let layer = RefreshLayer::with_credentials(credentials.clone()).origin("https://api.test");
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
    fn there_is_a_gate_exactly_while_there_is_a_flight() {
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
                panic!("there is no token yet")
            };
            assert!(gate_is_right());
            waiting.await.unwrap();
            assert!(!gate_is_right());
            credentials.forget().await.unwrap();
            assert!(!gate_is_right());
        });
    }
}
