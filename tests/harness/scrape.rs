//! The metrics that a test has recorded, as Prometheus reads them.

use std::collections::BTreeMap;
use std::fmt;

use metrics_exporter_prometheus::{PrometheusHandle, PrometheusRecorder};
use tokio::runtime::Builder;

/// Runs a test in paused time on this thread, where its metrics go to this recorder.
pub fn recorded(recorder: PrometheusRecorder, test: impl AsyncFnOnce(PrometheusHandle)) {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || runtime.block_on(test(handle)));
}

/// The samples of a scrape, in order.
pub struct Scrape {
    pub samples: Vec<Sample>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: Labels,
    pub value: f64,
}

pub type Labels = BTreeMap<String, String>;

impl Scrape {
    /// Reads the text format of Prometheus.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.trim_end_matches('}').split_terminator("\",");
            let labels = labels.map(|label| {
                let (label, value) = label.split_once("=\"").unwrap();
                (label.to_owned(), value.trim_end_matches('"').to_owned())
            });
            let (name, value) = (name.to_owned(), value.parse().unwrap());
            Sample { name, labels: labels.collect(), value }
        };
        Self { samples: lines.map(sample).collect() }
    }

    /// Returns the value of the series with this name and exactly these labels, in any order.
    #[track_caller]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).unwrap_or_else(|| panic!("no {name} {labels:?} in\n{self}"))
    }

    pub fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let is_it = |sample: &&Sample| sample.name == name && sample.labels == labels;
        self.samples.iter().find(is_it).map(|sample| sample.value)
    }
}

impl fmt::Display for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.samples
            .iter()
            .try_for_each(|Sample { name, labels, value }| writeln!(f, "{name} {labels:?} {value}"))
    }
}
