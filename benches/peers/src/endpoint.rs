//! The token endpoint that all peers request tokens from: HTTP/1.1 on loopback, with a latency and an outcome that a scenario sets.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

/// A running token endpoint. Each success is a new token. Dropping it stops the server.
pub struct Endpoint {
    url: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

/// The way in which an [`Endpoint`] answers.
#[derive(Clone, Copy)]
pub struct Behaviour {
    pub latency: Duration,
    pub status: StatusCode,
}

struct Shared {
    behaviour: Behaviour,
    calls: AtomicUsize,
    called: Notify,
}

impl Endpoint {
    /// Binds a free port of 127.0.0.1 and answers every request.
    pub async fn start(behaviour: Behaviour) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/token", listener.local_addr()?);
        let (calls, called) = Default::default();
        let shared = Arc::new(Shared { behaviour, calls, called });
        let server = tokio::spawn(serve(listener, shared.clone()));
        Ok(Self { url, shared, server })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the number of requests so far.
    pub fn calls(&self) -> usize {
        self.shared.calls.load(Ordering::SeqCst)
    }

    /// Waits until a request has arrived.
    pub async fn called(&self) {
        let called = self.shared.called.notified();
        if self.calls() == 0 {
            called.await;
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = shared.clone();
        connections.spawn(async move {
            let service = service_fn(|_| answer(&shared));
            // A client may close its connection at any time.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(shared: &Shared) -> Result<Response<Full<Bytes>>, Infallible> {
    let number = shared.calls.fetch_add(1, Ordering::SeqCst) + 1;
    shared.called.notify_waiters();
    sleep(shared.behaviour.latency).await;
    let body = if shared.behaviour.status.is_success() {
        json!({ "access_token": access_token(number), "token_type": "Bearer", "expires_in": 3600 })
    } else {
        json!({ "error": "temporarily_unavailable" })
    };
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = shared.behaviour.status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    Ok(response)
}

/// A JSON Web Token, because qcs-api-client reads the time of expiry from it. Nothing checks the signature.
fn access_token(number: usize) -> String {
    let claims = json!({ "exp": 4_102_444_800_u64, "sub": "benches", "jti": number });
    let parts = [r#"{"alg":"RS256","typ":"JWT"}"#, &claims.to_string(), "signature of some length"];
    parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
}
