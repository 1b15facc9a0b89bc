//! The log lines about the fields of a token endpoint's answers.

use tower_refresh::oauth2::{ClientCredentialsGrant, Dialect, RefreshTokenGrant, TokenEndpoint};
use tower_refresh::{Cause, Credentials, Renewal, TokenSource as _};
use tracing::Level;

use crate::records::{Line, Records};
use crate::scripted::{self, Manual, Reply, json};

fn endpoint(bodies: &[&str]) -> TokenEndpoint {
    let replies: Vec<Reply> = bodies.iter().map(|body| json(body)).collect();
    scripted::endpoint(replies).0.clock(Manual::new())
}

/// Returns the lines about the answers, each after a request of its own for the same endpoint.
async fn lines(bodies: &[&str]) -> Vec<Vec<Line>> {
    let endpoint = endpoint(bodies);
    let mut all = Vec::new();
    for _ in bodies {
        let records = Records::start();
        // A clone, as each user of a pool has it.
        let grant = RefreshTokenGrant::new(endpoint.clone(), "old");
        grant.fetch(Renewal::new(Cause::Missing)).await.unwrap();
        let lines = records.take();
        for line in &lines {
            assert_eq!(line.field("endpoint"), "https://as.example.com", "{line:?}");
            assert!(!format!("{line:?}").contains("sesame"), "{line:?}");
        }
        all.push(lines);
    }
    all
}

#[tokio::test]
async fn unknown_field_is_one_debug_line_with_its_name_alone() {
    let body = r#"{"access_token":"sesame","ext_expires_in":"sesame","tenant":{"a":"sesame"},"expires_in":60,"none":null,"ok":true,
        "refreshToken":"r","v1.2a3b4c5":"x","sesame with":"spaces","scope":"a"}"#;
    let lines = lines(&[body, body]).await;
    let names: Vec<_> = lines[0].iter().map(|line| line.field("field")).collect();
    assert_eq!(names, ["ext_expires_in", "tenant"]);
    for line in &lines[0] {
        line.assert(Level::DEBUG, "endpoint", "unknown field in a token answer", &[]);
    }
    assert!(lines[1].is_empty(), "{lines:?}");
}

#[tokio::test]
async fn field_that_cannot_be_read_is_one_warning_with_its_name() {
    for (field, name) in [
        (r#""expires_in":"soon""#, "expires_in"),
        (r#""expires_in":[60]"#, "expires_in"),
        (r#""ExpiresIn":true"#, "ExpiresIn"),
        (r#""expires_at":"sesame""#, "expires_at"),
        (r#""refresh_in":{"a":1}"#, "refresh_in"),
        (r#""refresh_token":["sesame"]"#, "refresh_token"),
        (r#""refresh_token":1.5"#, "refresh_token"),
        (r#""refresh_token_expires_in":"sesame""#, "refresh_token_expires_in"),
        (r#""scope":{"sesame":1}"#, "scope"),
        (r#""id_token":true"#, "id_token"),
        (r#""token_type":7"#, "token_type"),
        (r#""issued_token_type":7"#, "issued_token_type"),
    ] {
        let body = format!(r#"{{"access_token":"sesame",{field}}}"#);
        let lines = lines(&[&body, &body]).await;
        for (lines, level) in lines.iter().zip([Level::WARN, Level::DEBUG]) {
            assert_eq!(lines.len(), 1, "{field}: {lines:?}");
            let message = "field of a token answer is ignored, because its value cannot be read";
            lines[0].assert(level, "endpoint", message, &[("field", name)]);
        }
    }
}

#[tokio::test]
async fn missing_value_and_a_time_that_is_over_are_no_trouble() {
    for field in [
        r#""expires_in":0"#,
        r#""expires_in":"-1""#,
        r#""expires_at":"0001-01-01T00:00:00Z""#,
        r#""refresh_token":"""#,
        r#""refresh_token":"undefined""#,
        r#""refresh_token":false"#,
        r#""refresh_token":0"#,
        r#""scope":[]"#,
        r#""scope":["a","b"]"#,
        r#""id_token":null"#,
    ] {
        let lines = lines(&[&format!(r#"{{"access_token":"sesame",{field}}}"#)]).await;
        assert!(lines[0].is_empty(), "{field}: {lines:?}");
    }
}

#[tokio::test]
async fn unread_lifetime_is_one_warning_if_the_answer_has_no_other() {
    const MESSAGE: &str = "token answer without a lifetime has a field that may be one";

    let warning = async |dialect: &str, answer: &str| {
        let endpoint = endpoint(&[answer, answer]);
        let endpoint = endpoint.dialect(serde_json::from_str::<Dialect>(dialect).unwrap());
        let mut names = Vec::new();
        for level in [Level::WARN, Level::DEBUG] {
            let records = Records::start();
            let grant = RefreshTokenGrant::new(endpoint.clone(), "old");
            grant.fetch(Renewal::new(Cause::Missing)).await.unwrap();
            let lines = records.take();
            let lines = lines.iter().filter(|line| line.message.starts_with(MESSAGE));
            names.extend(lines.map(|line| {
                line.assert(level, "endpoint", MESSAGE, &[]);
                line.field("field").to_owned()
            }));
        }
        names
    };
    for (dialect, answer, name) in [
        ("{}", r#"{"access_token":"sesame","expire_in":60}"#, "expire_in"),
        (
            "{}",
            r#"{"access_token":"sesame","token_expiry":"2099-01-01T00:00:00Z"}"#,
            "token_expiry",
        ),
        (r#"{"fields":{"expires_in":"/ttl"}}"#, r#"{"access_token":"sesame","TTL":"60"}"#, "TTL"),
        (
            r#"{"root":"/data"}"#,
            r#"{"expires_in":60,"data":{"access_token":"sesame"}}"#,
            "expires_in",
        ),
    ] {
        assert_eq!(warning(dialect, answer).await, [name, name], "{answer}");
    }
    for (dialect, answer) in [
        ("{}", r#"{"access_token":"sesame","expire_in":60,"expires_in":60}"#),
        (r#"{"default_lifetime":60}"#, r#"{"access_token":"sesame","expire_in":60}"#),
        ("{}", r#"{"access_token":"sesame","expired":false,"expire_in":0,"ttl":"none"}"#),
        ("{}", r#"{"access_token":"sesame","refresh_expires":60}"#),
        ("{}", r#"{"access_token":"sesame","expires7a8b9c0d1":60}"#),
        // It is almost a usual name, which has a warning of its own.
        (r#"{"fields":{"expires_in":"/ttl"}}"#, r#"{"access_token":"sesame","expires_in":60}"#),
    ] {
        assert!(warning(dialect, answer).await.is_empty(), "{answer}");
    }
}

#[tokio::test]
async fn issued_token_type_that_is_too_long_is_a_warning() {
    let long = "x".repeat(9000);
    let body = format!(r#"{{"access_token":"sesame","issued_token_type":"{long}"}}"#);
    let lines = lines(&[&body]).await;
    let fields = [("field", "issued_token_type")];
    lines[0][0].assert(Level::WARN, "endpoint", "field of a token answer is too long", &fields);
}

#[tokio::test]
async fn scope_narrower_than_requested_is_one_warning_until_it_changes() {
    let scopes = ["read write", "read", "read", "read write", "read", ""];
    let bodies = scopes.map(|scope| format!(r#"{{"access_token":"sesame","scope":"{scope}"}}"#));
    let bodies: Vec<_> = bodies.iter().map(String::as_str).collect();
    let grant = ClientCredentialsGrant::new(endpoint(&bodies)).scope("read write openid");
    let expected = [None, Some(Level::WARN), Some(Level::DEBUG), None, Some(Level::WARN), None];
    for (scope, expected) in scopes.iter().zip(expected) {
        let records = Records::start();
        grant.fetch(Renewal::new(Cause::Missing)).await.unwrap();
        let lines = records.take();
        assert_eq!(lines.len(), usize::from(expected.is_some()), "{scope}: {lines:?}");
        if let Some(level) = expected {
            let fields = [("missing", "write"), ("endpoint", "https://as.example.com")];
            lines[0].assert(level, "endpoint", "scope of the token narrowed", &fields);
        }
    }
}

#[tokio::test]
async fn scope_narrower_than_that_of_the_last_token_is_one_warning() {
    let records = Records::start();
    let body = |scope: &str| {
        format!(
            r#"{{"access_token":"sesame","refresh_token":"r","expires_in":60,"scope":"{scope}"}}"#
        )
    };
    let bodies = ["read write", "read", "read"].map(body);
    let bodies: Vec<_> = bodies.iter().map(String::as_str).collect();
    let credentials = Credentials::new(RefreshTokenGrant::new(endpoint(&bodies), "old"));
    for _ in &bodies {
        credentials.refresh().await.unwrap();
    }
    let trouble = records.take_trouble();
    assert_eq!(trouble.len(), 1, "{trouble:?}");
    let message = "scope of the token narrowed: it lacks a scope that was requested or that";
    trouble[0].assert(Level::WARN, "endpoint", message, &[("missing", "write")]);
}

/// A server may put a token where its scope belongs.
#[tokio::test]
async fn token_among_the_words_of_a_scope_is_not_logged() {
    let records = Records::start();
    let bodies = [
        r#"{"access_token":"sesame-of-alice","refresh_token":"r","scope":"read write sesame-of-alice"}"#,
        r#"{"access_token":"another-sesame","refresh_token":"s","scope":"read"}"#,
    ];
    let credentials = Credentials::new(RefreshTokenGrant::new(endpoint(&bodies), "old"));
    for _ in &bodies {
        credentials.refresh().await.unwrap();
    }
    let trouble = records.take_trouble();
    assert_eq!(trouble.len(), 1, "{trouble:?}");
    let message = "scope of the token narrowed";
    trouble[0].assert(Level::WARN, "endpoint", message, &[("missing", "write ***")]);
}
