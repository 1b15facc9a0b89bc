//! The time and the allocations of keeping a stream for a second attempt.
//!
//! `cargo bench --all-features --bench bodies`. A service reads the request's body to its end and responds. With a retry armed, the
//! layer keeps the frames that were sent: it copies small ones and shares large ones. Programs that use `tower::retry` collect the
//! body first.

mod support;

use std::convert::Infallible;
use std::future::{Future as _, Ready, ready};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use support::by_hand::RetryOnce;
use support::compare::{Case, Contestants};
use support::requests::{Requests, Values};
use support::services::{Body, Stack, send};
use support::stacks::{Run, TOKEN, refresh};
use tower::retry::RetryLayer;
use tower::{BoxError, Layer as _, Service, ServiceBuilder};
use tower_http::auth::AddAuthorizationLayer;
use tower_refresh::Replayable;

const NAMES: [&str; 4] =
    ["static header", "without retry", "armed", "`tower::retry`, body collected first"];

fn main() {
    if support::lists() {
        return;
    }
    for (frame, size) in [(1 << 10, "1 KiB"), (16 << 10, "16 KiB")] {
        let cases = [1, 16, 64].map(|frames| case(frames, frame));
        let title = format!("Streams of frames of {size}, by the number of frames");
        Contestants { names: &NAMES, baseline: 0 }.print(&title, cases.into(), 50, None);
    }
}

fn case(frames: usize, size: usize) -> Case {
    let frame = Bytes::from(vec![7; size]);
    let body = move || Frames { left: frames, frame: frame.clone() };
    let stream = body.clone();
    let stream = move || Replayable::new(stream());
    let fixed = AddAuthorizationLayer::bearer(TOKEN);
    let limited = refresh().replay_limit(frames * size);
    let contestants = vec![
        run(fixed.layer(Reader), stream.clone()),
        run(refresh().without_retry().layer(Reader), stream.clone()),
        run(limited.layer(Reader), stream),
        run(
            Collect(
                ServiceBuilder::new()
                    .layer(RetryLayer::new(RetryOnce::default()))
                    .layer(fixed)
                    .service(Reader),
            ),
            body,
        ),
    ];
    Case { name: frames.to_string(), contestants }
}

fn run<B, S: Stack<B> + 'static>(mut stack: S, body: impl Fn() -> B + 'static) -> Run {
    let requests = Requests::new(8, Values::Static);
    Box::new(move |count| {
        for _ in 0..count {
            drop(send(&mut stack, requests.build().map(|_| body())));
        }
    })
}

/// Collects the body of a request, whose frames are all ready.
struct Collect<S>(S);

impl<S> Service<Request<Frames>> for Collect<S>
where
    S: Stack,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Frames>) -> S::Future {
        let (head, body) = request.into_parts();
        let Poll::Ready(Ok(body)) =
            pin!(body.collect()).poll(&mut Context::from_waker(Waker::noop()))
        else {
            unreachable!("all frames are ready");
        };
        self.0.call(Request::from_parts(head, Full::new(body.to_bytes())))
    }
}

/// Reads the request's body, and then responds.
#[derive(Clone)]
struct Reader;

impl<B: http_body::Body + Unpin> Service<Request<B>> for Reader {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut body = request.into_body();
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut cx) {
            drop(black_box(frame));
        }
        ready(Ok(Response::new(Full::default())))
    }
}

#[derive(Clone)]
struct Frames {
    left: usize,
    frame: Bytes,
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        Poll::Ready(Some(Ok(http_body::Frame::data(self.frame.clone()))))
    }
}
