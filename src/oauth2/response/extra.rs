//! Further fields of an answer that the dialect wants kept.

use std::borrow::Cow;

use super::document::Document;
use crate::oauth2::lenient::Json;
use crate::token::TokenSetBuilder;
use crate::trace;

/// How long the value of a field may be, in bytes.
const VALUE_MAX: usize = 8 * 1024;

/// Adds the fields that `fields.extra` names: a string unchanged, any other value as its JSON text.
pub(super) fn extra(document: &Document<'_>, mut tokens: TokenSetBuilder) -> TokenSetBuilder {
    for (name, pointers) in &document.dialect.fields.extra {
        let value = document.all(pointers).map(text).find(|text| !text.is_empty());
        match value {
            Some(value) if value.len() > VALUE_MAX => {
                trace::warning!(field = %name, "field of the token endpoint's answer is too long to be kept");
            }
            Some(value) => tokens = tokens.extra(name, value),
            None => {}
        }
    }
    tokens
}

fn text(value: &Json) -> Cow<'_, str> {
    value.as_str().map_or_else(|| Cow::Owned(value.to_string()), Cow::Borrowed)
}
