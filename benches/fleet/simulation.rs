//! A fleet in paused time: processes that send the requests of many users.
//!
//! The requests are the same in each run. The credentials draw their jitter anew, which changes a peak by some per cent.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::time::{Instant, sleep_until};
use tower::{Layer as _, Service as _};
use tower_refresh::testing::TokioClock;
use tower_refresh::{
    Credentials, CredentialsPool, Keyed, Refresh, RefreshLayer, RefreshPolicy, RequestHead,
};

use crate::HOUR;
use crate::fleets::USERS;
use crate::support::services::Body;
use crate::world::{Api, Ends, World};

/// The time between two requests of a user, on average. Each goes to one of the processes, at random.
pub(crate) const INTERVAL: Duration = Duration::from_secs(10);

/// The figures are of the time between these two. Before it, all users get their first tokens.
pub(crate) const FROM: usize = 60 * 60;
pub(crate) const TO: usize = 130 * 60;

/// When the event of a scenario happens.
pub(crate) const EVENT: usize = 65 * 60;

pub(crate) const OUTAGE: usize = 10 * 60;

#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) jitter: Duration,
    /// The first tokens of the users are obtained within this time.
    pub(crate) logged_in_within: Duration,
    pub(crate) event: Event,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Event {
    None,
    /// All processes are restarted at once.
    Deploy,
    /// The token endpoint fails.
    Outage,
    /// The access tokens of all users are revoked.
    Revocation,
}

/// The result of a simulation. The series have an entry for each second of the measured time.
pub(crate) struct Outcome {
    pub(crate) users: usize,
    pub(crate) granted: Vec<f64>,
    pub(crate) failed: Vec<f64>,
    pub(crate) stored: Vec<f64>,
    pub(crate) requests: f64,
    pub(crate) waited: u64,
    pub(crate) waited_long: u64,
    pub(crate) failed_requests: u64,
}

pub(crate) fn run(scenario: Scenario, processes: usize, users: usize) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut fleet = Fleet::new(scenario, processes, users);
        fleet.run().await;
        fleet.outcome()
    })
}

type Process = Refresh<Api, Keyed<u32, fn(RequestHead<'_>) -> Option<u32>>>;

struct Fleet {
    scenario: Scenario,
    world: Arc<World>,
    users: usize,
    processes: Vec<Process>,
    clock: TokioClock,
    random: Random,
    start: Instant,
    /// The next request of each user at each process, in milliseconds since the start.
    queue: BinaryHeap<Reverse<(u64, u32)>>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    waited: AtomicU64,
    waited_long: AtomicU64,
    failed_requests: AtomicU64,
}

const TICK: u64 = 10;

impl Fleet {
    fn new(scenario: Scenario, processes: usize, users: usize) -> Self {
        let mut fleet = Self {
            scenario,
            world: World::new(users, TO),
            users,
            processes: Vec::new(),
            clock: TokioClock::new(),
            random: Random(0x9E37_79B9_7F4A_7C15),
            start: Instant::now(),
            queue: BinaryHeap::new(),
            counts: Arc::default(),
        };
        fleet.start_processes(processes);
        let first: Vec<_> = (0..users)
            .map(|_| fleet.random.next() * scenario.logged_in_within.as_millis() as f64)
            .collect();
        fleet.schedule_all(|user| first[user] as u64);
        fleet
    }

    fn start_processes(&mut self, number: usize) {
        // In proportion to the users too. Where that is less than one, the limit is never reached.
        let refreshes = match REFRESHES * self.users / USERS {
            0 => REFRESHES,
            refreshes => refreshes,
        };
        let process = |_| {
            let policy =
                RefreshPolicy::default().jitter(self.scenario.jitter).clock(self.clock.clone());
            let world = Arc::clone(&self.world);
            let pool = CredentialsPool::builder(move |user: &u32| {
                Credentials::builder(world.source(*user))
                    .store(world.store(*user))
                    .policy(policy.clone())
            });
            // No eviction: requests for fresh tokens are left out, so that the idle times are not the real ones.
            let pool = pool
                .capacity(2 * self.users + 64)
                .concurrent_refreshes(refreshes)
                .idle(24 * HOUR)
                .clock(self.clock.clone())
                .build();
            let key: fn(RequestHead<'_>) -> Option<u32> = |head| head.extensions().get().copied();
            let layer = RefreshLayer::keyed(pool, key).origin("https://api.example.com");
            layer.expect("a valid origin").layer(Api(Arc::clone(&self.world)))
        };
        self.processes = (0..number).map(process).collect();
    }

    async fn run(&mut self) {
        let event = EVENT as u64 * 1000;
        for now in (0..TO as u64 * 1000).step_by(TICK as usize) {
            sleep_until(self.start + Duration::from_millis(now)).await;
            match self.scenario.event {
                Event::Deploy if now == event => {
                    self.start_processes(self.processes.len());
                    self.schedule_all(|_| now);
                }
                Event::Revocation if now == event => {
                    self.world.revoke_all();
                    self.schedule_all(|_| now);
                }
                Event::Outage => {
                    self.world.set_down((event..event + OUTAGE as u64 * 1000).contains(&now));
                }
                _ => {}
            }
            while let Some(&Reverse((at, pair))) = self.queue.peek()
                && at <= now
            {
                self.queue.pop();
                let next = self.request(pair, now);
                self.schedule(pair, next);
            }
        }
    }

    /// Schedules a request of each user at each process, after the time that is given for the user.
    fn schedule_all(&mut self, after: impl Fn(usize) -> u64) {
        self.queue.clear();
        for pair in 0..self.processes.len() * self.users {
            self.schedule(pair as u32, after(pair % self.users));
        }
    }

    /// Schedules the next request of a user at a process: the times between two of them are distributed exponentially.
    fn schedule(&mut self, pair: u32, after: u64) {
        let mean = INTERVAL.as_millis() as f64 * self.processes.len() as f64;
        let at = after + (-(1.0 - self.random.next()).ln() * mean) as u64;
        if at < TO as u64 * 1000 {
            self.queue.push(Reverse((at, pair)));
        }
    }

    /// Sends a request. Returns when the next one can have an effect: the requests before it only find a fresh token, and are left out.
    fn request(&mut self, pair: u32, now: u64) -> u64 {
        let process = &mut self.processes[pair as usize / self.users];
        let mut request = Request::new(Full::default());
        *request.uri_mut() = http::Uri::from_static("https://api.example.com/v1/things");
        request.extensions_mut().insert(pair % self.users as u32);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(process.poll_ready(&mut cx).is_ready());
        let mut response = Box::pin(process.call(request));
        let is_measured = now >= FROM as u64 * 1000;
        let counts = Arc::clone(&self.counts);
        match response.as_mut().poll(&mut cx) {
            Poll::Ready(response) => {
                let ends = response
                    .ok()
                    .and_then(|it: http::Response<Body>| it.extensions().get().copied());
                let Some(Ends(ends)) = ends else {
                    counts.failed_requests.fetch_add(u64::from(is_measured), Relaxed);
                    return now;
                };
                let margin = (REFRESH_AHEAD + self.scenario.jitter).as_millis() as u64;
                now.max(ends.saturating_sub(margin))
            }
            Poll::Pending => {
                let sent = Instant::now();
                tokio::spawn(async move {
                    let response = response.await;
                    let is_accepted = response.is_ok_and(|it| it.status() == StatusCode::OK);
                    let took = sent.elapsed();
                    if is_measured {
                        counts.waited.fetch_add(1, Relaxed);
                        counts.waited_long.fetch_add(u64::from(took >= LONG), Relaxed);
                        counts.failed_requests.fetch_add(u64::from(!is_accepted), Relaxed);
                    }
                });
                now
            }
        }
    }

    fn outcome(&self) -> Outcome {
        assert_eq!(self.world.reuses.load(Relaxed), 0, "a refresh token was sent twice");
        let [granted, failed, stored] =
            [&self.world.granted, &self.world.failed, &self.world.stored]
                .map(|series| series.to_vec()[FROM..].to_vec());
        let load = |count: &AtomicU64| count.load(Relaxed);
        Outcome {
            users: self.users,
            granted,
            failed,
            stored,
            requests: self.users as f64 * (TO - FROM) as f64 / INTERVAL.as_secs_f64(),
            waited: load(&self.counts.waited),
            waited_long: load(&self.counts.waited_long),
            failed_requests: load(&self.counts.failed_requests),
        }
    }
}

/// The default of `CredentialsPoolBuilder::concurrent_refreshes`.
const REFRESHES: usize = 64;

/// A wait of this length is one for the token endpoint, and not only for the store.
const LONG: Duration = Duration::from_millis(40);

/// The default of `RefreshPolicy::refresh_ahead` for tokens of an hour, and some time for rounding.
const REFRESH_AHEAD: Duration = Duration::from_secs(310);

/// Random numbers from 0 to 1, the same in each run (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
