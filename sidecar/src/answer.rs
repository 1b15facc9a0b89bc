//! The responses of the sidecar itself. `README.md` lists them by their `sidecar-error`.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper_util::client::legacy;
use tower::timeout::error::Elapsed;
use tower_refresh::{BoxError, TokenError};

use crate::headers::{self, Passing};

/// The API's body, or the sidecar's.
pub type AnswerBody = Either<Passing, Full<Bytes>>;

/// The reason why the sidecar responds instead of the API.
pub struct Refusal {
    status: StatusCode,
    kind: &'static str,
    why: Cow<'static, str>,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Refusal {
    pub fn new(status: StatusCode, kind: &'static str, why: impl Into<Cow<'static, str>>) -> Self {
        Self { status, kind, why: why.into(), header: None }
    }

    /// Names the allowed methods, as RFC 9110 §15.5.6 requires.
    pub fn method(allowed: &'static str) -> Self {
        let why = format!("the method is not allowed; allowed methods: {allowed}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method", why)
            .with(ALLOW, HeaderValue::from_static(allowed))
    }

    /// Refuses a tunnel: only requests and responses are forwarded.
    pub fn upgrade() -> Self {
        let why = "Upgrade and CONNECT are not supported: send requests over HTTP/1.1 without `Upgrade`, or over HTTP/2 from the start";
        Self::new(StatusCode::NOT_IMPLEMENTED, "upgrade", why)
    }

    /// Has a challenge, as RFC 9110 §15.5.2 requires.
    pub fn key() -> Self {
        let why = "the header `sidecar-key` must have the key of this run of the sidecar";
        Self::new(StatusCode::UNAUTHORIZED, "key", why)
            .with(WWW_AUTHENTICATE, HeaderValue::from_static("Sidecar-Key"))
    }

    /// The API has not responded. Such errors contain no secret and no URL.
    pub fn failed(error: &BoxError) -> Self {
        if let Some(error) = error.downcast_ref::<TokenError>() {
            return Self::token(error);
        }
        let connect = error.downcast_ref::<legacy::Error>().is_some_and(legacy::Error::is_connect);
        let (status, kind) = match connect {
            true if causes(&**error).any(|cause| cause.is::<Elapsed>()) => {
                (StatusCode::GATEWAY_TIMEOUT, "timeout")
            }
            true => (StatusCode::BAD_GATEWAY, "unreachable"),
            false if causes(&**error).any(is_other_protocol) => {
                (StatusCode::BAD_GATEWAY, "protocol")
            }
            false => (StatusCode::BAD_GATEWAY, "upstream"),
        };
        let mut why = match kind {
            "protocol" => {
                "the API does not answer in HTTP/1.1; if it speaks HTTP/2 without TLS, set `http2` to `prior_knowledge` in the configuration"
            }
            _ => "the API does not answer",
        }
        .to_owned();
        for cause in causes(&**error) {
            // Writing to a string cannot fail.
            let _ = write!(why, ": {cause}");
        }
        Self::new(status, kind, why)
    }

    fn token(error: &TokenError) -> Self {
        let kind = token_error_kind(error);
        if !error.is_transient() {
            return Self::new(StatusCode::BAD_GATEWAY, kind, error.to_string());
        }
        let refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, error.to_string());
        match error.retry_after() {
            Some(delay) => refusal.with(RETRY_AFTER, delay.as_secs().max(1).into()),
            None => refusal,
        }
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }

    pub fn kind(&self) -> &'static str {
        self.kind
    }

    pub fn into_response(self) -> Response<AnswerBody> {
        let text = format!("sidecar: {}\n", self.why);
        let mut response = Response::new(Either::Right(Full::from(text)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(headers::ERROR, HeaderValue::from_static(self.kind));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.extend(self.header);
        response
    }
}

pub fn token_error_kind(error: &TokenError) -> &'static str {
    match error {
        error if error.is_transient() => "token-transient",
        error if error.is_ambiguous() => "token-ambiguous",
        error if error.is_denied() => "token-denied",
        _ => "token-misconfigured",
    }
}

/// Returns whether the API has sent bytes that are not HTTP/1.1.
fn is_other_protocol(error: &(dyn Error + 'static)) -> bool {
    let error = error.downcast_ref::<hyper::Error>();
    error.is_some_and(|error| error.is_parse() && !error.is_parse_too_large())
}

/// Returns the error and its sources.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
