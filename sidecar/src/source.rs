//! The credentials: the token endpoint, with a file in which each token is saved before it is used.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::Connect;
use hyper_util::rt::TokioExecutor;
use tower_refresh::oauth2::{ClientAuth, RefreshTokenGrant, TokenEndpoint};
use tower_refresh::store::{FileStore, StoreError, TokenStore};
use tower_refresh::{BoxError, Credentials, TokenError};

use crate::config::Config;

/// Creates the credentials for the configuration that was read from `file`. No token is requested yet.
pub async fn open<C>(config: Config, file: &Path, connector: C) -> Result<Credentials, BoxError>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let refresh_token = config.refresh_token.read("refresh_token")?;
    config.check_not_replaced(file)?;
    let store = FileStore::new(config.tokens_of(file)?);
    // A token request on an idle connection that the server is closing would have an unknown outcome.
    let http = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build::<_, Full<Bytes>>(connector);
    let endpoint = TokenEndpoint::new(http, &config.token_endpoint)
        .map_err(|error| format!("field `token_endpoint`: {}", error.get_ref()))?
        .client_auth(
            config.client_auth.map_or_else(|| Ok(ClientAuth::default()), |auth| auth.build())?,
        )
        .dialect(config.dialect.build()?);
    check(&store).await.map_err(|error| format!("field `tokens`: {error}"))?;
    let grant = RefreshTokenGrant::new(endpoint, refresh_token);
    Ok(Credentials::builder(grant).store(store).build())
}

/// Checks that tokens can be saved, so that a wrong path is an error at the start of the program.
async fn check(store: &FileStore) -> Result<(), StoreError> {
    match store.lock(Duration::ZERO).await {
        Err(error) if !error.is_held() => return Err(error),
        // Another process holds the lock, so that the file can be used.
        _ => {}
    }
    store.load().await.map(drop)
}

/// Describes tokens that could not be saved before the program ends.
pub fn not_saved(error: &TokenError) -> String {
    format!(
        "the newest tokens were NOT SAVED and end with this program; if the server denies the next refresh, log in again and put the new refresh token where `refresh_token` points: {error}"
    )
}
