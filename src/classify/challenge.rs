//! The challenges of a `WWW-Authenticate` field, and their parser.

use std::fmt;

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

use super::error_codes::ERROR_CODES;

/// One challenge of a `WWW-Authenticate` field (RFC 9110 §11.6.1).
///
/// A source finds the challenge of the response that rejected its token in
/// [`Renewal::challenge`](crate::Renewal::challenge). None of it is verified: it is what the server sent.
///
/// `Debug` shows the scheme and the error code if they are registered ones, and the number of parameters. Everything else may
/// repeat what the client sent.
///
/// # Examples
///
/// ```
/// use http::{HeaderMap, HeaderValue, header::WWW_AUTHENTICATE};
/// use tower_refresh::Challenge;
///
/// let mut headers = HeaderMap::new();
/// headers.insert(
///     WWW_AUTHENTICATE,
///     HeaderValue::from_static(r#"Basic realm="files", Bearer error="insufficient_scope", scope="read write""#),
/// );
/// let challenges = Challenge::parse(&headers);
/// assert_eq!(challenges[0].realm(), Some("files"));
/// assert!(challenges[1].is_bearer());
/// assert_eq!(challenges[1].scope(), Some("read write"));
/// ```
#[doc(alias = "WWW-Authenticate")]
#[derive(Clone)]
pub struct Challenge {
    scheme: Box<str>,
    token68: Option<Box<str>>,
    params: Vec<(Box<str>, Box<str>)>,
}

impl Challenge {
    /// Parses the challenges of all `WWW-Authenticate` fields and returns them in order.
    ///
    /// Several challenges in one field are equivalent to several fields (RFC 9110 §5.3). A parameter or challenge that
    /// violates the grammar is skipped without affecting the others, except that a quoted string without an end takes up the
    /// rest of its field.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::{HeaderMap, HeaderValue, header::WWW_AUTHENTICATE};
    /// use tower_refresh::Challenge;
    ///
    /// let mut headers = HeaderMap::new();
    /// headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Negotiate, Basic realm=files"));
    /// headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=invalid_token"));
    /// let schemes: Vec<_> = Challenge::parse(&headers).iter().map(|c| c.scheme().to_owned()).collect();
    /// assert_eq!(schemes, ["Negotiate", "Basic", "Bearer"]);
    /// ```
    pub fn parse(headers: &HeaderMap) -> Vec<Self> {
        let mut challenges = Vec::new();
        for field in headers.get_all(WWW_AUTHENTICATE) {
            Parser { rest: field.as_bytes() }.parse_into(&mut challenges);
        }
        challenges
    }

    /// Returns the challenge for [`Renewal::challenge`](crate::Renewal::challenge): the first bearer challenge with an error
    /// code, or else the first bearer challenge, or else the first challenge.
    pub(crate) fn for_source(headers: &HeaderMap) -> Option<Self> {
        let rank = |challenge: &Self| match (challenge.is_bearer(), challenge.error()) {
            (true, Some(_)) => 0,
            (true, None) => 1,
            (false, _) => 2,
        };
        // `min_by_key` returns the first of several equal ones.
        Self::parse(headers).into_iter().min_by_key(rank)
    }

    /// Returns the scheme as the server wrote it. Compare it case-insensitively (RFC 9110 §11.1).
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Returns whether the scheme is `Bearer` (RFC 6750 §3).
    pub fn is_bearer(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("bearer")
    }

    /// Returns the value of a parameter, without quotes and escapes. The name is case-insensitive (RFC 9110 §11.2).
    ///
    /// If the server has violated the RFC and sent several parameters of this name, returns the first.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| &**value)
    }

    /// Returns the error code (RFC 6750 §3.1), such as `invalid_token`.
    pub fn error(&self) -> Option<&str> {
        self.param("error")
    }

    /// Returns the scope that the request needs (RFC 6750 §3), a list separated by spaces.
    pub fn scope(&self) -> Option<&str> {
        self.param("scope")
    }

    /// Returns the realm (RFC 9110 §11.5).
    pub fn realm(&self) -> Option<&str> {
        self.param("realm")
    }

    /// Returns the `token68` that schemes such as `Negotiate` have instead of parameters (RFC 9110 §11.2).
    pub fn token68(&self) -> Option<&str> {
        self.token68.as_deref()
    }
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenge")
            .field("scheme", &known(&SCHEMES, &self.scheme))
            .field(
                "error",
                &self.error().map(|code| known(&ERROR_CODES.map(|(code, _)| code), code)),
            )
            .field("params", &self.params.len())
            .finish_non_exhaustive()
    }
}

/// Returns the word if it is one of `words`, and an ellipsis otherwise.
fn known(words: &[&'static str], word: &str) -> &'static str {
    words.iter().find(|known| known.eq_ignore_ascii_case(word)).copied().unwrap_or("…")
}

/// Parses one field from left to right, reading each byte a bounded number of times.
///
/// ```text
/// field      = #challenge                                          RFC 9110 §11.6.1
/// challenge  = auth-scheme [ 1*SP ( token68 / #auth-param ) ]      RFC 9110 §11.3
/// auth-param = token BWS "=" BWS ( token / quoted-string )         RFC 9110 §11.2
/// ```
///
/// A comma separates challenges as well as parameters. A token that is followed by `=` is the name of a parameter, any other
/// token begins a challenge.
struct Parser<'a> {
    rest: &'a [u8],
}

impl<'a> Parser<'a> {
    fn parse_into(mut self, challenges: &mut Vec<Challenge>) {
        // The challenge that the next parameter belongs to. None after a malformed element, which may have begun another one.
        let mut current: Option<Challenge> = None;
        loop {
            // RFC 9110 §5.6.1.2 allows empty elements.
            self.take_while(|byte| is_space(byte) || byte == b',');
            if self.rest.is_empty() {
                break;
            }
            let name = self.take_while(is_tchar);
            if name.is_empty() {
                // Neither a parameter nor a challenge.
                self.skip_element();
                continue;
            }
            if self.take_equals() {
                let value = self.value();
                if let (Some(challenge), Some(value)) = (&mut current, value) {
                    challenge.params.push((text(name), value));
                }
                self.skip_element();
                continue;
            }
            challenges.extend(current.take());
            if !self.at_end_of_element() && !self.rest.first().copied().is_some_and(is_space) {
                // Malformed, such as `Bearer: realm=…`: the parameters that follow belong to no known challenge.
                self.skip_element();
                continue;
            }
            self.take_while(is_space);
            let token68 = self.token68();
            current = Some(Challenge {
                scheme: text(name),
                token68: token68.map(text),
                params: Vec::new(),
            });
        }
        challenges.extend(current);
    }

    /// Takes a `token68`, which must be alone in its element. Otherwise the element is a parameter.
    fn token68(&mut self) -> Option<&'a [u8]> {
        let from = self.rest;
        let body = self.take_while(is_token68);
        let padding = self.take_while(|byte| byte == b'=');
        if body.is_empty() || !self.at_end_of_element() {
            self.rest = from;
            return None;
        }
        Some(&from[..body.len() + padding.len()])
    }

    /// Takes `=` and the whitespace before it (BWS, RFC 9110 §5.6.3). Returns whether there was one.
    fn take_equals(&mut self) -> bool {
        let from = self.rest;
        self.take_while(is_space);
        if let [b'=', rest @ ..] = self.rest {
            self.rest = rest;
            return true;
        }
        self.rest = from;
        false
    }

    /// Takes the value of a parameter. Returns none for a quoted string without an end.
    fn value(&mut self) -> Option<Box<str>> {
        self.take_while(is_space);
        let Some(b'"') = self.rest.first() else {
            // More lenient than a token: servers send URLs without quotes.
            return Some(text(self.take_while(|byte| !is_space(byte) && byte != b',')));
        };
        self.quoted_string()
    }

    /// Takes a quoted string (RFC 9110 §5.6.4). Without a closing quote, takes the rest of the field and returns none.
    fn quoted_string(&mut self) -> Option<Box<str>> {
        let mut unescaped = Vec::new();
        let mut bytes = self.rest.iter().copied().skip(1);
        loop {
            match bytes.next() {
                Some(b'"') => break,
                Some(b'\\') => unescaped.extend(bytes.next()),
                Some(byte) => unescaped.push(byte),
                None => {
                    self.rest = &[];
                    return None;
                }
            }
        }
        self.rest = &self.rest[self.rest.len() - bytes.len()..];
        Some(text(&unescaped))
    }

    /// Skips the rest of an element, up to the next comma outside a quoted string.
    fn skip_element(&mut self) {
        loop {
            match self.rest {
                [] | [b',', ..] => break,
                [b'"', ..] => drop(self.quoted_string()),
                [_, rest @ ..] => self.rest = rest,
            }
        }
    }

    /// Returns whether the rest of the element is whitespace.
    fn at_end_of_element(&self) -> bool {
        let next = self.rest.iter().find(|byte| !is_space(**byte));
        matches!(next, None | Some(b','))
    }

    fn take_while(&mut self, is: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| !is(*byte));
        let (taken, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        taken
    }
}

/// Converts bytes to a string, replacing those that are not UTF-8 (`obs-text`, RFC 9110 §5.5).
fn text(bytes: &[u8]) -> Box<str> {
    String::from_utf8_lossy(bytes).into()
}

/// RFC 9110 §5.6.3
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Returns whether a scheme and the name of a parameter may contain it (RFC 9110 §5.6.2).
pub(crate) fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110 §11.2, without the padding.
fn is_token68(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte)
}

/// The schemes that `Debug` shows.
const SCHEMES: [&str; 8] =
    ["Basic", "Bearer", "Digest", "DPoP", "GNAP", "Mutual", "Negotiate", "NTLM"];

#[cfg(test)]
mod tests;
