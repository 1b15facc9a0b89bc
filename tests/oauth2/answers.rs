//! Responses of real token endpoints, and how each is read.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use tower_refresh::oauth2::{
    AuthParams, ClientAuth, ClientCredentialsGrant, Dialect, RefreshTokenGrant, TokenEndpoint,
};
use tower_refresh::{Cause, Renewal, TokenError, TokenSet, TokenSource};

#[cfg(feature = "tracing")]
use crate::log::Log;
use crate::scripted::{
    self, Manual, Reply, START, START_DATE, answer, answer_with, endpoint, json, kind, refused,
    reset, response,
};

const REFRESH_TOKEN: &str = "old-refresh-token";

fn missing() -> Renewal {
    Renewal::new(Cause::Missing)
}

async fn fetch(endpoint: TokenEndpoint) -> Result<TokenSet, TokenError> {
    RefreshTokenGrant::new(endpoint, REFRESH_TOKEN).fetch(missing()).await
}

/// Refreshes once, with this reply, in a dialect.
async fn refresh_in(dialect: Dialect, reply: Reply) -> Result<TokenSet, TokenError> {
    let (endpoint, _) = endpoint([reply]);
    fetch(endpoint.dialect(dialect).clock(Manual::new())).await
}

async fn refresh(reply: Reply) -> Result<TokenSet, TokenError> {
    refresh_in(Dialect::rfc6749(), reply).await
}

async fn accepted(body: &str) -> TokenSet {
    refresh(json(body)).await.unwrap_or_else(|error| panic!("{body}: {error}"))
}

async fn lifetime(body: &str) -> Option<Duration> {
    accepted(body).await.lifetime_at(UNIX_EPOCH)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn jwt(claims: &str) -> String {
    let encode = |part: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(part);
    format!("{}.{}.c2ln", encode(r#"{"alg":"none"}"#), encode(claims))
}

// ===== Lifetimes =====

#[tokio::test]
async fn expires_in_may_be_a_string_or_a_fraction() {
    for (value, expected) in [
        (r#""3600""#, seconds(3600)),
        ("3599.5", Duration::from_millis(3_599_500)),
        (r#""3600.0""#, seconds(3600)),
    ] {
        let body = format!(r#"{{"access_token":"a","expires_in":{value}}}"#);
        assert_eq!(lifetime(&body).await, Some(expected), "{value}");
    }
}

#[tokio::test]
async fn missing_expires_in_falls_back_to_dialect_then_jwt_exp() {
    let token = jwt(&format!(r#"{{"exp":{}}}"#, START + 900));
    for field in [r#","expires_in":null"#, r#","expires_in":"""#, ""] {
        let body = format!(r#"{{"access_token":"{token}"{field}}}"#);
        let mut dialect = Dialect::rfc6749();
        dialect.default_lifetime = Some(seconds(77));
        let tokens = refresh_in(dialect, json(&body)).await.unwrap();
        assert_eq!(tokens.lifetime_at(UNIX_EPOCH), Some(seconds(77)), "{field}");

        // By the server's clock, which is ten seconds ahead here.
        let date = [("date", "Tue, 01 Nov 2022 13:13:53 GMT")];
        let tokens = refresh(answer_with(200, &date, &body)).await.unwrap();
        assert_eq!(tokens.lifetime_at(UNIX_EPOCH), Some(seconds(890)));

        // By the local clock, if the response has no `Date`.
        let tokens = refresh(json(&body)).await.unwrap();
        let now = UNIX_EPOCH + seconds(START);
        assert_eq!(tokens.lifetime_at(now), Some(seconds(900)));

        let body = format!(r#"{{"access_token":"opaque"{field}}}"#);
        assert_eq!(lifetime(&body).await, None);
    }
}

#[tokio::test]
async fn an_exp_before_the_time_of_receipt_is_ignored() {
    for exp in ["1", "-5", "1667308", &(START - 1).to_string(), "null", "\"\""] {
        let token = jwt(&format!(r#"{{"exp":{exp}}}"#));
        let body = format!(r#"{{"access_token":"{token}"}}"#);
        assert_eq!(lifetime(&body).await, None, "{exp}");
    }
    // A JWE has five parts, and is opaque.
    assert_eq!(lifetime(r#"{"access_token":"a.b.c.d.e"}"#).await, None);
}

#[tokio::test]
async fn absurd_lifetimes_neither_overflow_nor_lose_the_answer() {
    for value in ["99999999999", "1e400", "18446744073709551616", "\"1e400\""] {
        let body = format!(r#"{{"access_token":"a","refresh_token":"r","expires_in":{value}}}"#);
        let tokens = accepted(&body).await;
        assert!(tokens.lifetime_at(UNIX_EPOCH).unwrap() > seconds(10 * 365 * 86_400));
        assert_eq!(tokens.refresh_token().unwrap().expose_secret(), "r", "{value}");
    }
}

/// Faults A40, A41.
#[tokio::test]
async fn zero_and_zero_times_mean_that_the_expiry_is_unknown() {
    for value in [
        "0",
        "-1",
        "\"0\"",
        "-1e400",
        "\"0001-01-01T00:00:00Z\"",
        "\"0001-01-01T00:00:00\"",
        "\"1970-01-01T00:00:00.000+0000\"",
    ] {
        for name in ["expires_in", "expires", "expiry", "expires_at", "expires_in_ms"] {
            let body = format!(r#"{{"access_token":"a","{name}":{value}}}"#);
            assert_eq!(lifetime(&body).await, None, "{body}");
            // Another field with a time counts.
            let body =
                format!(r#"{{"access_token":"a","{name}":{value},"expires_on":4102444800}}"#);
            assert!(lifetime(&body).await.is_some(), "{body}");
            let mut dialect = Dialect::rfc6749();
            dialect.default_lifetime = Some(seconds(77));
            let body = format!(r#"{{"access_token":"a","{name}":{value}}}"#);
            let tokens = refresh_in(dialect, json(&body)).await.unwrap();
            assert_eq!(tokens.lifetime_at(UNIX_EPOCH), Some(seconds(77)), "{body}");
        }
        for name in ["refresh_token_expires_in", "refresh_expires_in", "refreshTokenExpiresAt"] {
            let body = format!(r#"{{"access_token":"a","refresh_token":"r","{name}":{value}}}"#);
            for dialect in [Dialect::rfc6749(), Dialect::camel_case()] {
                let tokens = refresh_in(dialect, json(&body)).await.unwrap();
                assert_eq!(tokens.refresh_token_expires_at(), None, "{body}");
            }
        }
        let claims = format!(r#"{{"exp":{value}}}"#);
        let body = format!(r#"{{"access_token":"{}"}}"#, jwt(&claims));
        assert_eq!(lifetime(&body).await, None, "{claims}");
    }
}

/// Fault S17.
#[tokio::test]
async fn token_that_is_over_on_arrival_is_handed_on_as_over() {
    for body in [
        r#"{"access_token":"a","expires_at":1667308000}"#,
        r#"{"access_token":"a","expires_at":"2022-11-01T13:00:00Z"}"#,
        r#"{"access_token":"a","expires_in":"1980-01-01T00:00:00Z"}"#,
    ] {
        let date = [("date", START_DATE)];
        let now = UNIX_EPOCH + seconds(START);
        for reply in [answer_with(200, &date, body), json(body)] {
            let tokens = refresh(reply).await.unwrap();
            assert_eq!(tokens.lifetime_at(now), Some(Duration::ZERO), "{body}");
        }
    }
}

/// Fault N7.
#[tokio::test]
async fn lifetime_in_milliseconds_is_found_by_its_usual_names() {
    for name in [
        "expires_in_ms",
        "expiresInMs",
        "ExpiresInMS",
        "expires-in-ms",
        "expires_in_millis",
        "expiresInMillis",
        "expiresInMilliseconds",
    ] {
        for value in ["900000", "\"900000\"", "900000.0"] {
            let body = format!(r#"{{"access_token":"a","{name}":{value}}}"#);
            assert_eq!(lifetime(&body).await, Some(seconds(900)), "{body}");
        }
    }
    let body = r#"{"access_token":"a","refresh_token":"r","refreshTokenExpiresInMs":60000}"#;
    let at = UNIX_EPOCH + seconds(START + 60);
    assert_eq!(accepted(body).await.refresh_token_expires_at(), Some(at));
}

/// Fault N7.
#[tokio::test]
async fn dialect_sets_the_unit_of_lifetimes() {
    for (unit, number) in [("milliseconds", 900_000), ("seconds", 900), ("minutes", 15)] {
        let dialect = format!(r#"{{"fields": {{"lifetime_unit": "{unit}"}}}}"#);
        let dialect: Dialect = serde_json::from_str(&dialect).unwrap();
        dialect.validate().unwrap();
        let body = format!(r#"{{"access_token":"a","expires_in":{number}}}"#);
        let tokens = refresh_in(dialect, json(&body)).await.unwrap();
        assert_eq!(tokens.lifetime_at(UNIX_EPOCH), Some(seconds(900)), "{unit}");
    }

    // A unit in the name counts. Names that merely end in the same letters are in seconds.
    for (pointer, expected) in [
        ("/ttlMs", 1),
        ("/ttl_ms", 1),
        ("/terms", 1000),
        ("/params", 1000),
        ("/ttl_minutes", 60_000),
        ("/ttlMins", 60_000),
        ("/admins", 1000),
    ] {
        let mut dialect = Dialect::rfc6749();
        dialect.fields.expires_in = vec![pointer.into()];
        let body = format!(r#"{{"access_token":"a","{}":1000}}"#, &pointer[1..]);
        let tokens = refresh_in(dialect, json(&body)).await.unwrap();
        assert_eq!(tokens.lifetime_at(UNIX_EPOCH), Some(seconds(expected)), "{pointer}");
    }
}

/// Fault N7.
#[cfg(feature = "tracing")]
#[tokio::test]
async fn lifetime_above_a_year_is_a_warning_that_names_the_field() {
    let warnings = Log::start(tracing::Level::WARN);
    for (field, is_warned) in [
        (r#""expires_in":99999999999"#, true),
        (r#""expires_in":1e400"#, true),
        (r#""ExpiresIn":86400000"#, true),
        (r#""expires_at":"2099-12-31T23:59:59Z""#, true),
        (r#""expires_in":31536000"#, false),
        (r#""expires_in":3600"#, false),
    ] {
        accepted(&format!(r#"{{"access_token":"sesame","refresh_token":"r",{field}}}"#)).await;
        let warned = warnings.take();
        let warned: Vec<_> = warned.lines().collect();
        assert_eq!(warned.len(), usize::from(is_warned), "{field}: {warned:?}");
        let name = field.split('"').nth(1).unwrap();
        assert!(warned.iter().all(|line| line.contains(name)), "{field}: {warned:?}");
        assert!(!warned.concat().contains("sesame"));
    }
}

#[tokio::test]
async fn absolute_expiry_is_understood_under_the_usual_names() {
    for field in [
        r#""expires_at":1667310223"#,
        r#""expires":1667310223000"#,
        r#""expires_on":"1667310223""#,
        r#""expiresAt":"2022-11-01T13:43:43Z""#,
        r#""expires_at":"2022-11-01T13:43:43.000000000000Z""#,
        r#""expires_at":"2022-11-01T14:43:43.0+01:00""#,
    ] {
        let body = format!(r#"{{"access_token":"a",{field}}}"#);
        let date = [("date", START_DATE)];
        let tokens = refresh(answer_with(200, &date, &body)).await.unwrap();
        assert_eq!(tokens.lifetime_at(UNIX_EPOCH), Some(seconds(1800)), "{field}");
    }
    assert_eq!(lifetime(r#"{"access_token":"a","expires":3600}"#).await, Some(seconds(3600)));
}

// ===== Form of the answer =====

#[tokio::test]
async fn bearer_is_understood_in_any_spelling() {
    for token_type in [
        r#","token_type":"bearer""#,
        r#","token_type":"BEARER""#,
        r#","token_type":"BearerToken""#,
        r#","token_type":null"#,
        "",
    ] {
        let tokens = accepted(&format!(r#"{{"access_token":"a"{token_type}}}"#)).await;
        assert_eq!(tokens.access_token().expose_secret(), "a");
    }
}

#[tokio::test]
async fn token_type_that_needs_a_proof_is_an_error_that_names_it() {
    for token_type in ["mac", "MAC", "DPoP", "pop", "PoP", "hmac-sha-256", "hok", "http-signature"]
    {
        let body = format!(r#"{{"access_token":"a","token_type":"{token_type}"}}"#);
        let error = refresh(json(&body)).await.unwrap_err();
        assert!(error.is_misconfigured());
        assert!(error.to_string().contains(&format!("`{token_type}`")), "{error}");
        assert!(error.to_string().contains("`fields.token_type`"), "{error}");

        // The remedy that the error names works.
        let mut dialect = Dialect::rfc6749();
        dialect.fields.token_type.clear();
        assert!(refresh_in(dialect, json(&body)).await.is_ok());
    }
}

#[cfg(feature = "tracing")]
#[tokio::test]
async fn other_token_type_is_used_as_bearer_with_a_warning() {
    let warnings = Log::start(tracing::Level::WARN);
    for token_type in ["N_A", "bot", "user", "JWT", "machine"] {
        let body = format!(r#"{{"access_token":"sesame","token_type":"{token_type}"}}"#);
        assert_eq!(accepted(&body).await.access_token().expose_secret(), "sesame");
        let warned = warnings.take();
        let warned: Vec<_> = warned.lines().collect();
        assert_eq!(warned.len(), 1, "{token_type}: {warned:?}");
        assert!(warned[0].contains(token_type) && !warned[0].contains("sesame"), "{warned:?}");
    }
}

#[tokio::test]
async fn access_token_with_its_scheme_is_an_error_that_names_it() {
    for token in ["Bearer sesame", "bearer sesame", "DPoP sesame", "token sesame", " Bearer sesame"]
    {
        let body = format!(r#"{{"access_token":"{token}","refresh_token":"r"}}"#);
        let error = refresh(json(&body)).await.unwrap_err();
        assert!(error.to_string().contains("begins with its scheme"), "{error}");
        assert!(!format!("{error} {error:?}").contains("sesame"), "{error}");
    }
}

#[tokio::test]
async fn response_is_parsed_by_content_and_not_by_content_type() {
    let json = r#"{"access_token":"a","refresh_token":"r","expires_in":60}"#;
    let form = "access_token=a&refresh_token=r&expires_in=60";
    for (status, content_type, body) in [
        (200, "application/x-www-form-urlencoded", form),
        (200, "text/plain; charset=utf-8", form),
        (200, "text/html", json),
        (200, "text/plain", json),
        (201, "application/json", json),
        (200, "application/json", &format!("\u{feff}{json}")),
    ] {
        let reply = answer_with(status, &[("content-type", content_type)], body);
        let tokens = refresh(reply).await.unwrap();
        assert_eq!(tokens.access_token().expose_secret(), "a");
        assert_eq!(tokens.refresh_token().unwrap().expose_secret(), "r");
        assert_eq!(tokens.lifetime_at(UNIX_EPOCH), Some(seconds(60)));
    }
}

/// Fault N2.
#[tokio::test]
async fn any_spelling_of_the_usual_names_is_read() {
    let at = UNIX_EPOCH + seconds(START);
    for names in [
        ["access_token", "refresh_token", "expires_in", "id_token", "scope"],
        ["accessToken", "refreshToken", "expiresIn", "idToken", "scope"],
        ["AccessToken", "RefreshToken", "ExpiresIn", "IdToken", "Scope"],
        ["access-token", "refresh-token", "expires-in", "id-token", "scope"],
        ["ACCESS_TOKEN", "REFRESH_TOKEN", "EXPIRES_IN", "ID_TOKEN", "SCOPE"],
        ["access.token", "refresh token", "Expires", "ID-Token", "_scope"],
    ] {
        let [access, refresh, expires, id, scope] = names;
        let body = format!(
            r#"{{"{access}":"a","{refresh}":"next","{expires}":60,"{id}":"i","{scope}":"s"}}"#
        );
        let mut enveloped = Dialect::rfc6749();
        enveloped.root = "/data".into();
        for (dialect, body) in [
            (Dialect::rfc6749(), body.clone()),
            (Dialect::json_body(), body.clone()),
            (enveloped, format!(r#"{{"data":{body}}}"#)),
        ] {
            let tokens = refresh_in(dialect, json(&body)).await.unwrap();
            assert_eq!(tokens.access_token().expose_secret(), "a", "{body}");
            assert_eq!(tokens.refresh_token().unwrap().expose_secret(), "next", "{body}");
            assert_eq!(tokens.id_token(), Some("i"), "{body}");
            assert_eq!(tokens.scope(), Some("s"), "{body}");
            assert_eq!(tokens.lifetime_at(at), Some(seconds(60)), "{body}");
        }
        let tokens = refresh_in(Dialect::camel_case(), json(&body)).await.unwrap();
        assert_eq!(tokens.refresh_token().unwrap().expose_secret(), "next", "{body}");
    }
    let error = refresh(json(r#"{"access_token":"a","tokenType":"mac"}"#)).await.unwrap_err();
    assert!(error.is_misconfigured());
    // A repeated name counts with its last usable value.
    let body =
        r#"{"access_token":"a","refresh_token":"x","refresh_token":"r","refresh_token":null}"#;
    assert_eq!(accepted(body).await.refresh_token().unwrap().expose_secret(), "r");
    let error = refresh(answer(400, r#"{"Error":"invalid_grant"}"#)).await.unwrap_err();
    assert!(error.is_denied());
}

/// Fault N2.
#[cfg(feature = "tracing")]
#[tokio::test]
async fn name_that_is_almost_a_usual_one_and_not_read_is_a_warning() {
    let warnings = Log::start(tracing::Level::WARN);
    let mut dialect = Dialect::rfc6749();
    dialect.fields.refresh_token = vec!["/rt".into()];
    for (fields, warned_of) in [
        (r#""refreshToken":"sesame""#, Some("refreshToken")),
        (r#""refresh_token":"sesame""#, Some("refresh_token")),
        (r#""rt":"r","Refresh-Token":"sesame""#, Some("Refresh-Token")),
        (r#""rt":"sesame","refreshToken":"sesame""#, None),
        (r#""rt":"r","refreshToken":null"#, None),
        (r#""rt":"r","AccessToken":"sesame""#, Some("AccessToken")),
        (r#""rt":"r","refreshing":"sesame""#, None),
        (r#""rt":"r","expiresIn":60,"Token-Type":"bearer""#, None),
    ] {
        let body = format!(r#"{{"access_token":"a",{fields}}}"#);
        refresh_in(dialect.clone(), json(&body)).await.unwrap();
        let warned = warnings.take();
        let warned: Vec<_> = warned.lines().collect();
        assert_eq!(warned.len(), usize::from(warned_of.is_some()), "{fields}: {warned:?}");
        assert!(warned.iter().all(|line| line.contains(warned_of.unwrap())), "{warned:?}");
        assert!(!warned.concat().contains("sesame"), "{warned:?}");
    }
}

/// Faults A50 to A57. The successor is sent next.
#[tokio::test]
async fn flaw_outside_of_the_tokens_does_not_lose_the_successor() {
    let plain = r#"{"access_token":"a-second","refresh_token":"r-second","quota":1}"#;
    let utf_16 = |unit: fn(u16) -> [u8; 2]| -> Vec<u8> {
        std::iter::once(0xfeff).chain(plain.encode_utf16()).flat_map(unit).collect()
    };
    for body in [
        plain.replace('1', "Infinity").into_bytes(),
        plain.replace('1', "0042").into_bytes(),
        plain.replace('1', r#""it\'s""#).into_bytes(),
        plain.replace('}', ",}").into_bytes(),
        format!("Notice: Undefined index in /x.php on line 3 {plain}").into_bytes(),
        format!(")]}}',\n{plain}").into_bytes(),
        format!("callback({plain});").into_bytes(),
        serde_json::to_string(plain).unwrap().into_bytes(),
        utf_16(u16::to_le_bytes),
        utf_16(u16::to_be_bytes),
    ] {
        let (endpoint, log) =
            endpoint([answer(200, body.clone()), json(r#"{"access_token":"a"}"#)]);
        let grant = RefreshTokenGrant::new(endpoint, REFRESH_TOKEN);
        let tokens = grant.fetch(missing()).await;
        let shown = String::from_utf8_lossy(&body);
        let tokens = tokens.unwrap_or_else(|error| panic!("{shown}: {error}"));
        grant.fetch(missing().with_previous(tokens)).await.unwrap();
        assert!(log.bodies()[1].contains("refresh_token=r-second"), "{shown}");
    }
}

/// Faults A50 to A59.
#[tokio::test]
async fn refresh_token_that_is_a_number_is_kept_digit_for_digit() {
    for number in ["12345678901234567890123", "-9223372036854775809", "7"] {
        let tokens = accepted(&format!(r#"{{"access_token":"a","refresh_token":{number}}}"#)).await;
        assert_eq!(tokens.refresh_token().unwrap().expose_secret(), number);
        let tokens = accepted(&format!(r#"{{"access_token":{number}}}"#)).await;
        assert_eq!(tokens.access_token().expose_secret(), number);
    }
}

#[tokio::test]
async fn other_names_and_envelopes_are_a_matter_of_the_dialect() {
    let dialect: Dialect = serde_json::from_str(
        r#"{"root": "/data", "fields": {"access_token": "/accessToken", "refresh_token": ["/none", "/refreshToken"]}}"#,
    )
    .unwrap();
    let body = r#"{"data":{"accessToken":"a","refreshToken":"r","expires_in":60}}"#;
    let tokens = refresh_in(dialect.clone(), json(body)).await.unwrap();
    assert_eq!(tokens.access_token().expose_secret(), "a");
    assert_eq!(tokens.refresh_token().unwrap().expose_secret(), "r");
    assert_eq!(tokens.lifetime_at(UNIX_EPOCH), Some(seconds(60)));

    // Errors often lack the envelope.
    let error = refresh_in(dialect, answer(400, r#"{"error":"invalid_grant"}"#)).await;
    assert!(error.unwrap_err().is_denied());

    let dialect: Dialect =
        serde_json::from_str(r#"{"fields": {"access_token": "/token/access_token"}}"#).unwrap();
    let tokens = refresh_in(dialect, json(r#"{"token":{"access_token":"a"}}"#)).await;
    assert_eq!(tokens.unwrap().access_token().expose_secret(), "a");
}

#[tokio::test]
async fn scope_is_a_string_or_an_array_or_else_the_previous_one() {
    let previous = TokenSet::bearer("a").unwrap().with_refresh_token("r").with_scope("before");
    for (scope, expected) in [
        (r#","scope":"one two""#, "one two"),
        (r#","scope":["one","two"]"#, "one two"),
        (r#","scope":null"#, "before"),
        (r#","scope":"""#, "before"),
        ("", "before"),
    ] {
        let (endpoint, _) = endpoint([json(&format!(r#"{{"access_token":"a"{scope}}}"#))]);
        let grant = RefreshTokenGrant::new(endpoint, REFRESH_TOKEN);
        let tokens = grant.fetch(missing().with_previous(previous.clone())).await;
        assert_eq!(tokens.unwrap().scope(), Some(expected), "{scope}");
    }
}

#[tokio::test]
async fn without_a_new_refresh_token_the_old_one_is_kept() {
    for field in [
        r#","refresh_token":"""#,
        r#","refresh_token":null"#,
        r#","refresh_token":None"#,
        r#","refresh_token":"undefined""#,
        r#","refresh_token":false"#,
        r#","refresh_token":0"#,
        r#","refresh_token":1.2e22"#,
        "",
    ] {
        let tokens = accepted(&format!(r#"{{"access_token":"a"{field}}}"#)).await;
        assert_eq!(tokens.refresh_token().unwrap().expose_secret(), REFRESH_TOKEN);
    }
}

#[tokio::test]
async fn a_200_without_a_token_is_an_error_and_never_bearer_undefined() {
    for body in [
        r#"{"error":"invalid_grant"}"#,
        r#"{"ok":false}"#,
        r#"{"ok":false,"access_token":"a"}"#,
        r#"{"error":"invalid_request","access_token":"a"}"#,
        "<!doctype html><title>Log in</title>",
        "",
        "undefined",
        "null",
        "{}",
        r#"{"access_token":""}"#,
        r#"{"access_token":null}"#,
        r#"{"access_token":"undefined"}"#,
        r#"{"access_token":{"a":"b"}}"#,
        r#"{"access_token":"a b"}"#,
        r#"{"access_token":"a\n"}"#,
        r#"{"access_token":"é"}"#,
        r#"{"access_token":"a""#,
        r#"Notice: x {"access_token":"a""#,
        r#"{"data":{"access_token":"a"}"#,
        r#"<html><script>state={"access_token":"a"}</script></html>"#,
    ] {
        let error = refresh(json(body)).await.unwrap_err();
        assert!(error.is_ambiguous(), "{body}: {error}");
        let code = body.split('"').find(|word| word.starts_with("invalid_"));
        assert_eq!(error.code(), code, "{body}");
        let (endpoint, _) = endpoint([json(body)]);
        let error = ClientCredentialsGrant::new(endpoint).fetch(missing()).await;
        assert!(error.unwrap_err().is_transient(), "{body}");
    }
}

#[tokio::test]
async fn server_that_refuses_with_status_200_can_be_configured() {
    let dialect: Dialect =
        serde_json::from_str(r#"{"errors_with_200": true, "denied": ["bad_refresh_token"]}"#)
            .unwrap();
    let error = refresh_in(dialect, json(r#"{"error":"bad_refresh_token"}"#)).await.unwrap_err();
    assert!(error.is_denied());
    assert_eq!(error.code(), Some("bad_refresh_token"));
}

// ===== Errors =====

#[tokio::test]
async fn an_error_is_found_wherever_it_is_and_classified_by_its_code() {
    for (status, body, expected, code) in [
        (400, r#"{"error":"invalid_grant"}"#, "denied", "invalid_grant"),
        (401, r#"{"error":"invalid_grant"}"#, "denied", "invalid_grant"),
        (403, r#"{"error":{"code":"invalid_grant"}}"#, "denied", "invalid_grant"),
        (404, r#"{"error":{"error":"invalid_grant"}}"#, "denied", "invalid_grant"),
        (400, r#"{"errors":[{"code":"invalid_grant"}]}"#, "denied", "invalid_grant"),
        (400, r#"{"errors":[{"errorType":"invalid_grant"}]}"#, "denied", "invalid_grant"),
        (400, r#"{"error_code":"invalid_grant"}"#, "denied", "invalid_grant"),
        (400, r#"{"error":"Bad","error_code":"invalid_grant"}"#, "denied", "invalid_grant"),
        (400, "error=invalid_grant&x=y", "denied", "invalid_grant"),
        (400, r#"{"error":"interaction_required"}"#, "denied", "interaction_required"),
        (400, r#"{"error":"login_required"}"#, "denied", "login_required"),
        (400, r#"{"error":"consent_required"}"#, "denied", "consent_required"),
        (401, r#"{"error":"invalid_client"}"#, "misconfigured", "invalid_client"),
        (400, r#"{"error":"unauthorized_client"}"#, "misconfigured", "unauthorized_client"),
        (400, r#"{"error":"unsupported_grant_type"}"#, "misconfigured", "unsupported_grant_type"),
        (400, r#"{"error":"invalid_scope"}"#, "misconfigured", "invalid_scope"),
        (400, r#"{"error":"invalid_target"}"#, "misconfigured", "invalid_target"),
        (400, r#"{"error":"invalid_request"}"#, "misconfigured", "invalid_request"),
        (400, r#"{"error":"never_heard_of"}"#, "misconfigured", "never_heard_of"),
        (400, r#"{"error":{"code":4001}}"#, "misconfigured", "4001"),
        (403, r#"{"error":"access_denied"}"#, "misconfigured", "access_denied"),
        (400, r#"{"error":"temporarily_unavailable"}"#, "transient", "temporarily_unavailable"),
        (400, r#"{"error":"slow_down"}"#, "transient", "slow_down"),
        (500, r#"{"error":"invalid_grant"}"#, "ambiguous", "invalid_grant"),
        (502, r#"{"error":"server_error"}"#, "ambiguous", "server_error"),
        (200, r#"{"error":"invalid_grant"}"#, "ambiguous", "invalid_grant"),
        (503, r#"{"error":"invalid_grant"}"#, "transient", "invalid_grant"),
    ] {
        let error = refresh(answer(status, body)).await.unwrap_err();
        assert_eq!(kind(&error), expected, "{status} {body}");
        assert_eq!(error.code(), Some(code), "{status} {body}");
    }
}

#[tokio::test]
async fn dialect_adds_error_codes_of_its_own() {
    for status in [400, 403] {
        let body = r#"{"error":"access_denied","error_description":"Invalid username / password combination"}"#;
        let error = refresh_in(Dialect::json_body(), answer(status, body)).await.unwrap_err();
        assert!(error.is_denied());
        assert_eq!(error.code(), Some("access_denied"));
        assert_eq!(error.description(), Some("Invalid username / password combination"));
    }
}

#[tokio::test]
async fn status_429_and_503_are_transient_and_honour_retry_after() {
    for status in [429, 503] {
        let error = refresh(answer(status, r#"{"error":"slow_down"}"#)).await.unwrap_err();
        assert!(error.is_transient(), "{status}");
        assert_eq!(error.retry_after(), None);
        for (headers, expected) in [
            (&[("retry-after", "7")][..], Some(seconds(7))),
            (&[("retry-after", "0")], Some(Duration::ZERO)),
            (&[("retry-after", "1.5")], Some(Duration::from_millis(1500))),
            (&[("retry-after", "0007")], Some(seconds(7))),
            (&[("retry-after", "Tuesday, 01-Nov-22 13:14:43 GMT")], Some(seconds(60))),
            // By the clock of the server, not the local one.
            (
                &[
                    ("retry-after", "Thu, 01 Jan 1970 00:01:40 GMT"),
                    ("date", "Thu, 01 Jan 1970 00:01:10 GMT"),
                ],
                Some(seconds(30)),
            ),
            (&[("retry-after", "Tue, 01 Nov 2022 13:14:43 GMT")], Some(seconds(60))),
            (&[("retry-after", "Mon, 01 Nov 2021 13:14:43 GMT")], Some(Duration::ZERO)),
            (&[("retry-after", "soon")], None),
            (&[("retry-after", "")], None),
            (&[("retry-after", "1.2.3")], None),
            (&[("retry-after", "1e3")], None),
            (&[("retry-after", "-1")], None),
        ] {
            let error = refresh(answer_with(status, headers, "")).await.unwrap_err();
            assert_eq!(error.retry_after(), expected, "{headers:?}");
        }
        let headers = [("retry-after", "99999999999999999999999")];
        let error = refresh(answer_with(status, &headers, "")).await.unwrap_err();
        let century = seconds(100 * 365 * 86_400);
        assert_eq!(error.retry_after(), Some(century));
    }
}

#[tokio::test]
async fn unreadable_response_is_ambiguous_only_if_tokens_rotate() {
    let html = "<html>invalid_grant</html>";
    let replies = || {
        let mut replies: Vec<(String, Reply)> = Vec::new();
        for status in [200, 400, 401, 403, 404, 500, 502, 504] {
            replies.push((format!("{status} with HTML"), answer(status, html)));
            replies.push((format!("{status} with nothing"), answer(status, "")));
        }
        replies.push(("418 with other JSON".into(), answer(418, r#"{"message":"no"}"#)));
        replies.push(("cut body".into(), Reply::Cut(response(200, r#"{"access_token":"a""#))));
        replies.push(("reset".into(), reset()));
        replies
    };
    for (name, reply) in replies() {
        let error = refresh(reply).await.unwrap_err();
        assert!(error.is_ambiguous(), "{name}: {error}");
    }
    for (name, reply) in replies() {
        let mut dialect = Dialect::rfc6749();
        dialect.rotates = false;
        let error = refresh_in(dialect, reply).await.unwrap_err();
        assert!(error.is_transient(), "{name}: {error}");
    }
    for (name, reply) in replies() {
        let (endpoint, _) = endpoint([reply]);
        let error = ClientCredentialsGrant::new(endpoint).fetch(missing()).await.unwrap_err();
        assert!(error.is_transient(), "{name}: {error}");
    }
}

#[tokio::test]
async fn what_was_not_sent_is_transient() {
    let error = refresh(refused()).await.unwrap_err();
    assert!(error.is_transient(), "{error}");

    let (endpoint, _) = endpoint([Reply::Fail("no such host".into())]);
    let endpoint = endpoint.is_unsent(|error| error.to_string() == "no such host");
    assert!(fetch(endpoint).await.unwrap_err().is_transient());
}

#[tokio::test]
async fn a_client_that_never_becomes_ready_was_not_sent_anything() {
    #[derive(Clone)]
    struct NotReady;

    impl tower::Service<http::Request<http_body_util::Full<bytes::Bytes>>> for NotReady {
        type Response = http::Response<scripted::TestBody>;
        type Error = tower::BoxError;
        type Future = std::future::Pending<Result<Self::Response, Self::Error>>;

        fn poll_ready(
            &mut self,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), Self::Error>> {
            std::task::Poll::Ready(Err("pool closed".into()))
        }

        fn call(&mut self, _: http::Request<http_body_util::Full<bytes::Bytes>>) -> Self::Future {
            panic!("called without being ready");
        }
    }

    let endpoint = TokenEndpoint::new(NotReady, scripted::URL).unwrap();
    let error = fetch(endpoint).await.unwrap_err();
    assert!(error.is_transient());
    assert!(error.to_string().contains("pool closed"), "{error}");
}

#[tokio::test]
async fn a_redirect_is_misconfigured_and_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let (endpoint, log) = endpoint([
            answer_with(status, &[("location", "https://elsewhere.example/")], ""),
            json(r#"{"access_token":"a"}"#),
        ]);
        let error = fetch(endpoint).await.unwrap_err();
        assert!(error.is_misconfigured(), "{status}");
        assert_eq!(log.len(), 1);
    }
}

// ===== Limits =====

#[tokio::test]
async fn response_is_cut_at_the_size_limit() {
    let body = format!(r#"{{"access_token":"a","x":"{}"}}"#, "x".repeat(300 * 1024));
    let error = refresh(json(&body)).await.unwrap_err();
    assert!(error.is_ambiguous());
    assert!(error.to_string().contains("answer_limit"), "{error}");

    let (endpoint, _) = endpoint([json(&body)]);
    assert!(fetch(endpoint.answer_limit(1 << 20)).await.is_ok());

    // `Retry-After` counts without the body.
    let error = refresh(answer_with(503, &[("retry-after", "7")], &body)).await.unwrap_err();
    assert!(error.is_transient());
}

#[tokio::test(start_paused = true)]
async fn response_that_never_ends_is_abandoned_at_the_timeout() {
    for reply in [Reply::Hang, Reply::Drip(response(200, r#"{"access_"#))] {
        let (endpoint, _) = endpoint([reply]);
        let start = tokio::time::sleep(Duration::ZERO).deadline();
        let error = fetch(endpoint).await.unwrap_err();
        assert!(error.is_ambiguous());
        assert!(error.to_string().contains("120s"), "{error}");
        let took = tokio::time::sleep(Duration::ZERO).deadline() - start;
        assert!(took >= seconds(120) && took < seconds(121), "{took:?}");
    }
    let mut busy = response(429, "");
    busy.headers_mut().insert("retry-after", "7".parse().unwrap());
    let (endpoint, _) = endpoint([Reply::Drip(busy)]);
    assert!(fetch(endpoint).await.unwrap_err().is_transient());

    let slow = ClientAuth::custom(std::future::pending);
    let (endpoint, log) = endpoint_once();
    let error = fetch(endpoint.client_auth(slow).timeout(seconds(5))).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(log.len(), 0);
}

/// The response could not be awaited, so that the only copy of the next refresh token would be lost.
#[tokio::test(start_paused = true)]
async fn request_that_is_prepared_when_its_time_is_over_is_not_sent() {
    for took in [seconds(5), Duration::from_millis(4999)] {
        let slow = ClientAuth::custom(move || async move {
            tokio::time::sleep(took).await;
            Ok(AuthParams::new())
        });
        let (endpoint, log) = endpoint_once();
        let outcome = fetch(endpoint.client_auth(slow).timeout(seconds(5))).await;
        let is_sent = took < seconds(5);
        assert_eq!((log.len(), outcome.is_ok()), (usize::from(is_sent), is_sent), "{took:?}");
        assert!(outcome.err().is_none_or(|error| error.is_transient()), "{took:?}");
    }
}

fn endpoint_once() -> (TokenEndpoint, scripted::Log) {
    endpoint([json(r#"{"access_token":"a"}"#)])
}

// ===== Secrets =====

#[tokio::test]
async fn nothing_that_was_sent_comes_back_in_an_error() {
    let secret = "cl1ent:secret/with%odd&chars";
    let encode =
        |text: &str| -> String { form_urlencoded::byte_serialize(text.as_bytes()).collect() };
    let base64 = |text: String| base64::engine::general_purpose::STANDARD.encode(text);
    let echo = [
        REFRESH_TOKEN.to_owned(),
        secret.to_owned(),
        encode(secret),
        encode(secret).to_lowercase(),
        base64(format!("me:{}", encode(secret))),
        format!("refresh_token={REFRESH_TOKEN}&x=y"),
    ];
    for quoted in &echo {
        let body =
            serde_json::json!({"error": quoted, "error_description": format!("bad \u{7}{quoted}")});
        let body = body.to_string();
        for (status, auth) in [400, 502, 200].into_iter().flat_map(|status| {
            [(status, ClientAuth::basic("me", secret)), (status, ClientAuth::post("me", secret))]
        }) {
            let (endpoint, _) = endpoint([answer(status, body.clone())]);
            let grant = RefreshTokenGrant::new(endpoint.client_auth(auth), REFRESH_TOKEN);
            let error = grant.fetch(missing()).await.unwrap_err();
            let shown = format!("{grant:?} {error} {error:?} {:?}", error.get_ref());
            for secret in [&echo[0], &echo[1], &echo[2], &echo[3]] {
                assert!(!shown.contains(secret.as_str()), "{quoted}: {shown}");
            }
        }
        let fail = Reply::Fail(
            format!("cannot send {quoted} to (https://u:p@as.example.com/token?q={quoted})").into(),
        );
        let (endpoint, _) = endpoint([fail]);
        let endpoint = endpoint.client_auth(ClientAuth::post("me", secret));
        let error = fetch(endpoint).await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("https://as.example.com/token)"), "{shown}");
        assert!(!shown.contains("?q="), "{shown}");
        for secret in [&echo[0], &echo[1], &echo[2], &echo[3]] {
            assert!(!shown.contains(secret.as_str()), "{quoted}: {shown}");
        }
    }
}

#[tokio::test]
async fn descriptions_are_bounded_and_printable() {
    let body = serde_json::json!({"error": "invalid_grant", "error_description": "\u{1b}[31mé\"\\\u{0}x".repeat(1000)});
    let error = refresh(answer(400, body.to_string())).await.unwrap_err();
    let description = error.description().unwrap();
    assert!(description.len() <= 200);
    // RFC 6749 §5.2
    assert!(
        description.bytes().all(|byte| matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e))
    );
}

#[tokio::test]
async fn an_answer_of_an_invalid_dialect_is_never_asked_for() {
    let (endpoint, log) = endpoint_once();
    let mut dialect = Dialect::rfc6749();
    dialect.extra_headers.insert("host".into(), "elsewhere.example".into());
    let error = fetch(endpoint.dialect(dialect)).await.unwrap_err();
    assert!(error.is_misconfigured());
    assert!(error.to_string().contains("extra_headers.host"), "{error}");
    assert_eq!(log.len(), 0);
}

// ===== Any HTTP client =====

#[tokio::test]
async fn any_clonable_client_will_do_even_one_that_is_not_sync() {
    use tower::ServiceExt as _;

    fn is_shared<T: Send + Sync + Clone + std::fmt::Debug>(_: &T) {}

    let client = tower::service_fn(|_| async {
        let body = http_body_util::Full::new(&br#"{"access_token":"a"}"#[..]);
        Ok::<_, std::convert::Infallible>(http::Response::new(body))
    });
    let endpoint = TokenEndpoint::new(client.boxed_clone(), scripted::URL).unwrap();
    is_shared(&endpoint);
    let grant = RefreshTokenGrant::new(endpoint, REFRESH_TOKEN);
    is_shared(&grant);
    // In a task of its own, like a refresh.
    let tokens = tokio::spawn(async move { grant.fetch(missing()).await }).await;
    assert_eq!(tokens.unwrap().unwrap().access_token().expose_secret(), "a");
}

#[test]
fn without_a_runtime_there_is_an_error_and_no_panic() {
    let (endpoint, log) = endpoint_once();
    let mut fetch = tokio_test::task::spawn(fetch(endpoint));
    let error = tokio_test::assert_ready!(fetch.poll()).unwrap_err();
    assert!(error.is_misconfigured());
    assert_eq!(log.len(), 0);
}
