//! Responses that may come from a gateway instead of the authorization server.

use std::time::Duration;

use tower_refresh::oauth2::ClientCredentialsGrant;
use tower_refresh::{Cause, Renewal, TokenSource as _};

use super::{ENVOY, HEROKU, assert_contains, kind, refused};
use crate::scripted::{answer, answer_with, endpoint};

/// S4
#[tokio::test]
async fn status_503_is_transient_only_from_the_server_itself() {
    for status in [429, 503] {
        for body in [
            r#"{"error":"temporarily_unavailable"}"#,
            r#"{"error":"slow_down"}"#,
            r#"{"error":{"code":"temporarily_unavailable"}}"#,
            r#"{"error":"overloaded","error_description":"try again"}"#,
            r#"{"error":"invalid_grant"}"#,
            "error=temporarily_unavailable",
        ] {
            let error = refused("{}", answer(status, body)).await;
            assert_eq!(kind(&error), "transient", "{status} {body}: {error}");
        }
        for body in ["", HEROKU, ENVOY, r#"{"error":"server_error"}"#] {
            let error = refused("{}", answer_with(status, &[("retry-after", "7")], body)).await;
            assert_eq!(kind(&error), "transient", "{status} {body}: {error}");
            assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
        }
    }
}

/// S4: bodies of Envoy, Heroku, nginx, Kong, Envoy's JSON, Spring Cloud Gateway, Azure, Google, MuleSoft and Node proxies.
#[tokio::test]
async fn unavailable_from_a_gateway_is_an_unknown_outcome() {
    for body in [
        "",
        ENVOY,
        HEROKU,
        "<html><head><title>503 Service Temporarily Unavailable</title></head></html>",
        r#"<html><script>{"error":"temporarily_unavailable"}</script></html>"#,
        r#"{"message":"The upstream server is timing out"}"#,
        r#"{"code":503,"message":"upstream connect error or disconnect/reset before headers"}"#,
        r#"{"code":429,"message":"too many"}"#,
        r#"{"status":503,"error":"Service Unavailable","path":"/token"}"#,
        r#"{"statusCode":429,"message":"Rate limit is exceeded."}"#,
        r#"{"error":{"code":503,"status":"UNAVAILABLE","message":"The service is currently unavailable."}}"#,
        r#"{"error":"Service Unavailable"}"#,
        r#"{"error":"ECONNRESET"}"#,
        r#"{"error":"Upstream down","error_description":"connection refused"}"#,
        r#"{"error":"server_error"}"#,
        "{}",
        "error code: 1015",
    ] {
        for status in [429, 503] {
            for headers in [&[][..], &[("retry-after", "soon")], &[("server", "envoy")]] {
                let error = refused("{}", answer_with(status, headers, body)).await;
                assert_eq!(kind(&error), "ambiguous", "{status} {body}: {error}");
                let error =
                    refused(r#"{"rotates": false}"#, answer_with(status, headers, body)).await;
                assert_eq!(kind(&error), "transient", "{status} {body}: {error}");
            }
        }
    }
}

/// S4
#[tokio::test]
async fn any_other_5xx_is_an_unknown_outcome_and_never_denied() {
    let odd = [
        500, 501, 502, 504, 505, 507, 508, 520, 521, 522, 523, 524, 525, 526, 527, 529, 530, 598,
        599,
    ];
    for status in odd {
        for body in [
            "",
            ENVOY,
            HEROKU,
            r#"{"error":"invalid_grant"}"#,
            r#"{"error":"server_error"}"#,
            r#"{"error":"temporarily_unavailable"}"#,
        ] {
            let reply = answer_with(status, &[("retry-after", "9")], body);
            let error = refused(r#"{"denied": ["invalid_grant"]}"#, reply).await;
            assert_eq!(kind(&error), "ambiguous", "{status} {body}: {error}");
            assert_eq!(error.retry_after(), Some(Duration::from_secs(9)), "{status} {body}");
        }
    }
    let body = r#"{"error":"backend_busy"}"#;
    let error = refused(r#"{"transient": ["backend_busy"]}"#, answer(500, body)).await;
    assert_eq!(kind(&error), "transient", "{error}");
}

#[tokio::test]
async fn words_of_a_description_do_not_identify_the_server() {
    let names = r#"{"transient_descriptions": ["try again"], "denied_descriptions": ["revoked"]}"#;
    for status in [429, 500, 502, 503, 504] {
        for body in [
            r#"{"message":"Upstream timed out, try again"}"#,
            r#"{"error":"Bad Gateway","message":"try again"}"#,
            r#"{"message":"certificate of the upstream revoked"}"#,
        ] {
            let error = refused(names, answer(status, body)).await;
            assert_eq!(kind(&error), "ambiguous", "{status} {body}: {error}");
        }
    }
    // The code identifies it.
    let names = r#"{"transient": ["busy"], "transient_descriptions": ["try again"]}"#;
    for status in [500, 503] {
        let error =
            refused(names, answer(status, r#"{"error":"busy","message":"try again"}"#)).await;
        assert_eq!(kind(&error), "transient", "{status}: {error}");
    }
}

/// A05
#[tokio::test]
async fn timeout_and_too_early_are_decided_by_the_status() {
    for body in [
        "",
        "<html>",
        r#"{"message":"Request timeout"}"#,
        r#"{"error":"invalid_grant"}"#,
        r#"{"error":"invalid_request","error_description":"x"}"#,
        r#"{"error":"temporarily_unavailable"}"#,
    ] {
        for (status, expected) in [(408, "ambiguous"), (421, "transient"), (425, "transient")] {
            let error = refused(r#"{"denied": ["invalid_grant"]}"#, answer(status, body)).await;
            assert_eq!(kind(&error), expected, "{status} {body}: {error}");
        }
        let error = refused(r#"{"rotates": false}"#, answer(408, body)).await;
        assert_eq!(kind(&error), "transient", "{body}: {error}");
    }
}

/// A proxy responds with 407 instead of the server, with an arbitrary error page.
#[tokio::test]
async fn proxy_that_demands_credentials_never_denies_the_grant() {
    for body in [
        "",
        "<html>",
        r#"{"error":"invalid_grant"}"#,
        r#"{"error":"access_denied"}"#,
        r#"{"error":"server_error"}"#,
        r#"{"error":"slow_down"}"#,
    ] {
        let reply = answer_with(407, &[("proxy-authenticate", "Basic")], body);
        let error = refused(r#"{"denied": ["access_denied"]}"#, reply).await;
        assert_eq!(kind(&error), "misconfigured", "{body}: {error}");
        assert_contains(&error, &["a proxy requires credentials"]);
    }
}

/// A03
#[tokio::test]
async fn server_error_is_an_unknown_outcome_with_any_status() {
    for status in [400, 401, 403, 429, 500, 503] {
        let reply = || answer(status, r#"{"error":"server_error"}"#);
        let error = refused("{}", reply()).await;
        assert_eq!((kind(&error), error.code()), ("ambiguous", Some("server_error")), "{status}");
        let error = refused(r#"{"rotates": false}"#, reply()).await;
        assert_eq!(kind(&error), "transient", "{status}");
        let (endpoint, _) = endpoint([reply()]);
        let grant = ClientCredentialsGrant::new(endpoint);
        let error = grant.fetch(Renewal::new(Cause::Missing)).await.unwrap_err();
        assert_eq!(kind(&error), "transient", "{status}");
    }
}
