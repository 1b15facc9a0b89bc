//! The processor time of a request over HTTP/1.1 on loopback, from the client and the server together.
//!
//! `cargo bench --all-features --bench end_to_end`. One thread runs hyper-util's client and hyper's server, with one connection for
//! each stack. The time is the processor's, so that other programs disturb it little.
#![allow(clippy::expect_used, reason = "a bench fails by panicking")]

mod support;

use std::convert::Infallible;

use http::{Request, Response, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::time::{ClockId, clock_gettime};
use support::compare::{Rounds, Times, in_turn};
use support::requests::{Requests, Values};
use support::services::Body;
use support::stacks::{TOKEN, refresh};
use support::table;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tower::util::BoxCloneService;
use tower::{BoxError, Layer, Service};
use tower_http::auth::AddAuthorizationLayer;

const NAMES: [&str; 3] = ["static header", "without retry", "armed"];

type Stack = BoxCloneService<Request<Body>, Response<Incoming>, BoxError>;

fn main() {
    if support::lists() {
        return;
    }
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let origin = format!("http://{}", listener.local_addr().expect("an address"));
    runtime.spawn(serve(listener));
    let layer = refresh().origin(&origin).expect("on loopback");
    let mut stacks = [
        stack(AddAuthorizationLayer::bearer(TOKEN)),
        stack(layer.clone().without_retry()),
        stack(layer),
    ];
    for headers in [0, 8] {
        let requests = Requests::new(headers, Values::Owned);
        let times = measure(&runtime, &mut stacks, &requests, &origin);
        let rows: Vec<_> = (0..NAMES.len())
            .map(|stack| {
                vec![
                    NAMES[stack].to_owned(),
                    format!("{:.1} µs", times.nanoseconds(stack) / 1e3),
                    format!("{:+.1} %", (times.ratio(stack, 0) - 1.0) * 100.0),
                    format!("{:+.0} ns", times.added(stack, 0)),
                ]
            })
            .collect();
        let title = format!("Processor time of a request with {headers} owned headers");
        table::print(&title, &["Stack", "Time", "To static", "Added"], &rows);
    }
}

fn measure(runtime: &Runtime, stacks: &mut [Stack; 3], requests: &Requests, origin: &str) -> Times {
    let length = Rounds::new(101, 300);
    let mut times = vec![Vec::new(); NAMES.len()];
    for number in in_turn(NAMES.len(), length.rounds) {
        let began = processor_time();
        runtime.block_on(async {
            for _ in 0..length.requests {
                send(&mut stacks[number], requests, origin).await;
            }
        });
        times[number].push((processor_time() - began) / f64::from(length.requests));
    }
    Times::from_rounds(times)
}

/// Returns the processor time of this program in nanoseconds.
fn processor_time() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

async fn send(stack: &mut Stack, requests: &Requests, origin: &str) {
    let mut request = requests.build();
    *request.uri_mut() = Uri::try_from(format!("{origin}/v1/things")).expect("a valid URI");
    std::future::poll_fn(|cx| stack.poll_ready(cx)).await.expect("a client that is ready");
    let response = stack.call(request).await.expect("a response");
    response.into_body().collect().await.expect("the whole response");
}

fn stack<L>(layer: L) -> Stack
where
    L: Layer<Client<hyper_util::client::legacy::connect::HttpConnector, Body>>,
    L::Service: Service<
            Request<Body>,
            Response = Response<Incoming>,
            Error: Into<BoxError>,
            Future: Send + 'static,
        > + Clone
        + Send
        + 'static,
{
    let client = Client::builder(TokioExecutor::new()).build_http();
    BoxCloneService::new(tower::ServiceExt::map_err(layer.layer(client), Into::into))
}

async fn serve(listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        stream.set_nodelay(true).expect("a socket");
        let service = service_fn(async |request: Request<Incoming>| {
            drop(request);
            Ok::<_, Infallible>(Response::new(Body::default()))
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}
