//! One authorised call against a real server.

use std::path::Path;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_refresh::{BoxError, RefreshLayer, TokenError};

use crate::config::Config;
use crate::source::SaveRotated;

/// How much of the API's answer is read.
const ANSWER_BYTES: usize = 1024 * 1024;

pub async fn run(file: &Path) -> Result<(), BoxError> {
    let config = Config::read(file)?;
    let (api, origin) = (config.api.clone(), config.origin());
    let token_endpoint = config.token_endpoint.clone();

    let connector = HttpsConnectorBuilder::new()
        .with_webpki_roots()
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .build();
    let http = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(connector);
    let source = SaveRotated::new(config, file, http.clone())?;
    let layer = RefreshLayer::new(source).origin(&origin);
    let credentials = layer.credentials().clone();
    let client = ServiceBuilder::new().layer(layer).service(http);

    let outcome = async {
        // Without the query, which may hold what is nobody's business.
        println!("token endpoint   {}", token_endpoint.split('?').next().unwrap_or_default());
        credentials.prime().await?;
        let tokens = credentials.token().await?;
        match credentials.status().usable_for {
            Some(usable) => println!("access token     obtained, usable for {usable:.0?}"),
            None => println!("access token     obtained, used until rejected"),
        }
        if let Some(scope) = tokens.scope() {
            println!("scope            {scope}");
        }

        let request = Request::get(api.clone()).body(Full::default())?;
        println!("GET              {origin}{}", api.path());
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
    let settled = credentials.settled().await;
    outcome.and(settled.map_err(Into::into))
}
