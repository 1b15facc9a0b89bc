//! Where in a body the answer is.

use zeroize::Zeroizing;

use super::form::form;
use super::json::{Json, fold};
use super::reader::{Failure, Reader};
use super::text::decode;
use crate::oauth2::dialect::Fields;

/// How many `{` of a text are tried.
const CANDIDATES: usize = 64;

/// How often an answer may be encoded as a string.
const ENCODINGS: usize = 3;

/// Reads the answer in a body; nothing of a page of HTML or of noise.
///
/// After other text, or with other text after it, an object counts if one of its names is of [`Fields`].
pub(in crate::oauth2) fn parse(body: &[u8]) -> Option<Json> {
    parse_where(body, |value| u8::from(has_usual_name(value)))
}

/// As [`parse`], by a judgement of the caller: how much an object is like an answer, 0 if it is not one.
pub(in crate::oauth2) fn parse_where(body: &[u8], judge: impl Fn(&Json) -> u8) -> Option<Json> {
    find(&decode(body), &judge, ENCODINGS)
}

fn find(text: &str, judge: &dyn Fn(&Json) -> u8, encodings: usize) -> Option<Json> {
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}').trim_end();
    let mut first = None;
    let mut from = 0;
    match text.chars().next()? {
        '{' | '[' => {
            let mut reader = Reader::new(text);
            match reader.value() {
                Ok(value) if judge(&value) > 0 => return Some(value),
                Ok(value) => {
                    first = Some(value);
                    from = text.len() - reader.rest().len();
                }
                Err(Failure::Cut) => return None,
                Err(Failure::Malformed) => from = 1,
            }
        }
        '"' => {
            let inner = Reader::new(text).quoted('"').ok()?;
            let is_json = inner.trim_start().starts_with(['{', '[', '"']);
            return find(&inner, judge, encodings.checked_sub(1)?).filter(|_| is_json);
        }
        _ => first = form(text),
    }
    if first.as_ref().is_some_and(|first| judge(first) > 0) {
        return first;
    }
    find_within(text, from, judge).or(first)
}

/// Finds the object that is most like an answer, the first of equals.
fn find_within(text: &str, mut from: usize, judge: &dyn Fn(&Json) -> u8) -> Option<Json> {
    let mut best: Option<(u8, Json)> = None;
    for _ in 0..CANDIDATES {
        let Some(at) = text.get(from..).and_then(|rest| rest.find('{')) else { break };
        let start = from + at;
        let Some((value, end)) = (match object_at(text, start) {
            // The object does not end, and what is in it is not the answer.
            Err(Failure::Cut) => break,
            Err(Failure::Malformed) => None,
            Ok(found) => Some(found),
        }) else {
            from = start + 1;
            continue;
        };
        from = end;
        let likeness = judge(&value);
        let is_better = likeness > best.as_ref().map_or(0, |(likeness, _)| *likeness);
        if is_better && !is_page(text.get(..start)?) && !is_page(text.get(end..)?) {
            best = Some((likeness, value));
        }
    }
    best.map(|(_, value)| value)
}

/// Reads the object that begins there, or the string that begins just before with an object in it, and where it ends.
fn object_at(text: &str, start: usize) -> Result<(Json, usize), Failure> {
    let (before, rest) = text.split_at_checked(start).unwrap_or_default();
    if before.ends_with('"') && rest.starts_with("{\\\"") {
        let quoted = text.get(start - 1..).unwrap_or_default();
        let mut reader = Reader::new(quoted);
        let inner: Zeroizing<String> = reader.quoted('"')?;
        let value = Reader::new(&inner).value()?;
        return Ok((value, text.len() - reader.rest().len()));
    }
    let mut reader = Reader::new(rest);
    let value = reader.value()?;
    Ok((value, text.len() - reader.rest().len()))
}

/// Returns whether text around an object is part of a page: it has tags, and others than those of a PHP warning.
fn is_page(text: &str) -> bool {
    const WARNING: [&str; 12] =
        ["a", "b", "br", "font", "i", "pre", "span", "table", "tbody", "td", "th", "tr"];
    text.split('<').skip(1).any(|tag| {
        let name = tag.trim_start_matches('/');
        let end = name.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(name.len());
        let name = name.get(..end).unwrap_or_default();
        let is_tag = !name.is_empty() || tag.starts_with('?') || is_doctype(tag);
        is_tag && !WARNING.iter().any(|known| name.eq_ignore_ascii_case(known))
    })
}

fn is_doctype(tag: &str) -> bool {
    tag.strip_prefix('!').is_some_and(|rest| !rest.starts_with("--"))
}

fn has_usual_name(value: &Json) -> bool {
    let names: Vec<String> = Fields::usual()
        .lists()
        .into_iter()
        .flat_map(|(_, pointers)| pointers)
        .filter_map(|pointer| pointer.split('/').nth(1))
        .map(fold)
        .collect();
    value.members().any(|(key, _)| names.contains(&fold(key)))
}
