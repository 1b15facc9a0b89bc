//! A token endpoint that replies from a script and records the requests.
#![allow(clippy::disallowed_types, reason = "locks shared with the code under test")]

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use tower::BoxError;
use tower_refresh::TokenError;
use tower_refresh::oauth2::TokenEndpoint;
use tower_refresh::{Clock, Timestamp};

pub(crate) const URL: &str = "https://as.example.com/oauth2/token";

/// The reaction of the server to one request.
pub(crate) enum Reply {
    Answer(Response<Vec<u8>>),
    /// The body begins, and then pauses without end.
    Drip(Response<Vec<u8>>),
    /// The body begins, and then the connection breaks.
    Cut(Response<Vec<u8>>),
    Fail(BoxError),
    Hang,
}

pub(crate) fn answer(status: u16, body: impl Into<Vec<u8>>) -> Reply {
    Reply::Answer(response(status, body))
}

pub(crate) fn json(body: &str) -> Reply {
    answer(200, body)
}

pub(crate) fn answer_with(status: u16, headers: &[(&'static str, &str)], body: &str) -> Reply {
    let mut response = response(status, body);
    for (name, value) in headers {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    Reply::Answer(response)
}

pub(crate) fn response(status: u16, body: impl Into<Vec<u8>>) -> Response<Vec<u8>> {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

pub(crate) fn refused() -> Reply {
    Reply::Fail(Refused.into())
}

/// The connect error of this HTTP client, which the endpoint is configured to recognise.
#[derive(Debug)]
struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connection refused")
    }
}

impl std::error::Error for Refused {}

pub(crate) fn reset() -> Reply {
    Reply::Fail(io::Error::from(io::ErrorKind::ConnectionReset).into())
}

/// Returns the kind of an error.
pub(crate) fn kind(error: &TokenError) -> &'static str {
    match error {
        error if error.is_denied() => "denied",
        error if error.is_transient() => "transient",
        error if error.is_ambiguous() => "ambiguous",
        _ => "misconfigured",
    }
}

/// The requests that the server received.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Request<String>>>>);

impl Log {
    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub(crate) fn bodies(&self) -> Vec<String> {
        let requests = self.0.lock().unwrap();
        requests.iter().map(|request| request.body().clone()).collect()
    }

    pub(crate) fn last(&self) -> Request<String> {
        self.0.lock().unwrap().last().unwrap().clone()
    }
}

/// Makes an endpoint that gives these replies and then refuses connections.
pub(crate) fn endpoint(replies: impl IntoIterator<Item = Reply>) -> (TokenEndpoint, Log) {
    let replies = Arc::new(Mutex::new(replies.into_iter().collect::<VecDeque<_>>()));
    let log = Log::default();
    let sent = log.clone();
    let client = tower::service_fn(move |request: Request<Full<Bytes>>| {
        let reply = replies.lock().unwrap().pop_front();
        let sent = sent.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let body = String::from_utf8(body.to_vec())?;
            sent.0.lock().unwrap().push(Request::from_parts(head, body));
            match reply.unwrap_or_else(refused) {
                Reply::Answer(response) => {
                    Ok(response.map(|body| Full::from(body).map_err(|e| match e {}).boxed()))
                }
                Reply::Drip(response) => Ok(response.map(|body| {
                    let begun = stream::iter([frame(body)]);
                    BoxBody::new(StreamBody::new(begun.chain(stream::pending())))
                })),
                Reply::Cut(response) => Ok(response.map(|body| {
                    let error: BoxError = io::Error::from(io::ErrorKind::UnexpectedEof).into();
                    BoxBody::new(StreamBody::new(stream::iter([frame(body), Err(error)])))
                })),
                Reply::Fail(error) => Err(error),
                Reply::Hang => std::future::pending().await,
            }
        }
    });
    let endpoint = TokenEndpoint::new(client, URL).unwrap();
    (endpoint.is_unsent(|error| error.is::<Refused>()), log)
}

type Frame = Result<http_body::Frame<Bytes>, BoxError>;

fn frame(body: Vec<u8>) -> Frame {
    Ok(http_body::Frame::data(body.into()))
}

pub(crate) type TestBody = BoxBody<Bytes, BoxError>;

/// A clock that the test advances. It begins on 1 November 2022, 13:13:43 UTC.
#[derive(Clone)]
pub(crate) struct Manual(Arc<AtomicU64>);

pub(crate) const START: u64 = 1_667_308_423;
pub(crate) const START_DATE: &str = "Tue, 01 Nov 2022 13:13:43 GMT";

impl Manual {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(0)))
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_secs(), Ordering::Relaxed);
    }
}

impl Clock for Manual {
    fn now(&self) -> Timestamp {
        let seconds = Duration::from_secs(self.0.load(Ordering::Relaxed));
        Timestamp::new(seconds, UNIX_EPOCH + Duration::from_secs(START) + seconds)
    }
}
