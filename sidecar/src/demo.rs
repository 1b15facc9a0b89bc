//! The demo: a server, a sidecar in front of it, and a caller without a token.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tower_refresh::BoxError;
use tower_refresh::testing::AuthorizationServer;

use crate::listen::Listen;
use crate::serve::{Options, Sidecar};

pub async fn run() -> Result<(), BoxError> {
    let folder = Folder::new()?;
    let outcome = show(&folder.0).await;
    drop(folder);
    outcome
}

async fn show(folder: &Path) -> Result<(), BoxError> {
    // ===== the server: a token endpoint and an API, on loopback =====
    let server = AuthorizationServer::builder().client("sidecar", "s3cr3t").build();
    let serving = server.serve().await?;

    // ===== the sidecar, as `--config` and `--listen` would start it =====
    let refresh_token = folder.join("refresh-token");
    fs::write(&refresh_token, server.issue_refresh_token().expose_secret())?;
    let secret = folder.join("secret");
    fs::write(&secret, "s3cr3t")?;
    let config = folder.join("config.json");
    let json = json!({
        "token_endpoint": serving.url("/token"),
        "client_auth": { "method": "basic", "client_id": "sidecar", "client_secret": { "file": secret } },
        "refresh_token": { "file": refresh_token },
        "api": serving.url("/"),
    });
    fs::write(&config, json.to_string())?;
    let socket = folder.join("socket");
    let options =
        || Options { config: config.clone(), listen: Listen::Unix(socket.clone()), key_file: None };
    let sidecar = Sidecar::open(options()).await?;
    println!("curl {}\n", sidecar.curl);
    let (stop, stopped) = oneshot::channel::<()>();
    let sidecar = tokio::spawn(sidecar.serve(async {
        let _ = stopped.await;
    }));

    // ===== a caller without a token =====
    let first = post(&socket, "/v1/things", "one").await?;
    let second = post(&socket, "/v1/things", "two").await?;
    println!("\nthe server revokes the access token\n");
    server.revoke_all_access_tokens();
    let third = post(&socket, "/v1/things", "three").await?;
    println!();
    let status = get(&socket, "/-/status").await?;
    print!("\n{}", String::from_utf8_lossy(status.body()));

    let _ = stop.send(());
    sidecar.await??;
    let is_gone = !socket.exists();

    // ===== a second sidecar, which uses the tokens of the first =====
    println!("\nthe sidecar ends, and another one begins with the same configuration\n");
    let sidecar = Sidecar::open(options()).await?;
    let (stop, stopped) = oneshot::channel::<()>();
    let sidecar = tokio::spawn(sidecar.serve(async {
        let _ = stopped.await;
    }));
    let fourth = post(&socket, "/v1/things", "four").await?;
    let asked_again = server.counters().token_requests;
    println!("\nthe server revokes the access token\n");
    server.revoke_all_access_tokens();
    let fifth = post(&socket, "/v1/things", "five").await?;
    let _ = stop.send(());
    sidecar.await??;

    // ===== the result =====
    let counters = server.counters();
    let promises = [
        (
            "each request is answered",
            [&first, &second, &third, &fourth, &fifth].iter().all(|a| a.status().is_success()),
        ),
        ("the body is sent again", third.body() == "three"),
        ("the revocations were noticed", counters.resource_requests_unauthorized == 2),
        ("and each cost one refresh", counters.token_requests == 3),
        ("the second sidecar asked for nothing at first", asked_again == 2),
        ("no refresh token was spent twice", counters.refresh_token_reuses == 0),
        ("the socket is gone", is_gone && !socket.exists()),
    ];
    let broken: Vec<_> = promises.iter().filter(|(_, kept)| !kept).map(|(what, _)| *what).collect();
    if broken.is_empty() {
        println!("\nevery promise was kept");
        return Ok(());
    }
    Err(format!("broken: {}", broken.join("; ")).into())
}

async fn get(socket: &Path, path: &str) -> Result<Response<Bytes>, BoxError> {
    send(socket, Request::get(path).body(Full::default())?).await
}

async fn post(socket: &Path, path: &str, body: &'static str) -> Result<Response<Bytes>, BoxError> {
    send(socket, Request::post(path).body(Full::from(body))?).await
}

/// Sends a request as curl does: on a connection of its own, to the host of the URL.
async fn send(
    socket: &Path,
    mut request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, BoxError> {
    let stream = UnixStream::connect(socket).await?;
    let (mut caller, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    request.headers_mut().insert(HOST, http::HeaderValue::from_static("localhost"));
    let what = format!("{} {}", request.method(), request.uri());
    let answer = caller.send_request(request).await?;
    let (head, body) = answer.into_parts();
    let token = head.headers.get("echo-token").and_then(|token| token.to_str().ok());
    let token = token.map(|token| format!(", the API saw token {token}")).unwrap_or_default();
    println!("{what}: {}{token}", head.status);
    Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
}

/// A folder that only this user can enter, for as long as the demo takes.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, BoxError> {
        use std::os::unix::fs::DirBuilderExt as _;
        let path =
            std::env::temp_dir().join(format!("tower-refresh-sidecar-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
