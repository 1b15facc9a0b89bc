//! azure_core: its `BearerTokenAuthorizationPolicy`, over azure_core's own requests, with a callback for challenges. The pipeline
//! around it is left out in its favour.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind;
use azure_core::http::headers::{
    AUTHORIZATION, HeaderName, HeaderValue, Headers, WWW_AUTHENTICATE,
};
use azure_core::http::policies::auth::{Authorizer, BearerTokenAuthorizationPolicy, OnChallenge};
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{AsyncRawResponse, Context, Method, Request, Url};
use azure_core::time::OffsetDateTime;
use http::StatusCode;

use crate::api::{Api, HEADERS, ORIGIN};
use crate::client::TokenClient;
use crate::peer::{About, BoxError, Fetches, Peer};

#[derive(Clone)]
pub struct Azure {
    policy: BearerTokenAuthorizationPolicy,
    plain: NoPolicy,
}

impl Peer for Azure {
    const ABOUT: About = About {
        name: "azure_core",
        packages: &["azure_core"],
        manifest: r#"azure_core = "=""#,
        baseline: "azure_core, no policy",
        ..About::DEFAULT
    };

    async fn connect(url: &str, api: Api) -> Result<Self, BoxError> {
        let credential = Arc::new(Credential(TokenClient::new(url)?));
        let policy = BearerTokenAuthorizationPolicy::new(credential, [SCOPE])
            .with_on_challenge(Arc::new(AuthorizeAgain));
        Ok(Self { policy, plain: NoPolicy::connect(url, api).await? })
    }

    async fn send(&mut self, headers: usize) -> Result<StatusCode, BoxError> {
        let mut request = self.plain.request(headers);
        let context = Context::default();
        let response = self.policy.send(&context, &mut request, &self.plain.transport).await?;
        Ok(StatusCode::from_u16(response.status().into())?)
    }
}

/// azure_core's requests without a token.
#[derive(Clone)]
pub struct NoPolicy {
    transport: [Arc<dyn Policy>; 1],
    url: Url,
    headers: Arc<[(HeaderName, HeaderValue)]>,
}

impl Peer for NoPolicy {
    const ABOUT: About = About {
        name: "azure_core, no policy",
        baseline: "azure_core, no policy",
        fetches: Fetches::Never,
        ..About::DEFAULT
    };

    async fn connect(_: &str, api: Api) -> Result<Self, BoxError> {
        let headers = HEADERS.iter().map(|(name, value)| {
            let value = value.to_str().unwrap_or_default().to_owned();
            (HeaderName::from(name.as_str().to_owned()), HeaderValue::from(value))
        });
        Ok(Self {
            transport: [Arc::new(Transport(api))],
            url: Url::parse(ORIGIN)?.join("/v1/things")?,
            headers: headers.collect(),
        })
    }

    async fn send(&mut self, headers: usize) -> Result<StatusCode, BoxError> {
        let mut request = self.request(headers);
        let response = self.transport[0].send(&Context::default(), &mut request, &[]).await?;
        Ok(StatusCode::from_u16(response.status().into())?)
    }
}

impl NoPolicy {
    fn request(&self, headers: usize) -> Request {
        let mut request = Request::new(self.url.clone(), Method::Get);
        for (name, value) in &self.headers[..headers] {
            request.insert_header(name.clone(), value.clone());
        }
        request.set_body("{}");
        request
    }
}

#[derive(Debug)]
struct Credential(TokenClient);

#[async_trait]
impl TokenCredential for Credential {
    async fn get_token(
        &self,
        _: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let token = self.0.request().await;
        let token = token.map_err(|error| azure_core::Error::new(ErrorKind::Credential, error))?;
        let lifetime = Duration::from_secs(token.expires_in);
        Ok(AccessToken::new(token.access_token, OffsetDateTime::now_utc() + lifetime))
    }
}

/// As the callbacks of Azure's service crates: authorizes the request anew, so that the policy sends it again.
#[derive(Debug)]
struct AuthorizeAgain;

#[async_trait]
impl OnChallenge for AuthorizeAgain {
    async fn on_challenge(
        &self,
        context: &Context,
        request: &mut Request,
        authorizer: &dyn Authorizer,
        _: &Headers,
    ) -> azure_core::Result<()> {
        let mut options = TokenRequestOptions::default();
        options.method_options.context = context.to_borrowed();
        authorizer.authorize(request, &[SCOPE], options).await
    }
}

const SCOPE: &str = "https://api.example.com/.default";

struct Transport(Api);

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Transport")
    }
}

#[async_trait]
impl Policy for Transport {
    async fn send(
        &self,
        _: &Context,
        request: &mut Request,
        _: &[Arc<dyn Policy>],
    ) -> PolicyResult {
        let token = || request.headers().get_optional_str(&AUTHORIZATION).unwrap_or_default();
        let status = self.0.status(|| token().as_bytes().to_vec()).await;
        let mut headers = Headers::new();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, r#"Bearer error="invalid_token""#);
        }
        Ok(AsyncRawResponse::from_bytes(status.as_u16().into(), headers, ""))
    }
}
