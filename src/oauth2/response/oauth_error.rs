//! The error in an answer, and its meaning.

use http::StatusCode;

use super::document::Document;
use crate::error::TokenError;
use crate::oauth2::dialect::Dialect;
use crate::oauth2::lenient::Json;
use crate::oauth2::scrub::Secrets;

/// The error in an answer (RFC 6749 §5.2), as far as there is one.
#[derive(Default)]
pub(super) struct OAuthError {
    pub(super) code: Option<String>,
    description: Option<String>,
    /// The meaning of the code, or of the description if the dialect knows that.
    pub(super) meaning: Option<Meaning>,
    /// Whether the code by itself has a meaning.
    pub(super) is_known: bool,
    /// Whether the dialect gives the meaning, and not a standard.
    pub(super) is_by_dialect: bool,
    /// Whether the answer looks like an OAuth error, whether or not the code is known.
    pub(super) is_standard_shape: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Denied,
    Transient,
    /// The server failed, perhaps after it had processed the request.
    Unknown,
    Misconfigured,
    /// The client's own credentials were refused.
    Client,
}

impl OAuthError {
    /// Reads the error in an answer. [`Dialect::denied`] documents the order.
    pub(super) fn read(document: &Document<'_>, status: StatusCode) -> Self {
        let dialect = document.dialect;
        let values = |pointers| document.all_anywhere(pointers).into_iter();
        let codes: Vec<String> = values(&dialect.fields.error).filter_map(code_in).collect();
        let descriptions: Vec<String> =
            values(&dialect.fields.error_description).filter_map(text_in).collect();

        let find = |meaning_of: &dyn Fn(&str) -> Option<Meaning>| {
            codes.iter().find_map(|code| Some((code, meaning_of(code)?)))
        };
        let by_description = Meaning::of_descriptions(&descriptions, dialect);
        let by_dialect = find(&|code| Meaning::in_dialect(code, dialect));
        let by_code = by_dialect.or_else(|| find(&Meaning::in_standards));
        let code = match by_code {
            Some((code, _)) => Some(code),
            None => codes.iter().find(|code| is_code(code, status)),
        };
        Self {
            code: code.cloned(),
            description: descriptions.into_iter().next(),
            meaning: by_description.or(by_code.map(|(_, meaning)| meaning)),
            is_known: by_code.is_some(),
            is_by_dialect: by_description.is_some() || by_dialect.is_some(),
            is_standard_shape: is_standard_shape(document),
        }
    }

    /// Returns whether the answer holds an error.
    pub(super) fn is_some(&self) -> bool {
        self.code.is_some() || self.meaning.is_some()
    }

    /// Adds the code and the description, in a form that may be shown.
    pub(super) fn add_to(&self, mut error: TokenError, secrets: &Secrets) -> TokenError {
        let clean = |text: &Option<String>, limit| {
            let shown = secrets.clean(text.as_deref()?, limit);
            Some(shown).filter(|shown| !shown.is_empty())
        };
        if let Some(code) = clean(&self.code, CODE_LIMIT) {
            error = error.with_code(code);
        }
        if let Some(description) = clean(&self.description, DESCRIPTION_LIMIT) {
            error = error.with_description(description);
        }
        error
    }
}

impl Meaning {
    fn of_descriptions(descriptions: &[String], dialect: &Dialect) -> Option<Self> {
        let descriptions: Vec<String> =
            descriptions.iter().map(|text| text.to_lowercase()).collect();
        let contain = |parts: &[String]| {
            parts
                .iter()
                .map(|part| part.to_lowercase())
                .any(|part| descriptions.iter().any(|text| text.contains(&part)))
        };
        if contain(&dialect.transient_descriptions) {
            Some(Self::Transient)
        } else if contain(&dialect.denied_descriptions) {
            Some(Self::Denied)
        } else {
            None
        }
    }

    fn in_dialect(code: &str, dialect: &Dialect) -> Option<Self> {
        let is_in = |codes: &[String]| codes.iter().any(|known| known == code);
        if is_in(&dialect.transient) {
            Some(Self::Transient)
        } else if is_in(&dialect.denied) {
            Some(Self::Denied)
        } else {
            None
        }
    }

    fn in_standards(code: &str) -> Option<Self> {
        match code {
            // RFC 6749 §5.2, RFC 8628 §3.5, OpenID Connect Core §3.1.2.6
            "invalid_grant"
            | "expired_token"
            | "interaction_required"
            | "login_required"
            | "account_selection_required"
            | "consent_required" => Some(Self::Denied),
            // RFC 6749 §4.1.2.1, RFC 8628 §3.5; the others are Google's and rate limiters'.
            "temporarily_unavailable"
            | "slow_down"
            | "authorization_pending"
            | "internal_failure"
            | "too_many_requests"
            | "rate_limit_exceeded" => Some(Self::Transient),
            // RFC 6749 §4.1.2.1: "an unexpected condition".
            "server_error" => Some(Self::Unknown),
            "invalid_client" => Some(Self::Client),
            // RFC 6749 §5.2, RFC 8707 §2
            "unauthorized_client"
            | "unsupported_grant_type"
            | "invalid_scope"
            | "invalid_target"
            | "invalid_request" => Some(Self::Misconfigured),
            _ => None,
        }
    }
}

/// Returns whether an unknown text may be an error code. A repeated HTTP status, a zero and a verdict are not, nor is the type
/// of a problem that is described by its status alone (RFC 9457 §4.2.1).
fn is_code(text: &str, status: StatusCode) -> bool {
    const VERDICTS: [&str; 7] =
        ["ok", "success", "error", "fail", "failed", "failure", "about:blank"];

    text != status.as_str()
        && !text.bytes().all(|byte| byte == b'0')
        && !VERDICTS.iter().any(|verdict| text.eq_ignore_ascii_case(verdict))
}

/// Gateways write JSON too, and some call a field of it `error`, but none describes it under the names of RFC 6749 §5.2.
fn is_standard_shape(document: &Document<'_>) -> bool {
    let text = |name| document.member(name).and_then(Json::as_str);
    text("error").is_some_and(|code| !code.is_empty() && !code.contains(char::is_whitespace))
        && (text("error_description").is_some() || text("error_uri").is_some())
}

/// Returns whether the answer reports a failure with a flag.
pub(super) fn is_flagged_as_failed(document: &Document<'_>) -> bool {
    ["ok", "success"]
        .iter()
        .any(|name| document.member(name).and_then(Json::as_bool) == Some(false))
}

/// Returns an error code: a text or a number.
fn code_in(value: &Json) -> Option<String> {
    if let Some(code) = value.as_number() {
        // `190.0` is the code 190.
        return Some(code.strip_suffix(".0").unwrap_or(code).to_owned());
    }
    let code = value.as_str()?.trim();
    (!code.is_empty()).then(|| code.to_owned())
}

/// Returns a description: a text, or several.
fn text_in(value: &Json) -> Option<String> {
    let text = match value {
        Json::Array(texts) => {
            let texts: Vec<&str> = texts.iter().filter_map(Json::as_str).collect();
            texts.join("; ")
        }
        text => text.as_str()?.trim().to_owned(),
    };
    Some(text).filter(|text| !text.is_empty())
}

/// How much of an error code is kept, in characters.
pub(super) const CODE_LIMIT: usize = 64;

/// How much of a description is kept, in characters.
pub(super) const DESCRIPTION_LIMIT: usize = 200;
