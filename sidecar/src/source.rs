//! Where the tokens come from: the token endpoint, by way of a file that each is saved to before anybody uses it.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::Connect;
use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
use tower_refresh::store::{FileStore, StoreError, Stored, TokenStore};
use tower_refresh::{BoxError, TokenError};

use crate::config::Config;

pub type Source = Stored<RefreshTokenGrant, FileStore>;

/// Makes the source of what was read from `file`. No token is asked for yet.
pub async fn open<C>(
    config: Config,
    file: &Path,
    http: Client<C, Full<Bytes>>,
) -> Result<Source, BoxError>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let refresh_token = config.refresh_token.read("refresh_token")?;
    config.check_not_replaced(file)?;
    let store = FileStore::new(config.tokens_of(file)?);
    let endpoint = TokenEndpoint::new(http, &config.token_endpoint)
        .map_err(|error| format!("field `token_endpoint`: {error}"))?
        .client_auth(config.client_auth.build()?)
        .dialect(config.dialect.build()?);
    check(&store).await.map_err(|error| format!("field `tokens`: {error}"))?;
    Ok(Stored::new(RefreshTokenGrant::new(endpoint, refresh_token), store))
}

/// Makes sure that tokens can be kept there, while whoever started the program still looks.
async fn check(store: &FileStore) -> Result<(), StoreError> {
    match store.lock(Duration::ZERO).await {
        Err(error) if !error.is_held() => return Err(error),
        // Somebody else is at it, so that it can be done.
        _ => {}
    }
    store.load().await.map(drop)
}

/// What to tell of tokens that could not be saved before the program ends.
pub fn not_saved(error: &TokenError) -> String {
    format!(
        "the newest tokens were NOT SAVED, and end with this program: if the next start is refused, log in again, and put the new refresh token where field `refresh_token` says: {error}"
    )
}
