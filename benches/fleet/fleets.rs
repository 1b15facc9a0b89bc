//! The tables and the picture of the simulated fleets.

use std::fs;
use std::time::Duration;

use crate::HOUR;
use crate::simulation::{EVENT, Event, FROM, INTERVAL, Outcome, Scenario, run};
use crate::support::svg::{self, Lines, Series, number};
use crate::support::{is_bench, table};

/// The number of users that the figures are for.
pub(crate) const USERS: usize = 100_000;

/// Processes, and users that are simulated.
const FLEETS: [(usize, usize); 4] = [(1, 20_000), (10, 3_125), (100, 500), (1_000, 100)];

/// The fleet of the picture, and of the second table.
const DRAWN: usize = 10;

const STEADY: Scenario =
    Scenario { name: "steady", jitter: MINUTE, logged_in_within: HOUR, event: Event::None };
const AT_ONCE: Scenario =
    Scenario { name: "logged in at once", logged_in_within: INTERVAL, ..STEADY };

const SCENARIOS: [Scenario; 8] = [
    Scenario { name: "steady, no jitter", jitter: Duration::ZERO, ..STEADY },
    STEADY,
    Scenario { name: "logged in at once, no jitter", jitter: Duration::ZERO, ..AT_ONCE },
    AT_ONCE,
    Scenario {
        name: "logged in at once, jitter 3 min",
        jitter: MINUTE.saturating_mul(3),
        ..AT_ONCE
    },
    Scenario { name: "deploy", event: Event::Deploy, ..STEADY },
    Scenario { name: "outage of 10 min", event: Event::Outage, ..STEADY },
    Scenario { name: "revocation", event: Event::Revocation, ..STEADY },
];

const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn print() {
    if !is_bench() {
        run(SCENARIOS[7], 2, 5);
        return;
    }
    let (mut rows, mut drawn) = (Vec::new(), Vec::new());
    for scenario in SCENARIOS {
        for (processes, users) in FLEETS {
            let figures = Figures::new(run(scenario, processes, users), USERS);
            rows.push(figures.row(scenario.name, processes, users));
            if processes == DRAWN {
                drawn.push((scenario.name, figures));
            }
        }
    }
    let head = [
        "Scenario",
        "Processes",
        "Users simulated",
        "Token requests/s, mean",
        "Busiest 10 s",
        "Store operations/s, mean",
        "Busiest 10 s",
        "Requests that waited",
        "For the token endpoint",
        "Failed",
        "Token requests per user and hour",
    ];
    let title =
        format!("Fleets of {} users, each with a request every {INTERVAL:?}", number(USERS as f64));
    table::print(&title, &head, &rows);
    print_proportion();
    if std::env::args().any(|argument| argument == "--draw") {
        draw(&drawn);
    }
}

/// Prints the figures of one fleet with fewer and more users, to show that they grow in proportion.
fn print_proportion() {
    let row = |users| {
        let figures = Figures::new(run(STEADY, DRAWN, users), users);
        let of_user = |series: &[f64]| mean(series) * HOUR.as_secs_f64() / users as f64;
        vec![
            number(users as f64),
            format!("{:.2}", of_user(&figures.tokens)),
            format!("{:.1}", of_user(&figures.stored)),
            format!("{:.2} %", figures.waited),
        ]
    };
    let head =
        ["Users", "Token requests per user and hour", "Store operations", "Requests that waited"];
    let rows: Vec<_> = [500, 2_000, 8_000].into_iter().map(row).collect();
    table::print(&format!("A steady fleet of {DRAWN} processes, as it is simulated"), &head, &rows);
}

/// The figures of a fleet with so many users, computed from a simulation with fewer.
struct Figures {
    tokens: Vec<f64>,
    stored: Vec<f64>,
    /// Shares of all requests, in per cent.
    waited: f64,
    waited_long: f64,
    failed: f64,
    per_user: f64,
}

impl Figures {
    fn new(it: Outcome, users: usize) -> Self {
        let factor = users as f64 / it.users as f64;
        let share = |count: u64| 100.0 * count as f64 / it.requests;
        // A process probes an endpoint that fails, however many users it has.
        let tokens =
            it.granted.iter().zip(&it.failed).map(|(granted, failed)| granted * factor + failed);
        let tokens: Vec<_> = tokens.collect();
        Self {
            per_user: mean(&it.granted) * HOUR.as_secs_f64() / it.users as f64,
            tokens,
            stored: it.stored.iter().map(|count| count * factor).collect(),
            waited: share(it.waited),
            waited_long: share(it.waited_long),
            failed: share(it.failed_requests),
        }
    }

    fn row(&self, name: &str, processes: usize, users: usize) -> Vec<String> {
        let share = |share: f64| format!("{share:.2} %");
        vec![
            name.to_owned(),
            number(processes as f64),
            number(users as f64),
            number(mean(&self.tokens).round()),
            number(peak(&self.tokens).round()),
            number(mean(&self.stored).round()),
            number(peak(&self.stored).round()),
            share(self.waited),
            share(self.waited_long),
            share(self.failed),
            format!("{:.2}", self.per_user),
        ]
    }
}

fn mean(seconds: &[f64]) -> f64 {
    seconds.iter().sum::<f64>() / seconds.len() as f64
}

fn peak(seconds: &[f64]) -> f64 {
    seconds.chunks(PEAK).map(mean).fold(0.0, f64::max)
}

/// The seconds of a peak. In one second, a few hundred users are chance.
const PEAK: usize = 10;

fn draw(drawn: &[(&str, Figures)]) {
    let names =
        ["logged in at once, no jitter", "logged in at once", "outage of 10 min", "revocation"];
    let points = |figures: &Figures| -> Vec<_> {
        let means = figures.tokens[EVENT - FROM..].chunks(PEAK).map(mean).enumerate();
        means.map(|(n, mean)| ((n * PEAK) as f64 / 60.0, mean.max(0.1))).collect()
    };
    let drawn: Vec<_> = drawn
        .iter()
        .filter(|(name, _)| names.contains(name))
        .map(|(name, figures)| (*name, points(figures)))
        .collect();
    let series: Vec<_> = drawn.iter().map(|(name, points)| Series { name, points }).collect();
    let picture = svg::lines(&Lines {
        title: "Token requests of 100,000 users in 10 processes that share a store",
        subtitle: "Mean of 10 s. Access tokens of an hour. The outage and the revocation begin in minute 0.",
        x_axis: "time in minutes",
        y_axis: "token requests per second",
        logarithmic: true,
        series: &series,
    });
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/pictures/fleet.svg");
    fs::write(path, picture).expect("the picture is written");
}
