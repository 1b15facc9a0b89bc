//! Which APIs and token endpoints the sidecar can reach: behind a private CA, and in HTTP/2 without TLS.

use std::convert::Infallible;
use std::process::Command;
use std::{env, fs};

use http::{Response, Version};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::*;

const CERTIFICATE: &str = include_str!("../support/localhost.cert.pem");
const OTHER: &str = include_str!("../support/other.cert.pem");
const DER: &[u8] = include_bytes!("../support/localhost.cert.der");

// ===== private CAs =====

/// X5.
#[tokio::test]
async fn private_ca_is_trusted_by_token_endpoint_and_api() {
    let folder = Folder::new();
    configure(&folder, &tls_api().await, "r0");
    let answer = answer(&folder).await;
    assert!(answer.contains("sidecar-error: token-"), "{answer}");
    assert!(answer.contains("invalid peer certificate"), "{answer}");

    // A relative path begins at the configuration. Text and other certificates may stand before the one that counts.
    fs::create_dir(folder.path("ca")).unwrap();
    fs::write(folder.path("ca/ca.pem"), format!("# ours\n{OTHER}\n{CERTIFICATE}")).unwrap();
    set(&folder, "ca", json!("ca/ca.pem"));
    assert!(self::answer(&folder).await.ends_with("Bearer t1"));
    set(&folder, "ca", json!(folder.path("ca/ca.pem")));
    assert!(self::answer(&folder).await.ends_with("Bearer t1"));
}

/// X5.
#[tokio::test]
async fn error_names_the_ca_file_and_its_flaw() {
    let folder = Folder::new();
    configure(&folder, "https://127.0.0.1:9", "r0");
    set(&folder, "ca", json!("ca.pem"));
    let error = async || begin(&folder, "config.json", "socket").await.err().unwrap().to_string();
    let missing = error().await;
    assert!(
        missing.contains("field `ca`") && missing.contains("ca.pem cannot be read"),
        "{missing}"
    );

    let key = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
    let no_certificate = "-----BEGIN CERTIFICATE-----\nc2VjcmV0\n-----END CERTIFICATE-----\n";
    for (content, flaw) in [
        (&b""[..], "is not PEM"),
        (b"c2VjcmV0", "is not PEM"),
        (DER, "is not PEM"),
        (key.as_bytes(), "has a private key and no certificate"),
        (b"-----BEGIN X509 CRL-----\nc2VjcmV0\n-----END X509 CRL-----\n", "has no certificate"),
        (&CERTIFICATE.as_bytes()[..200], "its PEM cannot be read"),
        (
            b"-----BEGIN CERTIFICATE-----\n&&&\n-----END CERTIFICATE-----\n",
            "its PEM cannot be read",
        ),
        (no_certificate.as_bytes(), "cannot be used (number 1)"),
        (format!("{CERTIFICATE}{no_certificate}").as_bytes(), "cannot be used (number 2)"),
    ] {
        fs::write(folder.path("ca.pem"), content).unwrap();
        let error = error().await;
        assert!(error.contains("field `ca`") && error.contains("ca.pem"), "{error}");
        assert!(error.contains(flaw), "{flaw}: {error}");
        assert!(!error.contains("c2VjcmV0"), "{error}");
    }
    assert!(!folder.path("socket").exists());
}

/// X5: editors of Windows write a byte order mark, and the first certificate would be passed over.
#[tokio::test]
async fn ca_file_may_begin_with_a_byte_order_mark() {
    let folder = Folder::new();
    configure(&folder, &tls_api().await, "r0");
    set(&folder, "ca", json!("ca.pem"));
    for (name, content) in [("alone", String::new()), ("bundle", OTHER.to_owned())] {
        let content = format!("\u{feff}{}{content}", CERTIFICATE.replace('\n', "\r\n"));
        fs::write(folder.path("ca.pem"), content).unwrap();
        assert!(self::answer(&folder).await.ends_with("Bearer t1"), "{name}");
    }
}

/// X5: in a process of its own, since the environment belongs to the whole process.
#[tokio::test]
async fn ssl_cert_file_is_trusted_instead_of_the_system() {
    if let Some(outcome) = env::var_os("SIDECAR_TEST_OUTCOME") {
        let folder = Folder::new();
        configure(&folder, &tls_api().await, "r0");
        let text = match begin(&folder, "config.json", "socket").await {
            Ok(_) => ask(folder.path("socket"), "/").await,
            Err(error) => error.to_string(),
        };
        fs::write(outcome, text).unwrap();
        return;
    }
    let folder = Folder::new();
    fs::write(folder.path("roots.pem"), CERTIFICATE).unwrap();
    fs::write(folder.path("empty.pem"), "").unwrap();
    let ask_with = |roots: &str| {
        let mut child = Command::new(env::current_exe().unwrap());
        child.args(["--exact", "reach::ssl_cert_file_is_trusted_instead_of_the_system"]);
        child.env("SIDECAR_TEST_OUTCOME", folder.path("outcome"));
        child.env("SSL_CERT_FILE", folder.path(roots)).env_remove("SSL_CERT_DIR");
        assert!(child.output().unwrap().status.success());
        fs::read_to_string(folder.path("outcome")).unwrap()
    };
    let answer = ask_with("roots.pem");
    assert!(answer.ends_with("Bearer t1"), "{answer}");
    for wrong in ["missing.pem", "empty.pem"] {
        let error = ask_with(wrong);
        assert!(error.starts_with("SSL_CERT_FILE: ") && error.contains(wrong), "{error}");
    }
}

/// An API and a token endpoint behind a certificate that no system trusts.
async fn tls_api() -> String {
    api(Upstream::Tls, |request| async move {
        match request.uri().path() {
            "/token" => issue(1),
            _ => Response::new(full(token_of(&request).to_owned())),
        }
    })
    .await
}

/// The answer that a caller of a new sidecar gets.
async fn answer(folder: &Folder) -> String {
    let sidecar = begin(folder, "config.json", "socket").await.unwrap();
    let answer = soon(ask(folder.path("socket"), "/")).await;
    soon(sidecar.stop()).await.unwrap().unwrap();
    answer
}

// ===== HTTP/2 without TLS =====

/// X7.
#[tokio::test]
async fn plaintext_http_2_is_spoken_with_prior_knowledge() {
    let folder = Folder::new();
    let endpoint = api(Upstream::Http1, |_| async { issue(1) }).await;
    configure(&folder, &endpoint, "r0");
    set(&folder, "api", json!(http2_only_api().await));
    let without = answer(&folder).await;
    assert!(without.contains(" 502 "), "{without}");
    assert!(without.contains("sidecar-error: protocol\r\n"), "{without}");
    assert!(without.contains("set `http2` to `prior_knowledge`"), "{without}");

    set(&folder, "http2", json!("prior_knowledge"));
    let with = answer(&folder).await;
    assert!(with.contains(" 200 ") && with.ends_with("Bearer t1 over HTTP/2.0"), "{with}");
}

/// X7.
#[tokio::test]
async fn http2_field_has_one_value() {
    let folder = Folder::new();
    configure(&folder, "http://127.0.0.1:9", "r0");
    set(&folder, "http2", json!(true));
    let error = begin(&folder, "config.json", "socket").await.err().unwrap().to_string();
    assert!(error.contains("field `http2`"), "{error}");
}

/// An API that knows no HTTP/1.1.
async fn http2_only_api() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(async |request| {
                assert_eq!(request.version(), Version::HTTP_2);
                let token = format!("{} over {:?}", token_of(&request), request.version());
                Ok::<_, Infallible>(Response::new(full(token)))
            });
            let http = http2::Builder::new(TokioExecutor::new());
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
        }
    });
    origin
}
