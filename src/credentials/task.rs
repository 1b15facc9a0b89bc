//! The tasks of the credentials: refreshes, log-ins, log-outs and saves.
//!
//! A task outlives its callers, because the response is the only copy of the next refresh token: a caller that is dropped, timed out
//! or cancelled changes nothing. However the task ends, also if the source panics or the runtime is shut down, its guard lands the
//! flight, so that no request waits forever.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::OptionFuture;
use tokio::runtime::Handle;
use tokio::sync::{OwnedMutexGuard, Semaphore};
use tokio::task::JoinHandle;

use super::event::Event;
use super::flight::{Adoption, Departure, Errand, FlightResult, Flown, LOST_AFTER, Landed};
use super::handle::Credentials;
use super::log::Occasion;
use super::member::{Admission, Member};
use crate::classify::Challenge;
use crate::clock::Timestamp;
use crate::error::TokenError;
use crate::grant::{Look, Notes};
use crate::metrics::{Ending, Refreshing};
use crate::source::{FetchedFor, Renewal};
use crate::token::TokenSet;
use crate::trace::Span;

impl Credentials {
    /// Replaces the current tokens, for example after the user has logged in.
    ///
    /// New requests use the token set. Requests of the session before are not sent with it: see [`Credentials`]. The result of a
    /// refresh in flight is not used, and earlier failures no longer count. The log-in is recorded when that refresh has ended, which this
    /// future waits for.
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
    /// After the first poll, dropping this future does not stop the log-in.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_refresh::{Credentials, StaticToken, TokenSet};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_refresh::TokenError> {
    /// let credentials = Credentials::new(StaticToken::new("of-the-last-user".parse()?));
    /// let tokens = TokenSet::bearer("sesame")?.with_expires_in(Duration::from_secs(3600));
    /// credentials.log_in(tokens).await?;
    /// assert_eq!(credentials.tokens().await?.access_token().expose_secret(), "sesame");
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("replace", "set", "login"))]
    pub async fn log_in(&self, tokens: TokenSet) -> Result<(), TokenError> {
        self.adopt(Some(tokens)).await
    }

    /// Removes the tokens, for example after the user has logged out.
    ///
    /// Requests of this session that wait for a token fail. The result of a refresh in flight is not used. The log-out is recorded
    /// when that refresh has ended. A later request asks the source again. A source that has only a refresh token denies it.
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
        let set = self.shared.keeper.new_id();
        let adoption = self.decide(|state, now| state.adopt(now, set, tokens.clone()));
        let (credentials, session) = (self.clone(), Some(tokens));
        let _work = Piece::begin(self);
        let adopting = Adopting { credentials, adoption, session, is_saved: false, _work };
        run(self, &runtime, adopting.record(), "a log-in or log-out was recorded").await
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
        self.flush_in(None).await
    }

    /// Flushes, and takes one of these permits to save. Waiting takes no permit, because a refresh that never ends must not keep the
    /// tokens of other keys from being saved.
    pub(crate) async fn flush_in(&self, places: Option<&Semaphore>) -> Result<(), TokenError> {
        // Also for other credentials: two sources that flush each other's credentials would wait forever.
        if FetchedFor::current().is_some() {
            return Err(TokenError::misconfigured(
                "`Credentials::flush` was called from within a token source, and would wait for its own end: call it where the program ends",
            ));
        }
        self.shared.work.all_ended().await;
        if !self.shared.keeper.has_store() {
            return Ok(());
        }
        let place = OptionFuture::from(places.map(Semaphore::acquire));
        let _place = place.await;
        let credentials = self.clone();
        let save = async move {
            let is_saved = credentials.shared.keeper.save().await?;
            credentials.decide(|state, now| state.saved(now, Ok(is_saved)));
            Ok(())
        };
        run(self, &self.runtime()?, save, "saved tokens").await
    }
}

/// Starts a flight. Not to be called under the lock.
pub(super) fn start(
    credentials: &Credentials,
    departure: Departure,
    challenge: Option<Challenge>,
    runtime: &Handle,
) {
    let is_refresh = departure.errand == Errand::Refresh;
    let clock = &credentials.shared.keeper.clock;
    let span = match is_refresh {
        true => {
            let failures = credentials.shared.log.failures();
            departure.landing.record.begin(credentials.name(), departure.wish.cause, failures)
        }
        false => Span::default(),
    };
    let flying = Flying {
        credentials: credentials.clone(),
        measured: is_refresh.then(|| credentials.metrics().refresh(departure.wish.cause, clock)),
        departure,
        began: credentials.now(),
        asked: None,
        landed: false,
        _work: Piece::begin(credentials),
    };
    drop(spawn(credentials, runtime, span.around(flying.fly(challenge))));
}

/// Awaits a task that goes on without its caller.
async fn run(
    credentials: &Credentials,
    runtime: &Handle,
    task: impl Future<Output = Result<(), TokenError>> + Send + 'static,
    activity: &str,
) -> Result<(), TokenError> {
    spawn(credentials, runtime, task).await.unwrap_or_else(|_| {
        Err(TokenError::ambiguous(format!(
            "the source or the store panicked, or the runtime was shut down, while {activity}: correct the panic, or await `Credentials::flush` before the runtime ends"
        )))
    })
}

fn spawn<T: Send + 'static>(
    credentials: &Credentials,
    runtime: &Handle,
    task: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    let fetched_for = FetchedFor::current().unwrap_or_default().and(credentials.shared.id);
    // A runtime that has been shut down drops the task here, and its guard lands it.
    runtime.spawn(fetched_for.scope(task))
}

/// A piece of the work that [`flush`](Credentials::flush) waits for, until it is dropped.
struct Piece(Credentials);

impl Piece {
    fn begin(credentials: &Credentials) -> Self {
        credentials.shared.work.begin();
        Self(credentials.clone())
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if self.0.shared.work.end() {
            self.0.lock().rest();
        }
    }
}

/// The task of a flight. If it is dropped before it has landed, it lands with an error.
struct Flying {
    credentials: Credentials,
    departure: Departure,
    /// The metrics of the refresh, if it is one.
    measured: Option<Refreshing>,
    began: Timestamp,
    /// When the source was asked.
    asked: Option<Timestamp>,
    landed: bool,
    /// `flush` waits until it is dropped, after the landing.
    _work: Piece,
}

impl Flying {
    async fn fly(mut self, challenge: Option<Challenge>) {
        let credentials = self.credentials.clone();
        // Before the turn, which a log-in may wait for.
        let admission = match &credentials.shared.member {
            Some(member) if self.departure.errand == Errand::Refresh => {
                match self.admission(&credentials, member).await {
                    Some(admission) => admission.map(Some),
                    None => return,
                }
            }
            _ => Ok(None),
        };
        let _turn: OwnedMutexGuard<()> = Arc::clone(&self.departure.turn).lock_owned().await;
        if !credentials.lock().wants(self.departure.id) {
            self.supersede();
            return;
        }
        let mut admission = match admission {
            Ok(admission) => admission,
            Err(error) => return self.land(Landed::Refreshed(Err(error)), Notes::default()),
        };
        self.asked = Some(credentials.now());
        let keeper = &credentials.shared.keeper;
        let wish = self.departure.wish;
        let (landed, notes) = match self.departure.errand {
            Errand::Refresh => {
                let renewal = Renewal::new(wish.cause)
                    .with_challenge(challenge)
                    .with_fetched_for(FetchedFor::current());
                let on_unknown = |error| credentials.report(Event::OutcomeUnknown { error });
                let mut refresh = pin!(keeper.refresh(wish, renewal, &on_unknown));
                let (result, notes) = match &mut admission {
                    Some(admission) => {
                        let timeout = tokio::time::timeout(credentials.timeout(), &mut refresh);
                        match timeout.await {
                            Ok(refreshed) => refreshed,
                            Err(_) => {
                                admission.give_way();
                                refresh.await
                            }
                        }
                    }
                    None => refresh.await,
                };
                (Landed::Refreshed(result), notes)
            }
            Errand::Look => {
                let (look, notes) = keeper.look(wish).await;
                (Landed::Looked(look), notes)
            }
            Errand::Save => (Landed::Saved(keeper.save().await), Notes::default()),
        };
        self.land(landed, notes);
    }

    /// Waits until a refresh of the member of a pool may begin. Returns `None` if the flight has ended meanwhile.
    async fn admission(
        &mut self,
        credentials: &Credentials,
        member: &Member,
    ) -> Option<Result<Admission, TokenError>> {
        let timeout = credentials.timeout();
        match member.admit_at_once(&self.departure, timeout) {
            Ok(Some(admission)) => return Some(Ok(admission)),
            // A token that is in the store needs no refresh.
            refused => {
                if self.has_found_a_token(credentials).await {
                    return None;
                }
                if let Err(error) = refused {
                    return Some(Err(error));
                }
            }
        }
        let mut admission = pin!(member.admit(&self.departure, timeout));
        loop {
            let admission = tokio::time::timeout(timeout, &mut admission).await;
            // It has not begun, and is not lost. A runtime that is not polled does not get here.
            credentials.decide(|state, now| state.waits(now, self.departure.id));
            if let Ok(admission) = admission {
                return Some(admission);
            }
        }
    }

    /// Looks for a token in the store. Returns whether the flight has ended.
    async fn has_found_a_token(&mut self, credentials: &Credentials) -> bool {
        let keeper = &credentials.shared.keeper;
        if !keeper.has_store() {
            return false;
        }
        let _turn = Arc::clone(&self.departure.turn).lock_owned().await;
        if !credentials.lock().wants(self.departure.id) {
            self.supersede();
            return true;
        }
        let (look, notes) = keeper.look(self.departure.wish).await;
        let has_found = matches!(look, Look::Newer(_));
        if has_found {
            self.land(Landed::Looked(look), notes);
        } else if notes.is_saved {
            credentials.decide(|state, now| state.saved(now, Ok(true)));
        }
        has_found
    }

    /// Ends the flight without a landing: the application has logged in or out meanwhile.
    fn supersede(&mut self) {
        self.landed = true;
        self.departure.landing.record.end(None, FlightResult::Superseded);
        self.measured.as_ref().inspect(|measured| measured.ends(Ending::Superseded));
    }

    fn land(&mut self, landed: Landed, notes: Notes) {
        self.landed = true;
        let (departure, flown) = (&self.departure, self.flown());
        let was_stored = landed.is_found();
        let outcome = self.credentials.decide_on(Occasion::Landing(&flown), |state, now| {
            state.land(now, departure, landed, notes)
        });
        let result = match &outcome {
            None => FlightResult::Superseded,
            Some(Err(error)) => FlightResult::Failed(error),
            Some(Ok(issued)) if was_stored => FlightResult::FoundInStore(issued.generation),
            Some(Ok(issued)) => FlightResult::Refreshed(issued.generation),
        };
        departure.landing.record.end(Some(&flown), result);
        let ending = match &outcome {
            Some(Ok(_)) => Ending::Success { was_stored },
            Some(Err(error)) => Ending::Failure(error),
            None => Ending::Superseded,
        };
        self.measured.as_ref().inspect(|measured| measured.ends(ending));
    }

    fn flown(&self) -> Flown {
        let now = self.credentials.now().monotonic();
        let since = |then: Timestamp| now.saturating_sub(then.monotonic());
        let timeout = self.credentials.timeout();
        Flown {
            cause: self.departure.wish.cause,
            duration: since(self.began),
            late: self.asked.filter(|asked| since(*asked) > timeout).map(|_| timeout),
            record: Arc::clone(&self.departure.landing.record),
        }
    }
}

impl Drop for Flying {
    fn drop(&mut self) {
        if self.landed {
            return;
        }
        let error = match (self.asked.is_some(), std::thread::panicking()) {
            // The store is asked before the refresh begins if the refresh has to wait.
            (false, true) => TokenError::transient(
                "the store panicked before the refresh began: correct the panic that stderr shows",
            ),
            (false, false) => TokenError::transient(
                "the runtime was shut down before the refresh began: await `Credentials::flush` before",
            ),
            (true, true) => TokenError::ambiguous(
                "the token source or the store panicked: correct the panic that stderr shows",
            ),
            (true, false) => TokenError::ambiguous(
                "the runtime was shut down during the refresh: await `Credentials::flush` before",
            ),
        };
        let landed = match self.departure.errand {
            Errand::Refresh => Landed::Refreshed(Err(error)),
            Errand::Look => Landed::Looked(Look::Nothing),
            Errand::Save => Landed::Saved(Err(error)),
        };
        self.land(landed, Notes::default());
    }
}

/// The task of an adoption. However it ends, the ledger has the session, and the waiters are woken.
struct Adopting {
    credentials: Credentials,
    adoption: Adoption,
    /// The tokens of the log-in, or none of a log-out, until the ledger has them.
    session: Option<Option<TokenSet>>,
    is_saved: bool,
    /// `flush` waits until it is dropped.
    _work: Piece,
}

impl Adopting {
    async fn record(mut self) -> Result<(), TokenError> {
        let credentials = &self.credentials;
        let turn = Arc::clone(&self.adoption.turn).lock_owned();
        // The flight that holds the turn is given as long as any other, and is lost then.
        let patience = credentials.timeout().saturating_mul(LOST_AFTER);
        let _turn: OwnedMutexGuard<()> = match tokio::time::timeout(patience, turn).await {
            Ok(turn) => turn,
            Err(_) => credentials.decide(|state, _| state.give_up_on_turn()).lock_owned().await,
        };
        if credentials.lock().epoch != self.adoption.epoch {
            // A later log-in or log-out decides.
            return Ok(());
        }
        let Some(tokens) = self.session.take() else { return Ok(()) };
        let result = credentials.shared.keeper.log_in(self.adoption.set, tokens).await;
        self.is_saved = result.is_ok();
        result
    }
}

impl Drop for Adopting {
    fn drop(&mut self) {
        let credentials = &self.credentials;
        if let Some(tokens) = self.session.take()
            && credentials.lock().epoch == self.adoption.epoch
        {
            // The runtime has been shut down. The ledger must not go on with the session before.
            credentials.shared.keeper.log_in_unsaved(self.adoption.set, tokens);
        }
        if !self.is_saved && credentials.lock().epoch == self.adoption.epoch {
            credentials.shared.keeper.session_is_late();
        }
        credentials.decide(|state, now| state.adopted(now, &self.adoption, self.is_saved));
    }
}

#[cfg(all(test, feature = "store", feature = "testing"))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::StaticToken;
    use crate::store::MemoryStore;
    use crate::testing::ManualClock;

    #[tokio::test]
    async fn log_in_that_was_overtaken_makes_no_later_one_late() {
        let (store, clock) = (MemoryStore::new(), ManualClock::new());
        let credentials = || {
            let source = StaticToken::new("unused".parse().unwrap());
            Credentials::builder(source).store(store.clone()).clock(clock.clone()).build()
        };
        let (here, elsewhere) = (credentials(), credentials());
        let of = |user: &str| Some(TokenSet::bearer(user).unwrap().with_refresh_token(user));
        let adopt = |user| {
            let set = here.shared.keeper.new_id();
            here.decide(|state, now| state.adopt(now, set, of(user)))
        };
        let (alice, bob) = (adopt("alice"), adopt("bob"));
        here.shared.keeper.log_in_unsaved(bob.set, of("bob"));
        clock.advance(Duration::from_secs(1));
        elsewhere.log_in(of("carol").unwrap()).await.unwrap();
        drop(Adopting {
            credentials: here.clone(),
            adoption: alice,
            session: None,
            is_saved: false,
            _work: Piece::begin(&here),
        });
        here.flush().await.unwrap();
        // A late log-in would leave the session to the one elsewhere.
        let stored = credentials().tokens().await.unwrap();
        assert_eq!(stored.access_token().expose_secret(), "bob");
    }
}
