//! The environment of the workers: the store, the network, and the faults. It sees every record that is saved and every
//! token that is sent, and records violations.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tower::{Service, ServiceExt as _};
use tower_refresh::store::{MemoryStore, StoreError, StoreLock, StoredTokens, TokenStore, WriteId};
use tower_refresh::testing::{AuthorizationServer, ConnectionDropped, ServerService};

/// The faults that occur, and so the promises that must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// No lost response: no refresh token is used twice.
    Gentle,
    /// All faults except a store that loses records: no refresh token is used twice unknowingly.
    Rough,
    /// The store is also rolled back.
    Forgetful,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Running,
    Frozen,
    Dead,
}

/// A moment of a refresh that the environment sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    Loaded,
    Locked,
    /// An intent was saved.
    Intended,
    /// Another record was saved.
    Saved,
    /// The lock was checked, and was held.
    Looked,
    /// The token request has arrived.
    Sent,
    /// It was answered, and the response is on its way.
    Answered,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    Kill,
    Freeze,
    LoseLock,
    /// The store goes down for all workers.
    Disconnect,
}

/// A blow that falls when a worker reaches a point for the nth time.
#[derive(Clone, Copy, Debug)]
pub struct Trap {
    pub worker: usize,
    pub point: Point,
    pub nth: u8,
    pub blow: Blow,
}

/// The fault of one operation of the store.
#[derive(Clone, Copy, Debug)]
pub enum OpFault {
    Delay(u64),
    LateAnswer(u64),
    FailBefore,
    FailAfter,
}

#[derive(Clone)]
pub struct World {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    freed: Notify,
    server: AuthorizationServer,
    start: Instant,
}

pub struct State {
    pub class: Class,
    /// True if an intent precedes every token request: the server rotates, and the store is required.
    pub counts: bool,
    base: MemoryStore,
    doubt: bool,
    /// True if the store always reports a loss.
    is_honest: bool,
    failures: u64,
    pub down: bool,
    pub faults: VecDeque<Option<OpFault>>,
    lock: Option<(u64, usize)>,
    locks: u64,
    pub procs: Vec<Proc>,
    pub traps: Vec<Trap>,
    pub history: Vec<Saved>,
    attempts: Vec<Attempt>,
    parents: HashMap<String, String>,
    pub families: HashMap<String, u64>,
    family_epochs: HashMap<u64, BTreeSet<u64>>,
    pub violations: Vec<String>,
    pub log: Vec<String>,
}

/// One life of a worker.
pub struct Proc {
    pub worker: usize,
    pub health: Health,
    wakers: Vec<Waker>,
    frozen_since: Option<Instant>,
    frozen_for: Duration,
    /// The refresh token of the configuration.
    configured: String,
    /// The lock that was checked, until the outcome of the next step is known.
    looked: Option<u64>,
    /// The refresh token of a response, until it is saved.
    unsaved: Option<String>,
    /// The successor that arrived before the timeout.
    received: Option<String>,
    unsaved_faults: u8,
    /// The last intent, and whether its token was sent since.
    intent: Option<Intended>,
    pub adoptions: u64,
    /// True if it knowingly sent a token that another may have sent.
    pub knew: bool,
    /// True if it reported that.
    pub told: bool,
}

#[derive(Clone)]
struct Intended {
    by: String,
    token: String,
    /// True if an intent was open before it.
    is_known: bool,
    /// True if that intent was of another worker.
    is_news: bool,
    was_sent: bool,
}

/// A refresh token that was sent.
struct Attempt {
    by: String,
    token: String,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Pending,
    Counted,
    /// It counted, and the refresh token is unspent.
    Kept,
    NotCounted,
    Denied,
    Lost,
}

/// A record that was saved.
#[derive(Clone)]
pub struct Saved {
    pub proc: usize,
    pub record: StoredTokens,
    pub view: View,
}

/// The content of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub write_id: String,
    pub epoch: u64,
    pub revision: u64,
    pub access: Option<String>,
    pub refresh: Option<String>,
    pub is_forgotten: bool,
    pub intent: Option<(String, u64)>,
    pub denied: Option<String>,
}

impl View {
    pub fn of(record: &StoredTokens) -> Self {
        let json: Value = serde_json::from_slice(&record.to_json().unwrap()).unwrap();
        let content = &json["body"]["plain"];
        let word = |value: &Value| value.as_str().map(str::to_owned);
        let intent = &content["intent"];
        Self {
            write_id: record.write_id().to_string(),
            epoch: record.epoch(),
            revision: record.revision(),
            access: word(&content["tokens"]["access_token"]),
            refresh: word(&content["tokens"]["refresh_token"]),
            is_forgotten: content["is_forgotten"].as_bool().unwrap_or(false),
            intent: word(&intent["by"]).map(|by| (by, intent["attempt"].as_u64().unwrap())),
            denied: word(&content["denied"]),
        }
    }
}

// ===== impl World =====

impl World {
    pub fn new(class: Class, counts: bool, server: AuthorizationServer) -> Self {
        let state = State {
            class,
            counts,
            base: MemoryStore::new(),
            doubt: false,
            is_honest: true,
            failures: 0,
            down: false,
            faults: VecDeque::new(),
            lock: None,
            locks: 0,
            procs: Vec::new(),
            traps: Vec::new(),
            history: Vec::new(),
            attempts: Vec::new(),
            parents: HashMap::new(),
            families: HashMap::new(),
            family_epochs: HashMap::new(),
            violations: Vec::new(),
            log: Vec::new(),
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                freed: Notify::new(),
                server,
                start: Instant::now(),
            }),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    pub fn log(&self, line: impl AsRef<str>) {
        let at = self.shared.start.elapsed();
        self.state().log.push(format!("{at:>12.3?} {}", line.as_ref()));
    }

    pub fn violation(&self, what: impl Into<String>) {
        let what = what.into();
        self.log(format!("VIOLATION {what}"));
        self.state().violations.push(what);
    }

    /// Begins a life of a worker.
    pub fn start(&self, worker: usize, configured: &str) -> Life {
        let mut state = self.state();
        state.procs.push(Proc {
            worker,
            health: Health::Running,
            wakers: Vec::new(),
            frozen_since: None,
            frozen_for: Duration::ZERO,
            configured: configured.to_owned(),
            looked: None,
            unsaved: None,
            received: None,
            unsaved_faults: 0,
            intent: None,
            adoptions: 0,
            knew: false,
            told: false,
        });
        Life { world: self.clone(), id: state.procs.len() - 1 }
    }

    pub fn record(&self) -> Option<StoredTokens> {
        self.state().record()
    }

    pub fn is_locked(&self) -> bool {
        self.state().lock.is_some()
    }

    /// Takes the lock from its holder, like the end of a lease.
    pub fn lose_lock(&self) {
        let mut state = self.state();
        let Some((_, holder)) = state.lock else {
            return;
        };
        if state.class == Class::Gentle && state.procs[holder].is_in_danger() {
            return;
        }
        state.lock = None;
        drop(state);
        self.log(format!("lock of {holder} lost"));
        self.shared.freed.notify_waiters();
    }

    /// Checks that a worker which reports no unsaved tokens has none.
    pub fn check_settled(&self, proc: usize) {
        let state = self.state();
        let Some(successor) = state.procs[proc].unsaved.clone() else {
            return;
        };
        if state.procs[proc].received.as_ref() != Some(&successor) {
            return;
        }
        let stored = state.record().and_then(|record| View::of(&record).refresh);
        let is_lost = stored.is_some() && state.parents.get(&successor) == stored.as_ref();
        drop(state);
        if is_lost && self.shared.server.is_unspent(&successor) {
            self.violation(format!("{proc} has settled without {}", short(&successor)));
        }
    }

    /// Checks that no intent stays open after a request that is known not to count.
    pub fn check_taken_back(&self, proc: usize) {
        let state = self.state();
        let open = state.record().and_then(|record| View::of(&record).intent);
        let is_known = open.as_ref().is_some_and(|(by, _)| {
            state
                .attempts
                .iter()
                .any(|attempt| attempt.by == *by && attempt.outcome == Outcome::NotCounted)
        });
        let is_own =
            state.procs[proc].intent.as_ref().map(|own| &own.by) == open.as_ref().map(|(by, _)| by);
        drop(state);
        if is_known && is_own {
            self.violation(format!("{proc} left an intent open that did not count"));
        }
    }

    /// Returns the number of failed operations of the store.
    pub fn failures(&self) -> u64 {
        self.state().failures
    }

    /// Replaces the stored record by an earlier one, or by none.
    pub fn roll_back(&self, by: Option<usize>, doubt: bool) {
        let mut state = self.state();
        let earlier = by.and_then(|by| {
            let at = state.history.len().checked_sub(1 + by)?;
            Some(state.history[at].record.clone())
        });
        state.base = MemoryStore::new();
        if let Some(record) = &earlier {
            state.base.save(record, None).now_or_never().unwrap().unwrap();
        }
        state.doubt = doubt;
        state.is_honest &= doubt && earlier.is_some();
        drop(state);
        self.log(format!("rolled back by {by:?}, doubt {doubt}"));
    }

    fn event(&self, proc: usize, point: Point) {
        let mut state = self.state();
        let worker = state.procs[proc].worker;
        let mut struck = None;
        state.traps.retain_mut(|trap| {
            if trap.worker != worker || trap.point != point || struck.is_some() {
                return true;
            }
            if trap.nth > 0 {
                trap.nth -= 1;
                return true;
            }
            struck = Some(trap.blow);
            false
        });
        drop(state);
        self.log(format!("{proc} (worker {worker}): {point:?}"));
        let life = Life { world: self.clone(), id: proc };
        match struck {
            None => {}
            Some(Blow::Kill) => life.kill(),
            Some(Blow::Freeze) => life.freeze(),
            Some(Blow::Disconnect) => self.state().down = true,
            Some(Blow::LoseLock) => {
                let is_holder = self.state().lock.is_some_and(|(_, holder)| holder == proc);
                if is_holder {
                    self.lose_lock();
                }
            }
        }
    }
}

impl State {
    fn record(&self) -> Option<StoredTokens> {
        let record = self.base.load().now_or_never().unwrap().unwrap();
        if self.doubt { record.map(StoredTokens::doubted) } else { record }
    }

    pub fn epoch(&self) -> u64 {
        self.record().map_or(0, |record| record.epoch())
    }

    pub fn epochs_of(&self, access: &str) -> Option<&BTreeSet<u64>> {
        self.family_epochs.get(self.families.get(access)?)
    }

    fn descends(&self, child: &str, from: &str) -> bool {
        let mut token = child;
        loop {
            if token == from {
                return true;
            }
            match self.parents.get(token) {
                Some(parent) => token = parent,
                None => return false,
            }
        }
    }

    /// Saves a record, and checks it.
    fn save(
        &mut self,
        proc: usize,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> Result<Point, StoreError> {
        let before = self.record();
        self.base.save(record, replaces).now_or_never().unwrap()?;
        if before.as_ref().map(StoredTokens::write_id) == Some(record.write_id()) {
            return Ok(Point::Saved);
        }
        self.doubt = false;
        let old = before.as_ref().map(View::of);
        let new = View::of(record);
        self.judge(proc, old.as_ref(), &new);

        for token in [&new.refresh, &new.access].into_iter().flatten() {
            if let Some(family) = self.families.get(token) {
                self.family_epochs.entry(*family).or_default().insert(new.epoch);
            }
        }
        if self.class == Class::Forgetful && new.access.is_none() && !new.is_forgotten {
            // The list of configured tokens that were used is lost as well.
            self.is_honest &= old.as_ref().is_none_or(|old| old.epoch == new.epoch);
        }
        let is_by = new.intent.as_ref().is_some_and(|(by, _)| *by == record.write_id().to_string());
        let life = &mut self.procs[proc];
        let is_session = old.as_ref().is_some_and(|old| old.epoch != new.epoch);
        if is_session || life.unsaved.is_some() && life.unsaved == new.refresh {
            life.unsaved = None;
        }
        let mut point = Point::Saved;
        life.looked = None;
        if let (true, Some((by, attempt))) = (is_by, &new.intent)
            && *attempt > 0
        {
            point = Point::Intended;
            let token = new.refresh.clone().unwrap_or_else(|| life.configured.clone());
            let before = old.as_ref().and_then(|old| old.intent.clone());
            life.intent = Some(Intended {
                by: by.clone(),
                token: token.clone(),
                is_known: before.is_some(),
                is_news: before.is_some_and(|(before, _)| {
                    !self
                        .history
                        .iter()
                        .any(|saved| saved.proc == proc && saved.view.write_id == before)
                }),
                was_sent: false,
            });
            if let Some(family) = self.families.get(&token) {
                self.family_epochs.entry(*family).or_default().insert(new.epoch);
            }
        }
        self.log.push(format!("{:>12} {proc} saves {}", "", show(&new)));
        self.history.push(Saved { proc, record: record.clone(), view: new });
        Ok(point)
    }

    fn judge(&mut self, proc: usize, old: Option<&View>, new: &View) {
        let Some(old) = old.filter(|_| self.class != Class::Forgetful) else {
            return;
        };
        let mut violations = Vec::new();
        let mut wrong = |what: &str| {
            violations.push(format!("{what}: {proc} saved {} over {}", show(new), show(old)));
        };
        if new.epoch < old.epoch {
            wrong("the epoch went back");
        }
        if new.revision < old.revision {
            wrong("the revision went back");
        }
        if new.epoch != old.epoch {
            self.violations.extend(violations);
            return;
        }
        if old.is_forgotten && !new.is_forgotten {
            wrong("a session that was logged out of came back");
        }
        let is_successor = match (&old.refresh, &new.refresh) {
            (Some(old), Some(new)) => self.descends(new, old),
            (Some(_), None) => false,
            (None, _) => true,
        };
        if new.revision == old.revision {
            if (&new.access, &new.refresh) != (&old.access, &old.refresh) {
                wrong("a set changed under its revision");
            }
            let is_own = |by: &String| *by == new.write_id;
            match (&old.intent, &new.intent) {
                (old, Some((by, attempt))) if is_own(by) => {
                    let due = old.as_ref().map_or(0, |(_, attempt)| *attempt) + 1;
                    if *attempt != due {
                        wrong("an attempt was not counted");
                    }
                }
                (Some(open), next) if next.as_ref() != Some(open) && new.denied.is_none() => {
                    let outcome = self
                        .attempts
                        .iter()
                        .find(|attempt| attempt.by == open.0)
                        .map(|attempt| attempt.outcome);
                    if outcome.is_some_and(|outcome| outcome != Outcome::NotCounted) {
                        let what = format!("an attempt that is {outcome:?} was taken back");
                        wrong(&what);
                    }
                }
                _ => {}
            }
        } else if !is_successor {
            wrong("not the successor");
        }
        self.violations.extend(violations);
    }

    /// A refresh token is sent.
    fn send(&mut self, proc: usize, token: &str) -> usize {
        let held = self.lock;
        let life = &mut self.procs[proc];
        let mut by = String::new();
        let mut is_known = false;
        if self.counts {
            match &mut life.intent {
                Some(intent) if intent.token == token && !intent.was_sent => {
                    intent.was_sent = true;
                    by.clone_from(&intent.by);
                    is_known = intent.is_known;
                    life.knew |= intent.is_news;
                }
                _ => self.violations.push(format!("{proc} sent {} unannounced", short(token))),
            }
            // Frozen between the check and the sending.
            let is_gap = life.looked.is_none_or(|looked| held.is_none_or(|(id, _)| id != looked));
            let was_sent = self.attempts.iter().any(|attempt| {
                attempt.token == token
                    && !matches!(
                        attempt.outcome,
                        Outcome::NotCounted | Outcome::Denied | Outcome::Kept
                    )
            });
            let is_fair = !is_gap || self.class == Class::Gentle;
            if was_sent && !is_known && is_fair && self.is_honest {
                self.violations
                    .push(format!("{proc} sent {} again without knowing of it", short(token)));
            }
        }
        self.log.push(format!("{:>12} {proc} sends {} (known {is_known})", "", short(token)));
        self.attempts.push(Attempt { by, token: token.to_owned(), outcome: Outcome::Pending });
        self.attempts.len() - 1
    }

    /// Sends a response. Returns the fate of the refresh token.
    fn answered(
        &mut self,
        proc_id: usize,
        attempt: usize,
        token: &str,
        answer: &Result<Response<Bytes>, ConnectionDropped>,
    ) -> Outcome {
        let outcome = match answer {
            Err(_) => Outcome::Lost,
            Ok(answer) if answer.status() == StatusCode::OK => {
                match serde_json::from_slice::<Value>(answer.body()) {
                    Ok(tokens) if tokens["access_token"].is_string() => {
                        let next = tokens["refresh_token"].as_str().unwrap_or(token).to_owned();
                        let is_spent = next != token;
                        if is_spent {
                            self.parents.insert(next.clone(), token.to_owned());
                            let proc = &mut self.procs[proc_id];
                            proc.unsaved = Some(next.clone());
                            proc.unsaved_faults = 0;
                        }
                        let family = self.families[token];
                        self.families.insert(next, family);
                        let access = tokens["access_token"].as_str().unwrap().to_owned();
                        self.families.insert(access, family);
                        if is_spent { Outcome::Counted } else { Outcome::Kept }
                    }
                    _ => Outcome::Lost,
                }
            }
            Ok(answer) if answer.status() == StatusCode::SERVICE_UNAVAILABLE => Outcome::NotCounted,
            Ok(answer) if answer.status() == StatusCode::BAD_REQUEST => Outcome::Denied,
            Ok(_) => Outcome::Lost,
        };
        if outcome == Outcome::Kept {
            // No earlier attempt spent it either.
            for earlier in self.attempts.iter_mut().filter(|earlier| earlier.token == token) {
                earlier.outcome = Outcome::Kept;
            }
        }
        self.attempts[attempt].outcome = outcome;
        if !matches!(outcome, Outcome::Counted | Outcome::Kept | Outcome::Lost) {
            self.procs[proc_id].looked = None;
        }
        outcome
    }
}

impl Proc {
    /// Returns whether a successor would be lost with this process.
    fn is_in_danger(&self) -> bool {
        self.looked.is_some() || self.unsaved.is_some()
    }
}

pub fn short(token: &str) -> &str {
    token.rsplit_once('-').map_or(token, |(number, _)| number)
}

fn show(view: &View) -> String {
    let word = |token: &Option<String>| token.as_deref().map_or("-", short).to_owned();
    format!(
        "{}/{} {} {}{}{}{}",
        view.epoch,
        view.revision,
        word(&view.access),
        word(&view.refresh),
        if view.is_forgotten { " forgotten" } else { "" },
        view.intent
            .as_ref()
            .map_or(String::new(), |(by, attempt)| format!(" intent {} ({attempt})", &by[..4])),
        if view.denied.is_some() { " denied" } else { "" },
    )
}

// ===== the life of a worker =====

#[derive(Clone)]
pub struct Life {
    pub world: World,
    pub id: usize,
}

impl Life {
    pub fn health(&self) -> Health {
        self.world.state().procs[self.id].health
    }

    /// `kill -9`: its tasks stop, and its lock is held until the lease ends.
    pub fn kill(&self) {
        let mut state = self.world.state();
        let is_gentle = state.class == Class::Gentle;
        let life = &mut state.procs[self.id];
        if life.health == Health::Dead || is_gentle && life.is_in_danger() {
            return;
        }
        life.health = Health::Dead;
        drop(state);
        self.world.log(format!("{} killed", self.id));
        self.lease();
    }

    pub fn freeze(&self) {
        let mut state = self.world.state();
        let life = &mut state.procs[self.id];
        if life.health != Health::Running {
            return;
        }
        life.health = Health::Frozen;
        life.frozen_since = Some(Instant::now());
        let is_gentle = state.class == Class::Gentle;
        drop(state);
        self.world.log(format!("{} frozen", self.id));
        self.lease();
        if is_gentle {
            // The time limit of a fetch passes in here, although the process is frozen, and its answer is then lost.
            let this = self.clone();
            tokio::spawn(async move {
                sleep(LONGEST_GENTLE_FREEZE).await;
                this.thaw();
            });
        }
    }

    pub fn thaw(&self) {
        let mut state = self.world.state();
        let life = &mut state.procs[self.id];
        if life.health != Health::Frozen {
            return;
        }
        life.health = Health::Running;
        life.frozen_for += life.frozen_since.take().unwrap().elapsed();
        let wakers = std::mem::take(&mut life.wakers);
        drop(state);
        self.world.log(format!("{} thawed", self.id));
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Returns how long it has run since then.
    pub fn awake_since(&self, since: Instant, frozen: Duration) -> Duration {
        since.elapsed().saturating_sub(self.frozen_for().saturating_sub(frozen))
    }

    pub fn frozen_for(&self) -> Duration {
        let state = self.world.state();
        let life = &state.procs[self.id];
        life.frozen_for + life.frozen_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Runs a future as a part of the process: it stops while the process is frozen, and finally when it is dead.
    pub async fn run<F: Future>(&self, future: F) -> F::Output {
        let mut future = Box::pin(future);
        poll_fn(|cx| {
            let mut state = self.world.state();
            let life = &mut state.procs[self.id];
            if life.health != Health::Running {
                life.wakers.push(cx.waker().clone());
                return Poll::Pending;
            }
            drop(state);
            future.as_mut().poll(cx)
        })
        .await
    }

    /// Ends its lock after a while, unless the process resumes.
    fn lease(&self) {
        let Some((lock, holder)) = self.world.state().lock else {
            return;
        };
        if holder != self.id {
            return;
        }
        let this = self.clone();
        tokio::spawn(async move {
            sleep(LEASE).await;
            let is_held = this.world.state().lock == Some((lock, holder));
            if is_held && this.health() != Health::Running {
                this.world.lose_lock();
            }
        });
    }

    fn event(&self, point: Point) {
        self.world.event(self.id, point);
    }
}

const LEASE: Duration = Duration::from_secs(15);

const LONGEST_GENTLE_FREEZE: Duration = Duration::from_secs(200);

// ===== the store =====

/// The shared store, as one worker sees it. Operations continue when the process that began them is killed or frozen.
#[derive(Clone)]
pub struct Storage(pub Life);

impl Storage {
    async fn operate<T: Send + 'static>(
        &self,
        effect: impl FnOnce(&Life) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.0.run(self.operation(effect)).await
    }

    async fn operation<T: Send + 'static>(
        &self,
        effect: impl FnOnce(&Life) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let life = self.0.clone();
        let fault = {
            let mut state = life.world.state();
            let is_gentle = state.class == Class::Gentle;
            let fault = state.faults.pop_front().flatten();
            let down = state.down.then_some(OpFault::FailBefore);
            let fault = down.or(fault);
            state.failures += u64::from(fault.is_some());
            let proc = &mut state.procs[life.id];
            // More failures than retries leave a set unsaved, which is equivalent to a lost response.
            match fault {
                Some(OpFault::FailBefore | OpFault::FailAfter)
                    if is_gentle && proc.unsaved.is_some() =>
                {
                    proc.unsaved_faults += 1;
                    fault.filter(|_| proc.unsaved_faults <= 3)
                }
                fault => fault,
            }
        };
        let failure = || Err(StoreError::unavailable("the connection was cut"));
        let operation = tokio::spawn(async move {
            if let Some(OpFault::Delay(ms)) = fault {
                sleep(Duration::from_millis(ms)).await;
            }
            if let Some(OpFault::FailBefore) = fault {
                return failure();
            }
            let outcome = effect(&life);
            match fault {
                Some(OpFault::FailAfter) => return failure(),
                Some(OpFault::LateAnswer(ms)) => sleep(Duration::from_millis(ms)).await,
                _ => {}
            }
            outcome
        });
        operation.await.unwrap()
    }
}

impl TokenStore for Storage {
    type Lock = Lock;

    async fn lock(&self, wait: Duration) -> Result<Lock, StoreError> {
        self.operate(|_| Ok(())).await?;
        let life = self.0.clone();
        let shared = life.world.shared.clone();
        let taken = timeout(wait, async {
            loop {
                let freed = shared.freed.notified();
                let taken = {
                    let mut state = life.world.state();
                    if state.lock.is_none() {
                        state.locks += 1;
                        state.lock = Some((state.locks, life.id));
                        Some(state.locks)
                    } else {
                        None
                    }
                };
                match taken {
                    Some(id) => break Lock { life: life.clone(), id },
                    None => freed.await,
                }
            }
        });
        match self.0.run(taken).await {
            Ok(lock) => {
                self.0.event(Point::Locked);
                // The answer may be late.
                self.operate(|_| Ok(())).await?;
                Ok(lock)
            }
            Err(_) => Err(StoreError::held("another worker holds it")),
        }
    }

    async fn load(&self) -> Result<Option<StoredTokens>, StoreError> {
        self.operate(|life| {
            let record = life.world.record();
            life.event(Point::Loaded);
            Ok(record)
        })
        .await
    }

    async fn save(
        &self,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> Result<(), StoreError> {
        let record = record.clone();
        self.operate(move |life| {
            let point = life.world.state().save(life.id, &record, replaces)?;
            life.event(point);
            Ok(())
        })
        .await
    }
}

pub struct Lock {
    life: Life,
    id: u64,
}

impl StoreLock for Lock {
    async fn is_held(&self) -> Result<bool, StoreError> {
        let id = self.id;
        Storage(self.life.clone())
            .operate(move |life| {
                let mut state = life.world.state();
                let is_held = state.lock.is_some_and(|(held, _)| held == id);
                if is_held {
                    state.procs[life.id].looked = Some(id);
                }
                drop(state);
                if is_held {
                    life.event(Point::Looked);
                }
                Ok(is_held)
            })
            .await
    }

    async fn release(self) {}
}

impl Lock {
    fn free(life: &Life, id: u64) {
        let Ok(mut state) = life.world.shared.state.lock() else {
            return;
        };
        state.procs[life.id].looked = None;
        if state.lock == Some((id, life.id)) {
            state.lock = None;
            drop(state);
            life.world.shared.freed.notify_waiters();
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let health = match self.life.world.shared.state.lock() {
            Ok(state) => state.procs[self.life.id].health,
            Err(_) => return,
        };
        match health {
            Health::Dead => {}
            Health::Running => Self::free(&self.life, self.id),
            // A process that is frozen releases nothing before it goes on.
            Health::Frozen => {
                let (life, id) = (self.life.clone(), self.id);
                if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                    runtime.spawn(async move { life.run(async { Self::free(&life, id) }).await });
                }
            }
        }
    }
}

// ===== the network =====

/// The network to the token endpoint: a request in transit arrives even if its sender is killed.
#[derive(Clone)]
pub struct Network(pub Life);

impl Service<Request<Full<Bytes>>> for Network {
    type Response = Response<Full<Bytes>>;
    type Error = ConnectionDropped;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectionDropped>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectionDropped>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let life = self.0.clone();
        let service = life.world.shared.server.token_service();
        Box::pin(async move {
            let answer = tokio::spawn(carry(life.clone(), service, request)).await;
            {
                let mut state = life.world.state();
                let proc = &mut state.procs[life.id];
                proc.received.clone_from(&proc.unsaved);
            }
            match answer {
                Ok(answer) => answer,
                Err(_) => pending().await,
            }
        })
    }
}

async fn carry(
    life: Life,
    service: ServerService,
    request: Request<Full<Bytes>>,
) -> Result<Response<Full<Bytes>>, ConnectionDropped> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap_or_else(|never: Infallible| match never {}).to_bytes();
    let token = String::from_utf8_lossy(&body)
        .split('&')
        .find_map(|pair| pair.strip_prefix("refresh_token=").map(str::to_owned))
        .unwrap();
    let attempt = life.world.state().send(life.id, &token);
    life.event(Point::Sent);

    let request = Request::from_parts(head, Full::new(body));
    let answer: Result<Response<Bytes>, ConnectionDropped> = async {
        let (head, body) = service.oneshot(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Response::from_parts(head, body))
    }
    .await;

    let outcome = life.world.state().answered(life.id, attempt, &token, &answer);
    life.world.log(format!("{}: {} is {outcome:?}", life.id, short(&token)));
    life.event(Point::Answered);
    answer.map(|answer| answer.map(Full::new))
}
