//! The picture of the dashboard in the guide to metrics.
//!
//! `cargo bench --all-features --bench dashboard -- --draw` renews `src/docs/pictures/dashboard.svg`. It runs the incidents of the example
//! `observe` in paused time, scrapes its endpoint, and draws the panels of `examples/observe/dashboard.json` as Prometheus evaluates
//! them. It needs `prometheus` and `promtool`. Without `-- --draw`, it does nothing.
#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a bench fails by panicking"
)]

#[path = "../examples/observe/endpoint.rs"]
#[allow(dead_code, reason = "the recorder is scraped without its routes")]
mod endpoint;
#[path = "../examples/observe/incidents.rs"]
#[allow(dead_code, reason = "the picture shows no end of the program")]
mod incidents;
#[path = "support/svg.rs"]
mod svg;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use svg::{Panel, Panels, number};
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};
use tower_refresh::Clock as _;
use tower_refresh::testing::TokioClock;

const LIFETIME: Duration = Duration::from_secs(120);
const SCRAPE_INTERVAL: Duration = Duration::from_secs(10);

fn main() {
    if !std::env::args().any(|argument| argument == "--draw") {
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard");
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).expect("a folder");
    let (scrapes, span) = scrapes();
    fs::write(folder.join("scrapes.txt"), scrapes).expect("the scrapes are written");
    let prometheus = Prometheus::with(&folder);
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let panels = runtime.block_on(prometheus.panels(span));
    let picture = svg::panels(&Panels {
        title: "Dashboard of tower-refresh",
        subtitle: "Outage from minute 4 to 8, revocation at 10, a path that rejects every token from 12, ended session from 14 to 18",
        x_axis: "minutes",
        panels: &panels,
    });
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/pictures/dashboard.svg");
    fs::write(path, svg::inline(&picture)).expect("the picture is written");
    println!("renewed {path}");
}

/// Seconds since 1970.
type Span = (f64, f64);

/// Runs the incidents. Returns their scrapes in the format of OpenMetrics, and the time that they took.
fn scrapes() -> (String, Span) {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
    let recorder = endpoint::recorder().expect("valid buckets");
    let metrics = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        runtime.expect("a runtime").block_on(async {
            let clock = TokioClock::new();
            let now = || clock.now().since_epoch().as_secs_f64();
            let begin = now();
            let program = incidents::Program::new(clock.clone(), LIFETIME).expect("a program");
            let mut scrapes = String::new();
            let scraping = async {
                loop {
                    sleep(SCRAPE_INTERVAL).await;
                    let scrape = metrics.render();
                    let samples =
                        scrape.lines().filter(|it| !it.is_empty() && !it.starts_with('#'));
                    scrapes.extend(samples.map(|sample| format!("{sample} {:.3}\n", now())));
                }
            };
            tokio::select! {
                run = program.run() => run.expect("the program recovers"),
                () = scraping => {}
            }
            (scrapes + "# EOF\n", (begin, now()))
        })
    })
}

/// A Prometheus that has the scrapes.
struct Prometheus {
    process: Child,
    url: String,
}

impl Prometheus {
    fn with(folder: &Path) -> Self {
        let data = folder.join("data");
        let blocks = Command::new("promtool")
            .args(["tsdb", "create-blocks-from", "openmetrics", "scrapes.txt", "data"])
            .current_dir(folder)
            .output()
            .expect("promtool is installed");
        assert!(blocks.status.success(), "{}", String::from_utf8_lossy(&blocks.stderr));
        let config: PathBuf = folder.join("prometheus.yml");
        fs::write(&config, "scrape_configs: []\n").expect("the configuration is written");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let address = port.expect("a free port").to_string();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--storage.tsdb.retention.time=100y")
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus is installed");
        Self { process, url: format!("http://{address}/api/v1/query_range") }
    }

    async fn panels(&self, span: Span) -> Vec<Panel> {
        let dashboard = include_str!("../examples/observe/dashboard.json");
        let dashboard: Value = serde_json::from_str(dashboard).expect("valid JSON");
        let mut panels = Vec::new();
        for panel in dashboard["panels"].as_array().expect("panels") {
            let mut series = Vec::new();
            for target in panel["targets"].as_array().expect("targets") {
                let query = target["expr"].as_str().expect("a query");
                let query = query.replace("$credentials", ".*").replace("$__rate_interval", "40s");
                let legend = target["legendFormat"].as_str().expect("a legend");
                series.extend(self.series(&query, legend, span).await);
            }
            let title = panel["title"].as_str().expect("a title").to_owned();
            let format = match panel["fieldConfig"]["defaults"]["unit"].as_str() {
                Some("s") => seconds,
                Some("percentunit") => percent,
                _ => number,
            };
            panels.push(Panel { title, format, series });
        }
        panels
    }

    /// Returns the series of a query, with their points in minutes.
    async fn series(
        &self,
        query: &str,
        legend: &str,
        span: Span,
    ) -> Vec<(String, Vec<(f64, f64)>)> {
        let answer = self.ask(query, span).await;
        let mut series: Vec<_> = answer["data"]["result"]
            .as_array()
            .expect("a result")
            .iter()
            .map(|series| {
                let mut name = legend.to_owned();
                while let Some((before, rest)) = name.clone().split_once("{{") {
                    let (label, after) = rest.split_once("}}").expect("the end of a label");
                    let value = series["metric"][label].as_str().unwrap_or_default();
                    name = format!("{before}{value}{after}");
                }
                let points = series["values"].as_array().expect("values").iter();
                let points = points.filter_map(|point| {
                    let value: f64 = point[1].as_str()?.parse().ok()?;
                    value.is_finite().then_some(((point[0].as_f64()? - span.0) / 60.0, value))
                });
                (name.trim().to_owned(), points.collect())
            })
            .collect();
        series.sort_by(|one: &(String, Vec<_>), other| one.0.cmp(&other.0));
        series
    }

    async fn ask(&self, query: &str, (begin, end): Span) -> Value {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let parameters = form_urlencoded::Serializer::new(String::new())
            .append_pair("query", query)
            .append_pair("start", &begin.to_string())
            .append_pair("end", &end.to_string())
            .append_pair("step", &SCRAPE_INTERVAL.as_secs().to_string())
            .finish();
        let url: http::Uri = format!("{}?{parameters}", self.url).parse().expect("a URL");
        let answered = async {
            loop {
                // It refuses connections, and then answers with 503, until it has started.
                if let Ok(response) = client.get(url.clone()).await
                    && response.status() != 503
                {
                    let body = response.into_body().collect().await.expect("an answer").to_bytes();
                    break serde_json::from_slice(&body).expect("valid JSON");
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(Duration::from_secs(60), answered).await.expect("an answer within a minute")
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn seconds(value: f64) -> String {
    if value == 0.0 {
        "0".into()
    } else if value.abs() < 1.0 {
        format!("{} ms", number(value * 1e3))
    } else {
        format!("{} s", number(value))
    }
}

fn percent(value: f64) -> String {
    format!("{} %", number(value * 100.0))
}
