//! What was sent must not come back in an error.

use std::error::Error;
use std::fmt::Write as _;

use zeroize::Zeroizing;

/// What stands in the place of a secret.
const MARK: &str = "***";

/// A piece of a secret at least this long is hidden too: servers quote the beginnings of tokens.
const SHORTEST_PIECE: usize = 8;

/// The secrets that a request carried.
#[derive(Clone, Default)]
pub(super) struct Secrets {
    // In the characters that survive `printable`, so that they are found in text of which only those are left.
    printable: Vec<Zeroizing<String>>,
}

impl Secrets {
    pub(super) fn add(&mut self, secret: &str) {
        let secret = Zeroizing::new(printable(secret));
        if !secret.is_empty() && !self.printable.contains(&secret) {
            self.printable.push(secret);
            // A secret may contain another, which then must not be taken out of its middle.
            self.printable.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        }
    }

    /// Returns text from outside as it may be shown: printable, without a secret, and at most `limit` characters long.
    pub(super) fn clean(&self, text: &str, limit: usize) -> String {
        let mut text = printable(text);
        for secret in &self.printable {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), MARK);
            }
        }
        let text = self.hide_encoded(&text);
        let text = text.trim();
        // Every character is one byte by now.
        if text.len() <= limit {
            return text.to_owned();
        }
        format!("{}...", text.get(..limit.saturating_sub(3)).unwrap_or_default())
    }

    /// Hides words that are a secret once they are decoded, or a piece of one.
    fn hide_encoded(&self, text: &str) -> String {
        let mut shown = String::with_capacity(text.len());
        for word in
            text.split_inclusive([' ', '(', ')', '<', '>', '[', ']', '{', '}', ',', ';', '\''])
        {
            let end = word.len() - usize::from(word.ends_with(is_delimiter));
            let (inside, delimiter) = word.split_at(end);
            let piece = inside.trim_matches('.');
            let readings = [
                Zeroizing::new(piece.to_owned()),
                Zeroizing::new(printable(&percent_decode(piece, false))),
                Zeroizing::new(printable(&percent_decode(piece, true))),
            ];
            let hidden = self.printable.iter().any(|secret| {
                readings.iter().any(|reading| {
                    reading.contains(secret.as_str())
                        || reading.len() >= SHORTEST_PIECE && secret.contains(reading.as_str())
                })
            });
            shown.push_str(if hidden { MARK } else { inside });
            shown.push_str(delimiter);
        }
        shown
    }

    /// Returns an error of the HTTP client with its causes as it may be shown.
    ///
    /// A string and not the error itself: what a client puts into its errors is not known, and reqwest, for one, puts
    /// the URL there.
    pub(super) fn describe(&self, error: &(dyn Error + 'static), limit: usize) -> String {
        let mut text = String::new();
        for error in chain(error) {
            let message = error.to_string();
            if text.contains(&message) {
                continue;
            }
            let separator = if text.is_empty() { "" } else { ": " };
            let _ = write!(text, "{separator}{message}");
        }
        self.clean(&without_queries(&text), limit)
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

fn is_delimiter(c: char) -> bool {
    " ()<>[]{},;'".contains(c)
}

/// Returns text in the characters that RFC 6749 §5.2 allows in a description: one byte for each, or none.
fn printable(text: &str) -> String {
    text.chars()
        .filter_map(|c| match c {
            '"' | '\\' => None,
            ' '..='~' => Some(c),
            '\t' | '\n' | '\r' => Some(' '),
            c if c.is_control() => None,
            _ => Some('?'),
        })
        .collect()
}

fn percent_decode(text: &str, plus_is_space: bool) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let escaped = match (first, tail) {
            (b'%', [high, low, after @ ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| {
                rest = after;
                high << 4 | low
            }),
            _ => None,
        };
        decoded.push(match escaped {
            Some(byte) => byte,
            None if *first == b'+' && plus_is_space => b' ',
            None => *first,
        });
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
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
            ("p/w", "sent a=b&c=p%2Fw&d=e today", "sent *** today"),
            ("p w", "sent a=b&c=p+w&d=e today", "sent *** today"),
            ("abc%41%42defgh", "token abc%41%42d...", "token ***"),
            ("abc/defghi", "token abc%2Fdefg...", "token ***"),
            ("abcdefghi", "token abcdefg", "token abcdefg"),
        ] {
            let shown = secrets(&[secret]).clean(text, 200);
            assert_eq!(shown, expected, "{secret}");
        }
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
            Secrets::default().describe(&error, 300),
            "error sending request for url (https://as.example/token)"
        );
    }
}
