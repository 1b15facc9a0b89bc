//! The further fields of an answer that the dialect keeps.

use std::fmt::{self, Write as _};

use zeroize::Zeroizing;

use super::answer::Context;
use super::document::Document;
use crate::oauth2::wiped;
use crate::token::TokenSet;

/// How long the value of a field may be, in bytes.
pub(super) const VALUE_MAX: usize = 8 * 1024;

/// Adds the fields of `fields.extra`: a string unchanged, any other value as its JSON text.
pub(super) fn extra(
    document: &Document<'_>,
    mut tokens: TokenSet,
    context: Context<'_>,
) -> TokenSet {
    for (name, pointers) in &document.dialect.fields.extra {
        let mut values = document.all(pointers);
        let Some(value) = values.find(|value| value.as_str() != Some("")) else { continue };
        let mut text = Bounded(wiped::text(VALUE_MAX));
        let written = match value.as_str() {
            Some(value) => text.write_str(value),
            None => write!(text, "{value}"),
        };
        if written.is_ok() {
            tokens = tokens.with_extra(name, text.0.as_str());
        } else {
            context.log_too_long(document, name);
        }
    }
    tokens
}

/// A text that does not grow, because growing would leave a copy behind that is not wiped.
struct Bounded(Zeroizing<String>);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.len() > VALUE_MAX - self.0.len() {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}
