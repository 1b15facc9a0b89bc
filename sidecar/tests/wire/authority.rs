//! The names by which callers ask for the sidecar over a Unix socket.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::*;

/// X6: clients without a host name of the socket send its path.
#[tokio::test]
async fn percent_encoded_path_of_the_socket_is_its_name() {
    let (origin, mut seen) = recording_api().await;
    let sidecar = Sidecar::before(&origin).await;
    let path = sidecar.folder.path("socket").display().to_string();
    let folder = path.rsplit('/').nth(1).unwrap();
    for name in [
        path.replace('/', "%2F"),
        path.replace('/', "%2f"),
        path[1..].replace('/', "%2F"),
        path.bytes().map(|byte| format!("%{byte:02X}")).collect(),
        format!("{folder}%2Fsocket"),
        "socket".to_owned(),
    ] {
        let answer = sidecar.ask(&format!("GET / HTTP/1.1\nhost: {name}")).await;
        assert!(answer.contains(" 200 "), "{name}: {answer}");
        assert_eq!(seen.recv().await.unwrap().headers()["host"], origin["http://".len()..]);
    }
    for name in [
        format!("{}.old", path.replace('/', "%2F")),
        path.rsplit_once('/').unwrap().0.replace('/', "%2F"),
        format!("x{folder}%2Fsocket"),
        "ocket".to_owned(),
        "socket:80".to_owned(),
        "%2Fsocket".to_owned(),
        "%".to_owned(),
        "%2".to_owned(),
        "%+Fsocket".to_owned(),
        "%zzsocket".to_owned(),
    ] {
        let answer = sidecar.ask(&format!("GET / HTTP/1.1\nhost: {name}")).await;
        assert!(answer.contains("sidecar-error: host\r\n"), "{name}: {answer}");
    }
    assert!(seen.try_recv().is_err());
}

/// X6: protection from DNS rebinding.
#[tokio::test]
async fn no_path_is_a_name_over_tcp() {
    let (origin, mut seen) = recording_api().await;
    let sidecar = Sidecar::over_tcp(&origin).await;
    let key = sidecar.key.clone().unwrap();
    for name in ["socket", "localhost", "%2Fsocket", ""] {
        let answer = sidecar.ask(&format!("GET / HTTP/1.1\nhost: {name}\n{key}")).await;
        assert!(answer.contains("sidecar-error: host\r\n"), "{name}: {answer}");
    }
    assert!(seen.try_recv().is_err());
}

/// X6: as grpcio 1.85 sends it with `grpc.default_authority`, and for `unix:socket`.
#[tokio::test]
async fn call_of_grpcio_is_answered() {
    let (origin, mut seen) = recording_api().await;
    let sidecar = Sidecar::before(&origin).await;
    for authority in ["localhost", "socket"] {
        let answer = call(&sidecar, authority).await;
        assert!(answer.contains("from the API"), "{authority}: {answer:?}");
        assert_eq!(seen.recv().await.unwrap().headers()["te"], "trailers");
    }
}

/// X6: hyper resets the stream before the sidecar sees the request, since such an authority is no host.
#[tokio::test]
async fn call_of_grpcio_with_a_path_as_authority_is_reset() {
    let (origin, mut seen) = recording_api().await;
    let sidecar = Sidecar::before(&origin).await;
    let path = sidecar.folder.path("socket").display().to_string();
    let answer = call(&sidecar, &path[1..].replace('/', "%2F")).await;
    // RST_STREAM of stream 1: PROTOCOL_ERROR.
    assert!(answer.contains("\0\0\x04\x03\0\0\0\0\x01\0\0\0\x01"), "{answer:?}");
    assert!(seen.try_recv().is_err());
}

/// Sends the bytes of grpcio's client for a call without a message, and returns all that is answered.
async fn call(sidecar: &Sidecar, authority: &str) -> String {
    let mut head = b"@\x05:path\x06/a.B/C@\x0a:authority".to_vec();
    head.push(authority.len().try_into().unwrap());
    head.extend(authority.bytes());
    head.extend(b"\x83\x86@\x0ccontent-type\x10application/grpc@\x02te\x08trailers");
    let mut frames = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    // HEADERS with END_HEADERS, then DATA with END_STREAM.
    frames.extend([0, 0, head.len().try_into().unwrap(), 1, 4, 0, 0, 0, 1]);
    frames.extend(head);
    frames.extend(b"\0\0\x05\0\x01\0\0\0\x01\0\0\0\0\0");
    let mut stream = sidecar.connect().await;
    stream.write_all(&frames).await.unwrap();
    let (mut answer, mut part) = (Vec::new(), [0; 1024]);
    let is_end = |answer: &[u8]| {
        let reset = b"\0\0\x04\x03\0\0\0\0\x01";
        [&b"from the API"[..], reset]
            .iter()
            .any(|end| answer.windows(end.len()).any(|it| it == *end))
    };
    while !is_end(&answer) {
        let length = soon(stream.read(&mut part)).await.unwrap();
        assert_ne!(length, 0, "{answer:?}");
        answer.extend(&part[..length]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}
