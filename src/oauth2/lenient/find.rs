//! The place of the answer in a body.

use std::collections::BTreeMap;

use super::form::form;
use super::json::Json;
use super::reader::{Failure, Reader};
use super::text::decode;

/// The likeness of an object that is certainly the answer.
pub(in crate::oauth2) const SURE: u8 = 2;

/// How many `{` of a text are tried at most.
const CANDIDATES: usize = 64;

/// How many times an answer may be encoded as a string.
const ENCODINGS: usize = 3;

/// Reads the answer in a body. Returns `None` for an HTML page and for noise.
///
/// `judge` returns the likeness of an object to an answer, from 0 to [`SURE`]. Before or after other text, an object counts if it
/// is above 0.
pub(in crate::oauth2) fn parse_where(body: &[u8], judge: impl Fn(&Json) -> u8) -> Option<Json> {
    find(&decode(body), &judge, ENCODINGS)
}

/// Reads the answer in a body that may have been cut off. An object or a string must be complete. A form does not count, since
/// nothing marks its end.
pub(in crate::oauth2) fn parse_whole(body: &[u8], judge: impl Fn(&Json) -> u8) -> Option<Json> {
    let text = decode(body);
    let is_string = text.trim_start_matches(is_blank).starts_with('"');
    if !is_string && form(&text).is_some() {
        return None;
    }
    find(&text, &judge, ENCODINGS)
}

/// Returns whether a body begins like a JSON object or array.
pub(in crate::oauth2) fn is_json(body: &[u8]) -> bool {
    let text = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body).trim_ascii_start();
    matches!(text.first(), Some(b'{' | b'['))
}

fn is_blank(c: char) -> bool {
    c.is_whitespace() || c == '\u{feff}'
}

fn find(text: &str, judge: &dyn Fn(&Json) -> u8, encodings: usize) -> Option<Json> {
    let text = text.trim_start_matches(is_blank).trim_end();
    let (first, rest) = match text.chars().next()? {
        '{' | '[' => {
            let mut reader = Reader::new(text);
            match reader.value() {
                // A list of one answer, perhaps.
                Ok(value @ Json::Array(_)) if judge(&value) == 0 => (Some(value), text.get(1..)?),
                Ok(value) => (Some(value), reader.rest()),
                Err(Failure::Cut) => return None,
                Err(Failure::Malformed) => (None, text.get(1..)?),
            }
        }
        '"' => {
            let mut reader = Reader::new(text);
            let inner = reader.quoted('"').ok()?;
            if inner.trim_start().starts_with(['{', '[', '"']) {
                return find(&inner, judge, encodings.checked_sub(1)?);
            }
            (None, reader.rest())
        }
        _ => (form(text), text),
    };
    let likeness = first.as_ref().map_or(0, judge);
    if likeness == SURE {
        return first;
    }
    find_within(text, text.len() - rest.len(), likeness, judge).or(first)
}

/// Finds the object with the greatest likeness above `likeness`, the first one of equals.
fn find_within(
    text: &str,
    mut from: usize,
    mut likeness: u8,
    judge: &dyn Fn(&Json) -> u8,
) -> Option<Json> {
    let mut best = None;
    for _ in 0..CANDIDATES {
        let Some(at) = text.get(from..).and_then(|rest| rest.find('{')) else { break };
        let start = from + at;
        match object_at(text, start) {
            Ok((value, end)) => {
                from = end;
                let its = judge(&value);
                if its > likeness && !is_in_page(text.get(..start)?, text.get(end..)?) {
                    (best, likeness) = (Some(value), its);
                }
            }
            Err(Failure::Malformed) => from = start + 1,
            // The object does not end, and an object inside it is not the answer.
            Err(Failure::Cut) => break,
        }
    }
    best
}

/// Reads the object at `start`, or the encoded object in a string that begins just before. Also returns its end.
fn object_at(text: &str, start: usize) -> Result<(Json, usize), Failure> {
    let (before, rest) = text.split_at_checked(start).unwrap_or_default();
    let quote = before.chars().next_back().filter(|c| ['"', '\''].contains(c));
    if let Some(quote) = quote.filter(|_| rest.starts_with("{\\")) {
        let mut reader = Reader::new(text.get(start - 1..).unwrap_or_default());
        let value = reader.quoted(quote).and_then(|inner| Reader::new(&inner).value());
        let value = value.map_err(|_| Failure::Malformed)?;
        return Ok((value, text.len() - reader.rest().len()));
    }
    let mut reader = Reader::new(rest);
    let value = reader.value()?;
    Ok((value, text.len() - reader.rest().len()))
}

/// Returns whether the text around an object is an HTML page or an element that contains the object.
///
/// The tags of a PHP warning end before the object.
fn is_in_page(before: &str, after: &str) -> bool {
    const PAGE: [&str; 12] = [
        "!doctype", "?xml", "html", "head", "title", "meta", "script", "style", "body", "form",
        "h1", "h2",
    ];
    if tags(before).chain(tags(after)).any(|tag| PAGE.contains(&tag.name.as_str())) {
        return true;
    }
    let mut open = BTreeMap::<String, usize>::new();
    for tag in tags(before) {
        let count = open.entry(tag.name).or_default();
        *count = if tag.is_closing { count.saturating_sub(1) } else { *count + 1 };
    }
    tags(after).any(|tag| tag.is_closing && open.get(&tag.name).is_some_and(|count| *count > 0))
}

struct Tag {
    is_closing: bool,
    name: String,
}

fn tags(text: &str) -> impl Iterator<Item = Tag> {
    // A longer one may be a token.
    const LONGEST: usize = 24;

    text.split('<').skip(1).filter_map(|tag| {
        let name = tag.strip_prefix('/').unwrap_or(tag);
        let is_end = |c: char| c.is_whitespace() || c == '>' || c == '/';
        let name = name
            .get(..name.find(is_end)?)
            .filter(|name| !name.is_empty() && name.len() <= LONGEST)?;
        Some(Tag { is_closing: tag.starts_with('/'), name: name.to_ascii_lowercase() })
    })
}
