//! Token sources and a resource server that a test controls.
#![allow(dead_code, reason = "compiled into several crates, which use different parts")]

use std::convert::Infallible;
use std::future::{Future, pending};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use tokio::net::TcpSocket;
use tokio::sync::{mpsc, oneshot, watch};
use tower::util::BoxCloneSyncService;
use tower_refresh::testing::TokioClock;
use tower_refresh::{RefreshLayer, RefreshPolicy, Renewal, TokenError, TokenSet, TokenSource};

pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(86400);

/// A policy over tokio's paused clock, without jitter.
pub fn policy() -> RefreshPolicy {
    RefreshPolicy::default().clock(TokioClock::new()).jitter(Duration::ZERO)
}

pub fn tokens(token: &str) -> TokenSet {
    TokenSet::bearer(token).expect("a good token").with_refresh_token(format!("refresh-{token}"))
}

// ===== a source that the test answers =====

/// Passes each fetch to the test, which answers it, or drops it to leave it pending.
#[derive(Clone, Debug)]
pub struct Puppet {
    asked: mpsc::UnboundedSender<Asked>,
}

#[derive(Debug)]
pub struct Strings {
    asked: mpsc::UnboundedReceiver<Asked>,
}

#[derive(Debug)]
pub struct Asked {
    pub renewal: Renewal,
    answer: oneshot::Sender<Result<TokenSet, TokenError>>,
}

pub fn puppet() -> (Puppet, Strings) {
    let (asked, asked_receiver) = mpsc::unbounded_channel();
    (Puppet { asked }, Strings { asked: asked_receiver })
}

impl TokenSource for Puppet {
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        let (answer, answered) = oneshot::channel();
        let _ = self.asked.send(Asked { renewal, answer });
        match answered.await {
            Ok(answer) => answer,
            Err(_) => pending().await,
        }
    }
}

impl Strings {
    pub async fn next(&mut self) -> Asked {
        self.asked.recv().await.expect("the source is still there")
    }

    /// Returns the number of fetches that the test has not taken yet.
    pub fn count(&mut self) -> usize {
        std::iter::from_fn(|| self.asked.try_recv().ok()).count()
    }
}

impl Asked {
    pub fn answer(self, tokens: impl Into<TokenSet>) {
        self.answer.send(Ok(tokens.into())).expect("the fetch still waits");
    }

    pub fn fail(self, error: TokenError) {
        self.answer.send(Err(error)).expect("the fetch still waits");
    }
}

// ===== a source that issues numbered tokens =====

/// Issues `t1`, `t2`, … of one lifetime, each after a delay, and counts them.
#[derive(Clone, Debug)]
pub struct Mint {
    calls: Arc<AtomicUsize>,
    delay: Duration,
    lifetime: Option<Duration>,
    outage: Arc<watch::Sender<Option<TokenError>>>,
}

impl Mint {
    pub fn new(lifetime: Duration) -> Self {
        let (calls, outage) = Default::default();
        Self { calls, delay: Duration::from_millis(50), lifetime: Some(lifetime), outage }
    }

    pub fn without_expiry() -> Self {
        Self { lifetime: None, ..Self::new(HOUR) }
    }

    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Fails with this error from now on, or issues tokens again.
    pub fn fail(&self, error: Option<TokenError>) {
        self.outage.send_replace(error);
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Returns the token that was issued last.
    pub fn newest(&self) -> String {
        format!("t{}", self.calls())
    }
}

impl TokenSource for Mint {
    async fn fetch(&self, _: Renewal) -> Result<TokenSet, TokenError> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::time::sleep(self.delay).await;
        let outage = self.outage.borrow().clone();
        if let Some(error) = outage {
            return Err(error);
        }
        let tokens = tokens(&format!("t{number}"));
        Ok(match self.lifetime {
            Some(lifetime) => tokens.with_expires_in(lifetime),
            None => tokens,
        })
    }
}

// ===== a resource server =====

pub type Client = BoxCloneSyncService<Request<Full<Bytes>>, Response<Full<Bytes>>, tower::BoxError>;

/// Puts the layer over a resource server that responds with the status that `answer` returns for a token and a path.
pub fn client<F, Fut>(layer: RefreshLayer, answer: F) -> Client
where
    F: Fn(String, String) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = StatusCode> + Send + 'static,
{
    let api = tower::service_fn(move |request: Request<Full<Bytes>>| {
        let token = token_of(&request).unwrap_or_default().to_owned();
        let answered = answer(token, request.uri().path().to_owned());
        async move {
            let status = answered.await;
            let mut response = Response::new(Full::from(status.as_str().to_owned()));
            *response.status_mut() = status;
            Ok::<_, Infallible>(response)
        }
    });
    let layer = layer.origin("https://api.test").expect("a valid origin");
    BoxCloneSyncService::new(tower::ServiceBuilder::new().layer(layer).service(api))
}

/// A resource server that accepts every token.
pub async fn accept(_: String, _: String) -> StatusCode {
    StatusCode::OK
}

pub fn token_of<B>(request: &Request<B>) -> Option<&str> {
    request.headers().get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

pub fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("https://api.test{path}")).body(Full::default()).expect("a good request")
}

// ===== a port without a server =====

/// A port of loopback that refuses connections. No other process gets the port before this is dropped.
#[derive(Debug)]
pub struct ClosedPort(TcpSocket);

impl ClosedPort {
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        // Bound, and never listening.
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        Self(socket)
    }

    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("the socket is bound")
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }
}

// ===== time =====

/// Lets every other task run until it waits. With a paused clock, no time passes.
pub async fn let_others_run() {
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
}
