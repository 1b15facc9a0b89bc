//! One authorised call against a real server.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
use tower_refresh::{BoxError, RefreshLayer, Renewal, TokenError, TokenSet, TokenSource};

use crate::config::{Config, Kept};

/// How much of the API's answer is read.
const ANSWER_BYTES: usize = 1024 * 1024;

pub async fn run(file: &Path) -> Result<(), BoxError> {
    let config = Config::read(file)?;
    let refresh_token = config.refresh_token.read("refresh_token")?;
    let kept = config.refresh_token.prepare(file)?;

    let connector = HttpsConnectorBuilder::new()
        .with_webpki_roots()
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .build();
    let http = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(connector);
    let endpoint = TokenEndpoint::new(http.clone(), &config.token_endpoint)
        .map_err(|error| format!("field `token_endpoint`: {error}"))?
        .client_auth(config.client_auth.build()?)
        .dialect(config.dialect.build()?)
        .not_sent(|error| error.downcast_ref::<Error>().is_some_and(Error::is_connect));
    let source = SaveRotated {
        grant: RefreshTokenGrant::new(endpoint, refresh_token.as_str()),
        spent: refresh_token.into(),
        kept: kept.clone(),
    };

    let origin = format!(
        "{}://{}",
        config.api.scheme_str().unwrap_or_default(),
        config.api.authority().map_or("", |authority| authority.as_str()),
    );
    let layer = RefreshLayer::new(source).origin(&origin);
    let credentials = layer.credentials().clone();
    let client = ServiceBuilder::new().layer(layer).service(http);

    let outcome = async {
        // Without the query, which may hold what is nobody's business.
        println!(
            "token endpoint   {}",
            config.token_endpoint.split('?').next().unwrap_or_default()
        );
        credentials.prime().await?;
        let tokens = credentials.token().await?;
        match credentials.status().usable_for {
            Some(usable) => println!("access token     obtained, usable for {usable:.0?}"),
            None => println!("access token     obtained, used until rejected"),
        }
        if let Some(scope) = tokens.scope() {
            println!("scope            {scope}");
        }

        let request = Request::get(config.api.clone()).body(Full::default())?;
        println!("GET              {origin}{}", config.api.path());
        let answer = client.oneshot(request).await?;
        let status = answer.status();
        println!("status           {status}");
        if let Some(error) = answer.extensions().get::<TokenError>() {
            println!("no newer token   {error}");
        }
        let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await?.to_bytes();
        println!("body             {} bytes", body.len());
        if !status.is_success() {
            return Err(format!("the API answered {status}").into());
        }
        Ok(())
    }
    .await;
    // Whatever went wrong: a refresh that is under way ends with the runtime, and its refresh token would be lost.
    credentials.settled().await;
    outcome
}

/// Saves the refresh token when the server has replaced it, before anybody uses what came with it.
///
/// The least that a program must do.
struct SaveRotated {
    grant: RefreshTokenGrant,
    spent: Arc<str>,
    kept: Kept,
}

impl TokenSource for SaveRotated {
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        let tokens = self.grant.fetch(renewal).await?;
        match tokens.refresh_token() {
            Some(token) if token.expose_secret() != &*self.spent => {
                match self.kept.save(token.expose_secret()) {
                    Ok(()) => println!(
                        "refresh token    replaced by the server; saved to {}",
                        self.kept.path.display()
                    ),
                    // The new one is in memory and works; losing it over a full disk would be worse.
                    Err(error) => eprintln!(
                        "refresh token    replaced, and NOT SAVED to {}: {error}",
                        self.kept.path.display()
                    ),
                }
            }
            _ => println!("refresh token    still the same"),
        }
        Ok(tokens)
    }
}
