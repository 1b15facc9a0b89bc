//! Tunnels and upgrades, which the sidecar does not support.

use http::{Method, Request, StatusCode, Uri};

use crate::support::*;

/// X4.
#[tokio::test]
async fn upgrade_is_refused_and_costs_no_token() {
    let (origin, mut seen) = recording_api().await;
    let sidecar = Sidecar::before(&origin).await;
    for upgrade in [
        "GET /chat HTTP/1.1\nconnection: Upgrade\nupgrade: websocket\nsec-websocket-key: eA==",
        "GET / HTTP/1.1\nconnection: Upgrade\nupgrade: h2c, websocket",
        "OPTIONS / HTTP/1.1\nconnection: upgrade\nupgrade: TLS/1.2",
        "POST /attach HTTP/1.1\nconnection: Upgrade\nupgrade: tcp\ncontent-length: 0",
        "GET / HTTP/1.1\nupgrade: websocket",
        "CONNECT localhost HTTP/1.1",
        "CONNECT api.example.com:443 HTTP/1.1",
        "CONNECT localhost HTTP/1.0",
    ] {
        let answer = sidecar.ask(&format!("{upgrade}\nhost: localhost")).await;
        assert!(answer.contains(" 501 "), "{upgrade}: {answer}");
        assert!(answer.contains("sidecar-error: upgrade\r\n"), "{upgrade}: {answer}");
        assert!(answer.contains("HTTP/2 from the start"), "{upgrade}: {answer}");
    }
    assert!(seen.try_recv().is_err());
    assert_eq!(sidecar.credentials.status().generation, None);
}

/// X4.
#[tokio::test]
async fn connect_over_http_2_is_refused() {
    let (origin, mut seen) = recording_api().await;
    let sidecar = Sidecar::before(&origin).await;
    let mut request = Request::new(full(""));
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = Uri::from_static("localhost:80");
    let answer = sidecar.send_over_http2(request).await;
    assert_eq!(answer.status(), StatusCode::NOT_IMPLEMENTED);
    assert_eq!(answer.headers()["sidecar-error"], "upgrade");
    assert!(seen.try_recv().is_err());
}

/// X4: RFC 9110 §7.8 has a server ignore the header of HTTP/1.0. Clients that offer h2c go on without it.
#[tokio::test]
async fn offers_that_cost_nothing_are_ignored() {
    let (origin, mut seen) = recording_api().await;
    let sidecar = Sidecar::before(&origin).await;
    for request in [
        "GET / HTTP/1.0\nupgrade: websocket",
        "GET / HTTP/1.1\nconnection: Upgrade, HTTP2-Settings\nupgrade: h2c\nhttp2-settings: AAMAAABkAAQAAP__",
    ] {
        let answer = sidecar.ask(&format!("{request}\nhost: localhost")).await;
        assert!(answer.contains(" 200 "), "{request}: {answer}");
        let headers = seen.recv().await.unwrap().headers().clone();
        assert!(!headers.contains_key("upgrade") && !headers.contains_key("http2-settings"));
    }
}
