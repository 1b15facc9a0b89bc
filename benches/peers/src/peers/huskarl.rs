//! huskarl: an `HttpAuthorizer` over its in-memory cache, with the request loop of its guide.

use std::sync::Arc;

use ::huskarl::authorizer::HttpAuthorizer;
use ::huskarl::cache::{GrantTokenSource, InMemoryRefreshTokenStore, InMemoryTokenCache};
use ::huskarl::core::client_auth::ClientSecret;
use ::huskarl::core::secrets::ProvidedSecret;
use ::huskarl::grant::client_credentials::{
    ClientCredentialsGrant, ClientCredentialsGrantParameters,
};
use http::StatusCode;
use huskarl_reqwest::ReqwestClient;
use tower::Service as _;

use crate::api::{Api, request};
use crate::peer::{About, BoxError, Peer};

#[derive(Clone)]
pub struct Huskarl {
    authorizer: Arc<HttpAuthorizer>,
    api: Api,
}

impl Peer for Huskarl {
    const ABOUT: About = About {
        name: "huskarl",
        packages: &["huskarl", "huskarl-reqwest"],
        manifest: r#"
            huskarl = "="
            huskarl-reqwest = "="
        "#,
        ..About::DEFAULT
    };

    async fn connect(url: &str, api: Api) -> Result<Self, BoxError> {
        let grant = ClientCredentialsGrant::builder()
            .client_id("benches")
            .client_auth(ClientSecret::new(ProvidedSecret::new("secret".into())))
            .token_endpoint(url.parse()?)
            .http_client(ReqwestClient::builder().build().await?)
            .build();
        let source = GrantTokenSource::builder()
            .grant(grant)
            .grant_parameters(ClientCredentialsGrantParameters::builder().build())
            .refresh_store(InMemoryRefreshTokenStore::default())
            .build();
        let cache = InMemoryTokenCache::builder().source(source).build();
        let authorizer = HttpAuthorizer::builder().cache(cache).build();
        Ok(Self { authorizer: Arc::new(authorizer), api })
    }

    async fn send(&mut self, headers: usize) -> Result<StatusCode, BoxError> {
        match self.attempt(headers).await? {
            StatusCode::UNAUTHORIZED => self.attempt(headers).await,
            status => Ok(status),
        }
    }
}

impl Huskarl {
    async fn attempt(&mut self, headers: usize) -> Result<StatusCode, BoxError> {
        let mut request = request(headers);
        let uri = request.uri().clone();
        let authorization = self.authorizer.get_headers(request.method(), &uri).await?;
        request.headers_mut().extend(authorization);
        let response = self.api.call(request).await?;
        self.authorizer.process_response(&uri, response.headers());
        Ok(response.status())
    }
}
