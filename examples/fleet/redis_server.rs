//! A Redis server that runs as long as the program.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::sleep;
use tower_refresh::BoxError;

pub struct RedisServer {
    url: String,
    folder: PathBuf,
    /// The shell that started the server. It stops the server when its standard input is closed, even if this program is killed.
    shell: Child,
}

impl RedisServer {
    pub async fn start() -> Result<Self, BoxError> {
        let version = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
        if !version.is_ok_and(|status| status.success()) {
            return Err("there is no `redis-server` on the PATH: install it (Debian: `apt-get install redis-server`), or set the URL of another server with `--redis redis://127.0.0.1:6379`".into());
        }
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = free.local_addr()?.port();
        drop(free);
        let folder = std::env::temp_dir().join(format!("tower-refresh-fleet-{port}"));
        std::fs::create_dir_all(&folder)?;

        // Every write is on disk before it is acknowledged, and nothing is evicted.
        let shell = Command::new("sh")
            .args(["-c", r#""$@" >/dev/null </dev/null & read _; kill $!; wait"#, "sh"])
            .args(["redis-server", "--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""])
            .args(["--maxmemory-policy", "noeviction", "--dir"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .spawn()?;
        let server = Self { url: format!("redis://127.0.0.1:{port}/"), folder, shell };
        for _ in 0..100 {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
                return Ok(server);
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err("`redis-server` did not start".into())
    }

    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
