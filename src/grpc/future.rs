//! The way of one answer: the head, the message, the trailers.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::runtime::Handle;
use tokio::time::Sleep;

use super::{ResponseBody, is_grpc};

pin_project! {
    /// The response of a [`HoldTrailers`](super::HoldTrailers).
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the call, and what is held of its answer.
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
        /// Waits for the head. With limits, the answer may have to be held.
        Calling { #[pin] response: F, limits: Option<(usize, Duration)> },
        /// Has the head, and reads ahead to the trailers.
        Holding { answer: Held<D>, timeout: Duration, #[pin] deadline: Option<Sleep> },
        /// Is over, or between two states.
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
                    let answered = ready!(response.poll(cx));
                    let limits = limits.take();
                    this.state.set(State::Over);
                    let (parts, body) = match answered {
                        Ok(response) => response.map(ResponseBody::new).into_parts(),
                        Err(error) => return Poll::Ready(Err(error)),
                    };
                    match limits {
                        Some((limit, timeout)) if may_have_trailers(&parts) => {
                            let message = Message::default();
                            let answer = Held { parts, body, left: limit, message };
                            State::Holding { answer, timeout, deadline: None }
                        }
                        _ => return Poll::Ready(Ok(Response::from_parts(parts, body))),
                    }
                }

                // ## Holding => response
                StateProj::Holding { answer, timeout, mut deadline } => {
                    if answer.poll(cx).is_pending() {
                        // Outside a runtime there is no timer, and without one there is no waiting.
                        if deadline.is_none() && Handle::try_current().is_ok() {
                            deadline.set(Some(tokio::time::sleep(*timeout)));
                        }
                        if let Some(deadline) = deadline.as_pin_mut() {
                            ready!(deadline.poll(cx));
                        }
                    }
                    let StateOwned::Holding { answer, .. } =
                        this.state.as_mut().project_replace(State::Over)
                    else {
                        unreachable!()
                    };
                    return Poll::Ready(Ok(Response::from_parts(answer.parts, answer.body)));
                }

                #[expect(
                    clippy::panic,
                    reason = "as every future: polling it after its end is a bug of the caller"
                )]
                StateProj::Over => panic!("`ResponseFuture` polled after it was ready"),
            };
            this.state.set(next);
        }
    }
}

/// An answer that is not over until its trailers have been looked at.
struct Held<D: Body> {
    parts: Parts,
    body: ResponseBody<D>,
    /// How many more bytes may be held.
    left: usize,
    message: Message,
}

impl<D: Body<Data = Bytes> + Unpin> Held<D> {
    /// Reads up to the trailers, and ends as soon as it is known that they are there, or need not be waited for.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(frame) = ready!(Pin::new(&mut self.body).poll_hold(cx)) {
            if let Some(data) = frame.data_ref() {
                // An empty frame counts too: there may be no end of them.
                let left = self.left.checked_sub(data.len().max(1));
                self.left = left.unwrap_or_default();
                if left.is_none() || self.message.is_passed_by(data) {
                    break;
                }
            } else if let Some(trailers) = frame.trailers_ref() {
                if trailers.get(GRPC_STATUS).is_some_and(|status| status == UNAUTHENTICATED) {
                    copy_trailers(trailers, &mut self.parts.headers);
                }
                break;
            }
        }
        Poll::Ready(())
    }
}

const GRPC_STATUS: &str = "grpc-status";
const UNAUTHENTICATED: &str = "16";

/// Returns whether it is an answer whose status comes in its trailers.
fn may_have_trailers(head: &Parts) -> bool {
    head.status == StatusCode::OK
        && is_grpc(&head.headers)
        && !head.headers.contains_key(GRPC_STATUS)
}

/// Makes an answer's headers what they would be if it had nothing but a status.
///
/// Where both have a name the headers' values stay, since a trailer must not overwrite what says how a message is to be
/// read (RFC 9110 §6.5.1); tonic merges them likewise.
fn copy_trailers(trailers: &HeaderMap, headers: &mut HeaderMap) {
    for name in
        trailers.keys().filter(|name| !headers.contains_key(*name)).cloned().collect::<Vec<_>>()
    {
        for value in trailers.get_all(&name) {
            // There is no room beyond some 30,000 headers; the trailers are still where they were.
            let _ = headers.try_append(name.clone(), value.clone());
        }
    }
}

/// The first message of a body (gRPC over HTTP/2, "Length-Prefixed-Message"), of which only the length matters.
#[derive(Default)]
struct Message {
    /// A byte that says whether it is compressed, and the length of what follows.
    prefix: [u8; 5],
    seen: u64,
}

impl Message {
    /// Takes note of data that came, and returns whether some of it is beyond the message.
    fn is_passed_by(&mut self, data: &[u8]) -> bool {
        let at = usize::try_from(self.seen).unwrap_or(usize::MAX);
        for (place, byte) in self.prefix.iter_mut().skip(at).zip(data) {
            *place = *byte;
        }
        self.seen += data.len() as u64;
        let [_, length @ ..] = self.prefix;
        let prefix = self.prefix.len() as u64;
        self.seen > prefix + u64::from(u32::from_be_bytes(length))
    }
}

impl<F, D: Body> fmt::Debug for ResponseFuture<F, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Calling { .. } => "Calling",
            State::Holding { .. } => "Holding",
            State::Over => "Over",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish()
    }
}
