//! An API behind a socket that returns each request as JSON, and rejects the tokens that a test names.
#![allow(clippy::disallowed_types, reason = "locks shared with the code under test")]

use std::future::pending;
use std::sync::{Arc, Mutex};

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderName, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value};
use tokio::net::TcpListener;

use crate::harness;

pub struct Echo {
    pub origin: String,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<Value>>,
    rejected: Mutex<Vec<String>>,
    /// The destination of `/moved`.
    moved: Mutex<Option<String>>,
}

impl Echo {
    /// Serves until the runtime ends.
    pub async fn serve() -> Self {
        let seen = Arc::new(Seen::default());
        let router = axum::Router::new().fallback(respond).with_state(Arc::clone(&seen));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { origin, seen }
    }

    /// Rejects a token from now on.
    pub fn reject(&self, token: &str) {
        self.seen.rejected.lock().unwrap().push(token.to_owned());
    }

    /// Redirects `/moved` to this URL, and not to `/new?a=b` of the same origin.
    pub fn redirect_to(&self, url: String) {
        *self.seen.moved.lock().unwrap() = Some(url);
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// Returns a field of each request that was received: a header, `method`, `uri` or `body`.
    pub fn received(&self, field: &str) -> Vec<String> {
        let requests = self.seen.requests.lock().unwrap();
        let text = |request: &Value| request[field].as_str().unwrap_or_default().to_owned();
        requests.iter().map(text).collect()
    }
}

async fn respond(State(seen): State<Arc<Seen>>, request: Request) -> Response {
    let token = harness::token_of(&request).unwrap_or_default().to_owned();
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut received: Map<_, _> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    received.insert("method".into(), head.method.as_str().into());
    received.insert("uri".into(), head.uri.to_string().into());
    received.insert("body".into(), String::from_utf8_lossy(&body).into());
    let received = Value::from(received);
    seen.requests.lock().unwrap().push(received.clone());
    if seen.rejected.lock().unwrap().contains(&token) {
        return (StatusCode::UNAUTHORIZED, "the token was revoked").into_response();
    }
    let with_header = |status: StatusCode, name: HeaderName, value: &str| {
        (status, [(name, HeaderValue::from_str(value).unwrap())], received.to_string())
            .into_response()
    };
    match head.uri.path() {
        "/hang" => pending().await,
        "/hang-midway" => {
            let first =
                stream::iter([Ok::<_, axum::Error>(http_body::Frame::data(Bytes::from("{")))]);
            Response::new(axum::body::Body::new(StreamBody::new(first.chain(stream::pending()))))
        }
        "/moved" => {
            let to = seen.moved.lock().unwrap().clone();
            let to = to.as_deref().unwrap_or("/new?a=b");
            with_header(StatusCode::TEMPORARY_REDIRECT, header::LOCATION, to)
        }
        "/log-in" => with_header(StatusCode::OK, header::SET_COOKIE, "session=open"),
        "/upgrade" => {
            let upgraded = hyper::upgrade::on(http::Request::from_parts(head, ()));
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded.await.unwrap()));
                tokio::io::copy(&mut read, &mut write).await
            });
            (StatusCode::SWITCHING_PROTOCOLS, [("connection", "upgrade"), ("upgrade", "echo")])
                .into_response()
        }
        "/teapot" => StatusCode::IM_A_TEAPOT.into_response(),
        _ => with_header(StatusCode::OK, header::CONTENT_TYPE, "application/json"),
    }
}
