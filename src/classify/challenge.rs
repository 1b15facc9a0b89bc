//! The content of `WWW-Authenticate`.

use std::fmt;

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// One challenge of a `WWW-Authenticate` field (RFC 9110 §11.6.1).
///
/// A source finds the one of the answer that rejected its token in [`Renewal::challenge`](crate::Renewal::challenge).
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
///
/// It is what the server wrote, and nothing of it is verified. `Debug` shows the scheme and the error code if they are
/// known ones, and how many parameters there are: anything else may repeat what the client sent.
#[derive(Clone)]
pub struct Challenge {
    scheme: Box<str>,
    token68: Option<Box<str>>,
    params: Vec<(Box<str>, Box<str>)>,
}

impl Challenge {
    /// Returns the challenges of all `WWW-Authenticate` fields, in the order in which they stand there.
    ///
    /// Several challenges in one field and several fields come to the same (RFC 9110 §5.3). What does not follow the
    /// grammar is left out and hides nothing that does: a parameter, a challenge, at worst the rest of one field (a
    /// quoted string that never ends).
    pub fn parse(headers: &HeaderMap) -> Vec<Self> {
        let mut challenges = Vec::new();
        for field in headers.get_all(WWW_AUTHENTICATE) {
            Parser::new(field.as_bytes()).parse_into(&mut challenges);
        }
        challenges
    }

    /// Returns the one challenge to tell a source: a bearer challenge if there is one, and among them the first that
    /// says what is wrong.
    pub(crate) fn for_source(headers: &HeaderMap) -> Option<Self> {
        let rank = |challenge: &Self| match (challenge.is_bearer(), challenge.error()) {
            (true, Some(_)) => 0,
            (true, None) => 1,
            (false, _) => 2,
        };
        // Of equals `min_by_key` takes the first.
        Self::parse(headers).into_iter().min_by_key(rank)
    }

    /// Returns the scheme, as it was written; schemes compare without regard to case (RFC 9110 §11.1).
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Returns whether the scheme is `Bearer` (RFC 6750 §3).
    pub fn is_bearer(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("bearer")
    }

    /// Returns a parameter's value, its quotes and escapes removed; names compare without regard to case (RFC 9110
    /// §11.2). Of several with one name, which the RFC forbids, it is the first.
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

    /// Returns the scope that is asked for (RFC 6750 §3): words with spaces between them.
    pub fn scope(&self) -> Option<&str> {
        self.param("scope")
    }

    /// Returns the realm (RFC 9110 §11.5).
    pub fn realm(&self) -> Option<&str> {
        self.param("realm")
    }

    /// Returns the `token68` that some schemes have in place of parameters (RFC 9110 §11.2), as `Negotiate` does.
    pub fn token68(&self) -> Option<&str> {
        self.token68.as_deref()
    }
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenge")
            .field("scheme", &known(&SCHEMES, &self.scheme))
            .field("error", &self.error().map(|error| known(&ERRORS, error)))
            .field("params", &self.params.len())
            .finish_non_exhaustive()
    }
}

/// Returns one of the known words, or a mark in the place of any other.
fn known(words: &[&'static str], word: &str) -> &'static str {
    words.iter().find(|known| known.eq_ignore_ascii_case(word)).copied().unwrap_or("…")
}

/// Reads one field, from left to right and each byte a bounded number of times.
///
/// ```text
/// field      = #challenge                                          RFC 9110 §11.6.1
/// challenge  = auth-scheme [ 1*SP ( token68 / #auth-param ) ]      RFC 9110 §11.3
/// auth-param = token BWS "=" BWS ( token / quoted-string )         RFC 9110 §11.2
/// ```
///
/// A comma separates challenges as well as parameters, so that only what follows a token tells which of them it begins:
/// `=` a parameter, anything else a challenge.
struct Parser<'a> {
    rest: &'a [u8],
}

impl<'a> Parser<'a> {
    fn new(field: &'a [u8]) -> Self {
        Self { rest: field }
    }

    fn parse_into(mut self, challenges: &mut Vec<Challenge>) {
        // The challenge that a parameter would belong to. None after an element that may have begun another one.
        let mut current: Option<Challenge> = None;
        loop {
            // Empty elements are allowed (RFC 9110 §5.6.1.2).
            self.take_while(|byte| is_space(byte) || byte == b',');
            if self.rest.is_empty() {
                break;
            }
            let name = self.take_while(is_tchar);
            if name.is_empty() {
                // No name, so neither a parameter nor a scheme.
                self.skip_element();
                continue;
            }
            if self.at_equals() {
                let value = self.value();
                if let (Some(challenge), Some(value)) = (&mut current, value) {
                    challenge.params.push((text(name), value));
                }
                self.skip_element();
                continue;
            }
            challenges.extend(current.take());
            if !self.at_end_of_element() && !self.rest.first().copied().is_some_and(is_space) {
                // `Bearer: realm=…` and the like: whose parameters follow is anybody's guess.
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

    /// Takes a `token68` if one stands here; it is one only if nothing else is in its element, or else a parameter.
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

    /// Returns whether `=` comes next, behind bad whitespace perhaps (RFC 9110 §5.6.3), and if so takes it.
    fn at_equals(&mut self) -> bool {
        let from = self.rest;
        self.take_while(is_space);
        if let [b'=', rest @ ..] = self.rest {
            self.rest = rest;
            return true;
        }
        self.rest = from;
        false
    }

    /// Takes a parameter's value; none if it is a quoted string that never ends.
    fn value(&mut self) -> Option<Box<str>> {
        self.take_while(is_space);
        let Some(b'"') = self.rest.first() else {
            // Not only a token: servers write URLs without quotes.
            return Some(text(self.take_while(|byte| !is_space(byte) && byte != b',')));
        };
        self.quoted_string()
    }

    /// Takes a quoted string (RFC 9110 §5.6.4), to the end of the field if there is no other.
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

    /// Skips what is left of an element: up to the next comma that is in no quoted string.
    fn skip_element(&mut self) {
        loop {
            match self.rest {
                [] | [b',', ..] => break,
                [b'"', ..] => drop(self.quoted_string()),
                [_, rest @ ..] => self.rest = rest,
            }
        }
    }

    /// Returns whether nothing but whitespace is left of the element.
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

/// Makes a string; what is not UTF-8 (RFC 9110 §5.5, `obs-text`) is replaced.
fn text(bytes: &[u8]) -> Box<str> {
    String::from_utf8_lossy(bytes).into()
}

/// RFC 9110 §5.6.3
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// RFC 9110 §5.6.2
fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110 §11.2, without the padding.
fn is_token68(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte)
}

/// The schemes that are in use.
const SCHEMES: [&str; 8] =
    ["Basic", "Bearer", "Digest", "DPoP", "GNAP", "Mutual", "Negotiate", "NTLM"];

/// RFC 6750 §3.1, RFC 9449 §7.1 and §9, RFC 9470 §3; the last is of Microsoft's continuous access evaluation.
const ERRORS: [&str; 7] = [
    "invalid_request",
    "invalid_token",
    "insufficient_scope",
    "invalid_dpop_proof",
    "use_dpop_nonce",
    "insufficient_user_authentication",
    "insufficient_claims",
];

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    type Plain = (String, Option<String>, Vec<(String, String)>);

    fn plain(challenge: &Challenge) -> Plain {
        let params = challenge.params.iter();
        (
            challenge.scheme().to_owned(),
            challenge.token68().map(str::to_owned),
            params.map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        )
    }

    fn headers(fields: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(field).unwrap());
        }
        headers
    }

    /// The challenges as `scheme:token68{name=value,…}`.
    fn parse(fields: &[&str]) -> Vec<String> {
        Challenge::parse(&headers(fields))
            .iter()
            .map(|challenge| {
                let (scheme, token68, params) = plain(challenge);
                let token68 = token68.map(|token| format!(":{token}")).unwrap_or_default();
                let params: Vec<_> = params.iter().map(|(n, v)| format!("{n}={v}")).collect();
                format!("{scheme}{token68}{{{}}}", params.join(","))
            })
            .collect()
    }

    #[test]
    fn the_rfcs_own_examples_are_understood() {
        // RFC 9110 §11.6.1
        assert_eq!(
            parse(&[
                r#"Basic realm="simple", Newauth realm="apps", type=1, title="Login to \"apps\"""#
            ]),
            ["Basic{realm=simple}", r#"Newauth{realm=apps,type=1,title=Login to "apps"}"#]
        );
        // RFC 6750 §3
        assert_eq!(
            parse(&[
                r#"Bearer realm="example", error="invalid_token", error_description="The access token expired""#
            ]),
            [
                "Bearer{realm=example,error=invalid_token,error_description=The access token expired}"
            ]
        );
    }

    #[test]
    fn several_challenges_may_share_a_field_or_have_one_each() {
        let expected = ["Negotiate{}", "Basic{realm=a}", "Bearer{error=b}"];
        assert_eq!(parse(&["Negotiate, Basic realm=a, Bearer error=b"]), expected);
        assert_eq!(parse(&["Negotiate", "Basic realm=a", "Bearer error=b"]), expected);
    }

    #[test]
    fn token68_is_told_from_a_parameter() {
        assert_eq!(
            parse(&["Negotiate oYG2MIGz==, NTLM TlRM/+._~-, Bearer a=b"]),
            ["Negotiate:oYG2MIGz=={}", "NTLM:TlRM/+._~-{}", "Bearer{a=b}"]
        );
        assert_eq!(parse(&["Foo a"]), ["Foo:a{}"]);
        assert_eq!(parse(&["Foo a="]), ["Foo:a={}"]);
        assert_eq!(parse(&["Foo a = b"]), ["Foo{a=b}"]);
    }

    #[test]
    fn empty_elements_and_bad_whitespace_change_nothing() {
        assert_eq!(
            parse(&[" , ,Bearer \t realm = \"a\" ,, error\t=\tb ,, , Basic ,"]),
            ["Bearer{realm=a,error=b}", "Basic{}"]
        );
        assert_eq!(parse(&["", ",", " \t, "]), [""; 0]);
    }

    #[test]
    fn commas_and_schemes_in_quotes_are_only_text() {
        assert_eq!(
            parse(&[r#"Bearer realm="a, Basic b=\"c\\", error=d"#]),
            [r#"Bearer{realm=a, Basic b="c\,error=d}"#]
        );
    }

    #[test]
    fn bad_input_does_not_hide_what_is_good() {
        // Another field.
        assert_eq!(
            parse(&["Basic realm=\"never ends", "Bearer error=a"]),
            ["Basic{}", "Bearer{error=a}"]
        );
        // The next challenge of the field.
        assert_eq!(parse(&["Basic: realm=\"a\", b=c, Bearer error=d"]), ["Bearer{error=d}"]);
        assert_eq!(parse(&["@?, \"x, y\" z, Bearer error=a"]), ["Bearer{error=a}"]);
        assert_eq!(parse(&["a=b, Bearer error=c"]), ["Bearer{error=c}"]);
        // The next parameter of the challenge.
        assert_eq!(parse(&["Bearer ;, error=b"]), ["Bearer{error=b}"]);
        assert_eq!(
            parse(&["Bearer realm=https://a/b?c, d=e f g, error=h"]),
            ["Bearer{realm=https://a/b?c,d=e,error=h}"]
        );
        assert_eq!(parse(&["Bearer, error=a"]), ["Bearer{error=a}"]);
        assert_eq!(parse(&["Bearer realm=, error=a"]), ["Bearer:realm={error=a}"]);
    }

    #[test]
    fn a_malformed_challenge_does_not_lend_its_parameters_to_the_one_before() {
        assert_eq!(
            parse(&["Bearer realm=a, DPoP/1 x=y, error=insufficient_scope"]),
            ["Bearer{realm=a}"]
        );
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced() {
        let mut headers = HeaderMap::new();
        let field = HeaderValue::from_bytes(b"Bearer realm=\"caf\xe9\", error=a").unwrap();
        headers.insert(WWW_AUTHENTICATE, field);
        let challenges = Challenge::parse(&headers);
        assert_eq!(challenges[0].realm(), Some("caf\u{fffd}"));
        assert_eq!(challenges[0].error(), Some("a"));
    }

    #[test]
    fn names_compare_without_regard_to_case_and_the_first_of_a_name_counts() {
        let challenges = Challenge::parse(&headers(&["bEARER Scope=\"a b\", SCOPE=c"]));
        assert!(challenges[0].is_bearer());
        assert_eq!(challenges[0].param("sCope"), Some("a b"));
        assert_eq!(challenges[0].param("missing"), None);
    }

    #[test]
    fn a_source_is_told_the_bearer_challenge_that_says_most() {
        let chosen = |fields: &[&str]| {
            let chosen = Challenge::for_source(&headers(fields))?;
            Some((chosen.scheme().to_owned(), chosen.error().map(str::to_owned)))
        };
        assert_eq!(chosen(&[]), None);
        assert_eq!(chosen(&["Basic error=a, Negotiate"]), Some(("Basic".into(), Some("a".into()))));
        assert_eq!(chosen(&["Basic error=a, Bearer"]), Some(("Bearer".into(), None)));
        assert_eq!(
            chosen(&["Bearer realm=a", "bearer error=b, BEARER error=c"]),
            Some(("bearer".into(), Some("b".into())))
        );
    }

    #[test]
    fn debug_shows_what_is_known_and_nothing_that_the_server_made_up() {
        let field = "bearer error=invalid_token, error_description=\"sesame is unknown\"";
        assert_eq!(
            format!("{:?}", Challenge::parse(&headers(&[field]))),
            r#"[Challenge { scheme: "Bearer", error: Some("invalid_token"), params: 2, .. }]"#
        );
        let field = "Bearer error=\"sesame\", sesame error=a, Negotiate sesame, Basic sesame=b";
        assert_eq!(
            format!("{:?}", Challenge::parse(&headers(&[field]))),
            [
                r#"[Challenge { scheme: "Bearer", error: Some("…"), params: 1, .. }"#,
                r#"Challenge { scheme: "…", error: Some("…"), params: 1, .. }"#,
                r#"Challenge { scheme: "Negotiate", error: None, params: 0, .. }"#,
                r#"Challenge { scheme: "Basic", error: None, params: 1, .. }]"#,
            ]
            .join(", ")
        );
    }

    #[test]
    fn a_field_of_nothing_but_quotes_and_escapes_is_read_in_one_pass() {
        let field = "\"\\\",".repeat(1 << 18);
        assert!(parse(&[&field]).is_empty());
        let field = "a\"=,".repeat(1 << 18);
        assert!(parse(&[&field]).is_empty());
    }

    /// Writes challenges in any way that the grammar allows; `seed` chooses.
    fn write(challenges: &[Plain], mut seed: u64) -> String {
        let mut flip = |n: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % n
        };
        let mut field = String::new();
        for (scheme, token68, params) in challenges {
            field += ["", ",", " , ,\t"][flip(3) as usize];
            field += scheme;
            if let Some(token68) = token68 {
                field += &format!(" {token68}");
            }
            for (at, (name, value)) in params.iter().enumerate() {
                field += if at == 0 { " " } else { [",", ", ", " ,,"][flip(3) as usize] };
                let bws = ["", " ", "\t"][flip(3) as usize];
                let token = !value.is_empty() && value.bytes().all(is_tchar);
                let value = if token && flip(2) == 0 {
                    value.clone()
                } else {
                    let escaped: String = value
                        .chars()
                        .flat_map(|c| {
                            let must = matches!(c, '"' | '\\');
                            (must || flip(4) == 0).then_some('\\').into_iter().chain([c])
                        })
                        .collect();
                    format!("\"{escaped}\"")
                };
                field += &format!("{name}{bws}={bws}{value}");
            }
            field += [",", " ,", ", "][flip(3) as usize];
        }
        field
    }

    fn token() -> impl Strategy<Value = String> {
        "[A-Za-z0-9!#$%&'*+.^_`|~-]{1,8}"
    }

    fn challenge() -> impl Strategy<Value = Plain> {
        let content = prop_oneof![
            "[A-Za-z0-9._~+/-]{1,12}={0,2}".prop_map(|token68| (Some(token68), Vec::new())),
            prop::collection::vec((token(), "[ -~\t]{0,12}"), 0..4)
                .prop_map(|params| (None, params)),
        ];
        (token(), content).prop_map(|(scheme, (token68, params))| (scheme, token68, params))
    }

    proptest! {
        #[test]
        fn whatever_stands_in_a_field_there_is_no_panic(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"\"\\,= \tab".to_vec())], 0..64)
        ) {
            let mut challenges = Vec::new();
            Parser::new(&bytes).parse_into(&mut challenges);
        }

        #[test]
        fn what_the_grammar_allows_comes_back(
            challenges in prop::collection::vec(challenge(), 0..4),
            seed in any::<u64>(),
        ) {
            let field = write(&challenges, seed);
            let mut parsed = Vec::new();
            Parser::new(field.as_bytes()).parse_into(&mut parsed);
            let parsed: Vec<_> = parsed.iter().map(plain).collect();
            prop_assert_eq!(parsed, challenges, "{}", field);
        }

        #[test]
        fn a_good_field_is_found_behind_a_bad_one(bad in "[ -~]{0,40}") {
            let headers = headers(&[&bad, "Bearer error=\"invalid_token\""]);
            let last = Challenge::parse(&headers).pop();
            prop_assert_eq!(last.as_ref().and_then(Challenge::error), Some("invalid_token"));
        }
    }
}
