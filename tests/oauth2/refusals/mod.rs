//! Refusals of token endpoints, and the kind of error that each is.

mod codes;
mod gateways;
mod messages;
mod without_code;

use tower_refresh::oauth2::{ClientAuth, Dialect, RefreshTokenGrant};
use tower_refresh::{Cause, Renewal, TokenError, TokenSource as _};

use crate::scripted::{Manual, Reply, endpoint, kind};

pub(crate) const ENVOY: &str = "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
pub(crate) const HEROKU: &str = r#"<!DOCTYPE html><html><head><title>Application error</title></head><body><iframe src="https://www.herokucdn.com/error-pages/application-error.html"></iframe></body></html>"#;

fn dialect(json: &str) -> Dialect {
    let dialect: Dialect = serde_json::from_str(json).unwrap();
    dialect.validate().unwrap();
    dialect
}

/// Returns the error of a refresh with this reply.
async fn refused(dialect: &str, reply: Reply) -> TokenError {
    refused_as(ClientAuth::default(), dialect, reply).await
}

async fn refused_as(auth: ClientAuth, json: &str, reply: Reply) -> TokenError {
    let (endpoint, _) = endpoint([reply]);
    let endpoint = endpoint.client_auth(auth).dialect(dialect(json)).clock(Manual::new());
    let grant = RefreshTokenGrant::new(endpoint, "old-refresh-token");
    grant.fetch(Renewal::new(Cause::Missing)).await.unwrap_err()
}

#[track_caller]
fn assert_contains(error: &TokenError, parts: &[&str]) {
    let shown = error.to_string();
    for part in parts {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}
