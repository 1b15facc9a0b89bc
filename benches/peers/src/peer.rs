//! The trait that each peer implements, and its form without types, for the list of all of them.

use std::error::Error;
use std::future::Future;

use http::StatusCode;
use serde::Serialize;

use crate::api::Api;

pub type BoxError = Box<dyn Error + Send + Sync>;

/// One library, used as its docs show. The file of a peer implements nothing else.
pub trait Peer: Clone + Send + Sync + 'static {
    const ABOUT: About;

    /// Creates the client over a token endpoint and an API.
    fn connect(url: &str, api: Api) -> impl Future<Output = Result<Self, BoxError>>;

    /// Builds a request with this number of headers, attaches a token, and sends it to the API.
    fn send(&mut self, headers: usize)
    -> impl Future<Output = Result<StatusCode, BoxError>> + Send;
}

/// The facts about a peer that are not measured.
pub struct About {
    pub name: &'static str,
    /// The packages whose versions the table shows.
    pub packages: &'static [&'static str],
    /// The dependencies of a program that uses it, as lines of a manifest. `=` stands for the version of `Cargo.lock`.
    pub manifest: &'static str,
    /// The peer whose time is subtracted: one without a token over requests of the same type.
    pub baseline: &'static str,
    pub fetches: Fetches,
    /// The scenarios that do not apply, with the reason.
    pub skips: &'static [(Scenario, &'static str)],
}

impl About {
    /// The facts that most peers share.
    pub const DEFAULT: Self = Self {
        name: "",
        packages: &[],
        manifest: "",
        baseline: "no layer",
        fetches: Fetches::Request,
        skips: &[],
    };

    /// Returns the reason if the scenario does not apply.
    pub fn skips(&self, scenario: Scenario) -> Option<&'static str> {
        self.skips.iter().find(|(skipped, _)| *skipped == scenario).map(|(_, reason)| *reason)
    }

    /// True for the measurements that only serve to be subtracted.
    pub fn is_baseline(&self) -> bool {
        self.name == self.baseline
    }
}

/// The code that waits for a token request.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Fetches {
    #[serde(rename = "a request")]
    Request,
    #[serde(rename = "a task of its own, started by a request")]
    TaskOnDemand,
    #[serde(rename = "a task of its own, started by the constructor")]
    Task,
    #[serde(rename = "the constructor, then a task of its own")]
    Constructor,
    #[serde(rename = "never")]
    Never,
}

/// The scenarios that count token requests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    Cold,
    Failing,
    Dropped,
    Late,
}
