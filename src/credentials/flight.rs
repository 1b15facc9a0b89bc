//! One refresh under way: the task that fetches, and those who wait for it.
//!
//! A flight outlives its callers. It runs in a task of its own, because the response is the only copy of the next
//! refresh token; a caller that is dropped, timed out or cancelled changes nothing. However the task ends, also when
//! the source panics or the runtime goes, its guard lands the flight, so that nobody waits for ever.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt as _;
use futures_util::future::Shared;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use tokio::task::{Unconstrained, unconstrained};

use super::Credentials;
use super::event::Event;
use super::generation::Generation;
use super::session::Session;
use super::state::{Adoption, Departure, Errand, FlightId, Issued, LOST_AFTER, Landed, State};
use crate::classify::Challenge;
use crate::error::TokenError;
use crate::grant::{Look, Notes};
use crate::limit;
use crate::source::{FetchedFor, Renewal};
use crate::target::Target;
use crate::token::TokenSet;

/// Whoever uses the source holds this: a flight, or an adoption. First come, first served.
pub(super) type Turn = Arc<Mutex<()>>;

/// Where a flight's outcome is told to all who joined it.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) id: FlightId,
    sender: oneshot::Sender<Outcome>,
    landing: Landing,
}

/// The landing of a flight, for all who joined it.
///
/// Outside tokio's cooperative budget: a receiver whose poller has none left wakes that poller and registers nobody. If
/// that one is then dropped, the others would wait for a wake that never comes.
pub(super) type Landing = Shared<Unconstrained<oneshot::Receiver<Outcome>>>;

#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Landed(Result<Arc<Issued>, TokenError>),
    /// Something else happened, such as a log-in: ask again.
    AskAgain,
}

impl Gate {
    pub(super) fn new(id: FlightId) -> Self {
        let (sender, receiver) = oneshot::channel();
        Self { id, sender, landing: unconstrained(receiver).shared() }
    }

    pub(super) fn open(self, outcome: Outcome) {
        // That nobody waits is not an error.
        let _ = self.sender.send(outcome);
    }

    pub(super) fn join(&self) -> Landing {
        self.landing.clone()
    }
}

// ===== those who wait =====

/// What somebody wants of the credentials.
#[derive(Clone, Debug)]
pub(crate) enum Want {
    /// A token that may be sent, of any session.
    Token,
    /// A token for a request of this session; for a new one if there is none.
    TokenOf(Option<Session>),
    /// A newer one than this, which a resource server rejected.
    NewerThanRejected { generation: Generation, target: Target, challenge: Option<Challenge> },
    /// A newer one than this, because the application says so.
    NewerThan(Generation),
}

impl Want {
    /// Returns whether a log-in or a log-out has ended the session of the request that wants it.
    pub(super) fn is_over(&self, state: &State) -> bool {
        match self {
            Self::TokenOf(Some(session)) => state.session() > *session,
            Self::NewerThanRejected { generation, .. } => state.is_of_earlier_session(*generation),
            Self::Token | Self::TokenOf(None) | Self::NewerThan(_) => false,
        }
    }
}

/// What the credentials answer.
pub(crate) enum Answer {
    Use(Arc<Issued>),
    Wait(Waiting),
    Refuse(TokenError),
}

/// Waits for a usable token, whoever brings it.
///
/// Dropping it does not stop the flight.
pub(crate) struct Waiting {
    credentials: Credentials,
    want: Want,
    /// Of the session that it waits in: an error from before a log-in is not its.
    epoch: u64,
    outcome: Landing,
    // Each waiter on its own runtime: a flight on a runtime that nobody polls holds up nobody else.
    patience: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
    /// How often it has asked again.
    asks: u32,
}

impl Waiting {
    pub(super) fn new(credentials: Credentials, want: Want, outcome: Landing) -> Self {
        let patience = credentials.timer(credentials.timeout()).map(|timer| {
            Box::pin(limit::passed(timer)) as Pin<Box<dyn Future<Output = ()> + Send + Sync>>
        });
        let epoch = credentials.epoch();
        Self { credentials, want, epoch, outcome, patience, asks: 0 }
    }
}

impl Future for Waiting {
    type Output = Result<Arc<Issued>, TokenError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            match this.outcome.poll_unpin(cx) {
                Poll::Ready(Ok(Outcome::Landed(Ok(issued))))
                    if this.credentials.is_for(&issued, &this.want) =>
                {
                    return Poll::Ready(Ok(issued));
                }
                Poll::Ready(Ok(Outcome::Landed(Err(error))))
                    if this.credentials.epoch() == this.epoch =>
                {
                    // The token that was not replaced may still be good for this request.
                    if let Want::Token | Want::TokenOf(_) = this.want
                        && let Some(issued) = this.credentials.usable()
                        && this.credentials.is_for(&issued, &this.want)
                    {
                        return Poll::Ready(Ok(issued));
                    }
                    return Poll::Ready(Err(error));
                }
                // Or the application logged in or out between the landing and now.
                Poll::Ready(Ok(Outcome::AskAgain | Outcome::Landed(_))) => {
                    this.asks += 1;
                    if this.asks > ASKS_MAX {
                        return Poll::Ready(Err(TokenError::transient(format!(
                            "gave up waiting for a token after {ASKS_MAX} refreshes, log-ins and log-outs that brought none: does the clock of the policy run?"
                        ))));
                    }
                    match this.credentials.ask(this.want.clone()) {
                        Answer::Use(issued) => return Poll::Ready(Ok(issued)),
                        Answer::Refuse(error) => return Poll::Ready(Err(error)),
                        // The time that it has waited so far counts.
                        Answer::Wait(next) => {
                            this.epoch = next.epoch;
                            this.outcome = next.outcome;
                        }
                    }
                }
                Poll::Ready(Err(_)) => {
                    return Poll::Ready(Err(TokenError::transient(
                        "the refresh that this request waited for is gone",
                    )));
                }
                Poll::Pending => {
                    // The call was made elsewhere, as a buffer's worker does, and is awaited in the fetch.
                    if let Err(error) = this.credentials.refuse_recursion() {
                        return Poll::Ready(Err(error));
                    }
                    // There is a timer: whoever has no runtime is not let wait.
                    let Some(patience) = &mut this.patience else {
                        return Poll::Pending;
                    };
                    ready!(patience.as_mut().poll(cx));
                    // The token that is being replaced may still be good for this request.
                    if let Want::Token | Want::TokenOf(_) = this.want
                        && let Answer::Use(issued) = this.credentials.ask(this.want.clone())
                    {
                        return Poll::Ready(Ok(issued));
                    }
                    return Poll::Ready(Err(TokenError::transient(format!(
                        "no token within {:?}; the refresh goes on and its answer will be used",
                        this.credentials.timeout()
                    ))));
                }
            }
        }
    }
}

/// How often a waiter asks again. A clock that runs wild ends each flight before it lands, and a waiter would ask forever.
const ASKS_MAX: u32 = 16;

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("want", &self.want).finish_non_exhaustive()
    }
}

// ===== the one who fetches =====

fn spawn(
    credentials: &Credentials,
    runtime: &Handle,
    task: impl Future<Output = ()> + Send + 'static,
) {
    let fetched_for = FetchedFor::current().unwrap_or_default().and(credentials.id());
    // A runtime that is already gone drops the task here, and its guard lands it.
    drop(runtime.spawn(fetched_for.scope(task)));
}

/// Starts a flight. Not to be called under the lock.
pub(super) fn start(
    credentials: &Credentials,
    departure: Departure,
    challenge: Option<Challenge>,
    turn: Turn,
    runtime: &Handle,
) {
    let flight =
        InFlight { work: Working::begin(credentials), departure, asked: false, landed: false };
    spawn(credentials, runtime, flight.fly(challenge, turn));
}

/// Counts as work under way until dropped: `flush` waits for it.
struct Working {
    credentials: Credentials,
}

impl Working {
    fn begin(credentials: &Credentials) -> Self {
        credentials.working(1);
        Self { credentials: credentials.clone() }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.credentials.working(-1);
    }
}

/// The task of a flight. Dropped before it landed, it lands with an error.
struct InFlight {
    departure: Departure,
    /// Whether the source was asked.
    asked: bool,
    landed: bool,
    // Last, so that the work is over when the rest is.
    work: Working,
}

impl InFlight {
    async fn fly(mut self, challenge: Option<Challenge>, turn: Turn) {
        let _turn: OwnedMutexGuard<()> = turn.lock_owned().await;
        let credentials = self.work.credentials.clone();
        if !credentials.wants(self.departure.id) {
            // The application logged in or out meanwhile.
            self.landed = true;
            return;
        }
        self.asked = true;
        let keeper = credentials.keeper();
        let wish = self.departure.wish;
        let (landed, notes) = match self.departure.errand {
            Errand::Refresh => {
                let renewal = Renewal::new(wish.cause)
                    .with_challenge(challenge)
                    .with_fetched_for(FetchedFor::current());
                let on_unknown = |error| credentials.report(Event::OutcomeUnknown { error });
                let (result, notes) = keeper.refresh(wish, renewal, &on_unknown).await;
                (Landed::Refreshed(result), notes)
            }
            Errand::Look => {
                let (look, notes) = keeper.look(wish).await;
                (Landed::Looked(look), notes)
            }
            Errand::Save => (Landed::Saved(keeper.save().await), Notes::default()),
        };
        self.landed = true;
        credentials.land(&self.departure, landed, notes);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.landed {
            return;
        }
        let credentials = &self.work.credentials;
        let error = match self.asked {
            false => TokenError::transient("the runtime was shut down before the refresh began"),
            true if std::thread::panicking() => TokenError::ambiguous("the token source panicked"),
            true => TokenError::ambiguous("the runtime was shut down during the refresh"),
        };
        let landed = match self.departure.errand {
            Errand::Refresh => Landed::Refreshed(Err(error)),
            Errand::Look => Landed::Looked(Look::Nothing),
            Errand::Save => Landed::Saved(Err(error)),
        };
        credentials.land(&self.departure, landed, Notes::default());
    }
}

/// Starts to record a log-in or log-out. Not to be called under the lock.
pub(super) fn start_adoption(
    credentials: &Credentials,
    adoption: Adoption,
    tokens: Option<TokenSet>,
    turn: Turn,
    runtime: &Handle,
) -> oneshot::Receiver<Result<(), TokenError>> {
    let (sender, receiver) = oneshot::channel();
    let adopting = Adopting { adoption, work: Working::begin(credentials) };
    spawn(credentials, runtime, async move {
        let credentials = &adopting.work.credentials;
        // Whoever holds the source is given as long as a flight is, and is lost then.
        let patience = credentials.timeout().saturating_mul(LOST_AFTER);
        let _turn: OwnedMutexGuard<()> =
            match tokio::time::timeout(patience, turn.lock_owned()).await {
                Ok(turn) => turn,
                Err(_) => credentials.take_turn().lock_owned().await,
            };
        let result = if credentials.has_last_word(adoption) {
            credentials.keeper().log_in(adoption.set, tokens).await
        } else {
            // A later log-in or log-out has the last word.
            Ok(())
        };
        drop(adopting);
        // The caller may be gone.
        let _ = sender.send(result);
    });
    receiver
}

/// Starts to save what could not be saved before.
pub(super) fn start_settling(
    credentials: &Credentials,
    runtime: &Handle,
) -> oneshot::Receiver<Result<(), TokenError>> {
    let (sender, receiver) = oneshot::channel();
    let settling = credentials.clone();
    spawn(credentials, runtime, async move {
        // The caller may be gone.
        let _ = sender.send(settling.save().await);
    });
    receiver
}

/// The task of an adoption. However it ends, those who wait are let go.
struct Adopting {
    adoption: Adoption,
    work: Working,
}

impl Drop for Adopting {
    fn drop(&mut self) {
        self.work.credentials.adopted(self.adoption);
    }
}
