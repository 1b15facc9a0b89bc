//! The results as one table.

use std::fmt::Write;

use crate::report::{Added, Cell, Event, Report, Row};
use crate::scenarios::{LIMIT, attach, cold, dropped, failing, late};
use crate::svg::number;

pub fn table(report: &Report) -> String {
    let machine = &report.machine;
    let mut notes = Notes::default();
    let mut text = format!(
        "{}, {} cores, {}, {}, {}\n\n",
        machine.cpu, machine.cores, machine.os, machine.rustc, machine.date
    );
    let [none, some] = attach::HEADERS;
    let _ = writeln!(
        text,
        "| Library | Added, {none} headers | Added, {some} headers | Allocations | {} cold | {} failing | Leader dropped | {} late 401s | Dependencies |",
        number(cold::REQUESTS as f64),
        failing::REQUESTS,
        late::REQUESTS,
    );
    text += "|---|---|---|---|---|---|---|---|---|\n";
    for row in &report.rows {
        line(&mut text, row, &mut notes);
    }
    text.push('\n');
    for (index, note) in notes.0.iter().enumerate() {
        let _ = writeln!(text, "{}. {note}", index + 1);
    }
    text + &explanation(report)
}

fn line(text: &mut String, row: &Row, notes: &mut Notes) {
    let versions = row.versions.join(", ");
    let _ = write!(text, "| {} <br> {versions} |", row.name);
    for added in &row.attach {
        let _ = write!(text, " {} |", notes.cell(added, time));
    }
    let _ = write!(text, " {} |", allocations(&row.attach));
    for (event, expected) in [(&row.cold, cold::REQUESTS), (&row.failing, 0)] {
        let _ = write!(text, " {} |", notes.cell(event, |event| calls(event, expected, true)));
    }
    let _ = write!(
        text,
        " {} |",
        notes.cell(&row.dropped, |event| calls(event, dropped::OTHERS, false))
    );
    let _ = write!(text, " {} |", notes.cell(&row.late, refreshes));
    let _ = writeln!(text, " {} |", notes.cell(&row.dependencies, usize::to_string));
}

fn time(added: &Added) -> String {
    let [median, fastest] = [added.added_median, added.added_fastest].map(|it| number(it.round()));
    format!("{median} ns ({fastest})")
}

fn allocations(cells: &[Cell<Added>]) -> String {
    let counts = cells.iter().filter_map(Cell::measured);
    let mut counts: Vec<_> = counts.map(|added| number(added.added_allocations.round())).collect();
    counts.dedup();
    counts.join(", ")
}

fn calls(event: &Event, accepted: usize, timed: bool) -> String {
    let mut text = counted(event.token_requests, "call");
    if timed {
        let _ = write!(text, ", {} ms", number(event.milliseconds.round()));
    }
    outcomes(&mut text, event, accepted);
    text
}

fn refreshes(event: &Event) -> String {
    let mut text = counted(event.token_requests, "refresh");
    outcomes(&mut text, event, late::REQUESTS as usize);
    text
}

/// Adds the outcomes, unless they are the expected ones.
fn outcomes(text: &mut String, event: &Event, accepted: usize) {
    if event.rejected > 0 {
        let _ = write!(text, ", {} × 401", event.rejected);
    }
    if event.failed > 0 && accepted > 0 {
        let _ = write!(text, ", {} × error", event.failed);
    }
    if event.unfinished > 0 {
        let _ = write!(text, ", {} still waiting", event.unfinished);
    }
    if let Some(note) = event.note {
        let _ = write!(text, " ({note})");
    }
}

fn counted(number: usize, noun: &str) -> String {
    let plural = if noun.ends_with('h') { "es" } else { "s" };
    format!("{number} {noun}{}", if number == 1 { "" } else { plural })
}

/// The reasons of empty cells, below the table.
#[derive(Default)]
struct Notes(Vec<String>);

impl Notes {
    fn cell<T>(&mut self, cell: &Cell<T>, show: impl Fn(&T) -> String) -> String {
        let note = match cell {
            Cell::Measured(value) => return show(value),
            Cell::NotApplicable(reason) => format!("Does not apply: {reason}."),
            Cell::Failed(error) => format!("Failed: {error}."),
        };
        let known = self.0.iter().position(|other| *other == note);
        let index = known.unwrap_or_else(|| {
            self.0.push(note);
            self.0.len() - 1
        });
        format!("– ({})", index + 1)
    }
}

fn explanation(report: &Report) -> String {
    let alone = |row: &&Row| row.name == "no layer";
    let alone = report.baselines.iter().find(alone).map(|row| &row.attach);
    let alone = alone.into_iter().flatten().filter_map(Cell::measured);
    let alone: Vec<_> = alone.map(|added| format!("{} ns", number(added.median.round()))).collect();
    format!(
        "
- *Added*: the time that a request with a fresh token takes longer than without a layer, in the same round: the median of {} rounds
  of {} requests, and the difference of the fastest rounds. The request alone takes {} with {} headers.
- *Allocations*: those of a request, beyond those of the request alone.
- *Cold*: {} requests at once without a token, over a token endpoint that takes {} ms. The time includes the constructor.
- *Failing*: {} requests at once without a token. The endpoint answers with 503 after {} ms. The scenario ends after {} s.
- *Leader dropped*: the request that led to the token request is dropped, and {} others wait.
- *Late 401s*: {} requests are sent with one token, and their 401s arrive one after another.
- The requests of *Cold*, *Leader dropped* and *Late 401s* succeed, and those of *Failing* fail, unless the cell differs.
- *Dependencies*: the crates of a program that has only this library, with its default features.
",
        attach::ROUNDS,
        number(f64::from(attach::REQUESTS)),
        alone.join(" and "),
        attach::HEADERS.map(|headers| headers.to_string()).join(" and "),
        number(cold::REQUESTS as f64),
        cold::LATENCY.as_millis(),
        failing::REQUESTS,
        cold::LATENCY.as_millis(),
        LIMIT.as_secs(),
        dropped::OTHERS,
        late::REQUESTS,
    )
}
