//! The response future: waits for the head, the message and the trailers.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::runtime::Handle;
use tokio::time::Sleep;

use super::body::ResponseBody;
use super::wire::{Message, may_have_trailers};
use crate::classify::{Verdict, grpc_verdict};

pin_project! {
    /// The response future of [`HoldTrailers`](super::HoldTrailers).
    ///
    /// # Cancel safety
    ///
    /// Dropping it cancels the call and drops the part of the response that is held.
    ///
    /// # Examples
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http::{Request, Response};
    /// use http_body_util::Full;
    /// use tower::Service;
    /// use tower_refresh::grpc::{HoldTrailers, ResponseFuture};
    ///
    /// type Body = Full<Bytes>;
    ///
    /// fn send<I>(service: &mut HoldTrailers<I>, request: Request<Body>) -> ResponseFuture<I::Future, Body>
    /// where
    ///     I: Service<Request<Body>, Response = Response<Body>>,
    /// {
    ///     service.call(request)
    /// }
    /// ```
    pub struct ResponseFuture<F, D>
    where
        D: Body,
    {
        #[pin]
        state: State<F, D>,
    }
}

pin_project! {
    #[project = StateProj]
    #[project_replace = StateOwned]
    enum State<F, D>
    where
        D: Body,
    {
        /// Waits for the head. With limits, the response may have to be held.
        Calling { #[pin] response: F, limits: Option<(usize, Duration)> },
        /// Has the head, and reads up to the trailers.
        Holding { held: Held<D>, timeout: Duration, #[pin] deadline: Option<Sleep> },
        /// Has ended, or is between two states.
        Over,
    }
}

impl<F, D: Body> ResponseFuture<F, D> {
    pub(super) fn new(response: F, limits: Option<(usize, Duration)>) -> Self {
        Self { state: State::Calling { response, limits } }
    }
}

impl<F, D, E> Future for ResponseFuture<F, D>
where
    F: Future<Output = Result<Response<D>, E>>,
    D: Body<Data = Bytes> + Unpin,
{
    type Output = Result<Response<ResponseBody<D>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                // ## Calling => (Holding | response | error)
                StateProj::Calling { response, limits } => {
                    let result = ready!(response.poll(cx));
                    let limits = limits.take();
                    this.state.set(State::Over);
                    let (parts, body) = match result {
                        Ok(response) => response.map(ResponseBody::new).into_parts(),
                        Err(error) => return Poll::Ready(Err(error)),
                    };
                    match limits {
                        Some((limit, timeout)) if may_have_trailers(&parts) => {
                            let message = Message::default();
                            let held = Held { parts, body, left: limit, message };
                            State::Holding { held, timeout, deadline: None }
                        }
                        _ => return Poll::Ready(Ok(Response::from_parts(parts, body))),
                    }
                }

                // ## Holding => response
                StateProj::Holding { held, timeout, mut deadline } => {
                    if held.poll(cx).is_pending() {
                        // Outside a runtime there is no timer, and the response is returned at once.
                        if deadline.is_none() && Handle::try_current().is_ok() {
                            deadline.set(Some(tokio::time::sleep(*timeout)));
                        }
                        if let Some(deadline) = deadline.as_pin_mut() {
                            ready!(deadline.poll(cx));
                        }
                    }
                    let StateOwned::Holding { held, .. } =
                        this.state.as_mut().project_replace(State::Over)
                    else {
                        unreachable!()
                    };
                    return Poll::Ready(Ok(Response::from_parts(held.parts, held.body)));
                }

                #[expect(
                    clippy::panic,
                    reason = "polling any future after it was ready is a bug of the caller"
                )]
                StateProj::Over => panic!("`ResponseFuture` polled after it was ready"),
            };
            this.state.set(next);
        }
    }
}

/// A response that is held until its trailers are known.
struct Held<D: Body> {
    parts: Parts,
    body: ResponseBody<D>,
    /// How many more bytes may be held.
    left: usize,
    message: Message,
}

impl<D: Body<Data = Bytes> + Unpin> Held<D> {
    /// Reads up to the trailers. Ready when they have arrived, or when the response cannot be held any longer.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(frame) = ready!(Pin::new(&mut self.body).poll_hold(cx)) {
            if let Some(data) = frame.data_ref() {
                // An empty frame counts too, since a server may send them without end.
                let left = self.left.checked_sub(data.len().max(1));
                self.left = left.unwrap_or_default();
                if left.is_none() || self.message.is_passed_by(data) {
                    break;
                }
            } else if let Some(trailers) = frame.trailers_ref() {
                if grpc_verdict(trailers) == Verdict::Rejected {
                    copy_trailers(trailers, &mut self.parts.headers);
                }
                break;
            }
        }
        Poll::Ready(())
    }
}

/// Copies the trailers into the headers, as in a response that consists of a status only.
///
/// A name that the headers have already is skipped: a trailer must not change how the message is read (RFC 9110 §6.5.1). tonic
/// merges them in the same way.
fn copy_trailers(trailers: &HeaderMap, headers: &mut HeaderMap) {
    for name in
        trailers.keys().filter(|name| !headers.contains_key(*name)).cloned().collect::<Vec<_>>()
    {
        for value in trailers.get_all(&name) {
            // Fails beyond about 30,000 headers. The trailers are still in the body.
            let _ = headers.try_append(name.clone(), value.clone());
        }
    }
}

impl<F, D: Body> fmt::Debug for ResponseFuture<F, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
