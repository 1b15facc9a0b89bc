//! The requests that the benches send.

use std::hint::black_box;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Uri};
use http_body_util::Full;

/// How the URI and the values of the headers are made.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Values {
    /// From constants. A clone costs next to nothing.
    Static,
    /// From strings at run time, for each request. The first clone of each value allocates.
    Owned,
}

/// Builds requests with this number of headers, without the token.
#[derive(Clone)]
pub(crate) struct Requests {
    pub(crate) headers: usize,
    pub(crate) values: Values,
    pub(crate) body: Bytes,
}

impl Requests {
    pub(crate) fn new(headers: usize, values: Values) -> Self {
        Self { headers, values, body: Bytes::new() }
    }

    /// Adds a body of this many bytes, which the requests share.
    pub(crate) fn with_body(self, bytes: usize) -> Self {
        Self { body: vec![7; bytes].into(), ..self }
    }

    pub(crate) fn build(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.uri_mut() = match self.values {
            Values::Static => Uri::from_static(URI),
            Values::Owned => Uri::try_from(black_box(URI)).expect("a valid URI"),
        };
        for name in &NAMES[..self.headers] {
            let value = match self.values {
                Values::Static => HeaderValue::from_static(VALUE),
                Values::Owned => HeaderValue::from_str(black_box(VALUE)).expect("a valid value"),
            };
            request.headers_mut().insert(name.clone(), value);
        }
        black_box(request)
    }
}

const URI: &str = "https://api.example.com/v1/things";
const VALUE: &str = "some-value-of-usual-length";

static NAMES: [HeaderName; 32] = {
    use http::header::*;
    [
        ACCEPT,
        ACCEPT_ENCODING,
        ACCEPT_LANGUAGE,
        CACHE_CONTROL,
        CONTENT_TYPE,
        COOKIE,
        USER_AGENT,
        HeaderName::from_static("x-request-id"),
        ACCEPT_CHARSET,
        DATE,
        DNT,
        FORWARDED,
        FROM,
        IF_MATCH,
        IF_NONE_MATCH,
        ORIGIN,
        PRAGMA,
        HeaderName::from_static("traceparent"),
        HeaderName::from_static("tracestate"),
        HeaderName::from_static("x-client-version"),
        CONTENT_LANGUAGE,
        CONTENT_LOCATION,
        IF_MODIFIED_SINCE,
        IF_RANGE,
        LINK,
        MAX_FORWARDS,
        RANGE,
        REFERER,
        TE,
        VIA,
        WARNING,
        HeaderName::from_static("x-forwarded-for"),
    ]
};
