//! Services that respond at once, and a way to send one request through a stack over them.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::Service;

pub(crate) type Body = Full<Bytes>;

/// A service for the benches' requests, and a stack over one.
pub(crate) trait Stack<B = Body>: Service<Request<B>, Response = Response<Body>> {}

impl<B, S: Service<Request<B>, Response = Response<Body>>> Stack<B> for S {}

/// Sends a request through a stack whose response is ready at once.
pub(crate) fn send<B, S: Stack<B>>(stack: &mut S, request: Request<B>) -> Response<Body> {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(stack.poll_ready(&mut cx).is_ready());
    match pin!(stack.call(request)).poll(&mut cx) {
        Poll::Ready(Ok(response)) => response,
        Poll::Ready(Err(_)) => unreachable!("the service responds"),
        Poll::Pending => unreachable!("the token is fresh"),
    }
}

/// Does nothing, and is no larger than needed.
#[derive(Clone)]
pub(crate) struct Api;

impl Service<Request<Body>> for Api {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        black_box(&request);
        ready(Ok(Response::new(Full::default())))
    }
}

/// Does nothing, and is as large as a client: 304 bytes, four of its fields shared, and a boxed future.
#[derive(Clone)]
pub(crate) struct Large {
    shared: [Arc<()>; 4],
    settings: [u64; 34],
}

impl Large {
    pub(crate) fn new() -> Self {
        assert_eq!(size_of::<Self>(), 304);
        Self { shared: Default::default(), settings: [7; 34] }
    }
}

impl Service<Request<Body>> for Large {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let settings = black_box(self.settings[0]);
        Box::pin(async move {
            black_box((&request, settings));
            Ok(Response::new(Full::default()))
        })
    }
}
