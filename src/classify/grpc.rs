//! What a gRPC answer says about the token.

use http::{HeaderMap, HeaderName};

use super::Verdict;

/// Judges the status of a *trailers-only* answer: one that a server gives before it has sent anything else, its status
/// in the response headers (gRPC over HTTP/2, "Responses"). HTTP says 200 all the while.
///
/// A status in real trailers comes after the body and is not looked for here. An answer without a status in its
/// headers, which is every good one, costs one look-up.
pub(super) fn verdict(headers: &HeaderMap) -> Verdict {
    let Some(status) = headers.get(&GRPC_STATUS) else {
        return Verdict::Accepted;
    };
    match status.as_bytes() {
        // UNAUTHENTICATED
        b"16" => Verdict::Rejected,
        // UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL and UNAVAILABLE are gRPC's 5xx and 429: a proxy or a
        // library says them before anybody has seen the token.
        b"2" | b"4" | b"8" | b"13" | b"14" => Verdict::Unknown,
        _ => Verdict::Accepted,
    }
}

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn unauthenticated_in_the_headers_is_a_rejection_and_no_other_status_is() {
        for code in 0..=17 {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", HeaderValue::from(code));
            let rejected = verdict(&headers) == Verdict::Rejected;
            assert_eq!(rejected, code == 16, "{code}");
        }
        assert_eq!(verdict(&HeaderMap::new()), Verdict::Accepted);
    }

    #[test]
    fn unavailable_says_nothing_about_the_token_and_permission_denied_does() {
        let with = |code| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", HeaderValue::from_static(code));
            verdict(&headers)
        };
        assert_eq!(with("14"), Verdict::Unknown);
        assert_eq!(with("7"), Verdict::Accepted);
    }
}
