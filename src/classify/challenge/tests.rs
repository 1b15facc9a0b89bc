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

/// Returns the challenges as `scheme:token68{name=value,…}`.
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
fn examples_of_the_rfcs_are_parsed() {
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
        ["Bearer{realm=example,error=invalid_token,error_description=The access token expired}"]
    );
}

#[test]
fn challenges_in_one_field_equal_challenges_in_several() {
    let expected = ["Negotiate{}", "Basic{realm=a}", "Bearer{error=b}"];
    assert_eq!(parse(&["Negotiate, Basic realm=a, Bearer error=b"]), expected);
    assert_eq!(parse(&["Negotiate", "Basic realm=a", "Bearer error=b"]), expected);
}

#[test]
fn token68_is_distinguished_from_a_parameter() {
    assert_eq!(
        parse(&["Negotiate oYG2MIGz==, NTLM TlRM/+._~-, Bearer a=b"]),
        ["Negotiate:oYG2MIGz=={}", "NTLM:TlRM/+._~-{}", "Bearer{a=b}"]
    );
    assert_eq!(parse(&["Foo a"]), ["Foo:a{}"]);
    assert_eq!(parse(&["Foo a="]), ["Foo:a={}"]);
    assert_eq!(parse(&["Foo a = b"]), ["Foo{a=b}"]);
}

#[test]
fn empty_elements_and_bad_whitespace_are_ignored() {
    assert_eq!(
        parse(&[" , ,Bearer \t realm = \"a\" ,, error\t=\tb ,, , Basic ,"]),
        ["Bearer{realm=a,error=b}", "Basic{}"]
    );
    assert_eq!(parse(&["", ",", " \t, "]), [""; 0]);
}

#[test]
fn commas_and_schemes_in_quotes_are_text() {
    assert_eq!(
        parse(&[r#"Bearer realm="a, Basic b=\"c\\", error=d"#]),
        [r#"Bearer{realm=a, Basic b="c\,error=d}"#]
    );
}

#[test]
fn malformed_element_does_not_hide_valid_ones() {
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
fn parameters_of_a_malformed_challenge_are_dropped() {
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
fn names_ignore_case_and_the_first_of_a_name_counts() {
    let challenges = Challenge::parse(&headers(&["bEARER Scope=\"a b\", SCOPE=c"]));
    assert!(challenges[0].is_bearer());
    assert_eq!(challenges[0].param("sCope"), Some("a b"));
    assert_eq!(challenges[0].param("missing"), None);
}

#[test]
fn source_gets_the_bearer_challenge_with_an_error_code() {
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
fn debug_shows_registered_words_only() {
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
fn field_of_quotes_and_escapes_is_read_in_one_pass() {
    let field = "\"\\\",".repeat(1 << 18);
    assert!(parse(&[&field]).is_empty());
    let field = "a\"=,".repeat(1 << 18);
    assert!(parse(&[&field]).is_empty());
}

/// Writes challenges in one of the forms of the grammar, which `seed` selects.
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
        prop::collection::vec((token(), "[ -~\t]{0,12}"), 0..4).prop_map(|params| (None, params)),
    ];
    (token(), content).prop_map(|(scheme, (token68, params))| (scheme, token68, params))
}

proptest! {
    #[test]
    fn parsing_arbitrary_bytes_does_not_panic(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"\"\\,= \tab".to_vec())], 0..64)
    ) {
        let mut challenges = Vec::new();
        Parser { rest: &bytes }.parse_into(&mut challenges);
    }

    #[test]
    fn every_field_of_the_grammar_is_parsed(
        challenges in prop::collection::vec(challenge(), 0..4),
        seed in any::<u64>(),
    ) {
        let field = write(&challenges, seed);
        let mut parsed = Vec::new();
        Parser { rest: field.as_bytes() }.parse_into(&mut parsed);
        let parsed: Vec<_> = parsed.iter().map(plain).collect();
        prop_assert_eq!(parsed, challenges, "{}", field);
    }

    #[test]
    fn valid_field_after_an_arbitrary_one_is_parsed(bad in "[ -~]{0,40}") {
        let headers = headers(&[&bad, "Bearer error=\"invalid_token\""]);
        let last = Challenge::parse(&headers).pop();
        prop_assert_eq!(last.as_ref().and_then(Challenge::error), Some("invalid_token"));
    }
}
