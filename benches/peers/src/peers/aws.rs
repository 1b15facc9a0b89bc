//! aws-smithy-runtime: its lazy identity cache, and the header as its `BearerAuthSigner` writes it. The orchestrator around them,
//! which a program cannot do without, is left out in its favour.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_async::time::SystemTimeSource;
use aws_smithy_runtime::client::auth::http::BearerAuthScheme;
use aws_smithy_runtime::client::identity::IdentityCache;
use aws_smithy_runtime::client::orchestrator::endpoints::StaticUriEndpointResolver;
use aws_smithy_runtime::client::retries::strategy::NeverRetryStrategy;
use aws_smithy_runtime_api::client::auth::http::HTTP_BEARER_AUTH_SCHEME_ID;
use aws_smithy_runtime_api::client::auth::static_resolver::StaticAuthSchemeOptionResolver;
use aws_smithy_runtime_api::client::identity::http::Token;
use aws_smithy_runtime_api::client::identity::{
    Identity, IdentityFuture, ResolveCachedIdentity as _, ResolveIdentity, SharedIdentityCache,
    SharedIdentityResolver,
};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use http::header::AUTHORIZATION;
use http::{HeaderValue, StatusCode};

use crate::api::{self, Api, ORIGIN, request};
use crate::client::TokenClient;
use crate::peer::{About, BoxError, Peer};

#[derive(Clone)]
pub struct Aws {
    cache: SharedIdentityCache,
    resolver: SharedIdentityResolver,
    components: RuntimeComponents,
    config: Arc<ConfigBag>,
    api: Api,
}

impl Peer for Aws {
    const ABOUT: About = About {
        name: "aws-smithy-runtime",
        packages: &["aws-smithy-runtime"],
        manifest: r#"
            aws-smithy-async = { version = "=", features = ["rt-tokio"] }
            aws-smithy-runtime = { version = "=", features = ["client"] }
            aws-smithy-runtime-api = { version = "=", features = ["client", "http-auth"] }
            serde = { version = "=", features = ["derive"] }
            serde_json = "="
        "#,
        ..About::DEFAULT
    };

    async fn connect(url: &str, api: Api) -> Result<Self, BoxError> {
        let cache = IdentityCache::lazy().build();
        let resolver = SharedIdentityResolver::new(Resolver(TokenClient::new(url)?));
        let scheme = HTTP_BEARER_AUTH_SCHEME_ID;
        let components = RuntimeComponents::builder("benches")
            .with_auth_scheme_option_resolver(Some(StaticAuthSchemeOptionResolver::new(vec![
                scheme.clone(),
            ])))
            .with_endpoint_resolver(Some(StaticUriEndpointResolver::uri(ORIGIN)))
            .with_auth_scheme(BearerAuthScheme::new())
            .with_identity_cache(Some(cache.clone()))
            .with_identity_resolver(scheme, resolver.clone())
            .with_retry_strategy(Some(NeverRetryStrategy::new()))
            .with_sleep_impl(Some(TokioSleep::new()))
            .with_time_source(Some(SystemTimeSource::new()))
            .build()?;
        Ok(Self { cache, resolver, components, config: Arc::new(ConfigBag::base()), api })
    }

    async fn send(&mut self, headers: usize) -> Result<StatusCode, BoxError> {
        let mut request = request(headers);
        let identity = self
            .cache
            .resolve_cached_identity(self.resolver.clone(), &self.components, &self.config)
            .await?;
        let token = identity.data::<Token>().ok_or("the resolver returns tokens")?;
        let header = HeaderValue::from_str(&format!("Bearer {}", token.token()))?;
        request.headers_mut().insert(AUTHORIZATION, header);
        api::send(&mut self.api, request).await
    }
}

#[derive(Debug)]
struct Resolver(TokenClient);

impl ResolveIdentity for Resolver {
    fn resolve_identity<'a>(
        &'a self,
        _: &'a RuntimeComponents,
        _: &'a ConfigBag,
    ) -> IdentityFuture<'a> {
        IdentityFuture::new(async {
            let token = self.0.request().await?;
            let expires = SystemTime::now() + Duration::from_secs(token.expires_in);
            Ok(Identity::from(Token::new(token.access_token, Some(expires))))
        })
    }
}
