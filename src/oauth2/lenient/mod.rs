//! Reads an answer by its content, not by its label, and in spite of its flaws.
//!
//! The body may hold the only copy of the next refresh token. A flaw outside of the tokens must not lose them: text before
//! the JSON, JSON in a string, a number that JSON does not have. Three rules keep this safe:
//!
//! - An object counts only if it closes. Half a refresh token is worse than none.
//! - In a page of HTML nothing counts, and after other text only an object with a known field.
//! - Where it is not clear which characters belong to a string, the string counts as `null`.
//!
//! Everything that is read is wiped from memory when it is dropped, errors included.

mod find;
mod form;
mod json;
mod reader;
mod string;
mod text;

pub(super) use self::find::{SURE, parse, parse_where, parse_whole};
pub(super) use self::json::{Json, fold, is_alike};

#[cfg(test)]
mod tests;
