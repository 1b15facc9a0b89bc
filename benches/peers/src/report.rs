//! The results, as they are written to the JSON file.

use serde::Serialize;

use crate::machine::Machine;
use crate::peer::{BoxError, Fetches};

#[derive(Serialize)]
pub struct Report {
    pub machine: Machine,
    pub rows: Vec<Row>,
    /// The requests alone, whose time is subtracted.
    pub baselines: Vec<Row>,
}

#[derive(Serialize)]
pub struct Row {
    pub name: &'static str,
    pub versions: Vec<String>,
    /// The code that waits for a token request.
    pub fetches: Fetches,
    /// For each number of headers.
    pub attach: Vec<Cell<Added>>,
    pub cold: Cell<Event>,
    pub failing: Cell<Event>,
    pub dropped: Cell<Event>,
    pub late: Cell<Event>,
    pub dependencies: Cell<usize>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cell<T> {
    Measured(T),
    NotApplicable(String),
    Failed(String),
}

impl<T> Cell<T> {
    pub fn measured(&self) -> Option<&T> {
        match self {
            Self::Measured(value) => Some(value),
            _ => None,
        }
    }
}

impl<T> From<Result<T, BoxError>> for Cell<T> {
    fn from(result: Result<T, BoxError>) -> Self {
        result.map_or_else(|error| Self::Failed(error.to_string()), Self::Measured)
    }
}

/// The cost of a request with a fresh token, in nanoseconds and allocations.
#[derive(Serialize)]
pub struct Added {
    pub headers: usize,
    pub median: f64,
    pub added_median: f64,
    pub added_fastest: f64,
    pub added_allocations: f64,
    pub added_bytes: f64,
}

/// The token requests of a scenario, and the outcomes of its requests.
#[derive(Default, Serialize)]
pub struct Event {
    pub token_requests: usize,
    pub accepted: usize,
    /// 401 returned.
    pub rejected: usize,
    /// Errors.
    pub failed: usize,
    /// Still waiting when the scenario ended.
    pub unfinished: usize,
    pub milliseconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
}
