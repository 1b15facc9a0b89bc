//! How many connections of callers are kept, and for how long.

use std::env;
use std::fs::File;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Response, StatusCode, Version};
use http_body::Frame;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use crate::support::*;
use tower_refresh_sidecar::limits::{Limits, raise_open_files};
use tower_refresh_sidecar::listen::Stream;

// ===== silent connections =====

/// X2.
#[tokio::test]
async fn connection_without_a_whole_request_is_closed() {
    let (origin, _seen) = recording_api().await;
    for sidecar in [Sidecar::before(&origin).await, Sidecar::over_tcp(&origin).await] {
        let mut silent = Vec::new();
        for sent in [
            "",
            "G",
            "GET / HTTP/1.1\r\nhost: loc",
            "POST / HTTP/1.1\r\n",
            "PRI * HTTP/2.0\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        ] {
            let mut stream = sidecar.connect().await;
            stream.write_all(sent.as_bytes()).await.unwrap();
            silent.push((sent, stream));
        }
        // The sidecar has accepted them once it answers a later connection.
        assert_eq!(sidecar.send(get("/")).await.status(), StatusCode::OK);
        tokio::time::pause();
        for (sent, mut stream) in silent {
            assert!(ends_within(11, &mut stream).await, "{sent:?} keeps its connection");
        }
        tokio::time::resume();
    }
}

/// X2: refused requests do not prolong it.
#[tokio::test]
async fn connection_that_does_not_show_the_key_is_closed() {
    let (origin, _seen) = recording_api().await;
    let sidecar = Sidecar::over_tcp(&origin).await;
    let request = format!("GET / HTTP/1.1\r\nhost: 127.0.0.1:{}\r\n\r\n", sidecar.port());
    let mut stream = sidecar.connect().await;
    assert!(exchange(&mut stream, &request).await.contains(" 401 "));
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(9)).await;
    assert!(exchange(&mut stream, &request).await.contains(" 401 "));
    assert!(ends_within(2, &mut stream).await);
}

/// X2.
#[tokio::test]
async fn silent_connections_do_not_keep_callers_out() {
    let (origin, _seen) = recording_api().await;
    let limits = impatient(4);
    for sidecar in [
        Sidecar::with_limits(&origin, limits).await,
        Sidecar::over_tcp_with_limits(&origin, limits).await,
    ] {
        let mut silent = Vec::new();
        for _ in 0..80 {
            silent.push(sidecar.connect().await);
        }
        assert_eq!(sidecar.send(get("/")).await.status(), StatusCode::OK);
    }
}

/// X2: a caller that has proved itself stays while there are connections that have not.
#[tokio::test]
async fn idle_caller_outlasts_silent_connections() {
    let (origin, _seen) = recording_api().await;
    let limits = impatient(2);
    let sidecar = Sidecar::with_limits(&origin, limits).await;
    let mut caller = sidecar.connect().await;
    let request = "GET /-/status HTTP/1.1\r\nhost: localhost\r\n\r\n";
    assert!(exchange(&mut caller, request).await.contains(" 200 "));
    for _ in 0..10 {
        let mut silent = sidecar.connect().await;
        silent.write_all(b"GET").await.unwrap();
        let next = sidecar.ask("GET /-/status HTTP/1.1\nhost: localhost").await;
        assert!(next.contains(" 200 "), "{next}");
    }
    assert!(exchange(&mut caller, request).await.contains(" 200 "));
}

// ===== idle and busy connections =====

/// X2.
#[tokio::test]
async fn idle_connection_is_closed() {
    let (origin, _seen) = recording_api().await;
    let sidecar = Sidecar::before(&origin).await;
    let mut http1 = sidecar.connect().await;
    let request = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    assert!(exchange(&mut http1, request).await.contains(" 200 "));
    let stream = TokioIo::new(sidecar.connect().await);
    let (mut http2, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let answer = http2.send_request(get("http://localhost/")).await.unwrap();
    assert_eq!(read(answer.into_body()).await, "from the API");

    tokio::time::pause();
    assert!(ends_within(61, &mut http1).await);
    let end = tokio::time::timeout(Duration::from_secs(61), connection).await;
    assert!(end.unwrap().unwrap().is_ok(), "the connection must end with GOAWAY");
}

/// X2: a caller that is stopped or has fallen asleep neither reads GOAWAY nor answers a ping.
#[tokio::test]
async fn idle_connection_of_a_caller_that_hangs_is_closed() {
    let (origin, _seen) = recording_api().await;
    let sidecar = Sidecar::before(&origin).await;
    // The rest of a request that is never completed.
    let mut http1 = sidecar.connect().await;
    let request = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    assert!(exchange(&mut http1, request).await.contains(" 200 "));
    http1.write_all(b"GET / HTTP/1.1\r\nhost: loc").await.unwrap();
    // A request over HTTP/2 by hand: preface, SETTINGS, and HEADERS of `GET /` for `localhost`.
    let mut http2 = sidecar.connect().await;
    let headers = b"\x82\x86\x84\x41\x09localhost";
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    sent.extend([0, 0, headers.len() as u8, 1, 5, 0, 0, 0, 1]);
    sent.extend(headers);
    http2.write_all(&sent).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(12).any(|bytes| bytes == b"from the API") {
        assert!(soon(http2.read_buf(&mut answer)).await.unwrap() > 0);
    }

    tokio::time::pause();
    assert!(ends_within(61, &mut http1).await, "HTTP/1.1");
    assert!(ends_within(61, &mut http2).await, "HTTP/2");
}

/// X2: an answer may take any time.
#[tokio::test]
async fn busy_connection_is_kept() {
    let (asked, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (asks, held) = (Arc::clone(&asked), Arc::clone(&go_on));
    let origin = api(Upstream::Http1, move |_| {
        let (asks, held) = (Arc::clone(&asks), Arc::clone(&held));
        async move {
            asks.notify_one();
            held.notified().await;
            Response::new(full("at last"))
        }
    })
    .await;
    let sidecar = Sidecar::before(&origin).await;
    let mut caller = sidecar.connect().await;
    caller.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    asked.notified().await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3600)).await;
    tokio::time::resume();
    go_on.notify_one();
    let mut answer = [0; 1024];
    let length = soon(caller.read(&mut answer)).await.unwrap();
    assert!(answer[..length].ends_with(b"at last"));
}

/// X3.
#[tokio::test]
async fn idle_connection_makes_room_for_a_caller_that_waits() {
    let (origin, _seen) = recording_api().await;
    let limits = impatient(1);
    let sidecar = Sidecar::with_limits(&origin, limits).await;
    let mut idle = sidecar.connect().await;
    let request = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    assert!(exchange(&mut idle, request).await.contains(" 200 "));
    assert_eq!(sidecar.send(get("/")).await.status(), StatusCode::OK);
    assert_eq!(soon(idle.read(&mut [0; 16])).await.unwrap(), 0);
}

// ===== more callers than connections =====

/// X3.
#[tokio::test]
async fn more_callers_than_connections_take_turns() {
    let (origin, most) = counting_api().await;
    // Only `Connection: close` makes room: the other limits are longer than the test.
    let hour = Duration::from_secs(3600);
    let limits = Limits { crowded_first_request: hour, crowded_idle: hour, ..Limits::new(4) };
    let sidecar = Arc::new(Sidecar::with_limits(&origin, limits).await);
    let callers: Vec<_> = (0..40).map(|_| tokio::spawn(keep_alive(Arc::clone(&sidecar)))).collect();
    let mut connections = 0;
    for caller in callers {
        connections += soon(caller).await.unwrap();
    }
    assert!(most.load(Ordering::SeqCst) <= 4);
    assert!(connections > 40, "none took turns");
    assert_eq!(keep_alive(sidecar).await, 1, "it is not crowded any more");
}

/// Sends five requests, on one connection unless the sidecar closes it. Returns the number of connections.
async fn keep_alive(sidecar: Arc<Sidecar>) -> usize {
    let mut connections = 0;
    let mut connection = None;
    for _ in 0..5 {
        let mut caller = match connection.take() {
            Some(caller) => caller,
            None => {
                connections += 1;
                let stream = TokioIo::new(sidecar.connect().await);
                let (caller, connection) = http1::handshake(stream).await.unwrap();
                tokio::spawn(connection);
                caller
            }
        };
        let mut request = get("/");
        request.headers_mut().insert("host", "localhost".parse().unwrap());
        let answer = caller.send_request(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        if !answer.headers().contains_key("connection") {
            connection = Some(caller);
        }
        assert_eq!(read(answer.into_body()).await, "counted");
    }
    connections
}

/// X3: a connection of HTTP/2 can have more requests than there are files for connections to the API.
#[tokio::test]
async fn requests_of_one_http_2_connection_wait_as_well() {
    let (origin, most) = counting_api().await;
    let sidecar = Sidecar::with_limits(&origin, Limits::new(2)).await;
    let stream = TokioIo::new(sidecar.connect().await);
    let (caller, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let requests: Vec<_> = (0..20)
        .map(|_| {
            let mut caller = caller.clone();
            tokio::spawn(async move {
                let answer = caller.send_request(get("http://localhost/")).await.unwrap();
                assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_2));
                assert!(!answer.headers().contains_key("connection"));
                assert_eq!(read(answer.into_body()).await, "counted");
            })
        })
        .collect();
    for request in requests {
        soon(request).await.unwrap();
    }
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

/// An API, and the most requests that it had at a time, each until the end of its answer.
async fn counting_api() -> (String, Arc<AtomicUsize>) {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&most);
    let origin = api(Upstream::Http1, move |_| {
        let (now, most) = (Arc::clone(&now), Arc::clone(&counted));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let (sender, body) = channel();
            sender.send(Frame::data("cou".into())).unwrap();
            tokio::spawn(async move {
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                now.fetch_sub(1, Ordering::SeqCst);
                sender.send(Frame::data("nted".into())).unwrap();
            });
            Response::new(body)
        }
    })
    .await;
    (origin, most)
}

// ===== open files =====

/// X3.
#[test]
fn soft_limit_of_open_files_is_raised_to_the_hard_limit() {
    let limit = getrlimit(Resource::Nofile);
    let lower = limit.maximum.map_or(1_000, |maximum| maximum - 1);
    setrlimit(Resource::Nofile, Rlimit { current: Some(lower), ..limit }).unwrap();
    raise_open_files().unwrap();
    let raised = getrlimit(Resource::Nofile);
    assert!(raised.current > Some(lower) || raised.current.is_none());
    assert_eq!(raised.maximum, limit.maximum);
    let connections = Limits::of_this_process().connections as u64;
    assert!(raised.current.is_none_or(|files| connections * 3 < files));
}

/// Limits under which silent and idle connections make room at once.
fn impatient(connections: usize) -> Limits {
    let once = Duration::from_millis(1);
    Limits { crowded_first_request: once, crowded_idle: once, ..Limits::new(connections) }
}

/// X3: in a process of its own, since a limit belongs to the whole process.
#[tokio::test]
async fn without_free_files_it_waits_and_goes_on() {
    if env::var_os("SIDECAR_TEST_FILES").is_none() {
        let mut child = Command::new(env::current_exe().unwrap());
        child.args(["--exact", "connections_kept::without_free_files_it_waits_and_goes_on"]);
        let output = child.args(["--nocapture"]).env("SIDECAR_TEST_FILES", "1").output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{text}");
        let complaints = text.matches("cannot accept a connection: Too many open files").count();
        assert!((1..10).contains(&complaints), "{text}");
        return;
    }
    let (origin, _seen) = recording_api().await;
    let sidecar = Sidecar::before(&origin).await;
    assert_eq!(sidecar.send(get("/")).await.status(), StatusCode::OK);
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..limit }).unwrap();
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    files.pop();
    let mut caller = sidecar.connect().await;
    caller.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    drop(files);
    assert!(soon(caller.read(&mut [0; 1024])).await.unwrap() > 0);
}

async fn ends_within(seconds: u64, stream: &mut Box<dyn Stream>) -> bool {
    let mut rest = Vec::new();
    let end = stream.read_to_end(&mut rest);
    tokio::time::timeout(Duration::from_secs(seconds), end).await.is_ok()
}

/// Sends a request and returns the result of one read of its answer.
async fn exchange(stream: &mut Box<dyn Stream>, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 16 * 1024];
    let length = soon(stream.read(&mut answer)).await.unwrap();
    String::from_utf8(answer[..length].into()).unwrap()
}
