//! Answers that come late, in parts, or to a caller that is gone.

use std::time::Duration;

use http::{Response, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::support::*;

#[tokio::test]
async fn interim_answers_of_the_api_stay_behind() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await;
        let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
        let answer = format!("{interim}HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
        stream.write_all(answer.as_bytes()).await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await;
    });
    let sidecar = Sidecar::before(&origin).await;
    let answer = sidecar.send(get("/")).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(!answer.headers().contains_key("link"));
    assert_eq!(read(answer.into_body()).await, "hello");
}

#[tokio::test]
async fn request_of_a_caller_that_is_gone_is_cancelled() {
    for upstream in [Upstream::Http1, Upstream::Http2] {
        let (events, mut seen) = mpsc::unbounded_channel();
        let origin = api(upstream, move |_| {
            let events = events.clone();
            async move {
                events.send("asked").unwrap();
                let _cancelled = Cancelled(events);
                std::future::pending::<Response<Body>>().await
            }
        })
        .await;
        let sidecar = Sidecar::before_upstream(&origin, upstream).await;
        let mut caller = sidecar.connect().await;
        caller.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        assert_eq!(soon(seen.recv()).await, Some("asked"), "{upstream:?}");
        drop(caller);
        assert_eq!(soon(seen.recv()).await, Some("cancelled"), "{upstream:?}");
    }
}

/// Reports that the request it belongs to was dropped.
struct Cancelled(mpsc::UnboundedSender<&'static str>);

impl Drop for Cancelled {
    fn drop(&mut self) {
        let _ = self.0.send("cancelled");
    }
}

/// X2: the end of an answer may lie in a buffer for longer than an idle connection is kept.
#[tokio::test]
async fn caller_that_reads_slowly_gets_the_whole_answer() {
    for size in [300_000, 3_000_000] {
        let origin =
            api(Upstream::Http1, move |_| async move { Response::new(full(vec![b'x'; size])) })
                .await;
        let sidecar = Sidecar::before(&origin).await;
        let mut caller = sidecar.connect().await;
        caller.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 1000];
        soon(caller.read_exact(&mut answer)).await.unwrap();
        tokio::time::pause();
        for _ in 0..10 {
            tokio::time::advance(Duration::from_secs(31)).await;
        }
        tokio::time::resume();
        let mut rest = Vec::new();
        let end = b"\r\n\r\n".len() + answer.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
        rest.resize(end + size - answer.len(), 0);
        soon(caller.read_exact(&mut rest)).await.unwrap();
        assert!(rest.iter().all(|byte| *byte == b'x'));
    }
}
