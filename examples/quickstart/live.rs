//! One authorised call against a real server.

use std::path::Path;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::Request;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_refresh::{BoxError, Event, Events, RefreshLayer, TokenError};

use crate::config::Config;
use crate::{source, trust};

/// How much of the API's answer is read.
const ANSWER_BYTES: usize = 1024 * 1024;

pub async fn run(file: &Path) -> Result<(), BoxError> {
    let config = Config::read(file)?;
    let (api, origin) = (config.api.clone(), config.origin());
    let token_endpoint = config.token_endpoint.clone();

    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(trust::tls(config.ca_of(file)?.as_deref())?)
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .build();
    let api_http = Client::builder(TokioExecutor::new())
        .http2_only(config.is_http2_only())
        .build::<_, Full<Bytes>>(connector.clone());
    let http = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(connector);
    let tokens_file = config.tokens_of(file)?;
    let source = source::open(config, file, http).await?;
    let layer = RefreshLayer::new(source).origin(&origin);
    let credentials = layer.credentials().clone();
    let mut events = credentials.subscribe();
    let client = ServiceBuilder::new().layer(layer).service(api_http);

    let outcome = async {
        // Without the query, which may hold what is nobody's business.
        println!("token endpoint   {}", token_endpoint.split('?').next().unwrap_or_default());
        println!("tokens           kept in {}", tokens_file.display());
        let primed = credentials.prime().await;
        tell(&mut events);
        primed?;
        let tokens = credentials.token().await?;
        match credentials.status().usable_for {
            Some(usable) => println!("access token     usable for {usable:.0?}"),
            None => println!("access token     used until rejected"),
        }
        if let Some(scope) = tokens.scope() {
            println!("scope            {scope}");
        }

        let request = Request::get(api.clone()).body(Full::default())?;
        println!("GET              {origin}{}", api.path());
        let answer = client.oneshot(request).await;
        tell(&mut events);
        let answer = answer?;
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
    let settled = credentials.flush().await;
    tell(&mut events);
    match settled {
        Ok(()) => outcome,
        Err(error) => {
            if let Err(outcome) = outcome {
                eprintln!("quickstart: {outcome}");
            }
            Err(source::not_saved(&error).into())
        }
    }
}

/// Tells what has become of the tokens since the last time.
fn tell(events: &mut Events) {
    let mut adopted = false;
    while let Some(Some(event)) = events.next().now_or_never() {
        match event {
            Event::Adopted => {
                adopted = true;
                println!("tokens           found there, and nothing asked for");
            }
            Event::Renewed { .. } if !adopted => println!("tokens           renewed"),
            Event::Renewed { .. } => adopted = false,
            Event::Saved => println!("tokens           kept at last"),
            Event::Unsaved { error, .. } => eprintln!("tokens           NOT SAVED: {error}"),
            Event::Unanswered { error, .. } => eprintln!("tokens           {error}"),
            _ => {}
        }
    }
}
