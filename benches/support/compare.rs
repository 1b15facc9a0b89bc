//! Times of several contestants in one run.
//!
//! All contestants run in each round, one after the other, so that a busy machine slows all of them. Ratios and differences are
//! taken round by round, and the median round counts. Rounds are shorter than the time that the operating system gives a program at
//! once, so that most of them are not interrupted.

use std::time::Instant;

use super::stacks::Run;
use super::{allocations, is_bench, table};

/// The contestants over one kind of request: a column of a table.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) contestants: Vec<Run>,
}

/// The name of a row, and how it is computed.
pub(crate) type Further<'a> = (&'a str, fn(&Times) -> f64);

/// The contestants' names, and the one that is the baseline of the others.
pub(crate) struct Contestants<'a> {
    pub(crate) names: &'a [&'a str],
    pub(crate) baseline: usize,
}

impl Contestants<'_> {
    /// Prints a table with a row for each contestant: the ratio to the baseline, the time in addition to it, and the number of
    /// allocations.
    ///
    /// A further row is computed from the times of each case.
    pub(crate) fn print(
        &self,
        title: &str,
        cases: Vec<Case>,
        requests: u32,
        further: Option<Further<'_>>,
    ) {
        let mut head = vec!["Stack".to_owned()];
        let names = self.names.iter().copied().chain(further.map(|(name, _)| name));
        let mut rows: Vec<_> = names.map(|name| vec![name.to_owned()]).collect();
        for Case { name, mut contestants } in cases {
            head.push(name);
            let allocations: Vec<_> =
                contestants.iter_mut().map(|run| allocations::per_request(run)).collect();
            let times = Times::measure(Rounds::new(401, requests), &mut contestants);
            for (stack, allocations) in allocations.into_iter().enumerate() {
                let cell = self.cell(&times, stack);
                rows[stack].push(format!("{cell} {allocations:3}"));
            }
            if let (Some((_, of)), Some(row)) = (further, rows.last_mut()) {
                row.push(format!("{:.2}", of(&times)));
            }
        }
        let head: Vec<_> = head.iter().map(String::as_str).collect();
        table::print(title, &head, &rows);
    }

    fn cell(&self, times: &Times, stack: usize) -> String {
        if stack == self.baseline {
            return format!("{:.0} ns", times.nanoseconds(stack));
        }
        let (ratio, added) = (times.ratio(stack, self.baseline), times.added(stack, self.baseline));
        format!("× {ratio:.2} {added:+5.0} ns")
    }
}

/// The length of a measurement.
#[derive(Clone, Copy)]
pub(crate) struct Rounds {
    pub(crate) rounds: usize,
    pub(crate) requests: u32,
}

impl Rounds {
    /// Returns these rounds under `cargo bench`. Returns one short round under `cargo test`, which checks that a bench runs.
    pub(crate) fn new(rounds: usize, requests: u32) -> Self {
        if is_bench() { Self { rounds, requests } } else { Self { rounds: 1, requests: 10 } }
    }
}

/// Nanoseconds per request, of each contestant in each round.
pub(crate) struct Times(Vec<Vec<f64>>);

impl Times {
    /// Runs the contestants round by round. Each round begins with another of them.
    pub(crate) fn measure(length: Rounds, contestants: &mut [Run]) -> Self {
        let mut times = Self(vec![Vec::with_capacity(length.rounds); contestants.len()]);
        allocations::without_counting(|| {
            for run in contestants.iter_mut() {
                run(length.requests / 4);
            }
            for number in in_turn(contestants.len(), length.rounds) {
                let began = Instant::now();
                contestants[number](length.requests);
                let took = began.elapsed().as_nanos() as f64;
                times.0[number].push(took / f64::from(length.requests));
            }
        });
        times
    }

    /// Returns the times that another measurement took in the same rounds.
    pub(crate) fn from_rounds(times: Vec<Vec<f64>>) -> Self {
        Self(times)
    }

    /// Returns the time of a request.
    pub(crate) fn nanoseconds(&self, contestant: usize) -> f64 {
        median(self.0[contestant].clone())
    }

    /// Returns the time of a request in the fastest round, in which other programs disturbed it least.
    pub(crate) fn fastest(&self, contestant: usize) -> f64 {
        self.0[contestant].iter().copied().fold(f64::INFINITY, f64::min)
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

/// Returns the contestants' numbers for all rounds, each of which begins with another.
pub(crate) fn in_turn(contestants: usize, rounds: usize) -> impl Iterator<Item = usize> {
    (0..rounds)
        .flat_map(move |round| (0..contestants).map(move |place| (round + place) % contestants))
}

pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
