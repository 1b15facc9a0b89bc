//! `--check`, and the example configurations that it reads.
#![cfg(unix)]
#![allow(
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test: helpers outside of test functions too, some of which only the other tests use"
)]

mod support;

use std::fs;

use http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::mpsc;
use tower_refresh::testing::{AuthorizationServer, Fault};

use self::support::*;

// ===== what it does =====

#[tokio::test]
async fn check_gets_a_token_and_sends_one_request() {
    let server = AuthorizationServer::builder().public_client("id").build();
    let serving = server.serve().await.unwrap();
    let folder = Folder::new();
    configure(&folder, &serving.origin(), server.issue_refresh_token().expose_secret());
    let url = serving.url("/v1/me?secret=of-the-query");

    let first = check(&folder, Some(&url)).await;
    assert!(first.is_success, "{first:?}");
    let token_file = fs::canonicalize(folder.path("")).unwrap().join("config.tokens.json");
    for line in [
        format!("configuration    {}", folder.path("config.json").display()),
        format!("token endpoint   {}", serving.url("/token")),
        format!("token file       {}", token_file.display()),
        "tokens           refreshed".to_owned(),
        format!("GET              {}", serving.url("/v1/me")),
        "status           200 OK".to_owned(),
    ] {
        assert!(first.output.lines().any(|printed| printed == line), "{line}: {first:?}");
    }
    assert!(first.output.contains("\naccess token     valid for "), "{first:?}");
    assert_eq!(server.counters().token_requests, 1);

    let second = check(&folder, Some(&url)).await;
    assert!(second.is_success, "{second:?}");
    assert!(second.output.contains("\ntokens           loaded from the token file"), "{second:?}");
    assert_eq!(server.counters().token_requests, 1);

    server.revoke_all_access_tokens();
    let third = check(&folder, Some(&url)).await;
    assert!(third.is_success, "{third:?}");
    assert!(third.output.contains("\ntokens           refreshed\nstatus"), "{third:?}");
    assert_eq!(server.counters().token_requests, 2);
    assert_eq!(server.counters().refresh_token_reuses, 0);

    let record = fs::read_to_string(folder.path("config.tokens.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    for secret in ["access_token", "refresh_token"] {
        let secret = record.pointer(&format!("/body/plain/tokens/{secret}")).unwrap();
        for run in [&first, &second, &third] {
            assert!(!run.output.contains(secret.as_str().unwrap()), "{run:?}");
            assert!(!run.output.contains("of-the-query"), "{run:?}");
        }
    }
}

#[tokio::test]
async fn check_without_a_url_sends_nothing_to_the_api() {
    let server = AuthorizationServer::builder().public_client("id").build();
    let serving = server.serve().await.unwrap();
    let folder = Folder::new();
    configure(&folder, &serving.origin(), server.issue_refresh_token().expose_secret());
    let run = check(&folder, None).await;
    assert!(run.is_success && run.output.contains("\nAPI              no request sent"), "{run:?}");
    let counters = server.counters();
    assert_eq!((counters.token_requests, counters.resource_requests), (1, 0));
}

#[tokio::test]
async fn invalid_url_of_a_check_costs_no_token() {
    let server = AuthorizationServer::builder().public_client("id").build();
    let serving = server.serve().await.unwrap();
    let folder = Folder::new();
    configure(&folder, &serving.origin(), server.issue_refresh_token().expose_secret());
    let port = serving.origin().rsplit(':').next().unwrap().to_owned();
    for (url, error) in [
        ("/v1/me", "must be an absolute URL"),
        ("http://127.0.0.1:9/v1/me", "the configured API"),
        ("https://api.example.com/v1/me", "the configured API"),
        (&format!("https://127.0.0.1:{port}/"), "the configured API"),
        ("http://api.example.com/v1/me", "must be https"),
        ("http://user@127.0.0.1/", "must not contain a user name"),
    ] {
        let run = check(&folder, Some(url)).await;
        assert!(!run.is_success && run.output.contains("--check: "), "{url}: {run:?}");
        assert!(run.output.contains(error), "{url}: {run:?}");
    }
    assert_eq!(server.counters().token_requests, 0);
}

#[tokio::test]
async fn check_fails_with_the_status_of_the_api() {
    let server = AuthorizationServer::builder().public_client("id").build();
    let serving = server.serve().await.unwrap();
    let folder = Folder::new();
    configure(&folder, &serving.origin(), server.issue_refresh_token().expose_secret());
    server.resource_faults().always(Fault::status(StatusCode::IM_A_TEAPOT));
    let run = check(&folder, Some(&serving.url("/"))).await;
    assert!(!run.is_success, "{run:?}");
    assert!(run.output.contains("the API responded with 418"), "{run:?}");
}

#[tokio::test]
async fn check_names_the_field_that_is_wrong() {
    let folder = Folder::new();
    configure(&folder, "http://127.0.0.1:9", "r0");
    for (field, value) in
        [("tokens", json!("no-folder/tokens.json")), ("dialect", json!("rfc7000"))]
    {
        set(&folder, field, value);
        let run = check(&folder, None).await;
        assert!(!run.is_success && run.output.contains(&format!("`{field}`")), "{run:?}");
    }
}

#[tokio::test]
async fn password_in_the_url_is_an_error_and_not_printed() {
    let folder = Folder::new();
    configure(&folder, "http://127.0.0.1:9", "r0");
    set(&folder, "token_endpoint", json!("https://user:sesame@as.example.com/token?key=sesame"));
    let run = check(&folder, None).await;
    assert!(!run.is_success && run.output.contains("`token_endpoint`: the URL"), "{run:?}");
    assert!(!run.output.contains("sesame"), "{run:?}");
}

// ===== the example configurations =====

/// Endpoint A (RFC 6749 §2.3.1, second form).
#[tokio::test]
async fn example_for_credentials_in_the_body_sends_them_there() {
    let request = request_of("credentials_in_body", r#"{"access_token": "t1"}"#).await;
    assert_eq!(request.uri(), "/connect/token");
    assert_eq!(request.headers()["content-type"], "application/x-www-form-urlencoded");
    assert!(!request.headers().contains_key("authorization"));
    assert_eq!(
        request.body(),
        "grant_type=refresh_token&refresh_token=r0&client_id=compass&client_secret=p%3Aw%25d"
    );
}

/// Endpoint B.
#[tokio::test]
async fn example_for_camel_case_sends_its_names_and_reads_the_expiry() {
    let response = r#"{"access_token": "t1", "refresh_token": "r1",
        "accessTokenExpiresAt": "2100-01-01T00:00:00.7826152Z",
        "refreshTokenExpiresAt": "2100-01-02T00:00:00.7826277Z"}"#;
    let request = request_of("camel_case", response).await;
    assert_eq!(request.uri(), "/api/oauth2/token");
    assert!(!request.headers().contains_key("authorization"));
    assert_eq!(request.body(), "grantType=RefreshToken&refreshToken=r0");
}

/// Endpoint C: its documentation encodes `<client_id>:<client_secret>` without form-encoding them first.
#[tokio::test]
async fn example_for_basic_credentials_sends_them_unencoded() {
    let request = request_of("basic_credentials", r#"{"access_token": "t1"}"#).await;
    assert_eq!(request.uri(), "/oauth2/token");
    // compass:p:w%d
    assert_eq!(request.headers()["authorization"], "Basic Y29tcGFzczpwOnclZA==");
    assert_eq!(request.body(), "grant_type=refresh_token&refresh_token=r0");
}

/// Endpoint D.
#[tokio::test]
async fn example_for_a_json_body_sends_no_grant_type() {
    let request = request_of("json_body", r#"{"access_token": "t1"}"#).await;
    assert_eq!(request.uri(), "/user-management-services-ws/oauth2/002/refreshIdToken");
    assert_eq!(request.headers()["content-type"], "application/json");
    assert!(!request.headers().contains_key("authorization"));
    assert_eq!(request.body(), r#"{"refresh_token":"r0"}"#);
}

/// Checks an example whose hosts are replaced by a loopback server. Returns the token request.
async fn request_of(example: &str, response: &'static str) -> Request<String> {
    let (sender, mut requests) = mpsc::unbounded_channel();
    let origin = api(Upstream::Http1, move |request| {
        let sender = sender.clone();
        async move {
            let (head, body) = request.into_parts();
            sender.send(Request::from_parts(head, read(body).await)).unwrap();
            let json = Response::builder().header("content-type", "application/json");
            json.body(full(response)).unwrap()
        }
    })
    .await;
    let path = format!("{}/examples/{example}.json", env!("CARGO_MANIFEST_DIR"));
    let mut config = fs::read_to_string(path).unwrap();
    for host in ["https://auth.example.com", "https://api.example.com"] {
        assert!(config.contains(host));
        config = config.replace(host, &origin);
    }
    let folder = Folder::new();
    fs::write(folder.path("config.json"), config).unwrap();
    // A relative path begins at the working directory.
    fs::write(folder.path("compass.refresh-token"), "r0").unwrap();
    let run = check(&folder, None).await;
    assert!(run.is_success && run.output.contains("\ntokens           refreshed"), "{run:?}");
    requests.recv().await.unwrap()
}

// ===== running the program =====

#[derive(Debug)]
struct Run {
    is_success: bool,
    /// Standard output and standard error.
    output: String,
}

async fn check(folder: &Folder, url: Option<&str>) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tower-refresh-sidecar"));
    command.arg("--config").arg(folder.path("config.json")).arg("--check").args(url);
    command.env("COMPASS_SECRET", "p:w%d").current_dir(folder.path(""));
    let output = soon(command.output()).await.unwrap();
    let texts = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    Run { is_success: output.status.success(), output: texts.concat() }
}
