//! Error codes and descriptions.

use tower_refresh::oauth2::RefreshTokenGrant;
use tower_refresh::{Cause, Renewal, TokenSet, TokenSource as _};

use super::{assert_contains, dialect, kind, refused};
use crate::scripted::{answer, endpoint, json};

/// A31
#[tokio::test]
async fn standard_codes_have_their_meaning_by_default() {
    for (code, expected) in [
        ("expired_token", "denied"),
        ("account_selection_required", "denied"),
        ("interaction_required", "denied"),
        ("login_required", "denied"),
        ("consent_required", "denied"),
        ("temporarily_unavailable", "transient"),
        ("slow_down", "transient"),
        ("internal_failure", "transient"),
        ("authorization_pending", "transient"),
    ] {
        for status in [400, 401, 403] {
            let body = serde_json::json!({ "error": code }).to_string();
            let error = refused("{}", answer(status, body)).await;
            assert_eq!((kind(&error), error.code()), (expected, Some(code)), "{status} {code}");
        }
    }
}

#[tokio::test]
async fn error_is_found_inside_and_outside_of_the_root() {
    let root = r#"{"root": "/data"}"#;
    for body in [
        r#"{"error":"invalid_grant","error_description":"gone","data":null}"#,
        r#"{"error":"invalid_grant","error_description":"gone"}"#,
        r#"{"data":{"error":"invalid_grant","error_description":"gone"}}"#,
    ] {
        let error = refused(root, answer(400, body)).await;
        assert_eq!((kind(&error), error.code()), ("denied", Some("invalid_grant")), "{body}");
        assert_eq!(error.description(), Some("gone"), "{body}");
    }
}

/// A02
#[tokio::test]
async fn code_of_the_dialect_wins_over_a_standard_one() {
    let body = r#"{"error":"invalid_grant","error_description":"AADSTS50196: a loop","error_codes":[50196]}"#;
    for names in [
        r#"{"transient": ["50196"]}"#,
        r#"{"transient": [50196]}"#,
        r#"{"transient": ["50196"], "fields": {"error": "/error_codes/0"}}"#,
        r#"{"transient": ["50196"], "fields": {"error": ["/error", "/error_codes/0"]}}"#,
    ] {
        let error = refused(names, answer(400, body)).await;
        assert_eq!((kind(&error), error.code()), ("transient", Some("50196")), "{names}");
        assert_eq!(error.description(), Some("AADSTS50196: a loop"));
    }
    let error = refused("{}", answer(400, body)).await;
    assert_eq!((kind(&error), error.code()), ("denied", Some("invalid_grant")));
}

/// A02, A11
#[tokio::test]
async fn first_code_of_the_dialect_in_pointer_order_decides() {
    let body = r#"{"a": 1, "b": "two", "c": 3}"#;
    for (lists, expected, code) in [
        (r#""denied": ["two"], "transient": [3]"#, "denied", "two"),
        (r#""denied": [3], "transient": ["two"]"#, "transient", "two"),
        (r#""denied": ["1"], "transient": ["two"]"#, "denied", "1"),
        (r#""denied": ["4"]"#, "misconfigured", "1"),
    ] {
        let json = format!(r#"{{{lists}, "fields": {{"error": ["/a", "/b", "/c"]}}}}"#);
        let error = refused(&json, answer(400, body)).await;
        assert_eq!((kind(&error), error.code()), (expected, Some(code)), "{lists}");
    }
}

/// A10
#[tokio::test]
async fn numeric_code_with_status_200_is_denied_as_named() {
    let body = r#"{"errcode":40030,"errmsg":"invalid refresh_token"}"#;
    for names in [
        r#"{"errors_with_200": true, "denied": ["40030"]}"#,
        r#"{"errors_with_200": true, "denied": [40030], "fields": {"error": "/errcode", "error_description": "/errmsg"}}"#,
    ] {
        let error = refused(names, json(body)).await;
        assert_eq!((kind(&error), error.code()), ("denied", Some("40030")), "{names}");
        assert_eq!(error.description(), Some("invalid refresh_token"));
    }
    let busy = r#"{"errcode":-1,"errmsg":"system error"}"#;
    let error = refused(r#"{"errors_with_200": true, "transient": [-1]}"#, json(busy)).await;
    assert_eq!((kind(&error), error.code()), ("transient", Some("-1")));
}

/// A10: the code is shown, even if nothing is named.
#[tokio::test]
async fn error_with_status_200_shows_its_code_and_the_option() {
    let error = refused("{}", json(r#"{"errcode":40030,"errmsg":"invalid refresh_token"}"#)).await;
    assert_eq!((kind(&error), error.code()), ("ambiguous", Some("40030")));
    assert_eq!(error.description(), Some("invalid refresh_token"));
    assert_contains(
        &error,
        &["; if this server always reports errors with status 200, set `errors_with_200`"],
    );

    let error = refused(r#"{"errors_with_200": true}"#, json(r#"{"errcode":40030}"#)).await;
    assert_eq!((kind(&error), error.code()), ("misconfigured", Some("40030")));
    assert_contains(&error, &["`denied`", "`transient`", "40030"]);
}

/// A10
#[tokio::test]
async fn numeric_success_beside_a_token_is_no_error() {
    for body in [
        r#"{"access_token":"a","errcode":0,"errmsg":"ok"}"#,
        r#"{"access_token":"a","code":200,"message":"OK"}"#,
        r#"{"access_token":"a","status":"success"}"#,
        r#"{"access_token":"a","error":null,"code":7}"#,
    ] {
        for names in ["{}", r#"{"errors_with_200": true, "denied": [40030]}"#] {
            let (endpoint, _) = endpoint([json(body)]);
            let grant = RefreshTokenGrant::new(endpoint.dialect(dialect(names)), "r");
            let tokens: TokenSet = grant.fetch(Renewal::new(Cause::Missing)).await.unwrap();
            assert_eq!(tokens.access_token().expose_secret(), "a", "{body}");
        }
    }
}

/// A11, A12, A13
#[tokio::test]
async fn codes_are_found_under_the_usual_names() {
    for (body, code, description) in [
        (
            r#"{"error":{"message":"Session has expired","type":"OAuthException","code":190}}"#,
            "190",
            "Session has expired",
        ),
        (r#"{"error":190,"error_description":"x"}"#, "190", "x"),
        (r#"{"error":190.0,"error_msg":"x"}"#, "190", "x"),
        (r#"{"error_code":190,"error_msg":"x"}"#, "190", "x"),
        (r#"{"error_codes":[190],"message":"x"}"#, "190", "x"),
        (r#"{"errcode":"190","errmsg":"x"}"#, "190", "x"),
        (r#"{"errorCode":"190","errorSummary":"x"}"#, "190", "x"),
        (r#"{"errors":[{"code":190,"message":"x"}]}"#, "190", "x"),
        (r#"{"errors":["190"],"message":["x","y"]}"#, "190", "x; y"),
        (r#"{"code":190,"msg":"x"}"#, "190", "x"),
        (r#"{"__type":"190","message":"x"}"#, "190", "x"),
        (r#"{"status":"190","message":"x"}"#, "190", "x"),
        (r#"{"status":400,"code":190,"message":"x"}"#, "190", "x"),
    ] {
        let error = refused(r#"{"denied": ["190"]}"#, answer(400, body)).await;
        assert_eq!((kind(&error), error.code()), ("denied", Some(code)), "{body}");
        assert_eq!(error.description(), Some(description), "{body}");
        let error = refused("{}", answer(400, body)).await;
        assert_eq!((kind(&error), error.code()), ("misconfigured", Some(code)), "{body}");
        assert_eq!(error.description(), Some(description), "{body}");
        assert_contains(&error, &[code, description, "`denied`", "`transient`"]);
    }
}

/// A01
#[tokio::test]
async fn part_of_a_description_decides_in_any_case() {
    let salesforce = r#"{"error":"invalid_grant","error_description":"token request is already being processed"}"#;
    let names = r#"{"transient_descriptions": ["Already being PROCESSED"]}"#;
    let error = refused(names, answer(400, salesforce)).await;
    assert_eq!((kind(&error), error.code()), ("transient", Some("invalid_grant")));
    let expired = r#"{"error":"invalid_grant","error_description":"expired access/refresh token"}"#;
    assert_eq!(kind(&refused(names, answer(400, expired)).await), "denied");

    let names =
        r#"{"denied_descriptions": ["has been revoked"], "transient": ["NotAuthorizedException"]}"#;
    for body in [
        r#"{"error":"invalid_request","error_description":"The token HAS BEEN revoked."}"#,
        r#"{"message":"Refresh token has been revoked"}"#,
        r#"{"__type":"NotAuthorizedException","message":"Refresh Token has been revoked"}"#,
    ] {
        assert_eq!(kind(&refused(names, answer(400, body)).await), "denied", "{body}");
        assert_eq!(kind(&refused(names, answer(500, body)).await), "ambiguous", "{body}");
    }
}

/// A20: dex answers `invalid_request` for a dead refresh token.
#[tokio::test]
async fn unknown_code_with_4xx_names_the_option_to_reclassify() {
    for (code, expected) in [
        ("invalid_request", "misconfigured"),
        ("invalid_client", "misconfigured"),
        ("invalid_scope", "misconfigured"),
        ("unauthorized_client", "misconfigured"),
        ("access_denied", "misconfigured"),
        ("never_heard_of", "misconfigured"),
        ("expired_token", "denied"),
        ("slow_down", "transient"),
        ("server_error", "ambiguous"),
    ] {
        for status in [400, 401, 403, 404, 422] {
            let body = serde_json::json!({ "error": code, "error_description": "what it is" });
            let error = refused("{}", answer(status, body.to_string())).await;
            assert_eq!(kind(&error), expected, "{status} {code}");
            assert_contains(&error, &[code, "what it is", "dialect"]);
            // Adding the code to the list that already has it would change nothing.
            for list in ["denied", "transient"] {
                let is_named = error.to_string().contains(&format!("`{list}`"));
                assert_eq!(is_named, list != expected, "{error}");
            }
            assert_eq!(error.to_string().matches(code).count(), 1, "{error}");
        }
        for (list, expected) in [("denied", "denied"), ("transient", "transient")] {
            let body = serde_json::json!({ "error": code }).to_string();
            let error = refused(&format!(r#"{{"{list}": ["{code}"]}}"#), answer(400, body)).await;
            assert_eq!(kind(&error), expected, "{list} {code}");
            assert!(!error.to_string().contains('`'), "{error}");
        }
    }
}

#[tokio::test]
async fn invalid_grant_has_no_advice_about_the_dialect() {
    let error = refused("{}", answer(400, r#"{"error":"invalid_grant"}"#)).await;
    assert!(error.is_denied());
    assert!(!error.to_string().contains("dialect"), "{error}");
}

/// A10, A30
#[tokio::test]
async fn status_and_verdict_in_the_body_are_no_codes() {
    for body in [
        r#"{"status":400,"message":"x"}"#,
        r#"{"statusCode":400,"code":"400","message":"x"}"#,
        r#"{"code":0,"status":"error","message":"x"}"#,
        r#"{"error":"failed","code":"0000","message":"x"}"#,
        r#"{"error":true,"message":"x"}"#,
        r#"{"type":"about:blank","title":"Bad Request","status":400,"detail":"x"}"#,
    ] {
        let error = refused("{}", answer(400, body)).await;
        assert_eq!((kind(&error), error.code()), ("ambiguous", None), "{body}");
        assert_eq!(error.description(), Some("x"), "{body}");
    }
    // The dialect can name them.
    let body = r#"{"status":400,"message":"x"}"#;
    assert_eq!(kind(&refused(r#"{"denied": [400]}"#, answer(400, body)).await), "denied");
}
