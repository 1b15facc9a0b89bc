//! An answer, and where the dialect says that things are in it.

use serde_json::Value;

use super::refusal::{Meaning, OAuthError};
use crate::oauth2::dialect::Dialect;

/// An answer, and where the dialect says that things are in it.
pub(super) struct Document<'a> {
    whole: &'a Value,
    root: Option<&'a Value>,
    pub(super) dialect: &'a Dialect,
}

impl<'a> Document<'a> {
    pub(super) fn new(whole: &'a Value, dialect: &'a Dialect) -> Self {
        Self { whole, root: whole.pointer(&dialect.root), dialect }
    }

    /// Returns what the pointers find, in their order; `null` is nothing.
    pub(super) fn all(&self, pointers: &'a [String]) -> impl Iterator<Item = &'a Value> {
        let root = self.root;
        pointers
            .iter()
            .filter_map(move |pointer| root?.pointer(pointer))
            .filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, pointers: &'a [String]) -> Option<&'a str> {
        self.all(pointers).filter_map(Value::as_str).find(|text| !text.is_empty())
    }

    pub(super) fn has_token(&self) -> bool {
        self.text(&self.dialect.fields.access_token).is_some()
    }

    /// Returns whether the answer says of itself that it is a failure.
    pub(super) fn says_not_ok(&self) -> bool {
        ["/ok", "/success"]
            .into_iter()
            .any(|pointer| self.whole.pointer(pointer) == Some(&Value::Bool(false)))
            || self
                .text(&self.dialect.fields.error)
                .is_some_and(|code| Meaning::of(code, self.dialect).is_some())
    }

    /// Finds the error: a code that means something, else any text, else a number where numbers are meant as errors.
    pub(super) fn error(&self, numbers: bool) -> Option<OAuthError> {
        let Self { whole, dialect, .. } = *self;
        let fields = &dialect.fields;
        // An error often comes without the envelope that the tokens come in.
        let whole = Document { whole, root: Some(whole), dialect };
        let texts = || {
            self.all(&fields.error)
                .chain(whole.all(&fields.error))
                .filter_map(Value::as_str)
                .map(str::trim)
                .filter(|code| !code.is_empty())
        };
        let number = || {
            self.all(&fields.error)
                .chain(whole.all(&fields.error))
                .find(|value| value.is_number())
                .map(Value::to_string)
        };
        let code = texts()
            .find(|code| Meaning::of(code, dialect).is_some())
            .or_else(|| texts().next())
            .map(str::to_owned)
            .or_else(|| number().filter(|_| numbers))?;
        let description =
            self.text(&fields.error_description).or_else(|| whole.text(&fields.error_description));
        Some(OAuthError { code, description: description.map(str::to_owned) })
    }
}
