//! A private Redis.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::time::Duration;

use redis::{Commands as _, Connection, FromRedisValue, RedisResult};

use super::program::{Program, on_a_free_port, pause, skip};

/// If this variable is set, a missing `redis-server` is an error.
const REQUIRED: &str = "TOWER_REFRESH_REQUIRE_REDIS";

/// A `redis-server` on a free port of loopback, in a folder of its own. It ends with its handle, and with the test.
pub struct RedisServer {
    port: u16,
    folder: PathBuf,
    settings: Vec<String>,
    running: Option<Program>,
}

impl RedisServer {
    /// Starts one that persists every write, or reports that it is skipped. The folder is created, and removed at the end.
    pub fn start(folder: &Path) -> Option<Self> {
        Self::start_with(folder, &["--appendonly", "yes", "--appendfsync", "always"])
    }

    pub fn start_with(folder: &Path, settings: &[&str]) -> Option<Self> {
        if !is_installed() {
            return None;
        }
        // A killed run with the same process id may have left it behind, as in a container.
        drop(std::fs::remove_dir_all(folder));
        std::fs::create_dir_all(folder).unwrap();
        let settings = settings.iter().map(ToString::to_string).collect();
        let mut server = Self { port: 0, folder: folder.to_owned(), settings, running: None };
        let running = on_a_free_port("redis-server", |port| {
            server.port = port;
            server.run()
        });
        server.running = Some(running);
        Some(server)
    }

    /// Restarts it on the same port and folder.
    pub fn start_again(&mut self) {
        self.running = self.run();
        assert!(self.running.is_some(), "redis-server does not start again");
    }

    /// Ends it like a power cut.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// Deletes its data.
    pub fn lose_everything(&self) {
        std::fs::remove_dir_all(&self.folder).unwrap();
        std::fs::create_dir_all(&self.folder).unwrap();
    }

    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        assert!(self.running.as_ref().unwrap().signal(signal));
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Sends a command without the store.
    pub fn ask<T: FromRedisValue>(&self, command: &[&str]) -> T {
        self.try_ask(command).unwrap()
    }

    fn try_ask<T: FromRedisValue>(&self, command: &[&str]) -> RedisResult<T> {
        let mut asked = redis::cmd(command[0]);
        asked.arg(&command[1..]);
        asked.query(&mut self.connect()?)
    }

    pub fn field(&self, key: &str, field: &str) -> Option<String> {
        self.connect().unwrap().hget(key, field).unwrap()
    }

    fn connect(&self) -> RedisResult<Connection> {
        redis::Client::open(self.url())?.get_connection_with_timeout(Duration::from_secs(5))
    }

    fn run(&self) -> Option<Program> {
        let mut server = Command::new(program());
        server
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", "", "--dir"])
            .arg(&self.folder)
            .args(&self.settings);
        let running = Program::start(&server, "KILL", &self.folder);
        let is_renamed = self.settings.iter().any(|setting| setting == "TELL");
        for _ in 0..1000 {
            match self.try_ask::<String>(&[if is_renamed { "TELL" } else { "INFO" }]) {
                // It answers before it has loaded its data.
                Ok(info) if info.contains("\r\nloading:1\r") => pause(),
                Ok(info) if info.contains(&format!("process_id:{}\r", running.pid())) => {
                    return Some(running);
                }
                // The port belongs to another server.
                Ok(_) => break,
                // With a password, it is up as well.
                Err(error) if error.code() == Some("NOAUTH") => return Some(running),
                Err(_) => pause(),
            }
        }
        None
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

fn program() -> OsString {
    std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

fn is_installed() -> bool {
    static REPORT: Once = Once::new();

    let version = Command::new(program()).arg("--version").stdout(Stdio::null()).status();
    if version.is_ok_and(|status| status.success()) {
        return true;
    }
    skip(
        &REPORT,
        REQUIRED,
        "Redis, which needs `redis-server`; `tests/third_party/redis/run` installs it",
    );
    false
}
