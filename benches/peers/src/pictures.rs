//! The results as charts.

use crate::report::{Added, Cell, Event, Report};
use crate::scenarios::{attach, cold, failing, late};
use crate::svg::{Bar, Bars, Row, bars, number};

/// Draws the time that each library adds to a request.
pub fn added_time(report: &Report) -> String {
    let series = attach::HEADERS.map(|headers| format!("request with {headers} headers"));
    let rows = report.rows.iter().map(|row| {
        let refreshes = row.late.measured().is_some_and(|event| event.token_requests > 0);
        Row {
            label: format!("{}{}", row.name, if refreshes { "" } else { " *" }),
            bold: row.name.starts_with("tower-refresh"),
            bars: row.attach.iter().map(time).collect(),
        }
    });
    let rows: Vec<_> = rows.collect();
    let times = report.rows.iter().flat_map(|row| &row.attach).filter_map(Cell::measured);
    let mut times: Vec<_> = times.map(|added| added.added_median).collect();
    times.sort_by(f64::total_cmp);
    bars(&Bars {
        title: "Time that a fresh token adds to a request",
        subtitle: "Median, over a service that does nothing. Shorter is better. * does not refresh after a 401.",
        series: &series.each_ref().map(String::as_str),
        longest: times.get(times.len() / 2).map_or(f64::MAX, |median| 3.0 * median),
        rows: &rows,
    })
}

fn time(cell: &Cell<Added>) -> Bar {
    match cell.measured() {
        Some(added) => {
            let value = added.added_median.round().max(0.0);
            Bar::Value(value, format!("{} ns", number(value)))
        }
        None => Bar::Text("not measured".to_owned()),
    }
}

/// Draws the token requests that each library sends.
pub fn token_requests(report: &Report) -> String {
    let series = [
        format!("{} requests without a token", number(cold::REQUESTS as f64)),
        format!("{} requests, endpoint failing", failing::REQUESTS),
        format!("{} late 401s for one old token", late::REQUESTS),
    ];
    let refreshing = report.rows.iter().filter(|row| row.cold.measured().is_some());
    let rows: Vec<_> = refreshing
        .map(|row| Row {
            label: row.name.to_owned(),
            bold: row.name.starts_with("tower-refresh"),
            bars: [&row.cold, &row.failing, &row.late].map(requests).into(),
        })
        .collect();
    bars(&Bars {
        title: "Token requests for one event",
        subtitle: "One is enough for each of them. Shorter is better.",
        series: &series.each_ref().map(String::as_str),
        longest: f64::MAX,
        rows: &rows,
    })
}

fn requests(cell: &Cell<Event>) -> Bar {
    match cell.measured() {
        Some(event) if event.token_requests == 0 => {
            Bar::Text("none: the 401s are returned".to_owned())
        }
        Some(event) => {
            let count = number(event.token_requests as f64);
            let text = if event.unfinished > 0 {
                format!("{count}, requests still waiting")
            } else {
                count
            };
            Bar::Value(event.token_requests as f64, text)
        }
        None => Bar::Text("does not apply".to_owned()),
    }
}
