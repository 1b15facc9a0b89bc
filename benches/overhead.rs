//! The time and the allocations that the layer adds to a request with a fresh token.
//!
//! `cargo bench --all-features --bench overhead`. Each request is built, sent through a stack over a service that does nothing,
//! and its response is dropped. A cell has the ratio to the static header, the time in addition to it, and the allocations. The
//! last row is the time that arming a retry adds, divided by the time that `tower::retry` adds to the static header.

mod support;

use http::{Request, Response};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use support::compare::{Case, Contestants, Times};
use support::requests::{Requests, Values};
use support::services::{Api, Body, Large, Stack};
use support::stacks::{self, ARMED, NAMES, PLAIN, RETRY, STATIC};
use support::table;
use tower::util::BoxCloneService;
use tower::{Layer as _, Service};
use tower_refresh::BoxError;

fn main() {
    if support::lists() {
        return;
    }
    for (values, kind) in [(Values::Static, "static headers"), (Values::Owned, "owned headers")] {
        over(&format!("a small service, {kind}"), Api, values);
        over(&format!("a boxed service, {kind}"), BoxCloneService::new(Api), values);
        over(&format!("a service of 304 bytes with a boxed future, {kind}"), Large::new(), values);
    }
    let bodies = [("empty", 0), ("4 KiB", 4 << 10), ("1 MiB", 1 << 20)]
        .map(|(name, bytes)| (name.to_owned(), Requests::new(8, Values::Static).with_body(bytes)));
    compare("Bodies over a small service, 8 static headers", &Api, bodies.into());
    sizes();
}

/// Compares the stacks over a service, for several numbers of headers.
fn over<S>(name: &str, service: S, values: Values)
where
    S: Stack + Clone + 'static,
    S::Error: Into<BoxError>,
{
    let cases = [0, 8, 20, 32].map(|count| (count.to_string(), Requests::new(count, values)));
    compare(&format!("Over {name}"), &service, cases.into());
}

fn compare<S>(title: &str, service: &S, cases: Vec<(String, Requests)>)
where
    S: Stack + Clone + 'static,
    S::Error: Into<BoxError>,
{
    let case = |(name, requests)| Case { name, contestants: stacks::over(service, &requests) };
    let arming = |times: &Times| times.added(ARMED, PLAIN) / times.added(RETRY, STATIC);
    Contestants { names: &NAMES, baseline: STATIC }.print(
        title,
        cases.into_iter().map(case).collect(),
        200,
        Some(("arming / `tower::retry`", arming)),
    );
}

/// Prints the size of the layer's future beside that of the service's own.
fn sizes() {
    let client: Client<_, Body> = Client::builder(TokioExecutor::new()).build_http();
    let rows = [
        future_sizes("small service", Api),
        future_sizes("boxed service", BoxCloneService::new(Api)),
        future_sizes("hyper-util's client", client),
    ];
    table::print("Size of the future, in bytes", &["Over", "Own", "Without retry", "Armed"], &rows);
}

fn future_sizes<S, D>(name: &str, mut service: S) -> Vec<String>
where
    S: Service<Request<Body>, Response = Response<D>> + Clone,
    S::Error: Into<BoxError>,
    D: http_body::Body,
{
    let request = || Request::new(Full::default());
    let own = size_of_val(&service.call(request()));
    let mut plain = stacks::refresh().without_retry().layer(service.clone());
    let mut armed = stacks::refresh().layer(service);
    let plain = size_of_val(&plain.call(request()));
    let armed = size_of_val(&armed.call(request()));
    vec![name.to_owned(), own.to_string(), plain.to_string(), armed.to_string()]
}
