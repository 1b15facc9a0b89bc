//! The layer that programs write by hand: tower's `AsyncFilter` with the token and its expiry behind tokio's `Mutex`, and
//! `tower::retry` if rejected requests are to be sent again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, StatusCode};
use tokio::sync::Mutex;
use tower::ServiceBuilder;
use tower::filter::{AsyncFilter, AsyncFilterLayer, AsyncPredicate};
use tower::retry::{Policy, Retry, RetryLayer};

use crate::api::{self, Api, Body, request};
use crate::client::TokenClient;
use crate::peer::{About, BoxError, Peer};

#[derive(Clone)]
pub struct WithoutRetry {
    service: AsyncFilter<Api, AddToken>,
}

impl Peer for WithoutRetry {
    const ABOUT: About = About {
        name: "by hand, without retry",
        packages: &["tower"],
        manifest: r#"
            tower = { version = "=", features = ["filter", "retry", "util"] }
            tokio = { version = "=", features = ["sync", "time"] }
            http = "="
            serde = { version = "=", features = ["derive"] }
            serde_json = "="
        "#,
        ..About::DEFAULT
    };

    async fn connect(url: &str, api: Api) -> Result<Self, BoxError> {
        let filter = AsyncFilterLayer::new(AddToken::new(url)?);
        Ok(Self { service: ServiceBuilder::new().layer(filter).service(api) })
    }

    async fn send(&mut self, headers: usize) -> Result<StatusCode, BoxError> {
        api::send(&mut self.service, request(headers)).await
    }
}

#[derive(Clone)]
pub struct WithRetry {
    service: Retry<OnceAfter401, AsyncFilter<Api, AddToken>>,
}

impl Peer for WithRetry {
    const ABOUT: About = About { name: "by hand, with tower::retry", ..WithoutRetry::ABOUT };

    async fn connect(url: &str, api: Api) -> Result<Self, BoxError> {
        let token = AddToken::new(url)?;
        let retry = RetryLayer::new(OnceAfter401 { token: token.clone(), done: false });
        let filter = AsyncFilterLayer::new(token);
        Ok(Self { service: ServiceBuilder::new().layer(retry).layer(filter).service(api) })
    }

    async fn send(&mut self, headers: usize) -> Result<StatusCode, BoxError> {
        api::send(&mut self.service, request(headers)).await
    }
}

#[derive(Clone)]
pub struct AddToken {
    shared: Arc<Shared>,
}

struct Shared {
    cached: Mutex<Option<Cached>>,
    client: TokenClient,
}

struct Cached {
    header: HeaderValue,
    expires: Instant,
}

impl AddToken {
    fn new(url: &str) -> Result<Self, BoxError> {
        let client = TokenClient::new(url)?;
        Ok(Self { shared: Arc::new(Shared { cached: Mutex::default(), client }) })
    }
}

impl Shared {
    async fn header(&self) -> Result<HeaderValue, BoxError> {
        let mut cached = self.cached.lock().await;
        if let Some(cached) = &*cached
            && Instant::now() < cached.expires
        {
            return Ok(cached.header.clone());
        }
        let token = self.client.request().await?;
        let mut header = HeaderValue::try_from(format!("Bearer {}", token.access_token))?;
        header.set_sensitive(true);
        let lifetime = Duration::from_secs(token.expires_in.saturating_sub(10));
        *cached = Some(Cached { header: header.clone(), expires: Instant::now() + lifetime });
        Ok(header)
    }
}

impl AsyncPredicate<Request<Body>> for AddToken {
    type Future = BoxFuture<'static, Result<Request<Body>, BoxError>>;
    type Request = Request<Body>;

    fn check(&mut self, mut request: Request<Body>) -> Self::Future {
        let shared = self.shared.clone();
        Box::pin(async move {
            let header = shared.header().await?;
            request.headers_mut().insert(AUTHORIZATION, header);
            Ok(request)
        })
    }
}

/// Discards the cached token after a 401, and sends the request once more.
#[derive(Clone)]
pub struct OnceAfter401 {
    token: AddToken,
    done: bool,
}

impl Policy<Request<Body>, Response<Body>, BoxError> for OnceAfter401 {
    type Future = BoxFuture<'static, ()>;

    fn retry(
        &mut self,
        _: &mut Request<Body>,
        result: &mut Result<Response<Body>, BoxError>,
    ) -> Option<Self::Future> {
        let rejected = result.as_ref().is_ok_and(|it| it.status() == StatusCode::UNAUTHORIZED);
        if !rejected || std::mem::replace(&mut self.done, true) {
            return None;
        }
        let shared = self.token.shared.clone();
        Some(Box::pin(async move { *shared.cached.lock().await = None }))
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        Some(request.clone())
    }
}
