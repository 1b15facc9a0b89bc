//! The store over TLS, with a known certificate and with an unknown one.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower_refresh::store::{RedisStore, TokenStore as _};
use tower_refresh::testing::store_laws;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn store_keeps_the_laws_over_tls() {
    let server = Server::start();
    let mut roots = RootCertStore::empty();
    roots.add(CERTIFICATE.into()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let tls = TlsConnector::from(Arc::new(config));
    let port = server.port;
    let connect = move || {
        let tls = tls.clone();
        async move {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
            tls.connect("localhost".try_into().unwrap(), stream).await
        }
    };
    let url = server.url().replace("rediss:", "redis:");
    let open =
        async |name: &str| RedisStore::new(&url, name).unwrap().connect_with(connect.clone());
    store_laws(open).await;
}

/// R2
#[tokio::test]
async fn unknown_ca_is_misconfigured_and_nothing_is_sent() {
    let server = Server::start();
    let store = RedisStore::new(server.url(), "compass").unwrap();
    let error = store.load().await.unwrap_err();
    let message = format!("{error} {error:?}");
    assert!(error.is_misconfigured(), "{message}");
    assert!(message.contains("certificate") && message.contains("connect_with"), "{message}");
    assert!(!message.contains("sesame"), "{message}");
}

/// R2
#[tokio::test]
async fn plain_port_is_misconfigured_for_tls_and_tls_port_closes() {
    let server = Server::start();
    let plain = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("rediss://:sesame@localhost:{}/", plain.local_addr().unwrap().port());
    let answering = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut client, _) = plain.accept().unwrap();
            drop(std::io::Write::write_all(&mut client, b"-ERR Protocol error\r\n"));
        }
    });
    let store = RedisStore::new(url, "compass").unwrap();
    let error = store.load().await.unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("TLS"), "{error}");
    drop(answering);

    let url = server.url().replace("rediss:", "redis:");
    let error = RedisStore::new(url, "compass").unwrap().load().await.unwrap_err();
    assert!(error.is_unavailable() && error.to_string().contains("rediss://"), "{error}");
}

// ===== the server =====

// The tests of the crate use the same.
const CERTIFICATE: &[u8] = include_bytes!("../../../../certificates/localhost.cert.der");
const KEY: &[u8] = include_bytes!("../../../../certificates/localhost.key.der");

/// A `redis-server` that speaks only TLS and requires a password.
struct Server {
    process: Child,
    port: u16,
    folder: PathBuf,
}

impl Server {
    fn start() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);

        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tower-refresh-tls-{}-{next}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        // A killed run with the same process id may have left it behind, as in a container.
        drop(std::fs::remove_dir_all(&folder));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("certificate"), pem("CERTIFICATE", CERTIFICATE)).unwrap();
        std::fs::write(folder.join("key"), pem("PRIVATE KEY", KEY)).unwrap();
        // Another process may take the port before the server does.
        for _ in 0..10 {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            let mut process = Self::run(&folder, port);
            // The server ends if it cannot listen.
            let mut log = BufReader::new(process.stdout.take().unwrap()).lines();
            if log.any(|line| line.unwrap().contains("Ready to accept connections")) {
                return Self { process, port, folder };
            }
            process.wait().unwrap();
        }
        panic!("redis-server does not start");
    }

    fn run(folder: &Path, port: u16) -> Child {
        let program = std::env::var_os("REDIS_SERVER").unwrap_or("redis-server".into());
        Command::new(program)
            .args(["--port", "0", "--tls-port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--tls-cert-file", "certificate", "--tls-key-file", "key"])
            .args(["--tls-ca-cert-file", "certificate", "--tls-auth-clients", "no"])
            .args(["--requirepass", "sesame", "--save", "", "--maxmemory-policy", "noeviction"])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn url(&self) -> String {
        format!("rediss://:sesame@localhost:{}/", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

fn pem(what: &str, der: &[u8]) -> Vec<u8> {
    let text = STANDARD.encode(der);
    let lines: Vec<_> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", lines.join("\n")).into_bytes()
}
