//! A token request in twenty lines, for the peers that leave the request to the program.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use crate::peer::BoxError;

/// Requests tokens with the client credentials grant. It neither caches nor retries.
#[derive(Clone, Debug)]
pub struct TokenClient {
    http: Client<HttpConnector, Full<Bytes>>,
    url: Uri,
}

#[derive(Deserialize)]
pub struct Token {
    pub access_token: String,
    pub expires_in: u64,
}

impl TokenClient {
    pub fn new(url: &str) -> Result<Self, BoxError> {
        Ok(Self { http: Client::builder(TokioExecutor::new()).build_http(), url: url.parse()? })
    }

    pub async fn request(&self) -> Result<Token, BoxError> {
        let form =
            Full::from("grant_type=client_credentials&client_id=benches&client_secret=secret");
        let request = Request::post(&self.url)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form)?;
        let response = self.http.request(request).await?;
        if !response.status().is_success() {
            return Err(format!("the token endpoint answers with {}", response.status()).into());
        }
        Ok(serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?)
    }
}
