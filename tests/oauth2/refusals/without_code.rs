//! Refusals without an error code.

use super::{ENVOY, HEROKU, assert_contains, kind, refused, refused_as};
use crate::scripted::{Reply, answer, answer_with, response};
use tower_refresh::oauth2::ClientAuth;

/// A30
#[tokio::test]
async fn json_without_a_known_code_shows_message_and_field_name() {
    for body in [
        r#"{"status":"BAD_REFRESH_TOKEN","message":"missing or unknown refresh token"}"#,
        r#"{"reason":"BAD_REFRESH_TOKEN","message":"missing or unknown refresh token"}"#,
        r#"{"statusCode":400,"message":["missing or unknown refresh token"]}"#,
        r#"{"status":400,"error":{"message":"missing or unknown refresh token"}}"#,
        r#"{"title":"Bad Request","status":400,"detail":"missing or unknown refresh token"}"#,
    ] {
        for status in [400, 401, 403] {
            let error =
                refused("{}", answer_with(status, &[("content-type", "application/json")], body))
                    .await;
            assert!(error.is_ambiguous() || error.is_misconfigured(), "{status} {body}: {error}");
            assert_eq!(error.description(), Some("missing or unknown refresh token"), "{body}");
            assert_contains(&error, &["missing or unknown refresh token", "`fields.error`"]);
            assert!(!error.to_string().contains("proxy"), "{error}");
        }
    }
    let body = r#"{"reason":"BAD_REFRESH_TOKEN"}"#;
    let names = r#"{"fields": {"error": "/reason"}, "denied": ["BAD_REFRESH_TOKEN"]}"#;
    assert_eq!(kind(&refused(names, answer(400, body)).await), "denied");
}

/// A30
#[tokio::test]
async fn proxy_is_suspected_of_a_body_that_is_not_json() {
    for body in [HEROKU, ENVOY, "Forbidden", "Access denied. Reference=18.6d6e", "a = b"] {
        for status in [400, 403, 404, 500, 502] {
            let error = refused("{}", answer(status, body)).await;
            assert_eq!(kind(&error), "ambiguous", "{status} {body}");
            assert_contains(&error, &["proxy"]);
        }
    }
    for body in ["", "{}", r#"{"message":"no"}"#] {
        let error = refused("{}", answer(403, body)).await;
        assert!(!error.to_string().contains("proxy"), "{body}: {error}");
    }
}

/// A page may quote JSON in a script, and the parser searches for JSON.
#[tokio::test]
async fn html_page_is_never_taken_for_a_denial() {
    for page in [
        r#"<html><script>{"error":"invalid_grant"}</script>"#,
        "\u{feff}<!doctype html>{\"error\":\"invalid_grant\"}",
        "  \n<p>error=invalid_grant",
    ] {
        let names = r#"{"errors_with_200": true, "denied_statuses": [400, 401, 403]}"#;
        for status in [200, 400, 401, 403, 429, 500, 503] {
            assert_eq!(kind(&refused(names, answer(status, page)).await), "ambiguous", "{status}");
        }
        let utf16: Vec<u8> = page.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(kind(&refused(names, answer(400, utf16)).await), "ambiguous");
    }
}

/// A14b
#[tokio::test]
async fn refusal_without_a_body_is_denied_by_its_status_if_named() {
    for body in ["", " \r\n"] {
        for status in [400, 401, 403, 404] {
            let error =
                refused(r#"{"denied_statuses": [400, 401, 403, 404]}"#, answer(status, body));
            assert_eq!(kind(&error.await), "denied", "{status}");
            let error = refused(r#"{"denied_statuses": [410]}"#, answer(status, body)).await;
            assert_eq!(kind(&error), "ambiguous", "{status}");
            assert_contains(&error, &["`denied_statuses`", "empty"]);
        }
    }
    let names = r#"{"denied_statuses": [400]}"#;
    for body in [HEROKU, ENVOY, "{}", r#"{"message":"no"}"#] {
        assert_eq!(kind(&refused(names, answer(400, body)).await), "ambiguous", "{body}");
    }
    let cut = Reply::Cut(response(400, ""));
    assert_eq!(kind(&refused(names, cut).await), "ambiguous");
    let error = refused(names, answer(400, r#"{"error":"invalid_client"}"#)).await;
    assert_eq!(kind(&error), "misconfigured");
}

/// A33
#[tokio::test]
async fn basic_challenge_is_a_refusal_of_the_clients_credentials() {
    for challenge in
        ["Basic", "basic realm=\"as\"", "Bearer, Basic realm=\"as\", charset=\"UTF-8\""]
    {
        for body in ["", "<html>", r#"{"message":"Full authentication is required"}"#] {
            let reply = answer_with(401, &[("www-authenticate", challenge)], body);
            let error = refused("{}", reply).await;
            assert_eq!(kind(&error), "misconfigured", "{challenge} {body}");
            assert_contains(&error, &["client credentials", "`client_auth`"]);
        }
        for body in [
            r#"{"status":401,"error":"Unauthorized","path":"/oauth/token"}"#,
            r#"{"code":"AUTH-7","message":"Full authentication is required"}"#,
        ] {
            let reply = answer_with(401, &[("www-authenticate", challenge)], body);
            let error = refused("{}", reply).await;
            assert_eq!(kind(&error), "misconfigured", "{challenge} {body}");
            assert_contains(&error, &["client credentials", "`client_auth`", "`denied`"]);
            let reply = answer_with(401, &[("www-authenticate", challenge)], body);
            let names = r#"{"denied": ["Unauthorized", "AUTH-7"]}"#;
            assert_eq!(kind(&refused(names, reply).await), "denied", "{challenge} {body}");
        }
        let reply =
            answer_with(401, &[("www-authenticate", challenge)], r#"{"error":"invalid_grant"}"#);
        assert_eq!(kind(&refused("{}", reply).await), "denied");
    }
}

/// A33
#[tokio::test]
async fn refused_client_credentials_name_the_other_ways_to_send_them() {
    for (auth, hint) in [
        (ClientAuth::basic("id", "sesame"), "`ClientAuth::basic_unencoded`"),
        (ClientAuth::basic_unencoded("id", "sesame"), "`ClientAuth::basic`"),
        (ClientAuth::post("id", "sesame"), "`ClientAuth::basic`"),
        (ClientAuth::custom(|| async { Ok(Default::default()) }), "`ClientAuth::custom`"),
    ] {
        for body in ["", r#"{"error":"invalid_client"}"#] {
            let error = refused_as(auth.clone(), "{}", answer(401, body)).await;
            assert_eq!(kind(&error), "misconfigured", "{hint}");
            assert_contains(&error, &["client credentials were refused", hint]);
        }
        let error = refused_as(auth, "{}", answer(401, "<html>")).await;
        assert_eq!(kind(&error), "ambiguous", "{hint}");
    }
    // These do not authenticate, so that an empty response may concern the refresh token.
    for auth in [ClientAuth::default(), ClientAuth::public("id")] {
        let error = refused_as(auth.clone(), "{}", answer(401, "")).await;
        assert_eq!(kind(&error), "ambiguous", "{auth:?}");
        let error = refused_as(auth, "{}", answer(401, r#"{"error":"invalid_client"}"#)).await;
        assert_contains(&error, &["client credentials were refused", "`"]);
    }
}
