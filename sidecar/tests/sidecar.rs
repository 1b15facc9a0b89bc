//! The sidecar: which callers it serves, what it forwards, and how it ends.
#![cfg(unix)]
#![allow(
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test: helpers outside of test functions too, some of which only the other test uses"
)]

mod support;

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, UnixStream};
use tokio::sync::{Notify, oneshot};
use tower_refresh::TokenError;
use tower_refresh::testing::AuthorizationServer;
use tower_refresh_sidecar::listen::{Listen, Listener};
use tower_refresh_sidecar::program::{self, Command};
use tower_refresh_sidecar::serve::Options;
use tower_refresh_sidecar::{config, guard, serve};

use self::support::*;

// ===== callers =====

#[tokio::test]
async fn foreign_host_or_browser_is_refused_without_a_token_request() {
    let (origin, mut seen) = recording_api().await;
    let sidecar = Sidecar::before(&origin).await;
    let elsewhere = origin.strip_prefix("http://").unwrap();
    for (status, kind, request) in [
        (405, "method", "TRACE / HTTP/1.1\nhost: localhost"),
        (501, "upgrade", "CONNECT localhost:80 HTTP/1.1\nhost: localhost"),
        (421, "host", "GET / HTTP/1.1\nhost: api.example.com"),
        (421, "host", &format!("GET / HTTP/1.1\nhost: {elsewhere}")),
        (421, "host", "GET / HTTP/1.1\nhost: localhost:80"),
        (421, "host", "GET / HTTP/1.1\nhost: localhost.example.com"),
        (421, "host", "GET / HTTP/1.1\nhost: user@localhost"),
        (421, "host", "GET / HTTP/1.1\nhost:"),
        (421, "host", "GET / HTTP/1.1\nhost: localhost\nhost: api.example.com"),
        (421, "host", "GET / HTTP/1.1"),
        (421, "host", "GET / HTTP/1.0"),
        (421, "host", &format!("GET {origin}/ HTTP/1.1\nhost: localhost")),
        (421, "host", "GET http://localhost/ HTTP/1.1\nhost: api.example.com"),
        (403, "browser", "GET / HTTP/1.1\nhost: localhost\norigin: http://localhost"),
        (403, "browser", "GET / HTTP/1.1\nhost: localhost\norigin: null"),
        (403, "browser", "OPTIONS / HTTP/1.1\nhost: localhost\norigin: https://example.com"),
        (403, "browser", "GET / HTTP/1.1\nhost: localhost\nsec-fetch-site: none"),
        (403, "browser", "GET /-/status HTTP/1.1\nhost: localhost\nsec-fetch-site: none"),
        (400, "target", "OPTIONS * HTTP/1.1\nhost: localhost"),
        (405, "method", "POST /-/status HTTP/1.1\nhost: localhost"),
    ] {
        let answer = sidecar.ask(request).await;
        assert!(answer.contains(&format!(" {status} ")), "{request}: {answer}");
        assert!(answer.contains(&format!("sidecar-error: {kind}\r\n")), "{request}: {answer}");
        assert_eq!(answer.contains("\r\nallow: "), status == 405, "{request}: {answer}");
    }
    assert!(seen.try_recv().is_err());
    assert_eq!(sidecar.credentials.status().generation, None);

    for request in [
        "GET / HTTP/1.1\nhost: localhost",
        "GET / HTTP/1.1\nhost: LOCALHOST",
        "GET http://localhost/ HTTP/1.1\nhost: localhost",
    ] {
        let answer = sidecar.ask(request).await;
        assert!(
            answer.contains(" 200 ") && answer.ends_with("from the API"),
            "{request}: {answer}"
        );
        assert!(!answer.contains("sidecar-error"), "{answer}");
    }
}

#[tokio::test]
async fn foreign_authority_over_http_2_is_refused() {
    let (origin, mut seen) = recording_api().await;
    let sidecar = Sidecar::before(&origin).await;
    let answer = sidecar.send_over_http2(get("http://api.example.com/")).await;
    assert_eq!(answer.status(), StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(answer.headers()["sidecar-error"], "host");
    assert!(seen.try_recv().is_err());
    assert_eq!(sidecar.send_over_http2(get("/")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn request_over_tcp_needs_the_key_and_the_listeners_name() {
    let (origin, mut seen) = recording_api().await;
    let sidecar = Sidecar::over_tcp(&origin).await;
    let (key, port) = (sidecar.key.clone().unwrap(), sidecar.port());
    let name = format!("host: 127.0.0.1:{port}");
    let mut wrong = key.clone();
    let last = wrong.pop();
    wrong.push(if last == Some('0') { '1' } else { '0' });
    for (status, kind, request) in [
        (401, "key", format!("GET / HTTP/1.1\n{name}")),
        (401, "key", format!("GET / HTTP/1.1\n{name}\nsidecar-key:")),
        (401, "key", format!("GET / HTTP/1.1\n{name}\n{wrong}")),
        (401, "key", format!("GET / HTTP/1.1\n{name}\n{}", &key[..key.len() - 1])),
        (401, "key", format!("GET / HTTP/1.1\n{name}\n{key}0")),
        (401, "key", format!("GET / HTTP/1.1\n{name}\n{key}\n{wrong}")),
        (401, "key", format!("GET /-/status HTTP/1.1\n{name}")),
        (421, "host", format!("GET / HTTP/1.1\nhost: localhost\n{key}")),
        (421, "host", format!("GET / HTTP/1.1\nhost: localhost:{port}\n{key}")),
        (421, "host", format!("GET / HTTP/1.1\nhost: 127.0.0.1\n{key}")),
        (421, "host", format!("GET / HTTP/1.1\nhost: 127.0.0.1:1{port}\n{key}")),
        (421, "host", format!("GET / HTTP/1.1\nhost: example.com:{port}\n{key}")),
        (403, "browser", format!("GET / HTTP/1.1\n{name}\norigin: null\n{key}")),
    ] {
        let answer = sidecar.ask(&request).await;
        assert!(answer.contains(&format!(" {status} ")), "{request}: {answer}");
        assert!(answer.contains(&format!("sidecar-error: {kind}\r\n")), "{request}: {answer}");
        assert_eq!(answer.contains("\r\nwww-authenticate: "), status == 401, "{answer}");
        assert!(!answer.contains(&key["sidecar-key: ".len()..]), "{answer}");
    }
    assert!(seen.try_recv().is_err());

    let answer = sidecar.ask(&format!("GET / HTTP/1.1\n{name}\n{key}")).await;
    assert!(answer.contains(" 200 "), "{answer}");
    assert!(!seen.recv().await.unwrap().headers().contains_key("sidecar-key"));
}

#[tokio::test]
async fn http_2_request_over_tcp_needs_the_key() {
    let (origin, mut seen) = recording_api().await;
    let sidecar = Sidecar::over_tcp(&origin).await;
    let url = format!("http://127.0.0.1:{}/", sidecar.port());
    let mut wrong = get(&url);
    wrong.headers_mut().insert("sidecar-key", "0".repeat(64).parse().unwrap());
    for request in [get(&url), wrong] {
        let answer = sidecar.send_over_http2(request).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(answer.headers()["sidecar-error"], "key");
    }
    assert!(seen.try_recv().is_err());

    let mut right = get(&url);
    let key = sidecar.key.as_deref().unwrap().strip_prefix("sidecar-key: ").unwrap();
    right.headers_mut().insert("sidecar-key", key.parse().unwrap());
    assert_eq!(sidecar.send_over_http2(right).await.status(), StatusCode::OK);
    assert!(!seen.recv().await.unwrap().headers().contains_key("sidecar-key"));
}

#[test]
fn address_that_is_not_loopback_is_an_error() {
    for good in ["tcp:127.0.0.1:0", "tcp:127.0.0.1:8080", "tcp:[::1]:8080", "unix:/run/socket"] {
        assert!(Listen::parse(good).is_ok(), "{good}");
    }
    for (bad, why) in [
        ("tcp:0.0.0.0:8080", "not a loopback address"),
        ("tcp:192.168.1.2:8080", "not a loopback address"),
        ("tcp:[::]:8080", "not a loopback address"),
        ("tcp:example.com:8080", "must be"),
        ("tcp:127.0.0.1", "must be"),
        ("127.0.0.1:8080", "must be"),
        ("unix:", "must be"),
    ] {
        let error = Listen::parse(bad).unwrap_err().to_string();
        assert!(error.contains(why), "{bad}: {error}");
    }
}

#[test]
fn default_socket_is_in_a_folder_of_the_user() {
    let by_default = |variables: &[(&str, &str)]| {
        Listen::by_default(|name| {
            let (_, value) = variables.iter().find(|(there, _)| *there == name)?;
            Some(value.into())
        })
    };
    let (run, home) = (("XDG_RUNTIME_DIR", "/run/user/1"), ("HOME", "/home/me"));
    let of_run = Listen::Unix("/run/user/1/tower-refresh-sidecar.sock".into());
    let of_home = Listen::Unix("/home/me/.tower-refresh-sidecar.sock".into());
    assert_eq!(by_default(&[run, home]).unwrap(), of_run);
    assert_eq!(by_default(&[home]).unwrap(), of_home);
    assert_eq!(by_default(&[("XDG_RUNTIME_DIR", ""), home]).unwrap(), of_home);
    for nowhere in [&[][..], &[("HOME", "")]] {
        let error = by_default(nowhere).unwrap_err().to_string();
        assert!(error.contains("--listen"), "{error}");
    }
}

#[test]
fn command_line_requires_only_a_configuration() {
    let parse = |line: &str| {
        let arguments = line.split_whitespace().map(str::to_owned);
        program::parse(arguments, |name| (name == "HOME").then(|| "/home/me".into()))
    };
    let options = |line| match parse(line) {
        Ok(Command::Serve(options)) => options,
        _ => panic!("{line}: it is to serve"),
    };
    let least = options("--config file");
    assert_eq!(least.config.to_str(), Some("file"));
    assert_eq!(least.listen, Listen::Unix("/home/me/.tower-refresh-sidecar.sock".into()));
    assert_eq!(least.key_file, None);
    let most = options("--key-file key --listen tcp:127.0.0.1:80 --config file");
    assert_eq!(most.listen, Listen::Tcp(([127, 0, 0, 1], 80).into()));
    assert_eq!(most.key_file.unwrap().to_str(), Some("key"));

    for (line, expected) in [
        ("--config file --check", None),
        ("--check --config file", None),
        ("--config file --check https://api.example.com/", Some("https://api.example.com/")),
        ("--check https://api.example.com/ --config file", Some("https://api.example.com/")),
    ] {
        let Ok(Command::Check(options)) = parse(line) else { panic!("{line}: it is to check") };
        assert_eq!((options.config.to_str(), options.url.as_deref()), (Some("file"), expected));
    }

    assert!(matches!(parse(""), Ok(Command::Demo)));
    assert!(matches!(parse("--config file --help"), Ok(Command::Help)));
    for (bad, why) in [
        ("file", "usage"),
        ("--config", "usage"),
        ("--listen unix:socket", "usage"),
        ("--config file --config file", "twice"),
        ("--check", "usage"),
        ("--config file --check --check", "twice"),
        ("--config file --check --listen unix:socket", "remove --listen"),
        ("--config file --check a b", "usage"),
        ("--config file --key-file key", "needs no key"),
        ("--config file --listen tcp:0.0.0.0:80", "not a loopback address"),
    ] {
        let error = parse(bad).err().unwrap().to_string();
        assert!(error.contains(why), "{bad}: {error}");
    }
}

#[test]
fn each_run_creates_a_new_key() {
    let key = || guard::Key::random().unwrap().header();
    assert_eq!(key().len(), "sidecar-key: ".len() + 64);
    assert_ne!(key(), key());
}

#[test]
fn key_is_never_written_to_a_file_of_another_mode() {
    let folder = Folder::new();
    let key = guard::Key::random().unwrap();
    fs::write(folder.path("key.new"), "").unwrap();
    fs::set_permissions(folder.path("key.new"), fs::Permissions::from_mode(0o666)).unwrap();
    key.write(&folder.path("key")).unwrap();
    assert_eq!(fs::metadata(folder.path("key")).unwrap().permissions().mode() & 0o777, 0o600);

    fs::write(folder.path("theirs"), "").unwrap();
    std::os::unix::fs::symlink(folder.path("theirs"), folder.path("key.new")).unwrap();
    key.write(&folder.path("key")).unwrap();
    assert_eq!(fs::read_to_string(folder.path("theirs")).unwrap(), "");
    assert_eq!(fs::read_to_string(folder.path("key")).unwrap(), format!("{}\n", key.header()));
}

#[tokio::test]
async fn socket_is_private_and_has_one_sidecar() {
    let (origin, _seen) = recording_api().await;
    let sidecar = Sidecar::before(&origin).await;
    let path = sidecar.folder.path("socket");
    let mode = |path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&sidecar.folder.path("socket.lock")), 0o600);

    let second = Listener::bind(&Listen::Unix(path)).await;
    let error = second.err().unwrap().to_string();
    assert!(error.contains("another sidecar listens there"), "{error}");
    assert_eq!(sidecar.send(get("/")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn only_a_socket_that_is_left_behind_is_replaced() {
    let folder = Folder::new();
    let bind = |name| {
        let listen = Listen::Unix(folder.path(name));
        async move { Listener::bind(&listen).await.map_err(|error| error.to_string()) }
    };
    // The standard library's leaves its file behind.
    drop(std::os::unix::net::UnixListener::bind(folder.path("dead")).unwrap());
    fs::create_dir(folder.path("dead.new")).unwrap();
    fs::write(folder.path("dead.new").join("s"), "").unwrap();
    let listener = bind("dead").await.unwrap();
    assert!(UnixStream::connect(folder.path("dead")).await.is_ok());
    assert!(!folder.path("dead.new").exists());
    drop(listener);
    assert!(!folder.path("dead").exists());
    assert!(bind("dead").await.is_ok());

    let _live = std::os::unix::net::UnixListener::bind(folder.path("live")).unwrap();
    assert!(bind("live").await.err().unwrap().ends_with("another program listens there"));
    assert!(UnixStream::connect(folder.path("live")).await.is_ok());

    // Nor is one dead that has no time for another connection.
    let busy = tokio::net::UnixSocket::new_stream().unwrap();
    busy.bind(folder.path("busy")).unwrap();
    let busy = busy.listen(0).unwrap();
    while let Ok(waiting) = UnixStream::connect(folder.path("busy")).await {
        std::mem::forget(waiting);
    }
    assert!(bind("busy").await.err().unwrap().ends_with("another program listens there"));
    drop(busy);

    fs::write(folder.path("file"), "precious").unwrap();
    assert!(bind("file").await.err().unwrap().contains("is not a socket"));
    assert_eq!(fs::read_to_string(folder.path("file")).unwrap(), "precious");
}

// ===== forwarding =====

#[tokio::test]
async fn api_gets_the_token_without_headers_of_the_hop() {
    let (origin, mut seen) = recording_api().await;
    let sidecar = Sidecar::over_tcp(&origin).await;
    let (key, port) = (sidecar.key.clone().unwrap(), sidecar.port());
    let answer = sidecar
        .ask(&format!(
            "POST /v1/things?a=b%20c HTTP/1.1
            host: 127.0.0.1:{port}
            {key}
            authorization: Bearer of-the-caller
            cookie: session=of-the-caller
            connection: keep-alive, x-named, X-Also
            x-named: 1
            x-also: 2
            keep-alive: timeout=5
            proxy-connection: keep-alive
            proxy-authorization: Basic eDp5
            proxy-authenticate: Basic
            te: deflate, trailers
            expect: 100-continue
            via: 1.0 another
            x-twice: 1
            x-twice: 2
            accept: */*
            content-length: 0"
        ))
        .await;
    assert!(answer.contains(" 200 "), "{answer}");
    let request = seen.recv().await.unwrap();
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.uri(), "/v1/things?a=b%20c");
    let host = format!("host: {}", origin.strip_prefix("http://").unwrap());
    assert_eq!(
        lines(request.headers()),
        [
            "accept: */*",
            "authorization: Bearer t1",
            "content-length: 0",
            &host,
            "te: trailers",
            "via: 1.0 another",
            "via: 1.1 sidecar",
            "x-twice: 1",
            "x-twice: 2",
        ]
    );
}

#[tokio::test]
async fn caller_gets_no_headers_of_the_hop_or_for_browsers() {
    let origin = api(Upstream::Http1, |_| async {
        Response::builder()
            .status(StatusCode::IM_A_TEAPOT)
            .header("set-cookie", "session=1")
            .header("set-cookie", "other=2")
            .header("access-control-allow-origin", "*")
            .header("access-control-allow-credentials", "true")
            .header("access-control-of-the-future", "yes")
            .header("alt-svc", "h2=\":443\"")
            .header("sidecar-error", "not so")
            .header("connection", "x-named")
            .header("x-named", "1")
            .header("keep-alive", "timeout=5")
            .header("proxy-authenticate", "Basic")
            .header("upgrade", "h2c")
            .header("date", "today")
            .header("etag", "\"1\"")
            .header("x-twice", "1")
            .header("x-twice", "2")
            .body(full("tea"))
            .unwrap()
    })
    .await;
    let sidecar = Sidecar::before(&origin).await;
    let expected = ["content-length: 3", "date: today", "etag: \"1\"", "x-twice: 1", "x-twice: 2"];
    for answer in [sidecar.send(get("/")).await, sidecar.send_over_http2(get("/")).await] {
        assert_eq!(answer.status(), StatusCode::IM_A_TEAPOT);
        assert_eq!(lines(answer.headers()), expected);
        assert_eq!(read(answer.into_body()).await, "tea");
    }
}

#[tokio::test]
async fn response_to_head_keeps_its_content_length() {
    let origin = api(Upstream::Http1, |_| async {
        Response::builder().header("content-length", "1234").body(full("")).unwrap()
    })
    .await;
    let sidecar = Sidecar::before(&origin).await;
    let answer = sidecar.send(Request::head("/").body(full("")).unwrap()).await;
    assert_eq!(answer.headers()["content-length"], "1234");
    assert_eq!(read(answer.into_body()).await, "");
}

#[tokio::test]
async fn contradicting_lengths_are_not_forwarded() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await;
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n";
        let answer = format!("{head}5\r\nhello\r\n0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await;
    });
    let sidecar = Sidecar::before(&origin).await;
    let answer = sidecar.send(get("/")).await;
    assert!(!answer.headers().contains_key("content-length"));
    assert_eq!(read(answer.into_body()).await, "hello");
}

#[tokio::test]
async fn repeated_length_is_forwarded_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await;
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await;
    });
    let sidecar = Sidecar::before(&origin).await;
    let answer = sidecar.send_over_http2(get("/")).await;
    assert_eq!(answer.headers().get_all("content-length").iter().count(), 1);
    assert_eq!(read(answer.into_body()).await, "hello");
}

#[tokio::test]
async fn rejected_request_is_sent_again_with_its_body() {
    let origin = api(Upstream::Http1, |request| async move {
        if token_of(&request) == "Bearer t1" {
            return rejection();
        }
        let token = token_of(&request).to_owned();
        Response::new(full(format!("{token}: {}", read(request.into_body()).await)))
    })
    .await;
    let sidecar = Sidecar::before(&origin).await;
    let answer = sidecar.send(post("/", full("a body"))).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(read(answer.into_body()).await, "Bearer t2: a body");
}

#[tokio::test]
async fn both_directions_flow_before_either_ends() {
    for upstream in [Upstream::Http1, Upstream::Http2, Upstream::Tls, Upstream::TlsHttp1] {
        let origin = api(upstream, |request| async move {
            let body = request.into_body().map_err(Into::into).boxed_unsync();
            Response::new(body)
        })
        .await;
        let sidecar = Sidecar::before_upstream(&origin, upstream).await;
        for over_http2 in [false, true] {
            let (sender, body) = channel();
            let request = post("/", body);
            let answer = match over_http2 {
                true => sidecar.send_over_http2(request).await,
                false => sidecar.send(request).await,
            };
            let mut answer = answer.into_body();
            for text in ["one", "two", "three"] {
                sender.send(Frame::data(Bytes::from(text))).unwrap();
                assert_eq!(next(&mut answer).await, text, "{upstream:?} {over_http2}");
            }
            drop(sender);
            assert_eq!(read(answer).await, "");
        }
    }
}

#[tokio::test]
async fn tls_negotiates_the_newest_http_version_of_the_api() {
    for (upstream, version) in
        [(Upstream::Tls, Version::HTTP_2), (Upstream::TlsHttp1, Version::HTTP_11)]
    {
        let origin = api(upstream, move |request| async move {
            assert_eq!(request.version(), version);
            if token_of(&request) == "Bearer t1" {
                return rejection();
            }
            Response::new(full(read(request.into_body()).await))
        })
        .await;
        let sidecar = Sidecar::before_upstream(&origin, upstream).await;
        let answer = sidecar.send(post("/", full("a body"))).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(read(answer.into_body()).await, "a body");
    }
}

#[tokio::test]
async fn rejected_grpc_call_is_sent_again_with_its_trailers() {
    let origin = api(Upstream::Tls, |request| async move {
        assert_eq!(request.version(), Version::HTTP_2);
        assert_eq!(request.headers()["te"], "trailers");
        assert_eq!(request.headers()["via"], "2 sidecar");
        let response = Response::builder().header("content-type", "application/grpc");
        if token_of(&request) == "Bearer t1" {
            // As grpcio and tonic refuse.
            return response.header("grpc-status", "16").body(full("")).unwrap();
        }
        let body = request.into_body().collect().await.unwrap();
        let sent = body.trailers().unwrap()["x-sent"].clone();
        let trailers = HeaderMap::from_iter([
            ("grpc-status".parse().unwrap(), "0".parse().unwrap()),
            ("x-sent".parse().unwrap(), sent),
        ]);
        let (sender, answer) = channel();
        sender.send(Frame::data(body.to_bytes())).unwrap();
        sender.send(Frame::trailers(trailers)).unwrap();
        response.body(answer).unwrap()
    })
    .await;
    let sidecar = Sidecar::before_upstream(&origin, Upstream::Tls).await;
    let (sender, body) = channel();
    sender.send(Frame::data(Bytes::from("message"))).unwrap();
    let trailers = HeaderMap::from_iter([("x-sent".parse().unwrap(), "yes".parse().unwrap())]);
    sender.send(Frame::trailers(trailers)).unwrap();
    drop(sender);
    let request = Request::post("/package.Service/Method")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap();
    let answer = sidecar.send_over_http2(request).await;
    assert!(!answer.headers().contains_key("grpc-status"));
    let body = soon(answer.into_body().collect()).await.unwrap();
    assert_eq!(lines(body.trailers().unwrap()), ["grpc-status: 0", "x-sent: yes"]);
    assert_eq!(body.to_bytes(), "message");
}

#[tokio::test]
async fn trailers_pass_over_http_1() {
    let origin = api(Upstream::Http1, |_| async {
        let (sender, answer) = channel();
        sender.send(Frame::data(Bytes::from("body"))).unwrap();
        let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())]);
        sender.send(Frame::trailers(trailers)).unwrap();
        Response::builder().header("trailer", "x-sum").body(answer).unwrap()
    })
    .await;
    let sidecar = Sidecar::before(&origin).await;
    let answer = sidecar.ask("GET / HTTP/1.1\nhost: localhost\nte: trailers").await;
    assert!(answer.ends_with("\r\n0\r\nx-sum: 1\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn trailers_of_a_response_follow_the_rules_of_headers() {
    let origin = api(Upstream::Http2, |_| async {
        let (sender, answer) = channel();
        let trailers = ["set-cookie", "access-control-allow-origin", "sidecar-error", "x-sum"];
        let trailers = trailers.map(|name| (name.parse().unwrap(), "1".parse().unwrap()));
        sender.send(Frame::trailers(HeaderMap::from_iter(trailers))).unwrap();
        Response::new(answer)
    })
    .await;
    let sidecar = Sidecar::before_upstream(&origin, Upstream::Http2).await;
    let answer = sidecar.send_over_http2(get("/")).await;
    let body = soon(answer.into_body().collect()).await.unwrap();
    assert_eq!(lines(body.trailers().unwrap()), ["x-sum: 1"]);
}

#[tokio::test]
async fn trailers_of_a_request_follow_the_rules_of_headers() {
    let origin = api(Upstream::Http2, |request| async move {
        let rejected = token_of(&request) == "Bearer t1";
        let body = request.into_body().collect().await.unwrap();
        match rejected {
            true => rejection(),
            false => Response::new(full(lines(body.trailers().unwrap()).join(", "))),
        }
    })
    .await;
    let sidecar = Sidecar::before_upstream(&origin, Upstream::Http2).await;
    // With the first token, the second attempt is the one that counts.
    for _ in 0..2 {
        let (sender, body) = channel();
        let trailers =
            ["authorization", "cookie", "sidecar-key", "proxy-authorization", "expect", "x-sum"];
        let trailers = trailers.map(|name| (name.parse().unwrap(), "1".parse().unwrap()));
        sender.send(Frame::data(Bytes::from("body"))).unwrap();
        sender.send(Frame::trailers(HeaderMap::from_iter(trailers))).unwrap();
        drop(sender);
        let answer = sidecar.send_over_http2(post("/", body)).await;
        assert_eq!(read(answer.into_body()).await, "x-sum: 1");
    }
}

#[tokio::test]
async fn large_upload_that_is_rejected_early_is_sent_again_whole() {
    for upstream in [Upstream::Http1, Upstream::Http2] {
        let again = Arc::new(Notify::new());
        let arrived = Arc::clone(&again);
        let origin = api(upstream, move |request| {
            let again = Arc::clone(&again);
            async move {
                if token_of(&request) == "Bearer t1" {
                    return rejection();
                }
                again.notify_one();
                Response::new(full(request.into_body().collect().await.unwrap().to_bytes()))
            }
        })
        .await;
        let sidecar = Sidecar::before_upstream(&origin, upstream).await;
        let whole: Vec<u8> = (0..8 * 1024 * 1024_u32).map(|at| (at % 251) as u8).collect();
        let (sender, body) = channel();
        let (first, rest) = whole.split_at(500_000);
        sender.send(Frame::data(Bytes::copy_from_slice(first))).unwrap();
        let rest = Bytes::copy_from_slice(rest);
        tokio::spawn(async move {
            // Sooner, and more might be on its way than is kept.
            arrived.notified().await;
            sender.send(Frame::data(rest)).unwrap();
        });
        let answer = sidecar.send(post("/", body)).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(soon(answer.into_body().collect()).await.unwrap().to_bytes() == whole);
    }
}

#[tokio::test]
async fn upload_beyond_the_replay_limit_gets_the_rejection() {
    let origin = api(Upstream::Http1, |request| async move {
        match token_of(&request) == "Bearer t1" {
            true => {
                let _ = request.into_body().collect().await;
                rejection()
            }
            false => Response::new(full("")),
        }
    })
    .await;
    let sidecar = Sidecar::before(&origin).await;
    let answer = sidecar.send(post("/", full(vec![0; 2 * 1024 * 1024]))).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert!(!answer.headers().contains_key("sidecar-error"));
    assert_eq!(read(answer.into_body()).await, "rejected");
    assert_eq!(sidecar.send(post("/", full("small"))).await.status(), StatusCode::OK);
}

// ===== when there is no answer =====

#[tokio::test]
async fn token_error_is_reported_with_its_kind() {
    let (origin, mut seen) = recording_api().await;
    let later = Duration::from_secs(7);
    for (error, status, kind, retry_after) in [
        (TokenError::transient("x").with_retry_after(later), 503, "token-transient", true),
        (TokenError::ambiguous("x"), 502, "token-ambiguous", false),
        (TokenError::denied("x").with_code("invalid_grant"), 502, "token-denied", false),
        (TokenError::misconfigured("x"), 502, "token-misconfigured", false),
    ] {
        let sidecar = Sidecar::without_token(&origin, error.clone()).await;
        let answer = sidecar.send(get("/")).await;
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers()["sidecar-error"], kind);
        assert_eq!(answer.headers().contains_key("retry-after"), retry_after);
        let body = read(answer.into_body()).await;
        assert!(body.starts_with(&format!("sidecar: {error}")), "{body}");
        assert!(seen.try_recv().is_err());
        let status = status_of(&sidecar).await;
        assert_eq!(status["token"]["error"], kind);
        assert_eq!(status["requests"]["last_error"], kind);
    }
}

#[tokio::test]
async fn unreachable_api_and_broken_connection_are_distinct() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let sidecar = Sidecar::before(&origin).await;
    let breaking = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await;
    });
    let answer = sidecar.send(get("/?secret=query")).await;
    soon(breaking).await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(answer.headers()["sidecar-error"], "upstream");

    // Bound, and never listening: no other process gets the port.
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let origin = format!("http://{}", closed.local_addr().unwrap());
    let sidecar = Sidecar::before(&origin).await;
    let answer = sidecar.send(get("/?secret=query")).await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(answer.headers()["sidecar-error"], "unreachable");
    let text = read(answer.into_body()).await;
    assert!(text.contains("Connection refused") && !text.contains("secret"), "{text}");
}

#[tokio::test]
async fn slow_connection_to_the_api_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("https://{}", listener.local_addr().unwrap());
    let sidecar = Sidecar::before_upstream(&origin, Upstream::Tls).await;
    let silent = tokio::spawn(async move {
        let accepted = listener.accept().await.unwrap();
        // From here on nothing is on its way.
        tokio::time::pause();
        accepted
    });
    let answer = sidecar.send(get("/")).await;
    assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(answer.headers()["sidecar-error"], "timeout");
    drop(silent);
}

#[tokio::test]
async fn status_reports_the_state_of_the_token_without_the_token() {
    let (origin, _seen) = recording_api().await;
    let sidecar = Sidecar::before(&origin).await;
    let before = status_of(&sidecar).await;
    assert_eq!(before["token"]["state"], "missing");
    sidecar.send(get("/")).await;
    sidecar.credentials.refresh().await.unwrap();
    sidecar.ask("TRACE / HTTP/1.1\nhost: localhost").await;

    let answer = sidecar.send(get("/-/status")).await;
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let text = read(answer.into_body()).await;
    assert!(!text.contains("t1") && !text.contains("t2") && !text.contains("refresh-"), "{text}");
    let status: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status["api"], *origin);
    assert_eq!(status["token"]["state"], "fresh");
    assert_eq!(status["token"]["error"], Value::Null);
    assert_eq!(status["requests"], json!({ "answered": 1, "refused": 1, "last_error": "method" }));
    assert_eq!(status["refreshes"], json!({ "succeeded": 2, "adopted": 0, "failed": 0 }));
}

async fn status_of(sidecar: &Sidecar) -> Value {
    let answer = sidecar.send(get("/-/status")).await;
    assert_eq!(answer.status(), StatusCode::OK);
    serde_json::from_str(&read(answer.into_body()).await).unwrap()
}

// ===== the end =====

#[tokio::test]
async fn response_in_flight_is_completed_before_the_end() {
    let (frames, held) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (counted, go_on) = (Arc::clone(&frames), Arc::clone(&held));
    let origin = api(Upstream::Http1, move |_| {
        let (counted, go_on) = (Arc::clone(&counted), Arc::clone(&go_on));
        async move {
            let (sender, body) = channel();
            tokio::spawn(async move {
                sender.send(Frame::data(Bytes::from("begun, "))).unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                go_on.notified().await;
                sender.send(Frame::data(Bytes::from("ended"))).unwrap();
            });
            Response::new(body)
        }
    })
    .await;
    let sidecar = Sidecar::before(&origin).await;
    let socket = sidecar.folder.path("socket");
    let mut idle = sidecar.connect().await;
    idle.write_all(b"GET /-/status HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    assert_ne!(soon(idle.read(&mut [0; 4096])).await.unwrap(), 0);
    let mut answer = sidecar.send(get("/")).await.into_body();
    assert_eq!(next(&mut answer).await, "begun, ");

    let (serving, _folder) = sidecar.stop();
    // An idle caller is disconnected at once, and no new one is accepted.
    soon(idle.read_to_end(&mut Vec::new())).await.unwrap();
    assert!(UnixStream::connect(&socket).await.is_err());
    assert!(!socket.exists());
    assert!(!serving.is_finished());

    held.notify_one();
    assert_eq!(next(&mut answer).await, "ended");
    assert!(soon(answer.frame()).await.is_none());
    soon(serving).await.unwrap().unwrap();
    assert_eq!(frames.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn endless_response_does_not_delay_the_end_forever() {
    let origin = api(Upstream::Http1, |_| async {
        let (sender, body) = channel();
        sender.send(Frame::data(Bytes::from("begun"))).unwrap();
        Box::leak(Box::new(sender));
        Response::new(body)
    })
    .await;
    let sidecar = Sidecar::before(&origin).await;
    let mut answer = sidecar.send(get("/")).await.into_body();
    assert_eq!(next(&mut answer).await, "begun");
    let (serving, _folder) = sidecar.stop();
    tokio::time::pause();
    soon(serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn caller_with_an_unfinished_head_is_disconnected() {
    let (origin, _seen) = recording_api().await;
    let sidecar = Sidecar::before(&origin).await;
    let mut slow = sidecar.connect().await;
    slow.write_all(b"GET / HTTP/1.1\r\nhost: loc").await.unwrap();
    // The sidecar has begun to read once it has responded to a later caller.
    assert_eq!(sidecar.send(get("/")).await.status(), StatusCode::OK);
    tokio::time::pause();
    let mut end = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(60), slow.read_to_end(&mut end)).await;
    assert!(read.is_ok());
}

#[tokio::test]
async fn next_sidecar_waits_for_the_refresh_of_the_last() {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let asked = Arc::new(AtomicUsize::new(0));
    let (begins, held, counted) = (Arc::clone(&begun), Arc::clone(&go_on), Arc::clone(&asked));
    let origin = api(Upstream::Http1, move |request| {
        let (begins, held, counted) =
            (Arc::clone(&begins), Arc::clone(&held), Arc::clone(&counted));
        async move {
            if request.uri().path() != "/token" {
                return Response::new(full(token_of(&request).to_owned()));
            }
            let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
            begins.notify_one();
            held.notified().await;
            issue(number)
        }
    })
    .await;
    let folder = Folder::new();
    configure(&folder, &origin, "r0");
    let socket = folder.path("socket");
    let last = begin(&folder, "config.json", "socket").await.unwrap();
    let mut caller = UnixStream::connect(&socket).await.unwrap();
    caller.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    soon(begun.notified()).await;
    let ending = last.stop();
    soon(async { while UnixStream::connect(&socket).await.is_ok() {} }).await;

    let next = begin(&folder, "config.json", "socket").await.unwrap();
    assert!(!ending.is_finished());
    let answer = tokio::spawn(ask(socket.clone(), "/"));
    let refreshes =
        async || ask(socket.clone(), "/-/status").await.contains(r#""refreshing": true"#);
    soon(async { while !refreshes().await {} }).await;
    go_on.notify_one();
    let answer = soon(answer).await.unwrap();
    assert!(answer.contains(" 200 ") && answer.ends_with("Bearer t1"), "{answer}");
    soon(ending).await.unwrap().unwrap();
    soon(next.stop()).await.unwrap().unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn unsaved_tokens_are_used_and_reported_at_the_end() {
    let folder = Folder::new();
    let tokens = folder.path("config.tokens.json");
    let origin = api(Upstream::Http1, move |request| {
        let tokens = tokens.clone();
        async move {
            if request.uri().path() != "/token" {
                return Response::new(full(token_of(&request).to_owned()));
            }
            fs::write(tokens, "precious").unwrap();
            issue(1)
        }
    })
    .await;
    configure(&folder, &origin, "r0");
    let sidecar = begin(&folder, "config.json", "socket").await.unwrap();
    let answer = soon(ask(folder.path("socket"), "/")).await;
    assert!(answer.contains(" 200 ") && answer.ends_with("Bearer t1"), "{answer}");
    let error = soon(sidecar.stop()).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("NOT SAVED") && error.contains("config.tokens.json"), "{error}");
    assert!(!error.contains("t1") && !error.contains("r1"), "{error}");
    assert_eq!(fs::read_to_string(folder.path("config.tokens.json")).unwrap(), "precious");
}

// ===== with a configuration =====

#[tokio::test]
async fn two_sidecars_with_one_configuration_refresh_once_for_both() {
    let server = AuthorizationServer::builder().public_client("id").build();
    let serving = server.serve().await.unwrap();
    let folder = Folder::new();
    configure(&folder, &serving.origin(), server.issue_refresh_token().expose_secret());
    // A symbolic link leads to the same configuration.
    fs::create_dir(folder.path("elsewhere")).unwrap();
    let link = folder.path("elsewhere/config");
    std::os::unix::fs::symlink(folder.path("config.json"), link).unwrap();
    let one = begin(&folder, "config.json", "one").await.unwrap();
    let other = begin(&folder, "elsewhere/config", "other").await.unwrap();

    for refreshes in 1..=8 {
        let both = (ask(folder.path("one"), "/"), ask(folder.path("other"), "/"));
        let (first, second) = soon(async { tokio::join!(both.0, both.1) }).await;
        assert!(first.contains(" 200 ") && second.contains(" 200 "), "{first}{second}");
        assert_eq!(server.counters().token_requests, refreshes);
        server.revoke_all_access_tokens();
    }
    assert_eq!(server.counters().refresh_token_reuses, 0);
    assert!(server.is_unspent(&kept(&folder)));

    let (mut succeeded, mut adopted) = (0, 0);
    for socket in ["one", "other"] {
        let status = soon(ask(folder.path(socket), "/-/status")).await;
        let status = status.split_once("\r\n\r\n").unwrap().1;
        let refreshes = &serde_json::from_str::<Value>(status).unwrap()["refreshes"];
        succeeded += refreshes["succeeded"].as_u64().unwrap();
        adopted += refreshes["adopted"].as_u64().unwrap();
    }
    assert_eq!((succeeded, adopted), (8, 8));
    soon(one.stop()).await.unwrap().unwrap();
    soon(other.stop()).await.unwrap().unwrap();
}

/// A request on an idle connection that the server is closing has an unknown outcome.
#[tokio::test]
async fn each_token_request_opens_a_connection() {
    let server = AuthorizationServer::builder().public_client("id").build();
    let serving = server.serve().await.unwrap();
    let folder = Folder::new();
    configure(&folder, &serving.origin(), server.issue_refresh_token().expose_secret());
    let sidecar = begin(&folder, "config.json", "socket").await.unwrap();
    for _ in 0..4 {
        server.revoke_all_access_tokens();
        let answer = soon(ask(folder.path("socket"), "/")).await;
        assert!(answer.contains(" 200 "), "{answer}");
    }
    let counters = server.counters();
    assert_eq!(counters.token_requests, 4);
    assert!(counters.connections > 4, "{counters:?}");
    soon(sidecar.stop()).await.unwrap().unwrap();
}

#[tokio::test]
async fn restart_uses_saved_tokens_until_a_new_log_in() {
    let server = AuthorizationServer::builder().public_client("id").build();
    let serving = server.serve().await.unwrap();
    let folder = Folder::new();
    let first = server.issue_refresh_token();
    configure(&folder, &serving.origin(), first.expose_secret());
    let run = async || {
        let sidecar = begin(&folder, "config.json", "socket").await.unwrap();
        let answer = soon(ask(folder.path("socket"), "/")).await;
        soon(sidecar.stop()).await.unwrap().unwrap();
        assert!(answer.contains(" 200 "), "{answer}");
        server.counters().token_requests
    };
    assert_eq!(run().await, 1);
    assert_eq!(run().await, 1);
    server.revoke_all_access_tokens();
    assert_eq!(run().await, 2);
    // The file of the first refresh token stays unchanged.
    assert_eq!(fs::read_to_string(folder.path("token")).unwrap(), first.expose_secret());
    let mode = fs::metadata(folder.path("config.tokens.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let again = server.issue_refresh_token();
    fs::write(folder.path("token"), again.expose_secret()).unwrap();
    assert_eq!(run().await, 3);
    assert_eq!(server.refresh_token_uses(again.expose_secret()), 1);
    // A refresh token that was configured before is not sent again.
    fs::write(folder.path("token"), first.expose_secret()).unwrap();
    server.revoke_all_access_tokens();
    assert_eq!(run().await, 4);
    assert_eq!(server.refresh_token_uses(first.expose_secret()), 1);
    assert_eq!(server.counters().refresh_token_reuses, 0);
}

#[tokio::test]
async fn unusable_token_file_is_an_error_at_the_start() {
    let folder = Folder::new();
    configure(&folder, "http://127.0.0.1:9", "r0");
    let error = async |tokens: &str| {
        set(&folder, "tokens", json!(tokens));
        begin(&folder, "config.json", "socket").await.err().unwrap().to_string()
    };
    let missing = error("missing/tokens.json").await;
    assert!(missing.contains("`tokens`") && missing.contains("does not exist"), "{missing}");
    // The file of the secret is never overwritten.
    let secret = error("token").await;
    assert!(
        secret.contains("`tokens`")
            && secret.contains("nothing is saved until it is restored or moved away"),
        "{secret}"
    );
    assert!(!secret.contains("r0"), "{secret}");
    assert_eq!(fs::read_to_string(folder.path("token")).unwrap(), "r0");
    assert!(!folder.path("socket").exists());
}

/// D01, D02, D04
#[test]
fn bare_secret_is_read_and_a_wrapped_one_is_an_error() {
    let folder = Folder::new();
    let read = |content: &str| {
        fs::write(folder.path("secret"), content).unwrap();
        config::Secret::File(folder.path("secret")).read("refresh_token")
    };
    for bare in ["r0", "\u{feff}r0\r\n", " r0\n"] {
        assert_eq!(read(bare).unwrap(), "r0");
    }
    // RFC 6749 appendix A allows these in a secret.
    assert_eq!(read("a {b} \"c\"").unwrap(), "a {b} \"c\"");
    for (wrapped, what) in [
        (r#"{"refresh_token": "sesame"}"#, "JSON"),
        (r#""sesame""#, "quoted"),
        ("sesame\nsesame", "several lines"),
        ("Bearer sesame", "Bearer"),
        ("<html>sesame</html>", "HTML"),
        ("ses\u{200b}ame", "visible ASCII"),
        ("", "is empty"),
        ("\u{feff}", "is empty"),
    ] {
        let error = read(wrapped).unwrap_err().to_string();
        assert!(error.contains(what) && error.contains("`refresh_token`"), "{error}");
        assert!(!error.contains("sesame"), "{error}");
    }
}

#[test]
fn token_file_is_beside_the_configuration_by_default() {
    let folder = Folder::new();
    fs::create_dir(folder.path("elsewhere")).unwrap();
    configure(&folder, "http://127.0.0.1:9", "r0");
    let real = fs::canonicalize(folder.path("")).unwrap();
    for (name, expected) in [
        ("config.json", "config.tokens.json"),
        ("config", "config.tokens.json"),
        ("config.test", "config.test.tokens.json"),
        ("elsewhere/config.json", "elsewhere/config.tokens.json"),
    ] {
        if name != "config.json" {
            fs::copy(folder.path("config.json"), folder.path(name)).unwrap();
        }
        let config = config::Config::read(&folder.path(name)).unwrap();
        assert_eq!(config.tokens_of(&folder.path(name)).unwrap(), real.join(expected));
    }
    for (tokens, expected) in
        [("elsewhere/tokens", real.join("elsewhere/tokens")), ("/tokens", "/tokens".into())]
    {
        set(&folder, "tokens", json!(tokens));
        let config = config::Config::read(&folder.path("config.json")).unwrap();
        assert_eq!(config.tokens_of(&folder.path("config.json")).unwrap(), expected);
    }
}

#[tokio::test]
async fn files_of_a_running_sidecar_are_left_alone() {
    let folder = Folder::new();
    configure(&folder, "http://127.0.0.1:9", "r0");
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    fs::write(folder.path("key"), "of the other one").unwrap();
    let options = Options {
        config: folder.path("config.json"),
        listen: Listen::Tcp(taken.local_addr().unwrap()),
        key_file: Some(folder.path("key")),
    };
    let error = serve::Sidecar::open(options).await.err().unwrap().to_string();
    assert!(error.contains("in use"), "{error}");
    assert_eq!(fs::read_to_string(folder.path("key")).unwrap(), "of the other one");
}

#[tokio::test]
async fn rotated_token_is_saved_and_the_key_file_is_removed() {
    let server = AuthorizationServer::builder().client("id", "secret").build();
    let serving = server.serve().await.unwrap();
    let folder = Folder::new();
    fs::write(folder.path("token"), server.issue_refresh_token().expose_secret()).unwrap();
    fs::write(folder.path("secret"), "secret").unwrap();
    let config = json!({
        "token_endpoint": serving.url("/token"),
        "client_auth": {
            "method": "basic", "client_id": "id", "client_secret": { "file": folder.path("secret") },
        },
        "refresh_token": { "file": folder.path("token") },
        "api": serving.url("/somewhere/in/it"),
    });
    fs::write(folder.path("config.json"), config.to_string()).unwrap();
    let options = Options {
        config: folder.path("config.json"),
        listen: Listen::parse("tcp:127.0.0.1:0").unwrap(),
        key_file: Some(folder.path("key")),
    };
    let sidecar = serve::Sidecar::open(options).await.unwrap();
    // -H @FILE http://127.0.0.1:PORT/
    let curl = sidecar.curl.clone();
    assert!(curl.starts_with(&format!("-H '@{}' http://", folder.path("key").display())), "{curl}");
    let host = curl.rsplit('/').nth(1).unwrap().to_owned();
    let header = fs::read_to_string(folder.path("key")).unwrap();
    assert_eq!(fs::metadata(folder.path("key")).unwrap().permissions().mode() & 0o777, 0o600);
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(sidecar.serve(async {
        let _ = stopped.await;
    }));

    let mut stream = tokio::net::TcpStream::connect(&host).await.unwrap();
    let request = format!(
        "GET /v1/me HTTP/1.1\r\nhost: {host}\r\n{}\r\nconnection: close\r\n\r\n",
        header.trim()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.contains(" 200 ") && answer.contains("echo-path: /v1/me\r\n"), "{answer}");
    assert!(server.is_unspent(&kept(&folder)));
    assert_eq!(server.counters().token_requests, 1);

    let mut under_way = tokio::net::TcpStream::connect(&host).await.unwrap();
    let request = format!(
        "POST / HTTP/1.1\r\nhost: {host}\r\n{}\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n",
        header.trim()
    );
    under_way.write_all(request.as_bytes()).await.unwrap();
    assert_ne!(soon(under_way.read(&mut [0; 1024])).await.unwrap(), 0);
    stop.send(()).unwrap();
    while tokio::net::TcpStream::connect(&host).await.is_ok() {
        tokio::task::yield_now().await;
    }
    // From here on the next sidecar may listen there and write its own key.
    assert!(!folder.path("key").exists());
    drop(under_way);
    soon(running).await.unwrap().unwrap();
}

/// Returns the saved refresh token.
fn kept(folder: &Folder) -> String {
    let record = fs::read(folder.path("config.tokens.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    let token = record.pointer("/body/plain/tokens/refresh_token").unwrap();
    token.as_str().unwrap().to_owned()
}
