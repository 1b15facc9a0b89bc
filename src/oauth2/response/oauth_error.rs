//! The error in an answer, and its meaning.

use http::StatusCode;

use super::document::Document;
use crate::error::TokenError;
use crate::oauth2::dialect::known::Meaning;
use crate::oauth2::lenient::Json;
use crate::oauth2::scrub::Secrets;

/// How much of an error code is kept, in characters.
pub(super) const CODE_LIMIT: usize = 64;

/// How much of a description is kept, in characters.
pub(super) const DESCRIPTION_LIMIT: usize = 200;

/// The error in an answer (RFC 6749 §5.2). Without an error, all of it is empty.
#[derive(Default)]
pub(super) struct OAuthError {
    pub(super) code: Option<String>,
    description: Option<String>,
    /// The meaning of the code, or of the description if the dialect lists it.
    pub(super) meaning: Option<Meaning>,
    /// True if the code by itself has a meaning.
    pub(super) is_known: bool,
    /// True if the dialect gives the meaning, and not a standard.
    pub(super) is_by_dialect: bool,
    /// True if the answer has the form of an OAuth error, even if the code is unknown.
    pub(super) is_standard_shape: bool,
}

impl OAuthError {
    /// Reads the error in an answer. [`Dialect::denied`](crate::oauth2::Dialect::denied) documents the order.
    pub(super) fn read(document: &Document<'_>, status: StatusCode) -> Self {
        let dialect = document.dialect;
        let values = |pointers| document.all_anywhere(pointers).into_iter();
        let codes: Vec<String> = values(&dialect.fields.error).filter_map(code_in).collect();
        let descriptions: Vec<String> = values(&dialect.fields.error_description)
            .filter_map(|value| value.as_words("; "))
            .collect();

        let lists = [&dialect.transient_descriptions, &dialect.denied_descriptions];
        let by_description = listed(lists, |part| {
            let part = part.to_lowercase();
            descriptions.iter().any(|text| text.to_lowercase().contains(&part))
        });
        let by_dialect = codes.iter().find_map(|code| {
            let lists = [&dialect.transient, &dialect.denied];
            Some((code, listed(lists, |known| known == code)?))
        });
        let by_code = by_dialect
            .or_else(|| codes.iter().find_map(|code| Some((code, Meaning::of_code(code)?))));
        let unknown = || codes.iter().find(|code| is_code(code, status));
        Self {
            code: by_code.map(|(code, _)| code).or_else(unknown).cloned(),
            description: descriptions.first().cloned(),
            meaning: by_description.or(by_code.map(|(_, meaning)| meaning)),
            is_known: by_code.is_some(),
            is_by_dialect: by_description.is_some() || by_dialect.is_some(),
            is_standard_shape: is_standard_shape(document),
        }
    }

    /// Returns whether the answer contains an error.
    pub(super) fn is_some(&self) -> bool {
        self.code.is_some() || self.meaning.is_some()
    }

    /// Adds the code and the description to an error, without secrets and bounded.
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

/// Returns the meaning of the first list of the dialect with an entry that applies: *transient*, then *denied*.
fn listed(
    [transient, denied]: [&Vec<String>; 2],
    applies: impl Fn(&str) -> bool,
) -> Option<Meaning> {
    [(transient, Meaning::Transient), (denied, Meaning::Denied)]
        .into_iter()
        .find(|(list, _)| list.iter().any(|entry| applies(entry)))
        .map(|(_, meaning)| meaning)
}

/// Returns whether an unknown text may be an error code.
///
/// A repeated HTTP status, a zero and a verdict are not error codes. Neither is the type of a problem that only its status
/// describes (RFC 9457 §4.2.1).
fn is_code(text: &str, status: StatusCode) -> bool {
    const VERDICTS: [&str; 7] =
        ["ok", "success", "error", "fail", "failed", "failure", "about:blank"];

    text != status.as_str()
        && !text.bytes().all(|byte| byte == b'0')
        && !VERDICTS.iter().any(|verdict| text.eq_ignore_ascii_case(verdict))
}

/// Returns whether the answer has the fields of RFC 6749 §5.2.
///
/// Gateways answer with JSON as well, and some have a field `error`, but none has the other fields.
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
