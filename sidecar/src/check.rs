//! `--check`: tests a configuration.
//!
//! It reads the configuration, gets a token and, if a URL is given, sends one GET request to the API. It prints each step.
//! Tokens are saved in the token file as usual, so that a sidecar that starts later uses them.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_refresh::{BoxError, Event, Events, RefreshLayer, TokenError};

use crate::config::{Config, api_url};
use crate::serve::connector;
use crate::{source, trust};

/// The size limit of the API's response, in bytes.
const RESPONSE_BYTES: usize = 1024 * 1024;
/// The time limit of the API's response, including a refresh and a retry.
const RESPONSE_TIME: Duration = Duration::from_secs(60);

pub struct Options {
    pub config: PathBuf,
    /// The URL of a request to the API. Without it, no request is sent.
    pub url: Option<String>,
}

/// Tests the configuration.
///
/// # Errors
///
/// The configuration is invalid, there is no token, the newest tokens could not be saved, or the API's status is not 2xx.
pub async fn run(options: Options) -> Result<(), BoxError> {
    let file = options.config.as_path();
    let config = Config::read(file)?;
    let origin = config.origin();
    // Before a refresh token is sent.
    let url = options.url.as_deref().map(|url| url_at_api(url, &config)).transpose()?;

    let tls = trust::tls(config.ca_of(file)?.as_deref())?;
    let connector = connector(HttpsConnectorBuilder::new().with_tls_config(tls));
    let api_http = Client::builder(TokioExecutor::new())
        .http2_only(config.is_http2_only())
        .build::<_, Full<Bytes>>(connector.clone());
    report("configuration", file.display());
    let (endpoint, tokens) = (config.token_endpoint.clone(), config.tokens_of(file)?);
    let credentials = source::open(config, file, connector).await?;
    // Without the query, which may contain a secret. A URL with a password is an error before this line.
    report("token endpoint", endpoint.split('?').next().unwrap_or_default());
    report("token file", tokens.display());

    let layer = RefreshLayer::new(credentials.clone()).origin(&origin)?;
    let mut events = credentials.subscribe();
    let client = ServiceBuilder::new().layer(layer).service(api_http);

    let outcome = async {
        let primed = credentials.warm_up().await;
        report_tokens(&mut events);
        primed?;
        let tokens = credentials.tokens().await?;
        match credentials.status().usable_for {
            Some(usable) => report("access token", format_args!("valid for {usable:.0?}")),
            None => report("access token", "of unknown lifetime, used until rejected"),
        }
        if let Some(scope) = tokens.scope() {
            report("scope", scope);
        }
        let Some(url) = url else {
            report("API", "no request sent: no URL was given");
            return Ok(());
        };

        report("GET", format_args!("{origin}{}", url.path()));
        let request = Request::get(url).body(Full::default())?;
        let response = timeout(RESPONSE_TIME, client.oneshot(request)).await;
        report_tokens(&mut events);
        let response =
            response.map_err(|_| format!("the API did not respond within {RESPONSE_TIME:?}"))??;
        let status = response.status();
        report("status", status);
        if let Some(error) = response.extensions().get::<TokenError>() {
            report("not refreshed", error);
        }
        let body = Limited::new(response.into_body(), RESPONSE_BYTES).collect();
        let body = timeout(RESPONSE_TIME, body).await;
        let body = body.map_err(|_| format!("the body took more than {RESPONSE_TIME:?}"))??;
        report("body", format_args!("{} bytes", body.to_bytes().len()));
        if !status.is_success() {
            return Err(format!("the API responded with {status}").into());
        }
        Ok(())
    }
    .await;
    // Also after an error: a refresh in flight ends with the runtime, and its refresh token would be lost.
    let saved = credentials.flush().await;
    report_tokens(&mut events);
    match saved {
        Ok(()) => outcome,
        Err(error) => {
            if let Err(outcome) = outcome {
                eprintln!("sidecar: {outcome}");
            }
            Err(source::not_saved(&error).into())
        }
    }
}

/// Parses a URL that must have the origin of the configured API.
fn url_at_api(url: &str, config: &Config) -> Result<Uri, BoxError> {
    let url = api_url(url).map_err(|error| format!("--check: the URL {error}"))?;
    if !config.has_origin_of(&url) {
        return Err(
            format!("--check: the URL must be at {}, the configured API", config.origin()).into()
        );
    }
    Ok(url)
}

/// Prints a line of the report.
fn report(name: &str, value: impl Display) {
    println!("{name:<16} {value}");
}

/// Prints how the tokens have changed since the last call.
fn report_tokens(events: &mut Events) {
    let mut adopted = false;
    while let Some(Some(event)) = events.recv().now_or_never() {
        match event {
            Event::FoundInStore => {
                adopted = true;
                report("tokens", "loaded from the token file, no request sent");
            }
            Event::Refreshed { .. } if !adopted => report("tokens", "refreshed"),
            Event::Refreshed { .. } => adopted = false,
            Event::Saved => report("tokens", "saved after an earlier failure"),
            Event::Unsaved { error, .. } => eprintln!("tokens           NOT SAVED: {error}"),
            Event::OutcomeUnknown { error, .. } => eprintln!("tokens           {error}"),
            _ => {}
        }
    }
}
