//! The cost of the layer for a request with a fresh token.
//!
//! `cargo bench --bench overhead`. Each bench builds a request, sends it through the stack, and drops the response. The stacks
//! differ in one layer, whose cost is the difference between them; `bare` has none. divan counts allocations as well.
#![allow(clippy::expect_used, reason = "a bench fails by panicking")]

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use divan::{AllocProfiler, Bencher, black_box};
use http::{HeaderName, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::Full;
use tower::{Layer as _, Service};
use tower_http::auth::AddAuthorizationLayer;
use tower_refresh::replay::Replayable;
use tower_refresh::{Credentials, RefreshLayer, Renewal, TokenSet};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

/// The number of headers of a request, without the token.
const HEADERS: [usize; 3] = [0, 8, 20];

fn main() {
    divan::main();
}

#[divan::bench(args = HEADERS)]
fn bare(bencher: Bencher<'_, '_>, headers: usize) {
    run(bencher, headers, Api);
}

#[divan::bench(args = HEADERS)]
fn static_header(bencher: Bencher<'_, '_>, headers: usize) {
    run(bencher, headers, AddAuthorizationLayer::bearer(TOKEN).layer(Api));
}

#[divan::bench(args = HEADERS)]
fn refresh_without_retry(bencher: Bencher<'_, '_>, headers: usize) {
    run(bencher, headers, refresh().without_retry().layer(Api));
}

#[divan::bench(args = HEADERS)]
fn refresh_with_retry(bencher: Bencher<'_, '_>, headers: usize) {
    run(bencher, headers, refresh().layer(Api));
}

/// The number of frames of a stream, 1 KiB each.
const FRAMES: [usize; 3] = [1, 16, 64];

#[divan::bench(args = FRAMES)]
fn stream_without_retry(bencher: Bencher<'_, '_>, frames: usize) {
    run_stream(bencher, frames, refresh().without_retry().layer(Reader));
}

/// The frames are kept until the response arrives.
#[divan::bench(args = FRAMES)]
fn stream_with_retry(bencher: Bencher<'_, '_>, frames: usize) {
    run_stream(bencher, frames, refresh().layer(Reader));
}

/// Several threads at once: a request with a fresh token takes no lock.
#[divan::bench(threads = [1, 2])]
fn refresh_without_retry_shared(bencher: Bencher<'_, '_>) {
    let service = refresh().without_retry().layer(Api);
    bencher.bench(|| answer(service.clone().call(request(0))));
}

const TOKEN: &str =
    "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJlLW9mLXNvbWUtbGVuZ3Ro";

fn refresh() -> RefreshLayer {
    let credentials = Credentials::new(|_: Renewal| async {
        TokenSet::bearer(TOKEN).map(|tokens| tokens.with_expires_in(Duration::from_secs(3600)))
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(credentials.warm_up()).expect("a token");
    RefreshLayer::new(credentials).origin("https://api.example.com").expect("a valid origin")
}

fn run<S>(bencher: Bencher<'_, '_>, headers: usize, mut service: S)
where
    S: Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>>,
    S::Error: std::fmt::Debug,
{
    let mut cx = Context::from_waker(Waker::noop());
    bencher.bench_local(|| {
        assert!(service.poll_ready(&mut cx).is_ready());
        answer(service.call(request(headers)))
    });
}

fn run_stream<S>(bencher: Bencher<'_, '_>, frames: usize, mut service: S)
where
    S: Service<Request<Replayable<Frames>>, Response = Response<Full<Bytes>>>,
    S::Error: std::fmt::Debug,
{
    let mut cx = Context::from_waker(Waker::noop());
    bencher.bench_local(|| {
        assert!(service.poll_ready(&mut cx).is_ready());
        answer(service.call(request(0).map(|_| Replayable::new(Frames { left: frames }))))
    });
}

fn request(headers: usize) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(Bytes::from_static(b"{}")));
    *request.uri_mut() = http::Uri::from_static("https://api.example.com/v1/things");
    for name in &NAMES[..headers] {
        request.headers_mut().insert(name.clone(), VALUE.clone());
    }
    black_box(request)
}

fn answer<F, E>(future: F) -> Response<Full<Bytes>>
where
    F: Future<Output = Result<Response<Full<Bytes>>, E>>,
    E: std::fmt::Debug,
{
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(response) => response.expect("a response"),
        Poll::Pending => unreachable!("the token is fresh"),
    }
}

#[derive(Clone)]
struct Api;

impl Service<Request<Full<Bytes>>> for Api {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        black_box(&request);
        ready(Ok(Response::new(Full::default())))
    }
}

/// Reads the request's body, and then responds.
#[derive(Clone)]
struct Reader;

impl Service<Request<Replayable<Frames>>> for Reader {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Replayable<Frames>>) -> Self::Future {
        let mut body = request.into_body();
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut cx) {
            drop(black_box(frame));
        }
        ready(Ok(Response::new(Full::default())))
    }
}

struct Frames {
    left: usize,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[7; 1024])))))
    }
}

static VALUE: HeaderValue = HeaderValue::from_static("some-value-of-usual-length");

static NAMES: [HeaderName; 20] = {
    use http::header::*;
    [
        ACCEPT,
        ACCEPT_CHARSET,
        ACCEPT_ENCODING,
        ACCEPT_LANGUAGE,
        CACHE_CONTROL,
        CONTENT_TYPE,
        COOKIE,
        DATE,
        DNT,
        EXPECT,
        FORWARDED,
        FROM,
        IF_MATCH,
        IF_NONE_MATCH,
        ORIGIN,
        PRAGMA,
        RANGE,
        REFERER,
        TE,
        USER_AGENT,
    ]
};
