//! The throughput of several threads that send requests with a fresh token.
//!
//! `cargo bench --all-features --bench contention`. All threads send through clones of one layered service, a clone for each
//! request, or each through a layered service of its own over the same credentials. A cell is the throughput relative to one thread.
//! The last column is the loss from one thread to two, as a multiple of the static header's.
#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench fails by panicking, and measures time"
)]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::allocations::without_counting;
use support::compare::{Rounds, Times, in_turn};
use support::requests::{Requests, Values};
use support::services::{Api, Large, Stack, send};
use support::stacks::{ARMED, NAMES, PLAIN, STATIC, TOKEN, refresh};
use support::table;
use tower::Layer;
use tower_http::auth::AddAuthorizationLayer;
use tower_refresh::BoxError;

const THREADS: [usize; 3] = [1, 2, 4];
const STACKS: [usize; 3] = [STATIC, PLAIN, ARMED];

/// Sends a number of requests from each of a number of threads, and returns the time that all took.
type Run = Box<dyn Fn(usize, u32) -> Duration>;

fn main() {
    if support::lists() {
        return;
    }
    println!("{} processors", thread::available_parallelism().map_or(0, usize::from));
    for headers in [0, 8] {
        compare(&format!("a small service, {headers} static headers"), &Api, headers);
    }
    compare("a service of 304 bytes with four shared counters, 8 static headers", &Large::new(), 8);
}

fn compare<S>(name: &str, service: &S, headers: usize)
where
    S: Stack + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    let requests = Requests::new(headers, Values::Static);
    for (mode, shared) in [("one layered service", true), ("one layered service per thread", false)]
    {
        let runs = STACKS.map(|stack| one_over(stack, service, &requests, shared));
        print(&format!("Over {name}, {mode}"), &measure(&runs));
    }
}

fn one_over<S>(stack: usize, service: &S, requests: &Requests, shared: bool) -> Run
where
    S: Stack + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    let (service, requests) = (service.clone(), requests.clone());
    match stack {
        STATIC => run(AddAuthorizationLayer::bearer(TOKEN), service, requests, shared),
        PLAIN => run(refresh().without_retry(), service, requests, shared),
        _ => run(refresh(), service, requests, shared),
    }
}

fn run<L, S>(layer: L, service: S, requests: Requests, shared: bool) -> Run
where
    L: Layer<S> + Sync + 'static,
    L::Service: Stack + Clone + Send + Sync,
    S: Clone + Sync + 'static,
{
    Box::new(move |threads, count| {
        let one = layer.layer(service.clone());
        let missing = AtomicUsize::new(threads);
        let worker = || {
            let stack = if shared { one.clone() } else { layer.layer(service.clone()) };
            let requests = requests.clone();
            // A `Barrier` would wake the threads one after the other.
            missing.fetch_sub(1, Ordering::AcqRel);
            while missing.load(Ordering::Acquire) != 0 {
                thread::yield_now();
            }
            let began = Instant::now();
            without_counting(|| {
                for _ in 0..count {
                    drop(send(&mut stack.clone(), requests.build()));
                }
            });
            (began, Instant::now())
        };
        let times: Vec<_> = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().map(|worker| worker.join().expect("no panic")).collect()
        });
        let began = times.iter().map(|times| times.0).min().expect("a thread");
        let ended = times.iter().map(|times| times.1).max().expect("a thread");
        ended - began
    })
}

/// Measures all stacks with all numbers of threads, round by round.
fn measure(runs: &[Run; STACKS.len()]) -> Times {
    let length = Rounds::new(251, 500);
    let mut times = vec![Vec::new(); STACKS.len() * THREADS.len()];
    for number in in_turn(times.len(), length.rounds) {
        let threads = THREADS[number % THREADS.len()];
        let took = runs[number / THREADS.len()](threads, length.requests).as_nanos() as f64;
        times[number].push(took / (threads as f64 * f64::from(length.requests)));
    }
    Times::from_rounds(times)
}

/// Prints the fastest rounds: a median would be the throughput of the processors that other programs leave.
fn print(title: &str, times: &Times) {
    let row = |stack: usize| {
        let time = |threads: usize| times.fastest(stack * THREADS.len() + threads);
        let throughput = |threads: usize| time(0) / time(threads);
        let mut row = vec![NAMES[STACKS[stack]].to_owned(), format!("{:.0} ns", time(0))];
        row.extend((1..THREADS.len()).map(|threads| format!("× {:.2}", throughput(threads))));
        (row, 1.0 - throughput(1) / 2.0)
    };
    let (mut rows, losses): (Vec<_>, Vec<_>) = (0..STACKS.len()).map(row).unzip();
    for (row, loss) in rows.iter_mut().zip(&losses) {
        row.push(format!("{:.2}", loss / losses[0]));
    }
    table::print(title, &["Stack", "1 thread", "2 threads", "4 threads", "Loss"], &rows);
}
