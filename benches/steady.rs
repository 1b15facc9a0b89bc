//! The latency of a steady load while its token expires a hundred times.
//!
//! `cargo bench --all-features --bench steady`. Each millisecond, each stack sends a request over HTTP/1.1 to a server on loopback.
//! Tokens live for 250 ms, and the token endpoint responds after 10 ms. The samples and a picture of two seconds are written to
//! `target/tmp`. With `-- --draw`, the picture of this folder is renewed too.
#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench fails by panicking, and measures time"
)]

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use support::by_hand::{Cache, RetryOnce};
use support::services::Body;
use support::stacks::TOKEN;
use support::svg::{self, Lines, Series};
use support::table;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tower::filter::AsyncFilterLayer;
use tower::retry::RetryLayer;
use tower::{BoxError, Layer as _, Service, ServiceBuilder, ServiceExt as _};
use tower_http::auth::AddAuthorizationLayer;
use tower_refresh::{RefreshLayer, Renewal, TokenSet};

const LIFETIME: Duration = Duration::from_millis(250);
const LATENCY: Duration = Duration::from_millis(10);
const INTERVAL: Duration = Duration::from_millis(1);
/// Enough for a hundred expiries of a token that is not refreshed ahead.
const LENGTH: Duration = Duration::from_millis(26_200);

const NAMES: [&str; 3] = ["static header", "by hand", "armed"];

/// When a request was sent, and how long its response took.
type Sample = (Duration, Duration);

fn main() {
    if support::lists() {
        return;
    }
    let length = if support::is_bench() { LENGTH } else { 20 * INTERVAL };
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let (samples, fetches) = runtime.expect("a runtime").block_on(measure(length));
    print(&samples, fetches);
    write(&samples);
}

fn print(samples: &[Vec<Sample>; 3], fetches: [u32; 3]) {
    let quantiles = samples.each_ref().map(|samples| {
        let mut latencies: Vec<_> =
            samples.iter().map(|(_, took)| took.as_secs_f64() * 1e3).collect();
        latencies.sort_by(f64::total_cmp);
        let last = latencies.len() - 1;
        [0.5, 0.99, 0.999, 1.0].map(|quantile| latencies[(last as f64 * quantile) as usize])
    });
    let row = |stack: usize| {
        let mut row = vec![NAMES[stack].to_owned(), fetches[stack].to_string()];
        row.extend(
            quantiles[stack]
                .iter()
                .zip(&quantiles[0])
                .map(|(took, fixed)| format!("{took:.2} ms × {:.2}", took / fixed)),
        );
        row
    };
    let title = format!(
        "Latency of {} requests of each stack, and its ratio to the static header",
        samples[0].len()
    );
    let head = ["Stack", "Token calls", "p50", "p99", "p99.9", "Worst"];
    table::print(&title, &head, &[row(0), row(1), row(2)]);
}

// ===== the load =====

async fn measure(length: Duration) -> ([Vec<Sample>; 3], [u32; 3]) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let origin = format!("http://{}", listener.local_addr().expect("an address"));
    let server = tokio::spawn(async {
        axum::serve(listener, axum::Router::new().fallback(async || "")).await
    });
    let client: Client<_, Body> = Client::builder(TokioExecutor::new()).build_http();

    let fixed = AddAuthorizationLayer::bearer(TOKEN).layer(client.clone());

    let (by_hand, by_hand_fetches) = (Cache::default(), Arc::new(AtomicU32::new(0)));
    let fetches = Arc::clone(&by_hand_fetches);
    let attach = AsyncFilterLayer::new(move |request| {
        let fetches = Arc::clone(&fetches);
        by_hand.clone().attach(request, move || async move {
            fetch(&fetches).await;
            Ok((TOKEN.to_owned(), LIFETIME))
        })
    });
    let retry = RetryLayer::new(RetryOnce::default());
    let by_hand = ServiceBuilder::new().layer(retry).layer(attach).service(client.clone());

    let armed_fetches = Arc::new(AtomicU32::new(0));
    let fetches = Arc::clone(&armed_fetches);
    let source = move |_: Renewal| {
        let fetches = Arc::clone(&fetches);
        async move {
            fetch(&fetches).await;
            TokenSet::bearer(TOKEN).map(|tokens| tokens.with_expires_in(LIFETIME))
        }
    };
    let layer = RefreshLayer::new(source);
    let armed = layer.origin(&origin).expect("on loopback").layer(client);

    // Connections, and the first tokens.
    for _ in 0..10 {
        let (fixed, by_hand, armed) =
            (send(&fixed, &origin), send(&by_hand, &origin), send(&armed, &origin));
        drop(tokio::join!(fixed, by_hand, armed));
    }

    let mut running: [Vec<JoinHandle<Duration>>; 3] = Default::default();
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let began = Instant::now();
    let mut sent = Vec::new();
    while began.elapsed() < length {
        ticks.tick().await;
        for place in 0..3 {
            match (sent.len() + place) % 3 {
                0 => running[0].push(send(&fixed, &origin)),
                1 => running[1].push(send(&by_hand, &origin)),
                _ => running[2].push(send(&armed, &origin)),
            }
        }
        sent.push(began.elapsed());
    }
    let mut samples: [Vec<Sample>; 3] = Default::default();
    for (samples, running) in samples.iter_mut().zip(running) {
        for (&sent, running) in sent.iter().zip(running) {
            samples.push((sent, running.await.expect("no panic")));
        }
    }
    server.abort();
    let fetches = |fetches: &AtomicU32| fetches.load(Ordering::Relaxed);
    (samples, [0, fetches(&by_hand_fetches), fetches(&armed_fetches)])
}

/// The token endpoint.
async fn fetch(fetches: &AtomicU32) {
    fetches.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(LATENCY).await;
}

/// Sends a request in a task of its own, which returns the time until the response was read.
fn send<S>(stack: &S, origin: &str) -> JoinHandle<Duration>
where
    S: Service<Request<Body>, Response = Response<Incoming>, Error: Into<BoxError>, Future: Send>,
    S: Clone + Send + 'static,
{
    let request = Request::get(format!("{origin}/v1/things")).body(Full::default());
    let stack = stack.clone();
    tokio::spawn(async move {
        let began = Instant::now();
        let response = stack.oneshot(request.expect("a valid request")).await;
        let response = response.map_err(Into::into).expect("a response");
        response.into_body().collect().await.expect("the whole response");
        began.elapsed()
    })
}

// ===== the picture =====

fn write(samples: &[Vec<Sample>; 3]) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let json: serde_json::Map<_, _> = NAMES
        .iter()
        .zip(samples)
        .map(|(&name, samples)| {
            let milliseconds = |time: &Duration| time.as_micros() as f64 / 1e3;
            let samples =
                samples.iter().map(|(sent, took)| (milliseconds(sent), milliseconds(took)));
            (name.to_owned(), serde_json::json!(samples.collect::<Vec<_>>()))
        })
        .collect();
    let json = serde_json::to_vec(&json).expect("samples as JSON");
    fs::create_dir_all(folder).expect("a folder");
    fs::write(folder.join("steady.json"), json).expect("the samples are written");

    let chart = chart(samples);
    fs::write(folder.join("steady.svg"), &chart).expect("the picture is written");
    if std::env::args().any(|argument| argument == "--draw") {
        let picture = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/pictures/steady.svg");
        fs::write(picture, chart).expect("the picture is written");
    }
    println!("\nsamples and picture: {}/steady.json, steady.svg", folder.display());
}

/// Draws two seconds in the middle of the run: the worst latency of each four milliseconds.
fn chart(samples: &[Vec<Sample>; 3]) -> String {
    const WINDOW: Duration = Duration::from_secs(2);
    const BIN: Duration = Duration::from_millis(4);
    let points = [2, 1, 0].map(|stack: usize| {
        let mut points: Vec<(f64, f64)> = Vec::new();
        for (sent, took) in &samples[stack] {
            let Some(sent) = sent.checked_sub(LENGTH / 2).filter(|&sent| sent < WINDOW) else {
                continue;
            };
            let bin = (sent.as_micros() / BIN.as_micros() * BIN.as_micros()) as f64 / 1e3;
            let took = took.as_secs_f64() * 1e3;
            match points.last_mut() {
                Some((last, worst)) if *last == bin => *worst = worst.max(took),
                _ => points.push((bin, took)),
            }
        }
        (NAMES[stack], points)
    });
    let series = points.each_ref().map(|(name, points)| Series { name, points });
    svg::lines(&Lines {
        title: "Latency of a steady load while its token expires every 250 ms",
        subtitle: "Worst of each 4 ms. Lower is better.",
        x_axis: "time in milliseconds",
        y_axis: "latency in milliseconds",
        logarithmic: false,
        series: &series,
    })
}
