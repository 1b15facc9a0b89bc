//! How HTTP, RFC 6750 and gRPC reject a token.

use std::sync::Arc;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, StatusCode};

use super::{Challenge, Classify, Verdict, grpc};

/// The default [`Classify`]: what HTTP, RFC 6750 and gRPC say.
///
/// | Response | Verdict |
/// |---|---|
/// | 401 | rejected |
/// | 401, each of its bearer challenges with an error that another token would not help: `insufficient_scope`, `invalid_request` (RFC 6750 §3.1), `insufficient_user_authentication` (RFC 9470 §3), `insufficient_claims` | accepted |
/// | Any 4xx with the bearer challenge `invalid_token` (RFC 6750 §3.1) | rejected |
/// | 200 with `grpc-status: 16` (UNAUTHENTICATED) among its headers | rejected |
/// | Other 2xx and 4xx, 101, 304 | accepted |
/// | Other 1xx and 3xx, 5xx, and 407, 408, 421, 425, 429, which precede any look at the token | unknown |
///
/// A 401 without a challenge, which RFC 9110 §15.5.2 forbids and many servers send, is rejected like any other.
///
/// Some servers have a status or an error code of their own:
///
/// ```
/// use http::{HeaderMap, StatusCode};
/// use tower_refresh::{Classify, Unauthorized, Verdict};
///
/// let page_expired = StatusCode::from_u16(419)?;
/// let classify = Unauthorized::default().status(page_expired).accept_error("mfa_required");
/// assert_eq!(classify.classify(page_expired, &HeaderMap::new()), Verdict::Rejected);
/// # Ok::<(), http::status::InvalidStatusCode>(())
/// ```
#[derive(Clone, Debug)]
pub struct Unauthorized {
    statuses: Arc<[StatusCode]>,
    /// Error codes with a verdict of their own; the last one set comes first.
    errors: Arc<[(Box<str>, Verdict)]>,
}

impl Unauthorized {
    /// Adds a status that counts like 401.
    #[must_use]
    pub fn status(self, status: StatusCode) -> Self {
        let statuses = self.statuses.iter().copied().chain([status]).collect();
        Self { statuses, ..self }
    }

    /// Sets the statuses that count, in place of 401.
    #[must_use]
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        self.statuses = statuses.into_iter().collect();
        self
    }

    /// Adds an error code of a bearer challenge that asks for something other than a new token, such as `mfa_required`.
    ///
    /// A 401 whose bearer challenges all have such a code starts no refresh and is returned unchanged.
    #[must_use]
    pub fn accept_error(self, code: &str) -> Self {
        self.error(code, Verdict::Accepted)
    }

    /// Adds an error code of a bearer challenge that rejects the token with any 4xx.
    ///
    /// For example `insufficient_claims`, where the source passes the challenge's claims on to the token endpoint
    /// ([`Renewal::challenge`](crate::Renewal::challenge)):
    ///
    /// ```
    /// use http::header::WWW_AUTHENTICATE;
    /// use http::{HeaderMap, HeaderValue, StatusCode};
    /// use tower_refresh::{Classify, Unauthorized, Verdict};
    ///
    /// let classify = Unauthorized::default().reject_error("insufficient_claims");
    /// let mut headers = HeaderMap::new();
    /// headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=insufficient_claims"));
    /// assert_eq!(classify.classify(StatusCode::UNAUTHORIZED, &headers), Verdict::Rejected);
    /// ```
    #[must_use]
    pub fn reject_error(self, code: &str) -> Self {
        self.error(code, Verdict::Rejected)
    }

    fn error(mut self, code: &str, verdict: Verdict) -> Self {
        let own = (Box::from(code), verdict);
        self.errors = [own].into_iter().chain(self.errors.iter().cloned()).collect();
        self
    }

    /// Returns what a challenge's error code says about the token, if it has one and it is known.
    fn verdict_of(&self, challenge: &Challenge) -> Option<Verdict> {
        let code = challenge.error()?;
        if let Some((_, verdict)) = self.errors.iter().find(|(known, _)| **known == *code) {
            return Some(*verdict);
        }
        match code {
            // RFC 6750 §3.1
            "invalid_token" => Some(Verdict::Rejected),
            // RFC 6750 §3.1, RFC 9470 §3, and OpenID Continuous Access Evaluation
            "insufficient_scope"
            | "invalid_request"
            | "insufficient_user_authentication"
            | "insufficient_claims" => Some(Verdict::Accepted),
            _ => None,
        }
    }

    /// Judges a response that looks like a rejection by its challenges.
    fn challenged(&self, headers: &HeaderMap) -> Verdict {
        let challenges = Challenge::parse(headers);
        let mut bearer = challenges.iter().filter(|challenge| challenge.is_bearer()).peekable();
        // Other schemes' challenges are about another credential, and without a challenge only the status is left.
        if bearer.peek().is_some()
            && bearer.all(|challenge| self.verdict_of(challenge) == Some(Verdict::Accepted))
        {
            Verdict::Accepted
        } else {
            Verdict::Rejected
        }
    }

    /// Returns whether a bearer challenge rejects the token, with a status that does not.
    fn rejects(&self, headers: &HeaderMap) -> bool {
        headers.contains_key(WWW_AUTHENTICATE)
            && Challenge::parse(headers).iter().any(|challenge| {
                challenge.is_bearer() && self.verdict_of(challenge) == Some(Verdict::Rejected)
            })
    }
}

impl Default for Unauthorized {
    fn default() -> Self {
        Self { statuses: Arc::new([StatusCode::UNAUTHORIZED]), errors: Arc::default() }
    }
}

impl Classify for Unauthorized {
    fn classify(&self, status: StatusCode, headers: &HeaderMap) -> Verdict {
        if self.statuses.contains(&status) {
            return self.challenged(headers);
        }
        match status.as_u16() {
            200 => grpc::verdict(headers),
            400..=499 if self.rejects(headers) => Verdict::Rejected,
            407 | 408 | 421 | 425 | 429 => Verdict::Unknown,
            // RFC 9110 §15.2.2: after 101 the request has been accepted.
            101 | 201..=299 | 304 | 400..=499 => Verdict::Accepted,
            _ => Verdict::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn unauthorized(fields: &[&'static str]) -> Verdict {
        challenged(&Unauthorized::default(), 401, fields)
    }

    fn challenged(classify: &Unauthorized, status: u16, fields: &[&'static str]) -> Verdict {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(field));
        }
        classify.classify(StatusCode::from_u16(status).unwrap(), &headers)
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

    /// E1.
    #[test]
    fn a_challenge_that_asks_for_more_does_not_reject_the_token() {
        let step_up = "Bearer error=\"insufficient_user_authentication\", acr_values=\"mfa\"";
        let claims = "Bearer realm=\"\", error=\"insufficient_claims\", claims=\"e30=\"";
        for challenge in [step_up, claims] {
            assert_eq!(unauthorized(&[challenge]), Verdict::Accepted, "{challenge}");
        }
        let mfa = ["Bearer error=mfa_required"];
        assert_eq!(unauthorized(&mfa), Verdict::Rejected);
        let classify = Unauthorized::default().accept_error("mfa_required");
        assert_eq!(challenged(&classify, 401, &mfa), Verdict::Accepted);
        let classify = classify.reject_error("mfa_required");
        assert_eq!(challenged(&classify, 401, &mfa), Verdict::Rejected);
    }

    /// C05.
    #[test]
    fn invalid_token_rejects_the_token_with_any_4xx() {
        for status in [400, 401, 403, 404, 408, 429] {
            let classify = Unauthorized::default();
            let verdict = |fields| challenged(&classify, status, fields);
            assert_eq!(verdict(&["Bearer error=\"invalid_token\""]), Verdict::Rejected, "{status}");
            if status != 401 {
                assert_ne!(verdict(&["Bearer realm=\"a\""]), Verdict::Rejected, "{status}");
                assert_ne!(verdict(&["DPoP error=invalid_token"]), Verdict::Rejected, "{status}");
            }
        }
        let classify = Unauthorized::default().reject_error("session_gone");
        assert_eq!(challenged(&classify, 403, &["Bearer error=session_gone"]), Verdict::Rejected);
        assert_eq!(challenged(&classify, 503, &["Bearer error=invalid_token"]), Verdict::Unknown);
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
        for code in [101, 200, 204, 206, 304, 400, 403, 404, 409] {
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
