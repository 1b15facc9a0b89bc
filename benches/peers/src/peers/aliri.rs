//! aliri_tokens: a task refreshes the token, and the program reads it from a `TokenWatcher`.

use ::aliri::jwt::Audience;
use aliri_tokens::sources::oauth2::ClientCredentialsTokenSource;
use aliri_tokens::sources::oauth2::dto::{ClientCredentials, ClientCredentialsWithAudience};
use aliri_tokens::{ClientId, ClientSecret, TokenLifetimeConfig, TokenWatcher, backoff, jitter};
use http::header::AUTHORIZATION;
use http::{HeaderValue, StatusCode};

use crate::api::{self, Api, request};
use crate::peer::{About, BoxError, Fetches, Peer, Scenario};

#[derive(Clone)]
pub struct Aliri {
    watcher: TokenWatcher,
    api: Api,
}

impl Peer for Aliri {
    const ABOUT: About = About {
        name: "aliri_tokens",
        packages: &["aliri_tokens"],
        manifest: r#"aliri_tokens = "=""#,
        fetches: Fetches::Constructor,
        skips: &[(Scenario::Dropped, "no request waits for a token")],
        ..About::DEFAULT
    };

    async fn connect(url: &str, api: Api) -> Result<Self, BoxError> {
        let credentials = ClientCredentials {
            client_id: ClientId::from_static("benches"),
            client_secret: ClientSecret::from_static("secret"),
        };
        let credentials = ClientCredentialsWithAudience {
            credentials: credentials.into(),
            audience: Audience::from_static("benches"),
        };
        let source = ClientCredentialsTokenSource::new(
            reqwest::Client::new(),
            url.parse()?,
            credentials,
            TokenLifetimeConfig::default(),
        );
        let backoff = backoff::ErrorBackoffConfig::default();
        let watcher =
            TokenWatcher::spawn_from_token_source(source, jitter::NullJitter, backoff).await?;
        Ok(Self { watcher, api })
    }

    async fn send(&mut self, headers: usize) -> Result<StatusCode, BoxError> {
        let mut request = request(headers);
        let token = format!("Bearer {}", self.watcher.token().access_token().as_str());
        let mut header = HeaderValue::try_from(token)?;
        header.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, header);
        api::send(&mut self.api, request).await
    }
}
