//! Where the tokens come from: the token endpoint, with every new refresh token saved.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::connect::Connect;
use hyper_util::client::legacy::{Client, Error};
use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
use tower_refresh::{BoxError, Renewal, TokenError, TokenSet, TokenSource};

use crate::config::{Config, Kept};

/// Saves the refresh token when the server has replaced it, before anybody uses what came with it.
///
/// The least that a program must do.
pub struct SaveRotated {
    grant: RefreshTokenGrant,
    spent: Arc<str>,
    kept: Kept,
}

impl SaveRotated {
    /// Makes the source of what was read from `file`.
    pub fn new<C>(
        config: Config,
        file: &Path,
        http: Client<C, Full<Bytes>>,
    ) -> Result<Self, BoxError>
    where
        C: Connect + Clone + Send + Sync + 'static,
    {
        let refresh_token = config.refresh_token.read("refresh_token")?;
        let kept = config.refresh_token.prepare(file)?;
        let endpoint = TokenEndpoint::new(http, &config.token_endpoint)
            .map_err(|error| format!("field `token_endpoint`: {error}"))?
            .client_auth(config.client_auth.build()?)
            .dialect(config.dialect.build()?)
            .not_sent(|error| error.downcast_ref::<Error>().is_some_and(Error::is_connect));
        Ok(Self {
            grant: RefreshTokenGrant::new(endpoint, refresh_token.as_str()),
            spent: refresh_token.into(),
            kept,
        })
    }
}

impl TokenSource for SaveRotated {
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        let tokens = self.grant.fetch(renewal).await?;
        match tokens.refresh_token() {
            Some(token) if token.expose_secret() != &*self.spent => {
                let path = self.kept.path.display();
                match self.kept.save(token.expose_secret()) {
                    Ok(()) => {
                        say(io::stdout(), format_args!("replaced by the server; saved to {path}"))
                    }
                    // The new one is in memory and works; losing it over a full disk would be worse.
                    Err(error) => say(
                        io::stderr(),
                        format_args!("replaced, and NOT SAVED to {path}: {error}"),
                    ),
                }
            }
            _ => say(io::stdout(), format_args!("still the same")),
        }
        Ok(tokens)
    }
}

/// Whoever reads this may have gone, and `println` would panic: the tokens would go with it.
fn say(mut to: impl Write, what: fmt::Arguments<'_>) {
    let _ = writeln!(to, "refresh token    {what}");
}
