//! The content of a token file: a bare token, or something similar.
//!
//! RFC 6750 §2.1 allows letters, digits and `-._~+/`, with `=` at the end. Servers issue tokens with other visible ASCII
//! characters too, so the rule here is narrower: it refuses the characters of wrappers (quotes, braces, brackets, `<`, `>`, a
//! backslash), white space, control characters, anything outside ASCII, and the shapes that programs write by mistake.

/// Returns the token in the content of a file, or a description of that content, without any of it.
pub(super) fn bare_token(content: &[u8]) -> Result<&str, &'static str> {
    let text = text(content)?;
    flaw(text).map_or(Ok(text), Err)
}

/// Returns whether a file is empty or blank.
pub(super) fn is_blank(content: &[u8]) -> bool {
    text(content).is_ok_and(str::is_empty)
}

/// Returns the text without a byte order mark and the white space around it.
fn text(content: &[u8]) -> Result<&str, &'static str> {
    if is_utf_16(content) {
        return Err("is encoded in UTF-16: save it as UTF-8");
    }
    match str::from_utf8(content) {
        Ok(text) => Ok(text.trim_matches(|c: char| c.is_whitespace() || c == BYTE_ORDER_MARK)),
        Err(_) => Err("is not text: write only the token to it"),
    }
}

fn is_utf_16(content: &[u8]) -> bool {
    let (pairs, _) = content.as_chunks::<2>();
    content.starts_with(b"\xff\xfe")
        || content.starts_with(b"\xfe\xff")
        || !pairs.is_empty()
            && (pairs.iter().all(|[first, second]| *first != 0 && *second == 0)
                || pairs.iter().all(|[first, second]| *first == 0 && *second != 0))
}

/// Returns the first description that applies to a content that is no bare token: wrappers, then placeholders, then characters
/// that no bearer token has.
fn flaw(text: &str) -> Option<&'static str> {
    Some(match in_brace(text) {
        Some('"' | '}') => {
            "contains a JSON object: write only the token to it, or read it with a source of your own (`source_fn`)"
        }
        Some('{' | '%') => "contains a template that was not filled in: write only the token to it",
        _ if text.starts_with('{') => BRACKETS,
        _ if text.starts_with('[') && text.ends_with(']') => {
            "contains a JSON array: write only the token to it, or read it with a source of your own (`source_fn`)"
        }
        _ if text.starts_with('[') => {
            "contains a configuration with sections: write only the token to it"
        }
        _ if text.starts_with('<') => {
            "contains HTML or XML, perhaps an error page or a placeholder: write only the token to it"
        }
        _ if text.starts_with(QUOTES) => "contains a quoted string: write the token without quotes",
        _ if text.starts_with("-----BEGIN") => {
            "contains a key or a certificate in PEM: write only the access token to it"
        }
        _ if after_scheme(text) == Some("") => {
            "contains an authentication scheme and no token: write only the token to it"
        }
        _ if after_scheme(text).is_some() => {
            "begins with an authentication scheme such as `Bearer`: write only the token to it"
        }
        _ if text.lines().next().is_some_and(is_assignment) => {
            "contains a `name=value` line, a header or a form: write only the token to it, without its name"
        }
        _ if text.contains(['\n', '\r']) => {
            "contains several lines: write only the token to it, in one line"
        }
        _ if text.contains("://") => "contains a URL: write only the token to it",
        _ if WORDS.iter().any(|word| text.eq_ignore_ascii_case(word)) => {
            "contains a word such as `null` and no token: check the program that writes it"
        }
        _ if is_variable(text) => {
            "contains the name of a variable and not its value: write only the token to it"
        }
        _ if text.contains(char::is_whitespace) => {
            "contains several words: write only the token to it"
        }
        _ if text.contains(char::is_control) => {
            "contains control characters: write only the token to it"
        }
        _ if text.contains(QUOTES) => "contains quotes: write only the token to it",
        _ if !text.is_ascii() => {
            "contains characters outside ASCII, which may be invisible: write only the token to it"
        }
        _ if text.contains(['{', '}', '[', ']', '<', '>']) => BRACKETS,
        _ if text.contains('\\') => {
            "contains a backslash, as of an escape that was not interpreted: write only the token to it"
        }
        _ => return None,
    })
}

/// Returns the first character within a brace that the text begins with.
fn in_brace(text: &str) -> Option<char> {
    text.strip_prefix('{')?.trim_start().chars().next()
}

/// Returns the text after an authentication scheme.
fn after_scheme(text: &str) -> Option<&str> {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim_start();
    let is_scheme = SCHEMES.iter().any(|scheme| word.eq_ignore_ascii_case(scheme));
    (is_scheme && !rest.starts_with('=')).then_some(rest)
}

/// Returns whether a line gives a name to a value, such as `export TOKEN=…`, `access_token: …` or `access_token=…&…`.
///
/// A token may end with `=`, and base64 with padding may stand before a `.`: neither is an assignment.
fn is_assignment(line: &str) -> bool {
    let line = line.trim_start();
    let line = ["export ", "set ", "setx "]
        .iter()
        .find_map(|word| line.strip_prefix(word))
        .unwrap_or(line);
    // Compared without a copy, which would not be wiped: the name may be a token.
    let is_named = |name: &str| {
        let name = name.trim_end().as_bytes();
        NAMES.iter().any(|known| {
            let end = name.len().checked_sub(known.len()).and_then(|start| name.get(start..));
            end.is_some_and(|end| end.eq_ignore_ascii_case(known.as_bytes()))
        })
    };
    if let Some((name, value)) = line.split_once(':')
        && (value.starts_with(char::is_whitespace) || value.is_empty() || is_named(name))
    {
        return true;
    }
    let Some((name, value)) = line.split_once('=') else { return false };
    let name = name.trim_end();
    let is_identifier =
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.$:".contains(&byte))
            && !name.is_empty();
    let is_value = value
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric() || b" \t\"'`$-_/+<{".contains(&byte));
    is_identifier && (is_value || value.is_empty() && is_named(name) && name.len() <= NAME_MAX)
}

/// Returns whether the text is the name of a variable, as `$TOKEN` or `%TOKEN%`.
fn is_variable(text: &str) -> bool {
    let percent = text.strip_prefix('%').and_then(|text| text.strip_suffix('%'));
    text.strip_prefix('$').or(percent).is_some_and(|name| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

const BYTE_ORDER_MARK: char = '\u{feff}';

const BRACKETS: &str =
    "contains braces or brackets, which no token has: write only the token to it";

const QUOTES: [char; 9] = ['"', '\'', '`', '“', '”', '„', '‘', '’', '«'];

const SCHEMES: [&str; 9] =
    ["Bearer", "Basic", "Digest", "DPoP", "MAC", "OAuth", "Token", "ApiKey", "Negotiate"];

/// The ends of the names of tokens, in lower case.
const NAMES: [&str; 8] =
    ["token", "bearer", "authorization", "jwt", "secret", "api_key", "apikey", "api-key"];

/// Longer than the name of any variable: base64 may end with the letters of a name by chance.
const NAME_MAX: usize = 32;

const WORDS: [&str; 8] = ["null", "(null)", "undefined", "none", "nil", "nan", "true", "false"];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(content: impl AsRef<[u8]>, words: &str) {
        let flaw = bare_token(content.as_ref()).unwrap_err();
        assert!(flaw.contains(words) && !flaw.contains("sesame"), "{flaw}");
    }

    /// D01
    #[test]
    fn byte_order_mark_and_white_space_are_trimmed() {
        for content in [
            "\u{feff}sesame",
            "\u{feff}sesame\r\n",
            "\u{feff} \n sesame \u{feff}\n",
            " sesame\r\n\r\n",
            "\tsesame\u{a0}",
            "sesame",
        ] {
            assert_eq!(bare_token(content.as_bytes()), Ok("sesame"), "{content:?}");
        }
        for blank in ["", "\u{feff}", " \r\n\u{feff}\t"] {
            assert!(is_blank(blank.as_bytes()), "{blank:?}");
        }
        assert!(!is_blank(b"x") && !is_blank(b"\xff\xfe"));
    }

    /// D01
    #[test]
    fn utf_16_is_named_with_and_without_its_mark() {
        for big in [false, true] {
            for mark in ["", "\u{feff}"] {
                let units = format!("{mark}sesame\r\n");
                let bytes = units.encode_utf16();
                let bytes: Vec<u8> = bytes
                    .flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() })
                    .collect();
                refused(bytes, "UTF-16");
            }
        }
        refused(b"ses\xe4me\xff", "not text");
        refused(b"sesame\0\0\0", "control characters");
    }

    /// D02, D04
    #[test]
    fn wrapped_token_is_refused_and_the_wrapper_is_named() {
        for (content, words) in [
            (r#"{"access_token":"sesame","refresh_token":"open"}"#, "JSON object"),
            ("{\n  \"token\": \"sesame\"\n}\n", "JSON object"),
            ("\u{feff}{ \"token\": \"sesame\" }", "JSON object"),
            ("{}", "JSON object"),
            (r#"["sesame"]"#, "JSON array"),
            ("[default]\ntoken = sesame\n", "configuration"),
            (r#""sesame""#, "quoted"),
            ("'sesame'\n", "quoted"),
            ("`sesame`", "quoted"),
            ("“sesame”", "quoted"),
            ("Bearer sesame", "scheme"),
            ("bearer\tsesame\n", "scheme"),
            ("DPoP sesame", "scheme"),
            ("token sesame", "scheme"),
            ("Bearer", "scheme and no token"),
            ("Authorization: Bearer sesame", "header"),
            ("authorization:Bearer sesame", "header"),
            ("token=sesame", "name=value"),
            ("TOKEN=sesame\n", "name=value"),
            ("token = sesame", "name=value"),
            ("export API_TOKEN=sesame", "name=value"),
            ("export API_TOKEN='sesame'", "name=value"),
            ("TOKEN=\"sesame\"", "name=value"),
            ("TOKEN=sesame\nOTHER=1\n", "name=value"),
            ("ACCESS_TOKEN=", "name=value"),
            ("access_token=sesame&token_type=bearer&expires_in=3600", "name=value"),
            ("token: sesame", "name=value"),
            ("token:sesame", "name=value"),
            ("access_token: \"sesame\"\nexpires: 1\n", "name=value"),
            ("<html><body>sesame</body></html>", "HTML"),
            ("<!DOCTYPE html>\n", "HTML"),
            ("<your-token>", "placeholder"),
            ("-----BEGIN PRIVATE KEY-----\nsesame\n-----END PRIVATE KEY-----\n", "PEM"),
            ("sesame\nsesame", "several lines"),
            ("sesame\r\nsesame", "several lines"),
            ("sesame\rsesame", "several lines"),
            ("{{ sesame }}", "template"),
            ("${SESAME}", "braces"),
            ("$SESAME", "variable"),
            ("%SESAME%", "variable"),
            ("null", "no token"),
            ("undefined\n", "no token"),
            ("None", "no token"),
            ("https://api.example.com/sesame", "URL"),
            ("no sesame here", "several words"),
            ("ses\u{7f}ame", "control characters"),
            ("sesame\u{1b}[0m", "control characters"),
            ("ses\u{200b}ame", "outside ASCII"),
            ("sésame", "outside ASCII"),
            ("ses\"ame", "quotes"),
            ("sesame}", "braces"),
            ("ENC[sesame]", "braces"),
            ("sesame\\n", "backslash"),
        ] {
            refused(content, words);
        }
    }

    #[test]
    fn tokens_that_servers_issue_are_accepted() {
        for token in [
            "sesame",
            "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln-_",
            "AbC+/~._-09==",
            "c2VzYW1lIG9wZW4gc2VzYW1lIG9wZW4gdG9rZW4=",
            "eyJhbGciOiJub25lIn0=.eyJzdWIiOiJhIn0=.c2ln",
            "123456:ABC-DEF1234",
            "123|a!b*c,d;e@f",
            "ya29.a0Af_byD",
            "xoxb-1-2-x",
            "$2b$10$abcdef",
            "a%3Db",
            "/w==",
            "nullable",
            "bearer-of-news",
        ] {
            assert_eq!(bare_token(token.as_bytes()), Ok(token));
        }
    }
}
