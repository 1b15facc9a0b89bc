//! Reads a body for what it is, and not for what it is labelled.
//!
//! The body may hold the only copy of the next refresh token, so that a flaw in some other field must not lose it.

use serde_json::Value;

/// Reads JSON, or a form as a flat object of strings; nothing of a page of HTML or of noise.
pub(super) fn parse(body: &[u8]) -> Option<Value> {
    let text = String::from_utf8_lossy(body);
    let text = text.trim_start_matches('\u{feff}').trim();
    match text.chars().next()? {
        '{' | '[' => first_value(text).or_else(|| first_value(&mend(text))),
        '<' | '"' => None,
        _ => form(text),
    }
}

/// Reads the first JSON value, whatever comes after it.
fn first_value(text: &str) -> Option<Value> {
    serde_json::Deserializer::from_str(text).into_iter().next()?.ok()
}

fn form(text: &str) -> Option<Value> {
    if !text.contains('=') || text.contains(['<', '\n']) {
        return None;
    }
    let mut object = serde_json::Map::new();
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        object.entry(name).or_insert_with(|| Value::String(value.into_owned()));
    }
    Some(Value::Object(object))
}

/// Mends what servers get wrong and `serde_json` is right to refuse: numbers beyond an `f64`, control characters in a
/// string, halves of surrogate pairs.
fn mend(text: &str) -> String {
    let mut mended = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = match c {
            '"' => mend_string(rest, &mut mended),
            '-' | '0'..='9' => mend_number(rest, &mut mended),
            _ => {
                mended.push(c);
                rest.get(c.len_utf8()..).unwrap_or_default()
            }
        };
    }
    mended
}

/// Mends the number that `text` begins with, and returns what comes after it.
fn mend_number<'a>(text: &'a str, mended: &mut String) -> &'a str {
    let end =
        text.find(|c| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E')).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let is_infinite = number.parse().is_ok_and(f64::is_infinite);
    mended.push_str(match (is_infinite, number.starts_with('-')) {
        (false, _) => number,
        (true, false) => "1e308",
        (true, true) => "-1e308",
    });
    rest
}

/// Mends the string that `text` begins with, and returns what comes after it.
fn mend_string<'a>(text: &'a str, mended: &mut String) -> &'a str {
    let mut chars = text.char_indices();
    // The quotation mark.
    chars.next();
    mended.push('"');
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                mended.push('"');
                return chars.as_str();
            }
            '\\' => {
                let escape = text.get(at..).unwrap_or_default();
                let length = match (surrogate(escape), escape.get(6..).and_then(surrogate)) {
                    (Some(Surrogate::High), Some(Surrogate::Low)) => 12,
                    (Some(_), _) => {
                        mended.push_str("\\ufffd");
                        for _ in 0..5 {
                            chars.next();
                        }
                        continue;
                    }
                    (None, _) => escape.chars().take(2).map(char::len_utf8).sum(),
                };
                let escape = escape.get(..length).unwrap_or_default();
                mended.push_str(escape);
                for _ in escape.chars().skip(1) {
                    chars.next();
                }
            }
            c if c < ' ' => mended.push(' '),
            c => mended.push(c),
        }
    }
    ""
}

enum Surrogate {
    High,
    Low,
}

/// Returns which half of a surrogate pair `text` begins with, written as `\ud83d`.
fn surrogate(text: &str) -> Option<Surrogate> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    match u16::from_str_radix(digits, 16).ok()? {
        0xd800..=0xdbff => Some(Surrogate::High),
        0xdc00..=0xdfff => Some(Surrogate::Low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_flaw_in_one_field_does_not_lose_the_others() {
        for body in [
            r#"{"a":"b","n":1e400}"#,
            r#"{"a":"b","n":-1e400}"#,
            "{\"a\":\"b\",\"n\":\"line\nbreak\"}",
            r#"{"a":"b","n":"\ud800"}"#,
            r#"{"a":"b","n":"\udc00\ud800x"}"#,
            r#"{"n":"\ud83d\ude00 \" \\","m":1e400,"a":"b"}"#,
            "\u{feff} {\"a\":\"b\"} <!-- 3 ms -->",
        ] {
            let value = parse(body.as_bytes()).unwrap_or_else(|| panic!("{body}"));
            assert_eq!(value["a"], "b", "{body}");
        }
        let latin_1 = parse(b"{\"name\":\"\xe9\",\"a\":\"b\"}").unwrap();
        assert_eq!(latin_1["a"], "b");
    }

    #[test]
    fn mending_leaves_alone_what_is_sound() {
        let text = r#"{"s":"\ud83d\ude00 \" \\ \u0041 é","n":[-1.5e3,0],"t":true}"#;
        assert_eq!(mend(text), text);
    }

    #[test]
    fn a_form_is_a_flat_object() {
        assert_eq!(parse(b"a=b+c&d=%2F&a=x").unwrap(), json!({"a": "b c", "d": "/"}));
    }

    #[test]
    fn noise_is_nothing() {
        for noise in ["", " ", "<html a=b>", "ok", "\"a=b\"", "{\"a\":", "a=b\n<p>"] {
            assert!(parse(noise.as_bytes()).is_none(), "{noise}");
        }
    }
}
