//! Keeps the secrets that were sent out of errors and logs.

use std::collections::{BTreeSet, HashSet};
use std::error::Error;

use zeroize::Zeroizing;

/// The replacement for a secret.
const MARK: &str = "***";

/// The length of the pieces of a secret that are hidden, because servers quote the beginnings of tokens.
///
/// Shorter pieces occur in ordinary words. A shorter secret is hidden only as a whole.
pub(super) const PIECE: usize = 8;

/// How much of a text is examined, in characters. Far less of it is shown.
const TEXT_LIMIT: usize = 4096;

/// How much of an error of the HTTP client is shown, in characters.
const ERROR_LIMIT: usize = 300;

/// The secrets of a request.
#[derive(Clone, Default)]
pub(super) struct Secrets {
    /// Each as [`fold`] returns it.
    folded: Vec<Zeroizing<Vec<u8>>>,
}

impl Secrets {
    pub(super) fn add(&mut self, secret: impl AsRef<[u8]>) {
        let secret = secret.as_ref();
        let mut folded = Zeroizing::new(Vec::with_capacity(secret.len()));
        folded.extend(secret.iter().copied().filter_map(fold));
        if !folded.is_empty() && !self.folded.contains(&folded) {
            self.folded.push(folded);
        }
    }

    /// Returns a text from outside in a form that may be shown.
    ///
    /// The result is printable ASCII of at most `limit` characters, without secrets, and without the query and the user name
    /// of URLs.
    pub(super) fn clean(&self, text: &str, limit: usize) -> String {
        let text: String = text.chars().take(TEXT_LIMIT).collect();
        let hidden = self.find(&text);
        let mut shown = String::with_capacity(text.len());
        let mut was_hidden = false;
        for (c, is_hidden) in text.char_indices().map(|(at, c)| (c, hidden[at])) {
            if !is_hidden {
                shown.extend(printable(c));
            } else if !was_hidden {
                shown.push_str(MARK);
            }
            was_hidden = is_hidden;
        }
        // Last, because a secret may look like a URL, and the part of a secret that remains after a cut is not recognised.
        let shown = without_queries(&shown);
        let shown = shown.trim();
        // Each character is one byte.
        if shown.len() <= limit {
            return shown.to_owned();
        }
        format!("{}...", shown.get(..limit.saturating_sub(3)).unwrap_or_default())
    }

    /// Returns for each byte of a text whether it belongs to a piece of a secret in one of the [`readings`].
    fn find(&self, text: &str) -> Vec<bool> {
        // A set of pieces, because a server chooses the length of the text.
        let pieces: HashSet<&[u8]> =
            self.folded.iter().flat_map(|secret| secret.windows(PIECE.min(secret.len()))).collect();
        let lengths: BTreeSet<usize> = pieces.iter().map(|piece| piece.len()).collect();
        let mut hidden = vec![false; text.len()];
        for reading in readings(text) {
            let (bytes, places): (Vec<u8>, Vec<(usize, usize)>) =
                reading.into_iter().filter_map(|(byte, place)| Some((fold(byte)?, place))).unzip();
            for &length in &lengths {
                for (piece, places) in bytes.windows(length).zip(places.windows(length)) {
                    if pieces.contains(piece) {
                        hidden[places[0].0..places[length - 1].1].fill(true);
                    }
                }
            }
        }
        hidden
    }

    /// Returns an error of the HTTP client and its causes as a text that may be shown.
    ///
    /// The error itself is not kept, because a client may put secrets into it: reqwest puts the URL there.
    pub(super) fn describe(&self, error: &(dyn Error + 'static)) -> String {
        let mut text = String::new();
        for message in chain(error).map(ToString::to_string) {
            if !text.contains(&message) {
                text.push_str(if text.is_empty() { "" } else { ": " });
                text.push_str(&message);
            }
        }
        self.clean(&text, ERROR_LIMIT)
    }
}

/// Returns an error and its causes.
pub(super) fn chain<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    // Bounded, because an error may be its own cause.
    std::iter::successors(Some(error), |error| {
        let error: &'a (dyn Error + 'static) = *error;
        error.source()
    })
    .take(32)
}

/// Returns the byte that stands for a byte in comparisons, or `None` if the byte is ignored.
///
/// Servers return non-ASCII characters in any charset, and a space as `+`.
fn fold(byte: u8) -> Option<u8> {
    match byte {
        b' ' | b'+' | b'\t' | b'\n' | b'\r' => Some(b' '),
        b'"' | b'\\' => None,
        b'!'..=b'~' => Some(byte),
        // The first byte of a UTF-8 character.
        0xc0.. => Some(b'?'),
        _ => None,
    }
}

/// Returns the one-byte character that is shown for a character, of those that RFC 6749 §5.2 allows in a description.
fn printable(c: char) -> Option<char> {
    match c {
        '"' | '\\' => None,
        ' '..='~' => Some(c),
        '\t' | '\n' | '\r' => Some(' '),
        c if c.is_control() => None,
        _ => Some('?'),
    }
}

/// The bytes of a text, perhaps decoded, each with the start and the end of its place in the text.
type Reading = Vec<(u8, (usize, usize))>;

/// Returns a text undecoded, decoded once, and decoded twice, in each of the codes that a server may have used.
fn readings(text: &str) -> Vec<Reading> {
    let undecoded = text.bytes().enumerate().map(|(at, byte)| (byte, (at, at + 1))).collect();
    let decoded = |readings: &[Reading]| -> Vec<_> {
        let codes: [Code; 3] = [percent, json, html];
        let each = readings.iter().flat_map(|reading| codes.map(|code| decode(reading, code)));
        each.flatten().collect()
    };
    let undecoded = vec![undecoded];
    let once = decoded(&undecoded);
    let twice = decoded(&once);
    [undecoded, once, twice].concat()
}

/// Returns the byte that a text begins with, and the length of its code. `None` if the text does not begin with a code.
type Code = fn(&[u8]) -> Option<(u8, usize)>;

/// Decodes a reading. Returns `None` if nothing in it is encoded.
fn decode(reading: &Reading, code: Code) -> Option<Reading> {
    let bytes: Vec<u8> = reading.iter().map(|(byte, _)| *byte).collect();
    let mut decoded = Vec::with_capacity(reading.len());
    let mut at = 0;
    while let Some((byte, (start, _))) = reading.get(at) {
        let (byte, length) = code(&bytes[at..]).unwrap_or((*byte, 1));
        at += length;
        decoded.push((byte, (*start, reading[at - 1].1.1)));
    }
    (decoded.len() < reading.len()).then_some(decoded)
}

/// RFC 3986 §2.1
fn percent(text: &[u8]) -> Option<(u8, usize)> {
    match text {
        [b'%', high, low, ..] => Some((u8::try_from(number(&[*high, *low], 16)?).ok()?, 3)),
        _ => None,
    }
}

/// RFC 8259 §7
fn json(text: &[u8]) -> Option<(u8, usize)> {
    match text {
        [b'\\', b'u', a, b, c, d, ..] => Some((encoded(number(&[*a, *b, *c, *d], 16)?), 6)),
        [b'\\', b'n' | b'r' | b't', ..] => Some((b' ', 2)),
        [b'\\', byte, ..] => Some((*byte, 2)),
        _ => None,
    }
}

/// The entities that escape functions of HTML use, and the numeric ones.
fn html(text: &[u8]) -> Option<(u8, usize)> {
    let entity = text.strip_prefix(b"&")?;
    let length = entity.iter().take(8).position(|byte| *byte == b';')?;
    let byte = match &entity[..length] {
        b"amp" => b'&',
        b"lt" => b'<',
        b"gt" => b'>',
        b"quot" => b'"',
        b"apos" => b'\'',
        [b'#', b'x' | b'X', digits @ ..] => encoded(number(digits, 16)?),
        [b'#', digits @ ..] => encoded(number(digits, 10)?),
        _ => return None,
    };
    Some((byte, length + 2))
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    digits
        .iter()
        .try_fold(0, |number, digit| Some(number * radix + char::from(*digit).to_digit(radix)?))
}

/// Returns the part of a character's UTF-8 that [`fold`] examines.
fn encoded(code: u32) -> u8 {
    match u8::try_from(code) {
        Ok(byte) if byte.is_ascii() => byte,
        // The second half of a surrogate pair.
        _ if (0xdc00..0xe000).contains(&code) => 0x80,
        _ => 0xff,
    }
}

/// Removes the query and the user name from words that look like URLs.
fn without_queries(text: &str) -> String {
    let clean = |word: &str| {
        let end =
            word.trim_end_matches([')', '"', '\'', '>', ']', ',', ';', ':', '`', ' ', '\n']).len();
        let (url, closing) = word.split_at(end);
        let url = match url.split_once('?') {
            Some((before, _)) if before.contains('/') => before,
            _ => url,
        };
        let Some((scheme, rest)) = url.split_once("://") else { return format!("{url}{closing}") };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit('@').next().unwrap_or_default();
        format!("{scheme}://{host}{path}{closing}")
    };
    text.split_inclusive(char::is_whitespace).map(clean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(secrets: &[&str]) -> Secrets {
        let mut all = Secrets::default();
        for secret in secrets {
            all.add(secret);
        }
        all
    }

    #[test]
    fn secret_is_hidden_in_every_encoding() {
        let secret = "s3cr3t:with/odd%chars+&= \"ü";
        let secrets = secrets(&[secret]);
        let form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        for text in [
            format!("bad token {secret}"),
            format!("bad token {form}"),
            format!("bad token {}", form.to_lowercase()),
            format!("bad token {}", form.replace('+', "%20")),
            format!("bad token {}", serde_json::to_string(secret).unwrap()),
            "bad token s3cr3t:\u{0}with/odd%chars+&= \"ü".to_owned(),
            "bad token s3cr3t:with/...".to_owned(),
        ] {
            let shown = secrets.clean(&text, 200);
            assert!(shown.starts_with("bad token ***"), "{text}: {shown}");
            assert!(!shown.contains("s3cr3t") && !shown.contains("odd"), "{text}: {shown}");
        }
    }

    #[test]
    fn short_secrets_and_pieces_of_long_ones_are_hidden() {
        for (secret, text, expected) in [
            ("p w", "bad p word", "bad ***ord"),
            ("p/w", "sent a=b&c=p%2Fw&d=e today", "sent a=b&c=***&d=e today"),
            ("p w", "sent a=b&c=p+w&d=e today", "sent a=b&c=***&d=e today"),
            ("abc%41%42defgh", "token abc%41%42d...", "token ***..."),
            ("abc/defghi", "token abc%2Fdefg...", "token ***..."),
            ("ab/c?defghi", "token ab/c?defghi was sent", "token *** was sent"),
            ("ab\u{1f511}defgh", "token ab\\ud83d\\udd11defgh", "token ***"),
            ("abcdefghij", "token=abcdefgh...: expired", "token=***...: expired"),
            ("abcdefghij", "cdefghij:expired", "***:expired"),
            ("abcdefghij", "abcdefghabcdefghij", "***"),
            ("abcdefghi", "token abcdefg", "token abcdefg"),
            ("a-word-or-two", "no word or two", "no word or two"),
        ] {
            let shown = secrets(&[secret]).clean(text, 200);
            assert_eq!(shown, expected, "{secret}");
        }
    }

    #[test]
    fn secret_that_was_encoded_twice_is_hidden() {
        let secret = "a&b=c\"©é/e<f%41";
        let codes: [fn(&str) -> String; 5] = [
            |text| form_urlencoded::byte_serialize(text.as_bytes()).collect(),
            |text| text.bytes().map(|byte| format!("%{byte:02x}")).collect(),
            |text| serde_json::to_string(text).unwrap().trim_matches('"').to_owned(),
            |text| text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect(),
            |text| text.replace('&', "&amp;").replace('"', "&#34;").replace('<', "&#x3C;"),
        ];
        for one in codes {
            for other in codes {
                let text = format!("bad {} token", one(&other(secret)));
                assert_eq!(secrets(&[secret]).clean(&text, 200), "bad *** token", "{text}");
            }
        }
    }

    #[test]
    fn incomplete_code_is_shown_as_text() {
        for text in ["100%", "%4", "%zz%+1", "&", "&amp", "&;", "&#;", "&#x;", "&nothing;"] {
            assert_eq!(secrets(&["sesame"]).clean(text, 200), text);
        }
        for text in ["\\", "\\u", "\\u00", "\\u00zz"] {
            assert_eq!(secrets(&["sesame"]).clean(text, 200), text.replace('\\', ""));
        }
    }

    #[test]
    fn long_secrets_are_hidden_in_long_texts() {
        let long =
            |seed: usize| -> String { (seed..seed + 1000).map(|n| format!("{n}%25")).collect() };
        let all = [long(0), long(1000), long(2000)];
        let secrets = secrets(&[&all[0], &all[1], &all[2]]);
        assert_eq!(secrets.clean(&all.concat(), 200), MARK);
    }

    #[test]
    fn secret_is_hidden_before_the_text_is_cut() {
        let shown = secrets(&["0123456789"]).clean("expired: 0123456789", 14);
        assert_eq!(shown, "expired: ***");
    }

    #[test]
    fn text_is_bounded_and_printable() {
        let shown = Secrets::default().clean(&"é\u{1b}[2Ja\n".repeat(100), 50);
        assert_eq!(shown.len(), 50);
        assert!(shown.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{shown}");
    }

    #[test]
    fn urls_lose_query_and_userinfo() {
        let error = std::io::Error::other(
            "error sending request for url (https://u:p@as.example/token?client_secret=x&y=z)",
        );
        assert_eq!(
            Secrets::default().describe(&error),
            "error sending request for url (https://as.example/token)"
        );
    }
}
