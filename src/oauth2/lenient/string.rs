//! The strings of JSON, JavaScript and Python.

use zeroize::Zeroizing;

use crate::oauth2::wiped;

/// Returns the end of a string: the first quotation mark that is not escaped.
pub(super) fn end_of_string(text: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    text.find(|c| {
        let is_end = c == quote && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_end
    })
}

/// Resolves the escapes of JSON (RFC 8259 §7), JavaScript and Python.
///
/// Half a surrogate pair becomes U+FFFD. A backslash that does not begin an escape is dropped.
pub(super) fn unescape(raw: &str) -> Zeroizing<String> {
    // The longest result, for a `\u` without digits, is one byte longer than its escape.
    let mut text = wiped::text(raw.len() * 2);
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        match chars.next() {
            Some('b') => text.push('\u{8}'),
            Some('f') => text.push('\u{c}'),
            Some('n') => text.push('\n'),
            Some('r') => text.push('\r'),
            Some('t') => text.push('\t'),
            Some('x') => text.push(character(digits(&mut chars, 2), 2)),
            Some('U') => text.push(character(digits(&mut chars, 8), 8)),
            Some('u') => text.push(unicode(&mut chars)),
            // The string continues in the next line.
            Some('\n') => {}
            Some(c) => text.push(c),
            None => text.push('\\'),
        }
    }
    text
}

/// Reads the digits after `\u`.
fn unicode(chars: &mut std::str::Chars<'_>) -> char {
    if let Some((digits, rest)) =
        chars.as_str().strip_prefix('{').and_then(|braced| braced.split_once('}'))
    {
        *chars = rest.chars();
        return character(digits, digits.len());
    }
    let first = digits(chars, 4);
    let mut after = chars.clone();
    if after.next() == Some('\\') && after.next() == Some('u') {
        let units = [first, digits(&mut after, 4)].map(|unit| u16::from_str_radix(unit, 16));
        if let [Ok(high @ 0xd800..0xdc00), Ok(low @ 0xdc00..0xe000)] = units {
            *chars = after;
            return char::decode_utf16([high, low])
                .flatten()
                .next()
                .unwrap_or(char::REPLACEMENT_CHARACTER);
        }
    }
    character(first, 4)
}

/// Takes at most `most` hexadecimal digits.
fn digits<'a>(chars: &mut std::str::Chars<'a>, most: usize) -> &'a str {
    let text = chars.as_str();
    let count = text.bytes().take(most).take_while(u8::is_ascii_hexdigit).count();
    let (digits, rest) = text.split_at_checked(count).unwrap_or_default();
    *chars = rest.chars();
    digits
}

fn character(digits: &str, expected: usize) -> char {
    u32::from_str_radix(digits, 16)
        .ok()
        .filter(|_| digits.len() == expected)
        .and_then(char::from_u32)
        .unwrap_or(char::REPLACEMENT_CHARACTER)
}
