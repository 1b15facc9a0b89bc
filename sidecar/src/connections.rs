//! The connections of callers: when they are closed.
//!
//! A connection is *new* until one of its requests has passed the guard, which requires the key over TCP. It is *busy* while a
//! request is in flight, until the end of the answer's body, and *idle* between requests.
//!
//! | Connection | Closed |
//! |---|---|
//! | new | after `Limits::first_request`; if callers wait, the oldest is closed after `Limits::crowded_first_request` |
//! | idle | after `Limits::idle`; if callers wait and no connection is new, the one that is idle longest is closed after `Limits::crowded_idle` |
//! | busy | never; if callers wait and none of the above can be closed, its HTTP/1.1 answer has `Connection: close` |
//!
//! An idle connection of HTTP/2 is closed with GOAWAY. If the caller does not answer it, because it is stopped for example, the
//! connection is dropped after `Limits::idle` again.
//!
//! So connections that send nothing cannot keep callers out, and more callers than there are connections take turns.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Response, Version};
use http_body::{Body, Frame, SizeHint};
use hyper_util::server::graceful::GracefulConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::limits::Limits;

/// The connections of callers, and the callers that wait for one.
pub struct Connections {
    limits: Limits,
    places: Arc<Semaphore>,
    /// For requests to the API. A connection of HTTP/2 can have many.
    requests: Arc<Semaphore>,
    /// True if busy connections should end.
    is_crowded: Arc<AtomicBool>,
    /// In the order of their start. Some may have ended.
    open: Vec<Weak<Connection>>,
    ending: watch::Sender<()>,
}

impl Connections {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            places: Arc::new(Semaphore::new(limits.connections)),
            requests: Arc::new(Semaphore::new(limits.connections)),
            is_crowded: Arc::default(),
            open: Vec::new(),
            ending: watch::channel(()).0,
        }
    }

    /// Waits until there is room for another connection, and makes room if it can.
    pub async fn admit(&mut self) -> Admission {
        let place = loop {
            if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
                break place;
            }
            self.make_room();
            let free = Arc::clone(&self.places).acquire_owned();
            // The semaphore is never closed.
            if let Ok(Ok(place)) = timeout(self.limits.crowded_first_request, free).await {
                break place;
            }
        };
        self.is_crowded.store(false, Ordering::Relaxed);
        let connection = Arc::new(Connection {
            state: watch::Sender::new(State::new()),
            requests: Arc::clone(&self.requests),
            is_crowded: Arc::clone(&self.is_crowded),
        });
        if self.open.len() >= 2 * self.limits.connections {
            self.open.retain(|connection| connection.strong_count() > 0);
        }
        self.open.push(Arc::downgrade(&connection));
        Admission {
            caller: Caller(connection),
            limits: self.limits,
            ending: self.ending.subscribe(),
            _place: place,
        }
    }

    /// Ends one connection that has been new or idle for long enough. Otherwise busy connections should end.
    fn make_room(&mut self) {
        self.open.retain(|connection| connection.strong_count() > 0);
        let open = || self.open.iter().filter_map(Weak::upgrade);
        let oldest_new = || open().find(|connection| connection.state.borrow().is_new());
        let longest_idle = || {
            let idle = open().filter(|connection| connection.state.borrow().is_idle());
            idle.min_by_key(|connection| connection.state.borrow().quiet_since)
        };
        let is_ended = oldest_new().or_else(longest_idle).is_some_and(|connection| {
            connection.state.send_if_modified(|state| {
                // It may have begun a request by now.
                let limit = match state.is_known {
                    false => self.limits.crowded_first_request,
                    true => self.limits.crowded_idle,
                };
                let is_quiet = state.requests == 0 && Instant::now() >= state.quiet_since + limit;
                state.ends |= is_quiet;
                is_quiet
            })
        });
        self.is_crowded.store(!is_ended, Ordering::Relaxed);
    }

    /// Ends connections as they become idle. The future ends with the last of them.
    pub async fn end(self) {
        let _ = self.ending.send(());
        self.ending.closed().await;
    }
}

/// The room for one connection.
pub struct Admission {
    pub caller: Caller,
    limits: Limits,
    ending: watch::Receiver<()>,
    _place: OwnedSemaphorePermit,
}

impl Admission {
    /// Serves a connection until its end.
    pub async fn serve(mut self, connection: impl GracefulConnection) {
        let mut connection = pin!(connection);
        tokio::select! {
            // An error is the caller's: it has disconnected, or does not speak HTTP.
            _ = connection.as_mut() => return,
            is_new = self.caller.0.overdue(&self.limits) => {
                if is_new {
                    return;
                }
            }
            _ = self.ending.changed() => {}
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            _ = connection => {}
            () = self.caller.0.unanswered(self.limits.idle) => {}
        }
    }
}

/// The caller at the other end of a connection.
#[derive(Clone)]
pub struct Caller(Arc<Connection>);

impl Caller {
    /// Begins a request that has passed the guard.
    pub fn begin(&self, version: Version) -> InFlight {
        self.0.state.send_if_modified(|state| {
            state.is_known = true;
            state.is_http2 = version == Version::HTTP_2;
            state.requests += 1;
            false
        });
        InFlight { caller: self.clone(), slot: None }
    }

    /// Adds `Connection: close` to an answer over HTTP/1 if another caller waits for the connection.
    pub fn take_turns<B>(&self, version: Version, answer: &mut Response<B>) {
        if version < Version::HTTP_2 && self.0.is_crowded.load(Ordering::Relaxed) {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

struct Connection {
    /// Its receivers are notified of `ends` only: the rest changes with every request.
    state: watch::Sender<State>,
    requests: Arc<Semaphore>,
    is_crowded: Arc<AtomicBool>,
}

struct State {
    /// True if a request has passed the guard.
    is_known: bool,
    is_http2: bool,
    /// Requests in flight.
    requests: usize,
    /// When the connection began, or its last request ended.
    quiet_since: Instant,
    /// True if the connection should end, to make room.
    ends: bool,
}

impl State {
    fn new() -> Self {
        Self {
            is_known: false,
            is_http2: false,
            requests: 0,
            quiet_since: Instant::now(),
            ends: false,
        }
    }

    fn is_new(&self) -> bool {
        !self.is_known && !self.ends
    }

    fn is_idle(&self) -> bool {
        self.is_known && self.requests == 0 && !self.ends
    }
}

impl Connection {
    /// Waits until the connection has been inactive for too long. Returns whether it is new.
    async fn overdue(&self, limits: &Limits) -> bool {
        let mut state = self.state.subscribe();
        loop {
            let look_again = {
                let state = state.borrow_and_update();
                let is_new = !state.is_known;
                let end =
                    state.quiet_since + if is_new { limits.first_request } else { limits.idle };
                if state.ends || (state.requests == 0 && Instant::now() >= end) {
                    return is_new;
                }
                if state.requests == 0 { end } else { Instant::now() + limits.idle }
            };
            tokio::select! {
                _ = state.changed() => {}
                () = sleep_until(look_again) => {}
            }
        }
    }

    /// Waits until no request was in flight for a while after GOAWAY. hyper waits without a limit for the answer of a caller
    /// that is stopped. HTTP/1.1 needs no answer: its connection ends with the last byte that the caller takes.
    async fn unanswered(&self, limit: Duration) {
        let mut since = Instant::now();
        loop {
            sleep_until(since + limit).await;
            let state = self.state.borrow();
            let is_quiet = state.is_http2 && state.requests == 0;
            since = if is_quiet { state.quiet_since.max(since) } else { Instant::now() };
            if is_quiet && Instant::now() >= since + limit {
                return;
            }
        }
    }
}

/// A request, until the end of its answer.
pub struct InFlight {
    caller: Caller,
    slot: Option<OwnedSemaphorePermit>,
}

impl InFlight {
    /// Waits until the request may use a connection to the API.
    pub async fn slot(&mut self) {
        self.slot = Arc::clone(&self.caller.0.requests).acquire_owned().await.ok();
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.caller.0.state.send_if_modified(|state| {
            state.requests -= 1;
            state.quiet_since = Instant::now();
            false
        });
    }
}

/// The body of an answer, and the request that ends with it.
pub struct Held<B> {
    body: B,
    _request: Option<InFlight>,
}

impl<B> Held<B> {
    pub fn new(body: B, request: Option<InFlight>) -> Self {
        Self { body, _request: request }
    }
}

impl<B: Body + Unpin> Body for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
