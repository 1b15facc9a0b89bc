//! A fleet of workers that share a store, with random kills, freezes, delays, losses and outages in any order: the promises of
//! the ledger hold.
//!
//! It runs in tokio's paused time on one thread, so that a case can be repeated. `PROPTEST_CASES` sets the number of cases.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "reads tokio's paused clock, and shares locks with the code under test"
)]

mod world;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use http::{Request, StatusCode};
use http_body_util::Full;
use proptest::prelude::*;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep};
use tower::{ServiceBuilder, ServiceExt as _};
use tower_refresh::oauth2::{Dialect, RefreshTokenGrant, TokenEndpoint};
use tower_refresh::testing::{AuthorizationServer, Fault, Rotation, TokioClock};
use tower_refresh::{
    Clock, Credentials, Event, Events, OnUnavailable, RefreshLayer, RefreshPolicy, Renewal,
    SourceInfo, Status, Timestamp, TokenError, TokenSet, TokenSource, TokenStatus,
};
use world::{Blow, Class, Health, Life, Network, OpFault, Point, Storage, Trap, View, World};

// ===== steps =====

#[derive(Clone, Debug)]
struct Case {
    workers: usize,
    mode: Mode,
    lifetime: Duration,
    on_unavailable: Option<OnUnavailable>,
    /// The differences between the clocks of the workers.
    skew_ms: u64,
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Strict,
    Grace,
    /// The server does not rotate, and the dialect states it.
    Never,
    /// The server does not rotate, and the dialect does not state it.
    NeverUnknown,
}

#[derive(Clone, Debug)]
enum Step {
    Ask(usize, Wish),
    LogIn(usize),
    /// With the tokens of this many saves ago. Only for one class: a session does not know the tokens that an earlier one has
    /// spent.
    LogInAgain(usize, usize),
    LogOut(usize),
    /// The user logs in again, and a worker restarts with the new refresh token.
    Configure(usize),
    Revoke,
    Pass(u64),
    /// All runnable tasks make this many steps.
    Turn(u8),
    Kill(usize),
    Start(usize),
    Freeze(usize),
    Thaw(usize),
    LoseLock,
    Trap(Trap),
    StoreFaults(Vec<Option<OpFault>>),
    StoreDown,
    StoreUp,
    Endpoint(EndpointFault),
    RollBack(Option<usize>, bool),
}

#[derive(Clone, Copy, Debug)]
enum Wish {
    Token,
    Renew,
    Request,
    Settle,
}

#[derive(Clone, Copy, Debug)]
enum EndpointFault {
    Slow(u64),
    Unavailable,
    DropBefore,
    GarbageBefore,
    DropAfter,
    GarbageAfter,
    LateAnswer(u64),
}

fn case(class: Class) -> impl Strategy<Value = Case> {
    let mode = prop_oneof![
        6 => Just(Mode::Strict),
        2 => Just(Mode::Grace),
        1 => Just(Mode::Never),
        1 => Just(Mode::NeverUnknown),
    ];
    let lifetime = prop_oneof![Just(60), Just(5), Just(3600)].prop_map(Duration::from_secs);
    let on_unavailable = prop_oneof![
        6 => Just(None),
        1 => Just(Some(OnUnavailable::Fail)),
        1 => Just((class != Class::Gentle).then_some(OnUnavailable::Continue)),
    ];
    let skew = prop_oneof![4 => Just(0), 1 => Just(500_u64)];
    let steps = prop::collection::vec(step(class), 1..40);
    (2..=5_usize, mode, lifetime, on_unavailable, skew, steps).prop_map(
        |(workers, mode, lifetime, on_unavailable, skew_ms, steps)| Case {
            workers,
            mode,
            lifetime,
            on_unavailable,
            // Clocks that differ by more than a token lifetime are out of scope.
            skew_ms: if lifetime < Duration::from_secs(60) { 0 } else { skew_ms },
            steps,
        },
    )
}

fn step(class: Class) -> impl Strategy<Value = Step> {
    let worker = || 0..5_usize;
    let wish = prop_oneof![
        5 => Just(Wish::Token),
        2 => Just(Wish::Renew),
        2 => Just(Wish::Request),
        1 => Just(Wish::Settle),
    ];
    let pass = prop_oneof![
        Just(0),
        Just(10),
        Just(150),
        Just(1000),
        Just(6000),
        Just(31_000),
        Just(61_000),
        Just(300_000),
        Just(3_700_000),
    ];
    let delay = || prop_oneof![Just(5_u64), Just(300), Just(4000)];
    let fault = prop_oneof![
        2 => Just(None),
        1 => delay().prop_map(OpFault::Delay).prop_map(Some),
        1 => delay().prop_map(OpFault::LateAnswer).prop_map(Some),
        1 => Just(Some(OpFault::FailBefore)),
        1 => Just(Some(OpFault::FailAfter)),
    ];
    let gentle = prop_oneof![
        prop_oneof![Just(5), Just(900), Just(8000)].prop_map(EndpointFault::Slow),
        Just(EndpointFault::Unavailable),
        Just(EndpointFault::DropBefore),
        Just(EndpointFault::GarbageBefore),
    ];
    let rough = prop_oneof![
        Just(EndpointFault::DropAfter),
        Just(EndpointFault::GarbageAfter),
        prop_oneof![Just(900), Just(40_000), Just(130_000)].prop_map(EndpointFault::LateAnswer),
    ];
    let endpoint = if class == Class::Gentle {
        gentle.boxed()
    } else {
        prop_oneof![1 => gentle, 1 => rough].boxed()
    };
    let point = prop_oneof![
        Just(Point::Loaded),
        Just(Point::Locked),
        Just(Point::Intended),
        Just(Point::Saved),
        Just(Point::Looked),
        Just(Point::Sent),
        Just(Point::Answered),
    ];
    let blow = || {
        prop_oneof![
            Just(Blow::Kill),
            Just(Blow::Freeze),
            Just(Blow::LoseLock),
            Just(Blow::Disconnect)
        ]
    };
    let trap = (worker(), point, 0..3_u8, blow()).prop_map(|(worker, point, nth, blow)| Trap {
        worker,
        point,
        nth,
        blow,
    });
    let roll_back = (prop::option::of(0..4_usize), any::<bool>())
        .prop_map(|(by, doubt)| Step::RollBack(by, doubt));
    let any = prop_oneof![
        12 => (worker(), wish).prop_map(|(worker, wish)| Step::Ask(worker, wish)),
        1 => worker().prop_map(Step::LogIn),
        1 => (worker(), 1..4_usize).prop_map(|(worker, ago)| Step::LogInAgain(worker, ago)),
        1 => worker().prop_map(Step::LogOut),
        1 => worker().prop_map(Step::Configure),
        2 => Just(Step::Revoke),
        8 => pass.prop_map(Step::Pass),
        6 => (1..30_u8).prop_map(Step::Turn),
        2 => worker().prop_map(Step::Kill),
        2 => worker().prop_map(Step::Start),
        2 => worker().prop_map(Step::Freeze),
        3 => worker().prop_map(Step::Thaw),
        2 => Just(Step::LoseLock),
        4 => trap.prop_map(Step::Trap),
        3 => prop::collection::vec(fault, 1..8).prop_map(Step::StoreFaults),
        1 => Just(Step::StoreDown),
        2 => Just(Step::StoreUp),
        3 => endpoint.prop_map(Step::Endpoint),
    ];
    if class == Class::Forgetful {
        prop_oneof![12 => any, 1 => roll_back].boxed()
    } else {
        any.boxed()
    }
}

// ===== the workers =====

struct Worker {
    life: Life,
    credentials: Credentials,
    events: Events,
    configured: String,
    /// True if it goes on with what is in memory while the store is unavailable.
    continues: bool,
}

/// The grant of one process, which stands still with it.
struct Process {
    life: Life,
    grant: RefreshTokenGrant,
}

impl TokenSource for Process {
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        let world = &self.life.world;
        let outcome = self.life.run(self.grant.fetch(renewal)).await;
        match &outcome {
            Ok(tokens) => {
                let access = tokens.access_token().expose_secret();
                world.log(format!("{} fetched {}", self.life.id, world::short(access)));
            }
            Err(error) => {
                world.log(format!("{} fetched nothing: {error}", self.life.id));
                look_for_secrets(world, error);
            }
        }
        outcome
    }

    fn info(&self) -> SourceInfo {
        self.grant.info()
    }
}

/// The state before a worker asks its credentials for a newer token.
struct Asked {
    epoch: u64,
    failures: u64,
    /// The log-ins and log-outs of the process.
    adoptions: u64,
    /// True if a refresh is under way, which may have begun before.
    has_joined: bool,
}

impl Asked {
    fn now(life: &Life, credentials: &Credentials) -> Self {
        let world = &life.world;
        let epoch = world.state().epoch();
        let adoptions = world.state().procs[life.id].adoptions;
        let failures = world.failures();
        Self { epoch, failures, adoptions, has_joined: credentials.status().refreshing }
    }

    /// Checks the result of a refresh that this call has started.
    fn check(&self, life: &Life, outcome: &Result<TokenSet, TokenError>, continues: bool) {
        let world = &life.world;
        let has_logged = world.state().procs[life.id].adoptions != self.adoptions;
        if self.has_joined || has_logged {
            return;
        }
        match outcome {
            Ok(tokens) => {
                let access = tokens.access_token().expose_secret();
                let state = world.state();
                let is_old = state
                    .epochs_of(access)
                    .is_some_and(|epochs| epochs.iter().all(|of| *of < self.epoch));
                if is_old && state.class != Class::Forgetful && !continues {
                    drop(state);
                    world.violation(format!(
                        "{} was given {} although session {} had begun",
                        life.id,
                        world::short(access),
                        self.epoch
                    ));
                }
            }
            Err(error) if self.failures == world.failures() && !error.is_remembered() => {
                world.check_taken_back(life.id);
            }
            Err(_) => {}
        }
    }
}

#[derive(Clone)]
struct Skewed {
    clock: TokioClock,
    by: Duration,
}

impl Clock for Skewed {
    fn now(&self) -> Timestamp {
        let now = self.clock.now();
        Timestamp::new(now.monotonic(), now.wall() + self.by)
    }
}

/// No message, event or debug output has a token in it.
fn look_for_secrets(world: &World, shown: &(impl std::fmt::Debug + ?Sized)) {
    let shown = format!("{shown:?}");
    let has_token = ["rt-", "at-"].into_iter().any(|kind| {
        shown.match_indices(kind).any(|(at, _)| {
            shown[at + 3..].split('-').nth(1).is_some_and(|rest| {
                rest.len() >= 32 && rest.bytes().take(32).all(|byte| byte.is_ascii_hexdigit())
            })
        })
    });
    if has_token {
        world.violation(format!("a token is shown: {shown}"));
    }
    if shown.contains("panicked") {
        world.violation(format!("a source panicked: {shown}"));
    }
}

// ===== the run =====

struct Fleet {
    case: Case,
    clock: TokioClock,
    server: AuthorizationServer,
    world: World,
    workers: Vec<Worker>,
    tasks: Vec<(Life, String, JoinHandle<()>)>,
    families: u64,
}

/// The grace window of the server. The client is configured with half of it.
const GRACE: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(30);

impl Fleet {
    fn new(class: Class, case: Case) -> Self {
        let clock = TokioClock::new();
        let rotation = match case.mode {
            Mode::Strict => Rotation::Strict,
            Mode::Grace => Rotation::Grace(GRACE),
            Mode::Never | Mode::NeverUnknown => Rotation::Never,
        };
        let server = AuthorizationServer::builder()
            .rotation(rotation)
            .access_token_lifetime(case.lifetime)
            .clock(clock.clone())
            .build();
        let counts =
            case.mode != Mode::Never && case.on_unavailable != Some(OnUnavailable::Continue);
        let world = World::new(class, counts, server.clone());
        let mut fleet = Self {
            clock,
            server,
            world,
            workers: Vec::new(),
            tasks: Vec::new(),
            families: 0,
            case,
        };
        let first = fleet.issue().refresh_token().unwrap().expose_secret().to_owned();
        for worker in 0..fleet.case.workers {
            let worker = fleet.start(worker, first.clone());
            fleet.workers.push(worker);
        }
        fleet
    }

    /// Logs a user in.
    fn issue(&mut self) -> TokenSet {
        let tokens = self.server.issue();
        self.families += 1;
        let mut state = self.world.state();
        for token in
            [tokens.access_token().expose_secret(), tokens.refresh_token().unwrap().expose_secret()]
        {
            state.families.insert(token.to_owned(), self.families);
        }
        drop(state);
        tokens
    }

    fn start(&self, worker: usize, configured: String) -> Worker {
        let life = self.world.start(worker, &configured);
        let clock = Skewed {
            clock: self.clock.clone(),
            by: Duration::from_millis(self.case.skew_ms * worker as u64),
        };
        let mut dialect = Dialect::rfc6749();
        dialect.rotates = self.case.mode != Mode::Never;
        dialect.reuse_grace = (self.case.mode == Mode::Grace).then_some(GRACE / 2);
        let endpoint = TokenEndpoint::new(Network(life.clone()), "https://as.test/token")
            .unwrap()
            .dialect(dialect)
            .clock(clock.clone());
        let grant = RefreshTokenGrant::new(endpoint, configured.clone());
        let continues = self.case.on_unavailable == Some(OnUnavailable::Continue)
            || self.case.mode == Mode::Never && self.case.on_unavailable.is_none();
        let process = Process { life: life.clone(), grant };
        // Not random, so that a case can be repeated.
        let millisecond = Duration::from_millis(1);
        let policy = RefreshPolicy::default()
            .timeout(TIMEOUT)
            .jitter(Duration::ZERO)
            .backoff(millisecond, millisecond)
            .clock(clock);
        let mut builder = Credentials::builder(process).store(Storage(life.clone())).policy(policy);
        if let Some(on_unavailable) = self.case.on_unavailable {
            builder = builder.on_unavailable(on_unavailable);
        }
        let credentials = builder.build();
        let events = credentials.subscribe();
        Worker { life, credentials, events, configured, continues }
    }

    async fn step(&mut self, step: Step) {
        self.world.log(format!("-- {step:?}"));
        let count = self.workers.len();
        match step {
            Step::Ask(worker, wish) => self.ask(worker % count, wish),
            Step::LogIn(worker) => {
                let tokens = self.issue();
                self.adopt(worker % count, Some(tokens));
            }
            Step::LogInAgain(worker, ago) => {
                let earlier = {
                    let state = self.world.state();
                    let at = state.history.len().checked_sub(ago);
                    at.map(|at| state.history[at].view.clone())
                };
                if let Some(View { access: Some(access), refresh: Some(refresh), .. }) = earlier {
                    let tokens = TokenSet::bearer(access)
                        .unwrap()
                        .with_expires_in(self.case.lifetime)
                        .with_refresh_token(refresh);
                    self.adopt(worker % count, Some(tokens));
                }
            }
            Step::LogOut(worker) => self.adopt(worker % count, None),
            Step::Configure(worker) => {
                let worker = worker % count;
                self.workers[worker].life.kill();
                if self.workers[worker].life.health() == Health::Dead {
                    let token = self.issue().refresh_token().unwrap().expose_secret().to_owned();
                    self.workers[worker] = self.start(worker, token);
                }
            }
            Step::Revoke => self.server.revoke_all_access_tokens(),
            Step::Pass(ms) => sleep(Duration::from_millis(ms)).await,
            Step::Turn(times) => {
                for _ in 0..times {
                    yield_now().await;
                }
            }
            Step::Kill(worker) => self.workers[worker % count].life.kill(),
            Step::Start(worker) => self.restart(worker % count),
            Step::Freeze(worker) => self.workers[worker % count].life.freeze(),
            Step::Thaw(worker) => self.workers[worker % count].life.thaw(),
            Step::LoseLock => self.world.lose_lock(),
            Step::Trap(trap) => {
                let trap = Trap { worker: trap.worker % count, ..trap };
                self.world.state().traps.push(trap);
            }
            Step::StoreFaults(faults) => self.world.state().faults = faults.into(),
            Step::StoreDown => self.world.state().down = true,
            Step::StoreUp => self.world.state().down = false,
            Step::Endpoint(fault) => self.server.token_faults().once(match fault {
                EndpointFault::Slow(ms) => Fault::normal().delay(Duration::from_millis(ms)),
                EndpointFault::Unavailable => Fault::unavailable(),
                EndpointFault::DropBefore => Fault::drop_connection(),
                EndpointFault::GarbageBefore => Fault::status(StatusCode::OK).body("<p>hello"),
                EndpointFault::DropAfter => Fault::drop_connection().after_processing(),
                EndpointFault::GarbageAfter => {
                    Fault::status(StatusCode::OK).body("<p>hello").after_processing()
                }
                EndpointFault::LateAnswer(ms) => {
                    Fault::normal().after_processing().delay(Duration::from_millis(ms))
                }
            }),
            Step::RollBack(by, doubt) => self.world.roll_back(by, doubt),
        }
    }

    fn restart(&mut self, worker: usize) {
        if self.workers[worker].life.health() == Health::Dead {
            self.workers[worker] = self.start(worker, self.workers[worker].configured.clone());
        }
    }

    fn ask(&mut self, worker: usize, wish: Wish) {
        let Worker { life, credentials, continues, .. } = &self.workers[worker];
        if life.health() == Health::Dead {
            return;
        }
        let (life, credentials, continues) = (life.clone(), credentials.clone(), *continues);
        let server = self.server.clone();
        let what = format!("{wish:?} of {}", life.id);
        let (asking, name) = (life.clone(), what.clone());
        let began = (Instant::now(), life.frozen_for());
        let task = tokio::spawn(async move {
            let world = asking.world.clone();
            let (outcome, limit) =
                asking.run(wished(&asking, credentials, server, wish, continues)).await;
            let took = asking.awake_since(began.0, began.1);
            if took > limit {
                world.violation(format!("{name} took {took:?}"));
            }
            world.log(format!("{name}: {outcome}"));
        });
        self.tasks.push((life, what, task));
    }

    fn adopt(&mut self, worker: usize, tokens: Option<TokenSet>) {
        let Worker { life, credentials, .. } = &self.workers[worker];
        if life.health() == Health::Dead {
            return;
        }
        let (life, credentials) = (life.clone(), credentials.clone());
        let what =
            format!("{} of {}", if tokens.is_some() { "log-in" } else { "log-out" }, life.id);
        let (asking, name) = (life.clone(), what.clone());
        let task = tokio::spawn(async move {
            let world = asking.world.clone();
            let adopting = async {
                let (number, from) = {
                    let mut state = world.state();
                    let life = &mut state.procs[asking.id];
                    life.adoptions += 1;
                    (life.adoptions, state.history.len())
                };
                let outcome = match tokens.clone() {
                    Some(tokens) => credentials.log_in(tokens).await,
                    None => credentials.log_out().await,
                };
                (outcome, number, from)
            };
            let (outcome, number, from) = asking.run(adopting).await;
            let state = world.state();
            let is_stored = state.history[from..].iter().any(|saved| {
                saved.proc == asking.id
                    && match &tokens {
                        None => saved.view.is_forgotten,
                        Some(tokens) => {
                            saved.view.access.as_deref()
                                == Some(tokens.access_token().expose_secret())
                        }
                    }
            });
            let is_last = state.procs[asking.id].adoptions == number;
            drop(state);
            match &outcome {
                Ok(()) if is_last && !is_stored => {
                    world.violation(format!("{name} was confirmed, and is not stored"));
                }
                Ok(()) => {}
                Err(error) => look_for_secrets(&world, error),
            }
            world.log(format!("{name}: {outcome:?}"));
        });
        self.tasks.push((life, what, task));
    }

    fn drain_events(&mut self) {
        for worker in &mut self.workers {
            while let Some(Some(event)) = worker.events.recv().now_or_never() {
                look_for_secrets(&self.world, &event);
                if matches!(event, Event::OutcomeUnknown { .. } | Event::Lagged { .. }) {
                    self.world.state().procs[worker.life.id].told = true;
                }
                self.world.log(format!("{} reports {event:?}", worker.life.id));
            }
        }
    }

    async fn run(&mut self, class: Class) -> Result<(), String> {
        let steps: VecDeque<Step> = std::mem::take(&mut self.case.steps).into();
        for step in steps {
            self.step(step).await;
            self.drain_events();
            self.checked()?;
        }
        self.end_well(class).await;
        self.drain_events();
        for worker in &self.workers {
            let life = worker.life.id;
            let (knew, told) = {
                let life = &self.world.state().procs[life];
                (life.knew, life.told)
            };
            if knew && !told {
                self.world.violation(format!("{life} kept what it knew to itself"));
            }
        }
        self.checked()
    }

    /// Ends all faults, and checks that every worker gets a token or a justified error.
    async fn end_well(&mut self, class: Class) {
        self.world.log("-- all is well again");
        {
            let mut state = self.world.state();
            state.down = false;
            state.faults.clear();
            state.traps.clear();
        }
        self.server.token_faults().clear();
        for worker in 0..self.workers.len() {
            self.workers[worker].life.thaw();
            self.restart(worker);
        }
        sleep(Duration::from_secs(1200)).await;
        for (life, what, task) in std::mem::take(&mut self.tasks) {
            if life.health() != Health::Dead && !task.is_finished() {
                self.world.violation(format!("{what} hangs"));
            }
        }
        if self.world.is_locked() {
            self.world.violation("the lock is still held");
        }

        let pause = self.case.lifetime.max(Duration::from_secs(16 * 60));
        for _ in 0..4 {
            let _ = self.all_ask().await;
            self.drain_events();
            sleep(pause).await;
        }
        for worker in &self.workers {
            match worker.credentials.flush().await {
                Ok(()) => self.world.check_settled(worker.life.id),
                Err(error) => {
                    self.world.violation(format!("{} is not settled: {error}", worker.life.id));
                }
            }
        }
        self.world.log("-- the last round");
        let before = self.server.counters();
        let answers = self.all_ask().await;
        let after = self.server.counters();
        let record = self.world.record().as_ref().map(View::of);
        let is_alive = record
            .as_ref()
            .and_then(|record| record.refresh.as_ref())
            .is_some_and(|token| self.server.is_unspent(token));
        let is_out = record.as_ref().is_some_and(|record| record.is_forgotten);
        let errors: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
        if is_alive {
            if let Some(error) = errors.first() {
                self.world.violation(format!("a worker gets no token: {error}"));
            } else {
                let mut tokens: Vec<_> = answers
                    .iter()
                    .flatten()
                    .map(|tokens| tokens.access_token().expose_secret())
                    .collect();
                tokens.dedup();
                if tokens.len() > 1 {
                    self.world.violation("they have different tokens");
                }
                if !self.server.is_live(tokens[0]) {
                    self.world.violation("the token is dead");
                }
                if after.token_requests != before.token_requests + 1 {
                    self.world.violation(format!(
                        "{} requests for one token",
                        after.token_requests - before.token_requests
                    ));
                }
            }
        } else {
            // A token that was over on arrival is used until a server rejects it.
            let endless = self.workers.iter().filter(|worker| {
                let status = worker.credentials.status();
                status.generation.is_some() && status.usable_for.is_none()
            });
            if errors.len() + endless.count() < answers.len() {
                self.world.violation("a worker has an impossible token");
            }
            if after.token_requests != before.token_requests {
                self.world.violation("a token request that makes no sense");
            }
            if class == Class::Gentle && !is_out {
                self.world.violation(format!("the session is lost: {record:?}"));
            }
            if let Some(error) = errors.iter().find(|error| !error.is_denied()) {
                self.world.violation(format!("not denied: {error}"));
            }
        }

        let counters = self.server.counters();
        if class == Class::Gentle {
            if counters.refresh_token_reuses > 0 || counters.families_revoked > 0 {
                self.world.violation("a refresh token was reused");
            }
            let rotates = matches!(self.case.mode, Mode::Strict | Mode::Grace);
            if rotates && counters.refresh_token_uses.values().any(|uses| *uses > 1) {
                self.world.violation("a refresh token was used twice");
            }
        }
    }

    async fn all_ask(&self) -> Vec<Result<TokenSet, TokenError>> {
        let answers = join_all(self.workers.iter().map(|worker| worker.credentials.tokens())).await;
        for (worker, answer) in self.workers.iter().zip(&answers) {
            match answer {
                Ok(tokens) => {
                    let access = tokens.access_token().expose_secret();
                    self.world.log(format!("{} has {}", worker.life.id, world::short(access)));
                }
                Err(error) => {
                    look_for_secrets(&self.world, error);
                    self.world.log(format!("{} has none: {error}", worker.life.id));
                }
            }
        }
        answers
    }

    fn checked(&self) -> Result<(), String> {
        let state = self.world.state();
        if state.violations.is_empty() {
            return Ok(());
        }
        Err(format!("{}\n\n{}", state.violations.join("\n"), state.log.join("\n")))
    }
}

/// Returns the next call of a worker, and how long it may take.
async fn wished(
    life: &Life,
    credentials: Credentials,
    server: AuthorizationServer,
    wish: Wish,
    continues: bool,
) -> (String, Duration) {
    let world = &life.world;
    let limit = TIMEOUT + Duration::from_millis(100);
    let shown = |outcome: Result<TokenSet, TokenError>| match outcome {
        Ok(tokens) => world::short(tokens.access_token().expose_secret()).to_owned(),
        Err(error) => {
            look_for_secrets(world, &error);
            error.to_string()
        }
    };
    match wish {
        Wish::Token => {
            let Status { token, usable_for, .. } = credentials.status();
            // After a failed refresh a token is used to its end, which may come while the request waits.
            let works = matches!(token, TokenStatus::Fresh | TokenStatus::Stale)
                && usable_for != Some(Duration::ZERO);
            let asked = Asked::now(life, &credentials);
            let outcome = credentials.tokens().await;
            if matches!(token, TokenStatus::Missing | TokenStatus::Expired) {
                asked.check(life, &outcome, continues);
            }
            if let (true, Err(error)) = (works, &outcome) {
                world.violation(format!("a token that works was not served: {error}"));
            }
            (shown(outcome), limit)
        }
        Wish::Renew => {
            let asked = Asked::now(life, &credentials);
            let outcome = credentials.refresh().await;
            asked.check(life, &outcome, continues);
            (shown(outcome), limit)
        }
        Wish::Request => {
            let client = ServiceBuilder::new()
                .layer(RefreshLayer::new(credentials).origin("https://api.test").unwrap())
                .service(server.resource_service());
            let request = Request::get("https://api.test/").body(Full::<Bytes>::default()).unwrap();
            let outcome = match client.oneshot(request).await {
                Ok(response) => response.status().to_string(),
                Err(error) => {
                    look_for_secrets(world, &*error);
                    error.to_string()
                }
            };
            (outcome, limit * 3)
        }
        // The duration of a refresh.
        Wish::Settle => {
            let outcome = credentials.flush().await;
            if outcome.is_ok() {
                world.check_settled(life.id);
            }
            (format!("{outcome:?}"), Duration::from_secs(1200))
        }
    }
}

fn run(class: Class, case: Case) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime
        .block_on(async { Fleet::new(class, case).run(class).await })
        .map_err(TestCaseError::fail)
}

/// Runs this number of random cases, or the number in `PROPTEST_CASES`.
fn check(class: Class, cases: u32) {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let config = ProptestConfig {
        cases: asked.unwrap_or(cases),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    if let Err(error) = runner.run(&case(class), |case| run(class, case)) {
        panic!("{error}");
    }
}

#[test]
fn a_log_in_that_a_sibling_overtook_is_not_stored_again() {
    let steps = [
        Step::LogIn(0),
        Step::Pass(10),
        Step::Endpoint(EndpointFault::Slow(900)),
        Step::Ask(0, Wish::Renew),
        Step::Pass(10),
        Step::LogIn(1),
    ];
    found(Class::Gentle, 2, steps);
}

#[test]
fn configured_token_does_not_return_with_a_late_log_in() {
    let steps = [
        Step::Configure(1),
        Step::StoreFaults(vec![None, Some(OpFault::FailBefore)]),
        Step::LogIn(1),
        Step::Pass(10),
        Step::LogIn(0),
        Step::Pass(10),
    ];
    found(Class::Gentle, 2, steps);
}

#[test]
fn refresh_token_brought_again_keeps_its_open_intent() {
    let steps = [
        Step::Ask(0, Wish::Token),
        Step::Pass(61_000),
        Step::Endpoint(EndpointFault::DropAfter),
        Step::Ask(0, Wish::Token),
        Step::Pass(10),
        Step::LogInAgain(0, 1),
        Step::Pass(10),
    ];
    found(Class::Rough, 2, steps);
}

#[test]
fn a_log_out_that_came_too_late_does_not_lock_others_out() {
    let steps = [
        Step::Configure(2),
        Step::StoreFaults(vec![None, Some(OpFault::FailBefore)]),
        Step::LogOut(1),
        Step::Pass(10),
        Step::LogOut(2),
        Step::Pass(10),
    ];
    found(Class::Gentle, 3, steps);
}

#[test]
fn an_intent_that_is_taken_back_leaves_the_doubt() {
    let steps = [
        // The intent is saved, although the worker cannot know it.
        Step::StoreFaults(vec![None, None, None, None, Some(OpFault::FailAfter)]),
        Step::Ask(0, Wish::Token),
        Step::Pass(10),
        Step::Ask(1, Wish::Token),
        Step::Pass(10),
        Step::Kill(1),
        Step::RollBack(Some(2), true),
        Step::Ask(0, Wish::Token),
        Step::Pass(10),
    ];
    found(Class::Forgetful, 2, steps);
}

#[test]
fn login_that_was_saved_despite_an_error_is_not_saved_again() {
    let steps = [
        Step::Endpoint(EndpointFault::Slow(900)),
        Step::LogIn(2),
        Step::StoreFaults(vec![None, Some(OpFault::FailAfter)]),
        Step::Pass(61_000),
        Step::Ask(0, Wish::Token),
        Step::Pass(10),
        Step::Ask(2, Wish::Token),
    ];
    found(Class::Gentle, 4, steps);
}

#[test]
fn session_that_went_on_offline_is_not_replaced_by_its_parent() {
    let case = Case {
        workers: 4,
        mode: Mode::Grace,
        lifetime: Duration::from_secs(5),
        on_unavailable: Some(OnUnavailable::Continue),
        skew_ms: 0,
        steps: vec![
            Step::StoreDown,
            Step::Ask(2, Wish::Token),
            Step::Ask(1, Wish::Token),
            Step::Ask(4, Wish::Token),
            Step::Pass(6000),
            Step::Ask(1, Wish::Token),
            Step::Pass(10),
        ],
    };
    if let Err(error) = run(Class::Rough, case) {
        panic!("{error}");
    }
}

/// Runs a case that the model has found.
fn found(class: Class, workers: usize, steps: impl Into<Vec<Step>>) {
    let case = Case {
        workers,
        mode: Mode::Strict,
        lifetime: Duration::from_secs(60),
        on_unavailable: None,
        skew_ms: 0,
        steps: steps.into(),
    };
    if let Err(error) = run(class, case) {
        panic!("{error}");
    }
}

#[test]
fn without_lost_answers_no_refresh_token_is_used_twice() {
    check(Class::Gentle, 48);
}

#[test]
fn random_faults_cause_no_blind_reuse_and_lose_no_saved_token() {
    check(Class::Rough, 48);
}

#[test]
fn forgetful_store_leaves_no_worker_hanging() {
    check(Class::Forgetful, 32);
}
