//! The usual way of saying no.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use super::{Challenge, Classify, Verdict, grpc};

/// The default [`Classify`]: what HTTP, RFC 6750 and gRPC say.
///
/// | the answer | the verdict |
/// |---|---|
/// | 401 | rejected |
/// | 401, each of its bearer challenges says `insufficient_scope` or `invalid_request` (RFC 6750 §3.1) | accepted: another token would do no better |
/// | 200 with `grpc-status: 16` (UNAUTHENTICATED) among its headers | rejected |
/// | other 2xx and 4xx, 304 | accepted |
/// | other 3xx, 5xx, and 407, 408, 421, 425, 429, which are given before anybody looks at the token | unknown |
///
/// A 401 without a challenge, which RFC 9110 §15.5.2 forbids and many servers send, is rejected like any other.
///
/// Some servers have a status of their own:
///
/// ```
/// use http::{HeaderMap, StatusCode};
/// use tower_refresh::{Classify, Unauthorized, Verdict};
///
/// let page_expired = StatusCode::from_u16(419)?;
/// let classify = Unauthorized::default().status(page_expired);
/// assert_eq!(classify.classify(page_expired, &HeaderMap::new()), Verdict::Rejected);
/// # Ok::<(), http::status::InvalidStatusCode>(())
/// ```
#[derive(Clone, Debug)]
pub struct Unauthorized {
    statuses: Arc<[StatusCode]>,
}

impl Unauthorized {
    /// Adds a status that counts like 401.
    #[must_use]
    pub fn status(self, status: StatusCode) -> Self {
        let statuses = self.statuses.iter().copied().chain([status]).collect();
        Self { statuses }
    }

    /// Sets the statuses that count, in place of 401.
    #[must_use]
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        self.statuses = statuses.into_iter().collect();
        self
    }
}

impl Default for Unauthorized {
    fn default() -> Self {
        Self { statuses: Arc::new([StatusCode::UNAUTHORIZED]) }
    }
}

impl Classify for Unauthorized {
    fn classify(&self, status: StatusCode, headers: &HeaderMap) -> Verdict {
        if self.statuses.contains(&status) {
            return challenged(headers);
        }
        match status.as_u16() {
            200 => grpc::verdict(headers),
            407 | 408 | 421 | 425 | 429 => Verdict::Unknown,
            201..=299 | 304 | 400..=499 => Verdict::Accepted,
            _ => Verdict::Unknown,
        }
    }
}

/// Judges an answer that looks like a rejection by its challenges.
fn challenged(headers: &HeaderMap) -> Verdict {
    let challenges = Challenge::parse(headers);
    let mut bearer = challenges.iter().filter(|challenge| challenge.is_bearer()).peekable();
    // Other schemes' challenges say nothing of a bearer token, and no challenge at all says nothing else than "no".
    if bearer.peek().is_some() && bearer.all(token_is_good) {
        Verdict::Accepted
    } else {
        Verdict::Rejected
    }
}

/// Returns whether the challenge is about something else than the token (RFC 6750 §3.1).
fn token_is_good(challenge: &Challenge) -> bool {
    matches!(challenge.error(), Some("insufficient_scope" | "invalid_request"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::WWW_AUTHENTICATE;

    use super::*;

    fn unauthorized(fields: &[&'static str]) -> Verdict {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(field));
        }
        Unauthorized::default().classify(StatusCode::UNAUTHORIZED, &headers)
    }

    fn status(status: u16) -> Verdict {
        let status = StatusCode::from_u16(status).unwrap();
        Unauthorized::default().classify(status, &HeaderMap::new())
    }

    #[test]
    fn a_401_is_a_rejection_whatever_its_challenge() {
        assert_eq!(unauthorized(&[]), Verdict::Rejected);
        assert_eq!(unauthorized(&["Basic realm=\"a\""]), Verdict::Rejected);
        assert_eq!(unauthorized(&["Bearer"]), Verdict::Rejected);
        assert_eq!(unauthorized(&["\"?!"]), Verdict::Rejected);
        assert_eq!(unauthorized(&["bearer error=invalid_token"]), Verdict::Rejected);
        // The error of another scheme is not about this token.
        assert_eq!(unauthorized(&["DPoP error=\"insufficient_scope\""]), Verdict::Rejected);
    }

    #[test]
    fn insufficient_scope_and_invalid_request_do_not_reject_the_token() {
        assert_eq!(
            unauthorized(&["Bearer realm=\"a\", error=\"insufficient_scope\", scope=\"b c\""]),
            Verdict::Accepted
        );
        assert_eq!(
            unauthorized(&["Basic realm=\"a\"", "BEARER Error=invalid_request"]),
            Verdict::Accepted
        );
    }

    #[test]
    fn one_bearer_challenge_that_rejects_the_token_outweighs_the_others() {
        assert_eq!(
            unauthorized(&["Bearer error=insufficient_scope, Bearer error=invalid_token"]),
            Verdict::Rejected
        );
        assert_eq!(
            unauthorized(&["Bearer error=insufficient_scope", "Bearer realm=\"a\""]),
            Verdict::Rejected
        );
    }

    #[test]
    fn a_server_in_trouble_says_nothing_about_the_token() {
        for code in [500, 502, 503, 504, 302, 408, 429, 407] {
            assert_eq!(status(code), Verdict::Unknown, "{code}");
        }
        for code in [200, 204, 206, 304, 400, 403, 404, 409] {
            assert_eq!(status(code), Verdict::Accepted, "{code}");
        }
    }

    #[test]
    fn the_statuses_that_count_can_be_added_to_and_replaced() {
        let expired = StatusCode::from_u16(419).unwrap();
        let both = Unauthorized::default().status(expired);
        assert_eq!(both.classify(expired, &HeaderMap::new()), Verdict::Rejected);
        assert_eq!(both.classify(StatusCode::UNAUTHORIZED, &HeaderMap::new()), Verdict::Rejected);

        let other = Unauthorized::default().statuses([expired]);
        assert_eq!(other.classify(StatusCode::UNAUTHORIZED, &HeaderMap::new()), Verdict::Accepted);
        assert_eq!(other.classify(expired, &HeaderMap::new()), Verdict::Rejected);
    }

    #[test]
    fn a_trailers_only_unauthenticated_is_a_rejection() {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", HeaderValue::from_static("16"));
        let classify = Unauthorized::default();
        assert_eq!(classify.classify(StatusCode::OK, &headers), Verdict::Rejected);
        assert_eq!(classify.classify(StatusCode::BAD_GATEWAY, &headers), Verdict::Unknown);
    }
}
