//! `HoldTrailersLayer`, over responses that a test sends frame by frame.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Collected, Empty, Full, StreamBody};
use tokio::sync::mpsc;
use tokio::time::advance;
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer as _, ServiceBuilder, ServiceExt as _};
use tower_refresh::grpc::{HoldTrailersLayer, ResponseBody};
use tower_refresh::{RefreshLayer, Renewal, TokenSet};

type Frames = mpsc::UnboundedSender<Result<Frame<Bytes>, io::Error>>;

/// Returns a response with a gRPC head, and the sender of its body.
fn answer() -> (Frames, Response<impl Body<Data = Bytes, Error = io::Error> + Unpin>) {
    let (frames, mut receiver) = mpsc::unbounded_channel();
    let stream = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    (frames, head(StreamBody::new(stream)))
}

fn head<B>(body: B) -> Response<B> {
    Response::builder()
        .version(Version::HTTP_2)
        .header(header::CONTENT_TYPE, "application/grpc+proto")
        .header("x-initial", "initial")
        .extension("an extension")
        .body(body)
        .unwrap()
}

/// Returns a body whose frames are all ready.
fn body_of(
    frames: Vec<Frame<Bytes>>,
) -> StreamBody<impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Unpin> {
    StreamBody::new(futures_util::stream::iter(frames.into_iter().map(Ok)))
}

fn data(bytes: impl Into<Bytes>) -> Frame<Bytes> {
    Frame::data(bytes.into())
}

/// A message with its prefix.
fn message(text: &str) -> Bytes {
    let mut message = vec![0];
    message.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    message.extend(text.as_bytes());
    message.into()
}

fn trailers(code: u16) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(code));
    trailers.insert("grpc-message", HeaderValue::from_static("who%20are%20you"));
    trailers.append("x-trailing", HeaderValue::from_static("1"));
    trailers.append("x-trailing", HeaderValue::from_static("2"));
    trailers
}

/// Makes one call through the layer.
fn call<B>(
    layer: HoldTrailersLayer,
    response: Response<B>,
) -> task::Spawn<impl Future<Output = Result<Response<ResponseBody<B>>, Infallible>>>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut response = Some(response);
    let inner = tower::service_fn(move |_: Request<()>| {
        let response = response.take().unwrap();
        async move { Ok::<_, Infallible>(response) }
    });
    let request = Request::post("/package.Service/Method").body(()).unwrap();
    task::spawn(layer.layer(inner).oneshot(request))
}

async fn collect<B>(response: Response<B>) -> Collected<Bytes>
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    response.into_body().collect().await.unwrap()
}

// ===== responses that are held =====

#[tokio::test(start_paused = true)]
async fn head_and_message_wait_for_trailers_and_arrive_complete() {
    let (frames, response) = answer();
    let mut call = call(HoldTrailersLayer::new(), response);
    assert_pending!(call.poll());
    frames.send(Ok(data(message("first")))).unwrap();
    assert!(call.is_woken());
    assert_pending!(call.poll());
    frames.send(Ok(Frame::trailers(trailers(16)))).unwrap();
    let response = assert_ready!(call.poll()).unwrap();

    assert_eq!(response.headers()["grpc-status"], "16");
    assert_eq!(response.headers()["grpc-message"], "who%20are%20you");
    assert_eq!(response.headers().get_all("x-trailing").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(response.headers()["x-initial"], "initial");
    assert_eq!(response.version(), Version::HTTP_2);
    assert_eq!(response.extensions().get(), Some(&"an extension"));
    drop(frames);
    let body = collect(response).await;
    assert_eq!(body.trailers(), Some(&trailers(16)));
    assert_eq!(body.to_bytes(), message("first"));
}

#[tokio::test]
async fn every_other_status_passes_unchanged() {
    for code in (0..=18).filter(|code| *code != 16) {
        let frames = vec![data(message("first")), Frame::trailers(trailers(code))];
        let mut call = call(HoldTrailersLayer::new(), head(body_of(frames)));
        let response = assert_ready!(call.poll()).unwrap();
        assert_eq!(response.headers(), head(()).headers(), "{code}");
        let body = collect(response).await;
        assert_eq!(body.trailers(), Some(&trailers(code)));
        assert_eq!(body.to_bytes(), message("first"));
    }
}

#[tokio::test]
async fn headers_of_the_head_are_not_overwritten_by_trailers() {
    let mut trailers = trailers(16);
    trailers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
    trailers.insert("x-initial", HeaderValue::from_static("trailing"));
    let mut call =
        call(HoldTrailersLayer::new(), head(body_of(vec![Frame::trailers(trailers.clone())])));
    let response = assert_ready!(call.poll()).unwrap();
    let all = |name| response.headers().get_all(name).iter().collect::<Vec<_>>();
    assert_eq!(all("content-type"), ["application/grpc+proto"]);
    assert_eq!(all("x-initial"), ["initial"]);
    assert_eq!(response.headers()["grpc-status"], "16");
    assert_eq!(collect(response).await.trailers(), Some(&trailers));
}

#[tokio::test]
async fn tonic_reads_the_same_status_from_headers_and_trailers() {
    let mut call =
        call(HoldTrailersLayer::new(), head(body_of(vec![Frame::trailers(trailers(16))])));
    let response = assert_ready!(call.poll()).unwrap();
    let status = tonic::Status::from_header_map(response.headers()).unwrap();
    let trailing = tonic::Status::from_header_map(&trailers(16)).unwrap();
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
    assert_eq!(status.message(), "who are you");
    for name in trailing.metadata().clone().into_headers().keys() {
        let values = |status: &tonic::Status| {
            status.metadata().get_all(name.as_str()).iter().cloned().collect::<Vec<_>>()
        };
        assert_eq!(values(&status), values(&trailing), "{name}");
    }
}

// ===== responses that are released =====

#[tokio::test(start_paused = true)]
async fn second_message_releases_the_response_at_any_frame_cut() {
    let both = [message("first"), message("second")].concat();
    let first = message("first").len();
    for size in 1..both.len() {
        let (frames, response) = answer();
        let mut call = call(HoldTrailersLayer::new(), response);
        let mut sent = 0;
        for chunk in both.chunks(size) {
            assert_pending!(call.poll(), "after {sent} bytes in frames of {size}");
            frames.send(Ok(data(chunk.to_vec()))).unwrap();
            sent += chunk.len();
            if sent > first {
                break;
            }
        }
        let response =
            assert_ready!(call.poll(), "after {sent} bytes in frames of {size}").unwrap();
        frames.send(Ok(data(both[sent..].to_vec()))).unwrap();
        frames.send(Ok(Frame::trailers(trailers(16)))).unwrap();
        drop(frames);
        assert_eq!(response.headers(), head(()).headers());
        let body = collect(response).await;
        assert_eq!(body.trailers(), Some(&trailers(16)));
        assert_eq!(body.to_bytes(), both);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_held_up_to_the_limit_and_not_beyond() {
    let long = message(&"a".repeat(100));
    let (frames, response) = answer();
    let mut held = call(HoldTrailersLayer::new().limit(long.len()), response);
    frames.send(Ok(data(long.clone()))).unwrap();
    assert_pending!(held.poll());

    let (frames, response) = answer();
    let mut passed = call(HoldTrailersLayer::new().limit(long.len() - 1), response);
    assert_pending!(passed.poll());
    frames.send(Ok(data(long.slice(..60)))).unwrap();
    assert_pending!(passed.poll());
    frames.send(Ok(data(long.slice(60..)))).unwrap();
    let response = assert_ready!(passed.poll()).unwrap();
    frames.send(Ok(Frame::trailers(trailers(16)))).unwrap();
    drop(frames);
    assert_eq!(response.headers(), head(()).headers());
    let body = collect(response).await;
    assert_eq!(body.trailers(), Some(&trailers(16)));
    assert_eq!(body.to_bytes(), long);
}

#[tokio::test(start_paused = true)]
async fn response_of_empty_frames_is_not_held_without_end() {
    let endless = futures_util::stream::repeat_with(|| Ok::<_, Infallible>(data(Bytes::new())));
    let mut call = call(HoldTrailersLayer::new().limit(1000), head(StreamBody::new(endless)));
    assert_ready!(call.poll()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_body_that_fails_fails_in_its_place() {
    let (frames, response) = answer();
    let mut call = call(HoldTrailersLayer::new(), response);
    frames.send(Ok(data(message("first")))).unwrap();
    frames.send(Err(io::Error::other("the connection is gone"))).unwrap();
    let response = assert_ready!(call.poll()).unwrap();
    assert_eq!(response.headers(), head(()).headers());
    let mut body = response.into_body();
    assert!(!body.is_end_stream());
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), message("first"));
    assert!(!body.is_end_stream());
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "the connection is gone");
    assert!(body.is_end_stream());
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn stream_held_by_mistake_is_released_in_time() {
    let (frames, response) = answer();
    let mut call = call(HoldTrailersLayer::new(), response);
    frames.send(Ok(data(message("first")))).unwrap();
    assert_pending!(call.poll());
    advance(Duration::from_millis(900)).await;
    assert_pending!(call.poll());
    // The time counts from the head, regardless of later frames.
    frames.send(Ok(data(Bytes::new()))).unwrap();
    assert_pending!(call.poll());
    advance(Duration::from_millis(101)).await;
    assert!(call.is_woken());
    let response = assert_ready!(call.poll()).unwrap();
    frames.send(Ok(data(message("second")))).unwrap();
    drop(frames);
    let both = [message("first"), message("second")].concat();
    assert_eq!(collect(response).await.to_bytes(), both);
}

#[tokio::test(start_paused = true)]
async fn how_long_an_answer_is_held_can_be_set() {
    let (_frames, response) = answer();
    let mut call = call(HoldTrailersLayer::new().timeout(Duration::from_secs(60)), response);
    assert_pending!(call.poll());
    advance(Duration::from_secs(59)).await;
    assert_pending!(call.poll());
    advance(Duration::from_secs(2)).await;
    assert_ready!(call.poll()).unwrap();
}

#[test]
fn outside_a_runtime_an_answer_that_is_not_there_is_not_held() {
    let (_frames, response) = answer();
    let mut pending = call(HoldTrailersLayer::new(), response);
    assert_ready!(pending.poll()).unwrap();
    let mut there =
        call(HoldTrailersLayer::new(), head(body_of(vec![Frame::trailers(trailers(16))])));
    assert_eq!(assert_ready!(there.poll()).unwrap().headers()["grpc-status"], "16");
}

// ===== responses that are not held =====

#[tokio::test(start_paused = true)]
async fn what_is_no_unary_answer_is_not_held_for_a_moment() {
    let at_once = |layer: HoldTrailersLayer, change: fn(&mut http::response::Parts)| {
        let (frames, response) = answer();
        let (mut parts, body) = response.into_parts();
        change(&mut parts);
        let mut call = call(layer, Response::from_parts(parts, body));
        let ready = call.poll().is_ready();
        drop(frames);
        ready
    };
    let new = HoldTrailersLayer::new;
    assert!(!at_once(new(), |_| {}), "this one is held");
    assert!(!at_once(new().only(|path| path == "/package.Service/Method"), |_| {}), "and this one");
    assert!(at_once(new().only(|path| path == "/package.Service/Stream"), |_| {}));
    assert!(at_once(new(), |head| head.status = StatusCode::BAD_GATEWAY));
    assert!(at_once(new(), |head| drop(head.headers.remove(header::CONTENT_TYPE))));
    assert!(at_once(new(), |head| {
        head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
    }));
    assert!(at_once(new(), |head| {
        head.headers.insert("grpc-status", HeaderValue::from_static("0"));
    }));
}

#[tokio::test]
async fn the_length_of_the_body_is_known_as_before() {
    let whole = Full::new(message("first"));
    let mut call = call(HoldTrailersLayer::new(), head(whole));
    let mut body = assert_ready!(call.poll()).unwrap().into_body();
    assert_eq!(body.size_hint().exact(), Some(message("first").len() as u64));
    assert!(!body.is_end_stream());
    body.frame().await.unwrap().unwrap();
    assert_eq!(body.size_hint().exact(), Some(0));
    assert!(body.is_end_stream());

    // Released before its end: the held frames, and the rest.
    let two = [message("first"), message("second")].concat();
    let body = body_of(vec![data(two.clone())]);
    let mut call = self::call(HoldTrailersLayer::new(), head(body));
    let body = assert_ready!(call.poll()).unwrap().into_body();
    assert_eq!(body.size_hint().lower(), two.len() as u64);
    assert_eq!(body.size_hint().upper(), None);
}

// ===== beneath `RefreshLayer` =====

/// The ways in which servers respond with UNAUTHENTICATED.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// tonic's `Err(Status)`, grpcio's `context.abort`.
    TrailersOnly,
    /// An error in a stream that has sent a message.
    AfterOneMessage,
    AfterTwoMessages,
    /// After initial metadata.
    AfterTheHead,
}

fn refuse(shape: Shape) -> Response<tonic::body::Body> {
    let trailing = Frame::trailers(trailers(16));
    let frames = match shape {
        Shape::TrailersOnly => {
            let mut response = head(tonic::body::Body::empty());
            response.headers_mut().extend(trailers(16));
            return response;
        }
        Shape::AfterOneMessage => vec![data(message("first")), trailing],
        Shape::AfterTwoMessages => {
            vec![data(message("first")), data(message("second")), trailing]
        }
        Shape::AfterTheHead => vec![trailing],
    };
    head(tonic::body::Body::new(body_of(frames)))
}

/// Calls a server that refuses the first token in this form, and returns whether the retry succeeded.
async fn sent_again(shape: Shape, hold: bool) -> bool {
    let server = tower::service_fn(move |request: Request<Empty<Bytes>>| async move {
        Ok::<_, Infallible>(if request.headers()[header::AUTHORIZATION] == "Bearer t1" {
            refuse(shape)
        } else {
            let frames = vec![data(message("accepted")), Frame::trailers(trailers(0))];
            head(tonic::body::Body::new(body_of(frames)))
        })
    });
    let source = |renewal: Renewal| async move {
        let token = if renewal.previous().is_none() { "t1" } else { "t2" };
        TokenSet::bearer(token)
    };
    let client = ServiceBuilder::new()
        .layer(RefreshLayer::new(source))
        .layer(HoldTrailersLayer::new().only(move |_| hold))
        .service(server);
    let request = Request::post("/package.Service/Method")
        .header(header::CONTENT_TYPE, "application/grpc")
        .body(Empty::new())
        .unwrap();
    let answer = client.oneshot(request).await.unwrap();
    collect(answer).await.to_bytes() == message("accepted")
}

#[tokio::test]
async fn rejection_in_trailers_is_seen_only_with_the_layer() {
    for (shape, without, with) in [
        (Shape::TrailersOnly, true, true),
        (Shape::AfterOneMessage, false, true),
        (Shape::AfterTwoMessages, false, false),
        (Shape::AfterTheHead, false, true),
    ] {
        assert_eq!(sent_again(shape, false).await, without, "{shape:?}, without");
        assert_eq!(sent_again(shape, true).await, with, "{shape:?}, with");
    }
}
