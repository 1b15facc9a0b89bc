//! Responses whose body ends badly, or is compressed although the request did not accept it.
#![allow(clippy::disallowed_methods, reason = "reads tokio's paused clock")]

use std::convert::Infallible;
use std::future::ready;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use futures_util::stream::{self, StreamExt as _};
use http_body_util::{BodyExt, Full};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tower::service_fn;
use tower_refresh::oauth2::{Dialect, RefreshTokenGrant, TokenEndpoint};
use tower_refresh::{Cause, Renewal, TokenError, TokenSet, TokenSource as _};

use crate::scripted::{self, Reply, answer, answer_with, endpoint, response};

const JSON: &str = r#"{"access_token":"a-second","refresh_token":"r-second","note":"}"}"#;
const DENIED: &str = r#"{"error":"invalid_grant"}"#;

// ===== ends of bodies =====

/// A60
#[tokio::test]
async fn complete_json_counts_although_the_connection_ends_badly() {
    for end in [
        // No last chunk.
        format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n{JSON}\r\n", JSON.len()),
        format!("content-length: {}\r\n\r\n{JSON}", JSON.len() + 7),
        format!("content-length: {}\r\n\r\n{JSON}\n", JSON.len() + 7),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.read(&mut [0; 4096]).await.unwrap();
            let answer = format!("HTTP/1.1 200 OK\r\n{end}");
            socket.write_all(answer.as_bytes()).await.unwrap();
        });
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        check(fetch(TokenEndpoint::new(client, url).unwrap()).await);
        server.await.unwrap();
    }
}

/// A60
#[tokio::test(start_paused = true)]
async fn complete_json_counts_however_the_body_ends() {
    for text in [JSON.to_owned(), format!("\u{feff}\r\n {JSON} \n"), format!("{JSON}<!-- 3 ms -->")]
    {
        check(refresh(Reply::Cut(response(200, text.clone()))).await);
        // The body never ends, and callers do not wait for that.
        let start = Instant::now();
        check(refresh(Reply::Drip(response(200, text))).await);
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    for reply in [Reply::Cut(response(400, DENIED)), Reply::Drip(response(400, DENIED))] {
        let error = refresh(reply).await.unwrap_err();
        assert!(error.is_denied(), "{error}");
    }
}

/// A60: hyper reports `UnexpectedEof` for a body that ends with the connection, and TLS that ends without `close_notify`.
#[tokio::test]
async fn complete_json_counts_although_tls_ends_without_close_notify() {
    const CERTIFICATE: &[u8] = include_bytes!("../certificates/localhost.cert.der");
    const PRIVATE_KEY: &[u8] = include_bytes!("../certificates/localhost.key.der");
    let certificate = CertificateDer::from(CERTIFICATE);
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], PrivateKeyDer::try_from(PRIVATE_KEY).unwrap());
    let acceptor = TlsAcceptor::from(Arc::new(server.unwrap()));
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let trust = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();

    for (body, is_read) in [(JSON, true), (&JSON[..JSON.len() - 1], false)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/token", listener.local_addr().unwrap().port());
        let acceptor = acceptor.clone();
        let server = tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let mut tls = acceptor.accept(socket).await.unwrap();
            let _ = tls.read(&mut [0; 4096]).await.unwrap();
            let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{body}");
            tls.write_all(answer.as_bytes()).await.unwrap();
            tls.flush().await.unwrap();
            // The connection underneath ends, and TLS does not.
            drop(tls.into_inner());
        });
        let mut connector = HttpConnector::new_with_resolver(service_fn(|_: Name| {
            ready(Ok::<_, Infallible>(std::iter::once(([127, 0, 0, 1], 0).into())))
        }));
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(trust.clone())
            .https_only()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(connector);
        let outcome = fetch(TokenEndpoint::new(client, url).unwrap()).await;
        server.await.unwrap();
        match is_read {
            true => check(outcome),
            false => assert!(outcome.unwrap_err().is_ambiguous()),
        }
    }
}

/// A51, A57 and A60 at once: a script that prints a notice does not know the length of its response.
#[tokio::test(start_paused = true)]
async fn complete_json_after_other_text_counts_however_the_body_ends() {
    let utf_16: Vec<u8> =
        std::iter::once(0xfeff).chain(JSON.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    for body in [
        format!("Notice: Undefined index in /x.php on line 3\n{JSON}").into_bytes(),
        format!("Notice: Undefined index: a=b in /x.php on line 3 {JSON}").into_bytes(),
        format!("callback({JSON}").into_bytes(),
        format!("<br />\n<b>Warning</b>: x<br />\n{JSON}").into_bytes(),
        format!(")]}}',\n{JSON}").into_bytes(),
        serde_json::to_string(JSON).unwrap().into_bytes(),
        utf_16,
    ] {
        let shown = String::from_utf8_lossy(&body).into_owned();
        let gzipped = gzip(&body);
        for reply in [
            Reply::Cut(response(200, body.clone())),
            Reply::Drip(response(200, body.clone())),
            Reply::Cut(response(200, gzipped.clone())),
            Reply::Cut(response(200, &gzipped[..gzipped.len() - 8])),
        ] {
            let tokens = refresh(reply).await;
            check(Ok(tokens.unwrap_or_else(|error| panic!("{shown}: {error}"))));
        }
        for at in 1..body.len() - 1 {
            let cut = Reply::Cut(response(200, body[..at].to_vec()));
            assert!(refresh(cut).await.unwrap_err().is_ambiguous(), "{at}: {shown}");
        }
    }
    for (status, body) in [
        (200, r#"access_token=a&x={"access_token":"s"}&refresh_token=r-sec"#),
        (200, r#"<html><script>state = {"access_token":"a"}"#),
        (400, r#"<p>Bad gateway: {"error":"invalid_grant"}"#),
    ] {
        let error = refresh(Reply::Cut(response(status, body))).await.unwrap_err();
        assert!(error.is_ambiguous(), "{body}: {error}");
    }
}

/// A51 and A60 at once: the text before the response may be JSON too.
#[tokio::test(start_paused = true)]
async fn answer_that_comes_long_after_a_dump_is_awaited() {
    for dump in [r#"{"debug":true}"#, r#"{"debug":true,"status":"ok"}"#, "[]\n"] {
        let client = tower::service_fn(move |_: http::Request<Full<Bytes>>| async move {
            let frame =
                |text: String| Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from(text)));
            let body = stream::once(async move { frame(dump.to_owned()) }).chain(stream::once(
                async move {
                    tokio::time::sleep(Duration::from_secs(20)).await;
                    frame(JSON.to_owned())
                },
            ));
            // The body does not end either.
            let body = http_body_util::StreamBody::new(body.chain(stream::pending()));
            Ok::<_, std::io::Error>(http::Response::new(BodyExt::boxed_unsync(body)))
        });
        let start = Instant::now();
        check(fetch(TokenEndpoint::new(client, scripted::URL).unwrap()).await);
        assert!(start.elapsed() < Duration::from_secs(25), "{dump}");
    }
}

/// A60
#[tokio::test(start_paused = true)]
async fn truncated_json_and_every_form_that_ends_badly_are_lost() {
    let form = "access_token=a-second&refresh_token=r-second";
    let object = "access_token=a-second&x={}&refresh_token=r-sec";
    for at in 0..JSON.len() {
        let error = refresh(Reply::Cut(response(200, &JSON[..at]))).await.unwrap_err();
        assert!(error.is_ambiguous(), "{at}: {error}");
    }
    for text in [form, object, "<html>{}</html>", ""] {
        for reply in [Reply::Cut(response(200, text)), Reply::Drip(response(200, text))] {
            let error = refresh(reply).await.unwrap_err();
            assert!(error.is_ambiguous(), "{text}: {error}");
        }
    }
    assert!(refresh(answer(200, form)).await.is_ok());
    let error = refresh(Reply::Cut(response(400, &DENIED[..20]))).await.unwrap_err();
    assert!(error.is_ambiguous(), "{error}");
}

// ===== encodings =====

/// A59
#[tokio::test]
async fn token_requests_ask_for_no_encoding_unless_the_dialect_does() {
    let (endpoint, log) = endpoint([answer(200, JSON), answer(200, JSON)]);
    fetch(endpoint.clone()).await.unwrap();
    assert_eq!(log.last().headers()["accept-encoding"], "identity");
    let mut dialect = Dialect::rfc6749();
    dialect.extra_headers.insert("Accept-Encoding".into(), "gzip".into());
    fetch(endpoint.dialect(dialect)).await.unwrap();
    let last = log.last();
    assert_eq!(last.headers().get_all("accept-encoding").iter().collect::<Vec<_>>(), ["gzip"]);
}

/// A59
#[tokio::test(start_paused = true)]
async fn compressed_answer_that_was_not_asked_for_is_read() {
    for (encoding, body) in encoded(JSON) {
        for encoding in [encoding.to_owned(), encoding.to_uppercase(), format!("x-{encoding}")] {
            if encoding == "x-deflate" {
                continue;
            }
            check(refresh(encoded_with(200, &encoding, body.clone())).await);
        }
        // The trailer of gzip is not part of the JSON.
        let Reply::Answer(cut) = encoded_with(200, encoding, body[..body.len() - 4].to_vec())
        else {
            unreachable!()
        };
        if encoding == "gzip" {
            check(refresh(Reply::Cut(cut)).await);
        }
    }
    for (encoding, body) in encoded(DENIED) {
        assert!(refresh(encoded_with(400, encoding, body)).await.unwrap_err().is_denied());
    }
    // Without a header, and with a stale one.
    check(refresh(answer(200, gzip(JSON.as_bytes()))).await);
    let latin_1 = [JSON.replace("}\"}", "").as_bytes(), b"\xe9\"}"].concat();
    check(refresh(encoded_with(200, "gzip", latin_1)).await);
    for label in ["gzip", "br", "utf-8", "none", "identity", ""] {
        check(refresh(answer_with(200, &[("content-encoding", label)], JSON)).await);
    }
}

/// A59
#[tokio::test]
async fn compressed_answer_that_cannot_be_decoded_is_named() {
    let noise = vec![0xff, 0x02, 0x80, 0xff, 0x00];
    for (encoding, named) in [
        ("br", "`br`"),
        ("zstd", "`zstd`"),
        ("gzip, gzip", "`gzip, gzip`"),
        ("gzip", "cannot be decompressed"),
        ("deflate", "cannot be decompressed"),
    ] {
        let error = refresh(encoded_with(200, encoding, noise.clone())).await.unwrap_err();
        assert!(error.is_ambiguous(), "{encoding}: {error}");
        assert!(error.to_string().contains(named), "{error}");
        assert!(error.to_string().contains("https://as.example.com"), "{error}");
        let error = refresh(encoded_with(403, encoding, noise.clone())).await.unwrap_err();
        assert!(error.to_string().contains("403") && error.to_string().contains(named), "{error}");
    }
    let (_, gzipped) = encoded(JSON).swap_remove(0);
    let cut = gzipped[..gzipped.len() - 20].to_vec();
    let error = refresh(encoded_with(200, "gzip", cut)).await.unwrap_err();
    assert!(error.is_ambiguous(), "{error}");
}

/// A59
#[tokio::test]
async fn answer_that_is_too_long_decoded_is_not_decoded() {
    let bomb = gzip(format!(r#"{{"access_token":"{}"}}"#, "a".repeat(10_000_000)).as_bytes());
    assert!(bomb.len() < 100_000);
    let error = refresh(encoded_with(200, "gzip", bomb)).await.unwrap_err();
    assert!(error.to_string().contains("`answer_limit`"), "{error}");
}

// ===== helpers =====

fn encoded(text: &str) -> Vec<(&'static str, Vec<u8>)> {
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
    zlib.write_all(text.as_bytes()).unwrap();
    let mut raw = DeflateEncoder::new(Vec::new(), Compression::best());
    raw.write_all(text.as_bytes()).unwrap();
    vec![
        ("gzip", gzip(text.as_bytes())),
        ("deflate", zlib.finish().unwrap()),
        ("deflate", raw.finish().unwrap()),
    ]
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn encoded_with(status: u16, encoding: &str, body: Vec<u8>) -> Reply {
    let mut response = response(status, body);
    response.headers_mut().insert("content-encoding", encoding.parse().unwrap());
    Reply::Answer(response)
}

fn check(outcome: Result<TokenSet, TokenError>) {
    let tokens = outcome.unwrap();
    assert_eq!(tokens.access_token().expose_secret(), "a-second");
    assert_eq!(tokens.refresh_token().unwrap().expose_secret(), "r-second");
}

async fn refresh(reply: Reply) -> Result<TokenSet, TokenError> {
    fetch(endpoint([reply]).0).await
}

async fn fetch(endpoint: TokenEndpoint) -> Result<TokenSet, TokenError> {
    RefreshTokenGrant::new(endpoint, "r-first").fetch(Renewal::new(Cause::Missing)).await
}
