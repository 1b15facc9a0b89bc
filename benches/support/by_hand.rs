//! The layer that many programs write by hand: `AsyncFilter`, a token behind tokio's `Mutex`, and `tower::retry`.
//!
//! It fetches under the lock, so that one request fetches and the others wait. The header value is made once per token.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, StatusCode};
use tokio::sync::Mutex;
use tower::retry::Policy;
use tower_refresh::BoxError;

/// The cached token, and when it expires.
#[derive(Clone, Default)]
pub(crate) struct Cache(Arc<Mutex<Option<(HeaderValue, Instant)>>>);

impl Cache {
    /// Returns a request with the cached token, or with one that `fetch` returns beside its lifetime.
    pub(crate) async fn attach<B, F>(
        self,
        mut request: Request<B>,
        fetch: impl FnOnce() -> F,
    ) -> Result<Request<B>, BoxError>
    where
        F: Future<Output = Result<(String, Duration), BoxError>>,
    {
        let mut cached = self.0.lock().await;
        let value = match &*cached {
            Some((value, expires)) if Instant::now() < *expires => value.clone(),
            _ => {
                let (token, lifetime) = fetch().await?;
                let mut value = HeaderValue::try_from(format!("Bearer {token}"))?;
                value.set_sensitive(true);
                *cached = Some((value.clone(), Instant::now() + lifetime));
                value
            }
        };
        drop(cached);
        request.headers_mut().insert(AUTHORIZATION, value);
        Ok(request)
    }
}

/// Sends a clone of a request again after a 401, once.
#[derive(Clone, Default)]
pub(crate) struct RetryOnce {
    retried: bool,
}

impl<B: Clone, D, E> Policy<Request<B>, Response<D>, E> for RetryOnce {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<B>,
        result: &mut Result<Response<D>, E>,
    ) -> Option<Ready<()>> {
        let rejected =
            matches!(result, Ok(response) if response.status() == StatusCode::UNAUTHORIZED);
        let retry = rejected && !self.retried;
        self.retried = true;
        retry.then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        Some(request.clone())
    }
}
