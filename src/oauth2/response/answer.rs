//! An answer, and the request that it belongs to.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime};

use http::header::{CONTENT_TYPE, DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, StatusCode};
use zeroize::Zeroizing;

use super::document::Document;
use super::log::Reported;
use crate::clock::Timestamp;
use crate::error::TokenError;
use crate::oauth2::client_auth::ClientAuth;
use crate::oauth2::dialect::Dialect;
use crate::oauth2::lenient::Json;
use crate::oauth2::moment;
use crate::oauth2::scrub::Secrets;

/// An answer.
pub(in crate::oauth2) struct Answer {
    pub(in crate::oauth2) status: StatusCode,
    pub(in crate::oauth2) headers: HeaderMap,
    /// The body, or the reason why it was not read to its end.
    pub(in crate::oauth2) body: Result<Zeroizing<Vec<u8>>, String>,
}

impl Answer {
    /// Returns the start of each message about this answer: its origin, its status and its content type, as in
    /// `https://as.example.com answered 400 (text/html)`.
    pub(in crate::oauth2) fn place(&self, origin: &str, secrets: &Secrets) -> String {
        const CONTENT_TYPE_LIMIT: usize = 64;

        let content_type = self.headers.get(CONTENT_TYPE).map(|value| {
            let value = String::from_utf8_lossy(value.as_bytes());
            secrets.clean(value.split(';').next().unwrap_or_default(), CONTENT_TYPE_LIMIT)
        });
        let content_type = content_type.filter(|shown| !shown.is_empty());
        let content_type = content_type.as_deref().unwrap_or("no content type");
        format!("{origin} answered {} ({content_type})", self.status.as_u16())
    }

    /// Returns the JSON or the form in the body.
    pub(super) fn parse(&self, dialect: &Dialect) -> Option<Json> {
        Document::parse(self.body.as_ref().ok()?, dialect)
    }

    /// Returns the reason why [`parse`](Self::parse) returned nothing.
    pub(super) fn unreadable(&self) -> Cow<'_, str> {
        match &self.body {
            Err(why) => why.into(),
            Ok(_) if self.is_empty() => "the body is empty".into(),
            Ok(_) => "the body is neither JSON nor a form; a proxy, gateway or firewall may have answered instead of the server".into(),
        }
    }

    /// Returns whether the body is known to be empty.
    pub(super) fn is_empty(&self) -> bool {
        self.body.as_ref().is_ok_and(|body| body.iter().all(u8::is_ascii_whitespace))
    }

    /// Returns the date in a header, as the time since 1970.
    pub(super) fn date(&self, name: &HeaderName) -> Option<Duration> {
        let value = self.headers.get(name)?.to_str().ok()?;
        httpdate::parse_http_date(value.trim()).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()
    }

    /// RFC 9110 §10.2.3: seconds, or a date.
    pub(super) fn retry_after(&self, now: Timestamp) -> Option<Duration> {
        let seconds = || {
            let value = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
            // Some servers send a fraction.
            if !value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
                return None;
            }
            Some(Duration::try_from_secs_f64(value.parse().ok()?).unwrap_or(Duration::MAX))
        };
        let until = || {
            let now = self.date(&DATE).unwrap_or(now.since_epoch());
            Some(self.date(&RETRY_AFTER)?.saturating_sub(now))
        };
        seconds().or_else(until).map(|retry_after| retry_after.min(moment::LONGEST))
    }
}

/// The request that an answer belongs to.
#[derive(Clone, Copy)]
pub(in crate::oauth2) struct Context<'a> {
    /// The [place](Answer::place) of the answer, with which each message begins. It is empty before there is an answer.
    pub(in crate::oauth2) place: &'a str,
    /// The origin of the token endpoint, for logs.
    #[cfg_attr(not(feature = "tracing"), allow(dead_code, reason = "nothing is logged"))]
    pub(in crate::oauth2) endpoint: &'a str,
    pub(in crate::oauth2) reported: &'a Reported,
    pub(in crate::oauth2) dialect: &'a Dialect,
    pub(in crate::oauth2) client_auth: &'a ClientAuth,
    pub(in crate::oauth2) secrets: &'a Secrets,
    /// When the answer was received.
    pub(in crate::oauth2) now: Timestamp,
    /// True if the request may have spent a refresh token.
    pub(in crate::oauth2) spends: bool,
    /// The type of token that the request asks for (RFC 8693 §2.1).
    pub(in crate::oauth2) requested_token_type: Option<&'a str>,
}

impl Context<'_> {
    /// Returns the error for a request whose outcome is unknown: ambiguous if the server may have replaced the refresh token
    /// that was sent, and transient if none was sent.
    pub(in crate::oauth2) fn lost(&self, why: impl fmt::Display) -> TokenError {
        let error = self.transient(why);
        if self.spends { error.into_ambiguous() } else { error }
    }

    pub(super) fn transient(&self, why: impl fmt::Display) -> TokenError {
        TokenError::transient(self.message(why))
    }

    pub(super) fn denied(&self, why: impl fmt::Display) -> TokenError {
        TokenError::denied(self.message(why))
    }

    pub(super) fn misconfigured(&self, why: impl fmt::Display) -> TokenError {
        TokenError::misconfigured(self.message(why))
    }

    fn message(&self, why: impl fmt::Display) -> String {
        match self.place {
            "" => why.to_string(),
            place => format!("{place}: {why}"),
        }
    }
}
