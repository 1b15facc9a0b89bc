//! The handle that all users of one grant share: its state, and the lock around it.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::Extensions;
use tokio::runtime::Handle;
use tokio::sync::broadcast;
use tokio::time::Sleep;

use super::backoff::Setup;
use super::event::{self, Event, Events};
use super::evidence::Witness;
use super::generation::Generation;
use super::issued::Issued;
use super::log::{self, Log, Occasion, Subject};
use super::member::Member;
use super::policy::RefreshPolicy;
use super::state::{Effects, State};
use super::status::Status;
#[cfg(feature = "oauth2")]
use super::wait::Want;
use super::work::Work;
use crate::classify::Rejection;
use crate::clock::Timestamp;
use crate::error::TokenError;
use crate::grant::{Keeper, Store};
use crate::lock::Lock;
use crate::metrics::{Metrics, Standing};
use crate::source::{BoxTokenSource, FetchedFor, TokenSource as _, Watch};
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
///   was never sent. A request that is made while there is no session belongs to the next one: the source is asked, and the request
///   fails if it has no token. There is no session before the first token, after a log-out, and after the token has expired and
///   the grant is denied.
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
    pub(super) shared: Arc<Shared>,
}

/// Readers of a fresh token read `published` and nothing else. All other decisions are made by the state under the lock, and carried
/// out after the lock is released: no await, spawn, send, wake, clock or user code while it is held.
pub(super) struct Shared {
    pub(super) id: u64,
    /// The name that the program has given, or that of the key in a pool.
    name: Arc<str>,
    pub(super) keeper: Keeper,
    /// Boxed, since most credentials have none.
    rare: Option<Box<Rare>>,
    /// The token that requests use without the lock. Written only under the lock, so that it never becomes older.
    published: ArcSwapOption<Issued>,
    /// The acceptances that requests note without the lock.
    witness: Arc<Witness>,
    /// The one lock that guards the state.
    state: Lock<State>,
    /// Set if the credentials belong to a pool.
    pub(super) member: Option<Box<Member>>,
    /// Made for the first subscriber. The buffer would be most of the memory of idle credentials.
    events: ArcSwapOption<broadcast::Sender<Event>>,
    pub(super) log: Log,
    /// The flights and adoptions that have not ended.
    pub(super) work: Work,
    standing: Standing,
}

/// The settings that few credentials have.
struct Rare {
    runtime: Option<Handle>,
    /// Detects a change of the source's input. Must not be called under the lock.
    watch: Option<Watch>,
}

impl Rare {
    fn new(runtime: Option<Handle>, watch: Option<Watch>) -> Option<Box<Self>> {
        let is_set = runtime.is_some() || watch.is_some();
        is_set.then(|| Box::new(Self { runtime, watch }))
    }
}

impl Shared {
    fn runtime(&self) -> Option<Handle> {
        self.rare.as_ref()?.runtime.clone()
    }

    fn watch(&self) -> Option<&Watch> {
        self.rare.as_ref()?.watch.as_ref()
    }
}

impl Credentials {
    pub(super) fn from_parts(
        source: BoxTokenSource,
        name: Arc<str>,
        store: Option<Store>,
        policy: RefreshPolicy,
        member: Option<Box<Member>>,
    ) -> Self {
        let id = member.as_ref().map_or_else(Self::new_id, |member| member.id);
        let info = source.info();
        let setup = Setup {
            has_store: store.is_some(),
            has_fresh_proof: info.fresh_proof,
            spends: !info.keeps_refresh_token && !info.sends_no_refresh_token,
        };
        let RefreshPolicy { timing, runtime, clock } = policy;
        let metrics = member.as_ref().map(|member| member.metrics().clone());
        let metrics = metrics.unwrap_or_else(|| Metrics::new(Arc::clone(&name)));
        let measured = |Store { backing, name, lock_timeout, goes_on }| {
            let backing = metrics.measured(backing, &clock);
            Store { backing, name, lock_timeout, goes_on }
        };
        let store = store.map(measured);
        let state = State::new(timing, RandomState::new().hash_one(id), setup);
        Self {
            shared: Arc::new(Shared {
                id,
                name,
                keeper: Keeper::new(source, store, clock),
                rare: Rare::new(runtime, info.watch),
                published: ArcSwapOption::empty(),
                witness: state.witness(),
                state: Lock::new(state),
                member,
                events: ArcSwapOption::empty(),
                log: Log::default(),
                work: Work::default(),
                standing: Standing::new(metrics),
            }),
        }
    }

    pub(super) fn new_id() -> u64 {
        static IDS: AtomicU64 = AtomicU64::new(0);

        IDS.fetch_add(1, Ordering::Relaxed)
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
        self.with_fresh(|issued| issued.tokens.clone()).or_else(|| {
            let now = self.now();
            self.lock().current(now).map(|issued| issued.tokens.clone())
        })
    }

    /// Returns a snapshot of the current state.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::{Credentials, StaticToken, TokenStatus};
    ///
    /// let credentials = Credentials::new(StaticToken::new("sesame".parse()?));
    /// assert_eq!(credentials.status().token, TokenStatus::Missing);
    /// # Ok::<(), tower_refresh::TokenError>(())
    /// ```
    pub fn status(&self) -> Status {
        let now = self.now();
        let status = self.lock().status(now);
        Status { unsaved: !self.is_saved(), ..status }
    }

    /// Returns the [name](crate::CredentialsBuilder::name) of the credentials, or the name of their key in a pool. Empty by default.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::{Credentials, StaticToken};
    ///
    /// let source = StaticToken::new("sesame".parse()?);
    /// let credentials = Credentials::builder(source).name("billing").build();
    /// assert_eq!(credentials.name(), "billing");
    /// # Ok::<(), tower_refresh::TokenError>(())
    /// ```
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Subscribes to the events that follow.
    pub fn subscribe(&self) -> Events {
        let new = Arc::new(broadcast::Sender::new(event::CAPACITY));
        let before = self.shared.events.compare_and_swap(&None::<Arc<_>>, Some(Arc::clone(&new)));
        Events::new(before.as_ref().unwrap_or(&new).subscribe())
    }

    // ===== for requests =====

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.shared.standing.metrics
    }

    /// Lends the fresh token, if there is one. Takes no lock, allocates nothing, and counts no reference, since all threads that send
    /// requests would write the count.
    pub(crate) fn with_fresh<T>(&self, borrow: impl FnOnce(&Arc<Issued>) -> T) -> Option<T> {
        let published = self.shared.published.load();
        let issued = published.as_ref()?;
        (!issued.quiet_until.get().has_come(self.now())).then(|| borrow(issued))
    }

    /// A response accepted the token of this generation.
    pub(crate) fn accepted_at(&self, generation: Generation, target: Target) {
        if self.shared.witness.accepted(generation, target) {
            self.decide(|state, now| state.accepted(now, generation, target));
        }
    }

    /// Logs that a response rejected the token of this generation.
    pub(crate) fn log_rejection(&self, generation: Generation, rejection: &Rejection) {
        log::rejected(self.name(), generation, rejection);
    }

    /// Logs that a challenge asks for more than the token of this generation grants, if it does.
    #[cold]
    pub(crate) fn log_insufficient(&self, generation: Generation, rejection: &Rejection) {
        if rejection.error().is_some_and(|code| code.starts_with("insufficient")) {
            log::insufficient(self.name(), generation, rejection);
        }
    }

    /// The response to a second attempt accepted the token of this generation.
    pub(crate) fn retry_accepted(&self, generation: Generation, target: Target) {
        self.shared.witness.accepted(generation, target);
        self.decide(|state, now| state.retry_accepted(now, target));
    }

    /// The response to a second attempt rejected the token of this generation as well.
    pub(crate) fn retry_rejected(
        &self,
        generation: Generation,
        target: Target,
        rejection: &Rejection,
    ) {
        self.decide_on(Occasion::Rejection(rejection), |state, now| {
            state.retry_rejected(now, generation, target);
        });
    }

    /// Returns whether the input of the source, such as a file, has changed since it was read.
    #[cfg(feature = "oauth2")]
    pub(crate) fn has_newer_input(&self) -> bool {
        self.shared.watch().is_some_and(Watch::has_changed)
    }

    /// Returns a valid token set, from the newest input of the source if that can be read.
    #[cfg(feature = "oauth2")]
    pub(crate) async fn newest(&self) -> Result<Arc<Issued>, TokenError> {
        if self.has_newer_input() {
            let generation = self.lock().generation;
            if let Ok(issued) = self.issued(Want::NewerThan(generation)).await {
                return Ok(issued);
            }
        }
        self.issued(Want::Token).await
    }

    /// A token endpoint refused the token of this generation as the proof of a grant. Obtains a newer token set.
    ///
    /// Returns `None` without a refresh if the last one did not help at this endpoint.
    #[cfg(feature = "oauth2")]
    pub(crate) async fn replace_refused(
        &self,
        generation: Generation,
        target: Target,
    ) -> Option<Result<Arc<Issued>, TokenError>> {
        if !self.decide(|state, now| state.refused_as_proof(now, generation, target)) {
            return None;
        }
        let issued = self.issued(Want::NewerThan(generation)).await;
        if issued.is_ok() {
            self.decide(|state, now| state.replaced_as_proof(now, generation, target));
        }
        Some(issued)
    }

    /// Returns whether these are the extensions of a token request for these credentials, in any task.
    pub(crate) fn is_own_request(&self, extensions: &Extensions) -> bool {
        extensions.get::<FetchedFor>().is_some_and(|ids| ids.includes(self.shared.id))
    }

    /// Returns a timer, or none if there is no runtime. The caller's runtime comes before the policy's, since it is being polled.
    pub(crate) fn sleep(&self, duration: Duration) -> Option<Pin<Box<Sleep>>> {
        self.timer(duration).map(Box::pin)
    }

    // ===== the lock =====

    /// Decides under the lock, and carries out the effects after it is released.
    pub(super) fn decide<T>(&self, decide: impl FnOnce(&mut State, Timestamp) -> T) -> T {
        self.decide_on(Occasion::Other, decide)
    }

    /// Decides on an occasion that the events report.
    pub(super) fn decide_on<T>(
        &self,
        occasion: Occasion<'_>,
        decide: impl FnOnce(&mut State, Timestamp) -> T,
    ) -> T {
        let now = self.now();
        let (decided, effects, troubles) = {
            let mut state = self.lock();
            let decided = decide(&mut state, now);
            self.publish(&state, now);
            let troubles = self.shared.standing.note(|| state.troubles());
            (decided, state.take_effects(), troubles)
        };
        let Effects { ended, mut news, discarded } = *effects;
        drop(discarded);
        if let Occasion::Rejection(rejection) = occasion {
            news.iter_mut().for_each(|event| event.caused_by(rejection));
        }
        // Before the waiters are woken: a request that continues finds the events of the flight that it waited for.
        for event in &news {
            self.send(event);
        }
        for (waiters, outcome) in ended {
            // To have no waiter is not an error. Without an outcome the sender is dropped.
            let _ = outcome.map(|outcome| waiters.send(outcome));
        }
        // Last: a `tracing` subscriber and a recorder of metrics are code of others, and may be slow.
        self.shared.log.write(&self.subject(), &news, occasion);
        for event in &news {
            event.count(self.metrics(), now);
        }
        self.shared.standing.apply(troubles);
        decided
    }

    fn publish(&self, state: &State, now: Timestamp) {
        let published = self.shared.published.load();
        // After a failure, each request checks the source's input for a change.
        let watches = self.shared.watch().is_some() && state.has_failed();
        let next = state.published(now).filter(|_| !watches);
        if let Some((issued, until)) = next {
            issued.quiet_until.set(until);
        }
        let next = next.map(|(issued, _)| issued);
        if published.as_ref().map(Arc::as_ptr) != next.map(Arc::as_ptr) {
            self.shared.published.store(next.cloned());
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock, and the state is consistent between two decisions.
        self.shared.state.lock()
    }

    /// Ends the backoffs if the source's input has changed since a refresh failed, or since its token was rejected.
    pub(super) fn notice_change(&self, is_rejected: bool) {
        if let Some(watch) = self.shared.watch()
            && (is_rejected || self.lock().has_failed())
            && watch.has_changed()
        {
            self.decide(|state, _| state.source_changed());
        }
    }

    /// Returns whether the store has all changes.
    pub(crate) fn is_saved(&self) -> bool {
        self.shared.keeper.is_saved()
    }

    // ===== for flights =====

    pub(super) fn report(&self, event: Event) {
        self.shared.log.write(&self.subject(), std::slice::from_ref(&event), Occasion::Other);
        self.send(&event);
    }

    pub(super) fn subject(&self) -> Subject<'_> {
        let Shared { name, keeper, member, .. } = &*self.shared;
        Subject { name, keeper, is_member: member.is_some() }
    }

    /// Sends an event to the subscribers, if there are any.
    fn send(&self, event: &Event) {
        if let Some(member) = &self.shared.member {
            member.send(&self.shared.name, event);
        }
        if let Some(events) = self.shared.events.load().as_ref() {
            // All subscriptions may have been dropped. That is not an error.
            let _ = events.send(event.clone());
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.lock().timing().timeout
    }

    pub(super) fn now(&self) -> Timestamp {
        self.shared.keeper.now()
    }

    pub(super) fn timer(&self, duration: Duration) -> Option<Sleep> {
        let runtime = Handle::try_current().or_else(|_| self.runtime()).ok()?;
        let _context = runtime.enter();
        Some(tokio::time::sleep(duration))
    }

    /// Returns the runtime that refreshes run on.
    pub(super) fn runtime(&self) -> Result<Handle, TokenError> {
        let runtime = self.shared.runtime();
        runtime.map_or_else(Handle::try_current, Ok).map_err(|_| {
            TokenError::misconfigured(
                "a refresh needs a tokio runtime: call from within one, or name one with RefreshPolicy::runtime",
            )
        })
    }

    /// Lets the refresh begin if the caller is a source, which may have the place that the refresh waits for.
    pub(super) fn is_waited_for(&self) {
        if let Some(member) = &self.shared.member
            && FetchedFor::current().is_some()
        {
            let flight = self.lock().flight_id();
            flight.inspect(|flight| member.need(*flight));
        }
    }

    pub(super) fn refuse_recursion(&self) -> Result<(), TokenError> {
        let is_recursion = FetchedFor::current_includes(self.shared.id);
        (!is_recursion).then_some(()).ok_or_else(recursion)
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
        let timing = Arc::clone(self.lock().timing());
        let (runtime, clock) = (self.shared.runtime(), self.shared.keeper.clock.clone());
        let policy = RefreshPolicy { timing, runtime, clock };
        f.debug_struct("Credentials").field("policy", &policy).finish_non_exhaustive()
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
}
