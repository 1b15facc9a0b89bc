//! An API as a closure, a sidecar in front of it, and callers.
#![allow(unreachable_pub, reason = "a part of two tests")]

mod configured;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{env, fs};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tower_refresh::{
    BoxError, Credentials, RefreshLayer, Renewal, TokenError, TokenSet, TokenSource, source_fn,
};

pub use self::configured::*;
use tower_refresh_sidecar::guard::{Guard, Key};
use tower_refresh_sidecar::headers;
use tower_refresh_sidecar::limits::Limits;
use tower_refresh_sidecar::listen::{Listen, Listener, Stream};
use tower_refresh_sidecar::proxy::Proxy;
use tower_refresh_sidecar::serve::{client, connector, serve};

pub type Body = UnsyncBoxBody<Bytes, BoxError>;

pub fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(Into::into).boxed_unsync()
}

/// A body whose frames come when the test sends them. It ends when the sender is dropped.
pub fn channel() -> (mpsc::UnboundedSender<Frame<Bytes>>, Body) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let frames = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|frame| (Ok(frame), receiver))
    });
    (sender, StreamBody::new(frames).boxed_unsync())
}

pub async fn read(body: Incoming) -> String {
    let body = body.collect().await.unwrap().to_bytes();
    String::from_utf8(body.into()).unwrap()
}

/// The next data frame of a body.
pub async fn next(body: &mut Incoming) -> Bytes {
    soon(body.frame()).await.unwrap().unwrap().into_data().unwrap()
}

/// Waits for a future, with a time limit.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it takes too long")
}

// ===== the API =====

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Upstream {
    Http1,
    /// With prior knowledge.
    Http2,
    /// HTTP/2 or HTTP/1.1, as TLS negotiates.
    Tls,
    /// TLS that offers HTTP/1.1 only.
    TlsHttp1,
}

impl Upstream {
    /// Returns the protocols that TLS offers, none without TLS.
    fn protocols(self) -> &'static [&'static str] {
        match self {
            Self::Http1 | Self::Http2 => &[],
            Self::Tls => &["h2", "http/1.1"],
            Self::TlsHttp1 => &["http/1.1"],
        }
    }
}

/// Serves until the test ends. Returns the origin.
pub async fn api<F, Fut>(upstream: Upstream, answer: F) -> String
where
    F: Fn(Request<Incoming>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                let stream: Box<dyn Stream> = match upstream.protocols() {
                    [] => Box::new(stream),
                    offered => match acceptor(offered).accept(stream).await {
                        Ok(stream) => Box::new(stream),
                        Err(_) => return,
                    },
                };
                let service = service_fn(move |request| {
                    let answer = answer(request);
                    async { Ok::<_, Infallible>(answer.await) }
                });
                let mut http = auto::Builder::new(TokioExecutor::new());
                http.http2().max_header_list_size(64 * 1024);
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    format!("{}://{address}", if upstream.protocols().is_empty() { "http" } else { "https" })
}

/// An API that keeps the heads of its requests and answers 200.
pub async fn recording_api() -> (String, mpsc::UnboundedReceiver<Request<String>>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let origin = api(Upstream::Http1, move |request| {
        let sender = sender.clone();
        async move {
            let (head, body) = request.into_parts();
            sender.send(Request::from_parts(head, read(body).await)).unwrap();
            Response::new(full("from the API"))
        }
    })
    .await;
    (origin, receiver)
}

pub fn rejection() -> Response<Body> {
    let mut response = Response::new(full("rejected"));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response
}

pub fn token_of<B>(request: &Request<B>) -> &str {
    request.headers().get("authorization").map_or("none", |value| value.to_str().unwrap())
}

// Made with: openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500 -subj /CN=localhost
// -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE
const CERTIFICATE: &[u8] = include_bytes!("localhost.cert.der");
const PRIVATE_KEY: &[u8] = include_bytes!("localhost.key.der");

fn acceptor(protocols: &[&str]) -> TlsAcceptor {
    let key = PrivateKeyDer::try_from(PRIVATE_KEY).unwrap();
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(CERTIFICATE)], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

fn trust() -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(CERTIFICATE)).unwrap();
    ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
}

// ===== the sidecar =====

pub struct Sidecar {
    place: Place,
    /// The whole header, over TCP.
    pub key: Option<String>,
    pub credentials: Credentials,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), BoxError>>,
    pub folder: Folder,
}

#[derive(Clone)]
enum Place {
    Unix(PathBuf),
    Tcp(std::net::SocketAddr),
}

impl Sidecar {
    /// Over a Unix socket, before an API that speaks HTTP/1.1, with the tokens `t1`, `t2`, ….
    pub async fn before(origin: &str) -> Self {
        let folder = Folder::new();
        let listen = Listen::Unix(folder.path("socket"));
        Self::start(origin, Upstream::Http1, listen, tokens(), folder).await
    }

    pub async fn with_limits(origin: &str, limits: Limits) -> Self {
        let folder = Folder::new();
        let listen = Listen::Unix(folder.path("socket"));
        Self::begin(origin, Upstream::Http1, listen, tokens(), folder, limits).await
    }

    pub async fn over_tcp_with_limits(origin: &str, limits: Limits) -> Self {
        let listen = Listen::parse("tcp:127.0.0.1:0").unwrap();
        Self::begin(origin, Upstream::Http1, listen, tokens(), Folder::new(), limits).await
    }

    pub async fn before_upstream(origin: &str, upstream: Upstream) -> Self {
        let folder = Folder::new();
        let listen = Listen::Unix(folder.path("socket"));
        Self::start(origin, upstream, listen, tokens(), folder).await
    }

    pub async fn over_tcp(origin: &str) -> Self {
        let listen = Listen::parse("tcp:127.0.0.1:0").unwrap();
        Self::start(origin, Upstream::Http1, listen, tokens(), Folder::new()).await
    }

    pub async fn without_token(origin: &str, error: TokenError) -> Self {
        let source = source_fn(move |_: Renewal| std::future::ready(Err(error.clone())));
        Self::with_source(origin, source).await
    }

    pub async fn with_source<S: TokenSource>(origin: &str, source: S) -> Self {
        let folder = Folder::new();
        let listen = Listen::Unix(folder.path("socket"));
        Self::start(origin, Upstream::Http1, listen, source, folder).await
    }

    async fn start<S: TokenSource>(
        origin: &str,
        upstream: Upstream,
        listen: Listen,
        source: S,
        folder: Folder,
    ) -> Self {
        Self::begin(origin, upstream, listen, source, folder, Limits::new(1000)).await
    }

    async fn begin<S: TokenSource>(
        origin: &str,
        upstream: Upstream,
        listen: Listen,
        source: S,
        folder: Folder,
        limits: Limits,
    ) -> Self {
        let https = HttpsConnectorBuilder::new().with_tls_config(trust());
        let http = client(limits).http2_only(upstream == Upstream::Http2).build(connector(https));
        let layer = RefreshLayer::new(source).origin(origin).unwrap().replay_limit(1024 * 1024);
        let credentials = layer.credentials().clone();
        let client = tower::Layer::layer(&layer, http);

        let listener = Listener::bind(&listen).await.unwrap();
        let (place, guard, key) = match &listener {
            Listener::Unix(socket, _) => {
                (Place::Unix(socket.path().to_owned()), Guard::of_unix_socket(socket.path()), None)
            }
            Listener::Tcp(listener) => {
                let address = listener.local_addr().unwrap();
                let key = Key::random().unwrap();
                let header = key.header();
                (Place::Tcp(address), Guard::of_tcp(address, key), Some(header))
            }
        };
        let proxy = Proxy::new(client, origin, guard, credentials.clone()).unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(serve(listener, proxy, limits, async {
            let _ = stopped.await;
        }));
        Self { place, key, credentials, stop, serving, folder }
    }

    pub fn port(&self) -> u16 {
        match self.place {
            Place::Tcp(address) => address.port(),
            Place::Unix(_) => unreachable!(),
        }
    }

    pub async fn connect(&self) -> Box<dyn Stream> {
        match &self.place {
            Place::Unix(path) => Box::new(UnixStream::connect(path).await.unwrap()),
            Place::Tcp(address) => Box::new(TcpStream::connect(address).await.unwrap()),
        }
    }

    /// Sends a request unchanged, and returns the response unchanged.
    pub async fn ask(&self, request: &str) -> String {
        self.ask_on(self.connect().await, request).await
    }

    /// Sends a request on a connection that is there.
    pub async fn ask_on(&self, mut stream: Box<dyn Stream>, request: &str) -> String {
        let (line, rest) = request.split_once('\n').unwrap_or((request, ""));
        let mut text = format!("{line}\r\nconnection: close\r\n");
        for line in rest.lines() {
            text.extend([line.trim(), "\r\n"]);
        }
        stream.write_all(format!("{text}\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon(stream.read_to_string(&mut answer)).await.unwrap();
        answer
    }

    /// Sends a request over HTTP/1.1.
    pub async fn send(&self, request: Request<Body>) -> Response<Incoming> {
        let (mut caller, connection) =
            http1::handshake(TokioIo::new(self.connect().await)).await.unwrap();
        tokio::spawn(connection);
        let request = self.allowed(request);
        soon(caller.send_request(request)).await.unwrap()
    }

    /// Sends a request over HTTP/2.
    pub async fn send_over_http2(&self, mut request: Request<Body>) -> Response<Incoming> {
        let stream = TokioIo::new(self.connect().await);
        let (mut caller, connection) = http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(64 * 1024)
            .handshake(stream)
            .await
            .unwrap();
        tokio::spawn(connection);
        if request.uri().authority().is_none() {
            let target = format!("http://localhost{}", request.uri());
            *request.uri_mut() = target.parse::<Uri>().unwrap();
        }
        soon(caller.send_request(request)).await.unwrap()
    }

    /// Adds the headers that a caller must send.
    fn allowed(&self, mut request: Request<Body>) -> Request<Body> {
        let host = match self.place {
            Place::Unix(_) => "localhost".to_owned(),
            Place::Tcp(address) => address.to_string(),
        };
        let headers = request.headers_mut();
        headers.insert("host", host.parse().unwrap());
        if let Some((_, key)) = self.key.as_deref().and_then(|key| key.split_once(": ")) {
            headers.insert(headers::KEY, HeaderValue::from_str(key).unwrap());
        }
        request
    }

    /// Sends the signal to end. The task ends with the sidecar.
    pub fn stop(self) -> (JoinHandle<Result<(), BoxError>>, Folder) {
        self.stop.send(()).unwrap();
        (self.serving, self.folder)
    }
}

pub fn get(path: &str) -> Request<Body> {
    Request::get(path).body(full("")).unwrap()
}

pub fn post(path: &str, body: Body) -> Request<Body> {
    Request::post(path).body(body).unwrap()
}

/// Lines of `name: value`, sorted.
pub fn lines(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<_> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    lines.sort();
    lines
}

fn tokens() -> impl TokenSource {
    let number = Arc::new(AtomicUsize::new(0));
    source_fn(move |_: Renewal| {
        let number = number.fetch_add(1, Ordering::SeqCst) + 1;
        let tokens = TokenSet::bearer(format!("t{number}")).unwrap();
        std::future::ready(Ok(tokens.with_refresh_token(format!("refresh-{number}"))))
    })
}

// ===== files =====

/// Gone with the test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let path = env::temp_dir().join(format!("tr-sidecar-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
