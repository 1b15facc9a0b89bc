//! Rows of the guide `what_happens` that no other test shows, and that each row names a test.

use std::fs;
use std::path::Path;
use std::time::Duration;

use http::StatusCode;
use tokio::time::advance;
use tokio_test::{assert_pending, task};
use tower::{Service as _, ServiceExt as _};
use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
use tower_refresh::testing::AuthorizationServer;
use tower_refresh::{Credentials, RefreshLayer, TokenError};

use crate::harness::{HOUR, accept, client, get, let_others_run, policy, puppet, tokens};

async fn token(credentials: &Credentials) -> String {
    credentials.tokens().await.unwrap().access_token().expose_secret().to_owned()
}

#[tokio::test(start_paused = true)]
async fn denied_refresh_leaves_a_working_token_in_use() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    credentials.log_in(tokens("old").with_expires_in(HOUR)).await.unwrap();
    advance(HOUR - Duration::from_secs(200)).await;
    assert_eq!(token(&credentials).await, "old");
    strings.next().await.fail(TokenError::denied("refused"));
    credentials.flush().await.unwrap();

    advance(Duration::from_secs(195)).await;
    assert_eq!(token(&credentials).await, "old");
    advance(Duration::from_secs(5)).await;
    assert!(credentials.tokens().await.unwrap_err().is_denied());
    assert_eq!(strings.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn refresh_joins_the_refresh_that_is_in_flight() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let (waiting, refreshed, ()) =
        tokio::join!(credentials.tokens(), credentials.refresh(), async {
            strings.next().await.answer(tokens("new").with_expires_in(HOUR));
        });
    for obtained in [waiting, refreshed] {
        assert_eq!(obtained.unwrap().access_token().expose_secret(), "new");
    }
    assert_eq!(strings.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn refresh_within_the_backoff_returns_the_remembered_error() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let (failed, ()) = tokio::join!(credentials.tokens(), async {
        strings.next().await.fail(TokenError::transient("down"));
    });
    failed.unwrap_err();
    let error = credentials.refresh().await.unwrap_err();
    assert!(error.is_transient() && error.is_remembered(), "{error}");
    assert_eq!(strings.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn application_within_the_leeway_waits_for_a_refresh() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    credentials.log_in(tokens("old").with_expires_in(HOUR)).await.unwrap();
    advance(HOUR - Duration::from_secs(5)).await;
    let (obtained, ()) = tokio::join!(token(&credentials), async {
        strings.next().await.answer(tokens("new").with_expires_in(HOUR));
    });
    assert_eq!(obtained, "new");
}

#[tokio::test(start_paused = true)]
async fn rejection_backoff_returns_the_rejection_with_its_reason() {
    let (source, mut strings) = puppet();
    let layer = RefreshLayer::new(Credentials::with_policy(source, policy()));
    layer.credentials().log_in(tokens("old").with_expires_in(HOUR)).await.unwrap();
    let client = client(layer, |_, _| async { StatusCode::UNAUTHORIZED });
    let (answer, ()) = tokio::join!(client.clone().oneshot(get("/")), async {
        strings.next().await.answer(tokens("new").with_expires_in(HOUR));
    });
    assert_eq!(answer.unwrap().status(), StatusCode::UNAUTHORIZED);

    let answer = client.oneshot(get("/")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let reason: &TokenError = answer.extensions().get().unwrap();
    assert!(reason.is_transient() && reason.to_string().contains("audience"), "{reason}");
    assert_eq!(strings.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn log_out_fails_a_request_of_its_session_that_waits() {
    let (source, mut strings) = puppet();
    let layer = RefreshLayer::new(Credentials::with_policy(source, policy()));
    let credentials = layer.credentials().clone();
    credentials.log_in(tokens("old").with_expires_in(HOUR)).await.unwrap();
    advance(HOUR).await;
    let mut client = client(layer, accept);
    let mut request = task::spawn(client.ready().await.unwrap().call(get("/")));
    assert_pending!(request.poll());
    let refresh = strings.next().await;

    let (logged_out, ()) = tokio::join!(credentials.log_out(), async {
        let_others_run().await;
        refresh.answer(tokens("new").with_expires_in(HOUR));
    });
    logged_out.unwrap();
    let error = request.await.unwrap_err();
    assert!(error.downcast_ref::<TokenError>().unwrap().is_session_over(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn restart_without_a_store_sends_the_configured_token_again() {
    let server = AuthorizationServer::new();
    let endpoint = TokenEndpoint::new(server.token_service(), "https://auth.test/token").unwrap();
    let configured = server.issue_refresh_token();
    let start = || Credentials::new(RefreshTokenGrant::new(endpoint.clone(), configured.clone()));
    start().tokens().await.unwrap();
    assert!(start().tokens().await.unwrap_err().is_denied());
    assert_eq!(server.counters().refresh_token_requests, 2);
}

/// The comment `<!-- crate::module::test -->` at the end of a row.
#[test]
fn each_row_of_what_happens_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("src/docs/what_happens.md")).unwrap();
    let tables = page.split("\n# ").skip(1);
    let rows = tables.flat_map(|table| table.lines().filter(|line| line.starts_with("| ")).skip(1));
    let mut named = 0;
    for row in rows {
        let (_, comment) = row.split_once("<!-- ").unwrap_or_else(|| panic!("no test: {row}"));
        let path = comment.split_once(" -->").unwrap().0;
        let (module, test) = path.rsplit_once("::").unwrap();
        let module = module.replace("::", "/");
        let files = [format!("tests/{module}.rs"), format!("src/{module}.rs")];
        let source = files.iter().find_map(|file| fs::read_to_string(root.join(file)).ok());
        let source = source.unwrap_or_else(|| panic!("no module {module}: {row}"));
        assert!(source.contains(&format!("fn {test}(")), "no test {path}: {row}");
        named += 1;
    }
    assert!(named > 50, "{named}");
}
