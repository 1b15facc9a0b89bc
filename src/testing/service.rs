//! The server as a tower service.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use tower_service::Service;

use super::body::{ConnectionDropped, ResponseBody};
use super::fault::{Answered, Fault, Normal};
use super::resource::{self, ResourceRequest};
use super::shared::{Shared, Visit};
use super::token_endpoint::TokenRequest;

/// An [`AuthorizationServer`](super::AuthorizationServer), or one of its endpoints, as a tower service.
///
/// Returned by [`service`](super::AuthorizationServer::service), [`token_service`](super::AuthorizationServer::token_service) and
/// [`resource_service`](super::AuthorizationServer::resource_service). It accepts requests with any body and is always ready. The
/// only error is a [dropped connection](super::Fault::drop_connection). Delays use tokio's timer, so that they end at once while
/// its time is paused.
///
/// # Examples
///
/// ```
/// use http::{Request, StatusCode};
/// use http_body_util::Empty;
/// use tower::ServiceExt;
/// use tower_refresh::testing::{AuthorizationServer, ServerService};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let service: ServerService = AuthorizationServer::new().resource_service();
/// let request = Request::get("https://api.example.com/things").body(Empty::<&[u8]>::new())?;
/// assert_eq!(service.oneshot(request).await?.status(), StatusCode::UNAUTHORIZED);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ServerService {
    shared: Arc<Shared>,
    route: Route,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Route {
    /// By the path.
    All,
    /// The token endpoint, and the revocation endpoint at `/revoke`.
    Token,
    Resource,
}

impl ServerService {
    pub(super) fn new(shared: Arc<Shared>, route: Route) -> Self {
        Self { shared, route }
    }
}

impl<B> Service<Request<B>> for ServerService
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
{
    type Response = Response<ResponseBody>;
    type Error = ConnectionDropped;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectionDropped>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        let shared = self.shared.clone();
        let path = request.uri().path();
        let inner: Answer = match self.route {
            Route::All | Route::Token if path == "/revoke" => Box::pin(revoke(shared, request)),
            Route::All if path == "/token" => Box::pin(token(shared, request)),
            Route::Token => Box::pin(token(shared, request)),
            Route::All | Route::Resource => Box::pin(resource(shared, request)),
        };
        ResponseFuture { inner }
    }
}

impl fmt::Debug for ServerService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerService").field("route", &self.route).finish_non_exhaustive()
    }
}

/// The future of a [`ServerService`].
///
/// # Cancel safety
///
/// Dropping it abandons the request. If the request was processed before that, a refresh token stays spent.
///
/// # Examples
///
/// ```
/// use http::Request;
/// use http_body_util::Empty;
/// use tower::Service;
/// use tower_refresh::testing::{AuthorizationServer, ResponseFuture};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut service = AuthorizationServer::new().service();
/// let request = Request::get("https://api.example.com/").body(Empty::<&[u8]>::new())?;
/// let response: ResponseFuture = service.call(request);
/// response.await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture {
    inner: Answer,
}

type Answer =
    Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, ConnectionDropped>> + Send>>;

impl Future for ResponseFuture {
    type Output = Result<Response<ResponseBody>, ConnectionDropped>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.inner.as_mut().poll(cx)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

async fn token<B: http_body::Body>(
    shared: Arc<Shared>,
    request: Request<B>,
) -> Result<Response<ResponseBody>, ConnectionDropped> {
    let visit = Visit::to_token_endpoint(&shared);
    let fault = shared.token_faults.take();
    let (head, body) = request.into_parts();
    // Read to its end first: a connection that is closed with unread bytes is reset.
    let request = TokenRequest::read(head, read(body).await.as_ref());
    *request.grant()(&mut shared.lock().counters) += 1;

    let answered = answer(fault, || Normal::new(request.process(&shared))).await;
    visit.end(match &answered {
        Ok(Answered { is_normal: false, .. }) | Err(_) => {
            |counters| &mut counters.token_requests_faulted
        }
        Ok(answered) if answered.response.status().is_success() => {
            |counters| &mut counters.token_requests_granted
        }
        Ok(_) => |counters| &mut counters.token_requests_refused,
    });
    answered.map(|answered| answered.response)
}

async fn revoke<B: http_body::Body>(
    shared: Arc<Shared>,
    request: Request<B>,
) -> Result<Response<ResponseBody>, ConnectionDropped> {
    let (head, body) = request.into_parts();
    let request = TokenRequest::read(head, read(body).await.as_ref());
    Ok(request.revoke(&shared).map(ResponseBody::new))
}

async fn resource<B: http_body::Body>(
    shared: Arc<Shared>,
    request: Request<B>,
) -> Result<Response<ResponseBody>, ConnectionDropped> {
    let visit = Visit::to_resource(&shared);
    let fault = shared.resource_faults.take();
    let (head, body) = request.into_parts();
    let request = ResourceRequest::read(head);
    let body = match request.answers_early() {
        true => Some(Bytes::new()),
        false => read(body).await,
    };

    let answered = answer(fault, || request.process(&shared, body)).await;
    visit.end(match &answered {
        Ok(answered) => resource::outcome(answered.response.status()),
        Err(_) => |counters| &mut counters.resource_requests_dropped,
    });
    answered.map(|answered| answered.response)
}

async fn answer(
    fault: Option<Fault>,
    process: impl FnOnce() -> Normal,
) -> Result<Answered, ConnectionDropped> {
    match fault {
        Some(fault) => fault.answer(process).await,
        None => Ok(process().answer().await),
    }
}

/// Returns the whole body, or `None` if it ends with an error.
async fn read<B: http_body::Body>(body: B) -> Option<Bytes> {
    body.collect().await.ok().map(|whole| whole.to_bytes())
}
