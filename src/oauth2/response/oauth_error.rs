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
    /// The meaning of the description, if the dialect lists it.
    by_description: Option<Meaning>,
    /// The meaning of the code, if the dialect lists it.
    by_dialect: Option<Meaning>,
    /// The meaning of the code in the standards, unless the dialect lists one.
    by_standard: Option<Meaning>,
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
        let by_standard = match by_dialect {
            Some(_) => None,
            None => codes.iter().find_map(|code| Some((code, Meaning::of_code(code)?))),
        };
        let known = by_dialect.or(by_standard).map(|(code, _)| code);
        let unknown = || codes.iter().find(|code| is_code(code, status));
        Self {
            code: known.or_else(unknown).cloned(),
            description: descriptions.first().cloned(),
            by_description,
            by_dialect: by_dialect.map(|(_, meaning)| meaning),
            by_standard: by_standard.map(|(_, meaning)| meaning),
            is_standard_shape: is_standard_shape(document),
        }
    }

    /// Returns whether the answer contains an error.
    pub(super) fn is_some(&self) -> bool {
        self.code.is_some() || self.by_description.is_some()
    }

    /// Returns the meaning of the description if the dialect lists it, and otherwise that of the code.
    pub(super) fn meaning(&self) -> Option<Meaning> {
        self.by_description.or(self.code_meaning())
    }

    /// Returns the meaning of the code by itself.
    pub(super) fn code_meaning(&self) -> Option<Meaning> {
        self.by_dialect.or(self.by_standard)
    }

    /// Returns whether the dialect gives the meaning, and not a standard.
    pub(super) fn is_by_dialect(&self) -> bool {
        self.by_description.or(self.by_dialect).is_some()
    }

    /// Returns whether the dialect lists the code as *transient*, and the description does not contradict it.
    pub(super) fn is_transient_code_of_dialect(&self) -> bool {
        [self.by_dialect, self.meaning()] == [Some(Meaning::Transient); 2]
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
