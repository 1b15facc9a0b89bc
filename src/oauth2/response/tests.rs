//! Answers of all kinds.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use proptest::prelude::*;
use zeroize::Zeroizing;

use super::oauth_error::{CODE_LIMIT, DESCRIPTION_LIMIT};
use super::{Answer, Context, Reported, is_whole, read, refresh_token};
use crate::clock::Timestamp;
use crate::error::TokenError;
use crate::oauth2::client_auth::ClientAuth;
use crate::oauth2::dialect::Dialect;
use crate::oauth2::scrub::Secrets;
use crate::token::{RefreshToken, TokenSet};

const NOW: Duration = Duration::from_secs(1_667_308_423);

fn now() -> Timestamp {
    Timestamp::new(Duration::ZERO, SystemTime::UNIX_EPOCH + NOW)
}

fn context<'a>(
    dialect: &'a Dialect,
    secrets: &'a Secrets,
    client_auth: &'a ClientAuth,
) -> Context<'a> {
    let place = "https://as.example.com answered";
    static REPORTED: LazyLock<Reported> = LazyLock::new(Reported::default);
    Context {
        place,
        endpoint: "https://as.example.com",
        reported: &REPORTED,
        dialect,
        client_auth,
        secrets,
        now: now(),
        spends: true,
        requested_token_type: None,
    }
}

fn read_in(dialect: &Dialect, answer: &Answer) -> Result<TokenSet, TokenError> {
    let mut secrets = Secrets::default();
    secrets.add("sesame");
    read(answer, context(dialect, &secrets, &ClientAuth::default()))
}

fn ok(body: &str) -> Answer {
    Answer {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        body: Ok(Zeroizing::new(body.into())),
    }
}

#[test]
fn token_that_a_refresh_revokes_is_not_refreshed_early() {
    let mut dialect = Dialect::rfc6749();
    dialect.revokes_previous = true;
    let at = NOW.as_secs() + 60;
    for (body, expected) in [
        (r#"{"access_token":"a","expires_in":60,"refresh_in":5}"#, Some(60)),
        (&format!(r#"{{"access_token":"a","expires_at":{at}}}"#), Some(60)),
        (r#"{"access_token":"a"}"#, None),
    ] {
        let tokens = read_in(&dialect, &ok(body)).unwrap();
        assert_eq!(tokens.refresh_in(), expected.map(Duration::from_secs), "{body}");
    }
}

#[test]
fn refresh_in_is_read_from_the_answer() {
    for (value, expected) in [("5", Some(5)), ("\"5\"", Some(5)), ("0", None), ("null", None)] {
        let body = format!(r#"{{"access_token":"a","expires_in":60,"refresh_in":{value}}}"#);
        let tokens = read_in(&Dialect::rfc6749(), &ok(&body)).unwrap();
        assert_eq!(tokens.refresh_in(), expected.map(Duration::from_secs), "{value}");
    }
}

/// Faults A50, A51.
#[test]
fn dump_before_the_answer_is_skipped() {
    for body in [
        r#"{"grant_type":"refresh_token","refresh_token":"old"}{"access_token":"a","refresh_token":"r"}"#,
        r#"Sent {"refresh_token":"old"} {"access_token":"a","refresh_token":"r"}"#,
        r#"scope=x {"access_token":"a","refresh_token":"r"}"#,
        "array(1) {\n  [\"scope\"]=>\n  string(1) \"x\"\n}\n{\"access_token\":\"a\",\"refresh_token\":\"r\"}",
    ] {
        let tokens = read_in(&Dialect::rfc6749(), &ok(body)).unwrap();
        assert_eq!(tokens.refresh_token().unwrap().expose_secret(), "r", "{body}");
    }
}

/// Faults A50 to A57, N2.
#[test]
fn refresh_token_is_found_in_an_otherwise_unusable_answer() {
    let utf_16: Vec<u8> = std::iter::once(0xfeff)
        .chain(r#"{"refresh_token":"next"}"#.encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect();
    for body in [
        r#"{"access_token":"a b","refreshToken":"next"}"#.into(),
        r#"{"access_token":"Bearer a","refresh_token":"next"}"#.into(),
        r#"{"token_type":"mac","access_token":"a","RefreshToken":"next"}"#.into(),
        r#"{"error":"invalid_grant","refresh-token":"next","x":NaN}"#.into(),
        r#"Notice: {x} {"refresh_token":"next","x":0042,}"#.into(),
        r#""{\"refresh_token\":\"next\"}""#.into(),
        "refresh_token=next".into(),
        utf_16,
    ] {
        let answer = Answer { body: Ok(Zeroizing::new(body)), ..ok("") };
        for dialect in [Dialect::rfc6749(), Dialect::camel_case(), Dialect::json_body()] {
            let shown = String::from_utf8_lossy(answer.body.as_ref().unwrap());
            assert!(read_in(&dialect, &answer).is_err(), "{shown}");
            let secrets = Secrets::default();
            let client_auth = ClientAuth::default();
            let context = context(&dialect, &secrets, &client_auth);
            let successor = refresh_token(&answer, context);
            let successor = successor.as_ref().map(RefreshToken::expose_secret);
            assert_eq!(successor, Some("next"), "{shown}");
        }
    }
}

/// Fault A60.
#[test]
fn json_is_complete_only_when_its_last_brace_is_closed() {
    let is_whole = |body: &[u8]| is_whole(body, &Dialect::rfc6749());
    let object = r#" {"a":"b}\"{","c":[{"d":"\\"}],"e":1} "#;
    let closed = object.trim_end().len();
    for at in 0..=object.len() {
        assert_eq!(is_whole(&object.as_bytes()[..at]), at >= closed, "{at}");
    }
    for complete in ["\u{feff}{}", "[{}]", "{}<!-- 3 ms -->"] {
        assert!(is_whole(complete.as_bytes()), "{complete}");
    }
    for other in ["a=b&c={}", "<html>{}", "\"{}\"", "", "null"] {
        assert!(!is_whole(other.as_bytes()), "{other}");
    }
}

/// Names with a meaning, and others.
fn name() -> impl Strategy<Value = String> {
    let known: Vec<String> = {
        let fields = serde_json::to_value(Dialect::camel_case().fields).unwrap();
        let more = serde_json::to_value(Dialect::rfc6749().fields).unwrap();
        [fields, more]
            .iter()
            .flat_map(|fields| fields.as_object().unwrap().values())
            .filter_map(serde_json::Value::as_array)
            .flatten()
            .flat_map(|pointer| pointer.as_str().unwrap().split('/'))
            .chain(["ok", "success"])
            .map(str::to_owned)
            .collect()
    };
    prop_oneof![4 => prop::sample::select(known), 1 => ".{0,8}"]
}

/// A value as a server may write it, not always JSON.
fn scalar() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        any::<String>(),
        "[a-z_]{1,12}",
        "sesame",
        "-?[0-9]{1,30}(\\.[0-9]{0,20})?(e[+-]?[0-9]{1,5})?",
        "[0-9]{1,5}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{0,20})?(Z|[+-][0-9]{2}:?[0-9]{2})?",
        "[a-zA-Z0-9_-]{0,8}\\.[a-zA-Z0-9_-]{0,40}\\.[a-zA-Z0-9_-]{0,8}",
        (any::<i64>()).prop_map(|exp| {
            let claims = format!(r#"{{"exp":{exp}}}"#);
            format!("e30.{}.e30", URL_SAFE_NO_PAD.encode(claims))
        }),
    ];
    prop_oneof![
        text.prop_map(|text| serde_json::to_string(&text).unwrap()),
        "-?[0-9]{1,30}(\\.[0-9]{1,20})?(e[+-]?[0-9]{1,5})?",
        prop::sample::select(vec!["null", "true", "false"]).prop_map(str::to_owned),
        flaw(),
        r#""(\\\\u[0-9a-fd]{4}|[\x00-\x7f]|é){0,6}""#,
    ]
}

/// A value that is not JSON, and that no token may be read from.
fn flaw() -> impl Strategy<Value = String> {
    let written = [
        "NaN",
        "Infinity",
        "-Infinity",
        "-1e400",
        "0042",
        "+1",
        ".5",
        "1.",
        "0x1F",
        "None",
        "True",
        "undefined",
        "",
        "a word, 2",
        "new Date(1, {})",
        "'it\\'s'",
        "u'x'",
        "\"\\'\"",
        "\"\\x4\"",
        "\"\\u12\"",
        "\"a\n\u{1}\"",
        "\"the \"x\" y\"",
        "\"C:\\\",\"x\":1",
        "[1,]",
        "{\"a\":1,}",
        "\"{\\\"a\\\":1}\"",
        "\"{\"",
        "/* \" */ 1",
        "1 // \"\n",
    ];
    prop_oneof![
        3 => prop::sample::select(written.map(str::to_owned).to_vec()),
        1 => "[-+.0-9eE]{1,12}",
        1 => "[a-zA-Z_ ;:?!@#$%&*.-]{0,12}",
        1 => "\"([a-z:{}\\[\\]',\x00-\x1f]|\\\\[a-tv-z'0-9]|\\\\u[0-9a-f]{0,4}){0,12}\"",
    ]
}

/// An answer with these tokens and a flaw outside of them.
fn flawed(access: String, refresh: String) -> impl Strategy<Value = Vec<u8>> {
    let tokens = [("access_token", access), ("refresh_token", refresh)]
        .map(|(name, token)| format!("\"{name}\":{}", serde_json::to_string(&token).unwrap()));
    let other = || ("[a-z]{1,8}", flaw()).prop_map(|(name, value)| format!("\"x{name}\":{value}"));
    let around = prop::sample::select(vec![
        ("", ""),
        ("\u{feff}", "<!-- 3 ms -->"),
        ("Notice: Undefined index in {$x} on line 3\n", ""),
        ("<br />\n<b>Warning</b>: x<br />\n", "<br />"),
        (")]}',\n", ""),
        ("for(;;);", "\0"),
        ("callback(", ");"),
    ]);
    let order = Just([0, 1, 2, 3]).prop_shuffle();
    (other(), other(), order, around, 0..4_u8).prop_map(
        move |(one, two, order, (before, after), encoding)| {
            let [access, refresh] = tokens.clone();
            let members = [access, refresh, one, two];
            let members = order.map(|at| members[at].clone()).join(",");
            let object = format!("{{{members}}}");
            match encoding {
                0 => serde_json::to_string(&object).unwrap().into_bytes(),
                1 => {
                    let units = format!("\u{feff}{object}");
                    units.encode_utf16().flat_map(u16::to_be_bytes).collect()
                }
                _ => format!("{before}{object}{after}").into_bytes(),
            }
        },
    )
}

fn document() -> impl Strategy<Value = String> {
    let value = scalar().prop_recursive(3, 16, 4, |inner| {
        let member = (name(), inner.clone());
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|all| format!("[{}]", all.join(","))),
            prop::collection::vec(member, 0..4).prop_map(|all| object(&all)),
        ]
    });
    prop::collection::vec((name(), value), 0..8).prop_map(|all| object(&all))
}

fn object(members: &[(String, String)]) -> String {
    let members: Vec<String> = members
        .iter()
        .map(|(name, value)| format!("{}:{value}", serde_json::to_string(name).unwrap()))
        .collect();
    format!("{{{}}}", members.join(","))
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => any::<Vec<u8>>(),
        4 => document().prop_map(String::into_bytes),
        1 => flawed("sesame".to_owned(), "r".to_owned()),
        1 => (document(), any::<prop::sample::Index>()).prop_map(|(text, at)| {
            let mut bytes = text.into_bytes();
            bytes.truncate(at.index(bytes.len()));
            bytes
        }),
        1 => prop::collection::vec((name(), any::<String>()), 0..6).prop_map(|pairs| {
            form_urlencoded::Serializer::new(String::new())
                .extend_pairs(pairs)
                .finish()
                .into_bytes()
        }),
    ]
}

fn header() -> impl Strategy<Value = Option<HeaderValue>> {
    prop::option::of(prop_oneof![
        any::<Vec<u8>>()
            .prop_filter_map("a header", |bytes| { HeaderValue::from_bytes(&bytes).ok() }),
        "[0-9]{1,30}".prop_filter_map("a header", |text| HeaderValue::try_from(text).ok()),
        (0..253_402_300_799_u64).prop_map(|at| {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(at);
            HeaderValue::try_from(httpdate::fmt_http_date(at)).unwrap()
        }),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn no_answer_panics_shows_a_secret_or_yields_a_bad_token(
        status in prop_oneof![3 => Just(200), 2 => 400..500_u16, 1 => 100..1000_u16],
        body in body(),
        date in header(),
        retry_after in header(),
        mut dialect in prop::sample::select(vec![
            Dialect::rfc6749(),
            Dialect::camel_case(),
            Dialect::json_body(),
        ]),
        errors_with_200: bool,
    ) {
        dialect.errors_with_200 = errors_with_200;
        let mut headers = HeaderMap::new();
        headers.extend([(DATE, date), (RETRY_AFTER, retry_after)]
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| (name, value))));
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: Ok(Zeroizing::new(body)),
        };
        match read_in(&dialect, &answer) {
            Ok(tokens) => {
                prop_assert!(answer.status.is_success());
                let token = tokens.access_token().expose_secret();
                prop_assert!(!token.is_empty() && token != "undefined");
            }
            Err(error) => {
                let shown = format!("{error} {error:?}");
                prop_assert!(!shown.contains("sesame"));
                prop_assert!(error.description().is_none_or(|text| text.len() <= DESCRIPTION_LIMIT));
                prop_assert!(error.code().is_none_or(|text| text.len() <= CODE_LIMIT));
                let is_refused = (400..500).contains(&status) || errors_with_200 && answer.status.is_success();
                prop_assert!(!error.is_denied() || is_refused);
            }
        }
    }

    /// Faults A50 to A57.
    #[test]
    fn flaw_outside_of_the_tokens_leaves_them_unchanged(
        (access, refresh, body) in ("[!-~]{1,24}", "[ -~]{1,24}").prop_flat_map(|(access, refresh)| {
            (Just(access.clone()), Just(refresh.clone()), flawed(access, refresh))
        }),
    ) {
        let answer = Answer { body: Ok(Zeroizing::new(body)), ..ok("") };
        let tokens = read_in(&Dialect::rfc6749(), &answer);
        prop_assert!(tokens.is_ok(), "{:?} {:?}", tokens, String::from_utf8_lossy(answer.body.as_ref().unwrap()));
        let tokens = tokens.unwrap();
        prop_assert_eq!(tokens.access_token().expose_secret(), access);
        prop_assert_eq!(tokens.refresh_token().map(RefreshToken::expose_secret), Some(refresh.as_str()));
    }
}
