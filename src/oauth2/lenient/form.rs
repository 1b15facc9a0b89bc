//! Forms. `form_urlencoded` would free what it decodes unwiped.

use zeroize::Zeroizing;

use super::json::Json;
use super::text::utf_8;

/// Reads a form (`application/x-www-form-urlencoded`) as a flat object of strings.
pub(super) fn form(text: &str) -> Option<Json> {
    // The text before the first `=` must be a name, not a sentence.
    let (name, _) = text.split_once('=')?;
    if name.contains(char::is_whitespace) || text.contains(['<', '\n']) {
        return None;
    }
    let mut members: Vec<_> = text
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), Json::Text(decode(value), None)))
        .collect();
    // The first of repeated parameters counts, but the last of repeated members.
    members.reverse();
    Some(Json::Object(members))
}

fn decode(text: &str) -> Zeroizing<String> {
    let mut decoded = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        let escaped = match rest {
            [b'%', high, low, ..] => hexadecimal(*high, *low),
            _ => None,
        };
        decoded.push(escaped.unwrap_or(if *byte == b'+' { b' ' } else { *byte }));
        rest = after.get(if escaped.is_some() { 2.. } else { 0.. }).unwrap_or_default();
    }
    utf_8(&decoded)
}

fn hexadecimal(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_of_repeated_parameters_counts() {
        let form = form("a=b+c&d=%2F&a=x&e").unwrap();
        let text = |name| form.find(name).first().and_then(|value| value.as_str());
        assert_eq!([text("/a"), text("/d"), text("/e")], [Some("b c"), Some("/"), Some("")]);
    }

    proptest! {
        #[test]
        fn decodes_as_form_urlencoded_does(text in "([a-c%+&=é]|%[0-9a-fA-F]{2}|.){0,20}") {
            let Some(form) = form(&text) else { return Ok(()) };
            let mut ours: Vec<_> = form
                .members()
                .map(|(name, value)| (name.to_owned(), value.as_str().unwrap().to_owned()))
                .collect();
            ours.reverse();
            let theirs: Vec<_> = form_urlencoded::parse(text.as_bytes()).into_owned().collect();
            prop_assert_eq!(ours, theirs);
        }
    }
}
