//! The layer over tonic's `Channel`, against grpcio. `run` beside this file installs grpcio and starts this program.
//!
//! ```text
//! cargo test --all-features --test grpcio -- PYTHON SERVER.PY
//! ```
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test, that panics when its server is not there, and prints what it finds"
)]

#[path = "../../stacks/raw_grpc.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the tests of `stacks`, which use the rest"
)]
mod raw_grpc;

use std::fmt;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request};
use raw_grpc::{Caller, all, feed, these};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::util::BoxCloneService;
use tower::{Layer as _, ServiceBuilder, ServiceExt as _};
use tower_refresh::grpc::HoldTrailersLayer;
use tower_refresh::{BoxError, RefreshLayer, Renewal, TokenSet};

const KINDS: [Kind; 4] =
    [Kind::Unary, Kind::ClientStreaming, Kind::ServerStreaming, Kind::Bidirectional];

#[derive(Clone, Copy)]
enum Kind {
    Unary,
    ClientStreaming,
    ServerStreaming,
    Bidirectional,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unary => "a unary call",
            Self::ClientStreaming => "a client-streaming call",
            Self::ServerStreaming => "a server-streaming call",
            Self::Bidirectional => "a bidirectional call",
        })
    }
}

/// How the server refuses, which the metadata of a call selects, and the outcome without `HoldTrailersLayer` and with it.
const WAYS: [(&str, Outcome, Outcome); 6] = [
    ("interceptor", Outcome::Again, Outcome::Again),
    ("abort", Outcome::Again, Outcome::Again),
    ("set_code", Outcome::Refused, Outcome::Again),
    ("abort after metadata", Outcome::Refused, Outcome::Again),
    ("abort after a message", Outcome::Refused, Outcome::Again),
    ("abort after two messages", Outcome::Refused, Outcome::Refused),
];

#[derive(Clone, Copy)]
enum Outcome {
    /// The call is retried, and the caller sees no error.
    Again,
    /// The caller sees UNAUTHENTICATED.
    Refused,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [python, script] = &arguments[..] else {
        panic!("usage: PYTHON SERVER.PY; `tests/third_party/grpcio/run` has both");
    };
    let mut server = Server::start(python, script).await;
    let mut report = Report::default();

    for kind in KINDS {
        for (way, without, with) in WAYS {
            // A response of one message has only the last.
            let streams = matches!(kind, Kind::ServerStreaming | Kind::Bidirectional);
            if way.contains("message") && !streams {
                continue;
            }
            for (hold, expected) in [(false, without), (true, with)] {
                let held = if hold { ", with trailers held" } else { "" };
                let sees = match expected {
                    Outcome::Again => "nothing",
                    Outcome::Refused => "UNAUTHENTICATED",
                };
                let promise = format!("{kind}, refused by `{way}`{held}: the caller sees {sees}");
                report.check(promise, revoked(&mut server, kind, way, hold, expected)).await;
            }
        }
        for (why, over_the_limit) in [("over the limit", true), ("without retry", false)] {
            let promise =
                format!("{kind}, {why}: the caller sees UNAUTHENTICATED, and the next one works");
            report.check(promise, once(&mut server, kind, over_the_limit)).await;
        }
    }
    let promise = "a stream that is open when its token is revoked goes on";
    report.check(promise.to_owned(), open_stream(&mut server)).await;
    let promise = "both directions flow before either ends, on the second attempt too";
    report.check(promise.to_owned(), both_directions(&mut server)).await;

    report.check("the server ends with its standard input".to_owned(), server.end()).await;
    if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

// ===== promises =====

/// Makes a call whose token was revoked since the last one.
async fn revoked(
    server: &mut Server,
    kind: Kind,
    way: &'static str,
    hold: bool,
    expected: Outcome,
) -> Result<(), BoxError> {
    let mint = Mint::default();
    let mut caller = Caller::new(mint.layer().layer(server.service(way, hold)));
    server.accept(1).await;
    call(&mut caller, kind).await?;
    server.accept(mint.issued() + 1).await;
    let outcome = call(&mut caller, kind).await;
    let calls = server.accept(mint.issued()).await;
    match (expected, outcome) {
        (Outcome::Again, Ok(())) => same(&calls, &["t1", "t2"]),
        (Outcome::Refused, Err(status)) => {
            refused(&status)?;
            same(&calls, &["t1"])
        }
        (_, outcome) => Err(format!("{outcome:?}, after {calls:?}").into()),
    }
}

/// Makes a call that cannot be retried, and another one after it.
async fn once(server: &mut Server, kind: Kind, over_the_limit: bool) -> Result<(), BoxError> {
    let mint = Mint::default();
    let service = server.service("abort", false);
    let service = if over_the_limit {
        BoxCloneService::new(mint.layer().replay_limit(3).layer(service))
    } else {
        BoxCloneService::new(mint.layer().without_retry().layer(service))
    };
    let mut caller = Caller::new(service);
    server.accept(1).await;
    call(&mut caller, kind).await?;
    server.accept(2).await;
    match call(&mut caller, kind).await {
        Err(status) => refused(&status)?,
        Ok(()) => return Err("it was made again".into()),
    }
    call(&mut caller, kind).await?;
    same(&server.accept(1).await, &["t1", "t2"])
}

async fn open_stream(server: &mut Server) -> Result<(), BoxError> {
    let mint = Mint::default();
    let mut caller = Caller::new(mint.layer().layer(server.service("abort", false)));
    server.accept(1).await;
    let (hand, messages) = feed();
    hand.send(Bytes::from_static(b"before"))?;
    let mut echo = caller.streaming("/raw.Api/Echo", messages).await?;
    same(&echo.message().await?, &Some("before".into()))?;
    server.accept(2).await;
    call(&mut caller, Kind::Unary).await?;
    hand.send(Bytes::from_static(b"after"))?;
    same(&echo.message().await?, &Some("after".into()))?;
    drop(hand);
    same(&echo.message().await?, &None)?;
    same(&server.accept(1).await, &["t1", "t2"])
}

async fn both_directions(server: &mut Server) -> Result<(), BoxError> {
    let mint = Mint::default();
    let mut caller = Caller::new(mint.layer().layer(server.service("abort", false)));
    server.accept(2).await;
    let (hand, messages) = feed();
    hand.send(Bytes::from_static(b"0"))?;
    let mut echo = caller.streaming("/raw.Api/Echo", messages).await?;
    for number in 0..10 {
        same(&echo.message().await?, &Some(number.to_string().into()))?;
        hand.send((number + 1).to_string().into())?;
    }
    drop(hand);
    same(&all(echo).await?, &["10"])?;
    same(&server.accept(1).await, &["t1", "t2"])
}

fn refused(status: &Status) -> Result<(), BoxError> {
    same(&(status.code(), status.message()), &(Code::Unauthenticated, "who are you?"))
}

fn same<A, B>(a: &A, b: &B) -> Result<(), BoxError>
where
    A: PartialEq<B> + std::fmt::Debug + ?Sized,
    B: std::fmt::Debug + ?Sized,
{
    if a == b { Ok(()) } else { Err(format!("{a:?} is not {b:?}").into()) }
}

// ===== calls =====

type Service = BoxCloneService<Request<Body>, http::Response<Body>, BoxError>;

/// Makes a call of this kind, and checks the response.
async fn call<S>(caller: &mut Caller<S>, kind: Kind) -> Result<(), Status>
where
    S: tower::Service<Request<Body>, Response = http::Response<Body>, Error = BoxError>,
{
    let abc = ["a", "b", "c"].map(Bytes::from);
    let answer = match kind {
        Kind::Unary => vec![caller.unary("/raw.Api/Unary", "abc").await?],
        Kind::ClientStreaming => {
            vec![caller.client_streaming("/raw.Api/Join", these(&abc)).await?]
        }
        Kind::ServerStreaming => caller.server_streaming("/raw.Api/Repeat", "abc").await?,
        Kind::Bidirectional => all(caller.streaming("/raw.Api/Echo", these(&abc)).await?).await?,
    };
    let expected = match kind {
        Kind::Unary | Kind::ClientStreaming => vec![Bytes::from_static(b"abc")],
        Kind::ServerStreaming => vec![Bytes::from_static(b"abc"); 3],
        Kind::Bidirectional => abc.to_vec(),
    };
    if answer == expected { Ok(()) } else { Err(Status::data_loss(format!("{answer:?}"))) }
}

/// Issues t1, t2 and so on.
#[derive(Clone, Default)]
struct Mint {
    issued: Arc<AtomicUsize>,
}

impl Mint {
    fn layer(&self) -> RefreshLayer {
        let issued = Arc::clone(&self.issued);
        RefreshLayer::new(move |_: Renewal| {
            let number = issued.fetch_add(1, Ordering::SeqCst) + 1;
            async move { TokenSet::bearer(format!("t{number}")) }
        })
    }

    fn issued(&self) -> usize {
        self.issued.load(Ordering::SeqCst)
    }
}

// ===== the server =====

struct Server {
    process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    channel: Channel,
}

impl Server {
    async fn start(python: &str, script: &str) -> Self {
        let mut process = Command::new(python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        let input = process.stdin.take().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = hear(&mut output).await["port"].as_u64().expect("a port");
        let channel = Channel::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
        let channel = channel.connect().await.expect("the server is there");
        Self { process, input, output, channel }
    }

    /// Accepts tokens from this number on, and returns those of the calls since the last time.
    async fn accept(&mut self, first: usize) -> Vec<String> {
        self.input.write_all(format!("{first}\n").as_bytes()).await.unwrap();
        let said = hear(&mut self.output).await;
        let calls = said["calls"].as_array().expect("calls");
        calls.iter().map(|token| token.as_str().unwrap().to_owned()).collect()
    }

    /// The inner service: a channel whose calls are refused in this way.
    fn service(&self, way: &'static str, hold: bool) -> Service {
        let service = ServiceBuilder::new()
            .map_request(move |mut request: Request<Body>| {
                request.headers_mut().insert("refuse", HeaderValue::from_static(way));
                request
            })
            .map_response(|response: http::Response<_>| response.map(Body::new))
            .layer(HoldTrailersLayer::new().only(move |_| hold))
            .service(self.channel.clone());
        service.map_err(BoxError::from).boxed_clone()
    }

    async fn end(mut self) -> Result<(), BoxError> {
        drop(self.input);
        let status = self.process.wait().await?;
        if status.success() { Ok(()) } else { Err(status.to_string().into()) }
    }
}

async fn hear(output: &mut Lines<BufReader<ChildStdout>>) -> serde_json::Value {
    let line = tokio::time::timeout(Duration::from_secs(30), output.next_line());
    let line = line.await.expect("the server speaks").unwrap().expect("the server is there");
    serde_json::from_str(&line).expect("a line of JSON")
}

// ===== the report =====

#[derive(Default)]
struct Report {
    failed: usize,
}

impl Report {
    async fn check(&mut self, promise: String, kept: impl Future<Output = Result<(), BoxError>>) {
        match tokio::time::timeout(Duration::from_secs(30), kept).await {
            Ok(Ok(())) => println!("PASS {promise}"),
            Ok(Err(error)) => self.fail(&promise, &error),
            Err(_) => self.fail(&promise, &"it does not end".into()),
        }
    }

    fn fail(&mut self, promise: &str, error: &BoxError) {
        self.failed += 1;
        println!("FAIL {promise}: {error}");
    }
}
