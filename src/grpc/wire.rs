//! gRPC over HTTP/2, as far as the head of a response and the length of its message show it.

use http::response::Parts;
use http::{HeaderMap, StatusCode, header};

use crate::classify::GRPC_STATUS;

/// Returns whether these are the headers of a gRPC request or response (gRPC over HTTP/2, "Content-Type").
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Returns whether the status of this response is in its trailers.
pub(super) fn may_have_trailers(head: &Parts) -> bool {
    head.status == StatusCode::OK
        && is_grpc(&head.headers)
        && !head.headers.contains_key(&GRPC_STATUS)
}

/// The first message of a body (gRPC over HTTP/2, "Length-Prefixed-Message"), of which only the length matters.
#[derive(Default)]
pub(super) struct Message {
    /// The compression flag and the length.
    prefix: [u8; 5],
    seen: u64,
}

impl Message {
    /// Reads data of the body, and returns whether some of it is beyond the message.
    pub(super) fn is_passed_by(&mut self, data: &[u8]) -> bool {
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
