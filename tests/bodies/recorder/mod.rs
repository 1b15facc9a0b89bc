//! A resource server behind a socket that records what arrives, and bodies to send to it.
#![allow(clippy::disallowed_types, reason = "locks shared with the code under test")]

mod memory;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::hash::{DefaultHasher, Hasher as _};
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower_refresh::BoxError;

pub use self::memory::Memory;

/// The token that it rejects.
pub const OLD: &str = "t1";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http1,
    Http2,
}

pub const VERSIONS: [Version; 2] = [Version::Http1, Version::Http2];

pub fn client<B>(version: Version) -> Client<HttpConnector, B>
where
    B: Body + Send,
    B::Data: Send,
{
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).http2_only(version == Version::Http2).build(connector)
}

// ===== the server =====

/// Rejects [`OLD`], and accepts every other token.
///
/// | Path | Effect |
/// |---|---|
/// | `/after` | answers when it has read the body |
/// | `/early` | rejects at once, and reads on meanwhile |
/// | `/unread` | rejects at once, and reads nothing until there is a second attempt |
/// | `/echo` | answers at once with the body as it comes |
///
/// A rejection's body is ten thousand bytes that come ten milliseconds after its head.
pub struct Recorder {
    address: String,
    log: Arc<Log>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Log {
    requests: Mutex<Vec<Option<Arrived>>>,
    connections: AtomicUsize,
    /// Numbers the moments at which bodies end, so that a test can compare their order.
    moments: AtomicUsize,
    rejections: Mutex<Vec<usize>>,
    changed: watch::Sender<()>,
}

/// The part of one request that arrived.
#[derive(Clone, Debug)]
pub struct Arrived {
    pub token: String,
    pub content_length: Option<u64>,
    pub length: usize,
    pub hash: u64,
    pub trailers: Option<HeaderMap>,
    /// The body came to an orderly end, and not to an error.
    pub whole: bool,
    moment: usize,
}

impl Recorder {
    pub async fn serve() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let log = Arc::new(Log::default());
        let mut tasks = JoinSet::new();
        let accepted = Arc::clone(&log);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                accepted.connections.fetch_add(1, Ordering::SeqCst);
                let log = Arc::clone(&accepted);
                connections.spawn(async move {
                    let service = service_fn(|request| answer(Arc::clone(&log), request));
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, log, _tasks: tasks }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    pub fn connections(&self) -> usize {
        self.log.connections.load(Ordering::SeqCst)
    }

    /// Returns the number of requests.
    pub fn requests(&self) -> usize {
        self.log.requests.lock().unwrap().len()
    }

    /// Waits for the end of the body of a request, which are numbered from zero.
    pub async fn arrived(&self, number: usize) -> Arrived {
        self.log.wait_for(|log| log.requests.lock().unwrap().get(number).cloned().flatten()).await
    }

    /// Waits for a number of requests.
    pub fn requested(&self, requests: usize) -> impl Future<Output = ()> + Send + Sync + 'static {
        let log = Arc::clone(&self.log);
        async move {
            log.wait_for(|log| (log.requests.lock().unwrap().len() >= requests).then_some(()))
                .await;
        }
    }

    /// Returns whether the body of the first rejection was sent whole before the body of that request ended.
    pub async fn rejection_was_read_before_the_end_of(&self, number: usize) -> bool {
        let end = self.arrived(number).await.moment;
        self.log.rejections.lock().unwrap().first().is_some_and(|&rejection| rejection < end)
    }
}

impl Log {
    async fn wait_for<T>(&self, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            changed.changed().await.unwrap();
        }
    }

    fn moment(&self) -> usize {
        self.moments.fetch_add(1, Ordering::SeqCst)
    }
}

async fn answer(
    log: Arc<Log>,
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, BoxError>>, Infallible> {
    let (head, body) = request.into_parts();
    let token = head.headers.get(header::AUTHORIZATION).map_or("", |value| value.to_str().unwrap());
    let token = token.trim_start_matches("Bearer ").to_owned();
    let rejected = token == OLD;
    let number = {
        let mut requests = log.requests.lock().unwrap();
        requests.push(None);
        requests.len() - 1
    };
    log.changed.send_replace(());

    if head.uri.path() == "/echo" && !rejected {
        return Ok(Response::new(body.map_err(BoxError::from).boxed()));
    }
    let content_length = head.headers.get(header::CONTENT_LENGTH);
    let mut arrived = Arrived {
        token,
        content_length: content_length.map(|length| length.to_str().unwrap().parse().unwrap()),
        length: 0,
        hash: 0,
        trailers: None,
        whole: false,
        moment: 0,
    };
    let unread = head.uri.path() == "/unread" && rejected;
    let reading = Arc::clone(&log);
    let reading = tokio::spawn(async move {
        let log = reading;
        if unread {
            log.wait_for(|log| (log.requests.lock().unwrap().len() > number + 1).then_some(()))
                .await;
        }
        arrived.read(body).await;
        arrived.moment = log.moment();
        log.requests.lock().unwrap()[number] = Some(arrived);
        log.changed.send_replace(());
    });
    if !rejected || head.uri.path() == "/after" {
        reading.await.unwrap();
    }
    Ok(if rejected {
        let body = Rejection { late: Some(Box::pin(tokio::time::sleep(LATE))), sent: false, log };
        let mut response = Response::new(body.boxed());
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        response
    } else {
        Response::new(BoxBody::default())
    })
}

const LATE: Duration = Duration::from_millis(10);

impl Arrived {
    async fn read(&mut self, mut body: Incoming) {
        let mut hasher = DefaultHasher::new();
        loop {
            match body.frame().await {
                None => {
                    self.whole = true;
                    break;
                }
                Some(Err(_)) => break,
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.length += data.len();
                        hasher.write(&data);
                    }
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
        }
        self.hash = hasher.finish();
    }
}

struct Rejection {
    late: Option<Pin<Box<tokio::time::Sleep>>>,
    sent: bool,
    log: Arc<Log>,
}

impl Body for Rejection {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(late) = &mut self.late {
            ready!(late.as_mut().poll(cx));
            self.late = None;
        }
        if self.sent {
            let moment = self.log.moment();
            self.log.rejections.lock().unwrap().push(moment);
            return Poll::Ready(None);
        }
        self.sent = true;
        Poll::Ready(Some(Ok(Frame::data(vec![b'.'; 10_000].into()))))
    }
}

// ===== what is sent =====

/// A body to send: chunks that are made when they are polled, and the faults on the way.
pub struct Upload {
    sizes: VecDeque<usize>,
    made: usize,
    exact: bool,
    trailers: Option<HeaderMap>,
    /// The number of chunks after which it waits.
    wait: Option<(usize, Until)>,
    fail_after: Option<usize>,
    memory: Memory,
}

type Until = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// The body that the server should receive.
#[derive(Debug, PartialEq)]
pub struct Expected {
    pub length: usize,
    pub hash: u64,
    pub trailers: Option<HeaderMap>,
}

impl Upload {
    pub fn of(sizes: impl IntoIterator<Item = usize>) -> Self {
        Self {
            sizes: sizes.into_iter().collect(),
            made: 0,
            exact: false,
            trailers: None,
            wait: None,
            fail_after: None,
            memory: Memory::default(),
        }
    }

    /// Announces the length of the body.
    pub fn exact(mut self) -> Self {
        self.exact = true;
        self
    }

    pub fn trailers(mut self) -> Self {
        self.trailers = Some(trailers());
        self
    }

    pub fn wait(
        mut self,
        chunks: usize,
        until: impl Future<Output = ()> + Send + Sync + 'static,
    ) -> Self {
        self.wait = Some((chunks, Box::pin(until)));
        self
    }

    pub fn fail_after(mut self, chunks: usize) -> Self {
        self.fail_after = Some(chunks);
        self
    }

    pub fn memory(&self) -> Memory {
        self.memory.clone()
    }

    pub fn expected(&self) -> Expected {
        let mut hasher = DefaultHasher::new();
        for (number, size) in self.sizes.iter().enumerate() {
            hasher.write(&chunk(number, *size));
        }
        Expected {
            length: self.sizes.iter().sum(),
            hash: hasher.finish(),
            trailers: self.trailers.clone(),
        }
    }
}

impl Arrived {
    pub fn sent(&self) -> Expected {
        Expected { length: self.length, hash: self.hash, trailers: self.trailers.clone() }
    }
}

pub fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-check", HeaderValue::from_static("sum"));
    trailers
}

/// Returns the hash of an arrived body of these bytes.
pub fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// Makes a chunk that differs from every other of its body.
pub fn chunk(number: usize, size: usize) -> Vec<u8> {
    let mut chunk = vec![number as u8; size];
    for (at, byte) in chunk.iter_mut().enumerate().step_by(61) {
        *byte = (at * 7) as u8;
    }
    chunk
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let made = self.made;
        if self.fail_after == Some(made) {
            return Poll::Ready(Some(Err("the disk is gone".into())));
        }
        if let Some((chunks, until)) = &mut self.wait
            && *chunks == made
        {
            ready!(until.as_mut().poll(cx));
            self.wait = None;
        }
        let Some(size) = self.sizes.pop_front() else {
            return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
        };
        self.made += 1;
        Poll::Ready(Some(Ok(Frame::data(self.memory.hold(chunk(made, size))))))
    }

    fn size_hint(&self) -> SizeHint {
        match self.exact {
            true => SizeHint::with_exact(self.sizes.iter().sum::<usize>() as u64),
            false => SizeHint::default(),
        }
    }
}
