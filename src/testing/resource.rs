//! The normal answers of the protected resource (RFC 6750).

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

use super::fault::Normal;
use super::shared::{Counted, Shared};

/// A request to the resource, with the options in its path.
pub(super) struct ResourceRequest {
    head: Parts,
    delay: Duration,
    body_delay: Duration,
    status: StatusCode,
    unauthorized: bool,
    forbidden: bool,
    early: bool,
    size: Option<usize>,
}

impl ResourceRequest {
    pub(super) fn read(head: Parts) -> Self {
        let mut request = Self {
            delay: Duration::ZERO,
            body_delay: Duration::ZERO,
            status: StatusCode::OK,
            unauthorized: false,
            forbidden: false,
            early: false,
            size: None,
            head,
        };
        let path = request.head.uri.path().to_owned();
        let mut words = path.split('/');
        while let Some(word) = words.next() {
            match word {
                "unauthorized" => request.unauthorized = true,
                "forbidden" => request.forbidden = true,
                "early" => request.early = true,
                "delay" => request.delay = milliseconds(words.next()),
                "late" => request.body_delay = milliseconds(words.next()),
                "size" => request.size = words.next().and_then(|size| size.parse().ok()),
                "status" => {
                    let status = words.next().and_then(|status| status.parse().ok());
                    request.status = status.unwrap_or(StatusCode::OK);
                }
                _ => {}
            }
        }
        request
    }

    /// Returns whether the answer does not wait for the body of the request.
    pub(super) fn answers_early(&self) -> bool {
        self.early
    }

    /// Answers the request. `body` is `None` if it could not be read.
    pub(super) fn process(&self, shared: &Shared, body: Option<Bytes>) -> Normal {
        let mut response = match body {
            Some(body) => self.answer(shared, body),
            None => refused(StatusCode::BAD_REQUEST, None, "the body ended early\n"),
        };
        if let Some(size) = self.size {
            *response.body_mut() = vec![b'.'; size].into();
        }
        if self.head.method == Method::HEAD {
            response.body_mut().clear();
        }
        Normal { delay: self.delay, body_delay: self.body_delay, ..Normal::new(response) }
    }

    fn answer(&self, shared: &Shared, body: Bytes) -> Response<Bytes> {
        let token = match bearer(&self.head.headers) {
            Ok(Some(token)) => token,
            // RFC 6750 §3.1: no error code for a request without authentication.
            Ok(None) => {
                let challenge = r#"Bearer realm="resource""#;
                let why = "no access token\n";
                return refused(StatusCode::UNAUTHORIZED, Some(challenge), why);
            }
            Err(why) => {
                let challenge = r#"Bearer realm="resource", error="invalid_request""#;
                return refused(StatusCode::BAD_REQUEST, Some(challenge), why);
            }
        };
        let now = shared.now();
        let state = shared.lock();
        let live = state.tokens.live(now, token);
        let live = live.map(|access| (access.number, access.family, access.audience.clone()));
        drop(state);
        let Some((number, log_in, audience)) = live.filter(|_| !self.unauthorized) else {
            let challenge = r#"Bearer realm="resource", error="invalid_token""#;
            let why = "the access token is not accepted\n";
            return refused(StatusCode::UNAUTHORIZED, Some(challenge), why);
        };
        if self.forbidden {
            let challenge =
                r#"Bearer realm="resource", error="insufficient_scope", scope="forbidden""#;
            let why = "the access token lacks a scope\n";
            return refused(StatusCode::FORBIDDEN, Some(challenge), why);
        }

        let length = body.len();
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(content_type) = self.head.headers.get(CONTENT_TYPE) {
            headers.insert(CONTENT_TYPE, content_type.clone());
        }
        for (name, value) in [
            (ECHO_METHOD, HeaderValue::from_str(self.head.method.as_str())),
            (ECHO_PATH, HeaderValue::from_str(self.head.uri.path())),
            (ECHO_LENGTH, Ok(length.into())),
            (ECHO_TOKEN, HeaderValue::from_str(&format!("at-{number}"))),
            (ECHO_LOG_IN, Ok(log_in.into())),
            (ECHO_AUDIENCE, HeaderValue::from_str(&audience)),
        ] {
            if let Ok(value) = value {
                headers.insert(name, value);
            }
        }
        response
    }
}

/// Returns the counter of an answer.
pub(super) fn outcome(status: StatusCode) -> Counted {
    match status {
        StatusCode::UNAUTHORIZED => |counters| &mut counters.resource_requests_unauthorized,
        status if status.is_success() => |counters| &mut counters.resource_requests_ok,
        _ => |counters| &mut counters.resource_requests_other,
    }
}

/// Returns the bearer token of a request (RFC 6750 §2.1).
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, &'static str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err("the Authorization header is repeated\n");
    }
    let value = value.to_str().map_err(|_| "the Authorization header is not visible ASCII\n")?;
    Ok(value
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer"))
        .map(|(_, token)| token.trim_start_matches(' ')))
}

fn refused(
    status: StatusCode,
    challenge: Option<&'static str>,
    why: &'static str,
) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(why.as_bytes()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    if let Some(challenge) = challenge {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    response
}

fn milliseconds(word: Option<&str>) -> Duration {
    let number = word.and_then(|word| word.parse().ok());
    Duration::from_millis(number.unwrap_or_default())
}

const ECHO_METHOD: HeaderName = HeaderName::from_static("echo-method");
const ECHO_PATH: HeaderName = HeaderName::from_static("echo-path");
const ECHO_LENGTH: HeaderName = HeaderName::from_static("echo-length");
const ECHO_TOKEN: HeaderName = HeaderName::from_static("echo-token");
const ECHO_LOG_IN: HeaderName = HeaderName::from_static("echo-log-in");
const ECHO_AUDIENCE: HeaderName = HeaderName::from_static("echo-audience");
