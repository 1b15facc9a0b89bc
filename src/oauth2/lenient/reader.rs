//! A JSON reader that continues after flaws whose meaning is unambiguous.
//!
//! Valid JSON is read as RFC 8259 defines it.

use zeroize::Zeroizing;

use super::json::Json;
use super::string::{end_of_string, unescape};

/// The reason why a value cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The text ends before the value does.
    Cut,
    Malformed,
}

type Result<T> = std::result::Result<T, Failure>;

/// How deep values may be nested. Deeper values count as `null`.
const DEPTH: usize = 64;

pub(super) struct Reader<'a> {
    rest: &'a str,
    /// The arrays, objects and encoded strings around the next value.
    depth: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text, depth: 0 }
    }

    /// Returns the text that was not read yet.
    pub(super) fn rest(&self) -> &'a str {
        self.rest
    }

    pub(super) fn value(&mut self) -> Result<Json> {
        self.skip_space();
        match self.peek().ok_or(Failure::Cut)? {
            '{' | '[' if self.depth == DEPTH => self.skip_nested().map(|()| Json::Null),
            '{' => self.nested(Self::object),
            '[' => self.nested(Self::array),
            quote @ ('"' | '\'') => self.string(quote),
            // A member without a value: `{"a":,"b":}`.
            ',' | '}' | ']' => Ok(Json::Null),
            _ => self.word(),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Json>) -> Result<Json> {
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn object(&mut self) -> Result<Json> {
        self.next();
        let mut members = Vec::new();
        loop {
            self.skip_space_and_commas();
            if self.peek().ok_or(Failure::Cut)? == '}' {
                self.next();
                return Ok(Json::Object(members));
            }
            let key = self.key()?;
            self.skip_space();
            // `=>` is Ruby's and PHP's, `=` is Java's.
            let has_value = [":", "=>", "="].into_iter().any(|separator| self.take(separator));
            if !has_value && !matches!(self.peek().ok_or(Failure::Cut)?, ',' | '}') {
                return Err(Failure::Malformed);
            }
            members.push((key, self.value()?));
        }
    }

    fn array(&mut self) -> Result<Json> {
        self.next();
        let mut values = Vec::new();
        loop {
            self.skip_space_and_commas();
            match self.peek().ok_or(Failure::Cut)? {
                ']' => {
                    self.next();
                    return Ok(Json::Array(values));
                }
                '}' => return Err(Failure::Malformed),
                _ => values.push(self.value()?),
            }
        }
    }

    fn key(&mut self) -> Result<Zeroizing<String>> {
        self.take_string_prefix();
        match self.peek() {
            Some(quote @ ('"' | '\'')) => self.quoted(quote),
            _ => {
                let end = self
                    .rest
                    .find(|c: char| !c.is_alphanumeric() && !['_', '-', '$', '.'].contains(&c))
                    .unwrap_or(self.rest.len());
                let key = self.advance(end);
                if key.is_empty() {
                    Err(Failure::Malformed)
                } else {
                    Ok(Zeroizing::new(key.into()))
                }
            }
        }
    }

    /// Reads a string that ends at the first quotation mark.
    pub(super) fn quoted(&mut self, quote: char) -> Result<Zeroizing<String>> {
        self.next();
        let end = end_of_string(self.rest, quote).ok_or(Failure::Cut)?;
        let raw = self.advance(end);
        self.next();
        Ok(unescape(raw))
    }

    /// Reads a string that is a value. A quotation mark ends it only if the text after it may follow a value.
    fn string(&mut self, quote: char) -> Result<Json> {
        self.next();
        let text = self.rest;
        let mut at = 0;
        // The place of a backslash that is not an escape: `"C:\",`.
        let mut backslash = None;
        let mut is_clear = true;
        let end = loop {
            at += text.get(at..).and_then(|rest| rest.find([quote, '\\'])).ok_or(Failure::Cut)?;
            let after = text.get(at + 1..).unwrap_or_default();
            if text.get(at..).is_some_and(|rest| rest.starts_with(quote)) {
                if may_follow_a_value(after) {
                    break at;
                }
                if let Some(end) = backslash {
                    break end;
                }
                is_clear = false;
                at += 1;
                continue;
            }
            let escaped = after.chars().next().ok_or(Failure::Cut)?;
            let end = at + 1;
            if escaped == quote
                && backslash.is_none()
                && may_follow_a_value(after.get(1..).unwrap_or_default())
            {
                backslash = Some(end);
            }
            at = end + escaped.len_utf8();
        };
        let raw = self.advance(end);
        self.next();
        if !is_clear {
            return Ok(Json::Null);
        }
        let text = unescape(raw);
        let inner = self.encoded(&text);
        Ok(Json::Text(text, inner))
    }

    /// Reads the object that is encoded in a string.
    fn encoded(&self, text: &str) -> Option<Box<Json>> {
        if !text.trim_start().starts_with('{') || self.depth == DEPTH {
            return None;
        }
        let mut reader = Reader { rest: text, depth: self.depth + 1 };
        let value = reader.value().ok()?;
        reader.rest.trim().is_empty().then(|| Box::new(value))
    }

    /// Reads a number, a literal, or other text without quotation marks, up to the next value.
    fn word(&mut self) -> Result<Json> {
        if self.take_string_prefix() {
            return self.value();
        }
        let mut end = 0;
        let mut previous = ' ';
        while let Some(c) = self.rest.get(end..).and_then(|rest| rest.chars().next()) {
            let rest = self.rest.get(end..).unwrap_or_default();
            let is_comment =
                previous.is_whitespace() && ["//", "/*"].iter().any(|mark| rest.starts_with(mark));
            if is_comment || [',', '}', ']', '{', '[', '"', '\n', '\r'].contains(&c) {
                break;
            }
            if c == '(' {
                // `new Date(2022, 10, 1)`
                let mut arguments = Self { rest, depth: 0 };
                arguments.skip_nested()?;
                end = self.rest.len() - arguments.rest.len();
            } else {
                end += c.len_utf8();
            }
            previous = c;
        }
        if end == 0 {
            return Err(Failure::Malformed);
        }
        Ok(literal(self.advance(end).trim()))
    }

    /// Skips Python's `u` and `b` before a string.
    fn take_string_prefix(&mut self) -> bool {
        let is_prefix =
            ["u'", "u\"", "b'", "b\""].iter().any(|prefix| self.rest.starts_with(prefix));
        if is_prefix {
            self.next();
        }
        is_prefix
    }

    /// Skips brackets and their content.
    fn skip_nested(&mut self) -> Result<()> {
        let mut open = 0_usize;
        loop {
            match self.peek().ok_or(Failure::Cut)? {
                quote @ ('"' | '\'') => {
                    self.next();
                    let end = end_of_string(self.rest, quote).ok_or(Failure::Cut)?;
                    self.advance(end);
                }
                '{' | '[' | '(' => open += 1,
                '}' | ']' | ')' => open -= 1,
                _ => {}
            }
            self.next();
            if open == 0 {
                return Ok(());
            }
        }
    }

    fn skip_space(&mut self) {
        self.rest = after_space(self.rest);
    }

    fn skip_space_and_commas(&mut self) {
        self.skip_space();
        while self.take(",") {
            self.skip_space();
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) {
        let mut chars = self.rest.chars();
        chars.next();
        self.rest = chars.as_str();
    }

    fn take(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => self.rest = rest,
            None => return false,
        }
        true
    }

    fn advance(&mut self, bytes: usize) -> &'a str {
        let (before, after) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.rest = after;
        before
    }
}

fn literal(word: &str) -> Json {
    let is_number =
        word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
            && word.parse::<f64>().is_ok();
    match word {
        _ if is_number => Json::Number(Zeroizing::new(word.to_owned())),
        _ if word.eq_ignore_ascii_case("true") => Json::Bool(true),
        _ if word.eq_ignore_ascii_case("false") => Json::Bool(false),
        // `null`, `None`, `undefined`, `NaN`, `Infinity`, …
        _ => Json::Null,
    }
}

/// Returns whether a text may follow a value in JSON. A comma before the next member may be missing.
fn may_follow_a_value(text: &str) -> bool {
    let text = after_space(text);
    match text.chars().next() {
        None | Some(',' | '}' | ']' | ')') => true,
        Some(quote @ ('"' | '\'')) => {
            let key = text.get(1..).unwrap_or_default();
            end_of_string(key, quote)
                .and_then(|end| key.get(end + 1..))
                .is_some_and(|rest| after_space(rest).starts_with([':', '=']))
        }
        _ => false,
    }
}

/// Returns a text without leading white space, byte order marks and comments.
///
/// The length of a comment is limited, because its end may be searched for at each quotation mark of a text.
fn after_space(mut text: &str) -> &str {
    const COMMENT_MAX: usize = 1024;

    loop {
        text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}' || c == '\0');
        let end = if text.starts_with("//") {
            "\n"
        } else if text.starts_with("/*") {
            "*/"
        } else {
            return text;
        };
        let mut near = text.as_bytes().windows(end.len()).take(COMMENT_MAX);
        match near.position(|bytes| bytes == end.as_bytes()) {
            Some(at) => text = text.get(at + end.len()..).unwrap_or_default(),
            None if text.len() > COMMENT_MAX => return text,
            None => return "",
        }
    }
}
