//! Every kind of body over real sockets, HTTP/1.1 and HTTP/2: the server receives exactly the bytes that were sent.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};
use http_body_util::{BodyExt as _, Either, Empty, Full, StreamBody};
use hyper::body::Incoming;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_refresh::replay::{ReplayBody, ReplayLimit, Replayable};
use tower_refresh::testing::TokioClock;
use tower_refresh::{BoxError, RefreshLayer, RefreshPolicy, Skip, TokenError, TokenSource};

use crate::harness::{self, HOUR, Mint, puppet};
use crate::recorder::{self, OLD, Recorder, Upload, VERSIONS, Version, client, trailers};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Chunks of all sizes, 52 KiB in all.
fn chunks() -> Vec<usize> {
    vec![1, 0, 511, 512, 3 * KIB, 16 * KIB, 7, 29 * KIB, KIB, 0, 2041]
}

// ===== each kind of stream =====

/// Runs a scenario with each kind of body that a stream can be in, over each version of HTTP.
macro_rules! each_stream {
    ($scenario:ident) => {
        for version in VERSIONS {
            $scenario(version, "BoxBody", BoxBody::new).await;
            $scenario(version, "UnsyncBoxBody", UnsyncBoxBody::new).await;
            $scenario(version, "Either", |upload| {
                Either::<_, Full<Bytes>>::Left(BoxBody::new(upload))
            })
            .await;
            $scenario(version, "Replayable", Replayable::new).await;
            #[cfg(feature = "axum")]
            $scenario(version, "axum", axum::body::Body::new).await;
            #[cfg(feature = "tonic")]
            $scenario(version, "tonic", tonic::body::Body::new).await;
            #[cfg(feature = "reqwest")]
            $scenario(version, "reqwest", reqwest::Body::wrap).await;
        }
    };
}

#[tokio::test]
async fn a_stream_that_is_rejected_after_its_end_is_sent_again() {
    async fn scenario<B: Sendable>(version: Version, kind: &str, make: fn(Upload) -> B) {
        for (exact, has_trailers) in [(true, false), (false, false), (false, true)] {
            let mut upload = Upload::of(chunks());
            if exact {
                upload = upload.exact();
            }
            if has_trailers {
                upload = upload.trailers();
            }
            let expected = upload.expected();
            let server = Recorder::serve().await;
            let answer = send(version, &server, "/after", make(upload)).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{kind}");
            let (first, second) = (server.arrived(0).await, server.arrived(1).await);
            assert_eq!((first.token.as_str(), second.token.as_str()), (OLD, "t2"));
            for arrived in [&first, &second] {
                assert!(arrived.whole, "{kind} {arrived:?}");
                assert_eq!(arrived.sent(), expected, "{kind} {version:?}");
                let length = exact.then_some(expected.length as u64);
                assert_eq!(arrived.content_length, length, "{kind} {version:?}");
            }
            assert_eq!(server.requests(), 2);
        }
    }
    each_stream!(scenario);
}

#[tokio::test]
async fn stream_rejected_early_is_resent_whole_and_the_first_fails() {
    async fn scenario<B: Sendable>(version: Version, kind: &str, make: fn(Upload) -> B) {
        for exact in [true, false] {
            let server = Recorder::serve().await;
            // The rest follows once the retry has arrived, so that the first attempt cannot have ended.
            let mut upload = Upload::of(chunks()).wait(5, server.requested(2));
            upload = if exact { upload.exact() } else { upload.trailers() };
            let expected = upload.expected();
            let answer = send(version, &server, "/early", make(upload)).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{kind}");
            let (first, second) = (server.arrived(0).await, server.arrived(1).await);
            // An orderly end would be a complete body that is too short.
            assert!(!first.whole, "{kind} {version:?}: {first:?}");
            assert!(second.whole, "{kind} {version:?}: {second:?}");
            assert_eq!(second.sent(), expected, "{kind} {version:?}");
            let length = exact.then_some(expected.length as u64);
            assert_eq!(second.content_length, length, "{kind} {version:?}");
        }
    }
    each_stream!(scenario);
}

#[tokio::test]
async fn stream_over_the_limit_is_sent_once_and_returns_its_401() {
    async fn scenario<B: Sendable>(version: Version, kind: &str, make: fn(Upload) -> B) {
        let server = Recorder::serve().await;
        let mint = Mint::new(HOUR);
        let client = layer(&server, mint.clone()).service(client(version));
        let upload = Upload::of([40 * KIB, 24 * KIB, 1, 40 * KIB]).trailers();
        let expected = upload.expected();
        let answer = client.clone().oneshot(post(&server, "/after", make(upload))).await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{kind}");
        // The rejection is whole.
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), 10_000, "{kind}");
        let arrived = server.arrived(0).await;
        assert!(arrived.whole);
        assert_eq!(arrived.sent(), expected, "{kind} {version:?}");
        // The token is refreshed nevertheless, for the next request.
        let next = post(&server, "/after", make(Upload::of([1])));
        assert_eq!(client.oneshot(next).await.unwrap().status(), StatusCode::OK);
        assert_eq!(mint.calls(), 2);
        assert_eq!(server.requests(), 2);
    }
    each_stream!(scenario);
}

#[tokio::test]
async fn one_request_may_have_a_limit_of_its_own() {
    for (limit, status) in [(100 * KIB, StatusCode::OK), (99 * KIB, StatusCode::UNAUTHORIZED)] {
        let server = Recorder::serve().await;
        let client = layer(&server, Mint::new(HOUR)).service(client(Version::Http1));
        let mut request = post(&server, "/after", Replayable::new(Upload::of([10 * KIB; 10])));
        request.extensions_mut().insert(ReplayLimit(limit));
        assert_eq!(client.oneshot(request).await.unwrap().status(), status);
    }
}

#[tokio::test]
async fn stream_that_fails_midway_is_never_complete_at_the_server() {
    async fn scenario<B: Sendable>(version: Version, kind: &str, make: fn(Upload) -> B) {
        let server = Recorder::serve().await;
        // Later than the head, which would otherwise not be sent.
        let upload = |server: &Recorder| {
            make(Upload::of(chunks()).wait(5, server.requested(1)).fail_after(6))
        };
        let body = upload(&server);
        let error = send(version, &server, "/after", body).await.unwrap_err();
        assert!(error.downcast_ref::<TokenError>().is_none());
        // Over HTTP/2 hyper does not report the cause.
        let elsewhere = Recorder::serve().await;
        let request = post(&elsewhere, "/after", upload(&elsewhere));
        let without = client(version).oneshot(request).await.unwrap_err();
        assert_eq!(chain(&*error), chain(&without), "{kind}");
        assert!(!server.arrived(0).await.whole, "{kind}");
        assert_eq!(server.requests(), 1);
    }
    each_stream!(scenario);
}

#[tokio::test]
async fn stream_that_fails_in_the_retry_is_never_complete() {
    async fn scenario<B: Sendable>(version: Version, kind: &str, make: fn(Upload) -> B) {
        let server = Recorder::serve().await;
        let upload = Upload::of(chunks()).wait(3, server.requested(2)).fail_after(6);
        let error = send(version, &server, "/early", make(upload)).await.unwrap_err();
        let error = chain(&*error);
        assert!(version == Version::Http2 || error.contains("the disk is gone"), "{kind}: {error}");
        for attempt in 0..2 {
            assert!(!server.arrived(attempt).await.whole, "{kind} {attempt}");
        }
    }
    each_stream!(scenario);
}

#[tokio::test]
async fn stream_continues_after_a_rejection_without_a_newer_token() {
    async fn scenario<B: Sendable>(version: Version, kind: &str, make: fn(Upload) -> B) {
        let server = Recorder::serve().await;
        let (source, mut strings) = puppet();
        let (open, opened) = oneshot::channel::<()>();
        let upload = Upload::of(chunks()).wait(4, async {
            let _ = opened.await;
        });
        let expected = upload.expected();
        let client = layer(&server, source).service(client(version));
        let answer = tokio::spawn(client.oneshot(post(&server, "/early", make(upload))));
        strings.next().await.answer(harness::tokens(OLD).with_expires_in(HOUR));
        strings.next().await.fail(TokenError::denied("log in again"));
        let answer = answer.await.unwrap().unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{kind}");
        open.send(()).unwrap();
        let arrived = server.arrived(0).await;
        assert!(arrived.whole, "{kind} {version:?}");
        assert_eq!(arrived.sent(), expected);
        drop(answer);
    }
    each_stream!(scenario);
}

#[tokio::test]
async fn request_dropped_during_a_refresh_drops_its_body_too() {
    for version in VERSIONS {
        let server = Recorder::serve().await;
        let (source, mut strings) = puppet();
        let (held, dropped) = oneshot::channel::<()>();
        let upload = Upload::of(chunks()).wait(4, async {
            let _held = held;
            std::future::pending().await
        });
        let client = layer(&server, source).service(client(version));
        let request = post(&server, "/early", Replayable::new(upload));
        let answer = tokio::spawn(client.oneshot(request));
        strings.next().await.answer(harness::tokens(OLD).with_expires_in(HOUR));
        let refresh = strings.next().await;
        answer.abort();
        // As without the layer, before the response has arrived.
        assert!(timeout(PATIENCE, dropped).await.unwrap().is_err(), "{version:?}");
        assert!(!server.arrived(0).await.whole, "{version:?}");
        drop(refresh);
    }
}

#[tokio::test]
async fn a_stream_waits_while_the_token_is_renewed() {
    for version in VERSIONS {
        let server = Recorder::serve().await;
        let (source, mut strings) = puppet();
        let (open, opened) = oneshot::channel::<()>();
        let upload = Upload::of(chunks()).wait(4, async {
            let _ = opened.await;
        });
        let expected = upload.expected();
        let client = layer(&server, source).service(client(version));
        let answer = tokio::spawn(client.oneshot(post(&server, "/early", Replayable::new(upload))));
        strings.next().await.answer(harness::tokens(OLD).with_expires_in(HOUR));
        let refresh = strings.next().await;
        // The rest is ready now, and the server reads on, so that it would arrive at once.
        open.send(()).unwrap();
        harness::let_others_run().await;
        refresh.answer(harness::tokens("t2").with_expires_in(HOUR));
        assert_eq!(answer.await.unwrap().unwrap().status(), StatusCode::OK);
        assert!(!server.arrived(0).await.whole, "{version:?}");
        assert_eq!(server.arrived(1).await.sent(), expected);
    }
}

// ===== bodies in memory =====

#[tokio::test]
async fn body_in_memory_is_resent_at_any_size_after_any_rejection() {
    async fn check<B: Sendable>(kind: &str, bytes: &Bytes, make: impl Fn() -> B) {
        let hash = recorder::hash(bytes);
        for version in VERSIONS {
            for path in ["/after", "/early"] {
                let server = Recorder::serve().await;
                let answer = send(version, &server, path, make()).await.unwrap();
                assert_eq!(answer.status(), StatusCode::OK, "{kind} {version:?} {path}");
                let second = server.arrived(1).await;
                assert!(second.whole);
                assert_eq!((second.length, second.hash), (bytes.len(), hash), "{kind}");
                let first = server.arrived(0).await;
                assert!(!first.whole || first.hash == hash, "{kind} {version:?} {path}");
                // hyper leaves it out for a request that has no body to send.
                let length = Some(bytes.len() as u64).filter(|length| *length > 0);
                assert_eq!(second.content_length.filter(|length| *length > 0), length, "{kind}");
            }
        }
    }
    let large = Bytes::from(recorder::chunk(0, 2 * MIB));
    check("Full", &large, || Full::new(large.clone())).await;
    check("Either", &large, || Either::<Empty<Bytes>, _>::Right(Full::new(large.clone()))).await;
    #[cfg(feature = "reqwest")]
    check("reqwest", &large, || reqwest::Body::from(large.clone())).await;

    let text = "a".repeat(50 * KIB);
    check("String", &text.clone().into(), || text.clone()).await;
    let boxed = Bytes::from(text.clone());
    check("BoxBody", &boxed, || BoxBody::new(Full::new(boxed.clone()).map_err(BoxError::from)))
        .await;
    #[cfg(feature = "axum")]
    check("axum", &boxed, || axum::body::Body::from(boxed.clone())).await;

    #[cfg(feature = "tonic")]
    check("tonic", &boxed, || tonic::body::Body::new(Full::new(boxed.clone()))).await;

    check("Empty", &Bytes::new(), Empty::<Bytes>::new).await;
    check("empty BoxBody", &Bytes::new(), BoxBody::<Bytes, BoxError>::default).await;
    check("empty Replayable", &Bytes::new(), || Replayable::new(Empty::<Bytes>::new())).await;
    #[cfg(feature = "axum")]
    check("empty axum", &Bytes::new(), axum::body::Body::empty).await;
    #[cfg(feature = "tonic")]
    check("empty tonic", &Bytes::new(), tonic::body::Body::empty).await;
}

#[tokio::test]
async fn a_body_of_another_crate_is_sent_again_as_its_copy() {
    /// Neither a `ReplayBody` nor `Clone`.
    struct Foreign(Full<Bytes>);
    impl Foreign {
        fn try_clone(&self) -> Option<Self> {
            Some(Self(self.0.clone()))
        }
    }
    impl Body for Foreign {
        type Data = Bytes;
        type Error = std::convert::Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Pin::new(&mut self.0).poll_frame(cx)
        }
    }
    let bytes = Bytes::from(recorder::chunk(0, 100 * KIB));
    for version in VERSIONS {
        for path in ["/after", "/early"] {
            let server = Recorder::serve().await;
            let layer = RefreshLayer::new(Mint::new(HOUR)).origin(server.url("")).unwrap();
            let layer = layer.replay_with(Foreign::try_clone);
            let client = ServiceBuilder::new().layer(layer).service(client(version));
            let request = post(&server, path, Foreign(Full::new(bytes.clone())));
            assert_eq!(client.oneshot(request).await.unwrap().status(), StatusCode::OK);
            assert_eq!(server.arrived(1).await.hash, recorder::hash(&bytes), "{version:?} {path}");
        }
    }
}

// ===== a hundred mebibytes =====

#[tokio::test]
async fn large_upload_rejected_early_is_resent_within_the_limit() {
    for version in VERSIONS {
        let server = Recorder::serve().await;
        let mint = Mint::new(HOUR);
        let upload = Upload::of([64 * KIB; 1600]).exact();
        let (expected, memory) = (upload.expected(), upload.memory());
        let layer =
            RefreshLayer::new(mint.clone()).origin(server.url("")).unwrap().replay_limit(128 * MIB);
        let client = ServiceBuilder::new().layer(layer).service(client(version));
        let request = post(&server, "/unread", Replayable::new(upload));
        let answer = timeout(PATIENCE, client.oneshot(request)).await.unwrap().unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let second = server.arrived(1).await;
        assert!(second.whole);
        assert_eq!(second.sent(), expected);
        assert!(!server.arrived(0).await.whole);
        assert_eq!((mint.calls(), server.requests()), (2, 2));
        // At most the bytes that the network took before the response: the retry keeps none.
        println!("{version:?}: at most {} KiB of 102,400 held", memory.most() / KIB);
        assert!(memory.most() < 12 * MIB, "{version:?}: {} KiB", memory.most() / KIB);
    }
}

#[tokio::test]
async fn large_upload_over_the_limit_gets_its_rejection_at_once() {
    for version in VERSIONS {
        let server = Recorder::serve().await;
        let (source, mut strings) = puppet();
        let upload = Upload::of([64 * KIB; 1600]).exact();
        let memory = upload.memory();
        let client = layer(&server, source).service(client(version));
        let request = post(&server, "/unread", Replayable::new(upload));
        let answer = tokio::spawn(client.oneshot(request));
        strings.next().await.answer(harness::tokens(OLD).with_expires_in(HOUR));
        // The rest of the body is not read, and the refresh is not answered.
        let answer = timeout(PATIENCE, answer).await.unwrap().unwrap().unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        let refresh = strings.next().await;
        assert_eq!(server.requests(), 1);
        println!("{version:?}: at most {} KiB of 102,400 held", memory.most() / KIB);
        assert!(memory.most() < 12 * MIB, "{version:?}: {} KiB", memory.most() / KIB);
        drop(refresh);
    }
}

/// A bound for a test that hangs. Nothing is measured.
const PATIENCE: Duration = Duration::from_secs(60);

// ===== both directions =====

#[tokio::test]
async fn both_directions_of_the_retry_flow_before_either_ends() {
    for version in VERSIONS {
        let server = Recorder::serve().await;
        let client = layer(&server, Mint::new(HOUR)).service(client(version));
        // The first request is rejected, before anything of its body is there; the second is not.
        for requests in [2, 3] {
            let (say, said) = mpsc::unbounded_channel::<&'static str>();
            let request = post(&server, "/echo", Replayable::new(spoken(said)));
            let answer = timeout(PATIENCE, client.clone().oneshot(request)).await.unwrap().unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            let mut echo = answer.into_body();
            for word in ["one", "two", "three"] {
                say.send(word).unwrap();
                let frame = timeout(PATIENCE, echo.frame()).await.unwrap().unwrap().unwrap();
                assert_eq!(frame.into_data().unwrap(), word, "{version:?}");
            }
            drop(say);
            let rest = timeout(PATIENCE, echo.collect()).await.unwrap().unwrap();
            assert_eq!(rest.to_bytes(), "", "{version:?}");
            assert_eq!(server.requests(), requests);
        }
    }
}

#[tokio::test]
async fn frames_sent_before_the_rejection_are_sent_again() {
    for version in VERSIONS {
        let server = Recorder::serve().await;
        let client = layer(&server, Mint::new(HOUR)).service(client(version));
        let (say, said) = mpsc::unbounded_channel::<&'static str>();
        say.send("one").unwrap();
        say.send("two").unwrap();
        let request = post(&server, "/echo", Replayable::new(spoken(said)));
        let answer = timeout(PATIENCE, client.oneshot(request)).await.unwrap().unwrap();
        say.send("three").unwrap();
        drop(say);
        let echoed = timeout(PATIENCE, answer.into_body().collect()).await.unwrap().unwrap();
        assert_eq!(echoed.to_bytes(), "onetwothree", "{version:?}");
        assert_eq!(server.requests(), 2);
    }
}

fn spoken(
    mut said: mpsc::UnboundedReceiver<&'static str>,
) -> impl Body<Data = Bytes, Error = BoxError> + Send + 'static {
    StreamBody::new(
        futures_util::stream::poll_fn(move |cx| said.poll_recv(cx))
            .map(|word| Ok(Frame::data(Bytes::from(word)))),
    )
}

// ===== connections =====

#[tokio::test]
async fn stream_written_whole_leaves_its_connection_to_the_retry() {
    for version in VERSIONS {
        for exact in [true, false] {
            let server = Recorder::serve().await;
            let mut upload = Upload::of(chunks());
            if exact {
                upload = upload.exact();
            }
            let answer = send(version, &server, "/after", Replayable::new(upload)).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(server.requests(), 2);
            assert_eq!(server.connections(), 1, "{version:?}");
        }
    }
}

#[tokio::test]
async fn early_rejection_over_http_2_ends_only_its_own_stream() {
    let server = Recorder::serve().await;
    let credentials = tower_refresh::Credentials::with_policy(
        Mint::new(HOUR),
        RefreshPolicy::default().clock(TokioClock::new()),
    );
    let layer = RefreshLayer::new(credentials.clone()).origin(server.url("")).unwrap();
    let http = client(Version::Http2);
    let client = ServiceBuilder::new().layer(layer).service(http.clone());
    // Another stream of the same connection, without our token.
    let (say, said) = mpsc::unbounded_channel::<&'static str>();
    let other = post(&server, "/echo", Replayable::new(spoken(said)).boxed_unsync());
    let mut echo = http.oneshot(other).await.unwrap().into_body();

    let upload = Upload::of(chunks()).wait(5, server.requested(3));
    let expected = upload.expected();
    let request = post(&server, "/early", Replayable::new(upload).boxed_unsync());
    let answer = timeout(PATIENCE, client.oneshot(request)).await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(server.arrived(2).await.sent(), expected);
    assert!(!server.arrived(1).await.whole);
    assert!(server.rejection_was_read_before_the_end_of(1).await);

    say.send("still here").unwrap();
    let frame = timeout(PATIENCE, echo.frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "still here");
    assert_eq!(server.connections(), 1);
}

// ===== without a retry =====

#[tokio::test]
async fn without_retry_no_part_of_a_body_is_kept() {
    /// Returns the bytes of a body that are in memory after the service has read it and before it responds.
    async fn held<R>(
        layer: RefreshLayer<tower_refresh::Credentials, tower_refresh::Unauthorized, R>,
        skip: bool,
    ) -> usize
    where
        R: tower_refresh::replay::Retry<Replayable<Upload>, Spare: Send> + Send + Sync + 'static,
    {
        let upload = Upload::of([8 * KIB; 5]);
        let memory = upload.memory();
        let service = tower::service_fn(move |request: Request<Replayable<Upload>>| {
            let memory = memory.clone();
            async move {
                let mut body = request.into_body();
                while let Some(frame) = body.frame().await {
                    drop(frame?);
                }
                Ok::<_, BoxError>(Response::new(memory.now().to_string()))
            }
        });
        let mut request = Request::post("https://api.test/").body(Replayable::new(upload)).unwrap();
        if skip {
            request.extensions_mut().insert(Skip::Retry);
        }
        let client =
            ServiceBuilder::new().layer(layer.origin("https://api.test").unwrap()).service(service);
        client.oneshot(request).await.unwrap().into_body().parse().unwrap()
    }
    let layer = || RefreshLayer::new(Mint::new(HOUR));
    assert_eq!(held(layer(), false).await, 40 * KIB);
    assert_eq!(held(layer(), true).await, 0);
    assert_eq!(held(layer().without_retry(), false).await, 0);
}

// ===== the client =====

trait Sendable:
    ReplayBody<Data = Bytes, Spare: Send, Error: Into<BoxError>> + Send + Unpin + 'static
{
}

impl<B> Sendable for B where
    B: ReplayBody<Data = Bytes, Spare: Send, Error: Into<BoxError>> + Send + Unpin + 'static
{
}

fn layer<S: TokenSource>(
    server: &Recorder,
    source: S,
) -> ServiceBuilder<tower::layer::util::Stack<RefreshLayer, tower::layer::util::Identity>> {
    ServiceBuilder::new().layer(RefreshLayer::new(source).origin(server.url("")).unwrap())
}

fn post<B>(server: &Recorder, path: &str, body: B) -> Request<B> {
    Request::post(server.url(path))
        // Without them hyper sends no trailers over HTTP/1.1.
        .header(header::TE, "trailers")
        .header(header::TRAILER, trailers().keys().next().unwrap().as_str())
        .body(body)
        .unwrap()
}

/// Sends one request through a layer whose first token is rejected.
async fn send<B: Sendable>(
    version: Version,
    server: &Recorder,
    path: &str,
    body: B,
) -> Result<Response<Incoming>, BoxError> {
    let client = layer(server, Mint::new(HOUR)).service(client(version));
    timeout(PATIENCE, client.oneshot(post(server, path, body))).await.unwrap()
}

/// An error and its causes.
fn chain(error: &dyn Error) -> String {
    let mut causes = vec![error.to_string()];
    let mut source = error.source();
    while let Some(error) = source {
        causes.push(error.to_string());
        source = error.source();
    }
    // reqwest's body wraps each error in one of its own, and so do two of them, one in the other.
    causes.dedup();
    causes.join(": ")
}
