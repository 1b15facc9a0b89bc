//! What was sent must not come back in an error.

use std::collections::{BTreeSet, HashSet};
use std::error::Error;
use std::fmt::Write as _;

use zeroize::Zeroizing;

/// What stands in the place of a secret.
const MARK: &str = "***";

/// A piece of a secret of this length is hidden: servers quote the beginnings of tokens. Anything shorter is found in
/// ordinary words; a secret that is shorter itself is hidden where it stands whole.
const PIECE: usize = 8;

/// How much of a text from outside is looked at, in characters; far less of it is shown.
const TEXT_LIMIT: usize = 4096;

/// How much of an error of the HTTP client is shown, in characters.
const ERROR_LIMIT: usize = 300;

/// The secrets that a request carried.
#[derive(Clone, Default)]
pub(super) struct Secrets {
    /// Each as [`fold`] leaves it.
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

    /// Returns text from outside as it may be shown: printable, without a secret, without a URL's query and userinfo,
    /// and at most `limit` characters long.
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
        // Afterwards: a secret may look like a URL, and what is cut could no longer be told from ordinary words.
        let shown = without_queries(&shown);
        let shown = shown.trim();
        // Every character is one byte by now.
        if shown.len() <= limit {
            return shown.to_owned();
        }
        format!("{}...", shown.get(..limit.saturating_sub(3)).unwrap_or_default())
    }

    /// Returns for each byte of a text whether it belongs to a piece of a secret, in whichever way the text is read.
    fn find(&self, text: &str) -> Vec<bool> {
        // Looked up rather than compared one by one: a server chooses how long all of this is.
        let pieces: HashSet<&[u8]> =
            self.folded.iter().flat_map(|secret| secret.windows(PIECE.min(secret.len()))).collect();
        let lengths: BTreeSet<usize> = pieces.iter().map(|piece| piece.len()).collect();
        let mut hidden = vec![false; text.len()];
        for reading in readings(text) {
            let reading = reading.into_iter();
            let (bytes, letters): (Vec<u8>, Vec<Letter>) =
                reading.filter_map(|letter| Some((fold(letter.byte)?, letter))).unzip();
            for &length in &lengths {
                for (piece, letters) in bytes.windows(length).zip(letters.windows(length)) {
                    if pieces.contains(piece) {
                        hidden[letters[0].from..letters[length - 1].to].fill(true);
                    }
                }
            }
        }
        hidden
    }

    /// Returns an error of the HTTP client with its causes as it may be shown.
    ///
    /// A string and not the error itself: what a client puts into its errors is not known, and reqwest, for one, puts
    /// the URL there.
    pub(super) fn describe(&self, error: &(dyn Error + 'static)) -> String {
        let mut text = String::new();
        for error in chain(error) {
            let message = error.to_string();
            if text.contains(&message) {
                continue;
            }
            let separator = if text.is_empty() { "" } else { ": " };
            let _ = write!(text, "{separator}{message}");
        }
        self.clean(&text, ERROR_LIMIT)
    }
}

/// Goes through an error and its causes.
pub(super) fn chain<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    // An error that is its own cause would go on for ever.
    std::iter::successors(Some(error), |error| {
        let error: &'a (dyn Error + 'static) = *error;
        error.source()
    })
    .take(32)
}

/// Returns the byte by which another is compared; none if it makes no difference. What is outside of ASCII comes back in
/// any charset, and a space as `+`.
fn fold(byte: u8) -> Option<u8> {
    match byte {
        b' ' | b'+' | b'\t' | b'\n' | b'\r' => Some(b' '),
        b'"' | b'\\' => None,
        b'!'..=b'~' => Some(byte),
        // In UTF-8 the first byte of a character.
        0xc0.. => Some(b'?'),
        _ => None,
    }
}

/// Returns a character as it may be shown, in those that RFC 6749 §5.2 allows in a description: one byte for each.
fn printable(c: char) -> Option<char> {
    match c {
        '"' | '\\' => None,
        ' '..='~' => Some(c),
        '\t' | '\n' | '\r' => Some(' '),
        c if c.is_control() => None,
        _ => Some('?'),
    }
}

/// A byte of a text, decoded perhaps, and where in the text it stands.
#[derive(Clone, Copy)]
struct Letter {
    byte: u8,
    from: usize,
    to: usize,
}

/// Returns a text as it is, and decoded once and twice by each of the codes that a server may have written it in.
fn readings(text: &str) -> Vec<Vec<Letter>> {
    let as_is = text.bytes().enumerate().map(|(at, byte)| Letter { byte, from: at, to: at + 1 });
    let decoded = |readings: &[Vec<Letter>]| -> Vec<_> {
        let codes: [Code; 3] = [percent, json, html];
        readings
            .iter()
            .flat_map(|reading| codes.map(|code| decode(reading, code)))
            .flatten()
            .collect()
    };
    let as_is = vec![as_is.collect()];
    let once = decoded(&as_is);
    let twice = decoded(&once);
    [as_is, once, twice].concat()
}

/// Returns the byte that a text begins with, if it is in code, and how long the code is.
type Code = fn(&[u8]) -> Option<(u8, usize)>;

/// Returns a reading decoded; none if nothing in it is in this code.
fn decode(reading: &[Letter], code: Code) -> Option<Vec<Letter>> {
    let bytes: Vec<u8> = reading.iter().map(|letter| letter.byte).collect();
    let mut decoded = Vec::with_capacity(reading.len());
    let mut at = 0;
    while let Some(letter) = reading.get(at) {
        let (byte, length) = code(&bytes[at..]).unwrap_or((letter.byte, 1));
        at += length;
        decoded.push(Letter { byte, from: letter.from, to: reading[at - 1].to });
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

/// The entities that every escape function of HTML knows, and the numeric ones.
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

/// Returns of a character's UTF-8 as much as [`fold`] looks at.
fn encoded(code: u32) -> u8 {
    match u8::try_from(code) {
        Ok(byte) if byte.is_ascii() => byte,
        // The second half of a surrogate pair.
        _ if (0xdc00..0xe000).contains(&code) => 0x80,
        _ => 0xff,
    }
}

/// Cuts the query and the userinfo out of whatever looks like a URL.
fn without_queries(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for word in text.split_inclusive(char::is_whitespace) {
        let closing =
            word.trim_end_matches([')', '"', '\'', '>', ']', ',', ';', ':', '`', ' ', '\n']);
        let (url, closing) = word.split_at(closing.len());
        let url = match url.split_once('?') {
            Some((before, _)) if before.contains('/') => before,
            _ => url,
        };
        match url.split_once("://") {
            Some((scheme, rest)) => {
                let authority_end = rest.find('/').unwrap_or(rest.len());
                let host = rest
                    .get(..authority_end)
                    .and_then(|authority| authority.rfind('@'))
                    .map_or(0, |at| at + 1);
                shown.push_str(scheme);
                shown.push_str("://");
                shown.push_str(rest.get(host..).unwrap_or_default());
            }
            None => shown.push_str(url),
        }
        shown.push_str(closing);
    }
    shown
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
    fn a_secret_is_hidden_in_whatever_form_it_comes_back() {
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
    fn a_secret_is_hidden_if_it_was_encoded_twice() {
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
    fn a_code_that_is_none_is_text() {
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
    fn a_secret_is_hidden_before_the_text_is_cut() {
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
