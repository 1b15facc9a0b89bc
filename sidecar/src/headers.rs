//! The headers that are forwarded, and those that are removed.
//!
//! | Header | Towards the API | Towards the caller |
//! |---|---|---|
//! | `Connection` and the headers that it names, `Keep-Alive`, `Proxy-Connection`, `Proxy-Authenticate`, `Proxy-Authorization`, `TE`, `Upgrade` | removed: valid for one connection only (RFC 9110 §7.6.1) | removed |
//! | `Transfer-Encoding` | replaced: `chunked` for a body without a `Content-Length`, with any method | removed |
//! | `TE: trailers` | forwarded: gRPC servers require it | |
//! | `Host`, `Authorization`, `Cookie` | removed: the configuration determines the target and the credentials | |
//! | `sidecar-key` | removed | |
//! | `Expect` | removed: the sidecar sends `100 Continue` when the API accepts the body | |
//! | `Via` | added (RFC 9110 §7.6.3) | |
//! | `Set-Cookie` | | removed: a session of the API grants as much as its token |
//! | `Access-Control-*` | | removed: no page may read the response |
//! | `Alt-Svc` | | removed: it would bypass the sidecar |
//! | `sidecar-error` | | removed: the header marks responses of the sidecar |
//!
//! A request with a transfer coding other than `chunked` is refused, since its body would be unreadable without the header. A
//! response with one is an error.
//!
//! All other headers are forwarded in both directions, including repeated ones. The same rules hold for trailers, except that
//! nothing is added to them.

use bytes::Bytes;
use http::header::{
    ALT_SVC, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, SET_COOKIE, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use http_body_util::combinators::MapFrame;
use hyper::body::Incoming;

/// The header with the key of a caller over TCP.
pub const KEY: HeaderName = HeaderName::from_static("sidecar-key");

/// The header with the reason for a response of the sidecar, in one word. Responses of the API never have it.
pub const ERROR: HeaderName = HeaderName::from_static("sidecar-error");

const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Converts the headers of a caller to those that the API gets. The layer adds the token later.
pub fn towards_api(headers: &mut HeaderMap, received: Version) {
    // Without `Connection: te`, which HTTP/1.1 wants: whether the API speaks that is not known here, and over HTTP/2 it
    // is not allowed.
    let trailers = values(headers, &TE).any(|value| value.eq_ignore_ascii_case(b"trailers"));
    keep_from_api(headers);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    headers.append(
        VIA,
        HeaderValue::from_static(match received {
            Version::HTTP_2 => "2 sidecar",
            Version::HTTP_10 => "1.0 sidecar",
            _ => "1.1 sidecar",
        }),
    );
}

/// Declares a body of unknown length. hyper's client sends such a body of a GET or HEAD over HTTP/1.1 only if its framing
/// is declared, and drops it otherwise. Over HTTP/2 hyper removes the header.
pub fn frame(headers: &mut HeaderMap, body: &impl Body) {
    if !headers.contains_key(CONTENT_LENGTH) && !body.is_end_stream() {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Returns whether a message has a transfer coding other than `chunked`, which is the only one that hyper decodes.
pub fn has_unknown_coding(headers: &HeaderMap) -> bool {
    let mut codings = values(headers, &TRANSFER_ENCODING);
    let first = codings.next();
    first.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"chunked")) || codings.next().is_some()
}

fn keep_from_api(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    for name in [HOST, AUTHORIZATION, COOKIE, EXPECT, KEY] {
        headers.remove(name);
    }
}

/// Converts the headers of the API to those that the caller gets.
pub fn towards_caller(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    for name in [SET_COOKIE, ALT_SVC, ERROR] {
        headers.remove(name);
    }
    let is_cors = |name: &&HeaderName| name.as_str().starts_with("access-control-");
    for name in headers.keys().filter(is_cors).cloned().collect::<Vec<_>>() {
        headers.remove(name);
    }
}

/// A body without the trailers that are not forwarded, because they could be mistaken for headers.
pub type Passing = MapFrame<Incoming, fn(Frame<Bytes>) -> Frame<Bytes>>;

pub fn body_towards_api(body: Incoming) -> Passing {
    body.map_frame(|frame| without(keep_from_api, frame))
}

pub fn body_towards_caller(body: Incoming) -> Passing {
    body.map_frame(|frame| without(towards_caller, frame))
}

fn without(remove: fn(&mut HeaderMap), frame: Frame<Bytes>) -> Frame<Bytes> {
    frame.into_trailers().map_or_else(
        |data| data,
        |mut trailers| {
            remove(&mut trailers);
            Frame::trailers(trailers)
        },
    )
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // RFC 9112 §6.3: `Transfer-Encoding` overrides `Content-Length`.
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    // RFC 9110 §8.6: equal lengths are forwarded once. hyper refuses two that differ.
    if let Some(length) = headers.get(CONTENT_LENGTH).cloned() {
        headers.insert(CONTENT_LENGTH, length);
    }
    let named = values(headers, &CONNECTION).filter_map(|name| HeaderName::from_bytes(name).ok());
    for name in named.collect::<Vec<_>>().into_iter().chain(HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// The members of a header that is a list (RFC 9110 §5.6.1).
fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(name).into_iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii))
}
