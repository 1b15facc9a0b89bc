//! The example `observe`: its scrape has what its dashboard and its alert rules ask for.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;
use tower_refresh::testing::TokioClock;

use crate::folder::Folder;
use crate::scrape::{Sample, Scrape, recorded};

#[path = "../../examples/observe/endpoint.rs"]
mod endpoint;
#[path = "../../examples/observe/incidents.rs"]
mod incidents;

const DASHBOARD: &str = include_str!("../../examples/observe/dashboard.json");
const ALERTS: &str = include_str!("../../examples/observe/alerts.yml");
const DOCS: &str = include_str!("../../src/docs/metrics.md");

/// Returns the text that Prometheus scrapes after all incidents.
fn scrape() -> String {
    let mut scraped = String::new();
    recorded(endpoint::recorder().unwrap(), async |handle| {
        let lifetime = Duration::from_secs(10);
        let program = incidents::Program::new(TokioClock::new(), lifetime).unwrap();
        program.run().await.unwrap();
        program.stop().await.unwrap();
        let request = Request::get("/metrics").body(Body::empty()).unwrap();
        let response = endpoint::routes(handle).oneshot(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        scraped = String::from_utf8(body.to_vec()).unwrap();
    });
    scraped
}

#[test]
fn incidents_of_the_example_show_in_its_metrics() {
    let scrape = Scrape::parse(&scrape());
    let billing = |outcome| [("credentials", "billing"), ("outcome", outcome)];
    let outcomes =
        ["accepted", "rejected", "not_judged", "untouched", "untouched_rejected", "not_sent"];
    for outcome in outcomes {
        assert!(scrape.value("tower_refresh_requests_total", &billing(outcome)) > 0.0, "{outcome}");
    }
    for outcome in ["accepted", "rejected"] {
        assert!(scrape.value("tower_refresh_retries_total", &billing(outcome)) > 0.0, "{outcome}");
    }
    for kind in ["transient", "denied"] {
        let failed = |it: &&Sample| it.labels.get("error_kind").is_some_and(|it| it == kind);
        let mut refreshes = scrape.samples.iter().filter(|it| it.name.contains("refreshes_total"));
        assert!(refreshes.any(|it| failed(&it)), "{kind} in\n{scrape}");
    }
    // The program has recovered.
    let backoff = scrape.samples.iter().filter(|sample| sample.name == "tower_refresh_backoff");
    assert!(backoff.count() > 0);
    let troubles = ["tower_refresh_backoff", "tower_refresh_unsaved", "tower_refresh_waiters"];
    for sample in scrape.samples.iter().filter(|it| troubles.contains(&it.name.as_str())) {
        assert_eq!(sample.value, 0.0, "{sample:?}");
    }
}

#[test]
fn table_in_the_docs_has_exactly_the_metrics_of_the_example() {
    let scraped: BTreeSet<_> = scrape()
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(ToOwned::to_owned)
        .collect();
    let rows = DOCS.lines().filter_map(|line| line.strip_prefix("| `tower_refresh."));
    let documented: BTreeSet<_> = rows
        .map(|row| {
            let cells: Vec<_> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            let name = format!("tower_refresh_{}", cells[0].replace('.', "_"));
            let unit = if cells[2] == "s" { "_seconds" } else { "" };
            let total = if cells[1] == "counter" { "_total" } else { "" };
            format!("{name}{unit}{total} {}", cells[1])
        })
        .collect();
    assert_eq!(documented, scraped);
}

// ===== queries =====

/// Returns the queries of the dashboard, as Grafana sends them.
fn panels() -> Vec<String> {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let queries = targets.map(|target| target["expr"].as_str().unwrap());
    queries.map(|it| it.replace("$credentials", ".*").replace("$__rate_interval", "1m")).collect()
}

/// Returns the expressions of the alert rules.
fn alerts() -> Vec<String> {
    let rules = ALERTS.split("- alert: ").skip(1);
    let expression = |rule: &str| {
        let (_, expression) = rule.split_once("expr: ").unwrap();
        let end =
            ["\n        for:", "\n        labels:"].iter().filter_map(|it| expression.find(it));
        expression[..end.min().unwrap()].trim_start_matches('>').trim().to_owned()
    };
    rules.map(expression).collect()
}

#[test]
fn dashboard_and_alerts_use_only_metrics_and_labels_that_exist() {
    let scrape = Scrape::parse(&scrape());
    let queries: Vec<_> = panels().into_iter().chain(alerts()).collect();
    assert!(queries.len() > 30, "{queries:#?}");
    for query in queries {
        let selected = selectors(&query);
        assert!(!selected.is_empty(), "{query}");
        let mut labels: BTreeSet<&str> = ["le", "instance"].into();
        for (name, matchers) in selected {
            let samples: Vec<_> = scrape.samples.iter().filter(|it| it.name == name).collect();
            assert!(!samples.is_empty(), "no metric {name} for {query}");
            labels.extend(samples.iter().flat_map(|it| it.labels.keys().map(String::as_str)));
            for (label, value) in matchers {
                assert!(labels.contains(&*label), "no label {label} of {name} for {query}");
                for value in value.split('|').filter(|value| !KNOWN_ELSEWHERE.contains(value)) {
                    let is_it = |it: &&&Sample| it.labels.get(&label).is_some_and(|it| it == value);
                    let is_any = ["", ".*"].contains(&value);
                    assert!(
                        is_any || samples.iter().any(|it| is_it(&it)),
                        "{label}={value}: {query}"
                    );
                }
            }
        }
        for grouped in query.split("by (").skip(1).chain(query.split("on (").skip(1)) {
            for label in grouped.split(')').next().unwrap().split(", ") {
                assert!(labels.contains(label), "no label {label} for {query}");
            }
        }
    }
}

/// Values of labels that the incidents of the example do not bring about, and `core::metrics` does.
const KNOWN_ELSEWHERE: [&str; 4] = ["lost", "unavailable", "failure", "no_answer"];

/// Returns the metrics of a query, each with its matchers.
fn selectors(query: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut found = Vec::new();
    for rest in query.split("tower_refresh_").skip(1) {
        let end = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let inner = rest.strip_prefix('{').and_then(|rest| rest.split('}').next()).unwrap_or("");
        let matchers = inner.split(", ").filter(|matcher| !matcher.is_empty());
        let matchers = matchers.map(|matcher| {
            let (label, value) = matcher.split_once('=').unwrap();
            let value = value.trim_matches(['~', '"']);
            (label.trim_end_matches('!').to_owned(), value.to_owned())
        });
        found.push((format!("tower_refresh_{name}"), matchers.collect()));
    }
    found
}

// ===== with Prometheus =====

/// Runs `promtool`, or returns false if it is not installed.
fn promtool(tests: &Path) {
    let Ok(output) = Command::new("promtool").args(["test", "rules"]).arg(tests).output() else {
        // Past the test harness, which hides the output of passing tests.
        let skipped = b"skipped: queries with promtool: not installed (package prometheus)\n";
        drop(std::io::stderr().write_all(skipped));
        return;
    };
    let [out, err] =
        [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
    assert!(output.status.success(), "{out}{err}");
}

#[test]
fn alert_rules_fire_in_their_incidents_and_not_before() {
    promtool(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/observe/alerts_test.yml")));
}

#[test]
fn every_query_of_the_dashboard_finds_data_in_the_scrape() {
    let folder = Folder::new();
    let scrape = Scrape::parse(&scrape());
    let series: Vec<_> = scrape.samples.iter().map(|sample| {
        let Sample { name, labels, value } = sample;
        let labels: Vec<_> = labels.iter().map(|(label, value)| format!("{label}={value:?}")).collect();
        let is_gauge = !["_total", "_count", "_sum", "_bucket"].iter().any(|it| name.ends_with(it));
        // A counter grows to this value within the interval of the rates.
        let first = if is_gauge { *value } else { 0.0 };
        let series = format!("{name}{{instance=\"a\",{}}}", labels.join(","));
        serde_json::json!({ "series": series, "values": format!("{first} {value}").replace("inf", "+Inf") })
    }).collect();
    let queries = panels();
    let tests: Vec<_> = queries
        .iter()
        .map(|query| {
            serde_json::json!({
                "expr": format!("count({query}) > bool 0"),
                "eval_time": "30s",
                "exp_samples": [{ "labels": "{}", "value": 1 }],
            })
        })
        .collect();
    // YAML includes JSON.
    let test = serde_json::json!({
        "rule_files": [],
        "evaluation_interval": "30s",
        "tests": [{ "interval": "30s", "input_series": series, "promql_expr_test": tests }],
    });
    let file = folder.path("queries.yml");
    std::fs::write(&file, test.to_string()).unwrap();
    promtool(&file);
}
