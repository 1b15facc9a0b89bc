//! The verdict of a gRPC status.

use http::{HeaderMap, HeaderName};

use super::verdict::Verdict;

/// Returns the verdict of the gRPC status in these headers or trailers.
///
/// The headers have a status only if the server has sent nothing else (gRPC over HTTP/2, "Trailers-Only"). The HTTP status is
/// 200 even then. For headers without a status, which all successful responses have, the cost is one look-up.
pub(crate) fn verdict(headers: &HeaderMap) -> Verdict {
    let Some(status) = headers.get(&GRPC_STATUS) else {
        return Verdict::Accepted;
    };
    match status.as_bytes() {
        // UNAUTHENTICATED
        b"16" => Verdict::Rejected,
        // UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL and UNAVAILABLE correspond to 5xx and 429: a proxy or
        // a library returns them before the token is checked.
        b"2" | b"4" | b"8" | b"13" | b"14" => Verdict::Unknown,
        _ => Verdict::Accepted,
    }
}

pub(crate) static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn unauthenticated_is_the_only_grpc_status_that_rejects() {
        for code in 0..=17 {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", HeaderValue::from(code));
            let rejected = verdict(&headers) == Verdict::Rejected;
            assert_eq!(rejected, code == 16, "{code}");
        }
        assert_eq!(verdict(&HeaderMap::new()), Verdict::Accepted);
    }

    #[test]
    fn unavailable_has_no_verdict_and_permission_denied_accepts() {
        let with = |code| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", HeaderValue::from_static(code));
            verdict(&headers)
        };
        assert_eq!(with("14"), Verdict::Unknown);
        assert_eq!(with("7"), Verdict::Accepted);
    }
}
