//! Further fields of an answer that the dialect wants kept.

use std::fmt::{self, Write as _};

use super::document::Document;
use crate::oauth2::lenient::Json;
use crate::token::TokenSet;
use crate::trace;

/// How long the value of a field may be, in bytes.
const VALUE_MAX: usize = 8 * 1024;

/// Adds the fields that `fields.extra` names: a string unchanged, any other value as its JSON text.
pub(super) fn extra(document: &Document<'_>, mut tokens: TokenSet) -> TokenSet {
    for (name, pointers) in &document.dialect.fields.extra {
        let mut values = document.all(pointers);
        let Some(value) = values.find(|value| value.as_str() != Some("")) else { continue };
        let length = length(value);
        if length > VALUE_MAX {
            trace::warning!(field = %name, "field of the token endpoint's answer is too long to be kept");
        } else {
            tokens = tokens.with_extra(name, text(value, length));
        }
    }
    tokens
}

/// Returns the length of the text of a value.
fn length(value: &Json) -> usize {
    let mut length = Length(0);
    match value.as_str() {
        Some(text) => text.len(),
        // Counting does not fail.
        None => write!(length, "{value}").map_or(0, |()| length.0),
    }
}

/// Returns the text of a value, in one piece from the start: a string that grows leaves copies behind that are not wiped.
fn text(value: &Json, length: usize) -> String {
    let mut text = String::with_capacity(length);
    match value.as_str() {
        Some(value) => text.push_str(value),
        // Nor does writing to a string.
        None => drop(write!(text, "{value}")),
    }
    text
}

/// Counts what is written to it.
struct Length(usize);

impl fmt::Write for Length {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}
