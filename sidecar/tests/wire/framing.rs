//! Where a message ends, towards the API and towards the caller.

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::support::*;

/// X1.
#[tokio::test]
async fn chunked_body_of_any_method_reaches_the_api_whole() {
    for upstream in [Upstream::Http1, Upstream::Http2, Upstream::Tls] {
        let (origin, mut seen) = listening_api(upstream).await;
        let sidecar = Sidecar::before_upstream(&origin, upstream).await;
        for method in ["GET", "HEAD", "DELETE", "OPTIONS", "POST", "PUT", "PATCH", "PROPFIND"] {
            for over_http2 in [false, true] {
                let (sender, body) = channel();
                sender.send(Frame::data("a body, ".into())).unwrap();
                sender.send(Frame::data("in two parts".into())).unwrap();
                sender.send(Frame::trailers(trailer("x-sum"))).unwrap();
                drop(sender);
                let request = Request::builder().method(method).header("trailer", "x-sum");
                let answer = match over_http2 {
                    true => sidecar.send_over_http2(request.body(body).unwrap()).await,
                    false => {
                        let request = request.header("transfer-encoding", "chunked");
                        sidecar.send(request.body(body).unwrap()).await
                    }
                };
                let what = format!("{method} to {upstream:?}, over HTTP/2: {over_http2}");
                assert_eq!(answer.status(), StatusCode::OK, "{what}");
                let arrived = soon(seen.recv()).await.unwrap();
                assert_eq!(
                    arrived,
                    (method.parse().unwrap(), "a body, in two parts".into(), true),
                    "{what}"
                );
            }
        }
    }
}

/// X1.
#[tokio::test]
async fn rejected_get_with_a_chunked_body_is_sent_again_whole() {
    let origin = api(Upstream::Http1, |request| async move {
        if token_of(&request) == "Bearer t1" {
            return rejection();
        }
        Response::new(full(read(request.into_body()).await))
    })
    .await;
    let sidecar = Sidecar::before(&origin).await;
    let answer = sidecar
        .ask("GET / HTTP/1.1\nhost: localhost\ntransfer-encoding: chunked\n\n5\nhello\n0\n")
        .await;
    assert!(answer.contains(" 200 ") && answer.ends_with("hello"), "{answer}");
}

/// X1: a request without a body stays one.
#[tokio::test]
async fn request_without_a_body_gets_no_framing() {
    let (origin, mut seen) = recording_api().await;
    let sidecar = Sidecar::before(&origin).await;
    for method in [Method::GET, Method::HEAD, Method::DELETE] {
        for over_http2 in [false, true] {
            let request = Request::builder().method(&method).body(full("")).unwrap();
            match over_http2 {
                true => sidecar.send_over_http2(request).await,
                false => sidecar.send(request).await,
            };
            let request = soon(seen.recv()).await.unwrap();
            assert!(!request.headers().contains_key("transfer-encoding"), "{method}");
            assert!(!request.headers().contains_key("content-length"), "{method}");
        }
    }
}

#[tokio::test]
async fn transfer_coding_other_than_chunked_is_refused() {
    let (origin, mut seen) = recording_api().await;
    let sidecar = Sidecar::before(&origin).await;
    for coding in ["gzip, chunked", "chunked, chunked", "gzip,\tChunked", "identity, chunked"] {
        let answer = sidecar
            .ask(&format!("POST / HTTP/1.1\nhost: localhost\ntransfer-encoding: {coding}\n\n0\n"))
            .await;
        assert!(answer.contains(" 501 "), "{coding}: {answer}");
        assert!(answer.contains("sidecar-error: transfer-coding\r\n"), "{coding}: {answer}");
    }
    let two = "POST / HTTP/1.1\nhost: localhost\ntransfer-encoding: gzip\ntransfer-encoding: chunked\n\n0\n";
    assert!(sidecar.ask(two).await.contains(" 501 "));
    let other_case = "POST / HTTP/1.1\nhost: localhost\ntransfer-encoding: Chunked\n\n2\nhi\n0\n";
    assert!(sidecar.ask(other_case).await.contains(" 200 "));
    assert_eq!(seen.recv().await.unwrap().body(), "hi");
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn api_with_a_transfer_coding_other_than_chunked_is_an_error() {
    for head in [
        "transfer-encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "transfer-encoding: gzip\r\nconnection: close\r\n\r\nhello",
    ] {
        let sidecar = Sidecar::before(&answering(format!("HTTP/1.1 200 OK\r\n{head}")).await).await;
        let answer = sidecar.send(get("/")).await;
        assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
        assert_eq!(answer.headers()["sidecar-error"], "upstream");
        let text = read(answer.into_body()).await;
        assert!(text.contains("transfer coding"), "{text}");
    }
}

#[tokio::test]
async fn request_smuggled_behind_two_lengths_stays_part_of_the_body() {
    let (origin, mut seen) = recording_api().await;
    let sidecar = Sidecar::before(&origin).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\n\r\n";
    for lengths in [
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 4",
    ] {
        let mut stream = sidecar.connect().await;
        let request = format!(
            "POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{lengths}\r\n\r\n{:x}\r\n{smuggled}\r\n0\r\n\r\n",
            smuggled.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon(stream.read_to_string(&mut answer)).await.unwrap();
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        let request = seen.recv().await.unwrap();
        assert_eq!((request.uri().path(), request.body().as_str()), ("/", smuggled));
        assert!(!request.headers().contains_key("content-length"));
    }
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn request_whose_length_is_unclear_never_reaches_the_api() {
    let (origin, mut seen) = recording_api().await;
    let sidecar = Sidecar::before(&origin).await;
    for lengths in [
        "content-length: 5\ncontent-length: 6",
        "content-length: 5, 6",
        "content-length: +5",
        "content-length: 0x5",
        "content-length: -1",
        "content-length: 99999999999999999999",
        "transfer-encoding: xchunked",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: chunked\ntransfer-encoding: gzip",
        "transfer-encoding : chunked",
        "content-length : 5",
    ] {
        let request = format!("POST / HTTP/1.1\nhost: localhost\n{lengths}\n\nhello");
        let answer = sidecar.ask(&request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{lengths}: {answer}");
    }
    let http_1_0 = "POST / HTTP/1.0\nhost: localhost\ntransfer-encoding: chunked\n\n0\n";
    assert!(sidecar.ask(http_1_0).await.contains(" 400 "));
    assert!(seen.try_recv().is_err());
}

/// Headers that pass over HTTP/1.1 pass over HTTP/2 as well.
#[tokio::test]
async fn headers_of_40_kib_pass_both_ways() {
    let big = HeaderValue::from_bytes(&[b'x'; 40 * 1024]).unwrap();
    for upstream in [Upstream::Http1, Upstream::Tls] {
        let origin = api(upstream, |request| async move {
            Response::builder()
                .header("x-echo", &request.headers()["x-big"])
                .body(full(""))
                .unwrap()
        })
        .await;
        let sidecar = Sidecar::before_upstream(&origin, upstream).await;
        for over_http2 in [false, true] {
            let mut request = get("/");
            request.headers_mut().insert("x-big", big.clone());
            let answer = match over_http2 {
                true => sidecar.send_over_http2(request).await,
                false => sidecar.send(request).await,
            };
            assert_eq!(answer.status(), StatusCode::OK, "{upstream:?} {over_http2}");
            assert!(answer.headers()["x-echo"] == big);
        }
    }
}

#[tokio::test]
async fn upload_that_the_caller_breaks_off_is_never_complete() {
    for upstream in [Upstream::Http1, Upstream::Http2] {
        for method in ["POST", "GET"] {
            let (outcome, mut outcomes) = mpsc::unbounded_channel();
            let origin = api(upstream, move |request| {
                let outcome = outcome.clone();
                async move {
                    outcome.send(None).unwrap();
                    let body = request.into_body().collect().await;
                    outcome.send(Some(body.is_err())).unwrap();
                    Response::new(full(""))
                }
            })
            .await;
            let sidecar = Sidecar::before_upstream(&origin, upstream).await;
            for framing in [
                "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
                "content-length: 9\r\n\r\nhello",
            ] {
                let mut caller = sidecar.connect().await;
                let request = format!("{method} / HTTP/1.1\r\nhost: localhost\r\n{framing}");
                caller.write_all(request.as_bytes()).await.unwrap();
                assert_eq!(soon(outcomes.recv()).await.unwrap(), None);
                drop(caller);
                let outcome = soon(outcomes.recv()).await;
                assert_eq!(outcome, Some(Some(true)), "{method} {upstream:?} {framing}");
            }
        }
    }
}

/// An API that records the method and the body of each request, and whether it had the trailer `x-sum`.
async fn listening_api(
    upstream: Upstream,
) -> (String, mpsc::UnboundedReceiver<(Method, String, bool)>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let origin = api(upstream, move |request| {
        let sender = sender.clone();
        async move {
            let method = request.method().clone();
            let body = request.into_body().collect().await.unwrap();
            let has_trailer = body.trailers().is_some_and(|it| it.contains_key("x-sum"));
            let body = String::from_utf8(body.to_bytes().into()).unwrap();
            sender.send((method, body, has_trailer)).unwrap();
            Response::new(full(""))
        }
    })
    .await;
    (origin, receiver)
}

/// An API that gives one answer, to the byte.
async fn answering(answer: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    origin
}

fn trailer(name: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static("1"))])
}
