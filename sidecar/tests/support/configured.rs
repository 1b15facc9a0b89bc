//! A sidecar that a configuration describes, as the program begins it.

use std::fs;
use std::path::PathBuf;

use http::Response;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower_refresh::BoxError;

use super::{Body, Folder, full};
use tower_refresh_sidecar::listen::Listen;
use tower_refresh_sidecar::serve::{Options, Sidecar};

/// Writes a configuration of a public client, and its first refresh token.
pub fn configure(folder: &Folder, origin: &str, refresh_token: &str) {
    let config = json!({
        "token_endpoint": format!("{origin}/token"),
        "client_auth": { "method": "public", "client_id": "id" },
        "refresh_token": { "file": folder.path("token") },
        "api": origin,
    });
    fs::write(folder.path("token"), refresh_token).unwrap();
    fs::write(folder.path("config.json"), config.to_string()).unwrap();
}

/// Sets a field of the configuration.
pub fn set(folder: &Folder, field: &str, value: Value) {
    let text = fs::read_to_string(folder.path("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config[field] = value;
    fs::write(folder.path("config.json"), config.to_string()).unwrap();
}

/// A sidecar that was begun with a configuration.
pub struct Begun {
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), BoxError>>,
}

impl Begun {
    pub fn stop(self) -> JoinHandle<Result<(), BoxError>> {
        self.stop.send(()).unwrap();
        self.serving
    }
}

pub async fn begin(folder: &Folder, config: &str, socket: &str) -> Result<Begun, BoxError> {
    let options = Options {
        config: folder.path(config),
        listen: Listen::Unix(folder.path(socket)),
        key_file: None,
    };
    let sidecar = Sidecar::open(options).await?;
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(sidecar.serve(async {
        let _ = stopped.await;
    }));
    Ok(Begun { stop, serving })
}

pub async fn ask(socket: PathBuf, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Returns the answer of a token endpoint: the tokens `t1` and `r1`, and so on.
pub fn issue(number: usize) -> Response<Body> {
    let tokens = json!({
        "access_token": format!("t{number}"), "token_type": "Bearer", "expires_in": 3600,
        "refresh_token": format!("r{number}"),
    });
    let json = Response::builder().header("content-type", "application/json");
    json.body(full(tokens.to_string())).unwrap()
}
