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
use super::fault::Honest;
use super::resource::{self, ResourceRequest};
use super::shared::{Shared, Visit};
use super::token_endpoint::TokenRequest;

/// An [`AuthorizationServer`](super::AuthorizationServer), or one of its endpoints, as a tower service.
///
/// It is made by [`service`](super::AuthorizationServer::service),
/// [`token_service`](super::AuthorizationServer::token_service) and
/// [`resource_service`](super::AuthorizationServer::resource_service), takes requests with any body, is always ready,
/// and fails only where a [fault](super::Fault::drop_connection) has ordered it. Delays are tokio's, so that they pass
/// at once while its time is paused.
#[derive(Clone)]
pub struct ServerService {
    shared: Arc<Shared>,
    route: Route,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Route {
    /// By the path.
    All,
    /// The token endpoint, and the revocation endpoint under its path.
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
/// Dropping it is what a caller does who goes away. What was processed by then stays processed: a refresh token that
/// was spent is spent.
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

async fn token<B>(
    shared: Arc<Shared>,
    request: Request<B>,
) -> Result<Response<ResponseBody>, ConnectionDropped>
where
    B: http_body::Body,
{
    let visit = Visit::to_token_endpoint(&shared);
    let fault = shared.token_faults.take();
    let (head, body) = request.into_parts();
    // Read to its end before anything is decided: a connection that is closed with unread bytes is reset.
    let request = TokenRequest::read(head, read(body).await.as_ref());
    *request.grant()(&mut shared.lock().counters) += 1;

    let process = || Honest::new(request.process(&shared));
    let struck = match fault {
        Some(fault) => fault.strike(process).await,
        None => Ok(process().answer().await),
    };
    visit.end(match &struck {
        Ok(struck) if !struck.honest => |counters| &mut counters.token_requests_faulted,
        Ok(struck) if struck.response.status().is_success() => {
            |counters| &mut counters.token_requests_granted
        }
        Ok(_) => |counters| &mut counters.token_requests_refused,
        Err(_) => |counters| &mut counters.token_requests_faulted,
    });
    struck.map(|struck| struck.response)
}

async fn revoke<B>(
    shared: Arc<Shared>,
    request: Request<B>,
) -> Result<Response<ResponseBody>, ConnectionDropped>
where
    B: http_body::Body,
{
    let (head, body) = request.into_parts();
    let request = TokenRequest::read(head, read(body).await.as_ref());
    Ok(request.revoke(&shared).map(ResponseBody::new))
}

async fn resource<B>(
    shared: Arc<Shared>,
    request: Request<B>,
) -> Result<Response<ResponseBody>, ConnectionDropped>
where
    B: http_body::Body,
{
    let visit = Visit::to_resource(&shared);
    let fault = shared.resource_faults.take();
    let (head, body) = request.into_parts();
    let request = ResourceRequest::read(head);
    let body = match request.answers_early() {
        true => Some(Bytes::new()),
        false => read(body).await,
    };

    let process = || request.process(&shared, body);
    let struck = match fault {
        Some(fault) => fault.strike(process).await,
        None => Ok(process().answer().await),
    };
    visit.end(match &struck {
        Ok(struck) => resource::outcome(struck.response.status()),
        Err(_) => |counters| &mut counters.resource_requests_dropped,
    });
    struck.map(|struck| struck.response)
}

/// The whole body; nothing if it ends in an error.
async fn read<B: http_body::Body>(body: B) -> Option<Bytes> {
    body.collect().await.ok().map(|whole| whole.to_bytes())
}
