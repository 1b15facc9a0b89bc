//! The characters of a body.

use zeroize::Zeroizing;

use crate::oauth2::wiped;

/// Decodes UTF-8 and UTF-16. Bytes that are neither become U+FFFD.
pub(super) fn decode(body: &[u8]) -> Zeroizing<String> {
    match body {
        [0xff, 0xfe, rest @ ..] => utf_16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf_16(rest, u16::from_be_bytes),
        // Without a byte order mark: no other text has a zero byte here.
        [b'{' | b'"', 0, ..] => utf_16(body, u16::from_le_bytes),
        [0, b'{' | b'"', ..] => utf_16(body, u16::from_be_bytes),
        _ => utf_8(body),
    }
}

fn utf_16(body: &[u8], unit: fn([u8; 2]) -> u16) -> Zeroizing<String> {
    let units = body.chunks_exact(2).map(|pair| match pair {
        [first, second] => unit([*first, *second]),
        _ => 0,
    });
    let mut text = wiped::text(body.len() * 2);
    text.extend(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)));
    text
}

pub(super) fn utf_8(body: &[u8]) -> Zeroizing<String> {
    let flaws = body.utf8_chunks().filter(|chunk| !chunk.invalid().is_empty()).count();
    let mut text = wiped::text(body.len() + flaws * char::REPLACEMENT_CHARACTER.len_utf8());
    for chunk in body.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    text
}
