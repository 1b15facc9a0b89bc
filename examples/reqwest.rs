//! reqwest: `cargo run --example reqwest --features reqwest,testing`
//!
//! One client serves for the token endpoint and the API. The server revokes the access token before the second request, whose body is
//! JSON, and before the third, whose body is a stream. The requests succeed nevertheless.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use serde::{Deserialize, Serialize};
use tower_refresh::oauth2::{ClientAuth, RefreshTokenGrant, TokenEndpoint};
use tower_refresh::reqwest::{ReqwestClient, ReqwestError, ReqwestService};
use tower_refresh::testing::{AuthorizationServer, Serving};
use tower_refresh::{BoxError, Credentials, RefreshLayer};

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Note {
    text: String,
}

/// The client of the API. Its methods are written as with a `reqwest::Client`, and fail with `ReqwestError::Token` without a valid
/// token.
struct Notes {
    http: ReqwestClient,
    url: String,
    credentials: Credentials,
}

impl Notes {
    fn new(server: &AuthorizationServer, serving: &Serving) -> Result<Self, BoxError> {
        // Token requests must not follow redirects.
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        // The server is on loopback, without TLS. A proxy from the environment could read the tokens.
        let http = http.no_proxy().build()?;
        let endpoint =
            TokenEndpoint::new(ReqwestService::new(http.clone()), serving.url("/token"))?
                .client_auth(ClientAuth::basic("reqwest", "s3cr3t"));
        let source = RefreshTokenGrant::new(endpoint, server.issue_refresh_token());
        let layer = RefreshLayer::new(source).origin(serving.origin())?;
        let credentials = layer.credentials().clone();
        let http = ReqwestClient::new(http, layer);
        Ok(Self { http, url: serving.url("/notes"), credentials })
    }

    async fn list(&self, page: u32) -> Result<String, ReqwestError> {
        let response = self.http.get(&self.url).query(&[("page", page)]).send_ok().await?;
        println!("GET {}", response.url());
        Ok(response.text().await?)
    }

    async fn add(&self, note: &Note) -> Result<Note, ReqwestError> {
        let request = self.http.post(&self.url).json(note).timeout(Duration::from_secs(10));
        Ok(request.send_ok().await?.json().await?)
    }

    async fn upload(&self, chunks: [&'static str; 3]) -> Result<String, ReqwestError> {
        let frames = chunks.map(|chunk| Ok::<_, BoxError>(Frame::data(Bytes::from(chunk))));
        let body = reqwest::Body::wrap(StreamBody::new(stream::iter(frames)));
        let request = self.http.put(format!("{}/1", self.url)).body(body);
        Ok(request.send_ok().await?.text().await?)
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // A server for this example: a token endpoint, and an API that returns the body it receives.
    let server = AuthorizationServer::builder().client("reqwest", "s3cr3t").build();
    let serving = server.serve().await?;
    let notes = Notes::new(&server, &serving)?;

    println!("{:?}", notes.list(2).await?);
    server.revoke_all_access_tokens();
    let note = Note { text: "a note".to_owned() };
    let added = notes.add(&note).await?;
    println!("POST {added:?}");
    server.revoke_all_access_tokens();
    println!("PUT {:?}", notes.upload(["a ", "longer ", "note"]).await?);

    // A refresh in flight would end with the runtime. Its response is the only copy of the next refresh token.
    notes.credentials.flush().await?;

    let counters = server.counters();
    println!(
        "{} responses, {} of them after a rejection that the caller did not see; {} token requests",
        counters.resource_requests_ok,
        counters.resource_requests_unauthorized,
        counters.token_requests
    );
    let expected = (note, 2, 3);
    if (added, counters.resource_requests_unauthorized, counters.token_requests) != expected {
        return Err("broken: expected one refresh and one retry for each revocation".into());
    }
    Ok(())
}
