//! The default classifier: HTTP, RFC 6750 and gRPC.

use std::borrow::Cow;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, StatusCode};

use super::challenge::Challenge;
use super::error_codes::ERROR_CODES;
use super::grpc;
use super::verdict::{Classify, Verdict};

/// The default [`Classify`]: follows HTTP, RFC 6750 and gRPC.
///
/// | Response | Verdict |
/// |---|---|
/// | 401 | rejected |
/// | 401, each of its bearer challenges with an error that another token would not help: `insufficient_scope`, `invalid_request` (RFC 6750 §3.1), `insufficient_user_authentication` (RFC 9470 §3), `insufficient_claims` | accepted |
/// | Any 4xx with the bearer challenge `invalid_token` (RFC 6750 §3.1) | rejected |
/// | 200 with `grpc-status: 16` (UNAUTHENTICATED) among its headers | rejected |
/// | 200 with `grpc-status` 2, 4, 8, 13 or 14 among its headers | unknown |
/// | Other 2xx and 4xx, 101, 304 | accepted |
/// | Other 1xx and 3xx, 5xx, and 407, 408, 421, 425, 429, which precede any look at the token | unknown |
///
/// A 401 without a challenge, which RFC 9110 §15.5.2 forbids and many servers send, is rejected like any other.
///
/// # Examples
///
/// Some servers have a status or an error code of their own:
///
/// ```
/// use http::{HeaderMap, StatusCode};
/// use tower_refresh::{Classify, RefreshLayer, StaticToken, Unauthorized, Verdict};
///
/// let page_expired = StatusCode::from_u16(419)?;
/// let classifier = Unauthorized::default().also_status(page_expired).accept_error("mfa_required");
/// assert_eq!(classifier.classify(page_expired, &HeaderMap::new()), Verdict::Rejected);
///
/// let layer = RefreshLayer::new(StaticToken::new("sesame".parse()?)).classifier(classifier);
/// # Ok::<(), tower_refresh::BoxError>(())
/// ```
#[doc(alias = "401")]
#[derive(Clone, Debug)]
pub struct Unauthorized {
    statuses: Vec<StatusCode>,
    /// Error codes and their verdicts. A later entry overrides an earlier one.
    errors: Vec<(Cow<'static, str>, Verdict)>,
}

impl Unauthorized {
    /// Treats this status like 401, in addition to those that already count.
    #[must_use]
    pub fn also_status(mut self, status: StatusCode) -> Self {
        self.statuses.push(status);
        self
    }

    /// Treats these statuses like 401, and 401 itself only if it is among them.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::{HeaderMap, StatusCode};
    /// use tower_refresh::{Classify, Unauthorized, Verdict};
    ///
    /// let classifier = Unauthorized::default().only_statuses([StatusCode::FORBIDDEN]);
    /// assert_eq!(classifier.classify(StatusCode::FORBIDDEN, &HeaderMap::new()), Verdict::Rejected);
    /// assert_eq!(classifier.classify(StatusCode::UNAUTHORIZED, &HeaderMap::new()), Verdict::Accepted);
    /// ```
    #[must_use]
    pub fn only_statuses(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
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
    /// let classifier = Unauthorized::default().reject_error("insufficient_claims");
    /// let mut headers = HeaderMap::new();
    /// headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=insufficient_claims"));
    /// assert_eq!(classifier.classify(StatusCode::UNAUTHORIZED, &headers), Verdict::Rejected);
    /// ```
    #[must_use]
    pub fn reject_error(self, code: &str) -> Self {
        self.error(code, Verdict::Rejected)
    }

    fn error(mut self, code: &str, verdict: Verdict) -> Self {
        self.errors.push((Cow::Owned(code.to_owned()), verdict));
        self
    }

    /// Returns the verdict for the error code of a bearer challenge.
    fn verdict_of(&self, challenge: &Challenge) -> Verdict {
        let verdict = challenge.error().and_then(|code| {
            self.errors.iter().rev().find(|(known, _)| known == code).map(|(_, verdict)| *verdict)
        });
        verdict.unwrap_or(Verdict::Unknown)
    }

    /// Returns the verdict for a status that counts, which the challenges may contradict.
    fn challenged(&self, headers: &HeaderMap) -> Verdict {
        let challenges = Challenge::parse(headers);
        let mut bearer = challenges.iter().filter(|challenge| challenge.is_bearer()).peekable();
        // Other schemes' challenges are about another credential, and without a challenge only the status is left.
        if bearer.peek().is_some()
            && bearer.all(|challenge| self.verdict_of(challenge) == Verdict::Accepted)
        {
            Verdict::Accepted
        } else {
            Verdict::Rejected
        }
    }

    /// Returns whether a bearer challenge rejects the token although the status does not.
    fn rejects(&self, headers: &HeaderMap) -> bool {
        headers.contains_key(WWW_AUTHENTICATE)
            && Challenge::parse(headers).iter().any(|challenge| {
                challenge.is_bearer() && self.verdict_of(challenge) == Verdict::Rejected
            })
    }
}

impl Default for Unauthorized {
    fn default() -> Self {
        let errors = ERROR_CODES.map(|(code, verdict)| (Cow::Borrowed(code), verdict));
        Self { statuses: vec![StatusCode::UNAUTHORIZED], errors: errors.into() }
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
    fn any_401_without_a_known_error_code_rejects() {
        assert_eq!(unauthorized(&[]), Verdict::Rejected);
        assert_eq!(unauthorized(&["Basic realm=\"a\""]), Verdict::Rejected);
        assert_eq!(unauthorized(&["Bearer"]), Verdict::Rejected);
        assert_eq!(unauthorized(&["\"?!"]), Verdict::Rejected);
        assert_eq!(unauthorized(&["bearer error=invalid_token"]), Verdict::Rejected);
        // The error of another scheme is not about this token.
        assert_eq!(unauthorized(&["DPoP error=\"insufficient_scope\""]), Verdict::Rejected);
    }

    #[test]
    fn insufficient_scope_and_invalid_request_do_not_reject() {
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
    fn challenge_that_asks_for_more_does_not_reject() {
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
    fn invalid_token_rejects_with_any_4xx() {
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
    fn one_rejecting_bearer_challenge_outweighs_the_others() {
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
    fn status_that_precedes_the_token_check_has_no_verdict() {
        for code in [500, 502, 503, 504, 302, 408, 429, 407] {
            assert_eq!(status(code), Verdict::Unknown, "{code}");
        }
        for code in [101, 200, 204, 206, 304, 400, 403, 404, 409] {
            assert_eq!(status(code), Verdict::Accepted, "{code}");
        }
    }

    #[test]
    fn also_status_adds_and_only_statuses_replaces() {
        let expired = StatusCode::from_u16(419).unwrap();
        let both = Unauthorized::default().also_status(expired);
        assert_eq!(both.classify(expired, &HeaderMap::new()), Verdict::Rejected);
        assert_eq!(both.classify(StatusCode::UNAUTHORIZED, &HeaderMap::new()), Verdict::Rejected);

        let other = Unauthorized::default().only_statuses([expired]);
        assert_eq!(other.classify(StatusCode::UNAUTHORIZED, &HeaderMap::new()), Verdict::Accepted);
        assert_eq!(other.classify(expired, &HeaderMap::new()), Verdict::Rejected);
    }

    #[test]
    fn trailers_only_unauthenticated_rejects() {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", HeaderValue::from_static("16"));
        let classify = Unauthorized::default();
        assert_eq!(classify.classify(StatusCode::OK, &headers), Verdict::Rejected);
        assert_eq!(classify.classify(StatusCode::BAD_GATEWAY, &headers), Verdict::Unknown);
    }
}
