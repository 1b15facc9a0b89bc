//! The messages of refusals.

use tower_refresh::oauth2::{RefreshTokenGrant, Revocation};
use tower_refresh::{Cause, Renewal, TokenSet, TokenSource as _};

use super::{assert_contains, kind, refused};
use crate::scripted::{Reply, URL, answer, answer_with, endpoint, response};

/// A30
#[tokio::test]
async fn message_begins_with_origin_status_and_content_type() {
    let types = [("content-type", "text/html; charset=utf-8")];
    for (status, body) in [
        (200, ""),
        (200, "<html>"),
        (200, "{}"),
        (200, r#"{"error":"invalid_grant"}"#),
        (200, r#"{"ok":false}"#),
        (302, ""),
        (400, ""),
        (400, "<html>"),
        (400, "{}"),
        (400, r#"{"error":"invalid_grant"}"#),
        (400, r#"{"error":"invalid_request"}"#),
        (400, r#"{"error":"slow_down"}"#),
        (401, r#"{"error":"invalid_client"}"#),
        (408, ""),
        (421, ""),
        (429, r#"{"error":"slow_down"}"#),
        (503, ""),
        (502, "<html>"),
        (500, r#"{"error":"server_error"}"#),
    ] {
        let error = refused("{}", answer_with(status, &types, body)).await;
        let place = format!(": https://as.example.com answered {status} (text/html): ");
        assert_contains(&error, &[&place]);
        assert!(!error.to_string().contains("/oauth2"), "{error}");
        let error = refused("{}", answer(status, body)).await;
        assert_contains(&error, &[&format!("answered {status} (no content type): ")]);
    }
    let error = refused("{}", Reply::Fail("broken pipe".into())).await;
    assert_contains(&error, &["https://as.example.com failed"]);
}

#[tokio::test]
async fn wrong_path_or_method_is_named_as_a_possible_cause() {
    for status in [404, 405] {
        for body in ["", "<html>", "{}"] {
            assert_contains(&refused("{}", answer(status, body)).await, &["check the path"]);
        }
    }
}

#[tokio::test]
async fn content_type_is_shown_without_what_was_sent() {
    let types = [("content-type", "x/old-refresh-token; a=b")];
    let error = refused("{}", answer_with(400, &types, "")).await;
    assert_contains(&error, &["answered 400 (x/***): "]);
    let error = refused("{}", answer_with(400, &[("content-type", "")], "")).await;
    assert_contains(&error, &["answered 400 (no content type): "]);
}

#[tokio::test]
async fn origin_has_the_port_and_no_path_or_query() {
    let (endpoint, _) = endpoint([answer(400, "")]);
    let endpoint = endpoint.with_url("https://AS.example.com:8443/token?tenant=t").unwrap();
    let grant = RefreshTokenGrant::new(endpoint, "r");
    let error = grant.fetch(Renewal::new(Cause::Missing)).await.unwrap_err();
    assert_contains(&error, &[": https://as.example.com:8443 answered 400"]);
    assert!(!error.to_string().contains("tenant"), "{error}");
}

#[tokio::test]
async fn revocation_reads_a_refusal_like_a_grant() {
    let tokens = TokenSet::bearer("access").unwrap();
    for (status, headers, expected) in [
        (503, &[][..], "transient"),
        (503, &[("retry-after", "3")], "transient"),
        (401, &[("www-authenticate", "Basic")], "misconfigured"),
        (400, &[], "transient"),
    ] {
        let (endpoint, _) = endpoint([answer_with(status, headers, "")]);
        let error =
            Revocation::new(endpoint.with_url(URL).unwrap()).revoke(&tokens).await.unwrap_err();
        assert_eq!(kind(&error), expected, "{status}");
        assert_contains(
            &error,
            &[&format!("https://as.example.com answered {status} (no content type)")],
        );
    }
}

#[tokio::test]
async fn retry_after_is_kept_with_an_unknown_outcome() {
    for (status, body) in [(202, ""), (200, "<html>"), (200, "{}"), (400, ""), (502, "<html>")] {
        let error = refused("{}", answer_with(status, &[("retry-after", "5")], body)).await;
        assert!(error.is_ambiguous(), "{error}");
        assert_eq!(error.retry_after().map(|after| after.as_secs()), Some(5), "{status} {body}");
    }
}

#[tokio::test]
async fn unread_body_of_a_refusal_gives_its_reason() {
    let error = refused("{}", Reply::Cut(response(502, "<html"))).await;
    assert_eq!(kind(&error), "ambiguous");
    assert_contains(&error, &["answered 502", "cut off"]);
    let error = refused("{}", Reply::Cut(response(400, r#"{"error":"inv"#))).await;
    assert_contains(&error, &["answered 400", "cut off"]);
}
