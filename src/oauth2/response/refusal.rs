//! What an answer that grants nothing means.

use std::time::Duration;

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};

use super::document::Document;
use super::{Answer, Context, http_date};
use crate::clock::Now;
use crate::error::TokenError;
use crate::oauth2::dialect::Dialect;
use crate::oauth2::{lenient, moment};

/// Reads an answer other than 2xx.
pub(in crate::oauth2) fn refusal(answer: &Answer, context: Context<'_>) -> TokenError {
    let status = answer.status.as_u16();
    let value = answer.body.as_ref().ok().and_then(|body| lenient::parse(body));
    let error = value.as_ref().and_then(|value| Document::new(value, context.dialect).error(true));
    let plain = |plain: TokenError| {
        let plain = match &error {
            Some(error) => error.tell(plain, context),
            None => plain,
        };
        with_retry_after(plain, &answer.headers, context.now)
    };

    match (status, &error) {
        (429 | 503, _) => plain(TokenError::transient(format!(
            "the token endpoint answered {status}"
        ))),
        (300..=399, _) => plain(TokenError::misconfigured(format!(
            "the token endpoint answered {status}, and a redirect is not followed with a secret; configure the URL that it redirects to"
        ))),
        (400..=499, Some(error)) => classify(error, answer, context),
        (400..=499, None) => plain(context.lost(format!(
            "{status} came without an OAuth error; is a proxy or a firewall between here and the token endpoint?"
        ))),
        _ => plain(context.lost(format!("the token endpoint answered {status}"))),
    }
}

/// What an OAuth error says (RFC 6749 §5.2).
pub(super) fn classify(error: &OAuthError, answer: &Answer, context: Context<'_>) -> TokenError {
    let told = match Meaning::of(&error.code, context.dialect) {
        Some(Meaning::Denied) => {
            TokenError::denied("the token endpoint refused the grant; somebody must log in again")
        }
        Some(Meaning::Transient) => TokenError::transient("the token endpoint asks for patience"),
        Some(Meaning::Misconfigured) => {
            TokenError::misconfigured("the token endpoint refused the request")
        }
        None => TokenError::misconfigured(
            "the token endpoint refused the request with an unknown code; if it means that somebody must log in, add it to `denied` in the dialect",
        ),
    };
    with_retry_after(error.tell(told, context), &answer.headers, context.now)
}

#[derive(Clone, Copy)]
pub(super) enum Meaning {
    Denied,
    Transient,
    Misconfigured,
}

impl Meaning {
    pub(super) fn of(code: &str, dialect: &Dialect) -> Option<Self> {
        let is = |codes: &[String]| codes.iter().any(|known| known == code);
        if is(&dialect.denied) {
            return Some(Self::Denied);
        }
        if is(&dialect.transient) {
            return Some(Self::Transient);
        }
        match code {
            // RFC 6749 §5.2, OpenID Connect Core §3.1.2.6
            "invalid_grant" | "interaction_required" | "login_required" | "consent_required" => {
                Some(Self::Denied)
            }
            // RFC 6749 §4.1.2.1, RFC 8628 §3.5
            "temporarily_unavailable" | "slow_down" | "authorization_pending" => {
                Some(Self::Transient)
            }
            // RFC 6749 §5.2, RFC 8707 §2
            "invalid_client"
            | "unauthorized_client"
            | "unsupported_grant_type"
            | "invalid_scope"
            | "invalid_target"
            | "invalid_request" => Some(Self::Misconfigured),
            _ => None,
        }
    }
}

pub(super) struct OAuthError {
    pub(super) code: String,
    pub(super) description: Option<String>,
}

impl OAuthError {
    /// Adds what the server said, as it may be shown.
    pub(super) fn tell(&self, error: TokenError, context: Context<'_>) -> TokenError {
        let code = context.secrets.clean(&self.code, CODE_LIMIT);
        let description = self
            .description
            .as_deref()
            .map(|text| context.secrets.clean(text, DESCRIPTION_LIMIT))
            .filter(|text| !text.is_empty());
        let error = match code.as_str() {
            "" => error,
            _ => error.with_code(code),
        };
        match description {
            Some(description) => error.with_description(description),
            None => error,
        }
    }
}

/// RFC 9110 §10.2.3: seconds, or a date.
fn with_retry_after(error: TokenError, headers: &HeaderMap, now: Now) -> TokenError {
    let seconds = || {
        let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        // More digits than fit are as long as can be.
        Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)))
    };
    let date = || {
        let at = http_date(headers, &RETRY_AFTER)?;
        let now = http_date(headers, &DATE).unwrap_or(now.since_epoch());
        Some(at.saturating_sub(now))
    };
    match seconds().or_else(date) {
        Some(retry_after) => error.with_retry_after(retry_after.min(moment::LONGEST)),
        None => error,
    }
}

/// How much of an error code is kept, in characters.
pub(super) const CODE_LIMIT: usize = 64;

/// How much of a description is kept, in characters.
pub(super) const DESCRIPTION_LIMIT: usize = 200;
