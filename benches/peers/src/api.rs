//! The service below each peer: in this process, because its own time would hide the differences.

use std::convert::Infallible;
use std::future::Future;
use std::hint::black_box;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use tokio::sync::Semaphore;
use tower::Service;

use crate::peer::BoxError;

pub type Body = Full<Bytes>;

/// The origin of the API, which nothing resolves.
pub const ORIGIN: &str = "https://api.example.com";

/// Returns a request with this number of headers. Their values are shared, as those of a client's defaults are.
///
/// Never inlined: the same instructions build the requests of all peers.
#[inline(never)]
pub fn request(headers: usize) -> Request<Body> {
    let mut request = Request::new(Body::from(Bytes::from_static(b"{}")));
    *request.uri_mut() = Uri::from_static("https://api.example.com/v1/things");
    for (name, value) in &HEADERS[..headers] {
        request.headers_mut().insert(name, value.clone());
    }
    black_box(request)
}

pub static HEADERS: LazyLock<[(HeaderName, HeaderValue); 8]> = LazyLock::new(|| {
    use http::header::*;
    [
        ACCEPT,
        ACCEPT_ENCODING,
        ACCEPT_LANGUAGE,
        CACHE_CONTROL,
        CONTENT_TYPE,
        IF_MATCH,
        ORIGIN,
        USER_AGENT,
    ]
    .map(|name| (name, Bytes::from(b"some-value-of-usual-length".to_vec())))
    .map(|(name, value)| (name, HeaderValue::from_maybe_shared(value).unwrap_or(DEFAULT)))
});

const DEFAULT: HeaderValue = HeaderValue::from_static("");

/// Sends a request through a service.
pub async fn send<S>(service: &mut S, request: Request<Body>) -> Result<StatusCode, BoxError>
where
    S: Service<Request<Body>, Response = Response<Body>, Error: Into<BoxError>>,
{
    std::future::poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into)?;
    let response = service.call(request).await.map_err(Into::into)?;
    Ok(response.status())
}

/// A service that does nothing, or holds requests back until a [`Hold`] lets them pass. `E` is the error that it never returns.
pub struct Api<E = Infallible> {
    hold: Option<Arc<Hold>>,
    error: PhantomData<fn() -> E>,
}

impl Api {
    /// Answers each request at once, with status 200.
    pub fn new() -> Self {
        Self { hold: None, error: PhantomData }
    }

    pub fn holding(hold: Arc<Hold>) -> Self {
        Self { hold: Some(hold), error: PhantomData }
    }

    /// Sets the type of the error, for peers that require one of their own.
    pub fn with_error<E>(self) -> Api<E> {
        Api { hold: self.hold, error: PhantomData }
    }

    /// Returns the status of a request with this token, for peers that have a request type of their own.
    pub async fn status(&self, token: impl Fn() -> Vec<u8>) -> StatusCode {
        match &self.hold {
            Some(hold) => hold.clone().status(token()).await,
            None => StatusCode::OK,
        }
    }
}

impl<E> Clone for Api<E> {
    fn clone(&self) -> Self {
        Self { hold: self.hold.clone(), error: PhantomData }
    }
}

impl<B, E> Service<Request<B>> for Api<E> {
    type Response = Response<Body>;
    type Error = E;
    type Future = ApiFuture<E>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ApiFuture<E> {
        let answer = match &self.hold {
            None => {
                black_box(&request);
                Answer::Ready(Some(Response::new(Body::default())))
            }
            Some(hold) => {
                let token = request.headers().get(AUTHORIZATION);
                let token = token.map_or_else(Vec::new, |value| value.as_bytes().to_vec());
                Answer::Held(Box::pin(hold.clone().status(token)))
            }
        };
        ApiFuture { answer, error: PhantomData }
    }
}

pub struct ApiFuture<E> {
    answer: Answer,
    error: PhantomData<fn() -> E>,
}

enum Answer {
    Ready(Option<Response<Body>>),
    Held(Pin<Box<dyn Future<Output = StatusCode> + Send>>),
}

impl<E> Future for ApiFuture<E> {
    type Output = Result<Response<Body>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let status = match &mut self.answer {
            Answer::Ready(response) => {
                return Poll::Ready(Ok(response.take().unwrap_or_default()));
            }
            Answer::Held(status) => std::task::ready!(status.as_mut().poll(cx)),
        };
        let mut response = Response::new(Body::default());
        *response.status_mut() = status;
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, CHALLENGE);
        }
        Poll::Ready(Ok(response))
    }
}

const CHALLENGE: HeaderValue = HeaderValue::from_static(r#"Bearer error="invalid_token""#);

/// Rejects the first token that it sees, once [armed](Self::arm). The requests that were sent with it are held back and rejected one
/// by one, so that their responses arrive while a newer token is in use. A request without a token is always rejected.
pub struct Hold {
    old: Mutex<Old>,
    places: AtomicUsize,
    arrived: Semaphore,
    turns: Semaphore,
}

#[derive(Default)]
struct Old {
    token: Option<Vec<u8>>,
    armed: bool,
}

impl Hold {
    /// `places` is the number of requests to hold back. Later ones with the old token are rejected at once.
    pub fn new(places: usize) -> Arc<Self> {
        let (old, places) = (Mutex::default(), AtomicUsize::new(places));
        Arc::new(Self { old, places, arrived: Semaphore::new(0), turns: Semaphore::new(0) })
    }

    /// Rejects the token of the requests so far.
    pub fn arm(&self) {
        self.lock().armed = true;
    }

    /// Waits until this number of requests is held back.
    pub async fn arrived(&self, requests: u32) {
        // Never closed.
        let _ = self.arrived.acquire_many(requests).await;
    }

    /// Rejects one of the requests that are held back.
    pub fn release_one(&self) {
        self.turns.add_permits(1);
    }

    async fn status(self: Arc<Self>, token: Vec<u8>) -> StatusCode {
        if !self.rejects(token) {
            return StatusCode::OK;
        }
        let one_less = |places: usize| places.checked_sub(1);
        if self.places.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            self.arrived.add_permits(1);
            if let Ok(turn) = self.turns.acquire().await {
                turn.forget();
            }
        }
        StatusCode::UNAUTHORIZED
    }

    fn rejects(&self, token: Vec<u8>) -> bool {
        let mut old = self.lock();
        if !token.starts_with(b"Bearer ") {
            return true;
        }
        if old.armed {
            return old.token.as_ref() == Some(&token);
        }
        old.token = Some(token);
        false
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Old> {
        self.old.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
