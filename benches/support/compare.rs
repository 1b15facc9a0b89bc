//! Times of several contestants in one run.
//!
//! All contestants run in each round, one after the other, so that a busy machine slows all of them. Ratios and differences are
//! taken round by round, and the median round counts.

use std::time::Instant;

use super::allocations::without_counting;
use super::stacks::Run;

/// The length of a measurement.
#[derive(Clone, Copy)]
pub(crate) struct Rounds {
    pub(crate) rounds: usize,
    pub(crate) requests: u32,
}

impl Rounds {
    /// Returns these rounds under `cargo bench`. Returns one short round under `cargo test`, which checks that a bench runs.
    pub(crate) fn new(rounds: usize, requests: u32) -> Self {
        if std::env::args().any(|argument| argument == "--bench") {
            Self { rounds, requests }
        } else {
            Self { rounds: 1, requests: 10 }
        }
    }
}

/// Nanoseconds per request, of each contestant in each round.
pub(crate) struct Times(Vec<Vec<f64>>);

impl Times {
    /// Runs the contestants round by round. Each round begins with another of them.
    pub(crate) fn measure(length: Rounds, contestants: &mut [Run]) -> Self {
        let count = contestants.len();
        let mut times = vec![Vec::with_capacity(length.rounds); count];
        without_counting(|| {
            for contestant in contestants.iter_mut() {
                contestant(length.requests / 4);
            }
            for round in 0..length.rounds {
                for place in 0..count {
                    let number = (round + place) % count;
                    let began = Instant::now();
                    contestants[number](length.requests);
                    let took = began.elapsed().as_nanos() as f64;
                    times[number].push(took / f64::from(length.requests));
                }
            }
        });
        Self(times)
    }

    /// Returns the time of a request.
    pub(crate) fn nanoseconds(&self, contestant: usize) -> f64 {
        median(self.0[contestant].clone())
    }

    /// Returns the ratio to a baseline.
    pub(crate) fn ratio(&self, contestant: usize, baseline: usize) -> f64 {
        self.by_round(contestant, baseline, |time, base| time / base)
    }

    /// Returns the time in addition to a baseline.
    pub(crate) fn added(&self, contestant: usize, baseline: usize) -> f64 {
        self.by_round(contestant, baseline, |time, base| time - base)
    }

    fn by_round(&self, contestant: usize, baseline: usize, of: fn(f64, f64) -> f64) -> f64 {
        let rounds = self.0[contestant].iter().zip(&self.0[baseline]);
        median(rounds.map(|(&time, &base)| of(time, base)).collect())
    }
}

pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
