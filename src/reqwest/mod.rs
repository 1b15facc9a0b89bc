//! reqwest as a service of `http` types.
//!
//! `reqwest::Client` is a tower service of reqwest's own requests and responses. [`ReqwestService`] is one of
//! `http::Request` and `http::Response`, as everything here is, so that one client serves on both sides of a
//! [`RefreshLayer`](crate::RefreshLayer): beneath it, and at the token endpoint.
//!
//! ```toml
//! [dependencies]
//! http = "1"
//! reqwest = "0.13"
//! tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
//! tower = { version = "0.5", features = ["util"] }
//! tower-refresh = { version = "0.1", features = ["reqwest"] }
//! ```
//!
//! TLS comes from the features of your own `reqwest` dependency, by default `default-tls`. The feature `reqwest` of this crate
//! enables none of them.
//!
//! ```no_run
//! use http::Request;
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_refresh::RefreshLayer;
//! # #[cfg(feature = "oauth2")]
//! use tower_refresh::oauth2::{ClientAuth, RefreshTokenGrant, TokenEndpoint};
//! use tower_refresh::reqwest::ReqwestService;
//!
//! # #[cfg(feature = "oauth2")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_refresh::BoxError> {
//! let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
//! let http = ReqwestService::new(client);
//!
//! let endpoint = TokenEndpoint::new(http.clone(), "https://auth.example.com/oauth2/token")?
//!     .client_auth(ClientAuth::basic("my-client", std::env::var("CLIENT_SECRET")?));
//! let source = RefreshTokenGrant::new(endpoint, std::env::var("REFRESH_TOKEN")?);
//! let api = ServiceBuilder::new()
//!     .layer(RefreshLayer::new(source).origin("https://api.example.com"))
//!     .service(http);
//!
//! let request = Request::post("https://api.example.com/v1/notes").body(reqwest::Body::from("a note"))?;
//! let answer = api.oneshot(request).await?;
//! // Whoever wants reqwest's own methods takes its response back.
//! println!("{}", reqwest::Response::from(answer).text().await?);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "oauth2"))]
//! # fn main() {}
//! ```
//!
//! # Redirects
//!
//! reqwest follows redirects by itself unless its [`Policy`](reqwest::redirect::Policy) says otherwise, and it does so
//! *below* the layer, which asks about the origin once, before. reqwest 0.13 takes `Authorization` away where scheme, host
//! or port change, so that the token stays at home. Even so, three things speak for `redirect::Policy::none()`, with
//! tower-http's `FollowRedirectLayer` outside the layer if redirects are to be followed:
//!
//! - A token in a [header of its own](crate::RefreshLayer::header) is not taken away.
//! - A 401 from the foreign origin looks like a rejected token: it costs a renewal and a second attempt.
//! - A refresh token is for the token endpoint alone. The client of a `TokenEndpoint` must follow none.
//!
//! # Proxies
//!
//! reqwest takes proxies from the environment (`http_proxy`, `all_proxy`, …), for loopback too unless `no_proxy` names
//! it. Over plaintext HTTP the proxy can read all of it, tokens and client secrets, and may be another machine: what may
//! go without TLS because it is on loopback wants a client with `no_proxy()`.
//!
//! # Bodies
//!
//! Any body whose data is [`Bytes`] may be sent. What is in memory stays there, so that reqwest can send it again after a
//! redirect (307 or 308): that is `Full<Bytes>`, `Empty<Bytes>`, `String`, and a `reqwest::Body` that was made from bytes,
//! and these types only. All else is streamed, frame by frame, trailers included, and so are the same bytes in a box: such
//! a request is not sent again by reqwest, and the redirect is the answer. Answers are streamed too.
//!
//! A token request is streamed as well, although it is in memory: a refresh token is sent once, and a 307 or 308 is the
//! token endpoint's answer. reqwest follows a 301, 302 or 303 without the body, and any redirect if all parameters are in the
//! query; unless that leads to tokens, the error names the redirect, and never denies the grant. Streaming also shows whether reqwest has sent the request, so that a
//! `TokenEndpoint` knows when it may be repeated.
//!
//! # What stays behind
//!
//! reqwest takes over method, URI, version, headers and body. Extensions of a request are dropped, so that an extended
//! CONNECT (RFC 8441) is not possible. The URI must be absolute, and its path begin with a slash: there is no
//! `OPTIONS *`.

use std::any::Any;
use std::fmt;
use std::future::{self, Future, Ready};
use std::mem;
use std::pin::Pin;
#[expect(
    clippy::disallowed_types,
    reason = "makes a body `Sync` that is not; nobody ever waits for it, since a body has one owner"
)]
use std::sync::Mutex;
use std::sync::{MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::Either;
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
#[cfg(feature = "oauth2")]
use http_body_util::BodyExt as _;
use http_body_util::{Empty, Full};
use pin_project_lite::pin_project;
use reqwest::ResponseBuilderExt as _;
use tower_service::Service;

use crate::error::BoxError;
#[cfg(feature = "oauth2")]
use crate::oauth2::{WasSent, Watch};

/// A `reqwest::Client` as a service of `http` types.
///
/// See the [module](self) for an example, and for what becomes of redirects, bodies and extensions. Cloning it is cheap,
/// and it is always ready.
///
/// # Errors
///
/// reqwest's own, with all that can be asked of it (`is_timeout`, `is_connect`, …) and its causes. The URL in it has lost
/// its query, fragment and user name, which `reqwest::Error` shows otherwise.
///
/// # Cancel safety
///
/// Dropping the future ends the request, as with reqwest.
#[derive(Clone)]
pub struct ReqwestService {
    client: reqwest::Client,
}

impl ReqwestService {
    /// Makes a service of a client, which keeps its timeouts, proxies, default headers and redirect policy.
    #[must_use]
    pub fn new(client: reqwest::Client) -> Self {
        Self { client }
    }
}

impl<B> Service<Request<B>> for ReqwestService
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<reqwest::Body>;
    type Error = reqwest::Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), reqwest::Error>> {
        self.client.poll_ready(cx).map_err(without_query)
    }

    fn call(&mut self, mut request: Request<B>) -> ResponseFuture {
        // reqwest reads the URI as text, in which such a path would go on with the host, and the token go elsewhere.
        if !request.uri().path().starts_with('/') {
            *request.uri_mut() = Uri::default();
        }
        #[cfg(feature = "oauth2")]
        let watch = request.extensions().get().map(WasSent::watch);
        #[cfg(feature = "oauth2")]
        let watched = watch.clone();
        #[cfg(feature = "oauth2")]
        let request = request.map(|body| match watch {
            // Not as what is in memory, which reqwest would send again behind our back.
            Some(watch) => {
                let body = body.map_err(Into::<BoxError>::into);
                reqwest::Body::wrap(Shareable::new(Watched { body: Box::pin(body), watch }))
            }
            None => into_reqwest(body),
        });
        #[cfg(not(feature = "oauth2"))]
        let request = request.map(into_reqwest);
        match reqwest::Request::try_from(request) {
            Ok(request) => {
                let asked = Asked {
                    #[cfg(feature = "oauth2")]
                    watched: watched.map(|watch| (watch, request.url().clone())),
                };
                ResponseFuture { response: Either::Right(self.client.call(request)), asked }
            }
            Err(error) => ResponseFuture {
                response: Either::Left(future::ready(Err(error))),
                asked: Asked::default(),
            },
        }
    }
}

impl From<reqwest::Client> for ReqwestService {
    fn from(client: reqwest::Client) -> Self {
        Self::new(client)
    }
}

impl fmt::Debug for ReqwestService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client would show its default headers, whatever is in them.
        f.debug_struct("ReqwestService").finish_non_exhaustive()
    }
}

// ===== impl ResponseFuture =====

pin_project! {
    /// The future of a [`ReqwestService`].
    pub struct ResponseFuture {
        #[pin]
        response: Either<Ready<Result<reqwest::Response, reqwest::Error>>, Sent>,
        asked: Asked,
    }
}

type Sent = <reqwest::Client as Service<reqwest::Request>>::Future;

impl Future for ResponseFuture {
    type Output = Result<Response<reqwest::Body>, reqwest::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.response.poll(cx)).map_err(without_query)?;
        this.asked.answered(&response);
        Poll::Ready(Ok(into_http(response)))
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// The URL of a token request, for which it is reported that a redirect was followed.
#[derive(Default)]
struct Asked {
    #[cfg(feature = "oauth2")]
    watched: Option<(Watch, reqwest::Url)>,
}

impl Asked {
    #[cfg_attr(
        not(feature = "oauth2"),
        allow(unused_variables, clippy::unused_self, reason = "there are no token requests")
    )]
    fn answered(&self, response: &reqwest::Response) {
        #[cfg(feature = "oauth2")]
        if let Some((watch, url)) = &self.watched
            && response.url() != url
        {
            watch.redirected();
        }
    }
}

fn into_http(response: reqwest::Response) -> Response<reqwest::Body> {
    // reqwest looks for the URL there when it takes a response back; it forgets to put it there.
    let mut with_url = Response::builder().url(response.url().clone());
    let mut response = Response::from(response);
    if let Some(extensions) = with_url.extensions_mut() {
        response.extensions_mut().extend(mem::take(extensions));
    }
    response
}

fn without_query(mut error: reqwest::Error) -> reqwest::Error {
    if let Some(url) = error.url_mut() {
        url.set_query(None);
        url.set_fragment(None);
        // An error: a URL that cannot have a user.
        let _ = url.set_username("");
        let _ = url.set_password(None);
    }
    error
}

// ===== bodies =====

/// Makes a body of reqwest's, one in memory if it can be seen to be there: reqwest cannot send a stream twice.
fn into_reqwest<B>(mut body: B) -> reqwest::Body
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let any: &mut dyn Any = &mut body;
    if let Some(body) = any.downcast_mut::<reqwest::Body>() {
        mem::take(body)
    } else if let Some(full) = any.downcast_mut::<Full<Bytes>>() {
        mem::take(full).into_inner().unwrap_or_default().into()
    } else if let Some(string) = any.downcast_mut::<String>() {
        mem::take(string).into()
    } else if any.is::<Empty<Bytes>>() {
        reqwest::Body::default()
    } else {
        reqwest::Body::wrap(Shareable::new(body))
    }
}

/// The body of a token request, which tells when it is asked for.
#[cfg(feature = "oauth2")]
struct Watched<B> {
    body: Pin<Box<B>>,
    watch: Watch,
}

#[cfg(feature = "oauth2")]
impl<B: Body> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.watch.sending();
        self.body.as_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        let is_empty = self.body.is_end_stream();
        if is_empty {
            // A body that has nothing more is not asked for.
            self.watch.sending();
        }
        is_empty
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body that is `Sync`, which reqwest asks for and which axum's and tonic's bodies are not.
struct Shareable<B> {
    #[expect(clippy::disallowed_types, reason = "see its import")]
    body: Mutex<Pin<Box<B>>>,
}

impl<B> Shareable<B> {
    #[expect(clippy::disallowed_types, reason = "see its import")]
    fn new(body: B) -> Self {
        Self { body: Mutex::new(Box::pin(body)) }
    }

    fn body(&self) -> MutexGuard<'_, Pin<Box<B>>> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Body> Body for Shareable<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let body = self.body.get_mut().unwrap_or_else(PoisonError::into_inner);
        body.as_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body().size_hint()
    }
}
