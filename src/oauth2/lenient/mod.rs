//! Reads an answer by its content, not by its label, and in spite of its flaws.
//!
//! The body may contain the only copy of the next refresh token. A flaw outside of the tokens must not lose them: text before
//! the JSON, JSON in a string, a number that is not valid JSON. Three rules keep this safe:
//!
//! - An object counts only if it is complete. A truncated refresh token is worse than none.
//! - An object in an HTML page does not count. After other text, an object counts only if it has a known field.
//! - A string counts as `null` if its end is ambiguous.
//!
//! All values are wiped from memory when they are dropped.

mod find;
mod form;
mod json;
mod reader;
mod string;
mod text;

pub(super) use self::find::{SURE, is_json, parse_where, parse_whole};
pub(super) use self::json::{Json, fold, is_alike};

#[cfg(test)]
mod tests;
